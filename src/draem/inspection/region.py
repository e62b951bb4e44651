"""The region of interest: drawn at the network's input size, and found in a mask image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.shapes import Shapes
from draem.errors import ImageError, ModelFileError
from draem.images import plan_fit
from draem.modelfile import RegionOfInterest
from draem.modelfile.header import MOST_CORNERS, MOST_POLYGONS, Polygon

_DIGITS = 6
_FINEST = 0.5
"""Pixels of the mask image by which an outline may be simplified."""


class InspectedPixels:
    """Which pixels of the network's input show what is inspected; drawn once for each size of image."""

    def __init__(self, region: RegionOfInterest | None, data: DataConfig) -> None:
        self._region, self._data = region, data
        self._drawn = lru_cache(maxsize=4)(self._draw)

    def mask(self, original: tuple[int, int]) -> NDArray[np.bool_] | None:
        """H×W bool at the map's size for an image of (height, width) `original`; none: all of them.

        A letterbox's padding is no part of the image, and so of no region.

        Raises:
            ModelFileError: the region's outlines are too many to be drawn.
        """
        if self._data.fit != "letterbox" and self._region is None:
            return None
        return self._drawn(self._data.size if self._data.fit == "resize" else original)

    def _draw(self, original: tuple[int, int]) -> NDArray[np.bool_]:
        size, way = self._data.frame(original)
        fit = plan_fit(original, size, way)
        kept = np.zeros(size, bool)
        kept[fit.window] = True if self._region is None else draw_region(self._region, (fit.height, fit.width))
        kept.flags.writeable = False
        return kept


def draw_region(region: RegionOfInterest, size: tuple[int, int]) -> NDArray[np.bool_]:
    """H×W bool for an image of this height and width: True where a pixel's centre is inspected.

    Raises:
        ModelFileError: the outlines are too many to be drawn.
    """
    inside = _even_odd(region.inspect, size) if region.inspect else np.ones(size, bool)
    return inside & ~_even_odd(region.ignore, size)


def _even_odd(polygons: Sequence[Polygon], size: tuple[int, int]) -> NDArray[np.bool_]:
    """True where a pixel's centre lies in an odd number of polygons."""
    inside = np.zeros(size, bool)
    for polygon in polygons:
        corners = np.array(polygon) * size[::-1]
        if np.ptp(corners, axis=0).min() == 0:
            continue  # a line holds no pixel
        try:
            inside ^= Shapes("region", size, (tuple(corners.ravel().tolist()),)).draw()
        except ImageError as error:
            raise ModelFileError(str(error)) from None
    return inside


def outline(mask: NDArray[np.bool_]) -> list[Polygon]:
    """Polygons, by the even-odd rule, around the True pixels of an H×W mask; they follow its edges within a pixel.

    Raises:
        ImageError: the mask has more spots than a region may have polygons.
    """
    # Points at the pixels' middles, edges and corners: OpenCV goes through the outermost, which are the edges here.
    points = np.zeros((2 * mask.shape[0] + 1, 2 * mask.shape[1] + 1), np.uint8)
    points[1::2, 1::2] = mask
    closed = cv2.dilate(points, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) > MOST_POLYGONS:
        raise ImageError(f"{len(contours)} spots and holes: a region has at most {MOST_POLYGONS}; draw it coarser")
    tolerance = _FINEST
    while True:
        simple = [_simplified(contour, 2 * tolerance) for contour in contours]
        if sum(map(len, simple)) <= MOST_CORNERS:
            return [_as_fractions(contour, (mask.shape[0], mask.shape[1])) for contour in simple]
        tolerance *= 2


def _simplified(contour: NDArray[Any], tolerance: float) -> NDArray[np.int32]:
    simple = cv2.approxPolyDP(contour, tolerance, closed=True)
    return np.asarray((simple if len(simple) >= 3 else contour)[:, 0], np.int32)


def _as_fractions(corners: NDArray[np.int32], size: tuple[int, int]) -> Polygon:
    """Corners in halves of pixels as fractions of the image."""
    places = corners / (2 * np.array(size[::-1]))
    return [(round(float(x), _DIGITS), round(float(y), _DIGITS)) for x, y in places]
