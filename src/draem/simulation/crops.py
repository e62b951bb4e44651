"""A folder of the user's own defects, cut out: pasted anywhere, turned, flipped and scaled, with their own masks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


class Crops:
    """Defects cut out of photographs, decoded once."""

    def __init__(self, folder: Path, size: tuple[int, int], channels: int = 3) -> None:
        raise NotImplementedError

    def masks(self, keys: Tensor, device: torch.device, region: Tensor | None) -> Tensor:
        """Where each crop lies: B×1×H×W float32, 1 where it is to be seen; see `masks.MaskMaker`."""
        raise NotImplementedError

    def images(self, normal: Tensor, mask: Tensor, keys: Tensor) -> Tensor:
        """The crops at the places of `masks` of the same keys; see `structural.StructuralSource`."""
        raise NotImplementedError
