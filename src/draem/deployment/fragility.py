"""Which layers of a network suffer from 8 bits: each one rounded alone, in torch, by how far the anomaly map moves.

A convolution's input is rounded by one range for all channels, as the runtimes do it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from torch import Tensor, nn

from draem.network.draem import Draem
from draem.pixels import Images


def fragility(network: Draem, rounded: Draem, answer: Callable[[], Images]) -> dict[str, tuple[float, int]]:
    """By each convolution's name: the mean difference of the maps when it alone is rounded, and its multiplications.

    rounded: the same network with weights that int8 leaves as they are; answer: runs `network` and gives the maps that
    are scored.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    exact = answer()
    result = {}
    for name, layer in layers.items():
        with _with_weight(layer, rounded.get_parameter(f"{name}.weight")) as pixels:
            moved = np.abs(answer() - exact).mean()
        result[name] = float(moved), layer.weight.numel() * pixels[0]
    return result


@contextmanager
def _with_weight(layer: nn.Conv2d, weight: nn.Parameter) -> Iterator[list[int]]:
    """A layer with 8 bits, and after it as it was; gives the pixels of each image that came in."""
    before, pixels = layer.weight, list[int]()

    def enter(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        pixels.append(inputs[0].shape[-2] * inputs[0].shape[-1])
        return (_rounded_input(inputs[0]),)

    hook = layer.register_forward_pre_hook(enter)
    layer.weight = weight
    try:
        yield pixels
    finally:
        layer.weight = before
        hook.remove()


def _rounded_input(values: Tensor) -> Tensor:
    low, high = values.amin().clamp(max=0.0), values.amax()
    step = (high - low).clamp(min=1e-12) / 255
    return ((values - low) / step).round() * step + low
