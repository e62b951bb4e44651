"""Where each pixel of a warped image is read."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


def pixel_places(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows H×1 and columns 1×W of the pixels, float32."""
    rows, columns = (torch.arange(side, device=device, dtype=torch.float32) for side in size)
    return rows[:, None], columns[None, :]


def read_at(images: Tensor, rows: Tensor, columns: Tensor, *, beyond: str = "reflection") -> Tensor:
    """Read images (B×C×h×w) at rows and columns in pixels, each B×H×W: B×C×H×W, bilinear.

    beyond: what lies outside of the image, in the words of `grid_sample`.
    """
    height, width = images.shape[-2:]
    # grid_sample counts in half-widths from the centre.
    grid = torch.empty(*rows.shape, 2, device=images.device)
    torch.add(columns * (2.0 / width), 1.0 / width - 1.0, out=grid[..., 0])
    torch.add(rows * (2.0 / height), 1.0 / height - 1.0, out=grid[..., 1])
    return grid_sample(images, grid, padding_mode=beyond, align_corners=False)


def turned_places(matrix: Tensor, centre: Tensor, origin: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns, B×H×W each, at which a pixel p is read: matrix · (p − centre) + origin.

    matrix: B×2×2, centre and origin: B×2, rows first, in pixels.
    """
    down, across = pixel_places(size, matrix.device)
    down, across = down - centre[:, 0, None, None], across - centre[:, 1, None, None]
    matrix, origin = matrix[..., None, None], origin[..., None, None]
    return (
        matrix[:, 0, 0] * down + origin[:, 0] + matrix[:, 0, 1] * across,
        matrix[:, 1, 0] * down + origin[:, 1] + matrix[:, 1, 1] * across,
    )


def turns_and_flips(turns: Tensor, flips: Tensor) -> Tensor:
    """Matrices, B×2×2, that turn by `turns` (B, of the full circle), then mirror columns where `flips` (B) is −1."""
    # Whole quarters come out exact, so that what is turned by them is not smoothed.
    angles = turns * (2.0 * math.pi)
    cos, sin = (torch.where(wave.abs() < 1e-6, 0.0, wave) for wave in (angles.cos(), angles.sin()))
    return torch.stack((cos, -sin * flips, sin, cos * flips), dim=1).view(-1, 2, 2)
