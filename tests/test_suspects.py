"""The good images that a model finds strangest: ranked by the scores of predict, each with its spot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from draem.cli import app
from draem.config import Config
from draem.data.doctor.findings import Finding
from draem.data.layouts import read_layout
from draem.evaluation.suspects import strangest
from draem.images import write_image
from draem.inspection.detector import Detector
from draem.modelfile import Header
from draem.pixels import Images
from tiny import TINY, write_tiny_model

SIDE = 64
SPOT = (40, 10, 52, 30)
"""Left, top, right, bottom of what is bright on a strange image."""


class Brightness:
    """Maps that are the mean of the channels."""

    name, execution, in_flight = "fake", "fake on cpu in fp32", 1

    def run(self, images: Images) -> tuple[Images, Images]:
        return images.mean(axis=1), images


@pytest.fixture
def detector() -> Detector:
    header = Header(config=Config.resolve("fast", None, TINY), channels=3, colour_order="RGB")
    return Detector(Brightness(), header)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Sixty good images, each with a brighter spot than the one before, one damaged; and an anomalous one."""
    left, top, right, bottom = SPOT
    for number in range(60):
        pixels = np.full((SIDE, SIDE, 3), 20, np.uint8)
        pixels[top:bottom, left:right] = 40 + 3 * number
        write_image(tmp_path / "parts" / "train" / "good" / f"{number:02}.png", pixels)
    (tmp_path / "parts" / "train" / "good" / "30.png").write_bytes(b"no image")
    write_image(tmp_path / "parts" / "test" / "bad" / "0.png", np.full((SIDE, SIDE, 3), 255, np.uint8))
    return tmp_path / "parts"


def _found(detector: Detector, folder: Path) -> list[Finding]:
    seen: list[tuple[int, int]] = []
    found = strangest(detector, read_layout(folder).samples, "a model", lambda *counts: seen.append(counts))
    assert seen[-1] == (59, 60)
    return found


def test_the_strangest_tenth_comes_first_with_its_spot(detector: Detector, parts: Path) -> None:
    (finding,) = _found(detector, parts)
    assert finding.names == tuple(f"train/good/{number}.png" for number in range(59, 53, -1))
    scores = [detector.predict(str(parts / name)).score for name in finding.names]
    assert scores == sorted(scores, reverse=True)
    assert "the 6 of 59 good images that a model finds strangest" in finding.message
    assert f"scores from {scores[0]:.3f} to {scores[-1]:.3f}" in finding.message
    assert finding.message.endswith("; 1 could not be inspected")
    assert finding.drop == ()
    for box in finding.spots:
        # Smoothed over five pixels, half of the peak lies within two of the border; a fiftieth of the side is added.
        np.testing.assert_allclose(np.array(box) * SIDE, SPOT, atol=2 + 0.02 * SIDE)


def test_few_images_are_all_told_and_none_is_nothing(detector: Detector, parts: Path) -> None:
    samples = read_layout(parts).samples
    (finding,) = strangest(
        detector, [one for one in samples if one.name in ("train/good/07.png", "train/good/08.png")], "m"
    )
    assert finding.names == ("train/good/08.png", "train/good/07.png")
    assert strangest(detector, [one for one in samples if one.label != "good"], "m") == []


def test_images_that_the_model_cannot_inspect_are_no_silence(detector: Detector, parts: Path) -> None:
    for path in (parts / "train" / "good").iterdir():
        path.write_bytes(b"no image")
    (finding,) = strangest(detector, read_layout(parts).samples, "m")
    assert (finding.severity, finding.names) == ("warning", ())
    assert finding.message.startswith("m could inspect none of the 60 good images; the first: ")
    assert "00.png" in finding.message


def test_check_tells_them_beside_what_else_it_finds(parts: Path, tmp_path: Path) -> None:
    model, page = write_tiny_model(tmp_path / "model.safetensors"), tmp_path / "check.html"
    result = CliRunner().invoke(app, ["check", str(parts), "--model", str(model), "--html", str(page), "--json"])
    assert result.exit_code == 1  # for the damaged image
    told = json.loads(result.stdout.splitlines()[-1])
    alone = json.loads(CliRunner().invoke(app, ["check", str(parts), "--json"]).stdout.splitlines()[-1])
    ranked = [one for one in told["findings"] if one not in alone["findings"]]
    assert [one for one in told["findings"] if one not in ranked] == alone["findings"]
    (finding,) = ranked
    known = Detector.load(model)
    scores = {
        f"train/good/{n:02}.png": known.predict(str(parts / f"train/good/{n:02}.png")).score
        for n in range(60)
        if n != 30
    }
    assert finding["names"] == sorted(scores, key=lambda name: (-scores[name], name))[:6]
    assert len(finding["spots"]) == 6
    assert page.read_text(encoding="utf-8").count("good image to train with: the 6 of 59") == 6


def test_a_model_that_is_none_is_told_before_the_work(parts: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(parts), "--model", str(tmp_path / "none.safetensors")])
    assert result.exit_code == 1
    assert "none.safetensors" in str(result.exception)
    assert "check" not in result.output
