"""One model for each category of a data set: training, going on, evaluating, and what the table and the files say."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import draem
from conftest import Outcome
from draem.data.demo import render_demo
from draem.data.layouts import read_layout
from draem.errors import ConfigError, DataError, TrainingError
from draem.evaluation.evaluate import evaluate
from draem.evaluation.metrics import METRIC_KEYS
from draem.images import read_image, read_mask
from draem.inspection.detector import Detector
from draem.modelfile import read_header
from draem.verbs import train_all

Run = Callable[..., Outcome]
NAMES = ["printed", "woven"]
SETTINGS: dict[str, Any] = {
    "data.size": 32,
    "network.reconstructive_width": 2,
    "network.fold": 1,
    "network.levels": 3,
    "network.discriminative_width": 2,
    "training.precision": "fp32",
    "training.accelerator": "cpu",
    "training.threads": 1,
    "training.validations": 1,
    "training.batch_size": 4,
    "training.images": 8,
}
FLAGS = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories below one root, in MVTec AD's layout."""
    folder = tmp_path_factory.mktemp("two")
    for name in NAMES:
        render_demo(folder, name, size=64, train=6, test_good=3, test_defect=1)
    return folder


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "all"
    models = draem.train_all(root, out, "edge", settings=SETTINGS)
    assert models == {name: out / name / "model.safetensors" for name in NAMES}
    return out


def test_each_category_has_a_model_of_its_own(root: Path, trained: Path) -> None:
    headers = {name: read_header(trained / name / "model.safetensors") for name in NAMES}
    for name, header in headers.items():
        assert header.data is not None
        assert header.data.name == name
        assert header.data.train + header.data.select + header.data.calibrate == 6
        split = json.loads((trained / name / "split.json").read_text())
        assert {*split["train"], *split["select"], *split["calibrate"]} == {f"train/good/{i:03}.png" for i in range(6)}
    assert headers["woven"].sha256 != headers["printed"].sha256


def test_a_category_trained_alone_is_the_same(root: Path, trained: Path, tmp_path: Path) -> None:
    alone = draem.train(root, tmp_path / "a", "edge", settings=SETTINGS, category="woven")
    direct = draem.train(root / "woven", tmp_path / "b", "edge", settings=SETTINGS)
    together = read_header(trained / "woven" / "model.safetensors")
    assert alone.header.sha256 == direct.header.sha256 == together.sha256
    assert alone.header.data == direct.header.data == together.data


def test_going_on_passes_over_what_is_done(
    root: Path, trained: Path, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "all"
    shutil.copytree(trained, out)
    whole = read_header(out / "woven" / "model.safetensors").sha256
    shutil.rmtree(out / "woven")
    before = (out / "printed" / "model.safetensors").stat().st_mtime_ns
    done = run_cli("train", root, "--category", "all", "--out", out, "--resume")
    assert done.code == 0, done.err
    assert "printed: trained already" in done.err
    assert done.out.splitlines() == [f"model: {out / name / 'model.safetensors'}" for name in NAMES]
    assert (out / "printed" / "model.safetensors").stat().st_mtime_ns == before
    # With the settings that the first was trained with, though they were not said again.
    assert read_header(out / "woven" / "model.safetensors").sha256 == whole
    again = run_cli("train", root, "--category", "all", "--out", out, "--resume", "--json")
    assert json.loads(again.out.splitlines()[-1])["models"] == {
        name: str(out / name / "model.safetensors") for name in NAMES
    }
    other = run_cli("train", root, "--category", "all", "--out", out, "--resume", "--seed", 5)
    assert other.code == 1
    assert "training.seed: differs from the run" in other.err


def test_nothing_is_trained_over_a_run(root: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "woven", tmp_path / "all" / "woven")
    with pytest.raises(TrainingError, match=r"all/woven: holds a run already; add --resume"):
        train_all(root, tmp_path / "all", "edge", settings=SETTINGS)
    assert not (tmp_path / "all" / "printed").exists()


def test_no_run_of_one_model_is_taken_for_one_of_all(root: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "woven", tmp_path / "one")
    before = (tmp_path / "one" / "config.yaml").read_bytes()
    for resume in (False, True):
        with pytest.raises(TrainingError, match="one: holds a run"):
            train_all(root, tmp_path / "one", "edge", settings=SETTINGS, resume=resume)
    assert (tmp_path / "one" / "config.yaml").read_bytes() == before


def test_train_makes_one_model(root: Path, tmp_path: Path, run_cli: Run) -> None:
    with pytest.raises(ConfigError, match="train_all"):
        draem.train(root, tmp_path / "x", "edge", settings=SETTINGS, category="all")
    with pytest.raises(DataError, match=r"2 MVTec AD categories \(printed, woven\): add --category NAME"):
        draem.train(root, tmp_path / "x", "edge", settings=SETTINGS)
    done = run_cli("train", root, "--category", "bottle", "--out", tmp_path / "x", "--preset", "edge", *FLAGS)
    assert done.code == 1
    assert "no category 'bottle'" in done.err
    one = run_cli("train", root, "--category", "printed", "--out", tmp_path / "x", "--preset", "edge", *FLAGS)
    assert one.out == f"model: {tmp_path / 'x' / 'model.safetensors'}\n"


def test_evaluate_each_by_its_own_model(root: Path, trained: Path, tmp_path: Path, run_cli: Run) -> None:
    out = tmp_path / "figures"
    done = run_cli("evaluate", trained, root, "--category", "all", "--out", out, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    written = json.loads((out / "metrics.json").read_text())
    assert json.loads(done.out.splitlines()[-1]) == written
    parts = {
        name: draem.evaluate(draem.load(trained / name / "model.safetensors", "cpu"), root / name) for name in NAMES
    }
    for name, part in parts.items():
        own = json.loads((out / name / "metrics.json").read_text())
        assert own["metrics"] == part.metrics.to_dict() == written["by_category"][name]
        assert [image["score"] for image in own["images"]] == [image.score for image in part.images]
        assert all(image["name"].startswith(f"{name}/test/") for image in own["images"])
        assert (out / name / "sheet.png").is_file()
    for key in METRIC_KEYS:
        assert written["mean"][key] == math.fsum(part.metrics.to_dict()[key] or 0 for part in parts.values()) / 2
    table = done.out.split("figures:")[0].splitlines()
    rows = [line for line in table if " all " in line or " mean " in line]
    assert [row.strip(" │").split()[0] for row in rows] == [*NAMES, "mean"]
    assert f"{written['mean']['image_auroc']:.4f}" in rows[-1]


def test_evaluate_some_of_a_run(root: Path, trained: Path, tmp_path: Path, run_cli: Run) -> None:
    moves: list[tuple[int, int]] = []
    found = draem.evaluate_all(
        trained, root, execution=draem.Execution(device="cpu"), progress=lambda done, total: moves.append((done, total))
    )
    count = len(read_layout(root, category="all").test)
    assert moves[-1] == (count, count)
    assert [done for done, _ in moves] == sorted({done for done, _ in moves})
    one = draem.evaluate_all(trained, root, category="woven", execution=draem.Execution(device="cpu"))
    assert list(one.evaluations) == ["woven"]
    assert one.mean == found.evaluations["woven"].metrics
    lacking = tmp_path / "run"
    shutil.copytree(trained / "woven", lacking / "woven")
    done = run_cli("evaluate", lacking, root, "--out", tmp_path / "x", "--device", "cpu")
    assert done.code == 1
    assert f"{lacking}: no model of printed (model.safetensors in a folder of that name; there are woven)" in done.err


def test_one_model_for_all_categories(root: Path, tiny_model: Path, tmp_path: Path, run_cli: Run) -> None:
    done = run_cli("evaluate", tiny_model, root, "--category", "all", "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert list(written["by_category"]) == NAMES
    for key in METRIC_KEYS:
        values = [written["by_category"][name][key] for name in NAMES]
        assert written["mean"][key] == pytest.approx(sum(values) / 2)
    assert any("mean" in line for line in done.out.splitlines())
    one = run_cli("evaluate", tiny_model, root, "--category", "woven", "--out", tmp_path / "one", "--json")
    assert list(json.loads(one.out.splitlines()[-1])["by_category"]) == ["woven"]


def test_simulate_on_one_category(root: Path, tmp_path: Path, run_cli: Run) -> None:
    size = ("--set", "data.size=32", "--count", 2)
    for name in NAMES:
        (both := tmp_path / f"{name}-root.png"), (own := tmp_path / f"{name}.png")
        assert run_cli("simulate", root, "--category", name, "--out", both, *size).code == 0
        assert run_cli("simulate", root / name, "--out", own, *size).code == 0
        np.testing.assert_array_equal(read_image(both), read_image(own))
    assert run_cli("simulate", root, "--category", "all", "--out", tmp_path / "all.png", *size).code == 0
    assert "add --category NAME" in run_cli("simulate", root, "--out", tmp_path / "x.png", *size).err


def test_a_mask_of_a_good_image_is_not_counted(tiny_detector: Detector, root: Path, tmp_path: Path) -> None:
    """Its label says that it is good; a mask that marks pixels of it is the data set's mistake, not the metrics'."""
    shutil.copytree(root / "woven", tmp_path / "woven")
    before = evaluate(tiny_detector, tmp_path / "woven")
    mask = next((tmp_path / "woven" / "ground_truth").rglob("*.png"))
    (tmp_path / "woven" / "ground_truth" / "good").mkdir()
    shutil.copy(mask, tmp_path / "woven" / "ground_truth" / "good" / "000_mask.png")
    (marked,) = [s for s in read_layout(tmp_path / "woven").test if s.label == "good" and s.truth]
    assert marked.truth is not None
    np.testing.assert_array_equal(marked.truth.read(), read_mask(mask))
    after = evaluate(tiny_detector, tmp_path / "woven")
    assert after.metrics == before.metrics
    assert after.unreadable == []
