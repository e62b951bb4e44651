"""Masks from fields: smooth noise, and the pixels where a field is highest, as many as are wanted."""

from __future__ import annotations

import torch
from torch import Tensor

from draem.simulation.draws import Stream, uniform

_BISECTIONS = 24
"""The bits of a float32's fraction."""
_STEPS = 1024
_LEVELS = 16


def smooth_noise(keys: Tensor, cells: Tensor, limit: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Draw value noise, B×H×W float32 within ± 1: random heights at the points of a lattice, smoothly blended.

    keys: int64 B on the device. cells: B×2 float, lattice cells down and across, up to `limit`; any numbers do.
    Heights are multiples of 1/16 and weights of 1/1024, so that sums of their products are exact in float32: the same
    bits on any device, however a matrix product goes about it.
    """
    down, across = (_blending(cells[:, axis], size[axis], limit[axis] + 1) for axis in (0, 1))
    heights = uniform(keys, Stream.MASK_GRADIENTS, (limit[0] + 1, limit[1] + 1))
    heights = (heights * (2 * _LEVELS - 1)).floor_().sub_(_LEVELS - 1).div_(_LEVELS)
    return down @ heights @ across.transpose(1, 2)


def _blending(cells: Tensor, length: int, lines: int) -> Tensor:
    """The weight of every lattice line at every pixel of an axis: B×`length`×`lines`."""
    pixels = torch.arange(length, device=cells.device, dtype=torch.float32) + 0.5
    at = pixels[None, :, None] * (cells / length)[:, None, None]
    t = (at - torch.arange(lines, device=cells.device)).abs_().clamp_(max=1.0)
    return (t * t).mul_(3.0 - 2.0 * t).neg_().add_(1.0).mul_(_STEPS).round_().div_(_STEPS)


def highest(field: Tensor, pixels: Tensor, inside: Tensor | None) -> Tensor:
    """The mask of the highest values: B×1×H×W float32, 1 for `pixels` (B, at least 1) of them, up to ties, else 0.

    field: B×1×H×W float32. inside: where they may lie, as `inside_of`; if that has fewer pixels, the mask has them all.
    The threshold is found by bisection: a sort would take ten times as long.
    """
    wanted = pixels[:, None, None, None]
    low = field.amin((1, 2, 3), keepdim=True) - 1.0
    high = field.amax((1, 2, 3), keepdim=True)
    if inside is not None:
        field = torch.where(inside > 0.5, field, low)
    above = torch.empty_like(field)
    for _ in range(_BISECTIONS):
        middle = (low + high) * 0.5
        enough = torch.gt(field, middle, out=above).sum((1, 2, 3), keepdim=True) >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return torch.gt(field, low, out=above)
