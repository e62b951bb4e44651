"""The network against the published layer table and against the same network written with plain functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from draem.config import NetworkConfig, widths_in_words
from draem.network.draem import Draem, anomaly_map
from tiny import lively_

BLOCKS = {
    "encoder.block1": (3, 128, 128),
    "encoder.block2": (128, 256, 256),
    "encoder.block3": (256, 512, 512),
    "encoder.block4": (512, 1024, 1024),
    "encoder.block5": (1024, 1024, 1024),
    "decoder.db1": (1024, 1024, 512),
    "decoder.db2": (512, 512, 256),
    "decoder.db3": (256, 256, 128),
    "decoder.db4": (128, 128, 128),
}
UPS = {
    "decoder.up1": (1024, 1024),
    "decoder.up2": (512, 512),
    "decoder.up3": (256, 256),
    "decoder.up4": (128, 128),
}
BLOCKS_SEGMENT = {
    "encoder_segment.block1": (6, 64, 64),
    "encoder_segment.block2": (64, 128, 128),
    "encoder_segment.block3": (128, 256, 256),
    "encoder_segment.block4": (256, 512, 512),
    "encoder_segment.block5": (512, 512, 512),
    "encoder_segment.block6": (512, 512, 512),
    "decoder_segment.db_b": (1024, 512, 512),
    "decoder_segment.db1": (768, 256, 256),
    "decoder_segment.db2": (384, 128, 128),
    "decoder_segment.db3": (192, 64, 64),
    "decoder_segment.db4": (128, 64, 64),
}
UPS_SEGMENT = {
    "decoder_segment.up_b": (512, 512),
    "decoder_segment.up1": (512, 256),
    "decoder_segment.up2": (256, 128),
    "decoder_segment.up3": (128, 64),
    "decoder_segment.up4": (64, 64),
}


def published_shapes(
    blocks: Mapping[str, tuple[int, int, int]], ups: Mapping[str, tuple[int, int]], last: str, out: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published state dict, from the layer table."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, place: int, inputs: int, outputs: int) -> None:
        shapes[f"{name}.{place}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"{name}.{place}.bias"] = (outputs,)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{place + 1}.{part}"] = (outputs,)
        shapes[f"{name}.{place + 1}.num_batches_tracked"] = ()

    for name, (inputs, middle, outputs) in blocks.items():
        layer(name, 0, inputs, middle)
        layer(name, 3, middle, outputs)
    for name, (inputs, outputs) in ups.items():
        layer(name, 1, inputs, outputs)
    shapes[f"{last}.weight"] = (out[1], out[0], 3, 3)
    shapes[f"{last}.bias"] = (out[1],)
    return shapes


def plain_forward(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], images: Tensor, aligned: bool, count: int = 6
) -> tuple[Tensor, Tensor]:
    """Reconstruction and logits from two published state dicts, with functions only; sides divide by 32.

    Without the innermost layers, where less than 6 levels are to be.
    """

    def layer(state: Mapping[str, Tensor], name: str, place: int, x: Tensor) -> Tensor:
        x = functional.conv2d(x, state[f"{name}.{place}.weight"], state[f"{name}.{place}.bias"], padding=1)
        norm = [state[f"{name}.{place + 1}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        mean, variance, scale, shift = (value[:, None, None] for value in norm)
        return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def block(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        return layer(state, name, 3, layer(state, name, 0, x))

    def up(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        size = (2 * x.shape[2], 2 * x.shape[3])
        return layer(state, name, 1, functional.interpolate(x, size, mode="bilinear", align_corners=aligned))

    def last(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    x = block(first, "encoder.block1", images)
    for number in range(2, count):
        x = block(first, f"encoder.block{number}", functional.max_pool2d(x, 2))
    for number in range(7 - count, 5):
        x = block(first, f"decoder.db{number}", up(first, f"decoder.up{number}", x))
    reconstruction = last(first, "decoder.fin_out.0", x)

    levels = [block(second, "encoder_segment.block1", torch.cat([reconstruction, images], 1))]
    for number in range(2, count + 1):
        levels.append(block(second, f"encoder_segment.block{number}", functional.max_pool2d(levels[-1], 2)))
    x = levels.pop()
    for step, level in zip(("_b", "1", "2", "3", "4")[-len(levels) :], reversed(levels), strict=True):
        x = block(
            second, f"decoder_segment.db{step}", torch.cat([up(second, f"decoder_segment.up{step}", x), level], 1)
        )
    return reconstruction, last(second, "decoder_segment.fin_out.0", x)


def small(aligned: bool = False, channels: int = 3, **settings: Any) -> Draem:
    widths = {"reconstructive_width": 3, "discriminative_width": 2}
    config = NetworkConfig(**widths | {"aligned_corners": aligned} | settings)
    network = Draem(config, channels)
    lively_(network)
    return network.eval()


# ----------------------------------------------------------------------------------------------------------- published


@pytest.fixture(scope="module")
def full_width() -> Draem:
    with torch.device("meta"):
        return Draem(NetworkConfig())


def test_parameters_of_the_published_widths(full_width: Draem) -> None:
    counts = [
        sum(p.numel() for p in part.parameters()) for part in (full_width.reconstructive, full_width.discriminative)
    ]
    assert counts == [69_048_579, 28_374_146]


def test_names_and_shapes_of_the_published_state_dicts(full_width: Draem) -> None:
    first = published_shapes(BLOCKS, UPS, "decoder.fin_out.0", (128, 3))
    second = published_shapes(BLOCKS_SEGMENT, UPS_SEGMENT, "decoder_segment.fin_out.0", (64, 2))
    assert (len(first), len(second)) == (156, 191)
    for part, expected in ((full_width.reconstructive, first), (full_width.discriminative, second)):
        assert {name: tuple(value.shape) for name, value in part.state_dict().items()} == expected


def test_published_initialisation() -> None:
    torch.manual_seed(0)
    network = Draem(NetworkConfig(reconstructive_width=16, discriminative_width=8))
    convolutions = torch.cat([p.detach().flatten() for p in network.parameters() if p.dim() == 4])
    assert float(convolutions.std()) == pytest.approx(0.02, rel=0.02)
    assert abs(float(convolutions.mean())) < 1e-3
    scales = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    gathered = torch.cat([norm.weight.detach() for norm in scales])
    assert float(gathered.mean()) == pytest.approx(1.0, abs=0.005)
    assert float(gathered.std()) == pytest.approx(0.02, rel=0.1)
    assert all(not norm.bias.detach().any() for norm in scales)


# ------------------------------------------------------------------------------------------------------------- forward


@pytest.mark.parametrize(
    ("size", "aligned", "levels"),
    [((32, 32), False, 6), ((64, 96), True, 6), ((64, 96), False, 5), ((32, 64), False, 4), ((8, 4), True, 3)],
)
def test_forward_against_plain_functions(size: tuple[int, int], aligned: bool, levels: int) -> None:
    network = small(aligned=aligned, levels=levels)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        reconstruction, logits = network(images)
        expected = plain_forward(
            network.reconstructive.state_dict(), network.discriminative.state_dict(), images, aligned, levels
        )
    torch.testing.assert_close(reconstruction, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, expected[1], rtol=1e-4, atol=1e-4)
    assert float(logits.std()) > 0.1, "the comparison must not be of nothing"


@pytest.mark.parametrize("size", [(200, 333), (33, 31), (1, 1), (32, 40), (64, 64)])
def test_any_size_is_padded_by_its_border_and_cropped(size: tuple[int, int]) -> None:
    network = small()
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(2))
    rows = torch.arange(-(-size[0] // 32) * 32).clamp(max=size[0] - 1)
    columns = torch.arange(-(-size[1] // 32) * 32).clamp(max=size[1] - 1)
    padded = images[:, :, rows][..., columns]
    with torch.no_grad():
        reconstruction, logits = network(images)
        expected = network(padded)
    assert reconstruction.shape == (1, 3, *size)
    assert logits.shape == (1, 2, *size)
    torch.testing.assert_close(reconstruction, expected[0][..., : size[0], : size[1]])
    torch.testing.assert_close(logits, expected[1][..., : size[0], : size[1]])


def squares(images: NDArray[np.float32], fold: int) -> Tensor:
    """Pixels to channels by hand: channel, then row, then column in a square of fold×fold."""
    planes = [
        images[:, channel, row::fold, column::fold]
        for channel in range(images.shape[1])
        for row in range(fold)
        for column in range(fold)
    ]
    return torch.from_numpy(np.stack(planes, axis=1))


def spread(planes: Tensor, fold: int) -> Tensor:
    """Channels to pixels by hand: the inverse of `squares`."""
    batch, count, height, width = planes.shape
    images = np.empty((batch, count // fold**2, height * fold, width * fold), np.float32)
    for index in range(count):
        channel, row, column = index // fold**2, index // fold % fold, index % fold
        images[:, channel, row::fold, column::fold] = planes[:, index].numpy()
    return torch.from_numpy(images)


@pytest.mark.parametrize("size", [(128, 256), (50, 141)])
@pytest.mark.parametrize(("fold", "channels"), [(2, 1), (2, 3), (2, 5), (4, 1), (4, 3)])
@torch.no_grad()
def test_folded_pixels_are_channels(fold: Literal[2, 4], channels: int, size: tuple[int, int]) -> None:
    """By hand: sides padded with the border, pixels to channels, sub-networks, channels to pixels, cropped."""
    network = small(channels=channels, fold=fold, reconstructive_width=6, discriminative_width=6)
    images = np.random.default_rng(7).random((2, channels, *size), np.float32)
    below, right = (-side % (32 * fold) for side in size)
    folded = squares(np.pad(images, ((0, 0), (0, 0), (0, below), (0, right)), "edge"), fold)
    planes = network.reconstructive(folded)
    assert planes.shape == folded.shape
    logits = spread(network.discriminative(torch.cat((planes, folded), 1)), fold)[..., : size[0], : size[1]]
    found = network(torch.from_numpy(images))
    assert found[0].shape == images.shape
    assert found[1].shape == (2, 2, *size)
    torch.testing.assert_close(found[0], spread(planes, fold)[..., : size[0], : size[1]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], logits, rtol=1e-5, atol=1e-4)
    assert float(logits.std()) > 0.1, "the comparison must not be of nothing"


@torch.no_grad()
def test_folded_parts_alone() -> None:
    images = np.random.default_rng(8).random((1, 3, 64, 128), np.float32)
    alone = small(fold=2, parts="reconstructive")
    reconstruction, logits = alone(torch.from_numpy(images))
    torch.testing.assert_close(reconstruction, spread(alone.reconstructive(squares(images, 2)), 2))
    assert logits.shape == (1, 2, 64, 128)
    assert not logits.any()
    alone = small(fold=2, parts="discriminative")
    reconstruction, logits = alone(torch.from_numpy(images))
    assert torch.equal(reconstruction, torch.from_numpy(images))
    torch.testing.assert_close(logits, spread(alone.discriminative(squares(images, 2)), 2), rtol=1e-5, atol=1e-4)


def test_widths_in_words() -> None:
    assert NetworkConfig(reconstructive_width=8, discriminative_width=4).widths == "8/4"
    folded = NetworkConfig(reconstructive_width=8, discriminative_width=4, fold=2, levels=5)
    assert folded.widths == "8/4 fold 2"
    assert folded.model_copy(update={"levels": 6}).widths == "8/4 fold 2 levels 6"
    assert widths_in_words(8, 4, 8, 6) == "8/4 fold 8 levels 6"  # as a header may say of a teacher


def test_a_batch_is_its_images() -> None:
    network = small()
    images = torch.rand(3, 3, 32, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        together = network(images)
        apart = [network(image[None]) for image in images]
    for index in range(2):
        torch.testing.assert_close(together[index], torch.cat([part[index] for part in apart]), rtol=1e-4, atol=1e-5)


def test_channels_last_is_the_same_network() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = small()(images)
        network = small()
        assert network.channels_last() is network
        wide = [p for p in network.parameters() if p.dim() == 4]
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in wide)
        found = network(images.contiguous(memory_format=torch.channels_last))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_anomaly_map_is_the_softmax() -> None:
    logits = torch.randn(2, 2, 5, 7, generator=torch.Generator().manual_seed(5)) * 5
    torch.testing.assert_close(anomaly_map(logits), torch.softmax(logits.double(), 1)[:, 1].float())
    extreme = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])[:, :, None, None]
    assert anomaly_map(extreme).flatten().tolist() == [0.0, 1.0]


def test_gradients_reach_every_weight() -> None:
    network = small().train()
    reconstruction, logits = network(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(6)))
    (reconstruction.square().mean() + logits.square().mean()).backward()
    reached = []
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        reached.append(bool(parameter.grad.any()))
    assert sum(reached) > 0.5 * len(reached)  # a bias before a norm has no gradient
