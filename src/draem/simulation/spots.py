"""Anomaly masks with soft outlines: blobs, chips and stains, the highest values of a field of distances and noise.

Their areas are exact, up to ties of the field, within a region too. Without an `area` they are shares of the region.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from draem.config import SimulationConfig
from draem.simulation.draws import Stream, to_device, uniform
from draem.simulation.fields import highest, smooth_noise
from draem.simulation.placing import anchors, inside_of, points_in
from draem.simulation.plans import Plan, geometric, plan

_BLOBS, _CHIPS = (0.0002, 0.05), (0.0005, 0.04)
"""Shares of the region, of each shape."""
_WHOLE = 0.3
"""Share of the stains that cover all of the region."""
_FINEST = 64
_LUMPS, _SPLINTERS = (0.6, 1.5), (0.35, 0.9)
"""Sizes of a blob's lumps and a chip's splinters, in radii."""


def _share(drawn: Plan, low: float, high: float) -> Tensor:
    """The share of all shapes together, B: the one wanted, or the sum of what each has, from `low` to `high`."""
    if drawn.share is not None:
        return drawn.share
    return (geometric(drawn.draws[..., 0], low, high) * drawn.drawn).sum(1).clamp_(max=1.0)


def _pixels(share: Tensor, drawn: Plan, size: tuple[int, int], inside: Tensor | None, device: torch.device) -> Tensor:
    """Pixels of each mask, B on the device: a wanted share is of the image, any other of the region."""
    shares = to_device(share.float(), device)
    room = size[0] * size[1] if inside is None or drawn.share is not None else inside.sum((1, 2, 3))
    return (shares * room).round().clamp_(min=1.0)


def _distance(drawn: Plan, pixels: Tensor, centres: Tensor, size: tuple[int, int]) -> Tensor:
    """Distance to the nearest of the ellipses' centres (B×S×2), in its radii: B×H×W; pixels: B, of all of them."""
    device = centres.device
    # The pixel that a centre lies in is nearest to it; missing shapes are far away.
    centres = centres.floor() + to_device(torch.where(drawn.drawn, 0.5, 1e6)[..., None], device)
    stretch = geometric(drawn.draws[..., 1], 1.0, 2.0).sqrt()
    radii = drawn.weights.sqrt().clamp(min=0.01)[..., None] * torch.stack((stretch, 1 / stretch), dim=-1)
    angle = drawn.draws[..., 2] * math.pi
    turn = torch.stack((angle.cos(), angle.sin()), dim=-1)
    slopes = to_device(torch.cat((turn / radii[..., :1], turn.flip(-1) / radii[..., 1:]), dim=-1).float(), device)
    y, x = (torch.arange(side, device=device) + 0.5 for side in size)
    nearest = torch.full((len(centres), *size), torch.inf, device=device)
    for slot in range(int(drawn.drawn.sum(1).max())):
        below, beside = y - centres[:, slot, :1], x - centres[:, slot, 1:]
        a, b, c, d = (slope[:, None] for slope in slopes[:, slot].unbind(-1))
        along = ((below * a)[:, :, None] + (beside * b)[:, None, :]).square_()
        across = ((below * c)[:, :, None] - (beside * d)[:, None, :]).square_()
        nearest = torch.minimum(nearest, along.add_(across))
    return nearest.sqrt_().div_((pixels / math.pi).sqrt()[:, None, None])


def _spots(
    drawn: Plan,
    pixels: Tensor,
    centres: Tensor,
    size: tuple[int, int],
    keys: Tensor,
    lumps: tuple[float, float],
    roughness: tuple[float, float],
) -> Tensor:
    """A field that falls off from the centres, with noise: B×1×H×W, in radii, highest at the centres.

    pixels: B, of all spots. lumps: sizes of the noise, in radii; roughness: its strength; each drawn between bounds.
    """
    device, distance = centres.device, _distance(drawn, pixels, centres, size)
    lump = (drawn.weights**1.5).sum(1) * geometric(drawn.draws[:, 0, 3], *lumps)
    lump = (pixels / math.pi).sqrt() * to_device(lump.float(), device)
    limit = (min(_FINEST, size[0] // 2), min(_FINEST, size[1] // 2))
    cells = torch.stack([(side / lump).clamp(max=most) for side, most in zip(size, limit, strict=True)], dim=1)
    noise = smooth_noise(to_device(keys, device), cells, limit, size)
    low, high = roughness
    strength = to_device((low + (high - low) * drawn.draws[:, 0, 4]).float(), device)
    # Towards the centres the noise fades, since these are always part of the mask, and away from them: no crumbs there.
    fading = (1.0 - (distance - 1.0).abs_()).clamp_(min=0.0)
    return noise.mul_(strength[:, None, None]).mul_(fading).sub_(distance)[:, None]


def blob_masks(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device, region: Tensor | None = None
) -> Tensor:
    """Round to lumpy spots; see `masks.MaskMaker`."""
    drawn, inside = plan(keys, config, 5), inside_of(region)
    pixels = _pixels(_share(drawn, *_BLOBS), drawn, size, inside, device)
    box = torch.zeros(*drawn.drawn.shape, 2, 2, dtype=torch.float64)
    centres = anchors(keys, box, size, device, inside)
    return highest(_spots(drawn, pixels, centres, size, keys, _LUMPS, (0.0, 0.6)), pixels, inside)


def chip_masks(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device, region: Tensor | None = None
) -> Tensor:
    """Bites out of the region's edge, or of the image's border where there is none; see `masks.MaskMaker`."""
    drawn, inside = plan(keys, config, 5), inside_of(region)
    pixels = _pixels(_share(drawn, *_CHIPS), drawn, size, inside, device)
    draws = uniform(keys, Stream.REGION, (config.count[1], 2))
    centres = to_device(_on_border(draws, size), device)
    if inside is not None:
        edge = edge_of(inside)
        on_edge = points_in(edge, to_device(draws, device), size)
        centres = torch.where(edge.amax((1, 2, 3))[:, None, None] > 0.5, on_edge, centres)
    # About half of each spot lies beyond the edge, where nothing is.
    return highest(_spots(drawn, 2.0 * pixels, centres, size, keys, _SPLINTERS, (0.3, 0.7)), pixels, inside)


def edge_of(inside: Tensor) -> Tensor:
    """The region's pixels next to one that is not of it: B×1×H×W float32; the image's border is no edge."""
    inner = inside.clone()
    for axis in (2, 3):
        length = inside.shape[axis] - 1
        for start in (0, 1):
            inner.narrow(axis, start, length).mul_(inside.narrow(axis, 1 - start, length))
    return inside - inner


def _on_border(draws: Tensor, size: tuple[int, int]) -> Tensor:
    """Points on the image's border: B×S×2 rows and columns, evenly spread; draws: B×S×2 uniform."""
    height, width = size
    around = draws[..., 0] * (2 * (height + width))
    rows = torch.where(around < height, around, (around - height - width).clamp(0, height))
    columns = (around - height).clamp(0, width) - (around - 2 * height - width).clamp(0, width)
    return torch.stack((rows.clamp(0.5, height - 0.5), columns.clamp(0.5, width - 0.5)), dim=-1)


def stain_masks(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device, region: Tensor | None = None
) -> Tensor:
    """The whole region, or at least half of it; see `masks.MaskMaker`."""
    drawn, inside = plan(keys, config, 3), inside_of(region)
    share = drawn.share
    if share is None:
        share = 0.5 + 0.5 * (drawn.draws[:, 0, 0] / (1.0 - _WHOLE)).clamp(max=1.0)
    cells = to_device((1.0 + 3.0 * drawn.draws[:, 0, 1:]).float(), device)
    on_device = to_device(keys, device)
    field = smooth_noise(on_device, cells, (4, 4), size)
    limit = (min(16, size[0] // 2), min(16, size[1] // 2))
    field.add_(smooth_noise(on_device + 1, (2.7 * cells).clamp(max=min(limit)), limit, size), alpha=0.5)
    return highest(field[:, None], _pixels(share, drawn, size, inside, device), inside)
