"""Coverage against planted truth: defects drawn like the simulated ones are covered, strange ones named, and why."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import Outcome
from draem import preview
from draem.components import component_sheet
from draem.config import Config, SimulationConfig, SourceWeights
from draem.data.bank import ImageBank
from draem.data.defects import Defect, describe
from draem.errors import DataError
from draem.images import read_image, write_image
from draem.pixels import view
from draem.simulation import coverage
from draem.simulation.coverage import FEATURES, WORDS, RealDefect, compare
from draem.simulation.simulator import Simulator
from draem.simulation.structural import STRUCTURAL
from draem.simulation.survey import Stage, survey

Run = Callable[..., Outcome]


def drawn(count: int, seed: int) -> list[Defect]:
    """Defects whose figures are independent: logarithms, and brightness, are normal."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(0, 1, (count, 4))
    return [
        Defect(
            area=10 ** (-2.5 + 0.4 * a),
            size=16.0,
            elongation=10 ** (0.6 + 0.2 * b),
            contrast=10 ** (-1 + 0.2 * c),
            brightness=float(rng.choice((-1, 1))) * 10 ** (-1 + 0.2 * c),
            texture=10 ** (0.3 * d),
            count=1,
            box=(0, 0, 16, 16),
        )
        for a, b, c, d in normal
    ]


def real(defects: list[Defect], kind: str = "scratch") -> list[RealDefect]:
    return [RealDefect(f"test/{kind}/{index:03d}.png", kind, defect) for index, defect in enumerate(defects)]


SIMULATED = drawn(3000, 0)


def test_what_is_drawn_alike_is_covered() -> None:
    found = compare(real(drawn(2000, 1)), SIMULATED)
    assert 0.94 <= found.share < 1.0
    for spread in found.spreads.values():
        assert spread.below < 0.015
        assert spread.above < 0.015


@pytest.mark.parametrize(
    ("feature", "side", "value"),
    [
        ("area", "above", 0.6),
        ("area", "below", 2e-5),
        ("elongation", "above", 90.0),
        ("contrast", "below", 0.001),
        ("contrast", "above", 0.95),
        ("brightness", "above", 0.9),
        ("brightness", "below", -0.9),
        ("texture", "below", 0.02),
        ("texture", "above", 40.0),
    ],
)
def test_a_strange_defect_is_listed_with_its_reason(feature: str, side: str, value: float) -> None:
    plain = Defect(0.003, 16.0, 4.0, 0.1, -0.1, 1.0, 1, (0, 0, 16, 16))
    changed: dict[str, Any] = {feature: value}
    found = compare(real([plain]) + real([replace(plain, **changed)], "strange"), SIMULATED)
    assert found.by_kind() == {"scratch": (1, 1.0), "strange": (1, 0.0)}
    (outsider,) = found.outsiders
    assert outsider.distance > 1.0
    (reason,) = outsider.reasons
    assert (reason.feature, reason.side, reason.alone) == (feature, side, True)
    word, setting = WORDS[feature, side]
    assert outsider.in_words().startswith(f"{word} ({feature} ")
    assert outsider.advice() == setting
    spread = found.spreads[feature]
    assert (spread.below, spread.above) == ((0.5, 0.0) if side == "below" else (0.0, 0.5))


def test_a_rare_combination_is_outside_though_no_figure_is() -> None:
    """Simulated: the larger, the thinner; real: large and round, as some simulated ones are, but not both."""
    rng = np.random.default_rng(3)
    steps = rng.uniform(0, 1, 3000)
    known = [
        replace(
            one, area=10 ** (-4 + 3 * step), elongation=10 ** (2 * step), contrast=0.1, brightness=-0.1, texture=1.0
        )
        for one, step in zip(SIMULATED, steps, strict=True)
    ]
    odd = replace(known[0], area=0.05, elongation=1.5)
    found = compare(real([odd, replace(known[0], area=0.01, elongation=10**1.33)]), known)
    (outsider,) = found.outsiders
    assert outsider.real.defect == odd
    (reason,) = outsider.reasons
    assert not reason.alone
    assert (reason.feature, reason.side) in {("elongation", "below"), ("area", "above")}
    assert outsider.in_words().startswith("a rare combination: ")


def test_neighbours_are_those_of_a_slow_search() -> None:
    rng = np.random.default_rng(5)
    asked, known = rng.normal(size=(300, 5)), rng.normal(size=(700, 5))
    slow = np.linalg.norm(asked[:, None] - known[None], axis=2)
    distances, places = coverage._nearest(asked, known)
    np.testing.assert_allclose(distances, np.sort(slow, 1)[:, 4])
    np.testing.assert_array_equal(np.sort(places, 1), np.sort(np.argsort(slow, 1)[:, :5], 1))
    own = np.linalg.norm(known[:, None] - known[None], axis=2)
    np.testing.assert_allclose(coverage._nearest(known, known, skip=1)[0], np.sort(own, 1)[:, 5])


def test_simulated_ones_all_alike_cover_what_is_alike() -> None:
    found = compare(real([SIMULATED[0], SIMULATED[1]]), [SIMULATED[0]] * 50)
    assert found.covered.tolist() == [True, False]


def test_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="no real defects"):
        compare([], SIMULATED)
    with pytest.raises(DataError, match="only 5 simulated"):
        compare(real(SIMULATED[:1]), SIMULATED[:5])


def test_figures_are_json_and_advice_names_settings() -> None:
    found = compare(real(drawn(200, 1)), SIMULATED).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    assert set(found["features"]) == set(FEATURES)
    for _, advice in WORDS.values():
        named = [word.strip(",") for word in advice.split() if word.startswith("simulation.")]
        assert named
        for name in named:  # it exists, else this raises
            reduce(getattr, name.split("."), Config.resolve("fast"))


def stage_of(tree: Path) -> Stage:
    good = sorted((tree / "train" / "good").iterdir())
    return Stage(ImageBank.load(good, Config.resolve("fast", None, {"data.size": 64}).data), seed=3)


def simulator_of(**changes: object) -> Simulator:
    return Simulator(SimulationConfig(clean_share=0.0).model_copy(update=changes), (64, 64), "cpu")


def test_a_survey_counts_what_one_batch_shows(woven_tree: Path) -> None:
    stage, simulator = stage_of(woven_tree), simulator_of()
    surveyed = survey(simulator, stage, 21)
    whole = stage.simulate(simulator, torch.arange(21))
    masks = whole.mask[:, 0].numpy() > 0.5
    assert surveyed.areas == pytest.approx(masks.mean((1, 2)).tolist())
    told = [describe(image, mask) for image, mask in zip(stage.as_files(whole.anomalous), masks, strict=True)]
    assert surveyed.counts == [len(defects) for defects in told]
    assert max(surveyed.counts) > 8
    assert len(surveyed.defects) == sum(min(8, len(defects)) for defects in told)
    assert set(surveyed.defects) <= {defect for defects in told for defect in defects}


def test_components_are_shown_whatever_their_weights(woven_tree: Path, tmp_path: Path) -> None:
    stage = stage_of(woven_tree)
    looks: dict[str, Any] = {"augmentations_drawn": 0, "source_colour": "rgb"}
    plain = component_sheet(SimulationConfig(**looks), stage)
    flat = component_sheet(SimulationConfig(**looks, sources=SourceWeights(procedural=0.0, flat=1.0)), stage)
    np.testing.assert_array_equal(plain, flat)
    write_image(tmp_path / "texture.png", np.full((64, 64, 3), (250, 10, 120), np.uint8))
    given = component_sheet(SimulationConfig(**looks, textures=tmp_path), stage)
    # The folder's column stands right of the others; what is shown of them does not change.
    height, sources = given.shape[0] // 2, 2 + len(STRUCTURAL)
    assert given.shape[0] == plain.shape[0]
    left = sources * (144 + 8)
    np.testing.assert_array_equal(given[height:, :left], plain[height:, :left])
    assert (given[height:, left:] == (250, 10, 120)).all(-1).sum() >= 2 * 144 * 144


# ------------------------------------------------------------------------------------------------------- draem simulate

QUICK = ("--set", "data.size=64", "--count", 2)


@pytest.fixture(autouse=True)
def _fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "_COMPARED", 300)


def write_defect(root: Path, kind: str, index: int, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    write_image(root / "test" / kind / f"{index:02d}.png", image)
    write_image(root / "ground_truth" / kind / f"{index:02d}_mask.png", mask[..., None].repeat(3, 2) * np.uint8(255))


def planted(woven_tree: Path, root: Path) -> Path:
    """The good images of the rendered cloth, some with half of the image lighter, some with a spot of noise."""
    shutil.copytree(woven_tree / "train", root / "train")
    rng = np.random.default_rng(0)
    for index, path in enumerate(sorted((root / "train" / "good").iterdir())[:3]):
        image, half, spot = read_image(path), np.zeros((64, 64), bool), np.zeros((64, 64), bool)
        half[:40] = True
        spot[20 + index : 30, 20:36] = True
        write_defect(root, "half", index, np.where(half[..., None], image // 2 + 90, image).astype(np.uint8), half)
        noisy = (image // 2 + rng.integers(10, 50, image.shape)).astype(np.uint8)
        write_defect(root, "spot", index, np.where(spot[..., None], noisy, image).astype(np.uint8), spot)
    return root


def test_comparing_writes_and_says_all(run_cli: Run, woven_tree: Path, tmp_path: Path) -> None:
    root = planted(woven_tree, tmp_path / "woven")
    out = tmp_path / "x" / "grid.png"
    done = run_cli("simulate", root, "--out", out, *QUICK, "--compare", "--json", "--set", "simulation.beta=0.3")
    assert done.code == 0
    names = ["grid.png", "grid-components.png", "grid-statistics.png", "grid-coverage.png"]
    pictures = [out.with_name(name) for name in names]
    found = json.loads(done.out.splitlines()[-1])
    assert found["pictures"] == [str(path) for path in pictures]
    for path in pictures:
        assert read_image(path).std() > 1
        assert f"picture: {path}" in done.out
    told = found["coverage"]
    assert told == json.loads((tmp_path / "x" / "grid-coverage.json").read_text(encoding="utf-8"))
    assert told["real"] == 6
    assert told["by_kind"]["half"] == {"defects": 3, "covered": 0.0}
    assert told["by_kind"]["spot"] == {"defects": 3, "covered": 1.0}
    large = [one for one in told["outside"] if one["kind"] == "half"]
    assert {(one["reasons"][0]["feature"], one["reasons"][0]["side"]) for one in large} == {("area", "above")}
    assert "3 larger" in done.out
    assert "development set" in done.err


def test_a_real_defect_counts_once_at_any_size(run_cli: Run, woven_tree: Path, tmp_path: Path) -> None:
    """Also where the size is no multiple of the network's stride: an image that is resized is no two tiles."""
    root = planted(woven_tree, tmp_path / "woven")
    done = run_cli(
        "simulate", root, "--out", tmp_path / "grid.png", "--count", 2, "--compare", "--json", "--set", "data.size=72"
    )
    assert done.code == 0
    assert json.loads(done.out.splitlines()[-1])["coverage"]["real"] == 6


def test_one_channel_of_sixteen_bits(run_cli: Run, woven_tree: Path, tmp_path: Path) -> None:
    root = planted(woven_tree, tmp_path / "woven")
    grey = ("--set", "data.channels=1", "--set", "data.depth=16")
    done = run_cli("simulate", root, "--out", tmp_path / "x.png", *QUICK, *grey, "--compare", "--json")
    assert done.code == 0
    told = json.loads(done.out.splitlines()[-1])["coverage"]
    assert told["by_kind"]["half"] == {"defects": 3, "covered": 0.0}
    assert all(abs(one["defect"]["brightness"]) == pytest.approx(one["defect"]["contrast"]) for one in told["outside"])


def test_the_region_is_shown(run_cli: Run, woven_tree: Path, tmp_path: Path) -> None:
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[16:48, 16:48] = 255
    write_image(tmp_path / "mask.png", mask)
    region = ("--set", f"simulation.region={tmp_path / 'mask.png'}")
    done = run_cli("simulate", woven_tree, "--out", tmp_path / "x.png", *QUICK, *region)
    assert done.code == 0
    assert "25% of the image" in done.err
    shown = read_image(tmp_path / "x-region.png")
    white = (shown[: 192 + 40, 192 + 20 :] == 255).all(-1).mean()
    assert 0.2 < white < 0.7
    assert ((shown == (0, 255, 255)).all(-1)).any()  # the outline


def test_comparing_without_real_defects_is_one_line(run_cli: Run, woven_tree: Path, tmp_path: Path) -> None:
    done = run_cli("simulate", woven_tree / "train" / "good", "--out", tmp_path / "x.png", *QUICK, "--compare")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "no real defects" in done.err
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_rest_is_written(
    run_cli: Run, woven_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run_cli("simulate", woven_tree, "--out", tmp_path / "x.png", *QUICK, "--compare")
    assert done.code == 0
    (said,) = [line for line in done.err.splitlines() if "left out" in line]
    assert said == "left out: plots: matplotlib is not installed: run pip install 'draem[report]'"
    assert {path.name for path in tmp_path.iterdir()} == {"x.png", "x-components.png", "x-coverage.json"}


def test_simulated_defects_cover_themselves(woven_tree: Path, tmp_path: Path, run_cli: Run) -> None:
    """What the simulator draws, written to files as if it were real, comes back as covered."""
    stage = stage_of(woven_tree)
    batch = stage.simulate(simulator_of(mask_threshold=(0.3, 0.6)), torch.arange(1000, 1030))
    images = view(stage.as_files(batch.anomalous))
    masks = batch.mask[:, 0].numpy() > 0.5
    root = tmp_path / "again"
    shutil.copytree(woven_tree / "train", root / "train")
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        write_defect(root, "simulated", index, image, mask)
    done = run_cli("simulate", root, "--out", tmp_path / "x.png", *QUICK, "--compare", "--json")
    found = json.loads(done.out.splitlines()[-1])["coverage"]
    expected = sum(len(describe(image, mask)) for image, mask in zip(images, masks, strict=True))
    assert found["real"] == expected > 100
    assert found["covered"] >= 0.93
