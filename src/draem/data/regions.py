"""Where simulated anomalies may lie on a bank's images: everywhere, on the part, or where a mask image is white."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.bank import ImageBank, Progress
from draem.data.foreground import LEAST_QUALITY, find_foreground
from draem.errors import ConfigError, ImageError
from draem.images import fit_mask, read_mask, read_pixels

_USUAL = 2.0
"""A part this many times larger or smaller than on the middle one of the images was not found rightly."""
_STRETCHED = 1.02
"""Aspect ratios that differ by less are the same: sides are whole pixels."""


@dataclass(frozen=True)
class Regions:
    """One region for each image of a bank, in its order.

    packed: N×ceil(H·W/8) uint8, a bit a pixel at the network's input size; none: everywhere, since no part was found
    with confidence. qualities: N float in [0, 1], how clearly each image's part stands out; 1 for a region given as a
    mask image. size: H, W.
    """

    packed: NDArray[np.uint8] | None
    qualities: NDArray[np.float64]
    size: tuple[int, int]

    @classmethod
    def of(
        cls,
        bank: ImageBank,
        region: Literal["everywhere", "foreground"] | Path,
        config: DataConfig,
        progress: Progress | None = None,
    ) -> Self | None:
        """The regions of a bank's images; None for "everywhere".

        `progress` is called with the images whose part was looked for, and their number.

        Raises:
            ConfigError: the mask image cannot be read, has another shape than the images, or nothing in it is white.
        """
        if region == "everywhere":
            return None
        if isinstance(region, Path):
            mask = _given(region, bank.paths[0], config)
            packed = np.packbits(mask)
            return cls(np.broadcast_to(packed, (len(bank), len(packed))), np.ones(len(bank)), bank.size)
        return cls(*_found(bank, progress), bank.size)

    def masks(self, places: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """The regions of these images, N×H×W bool; none: everywhere."""
        if self.packed is None:
            return None
        height, width = self.size
        bits = np.unpackbits(self.packed[places], axis=1, count=height * width)
        return bits.view(np.bool_).reshape(-1, height, width)

    @property
    def quality(self) -> float:
        """The median over the images."""
        return float(np.median(self.qualities))

    def __str__(self) -> str:
        if self.packed is None:
            return f"anomalies everywhere: no part stands out from a background (quality {self.quality:.2f}, median)"
        doubtful = int((self.qualities < LEAST_QUALITY).sum())
        but = f"; everywhere on {doubtful} of {len(self.qualities)} images, where it is doubtful" if doubtful else ""
        share = (
            float(np.bitwise_count(self.packed).mean(dtype=np.float64)) * self.packed.shape[1] / math.prod(self.size)
        )
        return f"anomalies on the part alone, {share:.0%} of the image: quality {self.quality:.2f} (median){but}"


def _given(path: Path, image: Path, config: DataConfig) -> NDArray[np.bool_]:
    """The user's mask image at the network's input size."""
    try:
        mask = read_mask(path)
    except ImageError as error:
        raise ConfigError(f"simulation.region: {error}") from error
    (height, width), (rows, columns) = mask.shape, read_pixels(image, config.pixel_format).shape[:2]
    if not 1 / _STRETCHED < (height * columns) / (width * rows) < _STRETCHED:
        raise ConfigError(
            f"simulation.region: {path} is {width}×{height} pixels, the images are {columns}×{rows} ({image.name}): "
            "draw it on one of the images"
        )
    fitted = fit_mask(mask, config.size, config.fit, config.interpolation)
    if not fitted.any():
        raise ConfigError(f"simulation.region: {path}: nothing in it is white: paint where anomalies may lie white")
    return fitted


def _found(bank: ImageBank, progress: Progress | None) -> tuple[NDArray[np.uint8] | None, NDArray[np.float64]]:
    """Packed masks and qualities of the parts; a doubtful one gives way to the whole image."""
    whole = np.packbits(np.ones(bank.size, np.bool_))
    packed = np.empty((len(bank), len(whole)), np.uint8)

    def find(place: int) -> tuple[float, float]:
        found = find_foreground(bank[place][0])
        packed[place] = np.packbits(found.mask)
        return found.quality, float(found.mask.mean())

    with ThreadPoolExecutor() as pool:
        found = []
        for one in pool.map(find, range(len(bank))):
            found.append(one)
            if progress:
                progress(len(found), len(bank))
    qualities, areas = np.array(found).T
    usual = np.median(areas)
    qualities[(areas > usual * _USUAL) | (areas * _USUAL < usual)] = 0.0
    if np.median(qualities) < LEAST_QUALITY:
        return None, qualities
    packed[qualities < LEAST_QUALITY] = whole
    return packed, qualities
