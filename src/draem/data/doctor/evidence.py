"""Where an image is unlike the good ones: classical features on a coarse grid, no network.

Each cell of an image is compared with the same cell of the good images, in six features: grey level, dark and bright
peaks, roughness, two colours. Where all parts lie alike, a cell knows its place; on a texture every cell is like every
other, and the same comparison holds. Faint or thin defects are below what it sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.data.doctor.facts import Facts
from draem.data.doctor.findings import Box
from draem.data.doctor.measures import BRIGHTEST, DARKEST, GRID, MEAN, ROUGHNESS
from draem.data.doctor.tails import medians

_REFERENCES = 500
_BLOCK = 256
_STRONGEST = 8
"""Cells that make an image's score: a spot of about a hundredth of its area."""


class Evidence:
    """What good images look like cell by cell, and how far others are from it."""

    def __init__(self, good: Sequence[Facts]) -> None:
        """Learn from readable good images; more than 500 are sampled evenly."""
        step = max(1, len(good) // _REFERENCES)
        known = _features([facts.look.cells for facts in good[::step] if facts.look])
        self._middle, spread = medians(known)
        # Where a cell hardly varies at all, the set's general spread keeps noise from looking like a defect.
        self._spread = spread + np.median(spread, axis=(1, 2), keepdims=True) + 1e-2

    def maps(self, images: Sequence[Facts]) -> Iterator[NDArray[np.float32]]:
        """For each readable image a GRID×GRID map of distances from good, in spreads."""
        for start in range(0, len(images), _BLOCK):
            block = [facts.look.cells for facts in images[start : start + _BLOCK] if facts.look]
            deviation = (_features(block) - self._middle) / self._spread
            yield from np.sqrt(np.mean(deviation**2, axis=1))


def strength(distances: NDArray[np.float32]) -> float:
    """Logarithm of the mean of a map's strongest cells."""
    return float(np.log(np.sort(distances, axis=None)[-_STRONGEST:].mean() + 1e-3))


def peak(distances: NDArray[np.float32]) -> Box:
    """Where a map is strongest."""
    smooth = cv2.blur(distances, (3, 3), borderType=cv2.BORDER_REFLECT)
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    left, top = (max(int(place) - 2, 0) / GRID for place in (column, row))
    return left, top, min(int(column) + 3, GRID) / GRID, min(int(row) + 3, GRID) / GRID


def _features(cells: Sequence[NDArray[np.float16]]) -> NDArray[np.float32]:
    """N×6×GRID×GRID, each plane against its median in the image: the light of a photograph is not its surface."""
    planes = np.stack(cells).astype(np.float32)
    mean = planes[:, MEAN]
    dark, bright = (
        np.log(np.maximum(peaks, 0) + 2) for peaks in (mean - planes[:, DARKEST], planes[:, BRIGHTEST] - mean)
    )
    features = np.stack([mean, dark, bright, np.log(planes[:, ROUGHNESS] + 0.5), planes[:, 4], planes[:, 5]], axis=1)
    return np.asarray(features - np.median(features, axis=(2, 3), keepdims=True), np.float32)
