"""Light on normal images: a closed form, where it is seen, and where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import draem
from draem import preview
from draem.config import Config
from draem.data.layouts import read_layout
from draem.deployment.material import draw_material
from draem.images import write_image
from draem.modelfile import Header
from draem.network.draem import Draem
from draem.simulation.batch import load_batch
from draem.simulation.draws import sample_keys, uniform
from draem.simulation.lighting import relight
from draem.simulation.survey import Stage
from tiny import TINY, write_noise

STRENGTH = 0.3
SHORT = {"simulation.clean_share": 1.0, "training.images": 16, "training.validations": 1}


def keys_of(count: int) -> Tensor:
    return sample_keys(41, 0, torch.arange(count))


def images_of(count: int, channels: int = 3) -> Tensor:
    return uniform(sample_keys(41, 1, torch.arange(count)), 50, (channels, 24, 24))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_light_is_a_gain_and_a_gamma_of_each_image(channels: int) -> None:
    images, count = images_of(200, channels), 200
    lit = relight(images, keys_of(count), STRENGTH).numpy()
    clipped = lit == 1.0
    assert 0.0 < clipped.mean() < 0.2
    # ln v' = ln g + γ ln v: a line through each image's values, found by least squares.
    found = []
    for before, after, beyond in zip(images.numpy(), lit, clipped, strict=True):
        kept = ~beyond & (before > 0.01)
        gamma, log_gain = np.polyfit(np.log(before[kept]), np.log(after[kept]), 1)
        found.append((log_gain, np.log(gamma)))
        np.testing.assert_allclose(after[kept], np.exp(log_gain) * before[kept] ** gamma, rtol=1e-4)
    assert np.abs(found).max() <= STRENGTH + 1e-4
    np.testing.assert_allclose(np.mean(found, axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(np.std(found, axis=0), STRENGTH / np.sqrt(3), atol=0.02)  # of a uniform law
    assert abs(np.corrcoef(np.transpose(found))[0, 1]) < 0.25


def test_each_image_has_its_own_light_whatever_is_beside_it() -> None:
    images, keys = images_of(6), keys_of(6)
    whole = relight(images, keys, STRENGTH)
    assert torch.equal(whole[2:4], relight(images[2:4], keys[2:4], STRENGTH))
    assert torch.equal(relight(torch.zeros(6, 3, 4, 4), keys, 1.0), torch.zeros(6, 3, 4, 4))
    assert relight(torch.empty(6, 3, 4, 4, device="meta"), keys, STRENGTH).shape == (6, 3, 4, 4)


def seen_in_training(data: Path, out: Path, patch: pytest.MonkeyPatch, settings: dict[str, Any]) -> Tensor:
    """What the network was given, in training and in validation."""
    seen, forward = [], Draem.forward

    def recording(self: Draem, images: Tensor) -> Any:
        seen.append(images.detach().clone())
        return forward(self, images)

    with patch.context() as patched:
        patched.setattr(Draem, "forward", recording)
        draem.train(data, out, "edge", settings={**TINY, **SHORT, **settings})
    return torch.cat(seen)


def test_a_run_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_noise(tmp_path / "data", 12)
    plain = seen_in_training(data, tmp_path / "plain", monkeypatch, {"simulation.lighting": 0.0})
    lit = seen_in_training(data, tmp_path / "lit", monkeypatch, {"simulation.lighting": STRENGTH})
    levels = plain * 255
    assert torch.allclose(levels, levels.round(), atol=1e-3)  # as in the files
    changed = (plain[: len(lit)] != lit[: len(plain)]).flatten(1).any(1)
    assert changed.float().mean() > 0.8  # all but those of the calibration


def test_what_does_not_count_stays_mid_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the light: in inspection it is always the same."""
    data = write_noise(tmp_path / "data", 12)
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    write_image(tmp_path / "mask.png", mask)
    settings = {"simulation.lighting": STRENGTH, "data.region": str(tmp_path / "mask.png")}
    seen = seen_in_training(data, tmp_path / "run", monkeypatch, settings)
    half = seen.shape[-1] // 2
    assert seen[..., half:].sub(128 / 255).abs().max() < 1e-6
    assert seen[..., :half].std() > 0.1


def test_int8_and_the_preview_see_it(tmp_path: Path) -> None:
    """What ranges are taken from, and what is shown, is what training sees."""
    data = write_noise(tmp_path / "data", 12)
    dataset = read_layout(data, "auto", None)
    found = []
    for strength in (0.0, STRENGTH):
        config = Config.resolve("edge", None, {**TINY, "simulation.clean_share": 1.0, "simulation.lighting": strength})
        material = draw_material(Header(config=config), dataset, lambda done, total: None)
        with preview._bank(dataset, config.data, 4, 0) as bank:
            stage = Stage(bank, seed=0)
            shown = stage.simulate(stage.simulator(config.simulation), torch.arange(4)).normal
            files = load_batch(bank, torch.arange(4), keys_of(4), torch.device("cpu"))
        assert torch.allclose(shown, files, atol=1e-6) == (strength == 0.0)
        found.append(material.judging.images)
    assert found[0].shape == found[1].shape
    assert np.abs(found[0] - found[1]).max() > 0.05
