"""The Python interface's `train`: settings of a new and of a resumed run, and what must be there to train at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from draem import verbs
from draem.config import Config
from draem.errors import ConfigError
from draem.images import write_image
from draem.verbs import default_preset, resolve_config

SETTINGS = {"training.images": 40, "data.size": 32, "training.accelerator": "cpu"}


@pytest.fixture(autouse=True, scope="module")
def _own_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The folder of a run that has begun, as far as its settings go."""
    (tmp_path / "config.yaml").write_text(Config.resolve("edge", settings=SETTINGS).to_yaml())
    return tmp_path


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for index in range(2):
        write_image(folder / f"{index}.png", np.full((32, 32, 3), 90 + index, np.uint8))
    return folder


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"training.seed": 1}, "training.seed"),
        ({"data.size": 64}, "data.size"),
        ({"training.images": 64}, "training.images"),
        ({"training.epochs": 6}, "training.images"),
        ({"simulation.rotation": "full"}, "simulation.rotation"),
        ({"simulation.rotation.degrees": 3}, "simulation.rotation"),
        ({"training.threads": 2}, "training.threads"),
        ({"training.ema": 0.0, "training.log_every": 3}, "training.ema"),
        ({"score.filter_size": 3}, "score.filter_size"),
    ],
)
def test_settings_that_differ_from_the_resumed_run_are_named(begun: Path, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(begun, "", None, settings, resume=True)
    assert str(caught.value).startswith(f"{named}: differs from the run in {begun}; ")


def test_how_a_run_reports_may_change(begun: Path) -> None:
    changed = {"training.checkpoint_every": 1.5, "training.log_every": 7}
    resolved = resolve_config(begun, "edge", None, SETTINGS | changed, resume=True)
    before = Config.resolve("", begun / "config.yaml")
    assert sorted(before.differences(resolved)) == sorted(changed)
    assert (resolved.training.checkpoint_every, resolved.training.log_every) == (1.5, 7)


def test_a_resumed_run_keeps_what_is_not_said_again(begun: Path) -> None:
    assert resolve_config(begun, "", None, {}, resume=True) == Config.resolve("edge", settings=SETTINGS)


def test_another_preset_is_refused_wherever_it_is_named(begun: Path) -> None:
    said = r"preset fast: the run in .* has preset edge"
    with pytest.raises(ConfigError, match=said):
        resolve_config(begun, "fast", None, {}, resume=True)
    (begun / "other.yaml").write_text("preset: fast")
    with pytest.raises(ConfigError, match=said):
        resolve_config(begun, "", begun / "other.yaml", {}, resume=True)
    (begun / "other.yaml").write_text("training: {learning_rate: 0.5}")
    with pytest.raises(ConfigError, match=r"^training\.learning_rate: differs"):
        resolve_config(begun, "", begun / "other.yaml", {}, resume=True)


def test_a_new_run_heeds_no_earlier_settings(begun: Path, tmp_path: Path) -> None:
    assert resolve_config(begun, "fast", None, {}, resume=False) == Config.resolve("fast")
    assert resolve_config(tmp_path / "empty", "paper", None, {}, resume=True) == Config.resolve("paper")


@pytest.mark.parametrize(
    ("cuda", "mps", "preset"),
    [(True, False, "standard"), (False, True, "standard"), (False, False, "fast")],
)
def test_default_preset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: bool, mps: bool, preset: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert default_preset() == preset
    assert resolve_config(tmp_path, "", None, {}, resume=False).preset == preset
    (tmp_path / "own.yaml").write_text("preset: edge")
    assert resolve_config(tmp_path, "", tmp_path / "own.yaml", {}, resume=False).preset == "edge"


def test_torchrun_and_settings_must_agree(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each process would train alone, and both would write the same files."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"torchrun started 2 processes, the settings say 1: set training\.devices"):
        verbs.train(parts, tmp_path / "run", "edge", settings=SETTINGS)


def test_fp16_needs_a_gpu(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        verbs.train(parts, tmp_path / "run", "edge", settings=SETTINGS | {"training.precision": "fp16"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there(parts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device cuda is not available"):
        verbs.train(parts, tmp_path / "run", "edge", settings=SETTINGS | {"training.accelerator": "cuda"})


def test_without_torch_the_extra_is_named(tmp_path: Path) -> None:
    """In a Python where torch cannot be imported, as after a plain `pip install draem`."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['draem', 'train', 'data', '--out', 'run']\n"
        "from draem.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["draem: torch is not installed: run pip install 'draem[train]'"]
