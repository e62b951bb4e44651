"""The smoothest surface through given pixels, by a pyramid: averages on the way down, smoothing on the way up.

Sources: S. Gortler et al., The lumigraph, SIGGRAPH 1996 (push-pull); F. Bornemann, P. Deuflhard, The cascadic multigrid
method for elliptic problems, 1996.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_FINE_SWEEPS, _SWEEPS = 1, 6


def membrane(values: Tensor, known: Tensor) -> Tensor:
    """Keep `values` where `known`, and nearly solve Laplace's equation elsewhere; borders of the image are free.

    values: B×C×H×W float32; known: B×1×H×W, 1 or 0. Returns B×C×H×W; zero where nothing at all is known. Off the
    exact solution by up to about 4 % of the values' range, 1 % in the mean; of a ramp, 2 % and 0.3 %.
    """
    levels = [(values, known)]
    total, weight = values * known, known
    while max(weight.shape[-2:]) > 1:
        total, weight = _halved(total), _halved(weight)
        levels.append((total / weight.clamp(min=1e-6), weight.clamp(max=1.0)))
        # More than one known pixel in a cell makes it no more than known.
        scale = 1.0 / weight.clamp(min=1.0)
        total, weight = total * scale, weight * scale
    surface = levels.pop()[0]
    while levels:
        level, weight = levels.pop()
        surface = torch.lerp(_doubled(surface, level.shape), level, weight)
        for _ in range(_SWEEPS if levels else _FINE_SWEEPS):
            surface = torch.lerp(neighbours(surface), level, weight)
    return surface


def _halved(images: Tensor) -> Tensor:
    """Sums of 2×2 pixels; what lies beyond an odd side is zero."""
    height, width = images.shape[-2:]
    if height % 2 or width % 2:
        images = functional.pad(images, (0, width % 2, 0, height % 2))
    rows = images[..., ::2, :] + images[..., 1::2, :]  # several times faster on a CPU than pooling
    return rows[..., ::2] + rows[..., 1::2]


def _doubled(images: Tensor, shape: torch.Size) -> Tensor:
    """Bilinear interpolation to twice the size, or one pixel less."""
    for dim in (3, 2):
        size = list(images.shape)
        size[dim] *= 2
        twice = images.new_empty(size)  # filled by every second row or column: eight times faster than stacking
        first, last = images.narrow(dim, 0, 1), images.narrow(dim, -1, 1)
        wide = torch.cat((first, images, last), dim)
        for offset in (0, 1):
            beside = wide.narrow(dim, 2 * offset, images.shape[dim])
            every_second = (slice(None),) * dim + (slice(offset, None, 2),)
            torch.lerp(images, beside, 0.25, out=twice[every_second])
        images = twice.narrow(dim, 0, shape[dim])
    return images


def neighbours(images: Tensor) -> Tensor:
    """The mean of the four neighbours of each pixel; beyond the image, the pixel itself."""
    wide = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    sides = wide[..., 1:-1, :-2] + wide[..., 1:-1, 2:]
    return sides.add_(wide[..., :-2, 1:-1]).add_(wide[..., 2:, 1:-1]).mul_(0.25)
