"""Big images in tiles: where tiles lie, and how their maps become one. NumPy only, for every backend.

Tiles lie at multiples of a step (`Config.tile_step`): of the network's stride, where it halves tile and whole image
alike, if the overlap is such a multiple, too. They reach beyond the image's right and lower border, whose pixels are
repeated there. Where two tiles overlap, the middle of the overlap fades from one to the other; what is nearer to a
tile's border is not taken from that tile, since it knows too little of what is around it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from draem.images import extend
from draem.pixels import Images, Pixels

Item = TypeVar("Item")
Result = TypeVar("Result")

RAMP = 32
"""Pixels over which one tile fades into the next; of an overlap, half of what is left on either side is not trusted."""


@dataclass(frozen=True)
class Span:
    """Tiles along one axis.

    length: of the image in pixels. side: of a tile. starts: first pixel of each tile, ascending.
    """

    length: int
    side: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, length: int, side: int, overlap: int, step: int) -> Span:
        """As few tiles as cover `length` pixels and share at least `overlap`, evenly spread over multiples of `step`.

        Side and overlap are such multiples, too.
        """
        covered = max(-(-length // step) * step, side)
        gaps = -(-(covered - side) // (side - overlap))
        rest = (covered - side) // step
        return cls(length, side, tuple(rest * tile // max(gaps, 1) * step for tile in range(gaps + 1)))

    def weights(self, tile: int) -> NDArray[np.float32]:
        """How much each pixel of a tile counts, `side` values in [0, 1]; over all tiles they add up to 1."""
        place = np.arange(self.side, dtype=np.float64) + (self.starts[tile] + 0.5)
        before = _fade(place, *self._seam(tile)) if tile else np.ones(self.side)
        after = _fade(place, *self._seam(tile + 1)) if tile + 1 < len(self.starts) else np.zeros(self.side)
        return np.asarray(before - after, np.float32)

    def trusted(self, tile: int) -> tuple[int, int]:
        """First and last pixel of the image (excluded) that take anything from a tile."""
        first = self._seam(tile) if tile else (0.0, 0)
        last = self._seam(tile + 1) if tile + 1 < len(self.starts) else (float(self.length), 0)
        return int(first[0] - first[1] / 2), min(int(last[0] + last[1] / 2), self.length)

    def _seam(self, tile: int) -> tuple[float, int]:
        """Middle and width of the ramp between a tile and the one before it."""
        shared = self.starts[tile - 1] + self.side - self.starts[tile]
        return self.starts[tile] + shared / 2, min(shared, RAMP)


def _fade(place: NDArray[np.floating], middle: float, width: int) -> NDArray[np.float64]:
    """From 0 to 1 along a half cosine of this width; a step where it has none."""
    share = np.clip((place - middle) / max(width, 1e-9) + 0.5, 0.0, 1.0)
    return np.asarray((1.0 - np.cos(np.pi * share)) / 2.0)


@dataclass(frozen=True)
class Tiling:
    """Tiles over an image, row by row."""

    rows: Span
    columns: Span

    @classmethod
    def of(cls, image: tuple[int, int], tile: tuple[int, int], overlap: int, step: int) -> Tiling:
        """Tiles of (height, width) over an image, which share at least `overlap` pixels; see `Span.of`."""
        return cls(Span.of(image[0], tile[0], overlap, step), Span.of(image[1], tile[1], overlap, step))

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of each tile."""
        return [(top, left) for top in self.rows.starts for left in self.columns.starts]

    def cut(self, image: Pixels) -> Iterator[Pixels]:
        """The tiles of an image, H×W×C, one after the other."""
        size = self.rows.side, self.columns.side
        return (extend(image[top : top + size[0], left : left + size[1]], size) for top, left in self.corners)

    def blend(self, tiles: Iterable[Images]) -> Iterator[tuple[slice, Images]]:
        """Put tiles, C×h×w each, together: bands of the whole image, C×rows×W, from the top, with their rows.

        Of the whole, no more than a row of tiles is held at a time.
        """
        each = iter(tiles)
        carried = None
        for row, top in enumerate(self.rows.starts):
            strip, weights = self._strip([next(each) for _ in self.columns.starts]), self.rows.weights(row)
            fading = np.flatnonzero(weights < 1.0)  # few rows: the others stay as they are
            strip[:, fading] *= weights[fading, None]
            first, last = self.rows.trusted(row)
            following = self.rows.trusted(row + 1)[0] if row + 1 < len(self.rows.starts) else last
            band = strip[:, first - top : last - top]
            if carried is not None:
                band[:, : carried.shape[1]] += carried
            carried = band[:, following - first :].copy()
            yield slice(first, following), band[:, : following - first]

    def _strip(self, tiles: list[Images]) -> Images:
        """A row of tiles side by side: C×h×W."""
        strip = np.zeros((*tiles[0].shape[:2], self.columns.length), np.float32)
        for column, (left, tile) in enumerate(zip(self.columns.starts, tiles, strict=True)):
            first, last = self.columns.trusted(column)
            part = slice(first - left, last - left)
            strip[..., first:last] += tile[..., part] * self.columns.weights(column)[part]
        return strip


def batched(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """Items in lists of `count`, the last one shorter."""
    each = iter(items)
    while batch := list(islice(each, count)):
        yield batch


def in_order(work: Callable[[Item], Result], items: Iterable[Item], at_once: int) -> Iterator[Result]:
    """What `work` makes of each item, in order; `at_once` are under way, and one more waits."""
    each = iter(items)
    with ThreadPoolExecutor(at_once, thread_name_prefix="draem-tiles") as pool:
        waiting: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(each, at_once + 1))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(each, 1))
            yield result
