"""Where simulated anomalies may lie on a bank's images: everywhere, on the part, or where a mask image is white."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.bank import ImageBank
from draem.data.foreground import LEAST_QUALITY, find_foreground
from draem.errors import ConfigError, ImageError
from draem.images import fit_mask, read_image, read_mask

_USUAL = 2.0
"""A part this many times larger or smaller than on the middle one of the images was not found rightly."""
_STRETCHED = 1.02
"""Aspect ratios that differ by less are the same: sides are whole pixels."""


@dataclass(frozen=True)
class Regions:
    """One region for each image of a bank, in its order.

    masks: N×H×W bool at the network's input size; none: everywhere, since no part was found with confidence.
    qualities: N float in [0, 1], how clearly each image's part stands out; 1 for a region given as a mask image.
    """

    masks: NDArray[np.bool_] | None
    qualities: NDArray[np.float64]

    @classmethod
    def of(cls, bank: ImageBank, region: Literal["everywhere", "foreground"] | Path, config: DataConfig) -> Self | None:
        """The regions of a bank's images; None for "everywhere".

        Raises:
            ConfigError: the mask image cannot be read, has another shape than the images, or nothing in it is white.
        """
        if region == "everywhere":
            return None
        if isinstance(region, Path):
            mask = _given(region, bank.paths[0], config)
            return cls(np.broadcast_to(mask, (len(bank), *mask.shape)), np.ones(len(bank)))
        return cls(*_found(bank))

    @property
    def quality(self) -> float:
        """The median over the images."""
        return float(np.median(self.qualities))

    def __str__(self) -> str:
        if self.masks is None:
            return f"anomalies everywhere: no part stands out from a background (quality {self.quality:.2f}, median)"
        doubtful = int((self.qualities < LEAST_QUALITY).sum())
        but = f"; everywhere on {doubtful} of {len(self.qualities)} images, where it is doubtful" if doubtful else ""
        share = float(self.masks.mean())
        return f"anomalies on the part alone, {share:.0%} of the image: quality {self.quality:.2f} (median){but}"


def _given(path: Path, image: Path, config: DataConfig) -> NDArray[np.bool_]:
    """The user's mask image at the network's input size."""
    try:
        mask = read_mask(path)
    except ImageError as error:
        raise ConfigError(f"simulation.region: {error}") from error
    (height, width), (rows, columns) = mask.shape, read_image(image).shape[:2]
    if not 1 / _STRETCHED < (height * columns) / (width * rows) < _STRETCHED:
        raise ConfigError(
            f"simulation.region: {path} is {width}×{height} pixels, the images are {columns}×{rows} ({image.name}): "
            "draw it on one of the images"
        )
    fitted = fit_mask(mask, config.size, config.fit, config.interpolation)
    if not fitted.any():
        raise ConfigError(f"simulation.region: {path}: nothing in it is white: paint where anomalies may lie white")
    return fitted


def _found(bank: ImageBank) -> tuple[NDArray[np.bool_] | None, NDArray[np.float64]]:
    """Masks and qualities of the parts; a doubtful one gives way to the whole image."""
    masks = np.empty((len(bank), *bank.size), np.bool_)

    def find(place: int) -> float:
        found = find_foreground(bank[place][0])
        masks[place] = found.mask
        return found.quality

    with ThreadPoolExecutor() as pool:
        qualities = np.array(list(pool.map(find, range(len(bank)))))
    areas = masks.mean((1, 2))
    usual = np.median(areas)
    qualities[(areas > usual * _USUAL) | (areas * _USUAL < usual)] = 0.0
    if np.median(qualities) < LEAST_QUALITY:
        return None, qualities
    masks[qualities < LEAST_QUALITY] = True
    return masks, qualities
