"""Thresholds by several trainings: each image is scored by the model that has not seen it; nothing is promised."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import draem
from conftest import Outcome
from draem.config import DataConfig
from draem.data.layouts import read_layout
from draem.data.samples import content_sum, split_good
from draem.errors import ConfigError, DataError, ModelFileError, TrainingError
from draem.inspection.calibration import ON_AVERAGE, good_threshold
from draem.modelfile import RegionOfInterest, edit_header, read_header
from draem.network.weights import load_model, save_model
from draem.training import folds as folds_module
from draem.training.folds import fold_thresholds
from tiny import TINY, write_noise

SMALL: dict[str, Any] = TINY | {
    "data.size": 32,
    "network.reconstructive_width": 2,
    "network.discriminative_width": 2,
    "training.images": 8,
    "training.batch_size": 4,
    "training.validations": 0,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("parts"), 10)


@pytest.fixture(scope="module")
def model(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    draem.train(parts, out, "edge", settings=SMALL)
    return out / "model.safetensors"


def test_folds_share_all_images_out(parts: Path) -> None:
    good = read_layout(parts).train_good
    splits = [split_good(good, 0.1, 0.5, 3, (fold, 3)) for fold in range(3)]
    assert sorted(sample.name for split in splits for sample in split.calibrate) == [sample.name for sample in good]
    for split in splits:
        jobs = [sample for job in (split.train, split.select, split.calibrate) for sample in job]
        assert sorted(sample.name for sample in jobs) == [sample.name for sample in good]
        assert len(split.select) == 1
    assert {len(split.calibrate) for split in splits} == {3, 4}
    with pytest.raises(DataError, match="10 good images cannot be shared out among 11 folds"):
        split_good(good, 0.1, 0.1, 3, (0, 11))
    with pytest.raises(ValueError, match="the last is 2"):
        DataConfig(fold=(3, 3))


def test_every_image_is_scored_by_a_model_that_has_not_seen_it(model: Path, parts: Path, tmp_path: Path) -> None:
    mine = tmp_path / "model.safetensors"
    mine.write_bytes(model.read_bytes())
    found, header = fold_thresholds(mine, parts, tmp_path / "folds", 3, 0.1, review=0.5)
    scores = []
    for fold in range(3):
        run = tmp_path / "folds" / f"fold-{fold}-of-3"
        detector = draem.load(run / "model.safetensors")
        names = json.loads((run / "split.json").read_text())["calibrate"]
        assert detector.header.data is not None
        assert not {content_sum(parts / name) for name in names} & set(detector.header.data.used)
        scores += [detector.predict(parts / name).score for name in names]
    assert len(scores) == 10
    # What was just trained may lie otherwise in memory than what is read: the last bit may differ.
    assert found.reject == pytest.approx(good_threshold(scores, 0.1, ON_AVERAGE)[0], abs=1e-6)
    assert found.reject == pytest.approx(max(scores), abs=1e-6)
    assert found.review == pytest.approx(good_threshold(scores, 0.5, ON_AVERAGE)[0], abs=1e-6)
    assert (found.reject_promise, header.reference) == (None, None)
    assert "an estimate of 0.1 false rejects, no promise" in found.chosen_on
    assert read_header(mine).thresholds == found
    assert read_header(mine).sha256 == read_header(model).sha256


def test_finished_folds_are_taken_as_they_are(
    model: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "model.safetensors"
    mine.write_bytes(model.read_bytes())
    first, _ = fold_thresholds(mine, parts, tmp_path / "folds", 2, 0.1)

    def never(*args: Any, **more: Any) -> None:
        raise AssertionError("trained anew")

    monkeypatch.setattr(folds_module, "train_run", never)
    again, header = fold_thresholds(mine, parts, tmp_path / "folds", 2, 0.1, profile="red")
    assert again == first
    assert header.profiles["red"].thresholds == first


def test_folds_of_another_recipe_or_other_images_are_refused(model: Path, parts: Path, tmp_path: Path) -> None:
    mine = tmp_path / "model.safetensors"
    mine.write_bytes(model.read_bytes())
    fold_thresholds(mine, parts, tmp_path / "folds", 2, 0.1)
    header = read_header(mine)
    changed = header.config.model_copy(update={"score": header.config.score.model_copy(update={"filter_size": 3})})
    edit_header(mine, header.model_copy(update={"config": changed}))
    with pytest.raises(TrainingError, match="another recipe"):
        fold_thresholds(mine, parts, tmp_path / "folds", 2, 0.1)
    edit_header(mine, header)
    others = write_noise(tmp_path / "others", 12, seed=1)
    with pytest.raises(TrainingError, match="other images"):
        fold_thresholds(mine, others, tmp_path / "folds", 2, 0.1)


def test_folds_score_in_the_region_that_the_model_has_now(model: Path, parts: Path, tmp_path: Path) -> None:
    mine = tmp_path / "model.safetensors"
    mine.write_bytes(model.read_bytes())
    whole, _ = fold_thresholds(mine, parts, tmp_path / "folds", 2, 0.1)
    corner = RegionOfInterest(inspect=[[(0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.0, 0.1)]])
    edit_header(mine, read_header(mine).model_copy(update={"region": corner}))
    inside, _ = fold_thresholds(mine, parts, tmp_path / "folds", 2, 0.1)
    assert inside.reject < whole.reject


def test_what_cannot_be(model: Path, parts: Path, tmp_path: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(ConfigError, match="give 2 or more"):
        fold_thresholds(model, parts, tmp_path / "folds", 1, 0.1)
    with pytest.raises(DataError, match="the best promise is 9"):
        fold_thresholds(model, parts, tmp_path / "folds", 2, 0.01)
    assert not (tmp_path / "folds").exists()
    for rate in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="false-reject is"):
            fold_thresholds(model, parts, tmp_path / "folds", 2, rate)
    with pytest.raises(ConfigError, match="review"):
        fold_thresholds(model, parts, tmp_path / "folds", 2, 0.3, review=0.1)
    network, header = load_model(model)
    imported = tmp_path / "imported.safetensors"
    save_model(imported, network.state_dict(), header.model_copy(update={"training": None, "origin": "imported"}))
    with pytest.raises(ModelFileError, match="no recipe to train folds by"):
        fold_thresholds(imported, parts, tmp_path / "folds", 2, 0.1)
    assert model.read_bytes() == before


def test_the_command(run_cli: Callable[..., Outcome], model: Path, parts: Path, tmp_path: Path) -> None:
    mine = tmp_path / "model.safetensors"
    mine.write_bytes(model.read_bytes())
    options = ("--folds", "2", "--false-reject", "0.2")
    ended = run_cli("calibrate", mine, parts, *options, "--runs", tmp_path / "folds", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out.splitlines()[-1])["thresholds"]["reject_promise"] is None
    assert "no promise" in ended.out
    for more, says in (
        ((), "--folds needs --runs"),
        (("--runs", tmp_path / "x", "--f1"), "no use for"),
        (("--threads", "1"), "no use for"),
    ):
        ended = run_cli("calibrate", mine, parts, *options, *more)
        assert ended.code == 1
        assert says in ended.err
