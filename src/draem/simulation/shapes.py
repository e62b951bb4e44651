"""Anomaly masks with sharp outlines: rectangles and scars.

Sizes come from what an image of 256² would have. With an `area` they are scaled to it: on average exactly, one mask
within a tenth where the shapes do not overlap, fit into the image, and are larger than some twenty pixels; a region
cuts off what lies beyond it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from draem.config import SimulationConfig
from draem.simulation.draws import to_device
from draem.simulation.placing import anchors, inside_of, within
from draem.simulation.plans import Plan, geometric, pixels_each, plan, scale_of
from draem.simulation.spans import fill, rectangle_spans

_RECTANGLES = (0.0005, 0.15)
"""Shares of the image."""
_ASPECTS = (0.3, 3.3)
_SCAR_LENGTHS, _SCAR_WIDTHS = (10.0, 25.0), (2.0, 16.0)


class Rectangles(NamedTuple):
    """Turned rectangles on the CPU, float64: half length and half width in pixels, B×S×2; direction of the length as
    sine and cosine of its angle to the rows, B×S×2."""

    half: Tensor
    direction: Tensor


def rectangles(drawn: Plan, size: tuple[int, int]) -> Rectangles:
    """Upright rectangles, of 0.05 to 15 % of the image, up to three times as long as wide; sides in whole pixels."""
    pixels = pixels_each(drawn, size)
    if pixels is None:
        pixels = geometric(drawn.draws[..., 0], *_RECTANGLES) * (size[0] * size[1])
    pixels = pixels.clamp(min=1.0)
    wide = (pixels * geometric(drawn.draws[..., 1], *_ASPECTS)).sqrt()
    wide = torch.maximum(wide, pixels / size[0]).clamp_(1, size[1]).round_()
    high = (pixels / wide).clamp_(1, size[0]).round_()
    half = torch.stack((wide, high), dim=-1) / 2
    return Rectangles(half, torch.tensor([0.0, 1.0], dtype=half.dtype).expand_as(half))


def scars(drawn: Plan, size: tuple[int, int]) -> Rectangles:
    """Turned rectangles, 10 to 25 long and 2 to 16 wide at 256²; at least twice as long as wide.

    Source: C.-L. Li et al., CutPaste, CVPR 2021.
    """
    length, width = (
        (low + (high - low) * drawn.draws[..., index]) * scale_of(size)
        for index, (low, high) in enumerate((_SCAR_LENGTHS, _SCAR_WIDTHS))
    )
    angle = drawn.draws[..., 2] * math.pi
    direction = torch.stack((angle.sin(), angle.cos()), dim=-1)
    width = torch.minimum(width, length / 2)
    pixels = pixels_each(drawn, size)
    if pixels is not None:
        longest = (torch.tensor(size) / direction.abs().clamp(min=1e-9)).amin(-1)
        length = torch.minimum((pixels * length / width).sqrt(), 0.9 * longest)
        width = pixels / length
    return Rectangles(torch.stack((length, width.clamp(min=1.0)), dim=-1) / 2, direction)


def _masks(
    made: Rectangles, drawn: Plan, keys: Tensor, size: tuple[int, int], device: torch.device, region: Tensor | None
) -> Tensor:
    """Place the rectangles, fill them, and cut off what lies outside the region."""
    (length, width), (sine, cosine) = made.half.unbind(-1), made.direction.abs().unbind(-1)
    reach = torch.stack((length * sine + width * cosine, length * cosine + width * sine), dim=-1)
    region = inside_of(region)
    centres = anchors(keys, torch.stack((-reach, reach), dim=-2), size, device, region)
    samples, slots = drawn.drawn.nonzero(as_tuple=True)
    half, direction = (to_device(part[samples, slots].float(), device) for part in made)
    samples, slots = to_device(samples, device), to_device(slots, device)
    left, right = rectangle_spans(centres[samples, slots], half, direction, size[0])
    return within(fill(left, right, samples, len(keys), size[1]), centres, region)


def rectangle_masks(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device, region: Tensor | None = None
) -> Tensor:
    """Upright rectangles; see `masks.MaskMaker` and `rectangles`."""
    drawn = plan(keys, config, 2)
    return _masks(rectangles(drawn, size), drawn, keys, size, device, region)


def scar_masks(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device, region: Tensor | None = None
) -> Tensor:
    """Long, thin, turned rectangles; see `masks.MaskMaker` and `scars`."""
    drawn = plan(keys, config, 3)
    return _masks(scars(drawn, size), drawn, keys, size, device, region)
