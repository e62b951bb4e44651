"""Where a simulated anomaly lies: thresholded Perlin noise, and the registry of all kinds of masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from draem.config import MaskKind, SimulationConfig
from draem.simulation.draws import Stream, integers, to_device, uniform
from draem.simulation.fields import highest
from draem.simulation.lines import crack_masks, scratch_masks
from draem.simulation.perlin import perlin
from draem.simulation.placing import inside_of, pixels_of, points_in
from draem.simulation.plans import plan
from draem.simulation.rotation import rotate
from draem.simulation.shapes import rectangle_masks, scar_masks
from draem.simulation.spots import blob_masks, chip_masks, stain_masks

MaskMaker = Callable[[Tensor, tuple[int, int], SimulationConfig, torch.device, Tensor | None], Tensor]
"""From keys (int64 B on the CPU), size (H, W), configuration, device and region (B×1×H×W on the device, above 0.5
inside; none: everywhere) to anomaly masks: B×1×H×W float32, 1 where anomalous, else 0, none of them empty, all within
the region."""


def perlin_masks(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device, region: Tensor | None = None
) -> Tensor:
    """Draw anomaly masks: B×1×H×W float32, 1 where anomalous, else 0; see `MaskMaker`.

    Perlin noise on a lattice of its own for each sample is turned by a random angle and thresholded: at a wanted area,
    or else at `config.mask_threshold`. No mask is empty unless `config.allow_empty`: noise that stays below the
    threshold is thresholded between a half and nine tenths of its own peak.
    """
    noise, draws = _noise(keys, size, config, device)
    inside = inside_of(region)
    if config.area is not None:
        share = plan(keys, config, 0).share
        assert share is not None
        pixels = to_device((share * (size[0] * size[1])).float(), device).round_().clamp_(min=1.0)
        return highest(noise, pixels, inside)
    least, most = config.mask_threshold
    threshold = (least + (most - least) * draws[:, 3])[:, None, None, None]
    if inside is not None:
        noise = noise * inside
    if not config.allow_empty:
        noise, threshold = _never_empty(noise, threshold, 0.5 + 0.4 * draws[:, 4])
    # Into a float tensor at once: through booleans it takes three times as long on a CPU.
    mask = torch.gt(noise, threshold, out=torch.empty_like(noise))
    if inside is None:
        return mask
    mask.mul_(inside)
    return mask if config.allow_empty else _some_pixel(mask, inside, keys)


def _noise(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Turned Perlin noise, B×1×H×W, and the samples' draws, B×5, on the device."""
    draws = uniform(keys, Stream.MASK, (5,))
    low, high = config.lattice
    exponents = integers(draws[:, :2], low, high)
    # Finer than two pixels a cell, every pixel would lie on a lattice line, where Perlin noise is zero.
    finest = [min(high, (side // 2).bit_length() - 1) for side in size]
    lattice = to_device(2 ** torch.minimum(exponents, torch.tensor(finest)), device)
    limit = (2 ** finest[0], 2 ** finest[1])
    on_device = to_device(draws, device)
    noise = perlin(to_device(keys, device), lattice, limit, size, Stream.MASK_GRADIENTS, config.octaves)[:, None]
    if config.mask_rotation:
        # Black corners are all zero: no threshold could cut a share of them.
        corners: Literal["black", "reflect"] = "black" if config.area is None else "reflect"
        noise = rotate(noise, (on_device[:, 2] * 2.0 - 1.0) * config.mask_rotation, corners)
    return noise, on_device


def _never_empty(noise: Tensor, threshold: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Where no noise is above the threshold, take it at `share` (B) of the noise's peak of either sign."""
    top, bottom = noise.amax((1, 2, 3), keepdim=True), noise.amin((1, 2, 3), keepdim=True)
    empty = top <= threshold
    # Perlin noise is symmetric about zero: its negative is as good, and its peak may be the higher one.
    flip = empty & (-bottom > top)
    peak = torch.where(flip, -bottom, top)
    return noise * (1.0 - 2.0 * flip), torch.where(empty, peak * share[:, None, None, None], threshold)


def _some_pixel(mask: Tensor, inside: Tensor, keys: Tensor) -> Tensor:
    """The mask; where it is empty, one pixel of the region: noise may be zero or below all over a small one."""
    draws = to_device(uniform(keys, Stream.REGION, (1, 2)), mask.device)
    size = (mask.shape[2], mask.shape[3])
    place = pixels_of(points_in(inside, draws, size), size)
    empty = 1.0 - mask.amax((2, 3))
    mask.flatten(1).scatter_add_(1, place, empty)
    return mask


MASKS: dict[MaskKind, MaskMaker] = {
    "perlin": perlin_masks,
    "rectangle": rectangle_masks,
    "scar": scar_masks,
    "scratch": scratch_masks,
    "blob": blob_masks,
    "crack": crack_masks,
    "chip": chip_masks,
    "stain": stain_masks,
}
