"""What is drawn of any shape before its kind matters: how many there are, how large; on the host, in float64.

Discrete choices and geometry are small numbers: made here, they are the same for every device and batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from draem.config import SimulationConfig
from draem.simulation.draws import Stream, integers, uniform

PUBLISHED_SIDE = 256.0
"""Sizes in pixels are meant at images of this side, and grow with the image."""


class Plan(NamedTuple):
    """Of each sample and its shapes, on the CPU; B samples, S shapes at most.

    drawn: B×S bool, which shapes there are; the first always. share: B, the share of the image wanted of all together,
    or none. weights: B×S, how they divide it; sum to 1. draws: B×S×D uniform float64, for the kind's own use.
    """

    drawn: Tensor
    share: Tensor | None
    weights: Tensor
    draws: Tensor


def plan(keys: Tensor, config: SimulationConfig, draws: int) -> Plan:
    """Draw the number of shapes, between `config.count`, and their sizes, for each of `keys` (int64 B on the CPU)."""
    whole = uniform(keys, Stream.SHAPE, (2,)).double()
    each = uniform(keys, Stream.SHAPE_POINTS, (config.count[1], 1 + draws)).double()
    drawn = torch.arange(config.count[1]) < integers(whole[:, 0], *config.count)[:, None]
    weights = (0.5 + each[..., 0]) * drawn
    share = None if config.area is None else geometric(whole[:, 1], *config.area)
    return Plan(drawn, share, weights / weights.sum(1, keepdim=True), each[..., 1:])


def geometric(draws: Tensor, low: float, high: float) -> Tensor:
    """Spread uniform draws over [low, high], every octave as likely."""
    return low * (high / low) ** draws


def pixels_each(drawn: Plan, size: tuple[int, int]) -> Tensor | None:
    """The pixels wanted of each shape, B×S; none: as the kind comes."""
    return None if drawn.share is None else drawn.share[:, None] * drawn.weights * (size[0] * size[1])


def scale_of(size: tuple[int, int]) -> float:
    """How many pixels of this image one of a published image is wide."""
    return math.sqrt(size[0] * size[1]) / PUBLISHED_SIDE
