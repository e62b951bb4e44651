"""Regions, and places for shapes: points drawn evenly from a region, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from draem.simulation.draws import Stream, to_device, uniform


def inside_of(region: Tensor | None) -> Tensor | None:
    """1 within the region, else 0: B×1×H×W float32; an empty region counts as the whole image."""
    if region is None:
        return None
    inside = torch.gt(region, 0.5, out=torch.empty_like(region))
    return torch.maximum(inside, 1.0 - inside.amax((1, 2, 3), keepdim=True))


def points_in(region: Tensor | None, draws: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw pixels evenly from the region of each image: B×N×2 float32 rows and columns.

    region: B×1×H×W, above 0.5 inside; none: the whole image. An empty one counts as the whole image.
    draws: B×N×2 uniform in [0, 1), on the device of the region.
    """
    height, width = size
    if region is None:
        return torch.stack((draws[..., 0] * height, draws[..., 1] * width), dim=2)
    inside = (region.flatten(1) > 0.5).to(torch.int32)
    inside = torch.where(inside.sum(1, keepdim=True) > 0, inside, 1)
    ends = inside.cumsum(1)  # integers: the same sums on every device
    total = ends[:, -1:]
    # Rounding may carry 0.99…·n up to n. Not in float64, which Apple's GPUs do not have.
    wanted = (draws[..., 0] * total).to(ends.dtype).minimum(total - 1) + 1
    place = torch.searchsorted(ends, wanted).clamp_(max=height * width - 1)
    pixel = torch.stack((place.div(width, rounding_mode="floor"), place % width), dim=2)
    return pixel + draws[..., 1:]  # anywhere within the pixel


def pixels_of(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Points, B×N×2 rows and columns, as int64 B×N positions in the flattened image."""
    rows, columns = (points[..., axis].long().clamp_(0, size[axis] - 1) for axis in (0, 1))
    return rows * size[1] + columns


def anchors(keys: Tensor, box: Tensor, size: tuple[int, int], device: torch.device, region: Tensor | None) -> Tensor:
    """Draw where shapes lie, B×N×2 float32 rows and columns on the device: anywhere within the region.

    keys: int64 B on the CPU. box: B×N×2×2 on the CPU, how far each shape reaches from its anchor: least row and column
    (at most 0), then greatest. Where there is no region, shapes that fit into the image lie wholly within it.
    """
    draws = uniform(keys, Stream.REGION, tuple(box.shape[1:3]))
    if region is not None:
        return points_in(region, to_device(draws, device), size)
    whole = torch.tensor(size, dtype=box.dtype)
    first, last = -box[..., 0, :], whole - box[..., 1, :]
    middle = (first + last) / 2
    first, last = torch.minimum(first, middle), torch.maximum(last, middle)
    places = (first + (last - first) * draws).clamp_(min=0.0).minimum(whole - 0.5)
    return to_device(places.to(torch.float32), device)


def within(mask: Tensor, centres: Tensor, inside: Tensor | None) -> Tensor:
    """What of the mask lies inside, and at the least the pixel where the first shape was placed."""
    mask = mask if inside is None else mask * inside
    first = pixels_of(centres[:, :1], (mask.shape[2], mask.shape[3]))[:, 0]
    mask.flatten(1).scatter_(1, first[:, None], 1.0)
    return mask
