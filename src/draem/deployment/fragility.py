"""Which layers of a network suffer from 8 bits: each one rounded alone, by how far the anomaly map moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from draem.network.draem import Draem, anomaly_map
from draem.pixels import Images


@torch.inference_mode()
def fragility(network: Draem, images: Images) -> dict[str, float]:
    """By each convolution's name, the mean difference of the maps when it alone is rounded to 8 bits.

    Its input by one range for all channels, its weights by one for each output channel: as the runtimes do it.
    """
    batch = torch.from_numpy(images)
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    exact = _maps(network, batch)
    return {name: float((_rounded_maps(network, layer, batch) - exact).abs().mean()) for name, layer in layers.items()}


def _maps(network: Draem, batch: Tensor) -> Tensor:
    return torch.cat([anomaly_map(network(image[None])[1]) for image in batch])


def _rounded_maps(network: Draem, layer: nn.Conv2d, batch: Tensor) -> Tensor:
    weight = layer.weight
    hook = layer.register_forward_pre_hook(lambda module, inputs: (_rounded_input(inputs[0]),))
    try:
        layer.weight = nn.Parameter(_rounded_weight(weight), requires_grad=False)
        return _maps(network, batch)
    finally:
        layer.weight = weight
        hook.remove()


def _rounded_input(values: Tensor) -> Tensor:
    low, high = values.amin().clamp(max=0.0), values.amax()
    step = (high - low).clamp(min=1e-12) / 255
    return ((values - low) / step).round() * step + low


def _rounded_weight(weight: Tensor) -> Tensor:
    step = weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
    return (weight / step).round() * step
