"""Colours for images of any number of channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from draem.pixels import LUMA


def with_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """An H×W×3 uint8 RGB image as H×W×`channels`: its brightness for one, else red, green, blue, red, and so on."""
    if channels == 1:
        return np.asarray(np.rint(image @ np.array(LUMA)), np.uint8)[:, :, None]
    return image if channels == 3 else image[:, :, np.arange(channels) % 3]
