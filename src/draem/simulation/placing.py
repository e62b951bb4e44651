"""Places for shapes: points drawn evenly from a region, without waiting for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from draem.simulation.draws import to_device


def points_in(region: Tensor | None, draws: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw pixels evenly from the region of each image: B×N×2 float32 rows and columns.

    region: B×1×H×W, above 0.5 inside; none: the whole image. An empty one counts as the whole image.
    draws: B×N×2 uniform in [0, 1), on the device of the region.
    """
    height, width = size
    if region is None:
        return draws * to_device(torch.tensor([height, width], dtype=draws.dtype), draws.device)
    inside = (region.flatten(1) > 0.5).to(torch.int32)
    inside = torch.where(inside.sum(1, keepdim=True) > 0, inside, 1)
    ends = inside.cumsum(1)  # integers: the same sums on every device
    wanted = (draws[..., 0].double() * ends[:, -1:]).to(ends.dtype) + 1
    place = torch.searchsorted(ends, wanted).clamp_(max=height * width - 1)
    pixel = torch.stack((place.div(width, rounding_mode="floor"), place % width), dim=2)
    return pixel + draws[..., 1:]  # anywhere within the pixel
