"""Convex shapes as spans: in each row of pixels a convex shape covers one stretch, known in closed form.

A mask then costs a few numbers a row and shape and one running sum over the image, however many shapes it has. A pixel
is covered where its centre is. Everything here is elementwise or counts in integers: the same bits for a shape whatever
else is drawn with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEEPEST = 1e-6
"""In place of zero where a slope divides: over a whole image it is far less than a pixel."""


def capsule_spans(upper: Tensor, lower: Tensor, radius: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Left and right edge in each row of all that lies within a radius of a segment: N×`rows` each; right < left: none.

    upper, lower: the segments' ends, N×2 float32 rows and columns in pixels, the upper one with the smaller row.
    radius: N float32.
    """
    y, x, radius = upper[:, :1], upper[:, 1:], radius[:, None]
    down, across = (lower[:, :1] - y).clamp(min=_STEEPEST), lower[:, 1:] - x
    below = torch.arange(rows, device=upper.device) + 0.5 - y
    # The edge is a disc's that rolls along the segment: it touches a row farthest out where the segment's normal points
    # to the touching point, or at an end.
    tilt = radius * across / (down.square() + across.square()).sqrt()
    edges = []
    for side in (-1.0, 1.0):
        along = ((below + side * tilt) / down).clamp_(0.0, 1.0)
        squared = radius.square() - (below - along * down).square_()
        reach = squared.clamp(min=0.0).sqrt_().mul_(side)
        edges.append(torch.where(squared >= 0.0, reach + along * across + x, -side * torch.inf))
    return edges[0], edges[1]


def rectangle_spans(centre: Tensor, half: Tensor, direction: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Left and right edge in each row of turned rectangles: N×`rows` each; right < left: none.

    centre: N×2 float32, row and column in pixels. half: N×2, half the length and half the width. direction: N×2, sine
    and cosine of the angle between length and rows.
    """
    below = torch.arange(rows, device=centre.device) + 0.5 - centre[:, :1]
    sine, cosine = direction[:, :1], direction[:, 1:]
    edges = []
    # Two strips, |x·cosine + y·sine| ≤ half the length and |y·cosine − x·sine| ≤ half the width, cut each other.
    for reach, slope, shift in ((half[:, :1], cosine, below * -sine), (half[:, 1:], sine, below * cosine)):
        slope = torch.where(slope < 0.0, slope.clamp(max=-_STEEPEST), slope.clamp(min=_STEEPEST))
        first, second = (shift - reach) / slope, (shift + reach) / slope
        edges.append((torch.minimum(first, second), torch.maximum(first, second)))
    (left, right), (other_left, other_right) = edges
    return torch.maximum(left, other_left) + centre[:, 1:], torch.minimum(right, other_right) + centre[:, 1:]


def fill(left: Tensor, right: Tensor, images: Tensor, count: int, width: int) -> Tensor:
    """Fill spans: `count`×1×rows×`width` float32, 1 where any of them covers a pixel's centre, else 0.

    left, right: N×rows, in pixels. images: int64 N, the image of each.
    """
    rows = left.shape[1]
    # Infinite edges are held in before they become integers.
    starts, stops = ((edge - 0.5).ceil_().clamp_(0, width).long() for edge in (left, right))
    first = (images[:, None] * rows + torch.arange(rows, device=left.device)) * (width + 1)
    steps = torch.zeros(count * rows * (width + 1), dtype=torch.int32, device=left.device)
    for place, step in ((starts, 1), (torch.maximum(starts, stops), -1)):
        source = torch.full((1,), step, dtype=torch.int32, device=left.device).expand(place.numel())
        steps.scatter_add_(0, (first + place).flatten(), source)
    covering = steps.view(count, 1, rows, width + 1).cumsum(3, dtype=torch.int32)[..., :width]
    return covering.clamp_(max=1).to(torch.float32)
