"""A run that was killed and resumed equals the unbroken one, bit for bit."""

from __future__ import annotations

import csv
import dataclasses
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from draem import verbs
from draem.config import Config, MaskWeights
from draem.errors import ConfigError, DataError, ModelFileError
from draem.evaluation.metrics import MetricsAccumulator
from draem.images import write_image
from draem.modelfile import read_header
from draem.modelfile.tensors import read_record, write_record
from draem.training import trainer
from draem.training.trainer import BEST, CHECKPOINT, Trainer
from draem.training.validation import Validation
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
    "training.validations": 1,
    "training.ema": 0.5,
    "training.precision": "fp32",
    "training.accelerator": "cpu",
    "training.threads": 1,
    "score.filter_size": 3,
}
LONG = 240
"""Images of a run that lasts some seconds: long enough to be killed in its middle."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("parts"), 12)


def train(data: Path, out: Path, settings: dict[str, Any] | None = None, **options: Any) -> None:
    preset = options.pop("preset", "" if options.get("resume") else "edge")
    verbs.train(data, out, preset, settings=SETTINGS | (settings or {}), **options)


class Broken(BaseException):
    """Not an Exception: nothing in the run may catch it, as nothing catches a kill."""


def break_off(data: Path, out: Path, settings: dict[str, Any], step: int) -> None:
    """Run until a step has been done and saved, and leave everything as it lies."""
    one_step = Trainer._one_step

    def breaking(self: Trainer) -> float:
        if self.step == step:
            raise Broken
        return one_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_one_step", breaking)
        with pytest.raises(Broken):
            train(data, out, settings | {"training.checkpoint_every": 0})


def history(out: Path) -> list[dict[str, str]]:
    """metrics.csv without the one column that a clock decides."""
    with (out / "metrics.csv").open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "images_per_second"} for row in csv.DictReader(file)
        ]


def assert_equal_runs(ours: Path, theirs: Path) -> None:
    """Model and history; and the last checkpoint, which holds the optimiser's moments too."""
    for name in ("model.safetensors", CHECKPOINT):
        first, second = load_file(ours / name), load_file(theirs / name)
        assert first.keys() == second.keys()
        assert not [key for key, value in first.items() if not torch.equal(value, second[key])]
    assert history(ours) == history(theirs)
    assert (ours / "split.json").read_text() == (theirs / "split.json").read_text()


# ------------------------------------------------------------------------------------------------------- a real kill


@contextmanager
def started(data: Path, out: Path, settings: dict[str, Any], *flags: str) -> Iterator[subprocess.Popen[str]]:
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "draem", "train", str(data), "--out", str(out), *given, *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_step(process: subprocess.Popen[str], out: Path, step: int) -> None:
    """Until the checkpoint of a step later than this is there."""
    deadline = time.monotonic() + 120
    while not ((out / CHECKPOINT).exists() and read_record(out / CHECKPOINT)[0]["step"] > step):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stop(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def resumed_step(said: str) -> int:
    found = re.search(r"resumed at step (\d+) of 60", said)
    assert found, said
    return int(found[1])


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_then_interrupted_then_resumed_equals_unbroken_in_fp32(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL at a moment that nobody chose, while checkpoints are written all the time; then Ctrl-C."""
    out, settings = tmp_path / "broken", SETTINGS | {"training.images": LONG, "training.keep": "best"}
    train(parts, tmp_path / "unbroken", settings)

    with started(parts, out, settings, "--preset", "edge", "--checkpoint-every", "0") as process:
        wait_for_step(process, out, 8)
        time.sleep(random.uniform(0, 0.2))
        code, _, _ = stop(process, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (out / "model.safetensors").exists()
    killed_at = read_record(out / CHECKPOINT)[0]["step"]
    assert 8 < killed_at < 60

    with started(parts, out, settings, "--resume", "--checkpoint-every", "0.02") as process:
        wait_for_step(process, out, killed_at)
        code, stdout, said = stop(process, signal.SIGINT)
    assert code == 1
    assert stdout == ""
    assert resumed_step(said) == killed_at
    stopped_at = read_record(out / CHECKPOINT)[0]["step"]
    assert killed_at < stopped_at < 60
    messages = [line for line in said.splitlines() if line.startswith("draem:")]
    assert messages == [f"draem: stopped at step {stopped_at} of 60; go on with --resume ({out})"]
    assert "Traceback" not in said

    capsys.readouterr()
    train(parts, out, {**settings, "training.checkpoint_every": 60}, resume=True)
    assert resumed_step(capsys.readouterr().err) == stopped_at
    assert_equal_runs(out, tmp_path / "unbroken")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_and_resumed_equals_unbroken_in_bf16(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "broken"
    settings = SETTINGS | {"training.images": LONG, "training.precision": "bf16"}
    train(parts, tmp_path / "unbroken", settings)
    with started(parts, out, settings, "--preset", "edge", "--checkpoint-every", "0.2") as process:
        wait_for_step(process, out, 0)
        time.sleep(random.uniform(0, 0.3))
        code, _, _ = stop(process, signal.SIGKILL)
    assert code == -signal.SIGKILL
    capsys.readouterr()
    train(parts, out, settings, resume=True)
    assert 1 <= resumed_step(capsys.readouterr().err) < 60
    assert_equal_runs(out, tmp_path / "unbroken")


# ------------------------------------------------------------------------------------------------- every kind of run


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        (1, {"training.keep": "best"}),
        (6, {"training.keep": "best", "training.ema": 0.0, "training.clip_norm": None}),
        (9, {"training.precision": "bf16", "training.keep": "best"}),
        (7, {"training.accumulate": 2, "training.images": 80, "training.schedule": "steps"}),
        (5, {"training.sampling": "replacement", "training.optimizer": "adam", "simulation.rotation": "slight"}),
        (6, {"training.optimizer": "adamw", "training.accumulate": 2, "training.images": 80, "network.fold": 2}),
        (4, {"training.channels_last": False, "data.size": [40, 33], "training.epochs": 3.5, "training.images": None}),
    ],
    ids=["first step", "best, no average", "last step", "accumulating", "replacement", "adamw, folded", "odd size"],
)
def test_broken_off_between_two_steps(parts: Path, tmp_path: Path, step: int, settings: dict[str, Any]) -> None:
    train(parts, tmp_path / "unbroken", settings)
    break_off(parts, tmp_path / "broken", settings, step)
    assert read_record(tmp_path / "broken" / CHECKPOINT)[0]["step"] == step
    train(parts, tmp_path / "broken", settings, resume=True)
    assert_equal_runs(tmp_path / "broken", tmp_path / "unbroken")


def test_every_kind_of_anomaly_within_a_region(parts: Path, tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[4:28, 8:30] = 255
    write_image(tmp_path / "region.png", pixels)
    settings = {
        "simulation.region": str(tmp_path / "region.png"),
        "simulation.masks": dict.fromkeys(MaskWeights.model_fields, 1.0),
        "simulation.sources": {"patch": 1.0, "deform": 1.0, "blur": 1.0, "missing": 1.0, "flat": 1.0},
        "simulation.gradient_share": 0.5,
        "simulation.rotation": "full",
    }
    train(parts, tmp_path / "unbroken", settings)
    break_off(parts, tmp_path / "broken", settings, 5)
    train(parts, tmp_path / "broken", settings, resume=True)
    assert_equal_runs(tmp_path / "broken", tmp_path / "unbroken")


def test_best_is_the_best_of_the_whole_run(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights come from the file beside the checkpoint, also where the best step lies before the break."""
    precision = {2: 0.3, 4: 0.9, 6: 0.5, 8: 0.9, 10: 0.1}
    unknown, empty = MetricsAccumulator().overall(), np.zeros((4, 4, 3), np.uint8)
    one_step, step = Trainer._one_step, 0

    def stepping(self: Trainer) -> float:
        nonlocal step
        step = self.step + 1
        return one_step(self)

    def scripted(*args: Any) -> Validation:
        return Validation(dataclasses.replace(unknown, pixel_ap=precision[step]), 0.5, empty)

    monkeypatch.setattr(Trainer, "_one_step", stepping)
    monkeypatch.setattr(trainer, "validate", scripted)
    settings = {"training.keep": "best", "training.validations": 5}
    train(parts, tmp_path / "unbroken", settings)
    break_off(parts, tmp_path / "broken", settings, 7)
    train(parts, tmp_path / "broken", settings, resume=True)
    assert_equal_runs(tmp_path / "broken", tmp_path / "unbroken")
    for run in ("unbroken", "broken"):
        model, kept = load_file(tmp_path / run / "model.safetensors"), load_file(tmp_path / run / BEST)
        assert all(torch.equal(value, kept[name]) for name, value in model.items())
        record = read_header(tmp_path / run / "model.safetensors").training
        assert record is not None
        assert record.step_kept == 4
        assert record.validation["val_pixel_ap"] == 0.9


# ------------------------------------------------------------------------------------------------- what resuming meets


@pytest.fixture(scope="module")
def broken(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps, broken off after five: copy it, do not change it."""
    out = tmp_path_factory.mktemp("runs") / "broken"
    break_off(parts, out, {}, 5)
    return out


@pytest.fixture(scope="module")
def unbroken(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, unbroken."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    train(parts, out)
    return out


def copy_of(run: Path, out: Path) -> Path:
    out.mkdir(parents=True)
    for path in run.iterdir():
        if path.is_file():
            (out / path.name).write_bytes(path.read_bytes())
    return out


def test_nothing_to_resume_starts_from_the_beginning(
    parts: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does what a run leaves that was killed before its first checkpoint matter."""
    train(parts, tmp_path / "new", resume=True, preset="edge")
    assert f"nothing to resume in {tmp_path / 'new'}: starting from the beginning" in capsys.readouterr().err
    assert_equal_runs(tmp_path / "new", unbroken)
    break_off(parts, tmp_path / "early", {"training.keep": "last"}, 3)
    (tmp_path / "early" / CHECKPOINT).unlink()
    train(parts, tmp_path / "early", {"training.keep": "last", "training.checkpoint_every": 60}, resume=True)
    assert_equal_runs(tmp_path / "early", unbroken)


def test_a_finished_run_gives_the_same_model_again(parts: Path, tmp_path: Path) -> None:
    train(parts, tmp_path, {"training.keep": "best"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_one_step", lambda self: pytest.fail("it trains"))
        train(parts, tmp_path, {"training.keep": "best"}, resume=True)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after == before


def test_leftovers_of_a_write_that_was_killed_do_no_harm(
    parts: Path, broken: Path, unbroken: Path, tmp_path: Path
) -> None:
    out = copy_of(broken, tmp_path / "run")
    half = (out / CHECKPOINT).read_bytes()
    for name in (".checkpoint-0123456789ab.safetensors", ".best-0123456789ab.safetensors", ".metrics-0123.csv"):
        (out / name).write_bytes(half[: len(half) // 2])
    with (out / "metrics.csv").open("a") as file:
        file.write("8,3")
    train(parts, out, {"training.checkpoint_every": 0}, resume=True)
    assert_equal_runs(out, unbroken)
    assert not list(out.glob(".checkpoint-*"))  # large ones do not pile up
    assert not list(out.glob(".best-*"))


@pytest.mark.parametrize("place", [-1, 500, 0], ids=["tensors", "record", "length"])
def test_a_damaged_checkpoint_is_one_line(parts: Path, broken: Path, tmp_path: Path, place: int) -> None:
    out = copy_of(broken, tmp_path / "run")
    content = bytearray((out / CHECKPOINT).read_bytes())
    content[place] ^= 1
    (out / CHECKPOINT).write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        train(parts, out, {"training.checkpoint_every": 0}, resume=True)
    assert str(out / CHECKPOINT) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (out / CHECKPOINT).read_bytes() == content  # nothing is thrown away


def test_how_a_run_reports_may_change(parts: Path, broken: Path, unbroken: Path, tmp_path: Path) -> None:
    """And what was not said again stays as it was."""
    out = copy_of(broken, tmp_path / "run")
    changed = {"training.checkpoint_every": 7.5, "training.log_every": 5}
    verbs.train(parts, out, settings=changed, resume=True)
    ours, theirs = load_file(out / "model.safetensors"), load_file(unbroken / "model.safetensors")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert "checkpoint_every: 7.5" in (out / "config.yaml").read_text()


def test_a_setting_that_came_later_is_off_in_a_run_of_before(tmp_path: Path) -> None:
    """Whatever its preset has by now: a resumed run is the one that began."""
    before = Config.resolve("edge", None, {"training.seed": 3})
    assert before.simulation.lighting > 0
    stored = yaml.safe_load(before.to_yaml())
    del stored["simulation"]["lighting"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    resumed = verbs.resolve_config(tmp_path, "", None, {}, resume=True)
    assert before.differences(resumed) == ["simulation.lighting"]
    assert resumed.simulation.lighting == 0.0


def test_another_network_is_refused(parts: Path, broken: Path, tmp_path: Path) -> None:
    out = copy_of(broken, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^network\.fold: differs from the run in .*; resume with its settings"):
        verbs.train(parts, out, settings={"network.fold": 2}, resume=True)


def test_other_images_are_refused(parts: Path, broken: Path, tmp_path: Path) -> None:
    """A name that is gone is named; the same names with other content are no less another data set."""
    out = copy_of(broken, tmp_path / "run")
    data = write_noise(tmp_path / "data", 12)
    write_image(data / "05.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"not the images that the run in .* began with"):
        train(data, out, resume=True)
    (data / "05.png").unlink()
    with pytest.raises(DataError, match=r"05\.png is gone"):
        train(data, out, resume=True)


def test_more_images_do_not_change_the_run(broken: Path, unbroken: Path, tmp_path: Path) -> None:
    """The jobs are recorded by name; who was not there at the start has none."""
    out = copy_of(broken, tmp_path / "run")
    train(write_noise(tmp_path / "data", 20), out, {"training.checkpoint_every": 0}, resume=True)
    assert_equal_runs(out, unbroken)


@pytest.mark.parametrize("text", ["", "[]", '{"train": ["00.png"]}', '{"train": 3, "select": [], "calibrate": []}'])
def test_a_damaged_record_of_the_split_is_one_line(parts: Path, broken: Path, tmp_path: Path, text: str) -> None:
    out = copy_of(broken, tmp_path / "run")
    (out / "split.json").write_text(text)
    with pytest.raises(DataError, match=r"split\.json: damaged"):
        train(parts, out, resume=True)


def test_a_record_that_lacks_something_is_one_line(parts: Path, broken: Path, tmp_path: Path) -> None:
    """A whole file, but not of this version."""
    out = copy_of(broken, tmp_path / "run")
    record, content = read_record(out / CHECKPOINT)
    write_record(out / CHECKPOINT, {key: value for key, value in record.items() if key != "window"}, content)
    with pytest.raises(ModelFileError, match="its record is damaged"):
        train(parts, out, resume=True)
