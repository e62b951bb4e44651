"""The paper's ablation: every row is a file under configs/ that trains, and the maps it is scored with are right."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

import draem
from draem.config import Config, NetworkConfig
from draem.data.bank import ImageBank
from draem.errors import ConfigError
from draem.inspection.residual import joint_map, residual_map, scored_maps
from draem.network.draem import Draem
from draem.network.losses import draem_losses, ssim_map
from draem.simulation.simulator import Simulator
from draem.training.validation import validate
from tiny import TINY, write_noise

CONFIGS = sorted((Path(__file__).parent.parent / "configs" / "ablation").glob("*.yaml"))


def pair(seed: int = 0, size: tuple[int, int] = (48, 40)) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    image = np.asarray(cv2.GaussianBlur(rng.random((*size, 3), np.float32), (5, 5), 1.0), np.float32)
    other = np.clip(image + rng.normal(0, 0.1, image.shape), 0, 1).astype(np.float32)
    return image.transpose(2, 0, 1), other.transpose(2, 0, 1)


def test_the_paper_has_ten_rows() -> None:
    assert len(CONFIGS) == 10


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_row_trains_and_inspects(path: Path, tmp_path: Path) -> None:
    data = write_noise(tmp_path / "good", 5)
    write_noise(tmp_path / "imagenet", 2)
    settings: dict[str, object] = {
        **{key: value for key, value in TINY.items() if key != "score.map"},
        "data.size": 32,
        "training.images": 4,
        "training.batch_size": 2,
        "training.validations": 1,
    }
    settings |= {"data.select_share": 0.2, "data.calibrate_share": 0.2, "training.precision": "fp32"}
    if path.stem == "imagenet_source":
        settings["simulation.textures"] = str(tmp_path / "imagenet")
    detector = draem.train(data, tmp_path / "run", config=path, settings=settings)
    assert detector.header.config.preset == "paper"
    result = detector.predict(data / "00.png")
    assert result.input_map.shape == (32, 32)
    assert np.ptp(result.input_map) > 0
    again = draem.load(tmp_path / "run" / "model.safetensors").predict(data / "00.png")
    assert again.score == result.score
    full = Config.resolve("paper")
    changed = {key.split(".")[0] for key in full.differences(Config.resolve("", path))}
    assert changed <= {"network", "simulation", "score"}
    assert bool(changed) == (path.stem != "full")


def test_a_sub_network_alone_has_no_other_weights() -> None:
    widths = {"reconstructive_width": 4, "discriminative_width": 4}
    whole, first, second = (
        Draem(NetworkConfig(**widths, parts=parts))  # type: ignore[arg-type]
        for parts in ("both", "reconstructive", "discriminative")
    )
    assert {name for name, _ in first.named_children()} == {"reconstructive"}
    assert {name for name, _ in second.named_children()} == {"discriminative"}
    assert first.reconstructive.state_dict().keys() == whole.reconstructive.state_dict().keys()
    images = torch.rand(2, 3, 40, 33, generator=torch.Generator().manual_seed(0))
    reconstruction, logits = first(images)
    assert reconstruction.shape == images.shape
    assert logits.shape == (2, 2, 40, 33)
    assert not logits.any()
    reconstruction, logits = second(images)
    assert torch.equal(reconstruction, images)
    assert logits.std() > 0
    assert second.discriminative.encoder_segment.block1[0].in_channels == 3


@pytest.mark.parametrize("parts", ["discriminative", "reconstructive"])
def test_losses_of_a_sub_network_alone(parts: str) -> None:
    image, other = (torch.from_numpy(pixels)[None] for pixels in pair())
    logits, mask = torch.randn(1, 2, 48, 40), torch.ones(1, 1, 48, 40)
    whole = draem_losses(image, logits, other, mask, 0.5, 2.0)
    alone = draem_losses(image, logits, other, mask, 0.5, 2.0, parts)  # type: ignore[arg-type]
    expected = whole.focal if parts == "discriminative" else 0.5 * whole.ssim + whole.l2
    torch.testing.assert_close(alone.total, expected)
    zero = (alone.ssim, alone.l2) if parts == "discriminative" else (alone.focal,)
    assert all(term == 0 for term in zero)


@pytest.mark.parametrize(
    ("parts", "map_"),
    [
        ("reconstructive", "segmentation"),
        ("reconstructive", "joint"),
        ("discriminative", "ssim"),
        ("discriminative", "joint"),
    ],
)
def test_a_map_that_the_network_does_not_make_is_refused(parts: str, map_: str) -> None:
    with pytest.raises(ConfigError, match=f"score.map={map_} does not go with network.parts={parts}"):
        Config.resolve("edge", None, {"network.parts": parts, "score.map": map_})


def test_ssim_map_is_that_of_the_loss() -> None:
    image, other = pair()
    found = residual_map("ssim", image, other)
    similarity = ssim_map(torch.from_numpy(image)[None], torch.from_numpy(other)[None])
    np.testing.assert_allclose(found, ((1 - similarity.mean(1)) / 2)[0].numpy(), atol=2e-5)


def slow_difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """One less the gradient magnitude similarity, with SciPy's Prewitt filters."""
    sizes = [np.hypot(*(ndimage.prewitt(pixels, axis, mode="nearest") / 3 for axis in (0, 1))) for pixels in (a, b)]
    return np.asarray(1 - (2 * sizes[0] * sizes[1] + 0.0026) / (sizes[0] ** 2 + sizes[1] ** 2 + 0.0026))


def test_gradient_map_is_the_mean_over_four_scales() -> None:
    image, other = pair(size=(48, 40))
    expected = np.zeros((48, 40))
    for scale in (1, 2, 4, 8):
        small = [
            pixels.mean(0).astype(np.float64).reshape(48 // scale, scale, 40 // scale, scale).mean((1, 3))
            for pixels in (image, other)
        ]
        expected += cv2.resize(slow_difference(*small).astype(np.float32), (40, 48)) / 4
    np.testing.assert_allclose(residual_map("msgms", image, other), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["ssim", "msgms"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_maps_are_high_where_the_images_differ(kind: str, channels: int) -> None:
    image = np.full((channels, 64, 64), 0.5, np.float32)
    other = image.copy()
    other[:, 20:30, 30:40] = 0.9
    found = residual_map(kind, image, other)  # type: ignore[arg-type]
    assert found.shape == (64, 64)
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1
    assert found[20:30, 30:40].mean() > 10 * found[:, :10].mean()
    assert residual_map(kind, image, image).max() < 1e-5  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_joint_map_pixel_by_pixel(channels: int) -> None:
    """By the formula, window by window; at the corner 16 of 25 pixels are beyond the border, and count as 0."""
    rng = np.random.default_rng(5)
    segmented = rng.random((20, 31), np.float32)
    segmented[3, 4] = 0.0
    image, other = rng.random((2, channels, 20, 31), np.float32)
    found = joint_map(segmented, image, other)
    difference = np.pad(np.abs(image.astype(np.float64) - other).mean(0), 2)
    residual = np.lib.stride_tricks.sliding_window_view(difference, (5, 5)).sum((2, 3)) / 25
    np.testing.assert_allclose(found, segmented.astype(np.float64) ** 0.8 * (residual + 0.001) ** 0.2, atol=1e-5)
    assert found.dtype == np.float32
    assert found[3, 4] == 0.0
    # The same everywhere restored, the segmentation's order stays; where nothing differs, next to nothing is left.
    np.testing.assert_array_equal(np.argsort(joint_map(segmented, image, image), None), np.argsort(segmented, None))
    assert joint_map(segmented, image, image).max() <= 0.001**0.2 + 1e-6
    assert joint_map(segmented, image, image + 40).max() <= 1.0
    assert np.isnan(joint_map(segmented * np.nan, image, other)).all()


class _Fixed(nn.Module):
    """Finds what is bright; what it restores is darker than the image by a ramp of so much."""

    def __init__(self, ramp: float) -> None:
        super().__init__()
        self.ramp = ramp

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bright = images.mean(1, keepdim=True)
        ramp = torch.linspace(0.0, self.ramp, images.shape[-1])
        return images - ramp, torch.cat((torch.zeros_like(bright), 8.0 * bright - 4.0), dim=1)


@pytest.mark.parametrize("map_", ["segmentation", "joint"])
def test_validation_scores_the_map_that_inspection_will(map_: str, tmp_path: Path) -> None:
    config = Config.resolve("edge", None, TINY | {"score.map": map_})
    simulator, cpu = Simulator(config.simulation, config.data.size, "cpu"), torch.device("cpu")
    with ImageBank.load(sorted(write_noise(tmp_path / "good", 4).iterdir()), config.data) as bank:
        found = [
            validate(_Fixed(ramp), simulator, bank, config, cpu).metrics.pixel_ap  # type: ignore[arg-type]
            for ramp in (0.0, 0.9)
        ]
    assert (found[0] == found[1]) == (map_ == "segmentation")


def test_scored_maps_choose() -> None:
    image, other = (pixels[None] for pixels in pair())
    segmented = np.zeros((1, 48, 40), np.float32)
    assert scored_maps("segmentation", segmented, image, other) is segmented
    np.testing.assert_array_equal(
        scored_maps("joint", segmented, image, other)[0], joint_map(segmented[0], image[0], other[0])
    )
    np.testing.assert_array_equal(
        scored_maps("msgms", segmented, image, other)[0], residual_map("msgms", image[0], other[0])
    )
