"""Two detectors on the same images; the model's score is an image's brightness, so that every verdict is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import draem
from conftest import Outcome
from draem.data.demo import render_demo
from draem.errors import DataError
from draem.evaluation.compare import compare
from draem.evaluation.evaluate import Evaluation, evaluate
from draem.evaluation.metrics import METRIC_KEYS
from draem.images import write_image
from draem.inspection.edits import set_values
from draem.modelfile import RegionOfInterest, Thresholds
from graphs import SIZE, WEIGHT, brightness_header, write_brightness


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good images of brightness 40 … 79, anomalous ones of 60 … 99 whose left half is the defect."""
    root = tmp_path_factory.mktemp("data") / "part"
    for number in range(40):
        for kind, level in (("good", 40 + number), ("bright", 60 + number)):
            write_image(root / "test" / kind / f"{number:02d}.png", np.full((SIZE, SIZE, 3), level, np.uint8))
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[:, : SIZE // 2] = 255
        write_image(root / "ground_truth" / "bright" / f"{number:02d}_mask.png", mask)
    write_image(root / "train" / "good" / "0.png", np.full((SIZE, SIZE, 3), 50, np.uint8))
    return root


def _model(path: Path, level: float, **settings: object) -> Path:
    """Rejects what is brighter than a level."""
    thresholds = Thresholds(reject=WEIGHT * level / 255, chosen_on="a test's")
    return write_brightness(path, brightness_header(thresholds, None, **settings))


@pytest.fixture(scope="module")
def evaluations(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, Evaluation]:
    """At two thresholds: 69.5, 49.5."""
    folder = tmp_path_factory.mktemp("models")
    paths = [_model(folder / f"{level}.onnx", level) for level in (69.5, 49.5)]
    first, second = (evaluate(draem.load(path), data) for path in paths)
    return first, second


def test_one_model_against_itself(evaluations: tuple[Evaluation, Evaluation]) -> None:
    found = compare(evaluations[0], evaluations[0])
    assert set(found.differences) == set(METRIC_KEYS)
    for one in found.differences.values():
        assert (one.value, one.low, one.high, one.better) == (0.0, 0.0, 0.0, 0.5)
    assert (found.only_first, found.only_second, found.p_value) == (0, 0, None)


def test_verdicts_by_counting(evaluations: tuple[Evaluation, Evaluation]) -> None:
    found = compare(*evaluations)
    # 50 … 69: of good images 20 that the second alone rejects, of anomalous ones 10 (60 … 69).
    assert found.verdicts == {("accept", "accept"): 10, ("accept", "reject"): 30, ("reject", "reject"): 40}
    assert (found.only_first, found.only_second, found.images) == (20, 10, 80)
    assert found.p_value == pytest.approx(float(stats.binomtest(10, 30).pvalue))
    assert "30 images: accept → reject" in found.in_words()
    assert found.to_dict()["right_in_second_alone"] == 10


def test_differences_have_the_limits_of_their_replicates(evaluations: tuple[Evaluation, Evaluation]) -> None:
    first, second = evaluations
    better = {name: values + 0.1 for name, values in second.replicates.items()}
    metrics = replace(second.metrics, image_ap=(second.metrics.image_ap or 0.0) + 0.1)
    found = compare(first, replace(second, metrics=metrics, replicates=better)).differences["image_ap"]
    assert found.value == pytest.approx(0.1)
    assert [found.low, found.high, found.better] == pytest.approx([0.1, 0.1, 1.0])
    random = np.random.default_rng(0)
    noise = {name: values + random.normal(0, 0.01, len(values)) for name, values in second.replicates.items()}
    one = compare(first, replace(second, replicates=noise)).differences["image_ap"]
    assert one.high - one.low == pytest.approx(4 * 0.01, rel=0.2)
    assert 0.4 < one.better < 0.6


def test_other_images_do_not_compare(evaluations: tuple[Evaluation, Evaluation]) -> None:
    first, second = evaluations
    with pytest.raises(DataError, match="different images"):
        compare(first, replace(second, images=second.images[1:]))


def test_other_regions_do_not_compare(evaluations: tuple[Evaluation, Evaluation]) -> None:
    first, second = evaluations
    half = RegionOfInterest(inspect=[[(0.0, 0.0), (0.5, 0.0), (0.5, 1.0)]])
    with pytest.raises(DataError, match="different regions of interest"):
        compare(first, replace(second, region=half))


def test_without_a_threshold_there_are_no_verdicts(evaluations: tuple[Evaluation, Evaluation]) -> None:
    first, second = evaluations
    blind = replace(second, images=[replace(image, verdict=None) for image in second.images])
    found = compare(first, blind)
    assert found.verdicts == {}
    assert found.in_words() == ["no verdicts to compare: a model has no threshold"]


def test_what_an_evaluation_says_of_its_verdicts(evaluations: tuple[Evaluation, Evaluation]) -> None:
    first, _ = evaluations
    assert first.false_rejects is not None
    assert first.escapes is not None
    assert (first.false_rejects.count, first.false_rejects.of) == (10, 40)
    assert (first.escapes.count, first.escapes.of) == (10, 40)
    assert [defect.found for defect in first.defects] == [level > 69.5 for level in range(60, 100)]
    assert {defect.area for defect in first.defects} == {SIZE * SIZE / 2}
    words = "\n".join(first.in_words())
    assert "good images rejected: 10 of 40, 25.0%" in words
    kept = first.to_dict()
    assert kept["verdicts"]["anomalous"]["accept"]["count"] == 10
    assert kept["recall"]["by_kind"][0]["count"] == 30
    low, high = kept["intervals"]["image_auroc"]
    assert low < kept["metrics"]["image_auroc"] < high
    assert kept["by_category_intervals"]["part"] == kept["intervals"]
    json.dumps(kept, allow_nan=False)


def test_areas_are_in_pixels_of_the_file(tmp_path: Path) -> None:
    """Whatever size the network sees, and with a letterbox."""
    (tree,) = render_demo(tmp_path / "demo", "woven", size=64, train=1, test_good=1, test_defect=1)
    models = [
        _model(tmp_path / "small.onnx", 200),
        _model(tmp_path / "large.onnx", 200, data__size=[64, 64]),
        _model(tmp_path / "letterbox.onnx", 200, data__size=[32, 64], data__fit="letterbox"),
    ]
    small, large, letterbox = ([one.area for one in evaluate(draem.load(model), tree).defects] for model in models)
    assert sum(small) == pytest.approx(sum(large), rel=0.35)
    assert sum(letterbox) == pytest.approx(sum(large), rel=0.35)


def test_a_defect_outside_of_the_region_is_none(data: Path, tmp_path: Path) -> None:
    model = _model(tmp_path / "model.onnx", 69.5)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:, SIZE // 2 :] = 255
    write_image(tmp_path / "mask.png", mask)
    set_values(model, [f"region={tmp_path / 'mask.png'}"])
    assert evaluate(draem.load(model), data).defects == []


def test_the_command(run_cli: Callable[..., Outcome], data: Path, tmp_path: Path) -> None:
    paths = [_model(tmp_path / f"{level}.onnx", level) for level in (69.5, 49.5)]
    ended = run_cli("compare", *paths, data, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out.splitlines()[-1])
    assert (found["right_in_first_alone"], found["right_in_second_alone"]) == (20, 10)
    assert "30 images: accept → reject" in ended.out
    assert "pixel ap" in ended.out
    ended = run_cli("compare", paths[0], tmp_path / "none.onnx", data)
    assert ended.code == 1
    assert "none.onnx" in ended.err
    for path, limit in zip(paths, (0.9, 0.05), strict=True):
        set_values(path, [f"threshold={limit}"], profile="cam")
    ended = run_cli("compare", *paths, data, "--profile", "cam")
    assert ended.code == 0, ended.err
    assert "80 images: accept → reject" in ended.out
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    next((broken / "test" / "good").iterdir()).write_bytes(b"x")
    ended = run_cli("compare", *paths, broken)
    assert ended.code == 1
    assert ended.err.count("left out: ") == 1


def test_an_evaluation_is_shown_with_its_limits(run_cli: Callable[..., Outcome], data: Path, tmp_path: Path) -> None:
    ended = run_cli("evaluate", _model(tmp_path / "model.onnx", 69.5), data, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    for words in ("95 %", "single defects", "bright", "8 to 16 pixels across", "anomalous ones accepted: 10 of 40"):
        assert words in ended.out
