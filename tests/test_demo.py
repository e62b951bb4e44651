"""The demo runs whole, cut to seconds: renders, trains, evaluates, shows; a second call goes on where it stopped."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from draem import cli, demo
from draem.data.demo import DEFECTS, SURFACES, render_demo
from draem.images import read_image

SMALL = {
    "data.size": 32,
    "network.reconstructive_width": 4,
    "network.fold": 1,
    "network.levels": 3,
    "network.discriminative_width": 4,
    "training.batch_size": 4,
    "training.validations": 1,
    "training.precision": "fp32",
}


def run_demo(out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, object], str]:
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    captured = capsys.readouterr()
    found: dict[str, object] = json.loads(captured.out.splitlines()[-1])
    return found, captured.err


def test_demo_runs_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "SETTINGS", SMALL)
    monkeypatch.setattr(demo, "IMAGES", dict.fromkeys(SURFACES, 8))
    monkeypatch.setattr(demo, "render_demo", partial(render_demo, size=64, train=8, test_good=2, test_defect=1))
    monkeypatch.setattr(sys, "argv", ["draem", "demo", "--out", str(tmp_path / "demo"), "--json"])
    found, _ = run_demo(tmp_path, capsys)
    surfaces = found["surfaces"]
    assert isinstance(surfaces, dict)
    assert set(surfaces) == set(SURFACES)
    for surface, evaluation in surfaces.items():
        assert {part["defect"] for part in evaluation["by_defect"]} == set(DEFECTS[surface])
        assert len(evaluation["images"]) == 2 + len(DEFECTS[surface])
    mean = sum(evaluation["metrics"]["pixel_ap"] for evaluation in surfaces.values()) / len(surfaces)
    assert isinstance(found["mean"], dict)
    assert found["mean"]["pixel_ap"] == pytest.approx(mean)
    assert isinstance(found["pictures"], list)
    for picture in found["pictures"]:
        assert read_image(Path(picture)).shape[1] > 5 * 192

    pixels = {path: path.read_bytes() for path in (tmp_path / "demo" / "data").rglob("*.png")}
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--seed", "1"])
    with pytest.raises(SystemExit) as refused:
        cli.main()
    assert refused.value.code == 1
    assert "training.seed" in capsys.readouterr().err
    assert pixels == {path: path.read_bytes() for path in (tmp_path / "demo" / "data").rglob("*.png")}

    monkeypatch.setattr(sys, "argv", sys.argv[:-2])
    again, said = run_demo(tmp_path, capsys)
    assert said.count("resumed at step 2 of 2") == len(SURFACES)
    assert again["mean"] == found["mean"]
