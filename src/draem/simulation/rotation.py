"""Batched rotation of images about their centre."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def rotate(images: Tensor, degrees: Tensor, corners: Literal["black", "reflect"]) -> Tensor:
    """Turn each image counter-clockwise by its own angle, with bilinear interpolation.

    images: B×C×H×W float. degrees: float B on the same device. corners: what lies beyond the image: zero, or the image
    mirrored at its edges. Returns B×C×H×W.
    """
    height, width = images.shape[-2:]
    radians = torch.deg2rad(degrees)[:, None, None]
    cos, sin = radians.cos(), radians.sin()
    y = torch.arange(height, device=images.device, dtype=torch.float32) - (height - 1) / 2
    x = torch.arange(width, device=images.device, dtype=torch.float32) - (width - 1) / 2
    y, x = y[None, :, None], x[None, None, :]
    # grid_sample counts in half-widths from the centre.
    grid = torch.empty(len(images), height, width, 2, device=images.device)
    torch.add((cos * x) * (2 / width), (sin * y) * (-2 / width), out=grid[..., 0])
    torch.add((sin * x) * (2 / height), (cos * y) * (2 / height), out=grid[..., 1])
    padding = "zeros" if corners == "black" else "reflection"
    return grid_sample(images, grid, padding_mode=padding, align_corners=False)
