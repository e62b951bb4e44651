"""What is measured on one image: numbers and a coarse grid, never the picture itself, so that memory stays small."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

WORKING_SIDE = 256
GRID = 32
"""Cells along each side: a cell is 8×8 pixels of the working size."""
MEAN, DARKEST, BRIGHTEST, ROUGHNESS, RED, BLUE = range(6)
"""The planes of `Look.cells`: mean, smallest and largest grey, mean detail, red and blue against green."""
SMALL_SIDE = 128


@dataclass(frozen=True)
class Look:
    """What an image looks like; grey levels are 0 to 255."""

    size: tuple[int, int]
    """Height and width in pixels."""
    colour: tuple[float, float, float]
    """Mean of red, green, blue."""
    contrast: float
    """Standard deviation of the grey levels."""
    black: float
    """Share of pixels at 2 or below in grey."""
    white: float
    """Share of pixels at 253 or above in grey."""
    extent: int
    """See `extent`: 0 is one plain colour."""
    sharpness: float
    """Logarithm of fine against coarse detail: falls when the picture is blurred, whatever its contrast."""
    sharpness_halved: float
    """The same at half the resolution: what is far out of focus has little to lose at the full one."""
    grain: float
    """Which way stripes run: -1 down the columns, 1 along the rows, 0 neither."""
    cells: NDArray[np.float16]
    """6×GRID×GRID planes, see MEAN and so on."""
    small: NDArray[np.uint8]
    """SMALL_SIDE² grey levels, the aspect ratio not kept."""

    @property
    def grey(self) -> bool:
        """Whether there is no colour anywhere, however it is stored."""
        return not self.cells[RED].any() and not self.cells[BLUE].any()

    @property
    def tint(self) -> tuple[float, float]:
        """Mean red and mean blue against mean green."""
        return self.colour[0] - self.colour[1], self.colour[2] - self.colour[1]

    @property
    def brightness(self) -> float:
        """Mean of the three channels."""
        return sum(self.colour) / 3


def measure(image: NDArray[np.uint8]) -> Look:
    """Measure an H×W×3 uint8 RGB image."""
    grey = _grey(image)
    _, deviation = cv2.meanStdDev(grey)
    histogram = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel() / grey.size
    colour = cv2.mean(image)
    picture = working(image)
    small = np.asarray(cv2.resize(_grey(picture), (SMALL_SIDE, SMALL_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    halved = max(1, grey.shape[1] // 2), max(1, grey.shape[0] // 2)
    return Look(
        size=(image.shape[0], image.shape[1]),
        colour=(colour[0], colour[1], colour[2]),
        contrast=float(deviation[0, 0]),
        black=float(histogram[:3].sum()),
        white=float(histogram[253:].sum()),
        extent=extent(image),
        sharpness=sharpness(grey),
        sharpness_halved=sharpness(np.asarray(cv2.resize(grey, halved, interpolation=cv2.INTER_AREA), np.uint8)),
        grain=grain(small),
        cells=cells(picture),
        small=small,
    )


def extent(raw: NDArray[Any]) -> int:
    """Largest minus smallest raw value within a channel, of the channel where that is most, in 8-bit levels.

    Values of more than 8 bits count against their largest one: 12 bits stored in 16 are dark, not blank.
    """
    # First down the columns: that is fast, whatever the number of channels.
    low, high = (np.asarray(edge.T, np.float64) for edge in (raw.min(axis=0), raw.max(axis=0)))
    width = float(np.max(high.max(axis=-1) - low.min(axis=-1)))
    if raw.dtype == np.uint8:
        return int(width)
    noise = 0 if np.issubdtype(raw.dtype, np.floating) else 2
    return 0 if width <= noise else math.ceil(255 * width / float(high.max()))


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Logarithm of the mean fine detail (below about 2 pixels) over the mean coarser detail (2 to 4 pixels)."""
    pixels = grey.astype(np.float32)
    fine = cv2.GaussianBlur(pixels, (0, 0), 1.0)
    coarse = cv2.GaussianBlur(fine, (0, 0), 2.0)
    # A picture without any detail is neither sharp nor blurred: the small share of the pixels keeps it near 0.
    floor = grey.size * 1e-3
    return float(np.log((cv2.norm(pixels, fine, cv2.NORM_L1) + floor) / (cv2.norm(fine, coarse, cv2.NORM_L1) + floor)))


def grain(grey: NDArray[np.uint8]) -> float:
    """(V - H) / (V + H) of the energies of horizontal (H) and vertical (V) gradients; a quarter turn changes its sign.

    Negative where stripes run down the columns, positive where they run along the rows.
    """
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    horizontal, vertical = (float((gradient * gradient).sum()) for gradient in (across, down))
    return (vertical - horizontal) / (vertical + horizontal + 1e-6)


def working(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image at the working size, its aspect ratio not kept."""
    shrinks = min(image.shape[:2]) >= WORKING_SIDE
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (WORKING_SIDE, WORKING_SIDE), interpolation=method), np.uint8)


def cells(picture: NDArray[np.uint8]) -> NDArray[np.float16]:
    """6×GRID×GRID planes of an image at the working size: see MEAN and so on."""
    grey = _grey(picture)
    side = WORKING_SIDE // GRID
    blocks = grey.reshape(GRID, side, GRID, side)
    detail = cv2.absdiff(grey, cv2.GaussianBlur(grey, (0, 0), 1.5))
    red, green, blue = (plane.astype(np.int16) for plane in cv2.split(picture))
    planes = [_averaged(grey), blocks.min(axis=(1, 3)), blocks.max(axis=(1, 3))]
    planes += [_averaged(plane) for plane in (detail, red - green, blue - green)]
    return np.stack(planes).astype(np.float16)


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _averaged(plane: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)
