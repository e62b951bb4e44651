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

STRIDE = 32
"""Sides are padded to a multiple of this times `network.fold`: five halvings."""


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _block(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_conv(inputs, middle), *_conv(middle, outputs))


def _up(inputs: int, outputs: int, aligned_corners: bool) -> nn.Sequential:
    # Without aligned corners PyTorch wants False, not None, to stay silent.
    upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=aligned_corners)
    return nn.Sequential(upsample, *_conv(inputs, outputs))


class _ReconstructiveEncoder(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.block1 = _block(channels, width, width)
        self.block2 = _block(width, 2 * width, 2 * width)
        self.block3 = _block(2 * width, 4 * width, 4 * width)
        self.block4 = _block(4 * width, 8 * width, 8 * width)
        self.block5 = _block(8 * width, 8 * width, 8 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(x)
        for block in (self.block2, self.block3, self.block4, self.block5):
            x = block(functional.max_pool2d(x, 2))
        return x


class _ReconstructiveDecoder(nn.Module):
    def __init__(self, channels: int, width: int, aligned_corners: bool) -> None:
        super().__init__()
        self.up1 = _up(8 * width, 8 * width, aligned_corners)
        self.db1 = _block(8 * width, 8 * width, 4 * width)
        self.up2 = _up(4 * width, 4 * width, aligned_corners)
        self.db2 = _block(4 * width, 4 * width, 2 * width)
        self.up3 = _up(2 * width, 2 * width, aligned_corners)
        self.db3 = _block(2 * width, 2 * width, width)
        self.up4 = _up(width, width, aligned_corners)
        self.db4 = _block(width, width, width)
        self.fin_out = nn.Sequential(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.db1(self.up1(x))
        x = self.db2(self.up2(x))
        x = self.db3(self.up3(x))
        x = self.db4(self.up4(x))
        out: Tensor = self.fin_out(x)
        return out


class ReconstructiveSubNetwork(nn.Module):
    """Restores the normal image: B×C×H×W in [0,1] → B×C×H×W, not clipped. Sides divide by 16."""

    def __init__(self, channels: int, width: int, aligned_corners: bool) -> None:
        super().__init__()
        self.encoder = _ReconstructiveEncoder(channels, width)
        self.decoder = _ReconstructiveDecoder(channels, width, aligned_corners)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(image))
        return out


class _DiscriminativeEncoder(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.block1 = _block(channels, width, width)
        self.block2 = _block(width, 2 * width, 2 * width)
        self.block3 = _block(2 * width, 4 * width, 4 * width)
        self.block4 = _block(4 * width, 8 * width, 8 * width)
        self.block5 = _block(8 * width, 8 * width, 8 * width)
        self.block6 = _block(8 * width, 8 * width, 8 * width)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [self.block1(x)]
        for block in (self.block2, self.block3, self.block4, self.block5, self.block6):
            levels.append(block(functional.max_pool2d(levels[-1], 2)))
        return levels


class _DiscriminativeDecoder(nn.Module):
    def __init__(self, logits: int, width: int, aligned_corners: bool) -> None:
        super().__init__()
        self.up_b = _up(8 * width, 8 * width, aligned_corners)
        self.db_b = _block(16 * width, 8 * width, 8 * width)
        self.up1 = _up(8 * width, 4 * width, aligned_corners)
        self.db1 = _block(12 * width, 4 * width, 4 * width)
        self.up2 = _up(4 * width, 2 * width, aligned_corners)
        self.db2 = _block(6 * width, 2 * width, 2 * width)
        self.up3 = _up(2 * width, width, aligned_corners)
        self.db3 = _block(3 * width, width, width)
        self.up4 = _up(width, width, aligned_corners)
        self.db4 = _block(2 * width, width, width)
        self.fin_out = nn.Sequential(nn.Conv2d(width, logits, 3, padding=1))

    def forward(self, levels: list[Tensor]) -> Tensor:
        level1, level2, level3, level4, level5, x = levels
        # The upsampled half comes first in the concatenation, as the published weights expect.
        x = self.db_b(torch.cat((self.up_b(x), level5), dim=1))
        x = self.db1(torch.cat((self.up1(x), level4), dim=1))
        x = self.db2(torch.cat((self.up2(x), level3), dim=1))
        x = self.db3(torch.cat((self.up3(x), level2), dim=1))
        x = self.db4(torch.cat((self.up4(x), level1), dim=1))
        out: Tensor = self.fin_out(x)
        return out


class DiscriminativeSubNetwork(nn.Module):
    """Maps the anomaly: [reconstruction, image] B×2C×H×W → logits B×2×H×W (normal, anomalous). Sides divide by 32.

    Of folded images: as many logits of each kind as an image channel has become channels.
    """

    def __init__(self, channels: int, logits: int, width: int, aligned_corners: bool) -> None:
        super().__init__()
        self.encoder_segment = _DiscriminativeEncoder(channels, width)
        self.decoder_segment = _DiscriminativeDecoder(logits, width, aligned_corners)

    def forward(self, joined: Tensor) -> Tensor:
        out: Tensor = self.decoder_segment(self.encoder_segment(joined))
        return out


class Draem(nn.Module):
    """The whole network: images B×C×H×W in [0,1] → (reconstruction B×C×H×W, logits B×2×H×W).

    Sides that do not divide by 32 times `fold` are padded with the border's pixels and cropped again. Of a sub-network alone, the
    other's output is what it would add: the image itself as reconstruction, or logits of zero.
    """

    reconstructive: ReconstructiveSubNetwork
    discriminative: DiscriminativeSubNetwork

    def __init__(self, config: NetworkConfig, channels: int = 3) -> None:
        super().__init__()
        corners = config.aligned_corners
        self.parts, self.fold = config.parts, config.fold
        channels *= self.fold**2
        if self.parts != "discriminative":
            self.reconstructive = ReconstructiveSubNetwork(channels, config.reconstructive_width, corners)
        if self.parts != "reconstructive":
            inputs = 2 * channels if self.parts == "both" else channels
            self.discriminative = DiscriminativeSubNetwork(
                inputs, 2 * self.fold**2, config.discriminative_width, corners
            )
        self.apply(_initialise)

    def channels_last(self) -> Draem:
        """Lay the weights out as CPUs and GPUs multiply them fastest; returns itself."""
        for parameter in self.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        stride = STRIDE * self.fold
        below, right = -height % stride, -width % stride
        if below or right:
            images = functional.pad(images, (0, right, 0, below), mode="replicate")
        reconstruction, logits = self._answer(images) if self.fold == 1 else self._folded(images)
        return reconstruction[..., :height, :width], logits[..., :height, :width]

    def _folded(self, images: Tensor) -> tuple[Tensor, Tensor]:
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
