"""Channels of a tensor brought nearer to one range, since int8 rounds all of them by one.

A channel that is divided by a number where it is made, and multiplied by it where it is used, answers the same: ReLU,
max pooling, bilinear upsampling and concatenation hand a positive factor on. What a weak channel gains in its inputs'
resolution the weights that use it lose, and weights have a range for each output channel.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, here by
measured ranges of activations, halfway (Xiao et al., "SmoothQuant", ICML 2023, α = 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from draem.network.draem import Draem

_STRENGTH = 0.5
_WEAKEST = 0.05
"""Of the strongest channel's peak; a channel that hardly ever speaks is not blown up further."""
_HANDED_ON = (nn.ReLU, nn.Identity, nn.Upsample, nn.MaxPool2d)


@dataclass(frozen=True)
class _Use:
    """A convolution that takes another one's channels, from a place among its own inputs on."""

    name: str
    first: int


@torch.no_grad()
def balance(network: Draem, images: Tensor) -> None:
    """Change the weights of a network whose BatchNorm is folded, but for rounding not its answers.

    images: B×C×H×W in [0, 1], on which ranges are measured. Convolutions between which something else happens than what
    hands a factor on, or whose answer is the network's, stay as they are.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    uses = {f"{part}.{name}": found for part, module in network.named_children() for name, found in _uses(part, module)}
    peaks = _peaks(network, layers, images)
    for name, users in uses.items():
        layer = layers[name]
        seen = [peaks[user.name][user.first : user.first + layer.out_channels] for user in users]
        peak = torch.stack(seen).amax(0)
        if not peak.any():
            continue
        factor = (peak / peak.max()).clamp(min=_WEAKEST) ** _STRENGTH
        layer.weight /= factor[:, None, None, None]
        if layer.bias is not None:
            layer.bias /= factor
        for user in users:
            layers[user.name].weight[:, user.first : user.first + len(factor)] *= factor[:, None, None]


def _uses(part: str, module: nn.Module) -> Iterator[tuple[str, list[_Use]]]:
    """Each convolution of a sub-network that may be balanced, and all that take its channels."""
    for node in fx.symbolic_trace(module).graph.nodes:
        if isinstance(_module(module, node), nn.Conv2d):
            found = list(_followed(module, node, 0))
            users = [_Use(f"{part}.{use.name}", use.first) for use in found if use is not None]
            if users and len(users) == len(found):
                yield str(node.target), users


def _followed(module: nn.Module, node: fx.Node, first: int) -> Iterator[_Use | None]:
    """Where a node's channels go, which are its convolution's from `first` on; none: somewhere that knows no factor."""
    for user in node.users:
        layer = _module(module, user)
        if isinstance(layer, nn.Conv2d):
            yield _Use(str(user.target), first) if layer.groups == 1 else None
        elif isinstance(layer, _HANDED_ON) or user.target is functional.max_pool2d:
            yield from _followed(module, user, first)
        elif user.target is torch.cat:
            joined = list(user.args[0])  # type: ignore[arg-type]
            before = [_channels(module, other) for other in joined[: joined.index(node)]]
            if None in before:
                yield None
            else:
                yield from _followed(module, user, first + sum(before))  # type: ignore[arg-type]
        else:
            yield None


def _channels(module: nn.Module, node: fx.Node) -> int | None:
    """Of what a node gives, if a convolution made it."""
    layer = _module(module, node)
    if isinstance(layer, nn.Conv2d):
        return layer.out_channels
    handed_on = isinstance(layer, _HANDED_ON) or node.target is functional.max_pool2d
    return _channels(module, node.args[0]) if handed_on else None  # type: ignore[arg-type]


def _module(module: nn.Module, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _peaks(network: Draem, layers: dict[str, nn.Conv2d], images: Tensor) -> dict[str, Tensor]:
    """The largest value of each input channel of each convolution."""
    peaks: dict[str, Tensor] = {}

    def watch(name: str) -> None:
        def see(module: nn.Module, inputs: tuple[Tensor]) -> None:
            peak = inputs[0].abs().amax((0, 2, 3))
            peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak

        handles.append(layers[name].register_forward_pre_hook(see))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name in layers:
        watch(name)
    try:
        for image in images:
            network(image[None])
    finally:
        for handle in handles:
            handle.remove()
    return peaks
