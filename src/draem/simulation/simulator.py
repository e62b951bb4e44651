"""Simulated anomalies: I_a = (1 − M)·I + (1 − β)·M·A + β·M·I, in batches, on the device of the images.

Source: V. Zavrtanik, M. Kristan, D. Skočaj, DRÆM, ICCV 2021, section 3.3.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from draem.config import SimulationConfig
from draem.pictures import sheet
from draem.pixels import view
from draem.simulation.augment import augment
from draem.simulation.draws import Stream, to_device, uniform
from draem.simulation.masks import perlin_masks
from draem.simulation.rotation import rotate
from draem.simulation.sources import open_source

_LUMA = (0.299, 0.587, 0.114)
"""Weights of the channels in the brightness that people see (ITU-R BT.601)."""
_GREY = 1.5 / 255
"""Channels that differ by less, at every second pixel, make a grey image."""
_CPU_CHUNK = 8


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

    config: what to draw. size: (H, W) of the images. device: where they are and the work is done. channels: of the
    images; textures become grey for one, and repeat their three for more.
    Raises DataError if `config.textures` names a folder without readable images.
    """

    def __init__(
        self, config: SimulationConfig, size: tuple[int, int], device: torch.device | str, channels: int = 3
    ) -> None:
        self.config = config
        self.size = size
        self.channels = channels
        self.device = torch.device(device)
        self.source = open_source(config.textures, size)
        # A CPU works fastest on what stays in its cache; an accelerator on everything at once.
        self._at_once = _CPU_CHUNK if self.device.type == "cpu" else sys.maxsize

    def __call__(self, images: Tensor, keys: Tensor) -> Simulated:
        """Simulate: images B×C×H×W float32 in [0, 1] on the device, keys int64 B on the CPU (`draws.sample_keys`).

        The same images and keys give the same result, bit for bit, on one device. Nothing waits for the device.
        """
        if images.shape != (len(keys), self.channels, *self.size):
            expected = f"{len(keys)}×{self.channels}×{self.size[0]}×{self.size[1]}"
            raise ValueError(f"images must be {expected}, one for each key, not {'×'.join(map(str, images.shape))}")
        # Under mixed precision, autocast would turn the noise's matrix products into bfloat16.
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            draws = uniform(keys, Stream.SAMPLE, (4,))
            normal = self._rotated(images.to(torch.float32), draws)
            # Written into place: a batch's parts, concatenated, would cost a second set of large buffers.
            whole = normal.clone(), torch.zeros_like(normal[:, :1]), torch.zeros_like(normal)
            members = (draws[:, 0] >= self.config.clean_share).nonzero()[:, 0]
            for some in torch.split(members, self._at_once) if len(members) else ():
                index = to_device(some, self.device)
                parts = self._anomalies(normal.index_select(0, index), keys[some], draws[some])
                for target, part in zip(whole, parts, strict=True):
                    target.index_copy_(0, index, part)
            return Simulated(normal, *whole)

    def _rotated(self, images: Tensor, draws: Tensor) -> Tensor:
        """Turn the images that are to be turned."""
        rotation = self.config.rotation
        members = (draws[:, 1] < rotation.probability).nonzero()[:, 0]
        if not len(members) or not rotation.degrees:
            return images
        index = to_device(members, self.device)
        degrees = to_device((draws[members, 2] * 2.0 - 1.0) * rotation.degrees, self.device)
        return images.index_copy(0, index, rotate(images.index_select(0, index), degrees, rotation.corners))

    def _anomalies(self, normal: Tensor, keys: Tensor, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Anomalous images, masks and sources, each sample with an anomaly."""
        config = self.config
        mask = perlin_masks(keys, self.size, config, self.device)
        source = self.source.draw(keys, self.device)
        source = augment(source, keys, config.augmentations, config.augmentations_drawn)
        if self.channels != 3:
            source = _in_channels(source, self.channels)
        elif config.source_colour == "match":
            source = _matched(source, normal)
        low, high = config.beta
        opacity = to_device(low + (high - low) * draws[:, 3], self.device)[:, None, None, None]
        return torch.lerp(normal, source, mask * (1.0 - opacity)), mask, source


def _matched(source: Tensor, normal: Tensor) -> Tensor:
    """The textures, in grey where the normal image is: colour alone would give the anomaly away."""
    some = normal[:, :, ::2, ::2]
    chroma = (some.amax(1) - some.amin(1)).amax((1, 2))
    return torch.where((chroma < _GREY)[:, None, None, None], _luma(source), source)


def _in_channels(source: Tensor, channels: int) -> Tensor:
    """Textures for images that are not RGB: their luma for one channel, else their three again and again."""
    return _luma(source) if channels == 1 else source[:, torch.arange(channels, device=source.device) % 3]


def _luma(source: Tensor) -> Tensor:
    return (source.new_tensor(_LUMA) @ source.flatten(2)).view_as(source[:, 0])[:, None]


def contact_sheet(simulated: Simulated) -> NDArray[np.uint8]:
    """Lay a batch out for the eye: H×W×3 uint8 RGB, a row a sample; normal, mask, source, augmented image."""
    parts = (simulated.normal, simulated.mask, simulated.source, simulated.anomalous)
    pixels = [view(part.cpu().permute(0, 2, 3, 1).numpy()) for part in parts]
    rows = [[part[index] for part in pixels] for index in range(len(simulated.normal))]
    return sheet(rows, ("normal", "mask", "source", "augmented"))
