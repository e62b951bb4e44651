"""Outlines of anomalies as annotation files give them: polygons, and runs of pixels in COCO's coding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from draem.errors import ImageError

Polygon = tuple[float, ...]
"""x1, y1, x2, y2, …: the corners, in pixels; the first pixel lies between 0 and 1, its centre at 0.5."""
Run = str | tuple[int, ...]
"""Lengths of runs of normal and anomalous pixels in turn, column by column: numbers, or COCO's text of them."""

LARGEST = 2**28
"""Pixels of an image that outlines are drawn for: a wrong size in a file is not to take all memory."""
_MOST_DRAWN = 2**33
"""Pixels of all outlines of an image together: more is no annotation, and would take minutes."""


@dataclass(frozen=True)
class Shapes:
    """The outlines of one image, and where they are told."""

    place: str
    """The file and the entry, for errors."""
    size: tuple[int, int]
    """Height and width that the coordinates speak of."""
    polygons: tuple[Polygon, ...] = ()
    runs: tuple[Run, ...] = ()

    def draw(self) -> NDArray[np.bool_]:
        """H×W bool: True in any of the shapes.

        Raises:
            ImageError: a shape lies outside of the image, or its runs are not those of an image of this size.
        """
        polygons = [np.array(polygon).reshape(-1, 2) for polygon in self.polygons]
        area = self.size[0] * self.size[1]
        if sum(_effort(corners, self.size) for corners in polygons) + len(self.runs) * area > _MOST_DRAWN:
            raise ImageError(f"{self.place}: more outlines than can be drawn")
        mask = np.zeros(self.size, bool)
        for corners in polygons:
            self._fill(mask, corners)
        for run in self.runs:
            mask |= self._runs(run)
        return mask

    def _fill(self, mask: NDArray[np.bool_], corners: NDArray[np.float64]) -> None:
        """Add the pixels whose centre lies inside, by the number of edges to its left."""
        height, width = self.size
        low, high = corners.min(axis=0), corners.max(axis=0)
        if (high <= 0).any() or low[0] >= width or low[1] >= height:
            raise ImageError(f"{self.place}: an outline lies outside of the image of {height}×{width} pixels")
        (left, top), (right, bottom) = (
            np.clip(np.floor(low), 0, (width, height)).astype(int),
            np.clip(np.ceil(high), 0, (width, height)).astype(int),
        )
        rows, columns = _crossings(corners, top, bottom)
        columns = np.clip(columns, left, right) - left
        room = right - left + 1
        crossed = np.bincount((rows - top) * room + columns, minlength=(bottom - top) * room)
        inside = np.cumsum(crossed.reshape(bottom - top, room), axis=1) % 2 == 1
        mask[top:bottom, left:right] |= inside[:, :-1]

    def _runs(self, run: Run) -> NDArray[np.bool_]:
        height, width = self.size
        lengths = self._decoded(run) if isinstance(run, str) else np.array(run, np.int64)
        if (lengths < 0).any() or lengths.sum() != height * width:
            raise ImageError(f"{self.place}: runs of {lengths.sum()} pixels in an image of {height}×{width}")
        return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T

    def _decoded(self, text: str) -> NDArray[np.int64]:
        """COCO's text: five bits a character from 48 on, low ones first, the sixth says that more follow.

        From the fourth number on it is the difference to the one two before.
        """
        codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
        ends = np.flatnonzero((codes & 32) == 0)
        if not len(codes) or (codes < 0).any() or (codes > 63).any() or ends[-1:] != len(codes) - 1:
            raise ImageError(f"{self.place}: damaged or cut short: no runs of pixels in COCO's coding")
        starts = np.concatenate([[0], ends[:-1] + 1])
        lengths = ends - starts + 1
        if lengths.max() > 7:
            raise ImageError(f"{self.place}: runs of more pixels than any image has")
        shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
        values = np.add.reduceat((codes & 31) << shifts, starts)
        values -= ((codes[ends] >> 4) & 1) << (5 * lengths)  # the highest bit is the sign
        values = np.clip(values, -LARGEST, LARGEST)  # so that no sum overflows
        values[1::2] = np.cumsum(values[1::2])
        values[2::2] = np.cumsum(values[2::2])
        return values


def _effort(corners: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Of filling a polygon: the pixels of its box, and a thousand for each row that an edge crosses."""
    within = np.clip(corners, 0, size[::-1])
    edges = np.abs(within[:, 1] - np.roll(within[:, 1], 1)) + 1
    return float(np.ptp(within, axis=0).prod() + 1000 * edges.sum())


def _crossings(corners: NDArray[np.float64], top: int, bottom: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and first column right of each crossing of an edge with the middle of a row."""
    start, stop = corners, np.roll(corners, -1, axis=0)
    upper = np.where((start[:, 1] <= stop[:, 1])[:, None], start, stop)
    lower = np.where((start[:, 1] <= stop[:, 1])[:, None], stop, start)
    # Half-open, so that a corner between two edges is counted once.
    first = np.clip(np.ceil(upper[:, 1] - 0.5), top, bottom).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 1] - 0.5), top, bottom).astype(np.int64)
    edge = np.repeat(np.arange(len(corners)), last - first)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[edge]
    slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
    x = upper[edge, 0] + (rows + 0.5 - upper[edge, 1]) * slope
    return rows, np.ceil(np.clip(x, -1.0, 2.0**31) - 0.5).astype(np.int64)
