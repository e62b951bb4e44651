"""What is measured on one image: numbers and a coarse grid, never the picture itself, so that memory stays small."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

WORKING_SIDE = 256
GRID = 32
"""Cells along each side: a cell is 8×8 pixels of the working size."""
MEAN, DARKEST, BRIGHTEST, ROUGHNESS, RED, BLUE = range(6)
"""The planes of `Look.cells`: mean, smallest and largest grey, mean detail, red and blue against green."""


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
    """Largest minus smallest value of any channel: 0 is one plain colour."""
    sharpness: float
    """Logarithm of fine against coarse detail: falls when the picture is blurred, whatever its contrast."""
    cells: NDArray[np.float16]
    """6×GRID×GRID planes, see MEAN and so on."""

    @property
    def brightness(self) -> float:
        """Mean of the three channels."""
        return sum(self.colour) / 3


def measure(image: NDArray[np.uint8]) -> Look:
    """Measure an H×W×3 uint8 RGB image."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    histogram = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel() / grey.size
    colour = cv2.mean(image)
    return Look(
        size=(image.shape[0], image.shape[1]),
        colour=(colour[0], colour[1], colour[2]),
        contrast=float(deviation[0, 0]),
        black=float(histogram[:3].sum()),
        white=float(histogram[253:].sum()),
        extent=_extent(image),
        sharpness=sharpness(grey),
        cells=cells(image),
    )


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Logarithm of the mean fine detail (below ~2 pixels) over the mean coarser detail (~2 to 4 pixels)."""
    pixels = grey.astype(np.float32)
    fine = cv2.GaussianBlur(pixels, (0, 0), 1.0)
    coarse = cv2.GaussianBlur(fine, (0, 0), 2.0)
    # A picture without any detail is neither sharp nor blurred: the small constant keeps it near 0.
    return float(np.log((cv2.norm(pixels, fine, cv2.NORM_L1) + grey.size * 1e-3)
                        / (cv2.norm(fine, coarse, cv2.NORM_L1) + grey.size * 1e-3)))


def working(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image at the working size, its aspect ratio not kept."""
    shrinks = min(image.shape[:2]) >= WORKING_SIDE
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (WORKING_SIDE, WORKING_SIDE), interpolation=method), np.uint8)


def cells(image: NDArray[np.uint8]) -> NDArray[np.float16]:
    """6×GRID×GRID planes of an image: see MEAN and so on."""
    small = working(image)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    side = WORKING_SIDE // GRID
    kernel = np.ones((side, side), np.uint8)
    # With the anchor at the kernel's first corner, the value at a cell's first pixel is the cell's.
    lowest = cv2.erode(grey, kernel, anchor=(0, 0))[::side, ::side]
    highest = cv2.dilate(grey, kernel, anchor=(0, 0))[::side, ::side]
    detail = cv2.absdiff(grey, cv2.GaussianBlur(grey, (0, 0), 1.5)).astype(np.float32)
    red, green, blue = (plane.astype(np.float32) for plane in cv2.split(small))
    planes = [_averaged(grey.astype(np.float32)), lowest, highest]
    planes += [_averaged(plane) for plane in (detail, red - green, blue - green)]
    return np.stack(planes).astype(np.float16)


def _averaged(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def _extent(image: NDArray[np.uint8]) -> int:
    low, high, _, _ = cv2.minMaxLoc(np.ascontiguousarray(image).reshape(image.shape[0], -1))
    return int(high - low)
