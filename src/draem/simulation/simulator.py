"""Simulated anomalies: I_a = (1 − M)·I + (1 − β)·M·A + β·M·I, in batches, on the device of the images.

Source: V. Zavrtanik, M. Kristan, D. Skočaj, DRÆM, ICCV 2021, section 3.3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from draem.config import MaskKind, SimulationConfig, SourceKind
from draem.pictures import sheet
from draem.pixels import LUMA, view
from draem.simulation.augment import augment
from draem.simulation.blending import gradient_blend
from draem.simulation.crops import Crops
from draem.simulation.draws import Stream, choose, to_device, uniform
from draem.simulation.masks import MASKS
from draem.simulation.outlines import dilated, window_sums
from draem.simulation.rotation import rotate
from draem.simulation.sources import open_sources
from draem.simulation.structural import STRUCTURAL, gaussian

_GREY = 1.5 / 255
"""Channels that differ by less, at every second pixel, make a grey image."""
_CPU_CHUNK = 8
_NEARBY = 2
_MASKS: tuple[MaskKind, ...] = get_args(MaskKind)
_SOURCES: tuple[SourceKind, ...] = get_args(SourceKind)
_PATCH, _CROPS = _SOURCES.index("patch"), _SOURCES.index("crops")
_FIRST_STRUCTURAL = _PATCH


@dataclass(frozen=True)
class Simulated:
    """One batch: images B×C×H×W float32 in [0, 1], the mask B×1×H×W float32, 1 where anomalous, else 0.

    normal: the images, turned where the configuration says so: the reconstruction's target. It may share their memory.
    anomalous: the same with simulated anomalies; equal to `normal` where the sample is clean.
    source: the augmented anomaly source textures; zero where the sample is clean.
    """

    normal: Tensor
    anomalous: Tensor
    mask: Tensor
    source: Tensor


class Simulator:
    """Makes simulated anomalies from normal images.

    config: what to draw. size: (H, W) of the images. device: where they are and the work is done. channels: of images.
    Raises DataError if a folder that the configuration names holds no readable images.
    """

    def __init__(
        self, config: SimulationConfig, size: tuple[int, int], device: torch.device | str, channels: int = 3
    ) -> None:
        self.config = config
        self.size = size
        self.channels = channels
        self.device = torch.device(device)
        self.foreign = open_sources(config, size, channels)
        if config.crops is not None and config.source_weights["crops"]:
            self.crops = Crops(config.crops, size, channels)
        # A CPU works fastest on what stays in its cache; an accelerator on everything at once.
        self._at_once = _CPU_CHUNK if self.device.type == "cpu" else sys.maxsize

    def __call__(self, images: Tensor, keys: Tensor, region: Tensor | None = None) -> Simulated:
        """Simulate: images B×C×H×W float32 in [0, 1] on the device, keys int64 B on the CPU (`draws.sample_keys`).

        region: B×1×H×W float32 on the device: anomalies lie where it is above 0.5; none: everywhere.
        The same arguments give the same result, bit for bit, on one device. Nothing waits for the device.
        """
        if images.shape != (len(keys), self.channels, *self.size):
            expected = f"{len(keys)}×{self.channels}×{self.size[0]}×{self.size[1]}"
            raise ValueError(f"images must be {expected}, one for each key, not {'×'.join(map(str, images.shape))}")
        # Under mixed precision, autocast would turn the noise's matrix products into bfloat16.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            draws = uniform(keys, Stream.SAMPLE, (4,))
            normal, region = self._rotated(images.to(torch.float32), region, draws)
            # Written into place: a batch's parts, concatenated, would cost a second set of large buffers.
            whole = normal.clone(), torch.zeros_like(normal[:, :1]), torch.zeros_like(normal)
            members = (draws[:, 0] >= self.config.clean_share).nonzero()[:, 0]
            for some in torch.split(members, self._at_once) if len(members) else ():
                index = to_device(some, self.device)
                within = None if region is None else region.index_select(0, index)
                parts = self._anomalies(normal.index_select(0, index), keys[some], draws[some], within)
                for target, part in zip(whole, parts, strict=True):
                    target.index_copy_(0, index, part)
            return Simulated(normal, *whole)

    def _rotated(self, images: Tensor, region: Tensor | None, draws: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn the images that are to be turned, and their regions with them."""
        rotation = self.config.rotation
        members = (draws[:, 1] < rotation.probability).nonzero()[:, 0]
        if not len(members) or not rotation.degrees:
            return images, region
        index = to_device(members, self.device)
        degrees = to_device((draws[members, 2] * 2.0 - 1.0) * rotation.degrees, self.device)
        turned = images.index_copy(0, index, rotate(images.index_select(0, index), degrees, rotation.corners))
        if region is not None:
            region = region.index_copy(0, index, rotate(region.index_select(0, index), degrees, rotation.corners))
        return turned, region

    def _anomalies(
        self, normal: Tensor, keys: Tensor, draws: Tensor, region: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Anomalous images, masks and sources, each sample with an anomaly."""
        config = self.config
        kinds = uniform(keys, Stream.KINDS, (3,))
        masks = choose(kinds[:, 0], list(config.masks.model_dump().values()))
        sources = choose(kinds[:, 1], list(config.source_weights.values()))
        mask, source = self._masks_and_sources(normal, keys, masks, sources, region)
        source = self._blended(normal, source, mask, sources, kinds[:, 2] < config.gradient_share)
        foreign = sources < _FIRST_STRUCTURAL
        low, high = (torch.where(foreign, *bounds) for bounds in zip(config.beta, config.structural_beta, strict=True))
        opacity = 1.0 - to_device(low + (high - low) * draws[:, 3], self.device)[:, None, None, None]
        if not foreign.all():
            change = (source - normal).abs_().amax(1, keepdim=True) * opacity  # of the channel that changed most
            mask = _visible(mask, change, to_device(torch.where(foreign, -1.0, config.visible), self.device))
        return torch.lerp(normal, source, self._softened(mask, keys) * opacity), mask, source

    def _softened(self, mask: Tensor, keys: Tensor) -> Tensor:
        """How much of the source is to be seen: the mask, its edge as soft as drawn."""
        low, high = self.config.softness
        if high == 0.0:
            return mask
        drawn = to_device(uniform(keys, Stream.SOFTNESS, (1,))[:, 0], self.device)
        sigma = (low + (high - low) * drawn).clamp_(min=0.05)
        return gaussian(mask, sigma, sigma)

    def _masks_and_sources(
        self, normal: Tensor, keys: Tensor, masks: Tensor, sources: Tensor, region: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Where the anomalies lie, B×1×H×W, and what is to be seen there, B×C×H×W; crops bring their own masks."""

        def make(is_crop: int, members: Tensor) -> tuple[Tensor, Tensor]:
            images, within = _some(normal, members), None if region is None else _some(region, members)
            if is_crop:
                return self.crops.draw(images, keys[members], within)
            mask = self._masks(keys[members], masks[members], within)
            return mask, self._sources(images, mask, keys[members], sources[members])

        mask, source = _each_kind(sources == _CROPS, make, self.device)
        return mask, source

    def _masks(self, keys: Tensor, kinds: Tensor, region: Tensor | None) -> Tensor:
        """Anomaly masks, B×1×H×W."""

        def make(kind: int, members: Tensor) -> tuple[Tensor]:
            within = None if region is None else _some(region, members)
            return (MASKS[_MASKS[kind]](keys[members], self.size, self.config, self.device, within),)

        return _each_kind(kinds, make, self.device)[0]

    def _sources(self, normal: Tensor, mask: Tensor, keys: Tensor, kinds: Tensor) -> Tensor:
        """What is to be seen within the masks, B×C×H×W."""

        def make(kind: int, members: Tensor) -> tuple[Tensor]:
            name, images = _SOURCES[kind], _some(normal, members)
            if name in self.foreign:
                return (self._foreign(name, images, keys[members]),)
            return (STRUCTURAL[name](images, _some(mask, members), keys[members]),)

        return _each_kind(kinds, make, self.device)[0]

    def _blended(self, normal: Tensor, source: Tensor, mask: Tensor, kinds: Tensor, by_gradient: Tensor) -> Tensor:
        """The sources; of patches and crops, those that are to take their colours from the surroundings do so."""
        members = (by_gradient & ((kinds == _PATCH) | (kinds == _CROPS))).nonzero()[:, 0]
        if not len(members):
            return source
        images, pasted, masks = (_some(whole, members) for whole in (normal, source, mask))
        return source.index_copy(0, to_device(members, self.device), gradient_blend(images, pasted, masks))

    def _foreign(self, kind: SourceKind, normal: Tensor, keys: Tensor) -> Tensor:
        """Textures, augmented, or flat colours; grey on grey images."""
        config = self.config
        source = self.foreign[kind].draw(keys, self.device)
        if kind != "flat":
            source = augment(source, keys, config.augmentations, config.augmentations_drawn)
        return _matched(source, normal) if config.source_colour == "match" and self.channels == 3 else source


def _some(tensor: Tensor, members: Tensor) -> Tensor:
    """The members' rows (int64 on the CPU); without a copy where they are all rows."""
    return tensor if len(members) == len(tensor) else tensor.index_select(0, to_device(members, tensor.device))


def _each_kind(
    kinds: Tensor, make: Callable[[int, Tensor], tuple[Tensor, ...]], device: torch.device
) -> tuple[Tensor, ...]:
    """Make the samples of each kind in one call, and put them back into their order; kinds: B on the CPU."""
    order = kinds.argsort(stable=True)
    present = sorted(set(kinds.tolist()))
    members = torch.split(order, [int((kinds == kind).sum()) for kind in present])
    parts = [make(kind, some) for kind, some in zip(present, members, strict=True)]
    if len(parts) == 1:
        return parts[0]
    back = to_device(order.argsort(), device)
    return tuple(torch.cat(pieces).index_select(0, back) for pieces in zip(*parts, strict=True))


def _visible(mask: Tensor, change: Tensor, least: Tensor) -> Tensor:
    """The mask where an image changes (B×1×H×W) by more than `least` (B) in the mean over the mask's pixels nearby.

    Taking away what is not there leaves nothing to find.
    """
    excess = window_sums((change - least[:, None, None, None]) * mask, _NEARBY)
    seen = torch.gt(excess, 0.0, out=torch.empty_like(excess))
    # What changed less at the rim of a visible change belongs to it.
    return mask * dilated(seen * mask, _NEARBY)


def _matched(source: Tensor, normal: Tensor) -> Tensor:
    """The textures, in grey where the normal image is: colour alone would give the anomaly away."""
    some = normal[:, :, ::2, ::2]
    chroma = (some.amax(1) - some.amin(1)).amax((1, 2))
    luma = (to_device(torch.tensor(LUMA), source.device) @ source.flatten(2)).view_as(source[:, 0])[:, None]
    # A weight of 0 or 1 is exact, and many times faster on a CPU than a choice by booleans.
    return torch.lerp(source, luma, (chroma < _GREY).to(source.dtype)[:, None, None, None])


def contact_sheet(simulated: Simulated) -> NDArray[np.uint8]:
    """Lay a batch out for the eye: H×W×3 uint8 RGB, a row a sample; normal, mask, source, augmented image."""
    parts = (simulated.normal, simulated.mask, simulated.source, simulated.anomalous)
    pixels = [view(part.cpu().permute(0, 2, 3, 1).numpy()) for part in parts]
    rows = [[part[index] for part in pixels] for index in range(len(simulated.normal))]
    return sheet(rows, ("normal", "mask", "source", "augmented"))
