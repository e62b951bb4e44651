"""What a simulated anomaly is made of, where it is foreign: textures from nothing or from a folder, flat colours."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from draem.config import SimulationConfig, SourceKind
from draem.errors import DataError, ImageError
from draem.images import IMAGE_SUFFIXES, read_image
from draem.simulation.channels import with_channels
from draem.simulation.draws import Stream, integers, to_device, uniform
from draem.simulation.textures import KINDS, colour, grain, palettes, relief

_log = logging.getLogger(__name__)


class Source(Protocol):
    """Where anomaly source textures come from."""

    def draw(self, keys: Tensor, device: torch.device) -> Tensor:
        """Draw one texture for each of `keys` (int64 B on the CPU): B×C×H×W float32 in [0, 1] on `device`."""
        ...


class ProceduralTextures:
    """Textures made on the device, without any files: thirteen kinds, each in endless variants."""

    def __init__(self, size: tuple[int, int], channels: int = 3) -> None:
        self.size, self.channels = size, channels

    def draw(self, keys: Tensor, device: torch.device) -> Tensor:
        """Draw one texture for each of `keys` (int64 B on the CPU): B×C×H×W float32 in [0, 1] on `device`."""
        draws = uniform(keys, Stream.TEXTURE, (11,))
        kinds = integers(draws[:, 0], 0, len(KINDS) - 1)
        # Sorted by kind on the host, each kind is one slice, and the draws follow their keys.
        order = kinds.argsort(stable=True)
        counts = torch.bincount(kinds, minlength=len(KINDS)).tolist()
        device_keys, device_draws = to_device(keys[order], device), to_device(draws[order], device)
        fields = [
            kind(some_keys, some_draws[:, 3:], self.size)
            for kind, some_keys, some_draws in zip(
                KINDS, torch.split(device_keys, counts), torch.split(device_draws, counts), strict=True
            )
            if len(some_keys)
        ]
        field = torch.cat(fields)
        textures = colour(field, palettes(device_keys, self.channels))
        light = relief(field, device_draws[:, 1]).add_(grain(device_keys, device_draws[:, 2], self.size))
        textures.add_(light[:, None]).clamp_(0.0, 1.0)
        return textures.index_select(0, to_device(order.argsort(), device))


class FolderTextures:
    """Textures from a folder's images, decoded once and kept in RAM as uint8.

    folder: searched to any depth. size: (H, W) of the textures: larger images are resized, smaller ones mirrored on
    until they fill it. channels: see `with_channels`. Images that cannot be read are skipped with a warning.
    Raises DataError if the folder does not exist or holds no image that can be read.
    """

    def __init__(self, folder: Path, size: tuple[int, int], channels: int = 3) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of textures: give one in simulation.textures, or none")
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        with ThreadPoolExecutor() as pool:
            store = np.empty((len(paths), *size, channels), np.uint8)  # filled in place: a folder of textures is large
            count = 0
            for image in pool.map(lambda path: _texture(path, size), paths):
                if image is not None:
                    store[count] = with_channels(image, channels)
                    count += 1
        if not count:
            raise DataError(f"{folder}: holds no readable texture images: put PNG, JPEG, BMP, TIFF or WebP files there")
        self.images = torch.from_numpy(store[:count])  # T×H×W×C uint8

    def draw(self, keys: Tensor, device: torch.device) -> Tensor:
        """Draw one texture for each of `keys` (int64 B on the CPU): B×C×H×W float32 in [0, 1] on `device`."""
        which = integers(uniform(keys, Stream.TEXTURE, (1,))[:, 0], 0, len(self.images) - 1)
        drawn = to_device(self.images.index_select(0, which), device).permute(0, 3, 1, 2)
        return drawn.to(torch.float32, memory_format=torch.contiguous_format).div_(255.0)


class FlatColours:
    """One colour all over: what the paper's ablation compares textures with."""

    def __init__(self, size: tuple[int, int], channels: int = 3) -> None:
        self.size, self.channels = size, channels

    def draw(self, keys: Tensor, device: torch.device) -> Tensor:
        """Draw one colour for each of `keys` (int64 B on the CPU): B×C×H×W float32 in [0, 1] on `device`."""
        colours = uniform(keys, Stream.TEXTURE, (self.channels,))
        return to_device(colours, device)[:, :, None, None].repeat(1, 1, *self.size)


def open_sources(config: SimulationConfig, size: tuple[int, int], channels: int = 3) -> dict[SourceKind, Source]:
    """The foreign sources that have a weight: textures made from nothing or from a folder, and flat colours."""
    makers: dict[SourceKind, Callable[[], Source]] = {
        "procedural": lambda: ProceduralTextures(size, channels),
        "folder": lambda: FolderTextures(config.textures or Path(), size, channels),
        "flat": lambda: FlatColours(size, channels),
    }
    weights = config.source_weights
    return {kind: make() for kind, make in makers.items() if weights[kind]}


def _texture(path: Path, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """One texture at the wanted size, H×W×3 uint8 RGB, or none if the file cannot be read."""
    try:
        image = read_image(path)
    except ImageError as error:
        _log.warning("texture skipped: %s", error)
        return None
    height, width = min(size[0], image.shape[0]), min(size[1], image.shape[1])
    if (height, width) != image.shape[:2]:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return np.pad(image, ((0, size[0] - height), (0, size[1] - width), (0, 0)), mode="symmetric")
