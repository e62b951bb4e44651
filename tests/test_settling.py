"""A run whose validation has settled ends early, and a resumed one ends alike; what a run says of its time."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from draem import verbs
from draem.modelfile import read_header
from draem.training import trainer, validation
from draem.training.progress import duration
from draem.training.settling import GAIN, LEAST_STEPS, Settling
from draem.training.trainer import CHECKPOINT, Trainer
from draem.training.validation import validate
from tiny import write_noise

SETTINGS: dict[str, Any] = {
    "data.size": 32,
    "network.reconstructive_width": 4,
    "network.discriminative_width": 4,
    "network.fold": 1,
    "network.levels": 3,
    "training.batch_size": 4,
    "training.images": 160,
    "training.validations": 20,
    "training.schedule": "hold",
    "training.cooldown": 0.5,
    "training.patience": 2,
    "training.precision": "fp32",
    "training.threads": 1,
    "score.filter_size": 3,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("parts"), 12)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pixel APs that validations give, by their number; the last one goes on for ever."""
    figures = [0.1, 0.1, 0.2, 0.4, 0.401, 0.402, 0.9]
    steps: list[int] = []

    def giving(*arguments: Any) -> Any:
        found = validate(*arguments)
        steps.append(len(steps))
        value = figures[min(len(steps), len(figures)) - 1]
        return dataclasses.replace(found, metrics=dataclasses.replace(found.metrics, pixel_ap=value))

    monkeypatch.setattr(trainer, "validate", giving)
    monkeypatch.setattr(validation, "SAMPLES", 1)
    monkeypatch.setattr(trainer, "LEAST_STEPS", 0)
    return figures


def train(parts: Path, out: Path, **options: Any) -> None:
    settings = SETTINGS | {f"training.{key}": value for key, value in options.pop("settings", {}).items()}
    verbs.train(parts, out, "" if options.get("resume") else "edge", settings=settings, **options)


def test_counts_validations_without_a_gain() -> None:
    settling = Settling()
    seen = []
    for figure in (None, 0.5, 0.5 + GAIN / 2, 0.5 + GAIN * 0.9, None, 0.5 + GAIN, 0.4):
        settling.add(figure)
        seen.append(settling.without_gain)
    assert seen == [0, 0, 1, 2, 2, 0, 1]
    assert Settling.of(settling.record()) == settling
    assert Settling.of({}) == Settling()


def test_the_settings_page_says_what_counts() -> None:
    page = (Path(__file__).parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
    assert f"after the warm-up and {LEAST_STEPS} steps, have not raised the best pixel AP" in page
    assert f"on simulated defects by {GAIN};" in page


def test_a_settled_run_falls_and_ends(parts: Path, tmp_path: Path, given: list[float], capsys: Any) -> None:
    """40 steps, a validation every second one: after the sixth (step 12) it falls for as long as it ran."""
    train(parts, tmp_path)
    record = read_header(tmp_path / "model.safetensors").training
    assert record is not None
    assert (record.steps, record.images_seen) == (24, 96)
    assert "the rate falls now, and the run ends after 24 of 40 steps" in " ".join(capsys.readouterr().err.split())


def test_what_validations_give_while_the_rate_still_rises_does_not_count(
    parts: Path, tmp_path: Path, given: list[float]
) -> None:
    """The rate would jump up to a shorter run's. Half of 40 steps rise; three validations later it falls."""
    given[:] = [0.5]
    train(parts, tmp_path, settings={"warmup": 0.5, "cooldown": 0.2})
    record = read_header(tmp_path / "model.safetensors").training
    assert record is not None
    assert record.steps == 33


def test_what_a_young_network_gives_does_not_count(
    parts: Path, tmp_path: Path, given: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validations count from step 14 on; with the third of them (step 18) two gave no gain."""
    given[:] = [0.5]
    monkeypatch.setattr(trainer, "LEAST_STEPS", 12)
    train(parts, tmp_path, settings={"cooldown": 0.2})
    record = read_header(tmp_path / "model.safetensors").training
    assert record is not None
    assert record.steps == 23


def test_without_patience_it_goes_on(parts: Path, tmp_path: Path, given: list[float]) -> None:
    train(parts, tmp_path, settings={"patience": 0})
    record = read_header(tmp_path / "model.safetensors").training
    assert record is not None
    assert record.steps == 40


@pytest.mark.parametrize(("least", "says"), [(0, False), (20, True)])
def test_too_short_a_run_says_that_it_cannot_end_early(
    parts: Path,
    tmp_path: Path,
    given: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    least: int,
    says: bool,
) -> None:
    given[:] = [0.5]
    monkeypatch.setattr(trainer, "LEAST_STEPS", least)
    train(parts, tmp_path)
    told = "the end of its budget: validations count after 20 of 40 steps: too late to fall"
    assert (told in " ".join(capsys.readouterr().err.split())) == says
    record = read_header(tmp_path / "model.safetensors").training
    assert record is not None
    assert (record.steps == 40) == says


def test_without_held_out_images_it_says_that_it_cannot_settle(tmp_path: Path, capsys: Any) -> None:
    train(write_noise(tmp_path / "few", 4), tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert "patience: this run goes on to the end of its budget: too few good images to hold any out" in said
    record = read_header(tmp_path / "run" / "model.safetensors").training
    assert record is not None
    assert record.steps == 40


@pytest.mark.parametrize("at", [9, 15])
def test_resumed_before_or_after_it_settled_it_ends_alike(
    at: int, parts: Path, tmp_path: Path, given: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    given[:] = [0.5]
    train(parts, tmp_path / "whole")
    one_step = Trainer._one_step

    class Broken(BaseException):
        pass

    def breaking(self: Trainer) -> float:
        if self.step == at:
            raise Broken
        return one_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", breaking)
        with pytest.raises(Broken):
            train(parts, tmp_path / "broken", settings={"checkpoint_every": 0})
    train(parts, tmp_path / "broken", resume=True)
    for name in ("model.safetensors", CHECKPOINT):
        first, second = load_file(tmp_path / "whole" / name), load_file(tmp_path / "broken" / name)
        assert all(first[key].equal(second[key]) for key in first)


def test_a_run_says_how_long_it_will_take(parts: Path, tmp_path: Path, capsys: Any) -> None:
    train(parts, tmp_path / "told", settings={"patience": 0, "validations": 0})
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"about \d+ seconds? to go: 148 images at [\d.e+]+ a second", said)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 second"), (40, "40 seconds"), (720, "12 minutes"), (5999, "100 minutes"), (12600, "3.5 hours")],
)
def test_durations_are_told_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
