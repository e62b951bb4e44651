"""The pixels that a network takes, and how those of any image become them: channels, depth, range of values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.errors import ImageError

Pixels = NDArray[np.unsignedinteger[Any]]
"""H×W×C of uint8 or uint16."""
Images = NDArray[np.float32]
"""As a network takes and gives them: B×C×H×W in [0, 1], anomaly maps B×H×W."""
Depth = Literal[8, 16]
ValueRange = tuple[float, float]
"""Raw values that become black and white."""

MOST_CHANNELS = 64
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness that people see (ITU-R BT.601)."""


@dataclass(frozen=True)
class PixelFormat:
    """How many `channels` there are, the bits of one (`depth`), and the raw values that become its ends."""

    channels: int = 3
    depth: Depth = 8
    value_range: ValueRange | None = None
    """None: all that the type of the raw values holds; for floats [0, 1]."""

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Of the pixels."""
        return np.dtype(np.uint8 if self.depth == 8 else np.uint16)

    @property
    def highest(self) -> int:
        """The value that stands for 1."""
        return int(2**self.depth - 1)

    @property
    def middle(self) -> int:
        """Mid-grey: what stands where nothing is to be seen."""
        return int(2 ** (self.depth - 1))


def convert(raw: NDArray[Any], wanted: PixelFormat, name: str) -> Pixels:
    """Raw values, H×W or H×W×c of uint8, uint16 or floats, as H×W×C pixels of a format; `name` is for errors.

    Raw values are mapped from the range to the depth and rounded to the nearest; outside of it they are cut. One
    channel is repeated to three, three become one by their luma; no other number of channels fits.

    Raises:
        ImageError: another type, floats outside [0, 1] without a range, or channels that do not fit.
    """
    samples = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    samples = samples[..., None] if samples.ndim == 2 else samples
    found = samples.shape[2]
    if found != wanted.channels and {found, wanted.channels} != {1, 3}:
        raise ImageError(f"{name}: has {_counted(found)}, {wanted.channels} expected")
    pixels = np.ascontiguousarray(_quantised(samples, wanted, name))
    if found == wanted.channels:
        return pixels
    if found == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(cv2.transform(pixels, np.array([LUMA])), wanted.dtype)[..., None]


def unused_range(highest: int) -> ValueRange | None:
    """The range that values of 16 bits up to `highest` seem to have; none where they use most of what 16 bits hold.

    Cameras give 10, 12 or 14 bits in files of 16, which are nearly black then.
    """
    return None if highest >= 2**15 or highest < 1 else (0.0, 2.0 ** max(highest.bit_length(), 8) - 1)


def unlike(raw: NDArray[Any], wanted: PixelFormat) -> str:
    """Why raw values are hardly of the kind that a format was chosen for, in words; empty: they may well be.

    Another range of values leaves nothing to see. Grey and colour stand in for each other, which is not told here.
    """
    if wanted.value_range is None:
        highest = int(raw.max()) if raw.dtype == np.uint16 and wanted.depth == 8 else 0
        return f"no pixel is brighter than {highest} of 65535: nearly black" if unused_range(highest) else ""
    low, high = wanted.value_range
    span = f"the model's images have values from {low:g} to {high:g}"
    reached = {"u": 255 if raw.dtype == np.uint8 else 65535, "f": float(raw.max())}.get(raw.dtype.kind, high)
    if reached < low + (high - low) / 8:
        return f"{span}, here {reached:g} is the highest: nearly black"
    return f"{span}, here most are higher: nearly white" if float(raw.mean()) > high else ""


def view(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """For people: …×C of uint8, uint16 or floats in [0, 1] (cut) as …×3 uint8 RGB.

    Of more than three channels the first three are shown, of one or two the first.
    """
    shown = pixels if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, axis=-1)
    shown = shown[..., :3]
    if np.issubdtype(shown.dtype, np.floating):
        shown = np.rint(np.clip(shown, 0, 1) * 255)
    elif shown.dtype == np.uint16:
        shown = _table(shown.dtype.str, 0, 65535, 8)[shown]
    return np.ascontiguousarray(shown, np.uint8)


def _quantised(raw: NDArray[Any], wanted: PixelFormat, name: str) -> NDArray[Any]:
    if raw.dtype in (np.uint8, np.uint16):
        if wanted.value_range is None and raw.dtype == wanted.dtype:
            return raw
        low, high = wanted.value_range or (0, np.iinfo(raw.dtype).max)
        return np.asarray(_table(raw.dtype.str, low, high, wanted.depth)[raw])
    if not np.issubdtype(raw.dtype, np.floating):
        raise ImageError(f"{name}: {raw.dtype} pixels are not understood: 8 or 16 bits without a sign, or floats, are")
    least, most = float(raw.min()), float(raw.max())
    low, high = wanted.value_range or (0.0, 1.0)
    # Both are also true of values that are not numbers.
    if not (least >= low and most <= high if wanted.value_range is None else least <= most):
        raise ImageError(
            f"{name}: float pixels must lie in [0, 1], found {least:g} to {most:g}: rescale, save as 16 bit, or set "
            "data.value_range"
        )
    unit = (raw.astype(np.result_type(raw.dtype, np.float32), copy=False) - low) / (high - low)
    return np.asarray(np.rint(np.clip(unit, 0, 1) * wanted.highest), wanted.dtype)


@lru_cache(maxsize=16)
def _table(kind: str, low: float, high: float, depth: Depth) -> Pixels:
    """The pixel for every raw value of a type: looking up is exact, and faster than arithmetic."""
    raw = np.arange(np.iinfo(kind).max + 1)
    wanted = PixelFormat(depth=depth)
    return np.asarray(np.rint(np.clip((raw - low) / (high - low), 0, 1) * wanted.highest), wanted.dtype)


def _counted(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"
