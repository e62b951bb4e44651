"""Every command and snippet of README and docs runs; the README's tree and the settings page are true."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from draem import cli, preview
from draem.config import NetworkConfig
from draem.data.demo import render_demo
from draem.deployment import material, quantise
from draem.deployment.benchmark import run as benchmark_run
from draem.modelfile import Thresholds
from draem.network.draem import Draem
from draem.presets import PRESETS
from tiny import write_tiny_model

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = {
    "data": {"size": 32},
    "network": {"reconstructive_width": 4, "discriminative_width": 4, "fold": 1, "levels": 3},
    "training": {"images": 16, "batch_size": 4, "learning_rate": 1e-3, "validations": 1, "precision": "fp32"},
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [line.split("   #")[0].split(" # ")[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images and files that the commands speak of."""
    folder = tmp_path_factory.mktemp("docs")
    (tree,) = render_demo(folder / "rendered", "woven", size=64, train=10, test_good=14, test_defect=2)
    (others,) = render_demo(folder / "others", "woven", size=64, train=150, test_good=0, test_defect=0, seed=1)
    shutil.copytree(tree, folder / "bottle")
    shutil.copytree(tree / "train" / "good", folder / "parts" / "good")
    shutil.copytree(others / "train" / "good", folder / "parts" / "more")
    shutil.copytree(tree / "test" / "hole", folder / "parts" / "new")
    (printed,) = render_demo(folder / "printed", "printed", size=64, train=10, test_good=0, test_defect=0)
    shutil.copytree(printed / "train" / "good", folder / "labels" / "good")
    shutil.copy(printed / "train" / "good" / "000.png", folder / "label.png")
    shutil.copy(tree / "test" / "hole" / "000.png", folder / "part.png")
    shutil.copytree(ROOT / "configs", folder / "configs")
    for category in ("bottle", "cable"):
        shutil.copytree(tree, folder / "mvtec" / category)
    listed = [
        f"{path.relative_to(folder)},test,bad" for path in sorted((folder / "bottle" / "test" / "hole").iterdir())
    ]
    for split in ("train", "test"):
        good = sorted((folder / "bottle" / split / "good").iterdir())
        listed += [f"{path.relative_to(folder)},{split},good" for path in good]
    (folder / "line.csv").write_text("\n".join(["path,split,label", *listed]), encoding="utf-8")
    write_tiny_model(folder / "model.safetensors", Thresholds(reject=0.5, chosen_on="a test's"))
    shutil.copy(next((tree / "ground_truth" / "hole").iterdir()), folder / "mask.png")
    (folder / "my.yaml").write_text("training:\n  clip_norm: 0.5\n", encoding="utf-8")
    network = Draem(NetworkConfig(reconstructive_width=4, discriminative_width=4, aligned_corners=True))
    torch.save(network.reconstructive.state_dict(), folder / "NAME.pckl")
    torch.save(network.discriminative.state_dict(), folder / "NAME_seg.pckl")
    return folder


@pytest.fixture
def small(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The presets cut to seconds, in the folder of the images; surveys, int8 and benchmarks short."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(preview, "_COMPARED", 40)
    monkeypatch.setattr(benchmark_run, "_ROUNDS", 1)
    monkeypatch.setattr(quantise, "_ROUNDS", 1)
    monkeypatch.setattr(material, "CALIBRATED", 8)
    monkeypatch.setattr(material, "JUDGED", 4)
    for name in ("edge", "fast", "standard"):
        monkeypatch.setitem(PRESETS, name, SMALL)
    return workplace


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    words = shlex.split(re.sub(r"--images \d+", "--images 16", command))
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_commands_run(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = (command for page in PAGES for command in commands(page) if command.startswith("draem "))
    told = list(dict.fromkeys(every))
    assert len(told) >= 12
    for command in told:
        if command.startswith("draem export"):
            # Hardly trained, it gives all images one score, which is the threshold: rounding alone would decide.
            assert run(f"draem set {command.split()[2]} threshold=0.9 review=none", monkeypatch) == 0
        assert run(command, monkeypatch) == 0, command
    assert (small / "results" / "results.jsonl").exists()


def test_snippets_run(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = blocks(ROOT / "README.md", "python")
    exec(compile(snippet, "README.md", "exec"), {})  # the README is our own
    assert "Metrics(" in capsys.readouterr().out
    assert (small / "overlay.png").exists()
    for name, says in (("calibrate", "at most 5% of good parts"), ("evaluate", "0.5")):
        (snippet,) = blocks(ROOT / "docs" / f"{name}.md", "python")  # of the model that the README's has made
        exec(compile(snippet, f"{name}.md", "exec"), {})
        assert says in capsys.readouterr().out
    assert (small / "report.html").exists()


def test_the_tutorial_runs(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, but for smaller images and budgets; hardly trained, an export needs force."""
    monkeypatch.chdir(tmp_path)
    made = runpy.run_path(str(ROOT / "docs" / "make_tutorial.py"))
    code = made["code"]()
    for told, smaller in (
        ("size=128, train=160, test_good=40, test_defect=10", "size=64, train=12, test_good=3, test_defect=2"),
        ("size=128, train=60", "size=64, train=60"),
        ('"data.size": 128, "training.images": 3000', '"data.size": 64, "training.images": 16'),
        ("cloth)\nfor", "cloth, force=True)\nfor"),
    ):
        assert told in code
        code = code.replace(told, smaller)
    exec(compile(code, "tutorial.md", "exec"), {})
    for name in ("prediction.png", "scores.png", "report.html", "line.onnx"):
        assert (tmp_path / "tutorial" / name).exists()


def test_yaml_of_the_settings_page_is_a_configuration(tmp_path: Path) -> None:
    from draem.config import Config

    (text,) = blocks(ROOT / "docs" / "settings.md", "yaml")
    (tmp_path / "some.yaml").write_text(text, encoding="utf-8")
    config = Config.resolve("edge", tmp_path / "some.yaml")
    assert config.training.learning_rate == 5e-4
    assert config.data.fit == "letterbox"


def test_other_commands_exist() -> None:
    """Those too long or too far-reaching for a test: make's targets, scripts, and the extras to install."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    verbs = {command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback}
    for page in PAGES:
        for command in commands(page):
            first, *rest = shlex.split(command)
            if first == "make":
                assert set(rest) <= targets, command
            elif first == "pip":
                extras = re.findall(r"\[(\w+)\]", command)
                assert set(extras) <= set(project["optional-dependencies"]), command
            elif first == "python3":
                assert rest[:2] == ["-m", "venv"], command
            elif first == "python":
                assert (ROOT / rest[0]).exists(), command
            else:
                assert first == "draem", command
                assert rest[0] in verbs, command


def test_tree_of_the_readme_is_true() -> None:
    (tree,) = (block for block in blocks(ROOT / "README.md", "text") if block.startswith("src/draem/"))
    folder, told, closed = Path(), set(), set()
    for line in tree.splitlines()[1:]:
        inner, name = line.startswith("    "), line.split()[0]
        path = folder / name if inner else Path(name)
        if name.endswith("/"):
            folder = folder if inner else path
            closed.add(path)
        else:
            told.add(path)
            closed.discard(path.parent)  # a folder whose files are listed
    package = ROOT / "src" / "draem"
    there = {path.relative_to(package) for path in package.rglob("*.py") if not path.name.startswith("__")}
    assert all(any(path.is_relative_to(whole) for path in there) for whole in closed)
    assert told == {path for path in there if not any(path.is_relative_to(whole) for whole in closed)}


def test_settings_page_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))
    assert made["page"]() == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_links_and_pictures_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
