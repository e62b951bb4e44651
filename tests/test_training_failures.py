"""What goes wrong in a run: numbers, memory."""

from __future__ import annotations

import csv
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.plugins.precision.amp import _optimizer_handles_unscaling
from safetensors.torch import load_file
from torch import Tensor

from draem import verbs
from draem.config import Config
from draem.errors import ConfigError, MemoryLimitError, TrainingError
from draem.modelfile.tensors import read_record
from draem.network.losses import Losses, draem_losses
from draem.training import memory, objective, run
from draem.training.optimizer import make_optimizer
from draem.training.trainer import CHECKPOINT
from tiny import write_noise

SETTINGS: dict[str, Any] = {
    "data.size": 32,
    "network.reconstructive_width": 4,
    "network.fold": 1,
    "network.levels": 3,
    "network.discriminative_width": 4,
    "training.batch_size": 4,
    "training.images": 40,
    "training.log_every": 4,
    "training.validations": 0,
    "training.checkpoint_every": 0,
    "training.precision": "fp32",
    "training.accelerator": "cpu",
    "training.threads": 1,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("parts"), 12)


def train(data: Path, out: Path, settings: dict[str, Any] | None = None, *, resume: bool = False) -> None:
    verbs.train(data, out, "edge", settings=SETTINGS | (settings or {}), resume=resume)


def losses_gone_wrong_from(step: int) -> Any:
    """The loss and its gradients are not numbers from this step on, counted from 1."""
    calls = 0

    def spoiled(*args: Any) -> Losses:
        nonlocal calls
        calls += 1
        found = draem_losses(*args)
        return found if calls < step else Losses(found.total * math.nan, found.ssim, found.l2, found.focal)

    return spoiled


# -------------------------------------------------------------------------------------------------------- not a number


def test_the_last_good_state_is_kept_and_can_be_resumed(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(parts, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        patch.setattr(objective, "draem_losses", losses_gone_wrong_from(6))
        with pytest.raises(TrainingError) as caught:
            train(parts, tmp_path / "run")
    said = str(caught.value)
    assert "\n" not in said
    for part in ("not a number at step 8", f"last good state is in {CHECKPOINT}", "training.learning_rate (now 0.002)"):
        assert part in said
    record, _ = read_record(tmp_path / "run" / CHECKPOINT)
    assert record["step"] == 5
    state = load_file(tmp_path / "run" / CHECKPOINT)
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    assert "nan" not in (tmp_path / "run/metrics.csv").read_text()
    train(parts, tmp_path / "run", resume=True)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "unbroken"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_learning_rate_far_too_high(parts: Path, tmp_path: Path) -> None:
    settings = {"training.learning_rate": 1e30, "training.checkpoint_every": 60, "training.clip_norm": None}
    with pytest.raises(TrainingError, match=r"not a number at step 4; no state was saved yet; lower .*now 1e\+30"):
        train(parts, tmp_path, settings)
    assert not (tmp_path / CHECKPOINT).exists()
    assert not (tmp_path / "model.safetensors").exists()


def test_validation_notices_before_the_next_row(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would otherwise meet maps that are no numbers."""
    monkeypatch.setattr(objective, "draem_losses", losses_gone_wrong_from(3))
    with pytest.raises(TrainingError, match="not a number at step 5"):
        train(parts, tmp_path, {"training.log_every": 100, "training.validations": 2, "training.keep": "best"})
    assert not (tmp_path / "best.safetensors").exists()


def test_gradients_may_overflow_while_the_loss_is_a_number(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last step no later loss would tell: the weights themselves are looked at, and no model is written."""
    calls = 0

    def overflowing(*args: Any) -> Losses:
        nonlocal calls
        calls += 1
        found = draem_losses(*args)
        if calls == 10:
            found.total.register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
        return found

    monkeypatch.setattr(objective, "draem_losses", overflowing)
    with pytest.raises(TrainingError, match="at step 10"):
        train(parts, tmp_path)
    assert read_record(tmp_path / CHECKPOINT)[0]["step"] == 9
    assert not (tmp_path / "model.safetensors").exists()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4", "8"]


# -------------------------------------------------------------------------------------------------------------- memory


def memory_for(images: int, seen: list[int] | None = None) -> Any:
    """Losses that run out of memory, in torch's words, with more than so many images."""

    def limited(reconstruction: Tensor, *args: Any) -> Losses:
        if seen is not None:
            seen.append(len(reconstruction))
        if len(reconstruction) > images:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"
            )
        return draem_losses(reconstruction, *args)

    return limited


@pytest.mark.parametrize(
    ("fits", "below", "found", "tried"),
    [(3, 8, 2, [4, 2]), (4, 5, 4, [4]), (100, 8, 4, [4]), (1, 3, 1, [2, 1]), (0, 9, 0, [8, 4, 2, 1]), (9, 1, 0, [])],
)
def test_largest_batch(monkeypatch: pytest.MonkeyPatch, fits: int, below: int, found: int, tried: list[int]) -> None:
    seen: list[int] = []
    monkeypatch.setattr(objective, "draem_losses", memory_for(fits, seen))
    config = Config.resolve("edge", settings=SETTINGS | {"data.size": (32, 64)})
    assert memory.largest_batch(config, torch.device("cpu"), below=below) == found
    assert seen == tried


def test_largest_batch_hides_no_other_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Losses:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(objective, "draem_losses", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        memory.largest_batch(Config.resolve("edge", settings=SETTINGS), torch.device("cpu"), below=8)


@pytest.mark.parametrize(("accumulate", "advised"), [(1, 4), (3, 12)])
def test_out_of_memory_names_a_batch_that_fits_and_keeps_the_step_as_large(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int, advised: int
) -> None:
    monkeypatch.setattr(objective, "draem_losses", memory_for(2))
    with pytest.raises(MemoryLimitError) as caught:
        train(parts, tmp_path, {"training.batch_size": 8, "training.accumulate": accumulate})
    assert str(caught.value) == (
        "out of memory with training.batch_size=8; 2 fits: --set training.batch_size=2 "
        f"--set training.accumulate={advised}"
    )


def test_one_small_image_is_too_little_for_batch_norm(parts: Path, tmp_path: Path) -> None:
    """Its innermost layer has one value a channel there."""
    single = {"network.levels": 6, "training.batch_size": 1, "training.images": 1}
    with pytest.raises(ConfigError, match=r"training\.batch_size=1 cannot train on images of 32×32"):
        train(parts, tmp_path / "run", single)
    train(parts, tmp_path / "wider", single | {"data.size": (32, 33)})
    folded = single | {"network.fold": 2}
    with pytest.raises(ConfigError, match=r"training\.batch_size=1 cannot train on images of 64×64"):
        train(parts, tmp_path / "folded", folded | {"data.size": 64})
    train(parts, tmp_path / "folded", folded | {"data.size": (64, 65)})


def test_out_of_memory_with_the_smallest_batch(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "draem_losses", memory_for(0))
    with pytest.raises(
        MemoryLimitError, match=r"even with the smallest batch: .*narrower preset or a smaller data\.size"
    ):
        train(parts, tmp_path)


def test_what_the_failed_step_held_is_free_when_smaller_batches_are_tried(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the batch that is advised would be smaller than what fits."""
    held: list[weakref.ref[Tensor]] = []

    def failing(reconstruction: Tensor, logits: Tensor, *args: Any) -> Losses:
        held.extend((weakref.ref(reconstruction), weakref.ref(logits)))
        raise MemoryError

    def look(*args: Any, **options: Any) -> int:
        assert len(held) == 2
        assert not any(tensor() is not None for tensor in held)
        return 1

    monkeypatch.setattr(objective, "draem_losses", failing)
    monkeypatch.setattr(run, "largest_batch", look)
    with pytest.raises(MemoryLimitError, match="1 fits"):
        train(parts, tmp_path)


def test_other_errors_of_a_step_come_through(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Losses:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(objective, "draem_losses", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(parts, tmp_path)


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gradients_can_be_clipped_in_every_precision(precision: str, name: str) -> None:
    """Fabric refuses to unscale fp16 gradients for clipping where the optimiser does it itself: known without a GPU."""
    recipe = Config.resolve("edge", None, {"training.precision": precision, "training.optimizer": name}).training
    optimizer = make_optimizer(torch.nn.Linear(2, 2), recipe, torch.device("cuda"))
    assert optimizer.defaults["fused"] == (precision != "fp16")
    assert _optimizer_handles_unscaling(optimizer) == (precision != "fp16" and name != "muon")
