"""Both sub-networks of DRAEM as one module.

A reconstructive encoder-decoder without skips restores the normal image; a discriminative U-Net maps the anomaly from
[reconstruction, image]. Layers, widths and state-dict names are those of the published weights (Zavrtanik, Kristan,
Skočaj, ICCV 2021), so these load as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from draem.config import NetworkConfig


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _block(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_conv(inputs, middle), *_conv(middle, outputs))


def _up(inputs: int, outputs: int, aligned_corners: bool) -> nn.Sequential:
    # Without aligned corners PyTorch wants False, not None, to stay silent.
    upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=aligned_corners)
    return nn.Sequential(upsample, *_conv(inputs, outputs))


_ENCODED = (1, 2, 4, 8, 8, 8)
"""Channels of an encoder's levels, outermost first, as multiples of the width."""
_DECODED = (1, 1, 2, 4, 8)
"""The same of a decoder's."""
_NAMES = ("4", "3", "2", "1", "_b")
"""Of a decoder's layers at each level: the published ones are counted from within."""


class _Encoder(nn.ModuleDict):
    """Blocks at each level, half as fine as the one before; forward gives the features of all, outermost first."""

    block1: nn.Sequential

    def __init__(self, channels: int, width: int, levels: int) -> None:
        super().__init__()
        for level, factor in enumerate(_ENCODED[:levels], 1):
            self[f"block{level}"] = _block(channels, factor * width, factor * width)
            channels = factor * width

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for block in self.values():
            features.append(block(functional.max_pool2d(features[-1], 2) if features else x))
        return features


class _ReconstructiveDecoder(nn.ModuleDict):
    """Layers of each level from the innermost on, each twice as fine as the one before."""

    fin_out: nn.Sequential

    def __init__(self, channels: int, width: int, levels: int, aligned_corners: bool) -> None:
        super().__init__()
        inner = _ENCODED[levels - 1] * width
        for level in reversed(range(levels - 1)):
            name, middle, outputs = _NAMES[level], _DECODED[level + 1] * width, _DECODED[level] * width
            self["up" + name] = _up(inner, middle, aligned_corners)
            self["db" + name] = _block(middle, middle, outputs)
            inner = outputs
        self.fin_out = nn.Sequential(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = layer(x)
        return x


class ReconstructiveSubNetwork(nn.Module):
    """Restores the normal image: B×C×H×W in [0,1] → B×C×H×W, not clipped. Sides divide by 2^(levels − 1)."""

    def __init__(self, channels: int, width: int, levels: int, aligned_corners: bool) -> None:
        super().__init__()
        self.encoder = _Encoder(channels, width, levels)
        self.decoder = _ReconstructiveDecoder(channels, width, levels, aligned_corners)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(image)[-1])
        return out


class _DiscriminativeDecoder(nn.ModuleDict):
    """The same, each joined with the encoder's features of its level."""

    fin_out: nn.Sequential

    def __init__(self, logits: int, width: int, levels: int, aligned_corners: bool) -> None:
        super().__init__()
        inner = _ENCODED[levels - 1] * width
        for level in reversed(range(levels - 1)):
            name, outputs = _NAMES[level], _DECODED[level] * width
            self["up" + name] = _up(inner, outputs, aligned_corners)
            self["db" + name] = _block(outputs + _ENCODED[level] * width, outputs, outputs)
            inner = outputs
        self.fin_out = nn.Sequential(nn.Conv2d(width, logits, 3, padding=1))

    def forward(self, features: list[Tensor]) -> Tensor:
        *outer, x = features
        for level in reversed(range(len(outer))):
            name = _NAMES[level]
            # The upsampled half comes first in the concatenation, as the published weights expect.
            x = self["db" + name](torch.cat((self["up" + name](x), outer[level]), dim=1))
        out: Tensor = self.fin_out(x)
        return out


class DiscriminativeSubNetwork(nn.Module):
    """Maps the anomaly: [reconstruction, image] B×2C×H×W → logits B×L×H×W, the first half normal, the other anomalous.

    Sides divide by 2^(levels − 1).
    """

    def __init__(self, channels: int, logits: int, width: int, levels: int, aligned_corners: bool) -> None:
        super().__init__()
        self.encoder_segment = _Encoder(channels, width, levels)
        self.decoder_segment = _DiscriminativeDecoder(logits, width, levels, aligned_corners)

    def forward(self, joined: Tensor) -> Tensor:
        out: Tensor = self.decoder_segment(self.encoder_segment(joined))
        return out


class Draem(nn.Module):
    """The whole network: images B×C×H×W in [0,1] → (reconstruction B×C×H×W, logits B×2×H×W).

    With `fold` f > 1 both sub-networks work at 1/f of the resolution: each square of f×f pixels is handed to them as f²
    channels, and theirs are laid out as pixels again. Sides that do not divide by the `stride` are padded with the
    border's pixels and cropped again. Of a sub-network alone, the other's output is what it would add: the image itself
    as reconstruction, or logits of zero.

    Source of the folding: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
    Convolutional Neural Network", CVPR 2016.
    """

    reconstructive: ReconstructiveSubNetwork
    discriminative: DiscriminativeSubNetwork

    def __init__(self, config: NetworkConfig, channels: int = 3) -> None:
        super().__init__()
        corners = config.aligned_corners
        self.parts, self.fold, self.stride = config.parts, config.fold, config.stride
        channels *= self.fold**2
        if self.parts != "discriminative":
            width, levels = config.reconstructive_width, config.levels - 1
            self.reconstructive = ReconstructiveSubNetwork(channels, width, levels, corners)
        if self.parts != "reconstructive":
            inputs = 2 * channels if self.parts == "both" else channels
            width, levels = config.discriminative_width, config.levels
            self.discriminative = DiscriminativeSubNetwork(inputs, 2 * self.fold**2, width, levels, corners)
        self.apply(_initialise)

    def channels_last(self) -> Draem:
        """Lay the weights out as CPUs and GPUs multiply them fastest; returns itself."""
        for parameter in self.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        below, right = -height % self.stride, -width % self.stride
        if below or right:
            images = functional.pad(images, (0, right, 0, below), mode="replicate")
        reconstruction, logits = self._answer(images) if self.fold == 1 else self._at_fold(images)
        return reconstruction[..., :height, :width], logits[..., :height, :width]

    def _at_fold(self, images: Tensor) -> tuple[Tensor, Tensor]:
        reconstruction, logits = self._answer(functional.pixel_unshuffle(images, self.fold))
        return functional.pixel_shuffle(reconstruction, self.fold), functional.pixel_shuffle(logits, self.fold)

    def _answer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.parts == "discriminative":
            return images, self.discriminative(images)
        reconstruction = self.reconstructive(images)
        if self.parts == "reconstructive":
            return reconstruction, torch.zeros_like(images[:, :1]).expand(-1, 2 * self.fold**2, -1, -1)
        return reconstruction, self.discriminative(torch.cat((reconstruction, images), dim=1))


def anomaly_map(logits: Tensor) -> Tensor:
    """Probability of the anomalous class: logits B×2×H×W → B×H×W in [0,1]."""
    return torch.sigmoid(logits[:, 1] - logits[:, 0])


def _initialise(module: nn.Module) -> None:
    """The published initialisation: convolutions N(0, 0.02), BatchNorm scale N(1, 0.02)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
