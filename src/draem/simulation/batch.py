"""Images of a bank, and where anomalies may lie on them, on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from draem.data.bank import ImageBank
from draem.data.regions import Regions
from draem.simulation.draws import to_device


def load_batch(bank: ImageBank, indices: Tensor, device: torch.device) -> Tensor:
    """Images of the bank on the device: B×C×H×W float32 in [0,1]."""
    pixels = torch.from_numpy(bank[indices.numpy()])
    highest = 255.0
    if pixels.dtype == torch.uint16:  # which not every device knows
        pixels, highest = pixels.float(), 65535.0
    if device.type == "cuda":
        pixels = pixels.pin_memory()  # so that the copy does not wait for the device
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(highest)


def load_regions(regions: Regions | None, indices: Tensor, device: torch.device) -> Tensor | None:
    """Regions of these images on the device, B×1×H×W float32, 1 inside, else 0; None: everywhere."""
    masks = None if regions is None else regions.masks(indices.numpy())
    return None if masks is None else to_device(torch.from_numpy(masks), device)[:, None].float()
