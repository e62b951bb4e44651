"""Two processes that share a batch train as one that accumulates the same half-batches: started as a person would."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from draem import verbs
from draem.modelfile.tensors import read_record
from draem.training.trainer import CHECKPOINT
from tiny import write_noise, write_tiny_model

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the launcher starts scripts as POSIX does")

STEPS = 40
SETTINGS: dict[str, Any] = {
    "data.size": 32,
    "network.reconstructive_width": 4,
    "network.fold": 1,
    "network.levels": 3,
    "network.discriminative_width": 4,
    "training.batch_size": 2,
    "training.images": 4 * STEPS,
    "training.ema": 0.1,
    "training.log_every": 5,
    "training.validations": 1,
    "training.precision": "fp32",
    "training.accelerator": "cpu",
    "training.threads": 1,
    "score.filter_size": 3,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("parts"), 12)


def command(parts: Path, out: Path, *flags: str) -> list[str]:
    """The console script beside this Python, with two processes."""
    given = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    script = str(Path(sys.executable).parent / "draem")
    return [script, "train", str(parts), "--out", str(out), *given, "--set", "training.devices=2", *flags]


def state(out: Path, prefix: str) -> dict[str, Tensor]:
    """Weights and statistics in the last checkpoint; counters count parts, and no one reads them."""
    found = load_file(out / CHECKPOINT)
    return {name: value for name, value in found.items() if name.startswith(prefix) and value.is_floating_point()}


def history(out: Path) -> list[dict[str, float]]:
    with (out / "metrics.csv").open(newline="") as file:
        return [
            {key: float(value) for key, value in row.items() if value and key != "images_per_second"}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def together(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[str]]:
    """A run of two processes that was interrupted and resumed: its folder, and what each start wrote on stderr."""
    out, said, codes = tmp_path_factory.mktemp("runs") / "together", [], []
    first = [*command(parts, out, "--preset", "edge", "--checkpoint-every", "0.1")]
    with subprocess.Popen(first, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (out / CHECKPOINT).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)  # the first process alone: the other must hear of it
        said.append(process.communicate(timeout=60)[1])
        codes.append(process.returncode)
    second = command(parts, out, "--resume")
    done = subprocess.run(second, capture_output=True, text=True, timeout=180, check=False)
    said.append(done.stderr)
    assert (codes, done.returncode) == ([1], 0), said
    assert done.stdout.splitlines() == [f"model: {out / 'model.safetensors'}"]
    return out, said[0].splitlines(), said[1].splitlines()


@pytest.fixture(scope="module")
def alone(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that accumulates the same half-batches."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    verbs.train(parts, out, "edge", settings=SETTINGS | {"training.accumulate": 2})
    return out


@pytest.mark.parametrize("prefix", ["model.", "average.", "optimizer."])
def test_two_processes_match_one_that_accumulates(
    together: tuple[Path, list[str], list[str]], alone: Path, prefix: str
) -> None:
    """Weights and BatchNorm's statistics; their moving average, which changes nothing in the former; the moments."""
    ours, theirs = state(together[0], prefix), state(alone, prefix)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 100
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-5, msg=name)


def test_the_statistics_have_left_where_they_started(alone: Path) -> None:
    """Else their equality would say nothing."""
    means = [value for name, value in state(alone, "model.").items() if name.endswith("running_mean")]
    variances = [value for name, value in state(alone, "model.").items() if name.endswith("running_var")]
    assert all(value.abs().max() > 1e-4 for value in means)
    assert all((value - 1).abs().max() > 1e-1 for value in variances)


def test_rows_are_means_over_both_processes(together: tuple[Path, list[str], list[str]], alone: Path) -> None:
    """Also around the interruption: several processes stop where a row is written, so no sums are under way."""
    ours, theirs = history(together[0]), history(alone)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(5, STEPS + 1, 5))
    for row, expected in zip(ours, theirs, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_one_process_writes_and_speaks(together: tuple[Path, list[str], list[str]]) -> None:
    out, first, second = together
    step = next(line for line in second if line.startswith("resumed at step ")).split()[3]
    assert 0 < int(step) < STEPS
    stopped = [line for line in first if line.startswith("draem:")]
    assert stopped == [f"draem: stopped at step {step} of {STEPS}; go on with --resume ({out})"]
    for start in ("parts", "resumed at", "validation:", "threshold", "model:"):
        assert len([line for line in second if line.startswith(start)]) == 1, start
    expected = ("parts", "draem:", "stopping after", "resumed at", "about ", "train ", "no --preset: ")
    others = [line for line in (*first, *second) if not line.startswith(expected)]
    assert [line.split()[0] for line in others] == ["validation:", "threshold", "model:"]  # no warning among them
    files = sorted(path.name for path in out.iterdir())
    assert files == [
        *(CHECKPOINT, "config.yaml", "metrics.csv", "model.safetensors", "scene.json", "split.json", "tensorboard"),
    ]
    assert len(list((out / "tensorboard").iterdir())) == 2  # one a start
    assert read_record(out / CHECKPOINT)[0]["threads"] == 1  # as set, not as the launcher shares the cores


def test_two_processes_with_a_teacher_match_one(parts: Path, tmp_path: Path) -> None:
    """Each has the teacher for itself; its part of the loss is shared like the others."""
    teacher = write_tiny_model(tmp_path / "teacher.safetensors", data__size=32)
    taught = {"training.teacher": str(teacher), "training.images": 24}
    flags = [part for key, value in taught.items() for part in ("--set", f"{key}={value}")]
    together = command(parts, tmp_path / "together", "--preset", "edge", *flags)
    done = subprocess.run(together, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    verbs.train(parts, tmp_path / "alone", "edge", settings=SETTINGS | taught | {"training.accumulate": 2})
    ours, theirs = state(tmp_path / "together", "model."), state(tmp_path / "alone", "model.")
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-5, msg=name)
    for row, expected in zip(history(tmp_path / "together"), history(tmp_path / "alone"), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
        assert row["taught"] > 0
