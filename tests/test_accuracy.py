"""The bench for recipes: stopped and gone on with it is as unbroken; what is wrong is told before any training."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import accuracy
import distill
import pytest
import torch
from recipes import Recipe, Run, read_recipes, size_of
from recipes import accuracy as accuracy_of
from safetensors.torch import load_file
from torch import nn

from draem.config import Config
from draem.data.layouts import read_layout
from draem.data.samples import fingerprint
from draem.errors import ConfigError, DataError
from draem.evaluation.evaluate import Evaluation, ImageResult
from draem.evaluation.metrics import Metrics
from draem.inspection.detector import Detector
from draem.network.draem import Draem

SETTINGS: dict[str, Any] = {
    "data.size": 32,
    "network.reconstructive_width": 4,
    "network.fold": 1,
    "network.levels": 3,
    "network.discriminative_width": 4,
    "training.batch_size": 4,
    "training.images": 120,
    "training.validations": 1,
    "training.precision": "fp32",
    "training.accelerator": "cpu",
    "training.checkpoint_every": 0,
    "score.filter_size": 3,
}
TINY = Recipe("tiny", "edge", SETTINGS)


def write_recipes(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def run_of(out: Path, recipe: Recipe = TINY, data: str = "woven", seed: int = 1) -> Run:
    return Run(recipe, Path(data), seed, out)


# ------------------------------------------------------------------------------------------------------------ the runs


def test_stopped_and_gone_on_with_equals_unbroken(
    woven_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C in the middle of a training, then the same command again; beside the run in one piece."""
    file = write_recipes(tmp_path / "recipes.yaml", json.dumps({"recipes": {"tiny": asdict_of(TINY)}}))
    options = [str(file), "--data", str(woven_tree), "--seeds", "1", "--out", str(tmp_path / "out")]
    options += ["--jobs", str(len(os.sched_getaffinity(0))), "--result", str(tmp_path / "table.json")]
    run = run_of(tmp_path / "out", data=str(woven_tree))
    command = [sys.executable, accuracy.__file__, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (run.folder / "checkpoint.safetensors").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert re.search(r"stopped at step \d+ of 30", run.log.read_text()), run.log.read_text()
    assert not run.result.exists()

    accuracy.main(options)
    assert "resumed at step" in run.log.read_text()
    whole = run_of(tmp_path / "whole", data=str(woven_tree))
    expected, found = whole.carry_out(threads=1), json.loads(run.result.read_text())
    varies = {"seconds", "jobs"}
    assert {k: v for k, v in found.items() if k not in varies} == {k: v for k, v in expected.items() if k not in varies}
    ours, theirs = (load_file(one.folder / "model.safetensors") for one in (run, whole))
    assert not [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert (run.folder / "evaluation" / "sheet.png").exists()

    before = run.result.read_bytes()
    capsys.readouterr()
    accuracy.main(options)
    assert "1 of 1 runs are finished" in capsys.readouterr().err
    assert run.result.read_bytes() == before
    assert json.loads((tmp_path / "table.json").read_text())["runs"] == [found]


def asdict_of(recipe: Recipe) -> dict[str, Any]:
    return {"preset": recipe.preset, "settings": recipe.settings}


def test_plan_has_every_recipe_once_before_any_twice(tmp_path: Path) -> None:
    others = [TINY, Recipe("other", "edge", {})]
    runs = accuracy.plan(others, [Path("woven"), Path("printed")], [3, 1], tmp_path)
    assert [run.seed for run in runs] == [3] * 4 + [1] * 4
    assert [run.name for run in runs[:4]] == [
        f"{s}/{r}/seed-3" for s in ("woven", "printed") for r in ("tiny", "other")
    ]
    with pytest.raises(ConfigError, match="two sets are called woven"):
        accuracy.plan(others, [Path("a/woven"), Path("b/woven")], [1], tmp_path)


def test_what_cannot_be_evaluated_is_told_before_any_training(
    woven_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(woven_tree / "train", tmp_path / "untested" / "train")
    file = write_recipes(tmp_path / "recipes.yaml", "recipes: {tiny: {preset: edge}}")
    monkeypatch.setattr(accuracy, "_start", None)
    shutil.copytree(woven_tree / "train" / "good", tmp_path / "good")
    for data, says in (
        (tmp_path / "untested", "has no test images"),
        (tmp_path / "none", "none"),
        (tmp_path / "good", "has no anomalous images to test with"),
    ):
        with pytest.raises(SystemExit, match=f"^accuracy: .*{says}"):
            accuracy.main([str(file), "--data", str(woven_tree), str(data), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--plot", "plot.xyz"], "plot.xyz: a picture is written as .png"),
        (["--latency", "none.json", "--plot", "plot.png"], "none.json"),
        (["--latency", "words.json", "--plot", "plot.png"], "a: milliseconds are a number above 0, not '12ms'"),
        (["--latency", "numbers.json"], "--latency is drawn by --plot"),
        (["--minutes", "nan"], "minutes above 0 are needed"),
        (["--minutes", "-5"], "minutes above 0 are needed"),
    ],
)
def test_what_cannot_be_written_is_told_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(accuracy, "carry_out", None)
    Path("words.json").write_text('{"a": "12ms"}')
    Path("numbers.json").write_text('{"a": 12.5}')
    write_recipes(tmp_path / "recipes.yaml", "recipes: {tiny: {preset: edge}}")
    with pytest.raises(SystemExit):
        accuracy.main(["recipes.yaml", "--data", "woven", *options])
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_a_surface_is_rendered_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_off(out: Path, name: str) -> list[Path]:
        (out / name / "train").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(distill, "render_demo", broken_off)
    with pytest.raises(KeyboardInterrupt):
        distill.find_set("woven", tmp_path)
    assert list((tmp_path / "data").iterdir()) == []

    def overtaken(out: Path, name: str) -> list[Path]:
        for folder in (out / name, tmp_path / "data" / name):
            folder.mkdir()
            (folder / "image").touch()
        return [out / name]

    monkeypatch.setattr(distill, "render_demo", overtaken)
    assert distill.find_set("woven", tmp_path) == tmp_path / "data" / "woven"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["woven"]


WRITES = "import sys, time; time.sleep(0.1); open(sys.argv[1], 'w').write(sys.argv[2])"
FAILS = "import sys; print('draem: out of luck'); sys.exit(1)"
SLEEPS = "import time; time.sleep(60)"
FIGURES = json.dumps(
    {
        "set": "woven",
        "recipe": "tiny",
        "seed": 1,
        "data_fingerprint": "ab",
        "validation": {},
        "metrics": {"pixel_ap": 0.5, "image_auroc": None},
        "images_seen": 8,
        "training_flop": 1,
        "seconds": 60,
    }
)


def fake(code: dict[int, str], begun: list[tuple[str, subprocess.Popen[bytes]]], most: list[int]) -> Any:
    """In place of a training, a small program by seed."""

    def start(run: Run, jobs: int) -> subprocess.Popen[bytes]:
        run.folder.mkdir(parents=True)
        with run.log.open("ab") as log:
            command = [sys.executable, "-c", code[run.seed], str(run.result), FIGURES]
            begun.append((run.name, subprocess.Popen(command, stdout=log, stderr=log)))
        most.append(sum(process.poll() is None for _, process in begun))
        return begun[-1][1]

    return start


def test_jobs_failures_and_the_end_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[tuple[str, subprocess.Popen[bytes]]] = []
    most: list[int] = []
    monkeypatch.setattr(accuracy, "_LOOK", 0.01)
    monkeypatch.setattr(accuracy, "_start", fake({1: WRITES, 2: FAILS, 3: WRITES, 4: SLEEPS, 5: WRITES}, begun, most))
    runs = [run_of(tmp_path, seed=seed) for seed in (1, 2, 3)]
    assert accuracy.carry_out(runs, jobs=2) == ["woven/tiny/seed-2"]
    assert [name for name, _ in begun] == [run.name for run in runs]
    assert max(most) == 2
    said = capsys.readouterr().err
    assert "woven/tiny/seed-1: pixel ap 0.500, image auroc –, 1.0 min" in said
    assert "woven/tiny/seed-2: failed: draem: out of luck" in said

    late = [*runs[::2], run_of(tmp_path, seed=4), run_of(tmp_path, seed=5)]
    assert accuracy.carry_out(late, jobs=1, minutes=0.3 / 60) == []
    assert [name for name, _ in begun[3:]] == ["woven/tiny/seed-4"]
    assert begun[3][1].returncode == -signal.SIGTERM


@pytest.mark.parametrize(("code", "says"), [(FAILS, "accuracy: failed: woven/tiny/seed-1"), (SLEEPS, None)])
def test_the_end_is_told_where_nothing_is_finished(
    woven_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str | None
) -> None:
    """What failed is named; to be stopped by --minutes is no error."""
    monkeypatch.setattr(accuracy, "_LOOK", 0.01)
    monkeypatch.setattr(accuracy, "_start", fake({1: code}, [], []))
    file = write_recipes(tmp_path / "recipes.yaml", json.dumps({"recipes": {"tiny": asdict_of(TINY)}}))
    data = shutil.copytree(woven_tree, tmp_path / "woven")
    options = [str(file), "--data", str(data), "--seeds", "1", "--out", str(tmp_path / "out")]
    options += ["--minutes", "0.005" if says is None else "1"]
    if says is None:
        accuracy.main(options)
    else:
        with pytest.raises(SystemExit, match=f"^{says}$"):
            accuracy.main(options)


def test_a_run_that_another_process_is_at_is_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path)
    run.log.parent.mkdir(parents=True)
    with run.log.open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert accuracy.carry_out([run], jobs=1) == []
    assert "another process is at it" in capsys.readouterr().err
    assert not run.folder.exists()


# --------------------------------------------------------------------------------------------------------- the recipes


@pytest.mark.parametrize(
    ("preset", "settings", "says"),
    [
        ("edge", {**SETTINGS, "training.images": 244}, "training.images is 244, the run in .* has 120"),
        ("edge", {k: v for k, v in SETTINGS.items() if k != "score.filter_size"}, "score.filter_size is 7"),
        ("fast", SETTINGS, "training.learning_rate is 0.001, the run in .* has 0.002"),
    ],
)
def test_a_changed_recipe_is_refused(tmp_path: Path, preset: str, settings: dict[str, Any], says: str) -> None:
    """A value changed, a setting left away, another preset; not what the run itself found or how it reports."""
    run = run_of(tmp_path)
    found = {"training.threads": 3, "data.channels": 3, "data.depth": 8}
    run.folder.mkdir(parents=True)
    begun = TINY.config(1).override(None, found)
    (run.folder / "config.yaml").write_text(begun.to_yaml(), encoding="utf-8")
    run.refuse_changed()
    changed = run_of(tmp_path, Recipe("tiny", preset, settings))
    with pytest.raises(ConfigError, match=f"^recipe tiny has changed: {says}.*; give the recipe another name$"):
        changed.refuse_changed()


def test_other_images_under_a_known_name_are_refused(woven_tree: Path, tmp_path: Path) -> None:
    other = shutil.copytree(woven_tree, tmp_path / "other" / woven_tree.name)
    run = run_of(tmp_path / "out", data=str(woven_tree))
    run.folder.mkdir(parents=True)
    seen = fingerprint(read_layout(woven_tree).samples)
    run.result.write_text(json.dumps({**json.loads(FIGURES), "data_fingerprint": seen}), encoding="utf-8")
    for data in (woven_tree, other):
        assert accuracy.plan([TINY], [data], [1], tmp_path / "out")
    next((other / "train").rglob("*.png")).unlink()
    with pytest.raises(DataError, match=r"its images are not those that the run in .*seed-1 saw; use another --out"):
        accuracy.plan([TINY], [other], [1], tmp_path / "out")


def test_recipes_lay_their_settings_over_the_common_ones(tmp_path: Path) -> None:
    file = write_recipes(
        tmp_path / "r.yaml",
        "common: {data.size: 64, training.batch_size: 4}\n"
        "recipes:\n"
        "  base: {preset: fast}\n"
        "  rate-a: {preset: fast, settings: {training.learning_rate: 3e-4, training.batch_size: 2}}\n"
        "  rate-b: {preset: official, settings: {training.images: 80}}\n",
    )
    given = {recipe.name: recipe.config(7) for recipe in read_recipes(file)}
    assert list(given) == ["base", "rate-a", "rate-b"]
    assert given["base"] == Config.resolve(
        "fast", None, {"data.size": 64, "training.batch_size": 4, "training.seed": 7}
    )
    assert (given["rate-a"].training.batch_size, given["rate-a"].training.learning_rate) == (2, 3e-4)
    assert (given["rate-b"].training.images, given["rate-b"].training.epochs) == (80, None)
    assert [recipe.name for recipe in read_recipes(file, ["rate-*"])] == ["rate-a", "rate-b"]
    with pytest.raises(ConfigError, match="no recipe speed; there are: base, rate-a, rate-b"):
        read_recipes(file, ["speed"])


@pytest.mark.parametrize("preset", ["edge", "fast"])
def test_a_yardstick_has_the_preset_s_network_and_images(preset: str) -> None:
    known = {
        recipe.name: recipe.config(1) for recipe in read_recipes(Path(accuracy.__file__).with_name("presets.yaml"))
    }
    ours, yardstick = known[preset], known[f"official-{preset}"]
    assert yardstick.preset == "official"
    assert ours.differences(yardstick), "another recipe"
    assert ours.training.images == yardstick.training.images
    assert yardstick.network == ours.network.model_copy(update={"aligned_corners": True})


def test_sections_and_dotted_keys_mean_the_same(tmp_path: Path) -> None:
    """A section of a recipe changes what it names of the common one, and leaves the rest."""
    file = write_recipes(
        tmp_path / "r.yaml",
        "common: {training: {images: 80, batch_size: 4}, data.size: 64}\n"
        "recipes:\n"
        "  a: {preset: fast, settings: {training: {learning_rate: 3e-4}, data: {fit: letterbox}}}\n"
        "  b: {preset: fast, settings: {training.learning_rate: 3e-4, data.fit: letterbox}}\n",
    )
    a, b = (recipe.config(7) for recipe in read_recipes(file))
    assert a == b
    assert (a.training.images, a.training.batch_size, a.data.size, a.data.fit) == (80, 4, (64, 64), "letterbox")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("recipes: {a: {preset: fast, setings: {}}}", "recipe a: setings is not known here; known: preset, settings"),
        ("recipes: {a: {preset: quick}}", "recipe a: preset 'quick' is unknown"),
        ("recipes: {a: {preset: fast, settings: {training.rate: 1}}}", "recipe a: .*training.rate is not a setting"),
        ("recipes: {a: {preset: fast, settings: {training.seed: 1}}}", "training.seed is what --seeds gives"),
        ("recipes: {a: {preset: fast, settings: {training: {seed: 1}}}}", "training.seed is what --seeds gives"),
        ("recipes: {a: {preset: fast, settings: {1: 2}}}", "recipe a: .*1 is not a setting"),
        ("recipes: {a/b: {preset: fast}}", "recipe a/b: is a folder's name too"),
        ("recipes: [a]", "recipes: a mapping is expected"),
        ("common: {data.size: 64}", "no recipe"),
    ],
)
def test_a_wrong_recipe_is_told_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        read_recipes(write_recipes(tmp_path / "r.yaml", text))
    assert "\n" not in str(error.value)


def test_flop_are_those_of_the_convolutions() -> None:
    config = TINY.config(0)
    network, counted = Draem(config.network, 1).eval(), [0]

    def count(layer: nn.Module, given: Any, out: torch.Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        counted[0] += 2 * layer.weight.numel() * out.shape[-2] * out.shape[-1]

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(1, 1, *config.data.size))
    assert size_of(config, 1) == (counted[0], sum(parameter.numel() for parameter in network.parameters()))
    flop, parameters = size_of(Config.resolve("official"), 3)
    assert (round(flop / 1e9), round(parameters / 1e6)) == (396, 97)


def test_recall_is_the_share_that_is_rejected(tiny_detector: Detector) -> None:
    def image(defect: str, verdict: Any) -> ImageResult:
        return ImageResult("name", "woven", "good" if defect == "good" else "anomalous", defect, 0.5, verdict, None)

    images = [image("hole", verdict) for verdict in ("reject", "accept", "review", "reject", "reject")]
    images += [image("good", "reject"), image("good", "accept"), image("good", "accept"), image("good", "accept")]
    parts = {("woven", "hole"): Metrics(pixel_ap=0.25)}
    found = Evaluation(Metrics(), {}, parts, images, [], 0, (64, 64), None)
    header = tiny_detector.header.model_copy(update=trained_header())
    figures = accuracy_of(found, Detector(tiny_detector.backend, header))
    assert figures["false_rejects"] == 0.25
    (defect,) = figures["defects"]
    assert (defect["defect"], defect["images"], defect["recall"], defect["pixel_ap"]) == ("hole", 5, 0.6, 0.25)


def trained_header() -> dict[str, Any]:
    from draem.modelfile import DataRecord, TrainingRecord

    data = DataRecord(name="woven", fingerprint="ab", train=8, select=1, calibrate=1)
    seen = TrainingRecord(images_seen=8, steps=2, step_kept=2, seconds=1.0, device="cpu", precision="fp32")
    return {"data": data, "training": seen}
