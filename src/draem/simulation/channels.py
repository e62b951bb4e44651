"""Colours for images of any number of channels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LUMA = (0.299, 0.587, 0.114)
"""Weights of the channels in the brightness that people see (ITU-R BT.601)."""


def with_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """An H×W×3 uint8 RGB image as H×W×`channels`: its brightness for one, else red, green, blue, red, and so on."""
    if channels == 1:
        return np.asarray(np.rint(image @ np.array(LUMA)), np.uint8)[:, :, None]
    return image if channels == 3 else image[:, :, np.arange(channels) % 3]
