"""Weights on the grid of int8, each one rounded so that it makes up for the errors of those before it.

Rounded to the nearest, the weights of one output channel err each on their own. Here they are rounded one after the
other, and what the layer's output then lacks, on real inputs, is spread over the weights still to come; neighbouring
pixels and channels are so alike that these can make up for nearly all of it.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from draem.network.draem import Draem

LEVELS = 127
"""A weight is a whole number from -127 to 127 times its output channel's step, as NNCF has it."""

_DAMPING = 0.01
_BLOCK = 128
_POSITIONS = 1024
"""Pixels of a layer's input that count, of one image, about."""
_MOST_BYTES = 2 << 30
"""Of products held at a time; of a wide network not all layers' fit into memory."""


@torch.no_grad()
def round_weights(network: Draem, images: Tensor) -> None:
    """Put the weights of all convolutions on the grid of int8.

    Args:
        network: in evaluation mode, BatchNorm folded.
        images: B×C×H×W in [0, 1], whose activations decide which errors matter.
    """
    layers = {
        name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d) if layer.groups == 1
    }
    rounded = {}
    for group in _groups(layers):
        for name, products in _products(network, group, images).items():
            weight = group[name].weight
            rounded[name] = round_matrix(weight.flatten(1), products).view_as(weight)
    # Only now: what later layers are given is to be what the exact network gives them.
    for name, weight in rounded.items():
        layers[name].weight.copy_(weight)


def round_matrix(weight: Tensor, products: Tensor) -> Tensor:
    """The matrix O×N on a grid, each row's step being its largest weight / 127, for inputs x with sum x xᵀ N×N.

    The largest weight of a row stays exactly 127 steps, so that who looks at the result finds the same grid.
    """
    exact = weight.double().clone()
    step = (exact.abs().amax(1) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    hessian = products.double()
    if not hessian.any():
        return _nearest(exact, step[:, None]).to(weight.dtype)
    # The inputs that speak loudest first, while there are most others to make up for them.
    order = hessian.diagonal().argsort(descending=True, stable=True)
    found = _rounded_in_turn(exact[:, order], step, _spreading(hessian[order][:, order]))
    result = torch.empty_like(found)
    result[:, order] = found
    return result.to(weight.dtype)


def _nearest(weight: Tensor, step: Tensor) -> Tensor:
    return (weight / step).round().clamp(-LEVELS, LEVELS) * step


def _spreading(hessian: Tensor) -> Tensor:
    """By its row i: how an error in column i is best spread over the columns after it (upper triangular)."""
    hessian.diagonal().add_(_DAMPING * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    spreading: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return spreading


def _rounded_in_turn(left: Tensor, step: Tensor, spreading: Tensor) -> Tensor:
    """Columns from first to last; `left` is what they are still to give. Blocks put off the work on far columns."""
    rounded = torch.empty_like(left)
    largest = left.abs().argmax(1)
    extreme = left.sign() * (LEVELS * step)[:, None]
    columns = left.shape[1]
    for start in range(0, columns, _BLOCK):
        end = min(start + _BLOCK, columns)
        errors = torch.empty_like(left[:, start:end])
        for column in range(start, end):
            found = _nearest(left[:, column], step)
            found = torch.where(largest == column, extreme[:, column], found)
            error = (left[:, column] - found) / spreading[column, column]
            left[:, column + 1 : end] -= error[:, None] * spreading[column, column + 1 : end]
            rounded[:, column], errors[:, column - start] = found, error
        left[:, end:] -= errors @ spreading[start:end, end:]
    return rounded


def _groups(layers: dict[str, nn.Conv2d]) -> Iterator[dict[str, nn.Conv2d]]:
    """The layers in groups whose products fit into memory together."""
    group: dict[str, nn.Conv2d] = {}
    held = 0
    for name, layer in layers.items():
        needed = 4 * layer.weight[0].numel() ** 2
        if group and held + needed > _MOST_BYTES:
            yield group
            group, held = {}, 0
        group[name] = layer
        held += needed
    yield group


def _products(network: Draem, layers: dict[str, nn.Conv2d], images: Tensor) -> dict[str, Tensor]:
    """Of each layer Σ x xᵀ over its inputs x: the patches under its kernel, float32."""
    products = {name: layer.weight.new_zeros(2 * (layer.weight[0].numel(),)) for name, layer in layers.items()}
    with _watching(layers, products):
        for image in images:
            network(image[None])
    return products


@contextmanager
def _watching(layers: dict[str, nn.Conv2d], products: dict[str, Tensor]) -> Iterator[None]:
    def watch(layer: nn.Conv2d, total: Tensor) -> torch.utils.hooks.RemovableHandle:
        def see(module: nn.Module, inputs: tuple[Tensor]) -> None:
            patches = _patches(layer, inputs[0])
            total.addmm_(patches, patches.T)

        return layer.register_forward_pre_hook(see)

    handles = [watch(layer, products[name]) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _patches(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """What a convolution multiplies one image's input by, at pixels in even steps: N×positions.

    Steps are odd, so that even and odd pixels count alike: what was upsampled differs between them.
    """
    height, width = inputs.shape[-2:]
    step = max(1, round((height * width / _POSITIONS) ** 0.5)) // 2 * 2 + 1
    return functional.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, step)[0]  # type: ignore[arg-type]
