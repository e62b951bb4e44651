"""Where simulated anomalies may lie on a bank's images: everywhere, on the part, or where a mask image is white."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.bank import ImageBank, Progress, view_corners
from draem.data.foreground import LEAST_QUALITY, find_foreground
from draem.data.interest import draw_region
from draem.errors import ConfigError, ImageError
from draem.images import fit_mask, plan_fit, read_file_header, read_mask, read_pixels
from draem.modelfile import RegionOfInterest

_USUAL = 2.0
"""A part this many times larger or smaller than on the middle one of the images was not found rightly."""
_STRETCHED = 1.02
"""Aspect ratios that differ by less are the same: sides are whole pixels."""


@dataclass(frozen=True)
class Regions:
    """One region for each image of a bank, in its order.

    packed: for each image H×ceil(W/8) uint8, a bit a pixel; none: everywhere, since no part was found with confidence.
    qualities: N float in [0, 1], how clearly each image's part stands out; 1 for a region given as a mask image.
    shapes: N×2, the images' heights and widths. size: those of the network's input.
    """

    packed: Sequence[NDArray[np.uint8]] | None
    qualities: NDArray[np.float64]
    shapes: NDArray[np.int64]
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
            return cls(_given(region, bank, config), np.ones(len(bank)), bank.shapes, bank.size)
        return cls(*_found(bank, progress), bank.shapes, bank.size)

    @classmethod
    def inspected(cls, bank: ImageBank, interest: RegionOfInterest | None, config: DataConfig) -> Self | None:
        """Where anomalies count on a bank's images; None: everywhere."""
        if interest is None:
            return None
        sizes = [_own_size(path, config) for path in bank.paths] if config.fit == "letterbox" else bank.shapes.tolist()
        drawn: dict[tuple[int, int], NDArray[np.uint8]] = {}
        chosen = []
        for (height, width), original in zip(bank.shapes.tolist(), map(tuple, sizes), strict=True):
            if original not in drawn:
                fit = plan_fit(original, *config.frame((height, width)))
                inside = np.zeros((height, width), np.bool_)
                inside[fit.window] = draw_region(interest, (fit.height, fit.width))
                drawn[original] = np.packbits(inside, axis=1)
            chosen.append(drawn[original])
        return cls(chosen, np.ones(len(bank)), bank.shapes, bank.size)

    @classmethod
    def of_anomalies(
        cls,
        bank: ImageBank,
        region: Literal["everywhere", "foreground"] | Path,
        interest: RegionOfInterest | None,
        config: DataConfig,
        progress: Progress | None = None,
    ) -> Self | None:
        """As `of`, but for what is not inspected: no anomaly lies there.

        Raises:
            ConfigError: as `of`; or nothing of an image is left.
        """
        found, inspected = cls.of(bank, region, config, progress), cls.inspected(bank, interest, config)
        if inspected is None or inspected.packed is None:
            return found
        if found is None or found.packed is None:
            return inspected
        packed = [one & other for one, other in zip(found.packed, inspected.packed, strict=True)]
        if empty := [bank.paths[place].name for place, bits in enumerate(packed) if not bits.any()]:
            raise ConfigError(
                f"simulation.region and data.region share no pixel on {len(empty)} images, such as {empty[0]}: "
                "give one of them, or larger ones"
            )
        return cls(packed, found.qualities, found.shapes, found.size)

    def views(self, places: NDArray[np.int64], draws: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """The regions in what the network sees of these images, B×H×W bool, as of `ImageBank.views`; none: everywhere.

        What lies beyond an image's border is no region.
        """
        if self.packed is None:
            return None
        height, width = self.size
        seen = np.zeros((len(places), height, width), np.bool_)
        corners = view_corners(self.shapes[places], self.size, draws)
        for view, place, (top, left) in zip(seen, places, corners, strict=True):
            rows = np.unpackbits(self.packed[place][top : top + height], axis=1, count=int(self.shapes[place, 1]))
            part = rows[:, left : left + width]
            view[: part.shape[0], : part.shape[1]] = part
        return seen

    def whole(self, place: int) -> NDArray[np.bool_]:
        """The region of an image, H×W bool."""
        if self.packed is None:
            return np.ones(self.shapes[place], np.bool_)
        return np.unpackbits(self.packed[place], axis=1, count=int(self.shapes[place, 1])).view(np.bool_)

    @property
    def quality(self) -> float:
        """The median over the images."""
        return float(np.median(self.qualities))

    def __str__(self) -> str:
        if self.packed is None:
            return f"anomalies everywhere: no part stands out from a background (quality {self.quality:.2f}, median)"
        doubtful = int((self.qualities < LEAST_QUALITY).sum())
        but = f"; everywhere on {doubtful} of {len(self.qualities)} images, where it is doubtful" if doubtful else ""
        covered = sum(int(np.bitwise_count(bits).sum(dtype=np.int64)) for bits in self.packed)
        share = covered / int(self.shapes.prod(axis=1).sum())
        return f"anomalies on the part alone, {share:.0%} of the image: quality {self.quality:.2f} (median){but}"


def _own_size(path: Path, config: DataConfig) -> tuple[int, int]:
    """Height and width of an image file, upright."""
    header = read_file_header(path)
    if header is None or header.orientation > 4:  # turned by a quarter, or not told
        height, width = read_pixels(path, config.pixel_format).shape[:2]
        return height, width
    return header.height, header.width


def _given(path: Path, bank: ImageBank, config: DataConfig) -> list[NDArray[np.uint8]]:
    """The user's mask image, fitted and packed, for each image of the bank."""
    image = bank.paths[0]
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
    packed: dict[tuple[int, int], NDArray[np.uint8]] = {}
    for height, width in set(map(tuple, bank.shapes.tolist())):
        fitted = fit_mask(mask, *config.frame((height, width)), config.interpolation)
        if not fitted.any():
            raise ConfigError(f"simulation.region: {path}: nothing in it is white: paint where anomalies may lie white")
        packed[height, width] = np.packbits(fitted, axis=1)
    return [packed[height, width] for height, width in bank.shapes.tolist()]


def _found(bank: ImageBank, progress: Progress | None) -> tuple[list[NDArray[np.uint8]] | None, NDArray[np.float64]]:
    """Packed masks and qualities of the parts; a doubtful one gives way to the whole image."""
    packed = [np.empty((0, 0), np.uint8)] * len(bank)

    def find(place: int) -> tuple[float, float]:
        found = find_foreground(bank[place][0])
        packed[place] = np.packbits(found.mask, axis=1)
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
    for place in np.flatnonzero(qualities < LEAST_QUALITY):
        packed[place] = np.packbits(np.ones(bank.shapes[place], np.bool_), axis=1)
    return packed, qualities
