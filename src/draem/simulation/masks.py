"""Where a simulated anomaly lies: thresholded Perlin noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from draem.config import MaskKind, SimulationConfig
from draem.simulation.draws import Stream, integers, to_device, uniform
from draem.simulation.perlin import perlin
from draem.simulation.rotation import rotate

MaskMaker = Callable[[Tensor, tuple[int, int], SimulationConfig, torch.device, Tensor | None], Tensor]
"""From keys (int64 B on the CPU), size (H, W), configuration, device and region (B×1×H×W on the device, above 0.5
inside; none: everywhere) to anomaly masks: B×1×H×W float32, 1 where anomalous, else 0, none of them empty, all within
the region."""


def perlin_masks(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device, region: Tensor | None = None
) -> Tensor:
    """Draw anomaly masks: B×1×H×W float32, 1 where anomalous, else 0; see `MaskMaker`.

    Perlin noise on a lattice of its own for each sample is turned by a random angle and
    thresholded. No mask is empty unless `config.allow_empty`: noise that stays below the threshold is thresholded
    between a half and nine tenths of its own peak.
    """
    draws = uniform(keys, Stream.MASK, (5,))
    low, high = config.lattice
    exponents = integers(draws[:, :2], low, high)
    # Finer than two pixels a cell, every pixel would lie on a lattice line, where Perlin noise is zero.
    finest = [min(high, (side // 2).bit_length() - 1) for side in size]
    lattice = 2 ** torch.minimum(exponents, torch.tensor(finest))
    limit = (2 ** finest[0], 2 ** finest[1])
    on_device = to_device(draws, device)
    noise = perlin(to_device(keys, device), to_device(lattice, device), limit, size, Stream.MASK_GRADIENTS)[:, None]
    if config.mask_rotation:
        noise = rotate(noise, (on_device[:, 2] * 2.0 - 1.0) * config.mask_rotation, "black")
    lowest, highest = config.mask_threshold
    threshold = (lowest + (highest - lowest) * on_device[:, 3])[:, None, None, None]
    if not config.allow_empty:
        noise, threshold = _never_empty(noise, threshold, 0.5 + 0.4 * on_device[:, 4])
    # Into a float tensor at once: through booleans it takes three times as long on a CPU.
    return torch.gt(noise, threshold, out=torch.empty_like(noise))


def _never_empty(noise: Tensor, threshold: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Where no noise is above the threshold, take it at `share` (B) of the noise's peak of either sign."""
    top, bottom = noise.amax((1, 2, 3), keepdim=True), noise.amin((1, 2, 3), keepdim=True)
    empty = top <= threshold
    # Perlin noise is symmetric about zero: its negative is as good, and its peak may be the higher one.
    flip = empty & (-bottom > top)
    peak = torch.where(flip, -bottom, top)
    return noise * (1.0 - 2.0 * flip), torch.where(empty, peak * share[:, None, None, None], threshold)


MASKS: dict[MaskKind, MaskMaker] = {"perlin": perlin_masks}
