"""The moving average of the weights: what becomes the model where `training.ema` is set."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from draem.network.draem import Draem


class MovingAverage:
    """An exponential average over `horizon` steps of a network's weights and running statistics.

    At the start it reaches back over a tenth of the steps so far, so that the random weights are soon forgotten.
    Not torch's own `AveragedModel`, which asks the device for its counter at every step.
    """

    def __init__(self, network: Draem, horizon: float) -> None:
        self.module = copy.deepcopy(network).requires_grad_(False)
        self._horizon = horizon

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step `step`, counted from 0; counters are copied."""
        weight = max(1 / self._horizon, 9 / (10 + step)) if step else 1.0
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        torch._foreach_lerp_([ours for ours, _ in floats], [theirs for _, theirs in floats], weight)
        torch._foreach_copy_([ours for ours, _ in counters], [theirs for _, theirs in counters])


def _tensors(network: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in chain(network.parameters(), network.buffers())]
