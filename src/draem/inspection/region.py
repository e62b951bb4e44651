"""Which pixels are inspected: the region of interest at the network's input size."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.interest import draw_region
from draem.images import plan_fit
from draem.modelfile import RegionOfInterest


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
