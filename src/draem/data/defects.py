"""What a defect looks like, in figures: size, elongation, contrast, texture; alike for real and simulated ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.pixels import LUMA, Pixels

_LEVEL = 1.0 / 255.0
"""One grey level: no difference is known better."""
_SPECK = 1 / 20_000
"""Share of the image, about three pixels of 256×256, below which a spot beside larger ones is left out."""
_STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True)
class Defect:
    """One connected defect; contrast, brightness and texture compare it with a ring around it.

    Where a defect leaves nothing around it, contrast and brightness are 0 and texture is 1.
    """

    area: float
    """Share of the image."""
    size: float
    """Side in pixels of the square of its area."""
    elongation: float
    """Length over width, 1 or more, of the rectangle of its area and mean distance to the edge."""
    contrast: float
    """Distance of the mean colours, root mean square over the channels: 0 to 1, which is black on white."""
    brightness: float
    """Difference of the mean lumas, -1 to 1; below 0 the defect is darker."""
    texture: float
    """Ratio of the mean differences between neighbouring pixels; below 1 the defect is smoother."""
    count: int
    """Defects in its image."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels; right and bottom excluded."""


def describe(image: Pixels, mask: NDArray[np.bool_], most: int | None = None) -> list[Defect]:
    """Describe each connected defect of an image, the largest first.

    What lies closer together than about a sixtieth of the image's shorter side is one defect: scratches are broken by
    a pixel here and there. Specks beside larger defects are left out.

    Args:
        image: H×W×C uint8 or uint16; three channels are RGB.
        mask: H×W bool, True where anomalous.
        most: of more defects, so many are described, spread evenly over their sizes.
    """
    labels, areas = _parts(mask)
    chosen = range(len(areas))
    if most is not None and len(areas) > most:
        chosen = np.linspace(0, len(areas) - 1, most).round().astype(int).tolist()
    around = _dilated(mask, 1)
    return [_described(image, labels == part, mask, around, len(areas)) for part in (areas[i][1] for i in chosen)]


def _parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], list[tuple[int, int]]]:
    """The mask's parts, numbered, 0 elsewhere; and the area in pixels and number of each that counts, largest first."""
    _, found = cv2.connectedComponents(_dilated(mask, max(1, round(min(mask.shape) / 128))).astype(np.uint8))
    labels = np.where(mask, found, 0).astype(np.int32)
    counts = np.bincount(labels.ravel())[1:]
    areas = sorted(
        ((int(area), part) for part, area in enumerate(counts, 1) if area), key=lambda one: (-one[0], one[1])
    )
    return labels, [one for one in areas if one[0] >= _SPECK * mask.size or one is areas[0]]


def _described(
    image: Pixels,
    part: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    around: NDArray[np.bool_],
    count: int,
) -> Defect:
    """Figures of one part of the mask; `around` is the mask with the blurred pixels of its edge."""
    left, top, width, height = cv2.boundingRect(part.astype(np.uint8))
    area = int(part.sum())
    # As wide as the defect asks for: a large one with a soft edge differs little from what is just beside it.
    reach = 2 + max(2, round(max(min(mask.shape) / 64, math.sqrt(area) / 10)))
    rows = slice(max(0, top - reach), top + height + reach)
    columns = slice(max(0, left - reach), left + width + reach)
    inside, pixels = part[rows, columns], _unit(image[rows, columns])
    ring = _dilated(inside, reach) & ~around[rows, columns]
    if not ring.any():  # the nearest pixels belong to other defects
        inside, pixels, ring = part, _unit(image), ~mask
    difference, texture = np.zeros(image.shape[2]), 1.0
    if ring.any():
        difference = pixels[inside].mean(0, dtype=np.float64) - pixels[ring].mean(0, dtype=np.float64)
        texture = (_roughness(pixels, inside) + _LEVEL) / (_roughness(pixels, ring) + _LEVEL)
    weights = LUMA if len(difference) == 3 else np.full(len(difference), 1 / len(difference))
    return Defect(
        area=area / mask.size,
        size=math.sqrt(area),
        elongation=_elongation(inside, area),
        contrast=float(np.sqrt(np.mean(difference**2))),
        brightness=float(difference @ np.asarray(weights)),
        texture=texture,
        count=count,
        box=(left, top, left + width, top + height),
    )


def _unit(image: Pixels) -> NDArray[np.float32]:
    return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def _elongation(part: NDArray[np.bool_], area: float) -> float:
    """Length over width of the rectangle with this area A and this mean distance m to the edge.

    A rectangle of width b has m = b/4 − b³/12A, a cubic whose root is 2√A·sin(asin(6m/√A)/3). Unlike moments or a box
    around it, this takes a bent, branching or broken line for what it is: long and thin.
    """
    # At twice the size every width is an even number of pixels, for which the mean over pixels is exact.
    double = np.pad(part.astype(np.uint8).repeat(2, 0).repeat(2, 1), 1)
    distance = cv2.distanceTransform(double, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[double > 0]
    mean = (float(distance.mean()) - 0.5) / 2
    side = math.sqrt(area)
    width = 2 * side * math.sin(math.asin(min(1.0, 6 * mean / side)) / 3)
    return max(1.0, area / (width * width))


def _roughness(pixels: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Mean difference between neighbours that are both within: what happens at the edge does not count."""
    total, pairs = 0.0, 0
    for down, right in _STEPS:
        one, other = _shifted(pixels, down, right)
        both = np.logical_and(*_shifted(where, down, right))
        total += float(np.abs(one[both] - other[both]).sum(dtype=np.float64))
        pairs += int(both.sum())
    return total / max(1, pairs * int(pixels.shape[2]))


def _shifted(array: NDArray[Any], down: int, right: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Views of an array and of its neighbours `down` and `right` of it, cut to where both are."""
    height, width = array.shape[:2]
    one = array[: height - down, max(0, -right) : width - max(0, right)]
    return one, array[down:, max(0, right) : width + min(0, right)]


def _dilated(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc) > 0)
