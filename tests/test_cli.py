"""The command line: every verb on something small, and everything a person can get wrong in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import draem
from conftest import Outcome
from draem import cli, demo
from draem.config import Config, NetworkConfig
from draem.data.demo import render_demo
from draem.errors import ConfigError, DraemError
from draem.images import read_image, write_image
from draem.inspection.detector import Detector
from draem.modelfile import read_header
from draem.network.draem import Draem
from draem.preview import Preview
from tiny import lively_, write_tiny_model

Run = Callable[..., Outcome]
SMALL = [
    *("--set", "data.size=32", "--set", "network.reconstructive_width=2", "--set", "network.discriminative_width=2"),
    *("--set", "network.fold=1", "--set", "network.levels=3"),
    *("--set", "training.precision=fp32", "--set", "training.validations=1", "--set", "training.batch_size=4"),
]


def _last_line(outcome: Outcome) -> dict[str, Any]:
    found = json.loads(outcome.out.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def _one_line(outcome: Outcome, *says: str) -> None:
    assert outcome.code == 1
    assert outcome.out == ""
    said = [line for line in outcome.err.splitlines() if not line.startswith("no --preset: ")]
    assert len(said) == 1, outcome.err
    assert said[0].startswith("draem: ")
    assert "Traceback" not in outcome.err
    for part in says:
        assert part in outcome.err


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def _photo(path: Path, level: int = 100, size: tuple[int, int] = (40, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(level)
    write_image(path, rng.integers(level // 2, level + 1, (*size, 3), dtype=np.uint8))
    return path


# --------------------------------------------------------------------------------------------------------------- verbs


def test_version_and_help(run_cli: Run) -> None:
    assert run_cli("--version").out.strip() == f"draem {draem.__version__}"
    shown = run_cli("--help")
    assert shown.code == 0
    for verb in ("demo", "simulate", "train", "evaluate", "predict", "import-weights", "info"):
        assert verb in shown.out
        assert run_cli(verb, "--help").code == 0


def test_info(run_cli: Run, tiny_model: Path) -> None:
    plain = run_cli("info", tiny_model)
    assert plain.code == 0
    for text in ("widths 4/4", "64×64", "0.555", read_header(tiny_model).sha256):
        assert text in plain.out
    found = _last_line(run_cli("info", tiny_model, "--json"))
    assert found == json.loads(read_header(tiny_model).model_dump_json())


def test_evaluate(run_cli: Run, tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    done = run_cli("evaluate", tiny_model, woven_tree, "--out", tmp_path / "out", "--json", "--batch-size", 5)
    assert done.code == 0
    assert _last_line(done) == json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert "pixel aupro" in done.out
    assert f"picture: {tmp_path / 'out' / 'sheet.png'} (the first 4 images of each kind)\n" in done.out
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_evaluate_names_what_it_leaves_out(run_cli: Run, tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "woven"
    shutil.copytree(woven_tree, root)
    damaged = next((root / "test" / "good").iterdir())
    damaged.write_bytes(b"x")
    done = run_cli("evaluate", tiny_model, root, "--out", tmp_path / "out", "--json")
    assert done.code == 1, "as of predict: not all of it could be done"
    assert f"left out: {damaged}" in done.err
    assert _last_line(done)["unreadable"][0].startswith(str(damaged))


def test_evaluate_tells_what_a_shift_sees(run_cli: Run, tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    told = ("--parts-per-hour", 1200, "--shift-hours", 10, "--defect-rate", 0.05)
    done = run_cli("evaluate", tiny_model, woven_tree, "--out", tmp_path / "out", *told, "--json")
    assert done.code == 0
    assert "a shift of 12,000 parts, 5% of them anomalous: " in done.out
    found = _last_line(done)
    rejected = found["verdicts"]["good"]["reject"]["share"]
    assert found["per_shift"]["false_rejects"]["parts"] == pytest.approx(12_000 * 0.95 * rejected)
    assert found["line"] == {"parts_per_hour": 1200.0, "hours": 10.0, "defect_rate": 0.05}
    for wrong in (("--shift-hours", 10), ("--parts-per-hour", 0)):
        done = run_cli("evaluate", tiny_model, woven_tree, "--out", tmp_path / "no", *wrong)
        assert done.code == 1
        assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "no").exists()


def test_simulate(run_cli: Run, woven_tree: Path, tmp_path: Path) -> None:
    sheets: list[Any] = []
    for seed in (0, 0, 1):
        out = tmp_path / f"{len(sheets)}.png"
        done = run_cli("simulate", woven_tree, "--out", out, "--count", 3, "--seed", seed, "--set", "data.size=64")
        written = [out, *(tmp_path / f"{out.stem}-{part}.png" for part in ("components", "statistics"))]
        assert (done.code, done.out) == (0, "".join(f"picture: {path}\n" for path in written))
        assert set(tmp_path.glob(f"{out.stem}*")) == set(written)
        sheets.append(read_image(out))
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert not np.array_equal(sheets[0], sheets[2])


def test_simulate_names_what_it_leaves_out(run_cli: Run, woven_tree: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    shutil.copytree(woven_tree / "train" / "good", good)
    whole = (good / "003.png").read_bytes()
    (good / "003.png").write_bytes(whole[: len(whole) // 2])
    done = run_cli("simulate", good, "--out", tmp_path / "x.png", "--count", 8, "--set", "data.size=64")
    assert done.code == 0
    assert "left out:" in done.err
    assert "003.png" in done.err


def test_train_says_which_preset_it_took(run_cli: Run, tmp_path: Path) -> None:
    done = run_cli("train", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert done.code == 1
    assert "no --preset: " in done.err
    assert "accelerator" in done.err


def test_evaluate_reads_the_layout_it_is_told(run_cli: Run, tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(woven_tree / "train" / "good", data / "defects seen in May")
    assert run_cli("evaluate", tiny_model, data, "--out", tmp_path / "e", "--layout", "folder").code == 0
    for layout, says in (("visual", "data.layout"), ("visa", "is not VisA")):
        _one_line(run_cli("evaluate", tiny_model, data, "--out", tmp_path / "e", "--layout", layout), says)


def test_simulate_takes_the_preset_of_its_file(
    run_cli: Run, woven_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Config] = []

    def preview(data: Path, out: Path, config: Config, *rest: object) -> Preview:
        seen.append(config)
        return Preview([out], [], None, None)

    monkeypatch.setattr("draem.preview.write_preview", preview)
    (tmp_path / "c.yaml").write_text("preset: official\n", encoding="utf-8")
    for more in (["--config", tmp_path / "c.yaml"], [], ["--preset", "edge"]):
        assert run_cli("simulate", woven_tree, "--out", tmp_path / "x.png", *more).code == 0
    assert [config.preset for config in seen] == ["official", "fast", "edge"]


def test_train_then_inspect(run_cli: Run, woven_tree: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ["train", woven_tree, "--out", run, "--preset", "edge", "--images", 8, "--seed", 3, *SMALL]
    done = run_cli(*command, "--json")
    assert done.code == 0, done.err
    found = _last_line(done)
    header = read_header(run / "model.safetensors")
    assert found["model"] == str(run / "model.safetensors")
    assert found["training"]["images_seen"] == 8
    assert header.config.training.seed == 3
    assert Config.resolve("", run / "config.yaml") == header.config
    assert header.thresholds is not None
    _one_line(run_cli(*command), "--resume")
    predicted = run_cli("predict", run / "model.safetensors", woven_tree / "test", "--out", tmp_path / "out", "--json")
    assert predicted.code == 0
    assert _last_line(predicted)["images"] == len(_rows(tmp_path / "out"))


def test_import_weights(run_cli: Run, tmp_path: Path) -> None:
    network = Draem(NetworkConfig(reconstructive_width=2, discriminative_width=3, aligned_corners=True))
    lively_(network)
    first, second, out = tmp_path / "a.pckl", tmp_path / "a_seg.pckl", tmp_path / "runs" / "model.safetensors"
    other = tmp_path / "other.safetensors"
    torch.save(network.reconstructive.state_dict(), first)
    torch.save(network.discriminative.state_dict(), second)
    done = run_cli("import-weights", first, second, "--out", out)
    assert done.code == 0
    assert "2/3" in done.out
    assert read_header(out).origin == "imported from a.pckl and a_seg.pckl"
    assert run_cli("predict", out, _photo(tmp_path / "x.png"), "--out", tmp_path / "out").code == 0
    _one_line(run_cli("import-weights", second, first, "--out", other), "NAME.pckl first")
    _one_line(run_cli("import-weights", first, tmp_path / "none", "--out", other), "cannot be read")
    _one_line(run_cli("import-weights", first, second, "--out", "."), "ends in .safetensors")
    _one_line(run_cli("import-weights", first, second, "--out", out), "exists already")
    _one_line(run_cli("import-weights", first, second, "--out", first / "x.safetensors"), "cannot be written")


def test_demo(run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(out: Path, seed: int) -> list[Path]:
        return render_demo(out, "printed", size=64, train=5, test_good=2, test_defect=1, seed=seed)

    small = {"data.size": 32, "training.batch_size": 4, "training.precision": "fp32"}
    small |= {
        "network.fold": 1,
        "network.levels": 3,
        "network.reconstructive_width": 2,
        "network.discriminative_width": 2,
        "training.validations": 1,
    }
    monkeypatch.setattr(demo, "render_demo", render)
    monkeypatch.setattr(demo, "SETTINGS", demo.SETTINGS | small)
    monkeypatch.setattr(demo, "SURFACES", ("printed",))
    monkeypatch.setattr(demo, "IMAGES", {"printed": 8})
    done = run_cli("demo", "--out", tmp_path / "demo", "--json")
    assert done.code == 0, done.err
    found = _last_line(done)
    assert set(found) == {"mean", "surfaces", "pictures"}
    assert set(found["surfaces"]) == {"printed"}
    assert all(Path(path).is_file() for path in found["pictures"])
    trained = (tmp_path / "demo" / "runs" / "printed" / "model.safetensors").read_bytes()
    again = _last_line(run_cli("demo", "--out", tmp_path / "demo", "--json"))
    assert again == found
    assert (tmp_path / "demo" / "runs" / "printed" / "model.safetensors").read_bytes() == trained


# ------------------------------------------------------------------------------------------------------------- predict


def test_predict_one_image(run_cli: Run, tiny_model: Path, tiny_detector: Detector, tmp_path: Path) -> None:
    path = _photo(tmp_path / "part.png", size=(90, 70))
    done = run_cli("predict", tiny_model, path, "--out", tmp_path / "out", "--json")
    assert done.code == 0
    assert "1/1" in done.err
    (row,) = _rows(tmp_path / "out")
    expected = tiny_detector.predict(path)
    assert row["path"] == str(path)
    assert row["score"] == pytest.approx(expected.score, abs=1e-6)
    assert row["verdict"] == expected.verdict
    assert row["threshold"] == 0.555
    assert row["milliseconds"] > 0
    assert [tuple(region["box"]) for region in row["regions"]] == [region.box for region in expected.regions]
    for told, region in zip(row["regions"], expected.regions, strict=True):
        assert told == region.to_dict() | {"peak": told["peak"], "mean": told["mean"]}
        assert (told["peak"], told["mean"]) == pytest.approx((region.peak, region.mean))
    pixels = cv2.imread(row["anomaly_map"], cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert pixels.dtype == np.uint16
    assert pixels.shape == (90, 70)
    assert np.abs(pixels / 65535.0 - expected.anomaly_map).max() <= 1 / 65535
    np.testing.assert_allclose(read_image(Path(row["overlay"])), expected.overlay(), atol=1)
    summary = _last_line(done)
    assert summary["images"] == 1
    assert summary["verdicts"] == {expected.verdict: 1}
    assert summary["results"] == str(tmp_path / "out" / "results.jsonl")


def test_predict_a_folder_with_a_corrupt_file(run_cli: Run, tiny_model: Path, tmp_path: Path) -> None:
    names = ["a.png", "deep/b.jpg", "deep/er/c.bmp", "d.webp"]
    for index, name in enumerate(names):
        _photo(tmp_path / "parts" / name, 60 + 40 * index)
    (tmp_path / "parts" / "deep" / "bad.png").write_bytes(b"x")
    (tmp_path / "parts" / "notes.txt").write_text("x", encoding="utf-8")
    _photo(tmp_path / "parts" / ".hidden.png")
    done = run_cli("predict", tiny_model, tmp_path / "parts", "--out", tmp_path / "out", "--json", "--batch-size", 2)
    assert done.code == 1
    assert f"left out: {tmp_path / 'parts' / 'deep' / 'bad.png'}" in done.err
    rows = _rows(tmp_path / "out")
    assert [Path(row["path"]).name for row in rows] == ["a.png", "d.webp", "b.jpg", "bad.png", "c.bmp"]
    assert set(rows[3]) == {"path", "error"}
    assert all(Path(row["overlay"]).is_file() and Path(row["anomaly_map"]).is_file() for row in rows if "score" in row)
    assert _last_line(done)["images"] == 4
    assert len(_last_line(done)["unreadable"]) == 1
    assert not list(tmp_path.rglob(".*-*")), "nothing half written is left behind"


def test_predict_nothing_but_corrupt_files(run_cli: Run, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"x")
    done = run_cli("predict", tiny_model, tmp_path / "bad.png", "--out", tmp_path / "out", "--json")
    assert done.code == 1
    assert _last_line(done)["images"] == 0
    assert [set(row) for row in _rows(tmp_path / "out")] == [{"path", "error"}]


def test_predict_globs_and_each_file_once(
    run_cli: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x/1.png", "x/2.png", "y/1.png", "y/z/3.png", "x/[4].png"):
        _photo(tmp_path / name)
    monkeypatch.chdir(tmp_path)

    def found(*patterns: str) -> list[str]:
        assert run_cli("predict", tiny_model, *patterns, "--out", "out").code == 0
        return [row["path"] for row in _rows(Path("out"))]

    assert found("x/*.png") == ["x/1.png", "x/2.png", "x/[4].png"]
    assert found("*/1.png") == ["x/1.png", "y/1.png"]
    assert found("y/**/*.png") == ["y/1.png", "y/z/3.png"]
    assert found("[xy]") == ["x/1.png", "x/2.png", "x/[4].png", "y/1.png", "y/z/3.png"]
    assert found("x/[4].png") == ["x/[4].png"], "a name before a pattern"
    assert found("x/1.png", str(tmp_path / "x" / "1.png"), "x", "./x/../x/2.png") == ["x/1.png", "x/2.png", "x/[4].png"]


@pytest.mark.parametrize(
    "names",
    [
        ["line1/part.png", "line2/part.png"],
        ["part.png", "part.jpg"],
        ["part.png", "part.jpg", "part-png.bmp"],
        ["part.png", "part.jpg", "part.png.bmp"],
        ["Part.png", "part.jpg"],
        ["a/b/part.png", "a/part.png", "part.png"],
        ["overlays/part.png", "maps/part.png"],
    ],
)
def test_no_picture_is_written_over_another(
    run_cli: Run, tiny_model: Path, tiny_detector: Detector, tmp_path: Path, names: list[str]
) -> None:
    paths = [_photo(tmp_path / "in" / name, 40 + 50 * index) for index, name in enumerate(names)]
    assert run_cli("predict", tiny_model, *paths, "--out", tmp_path / "out").code == 0
    rows = _rows(tmp_path / "out")
    for kind in ("overlay", "anomaly_map"):
        written = {Path(row[kind]).resolve() for row in rows}
        assert len({str(path).casefold() for path in written}) == len(names)
        assert all(path.is_relative_to(tmp_path / "out") for path in written)
    for row, path in zip(rows, paths, strict=True):
        pixels = cv2.imread(row["anomaly_map"], cv2.IMREAD_UNCHANGED)
        assert pixels is not None
        assert np.abs(pixels / 65535.0 - tiny_detector.predict(path).anomaly_map).max() < 1e-4


def test_files_above_the_working_folder_stay_inside_out(
    run_cli: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _photo(tmp_path / "a.png")
    _photo(tmp_path / "work" / "b.png")
    monkeypatch.chdir(tmp_path / "work")
    assert run_cli("predict", tiny_model, "../a.png", "b.png", "--out", "out").code == 0
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")} - {"a.png", "work/b.png"}
    assert written == {f"work/out/{kind}/{name}.png" for kind in ("overlays", "maps") for name in ("a", "work/b")}


def test_predicting_twice_does_not_inspect_the_pictures(run_cli: Run, tiny_model: Path, tmp_path: Path) -> None:
    photo = _photo(tmp_path / "parts" / "a.png")
    before = photo.read_bytes()
    for _ in range(2):
        assert run_cli("predict", tiny_model, tmp_path / "parts", "--out", tmp_path / "parts").code == 0
        assert [row["path"] for row in _rows(tmp_path / "parts")] == [str(photo)]
    # Written to `overlays`, the pictures would take the place of what was inspected.
    _one_line(run_cli("predict", tiny_model, tmp_path / "parts" / "overlays", "--out", tmp_path / "parts"))
    assert photo.read_bytes() == before


# --------------------------------------------------------------------------------------------------------------- wrong


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("info NONE", "no such file"),
        ("info TREE", "is a folder"),
        ("info PHOTO", "not a model file"),
        ("predict NONE.safetensors PHOTO --out OUT", "no such file"),
        ("predict PHOTO PHOTO --out OUT", "import-weights"),
        ("predict MODEL NONE --out OUT", "no such image"),
        ("predict MODEL NONE*.png --out OUT", "no such image"),
        ("predict MODEL EMPTY --out OUT", "no images in it"),
        ("predict MODEL PHOTO --out FILE", "--out is a folder"),
        ("predict MODEL PHOTO --out FILE/out", "FILE/out"),
        ("predict MODEL PHOTO --out OUT --device gpu", "--device gpu"),
        ("predict MODEL LONG --out OUT", "File name too long"),
        ("predict LONG.safetensors PHOTO --out OUT", "no such file"),
        ("predict MODEL PHOTO --out LONG", "File name too long"),
        ("evaluate NONE TREE --out OUT", "no such file"),
        ("evaluate MODEL NONE --out OUT", "no such folder"),
        ("evaluate MODEL PHOTO --out OUT", "is a file"),
        ("evaluate MODEL EMPTY --out OUT", "no images"),
        ("evaluate MODEL PARENT --out OUT", "add --category NAME, such as --category woven, or --category all"),
        ("evaluate MODEL LONG --out OUT", "File name too long"),
        ("evaluate MODEL TREE --out FILE", "--out is a folder"),
        ("evaluate MODEL TREE --out OUT --device tpu", "--device tpu"),
        ("simulate NONE --out OUT/x.png", "no such folder"),
        ("simulate TREE --out OUT/x.txt", "cannot write .txt"),
        ("simulate TREE --out OUT", "without suffix"),
        ("simulate TREE --out FILE/x.png", "cannot be written"),
        ("simulate TREE --out OUT/x.png --preset fats", "'fats'"),
        ("simulate TREE --out OUT/x.png --config NONE", "cannot be read"),
        ("simulate TREE --out OUT/x.png --set data.size", "key=value"),
        ("simulate TREE --out OUT/x.png --set data.sise=32", "did you mean data.size?"),
        ("simulate TREE --out OUT/x.png --set data.size=2001-99-99", "is not a value"),
        ("simulate TREE --out OUT/x.png --set data.size=7", "data.size"),
        ("simulate TREE --out OUT/x.png --set simulation.textures=EMPTY", "EMPTY"),
        ("train NONE --out OUT --preset edge", "no such folder"),
        ("train PARENT --out OUT --preset edge", "add --category NAME, such as --category woven, or --category all"),
        ("train TREE --out FILE --preset edge", "is a file"),
        ("train TREE --out OUT --preset fats", "'fats'"),
        ("train TREE --out OUT --images 3 --epochs 2", "not both"),
        ("train TREE --out OUT --preset edge --epochs nan", "training.epochs"),
        ("train TREE --out OUT --preset edge --checkpoint-every inf", "training.checkpoint_every"),
        ("train TREE --out OUT --preset edge --init NONE", "NONE"),
        ("train TREE --out OUT --preset edge --init MODEL", "network"),
        ("train TREE --out OUT --preset edge --set training.precision=fp16 --set training.accelerator=cpu", "fp16"),
    ],
)
def test_mistakes_are_one_line(
    run_cli: Run, tiny_model: Path, woven_tree: Path, tmp_path: Path, arguments: str, says: str
) -> None:
    (tmp_path / "FILE").write_bytes(b"mine")
    (tmp_path / "EMPTY").mkdir()
    places = {
        "MODEL": tiny_model,
        "TREE": woven_tree,
        "PARENT": woven_tree.parent,
        "PHOTO": _photo(tmp_path / "photo.png"),
        "LONG": "x" * 300,
    }
    words = []
    for word in arguments.split():
        for name in ("NONE", "EMPTY", "FILE", "OUT"):
            word = word.replace(name, str(tmp_path / name)) if name in word else word
        for name, place in places.items():
            word = word.replace(name, str(place)) if word.startswith(name) else word
        words.append(word)
    outcome = run_cli(*words)
    said = [line for line in outcome.err.splitlines() if line.startswith("draem: ")]
    if arguments.startswith("train"):  # says first what it is about to do
        outcome = outcome._replace(err="\n".join(said))
    _one_line(outcome, says)
    assert (tmp_path / "FILE").read_bytes() == b"mine"
    assert not list((tmp_path / "OUT").rglob("*.safetensors"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["predict"],
        ["predict", "m.safetensors"],
        ["predict", "m.safetensors", "x.png"],
        ["evaluate", "m.safetensors", "data", "--out"],
        ["predict", "m.safetensors", "x.png", "--out", "o", "--batch-size", "0"],
        ["simulate", "data", "--out", "x.png", "--count", "many"],
        ["train", "data", "--out", "run", "--images", "-3"],
        ["info", "m.safetensors", "--jsonn"],
    ],
)
def test_usage_errors_are_2(run_cli: Run, arguments: list[str]) -> None:
    outcome = run_cli(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err
    assert "Traceback" not in outcome.err


def test_an_error_of_several_lines_becomes_one(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise DraemError("first\n  second\tthird")

    monkeypatch.setattr(cli, "app", fail)
    assert run_cli("info").err == "draem: first second third\n"


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied", "/somewhere"), OSError(28, "No space left on device"), OSError("x")],
)
def test_the_systems_errors_are_one_line(run_cli: Run, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    _one_line(run_cli("info"), str(error.filename or ""), error.strerror or "x")


def test_a_bug_is_not_hidden(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_a_missing_package_names_its_extra(
    run_cli: Run, tiny_model: Path, woven_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == "torch" or name in ("draem.network.weights", "draem.preview", "draem.training.run"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    for arguments in (
        ["predict", tiny_model, woven_tree / "test", "--out", tmp_path / "out"],
        ["simulate", woven_tree, "--out", tmp_path / "x.png"],
        ["train", woven_tree, "--out", tmp_path / "run", "--preset", "edge"],
        ["import-weights", tiny_model, tiny_model, "--out", tmp_path / "m.safetensors"],
    ):
        _one_line(run_cli(*arguments), "torch is not installed", "pip install 'draem[train]'")
    assert run_cli("info", tiny_model).code == 0


def test_a_reader_that_goes_away(tiny_model: Path) -> None:
    code = "import sys; from draem.cli import main; sys.stdin.read(); main()"
    running = subprocess.Popen(
        [sys.executable, "-c", code, "info", str(tiny_model), "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdin is not None
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    running.stdin.close()
    said = running.stderr.read().decode()
    running.stderr.close()
    assert running.wait(30) == 1
    assert said == ""


def test_a_model_without_threshold_has_no_verdicts(run_cli: Run, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors")
    done = run_cli("predict", model, _photo(tmp_path / "a.png"), "--out", tmp_path / "out", "--json")
    assert _last_line(done)["verdicts"] == {"without verdict": 1}
    (row,) = _rows(tmp_path / "out")
    assert (row["verdict"], row["threshold"], row["regions"]) == (None, None, [])
    assert "none" in run_cli("info", model).out


def test_python_says_the_same_as_the_command_line(tmp_path: Path, woven_tree: Path) -> None:
    with pytest.raises(ConfigError, match="'fats'"):
        draem.train(woven_tree, tmp_path / "run", preset="fats")
    assert not (tmp_path / "run").exists()


def test_predict_follows_links_as_training_does(tiny_model: Path, tmp_path: Path, run_cli: Run) -> None:
    """A linked folder is looked into, a circle ends, and a link to nowhere is named."""
    for name in ("in/a.png", "elsewhere/b.png"):
        write_image(tmp_path / name, np.full((32, 32, 3), 90, np.uint8))
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "c.png").symlink_to("nowhere")
    done = run_cli("predict", tiny_model, tmp_path / "in", "--out", tmp_path / "out")
    assert done.code == 1
    assert "2 images" in done.out
    assert f"left out: {tmp_path / 'in' / 'c.png'}: no such file" in done.err
