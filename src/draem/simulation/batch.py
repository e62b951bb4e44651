"""What the network sees of a bank's images, and where anomalies may lie on it, on the device.

Where the network sees tiles, the samples' keys decide where these lie.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from draem.config import Config
from draem.data.bank import ImageBank
from draem.data.regions import Regions
from draem.pixels import PixelFormat
from draem.simulation.draws import Stream, to_device, uniform
from draem.simulation.lighting import relight


def load_normal(
    bank: ImageBank, indices: Tensor, keys: Tensor, device: torch.device, config: Config, inspected: Regions | None
) -> tuple[Tensor, Tensor | None]:
    """Normal images for anomalies to be simulated on, B×C×H×W float32 in [0,1]; and where they count, B×1×H×W or none.

    Under light that varies, then mid-grey where nothing counts, if the configuration says so: inspection knows mid-grey
    in one light alone.
    """
    images = relight(load_batch(bank, indices, keys, device), keys, config.simulation.lighting)
    counted = load_regions(inspected, indices, keys, device)
    return blanked(images, counted, config.data.pixel_format) if config.data.blanks else images, counted


def load_batch(bank: ImageBank, indices: Tensor, keys: Tensor, device: torch.device) -> Tensor:
    """Images of the bank, or tiles of them, on the device: B×C×H×W float32 in [0,1]."""
    pixels = torch.from_numpy(bank.views(indices.numpy(), _places(keys)))
    highest = 255.0
    if pixels.dtype == torch.uint16:  # which not every device knows
        pixels, highest = pixels.float(), 65535.0
    if device.type == "cuda":
        pixels = pixels.pin_memory()  # so that the copy does not wait for the device
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(highest)


def blanked(images: Tensor, inspected: Tensor | None, pixels: PixelFormat) -> Tensor:
    """The images, mid-grey where they are not inspected (B×1×H×W of 0 and 1; none: they are all over)."""
    if inspected is None:
        return images
    return images * inspected + (1.0 - inspected) * (pixels.middle / pixels.highest)


def load_regions(regions: Regions | None, indices: Tensor, keys: Tensor, device: torch.device) -> Tensor | None:
    """Regions on these images or tiles, on the device, B×1×H×W float32, 1 inside, else 0; None: everywhere."""
    masks = None if regions is None else regions.views(indices.numpy(), _places(keys))
    return None if masks is None else to_device(torch.from_numpy(masks), device)[:, None].float()


def _places(keys: Tensor) -> NDArray[np.float32]:
    return uniform(keys, Stream.TILE, (2,)).numpy()
