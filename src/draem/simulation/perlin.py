"""Loop-free, gather-free Perlin noise: two matrix products.

At offset (dy, dx) from a lattice point with gradient (sin φ, cos φ), Perlin noise adds w(dy)·w(dx)·(dy·sin φ +
dx·cos φ), with w(d) = 1 − fade(|d|) for |d| < 1, else 0. Each term is a function of the row times one of the column, so
with A the matrix of w at every row (or column) and lattice line, and A′ that of w(d)·d, the noise of one sample is

    A′_y · sin φ · A_xᵀ + A_y · cos φ · A′_xᵀ

Octaves add lattice lines: side by side in A, and as blocks along the diagonal of sin φ and cos φ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from draem.simulation.draws import to_device, uniform


def interpolation_matrices(cells: Tensor, length: int, lines: list[int]) -> tuple[Tensor, Tensor]:
    """Matrices A and A′ of one axis, each B×`length`×sum(`lines`).

    cells: B×octaves float, how many lattice cells the axis has in each octave. lines: how many lattice lines to make
    for each octave, at least one more than its cells.
    """
    device = cells.device
    number = torch.cat([torch.arange(count, dtype=torch.float32) for count in lines])
    columns = to_device(torch.repeat_interleave(torch.tensor(lines)), device)  # each line's octave
    spacing = (cells / length).index_select(1, columns)[:, None, :]  # B×1×lines, cells a pixel
    pixels = torch.arange(length, device=device, dtype=torch.float32)[:, None]
    offset = pixels * spacing - to_device(number, device)
    t = offset.abs().clamp_(max=1.0)
    weight = 1.0 - t * t * t * ((t * 6.0 - 15.0) * t + 10.0)
    return weight, weight * offset


def perlin(
    keys: Tensor, lattice: Tensor, limit: tuple[int, int], size: tuple[int, int], stream: int, octaves: int = 1
) -> Tensor:
    """Draw Perlin noise, B×H×W float32; one octave has the published code's amplitude, √2, and lies within ± 1.

    keys: int64 B. lattice: B×2 on the same device, cells down and across; any numbers up to `limit`, and any `size`
    (H, W): the size need not divide by them. The gradients drawn depend on `limit`, so that they do not depend on the
    rest of the batch. stream: of `draws.Stream`. octaves: each twice as fine and half as strong as the one before; with
    several, never finer than two pixels a cell.
    Source: K. Perlin, Improving noise, SIGGRAPH 2002 (the fade curve).
    """
    device = keys.device
    finest = [max(1, side // 2) if octaves > 1 else most for side, most in zip(size, limit, strict=True)]
    rows, columns = (
        [min(most * 2**octave, fine) + 1 for octave in range(octaves)] for most, fine in zip(limit, finest, strict=True)
    )
    cells = lattice[:, :, None] * to_device(2.0 ** torch.arange(octaves), device)  # B×2×octaves
    down, down_offset = interpolation_matrices(cells[:, 0].clamp(max=finest[0]), size[0], rows)
    across, across_offset = interpolation_matrices(cells[:, 1].clamp(max=finest[1]), size[1], columns)
    angles = uniform(keys, stream, (sum(rows), sum(columns))) * (2.0 * math.pi)
    row_octave, column_octave = (torch.repeat_interleave(torch.tensor(lines)) for lines in (rows, columns))
    strength = math.sqrt(2.0) * 0.5**row_octave
    blocks = to_device((row_octave[:, None] == column_octave) * strength[:, None], device)  # zero between octaves
    left = torch.cat((down_offset @ (angles.sin() * blocks), down @ (angles.cos() * blocks)), dim=2)
    right = torch.cat((across, across_offset), dim=2)  # B×W×2·lines
    return left @ right.transpose(1, 2)
