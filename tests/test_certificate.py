"""The parity certificate against slow figures of its own, planted differences and `evaluate`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from draem.config import Config
from draem.data.layouts import read_layout
from draem.data.samples import Dataset, Sample, split_good
from draem.deployment.certificate import Chosen, beyond, choose_images, compare, flipped, tolerances
from draem.errors import ConfigError, DataError, ParityError
from draem.evaluation.evaluate import evaluate
from draem.images import fit_image, read_image
from draem.inspection.detector import Detector
from draem.modelfile import Header, Thresholds
from draem.pixels import Images
from tiny import TINY, write_noise

FP32 = tolerances("fp32", "fp32", {})
CONFIG = Config.resolve("fast", None, TINY)
Change = Callable[[Images], Images]


class Planted:
    """A network whose map is how far the channels' mean is from grey, changed in a way that the test knows."""

    name, execution, in_flight = "planted", "planted 1.0 on paper in fp32", 1

    def __init__(self, change: Change = lambda maps: maps) -> None:
        self._change = change

    def run(self, images: Images) -> tuple[Images, Images]:
        return self._change(_map_of(images)).astype(np.float32), images.copy()


def _map_of(images: Images) -> Images:
    return np.asarray(np.abs(images.mean(axis=1) - np.float32(0.5)))


def _wave(maps: Images) -> Images:
    """A difference of another size in every image, at most 0.02."""
    height, width = maps.shape[1:]
    wave = np.sin(np.arange(height * width, dtype=np.float32).reshape(height, width) / 7)
    return np.asarray(np.clip(maps + 0.02 * wave * maps.mean(axis=(1, 2), keepdims=True), 0, 1))


def _detector(change: Change = lambda maps: maps, thresholds: Thresholds | None = None, **settings: object) -> Detector:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Detector(Planted(change), Header(config=Config.resolve("fast", None, TINY | named), thresholds=thresholds))


def _all(dataset: Dataset) -> Chosen:
    return choose_images(dataset, 1000, CONFIG)


def _slow(path: Path) -> tuple[float, float, float, float]:
    """Both scores and the map's largest and mean difference, of one image of its own size: pixel by pixel."""
    image = fit_image(read_image(path), (64, 64), "resize", "area").transpose(2, 0, 1)[None]
    before = _map_of(image.astype(np.float32) / np.float32(255))
    after = _wave(before)
    scores = [uniform_filter(found[0].astype(np.float64), 5, mode="constant").max() for found in (before, after)]
    differences = [
        abs(float(a) - float(b)) for a, b in zip(before[0].ravel(), after[0].astype(np.float32).ravel(), strict=True)
    ]
    return scores[0], scores[1], max(differences), sum(differences) / len(differences)


# ------------------------------------------------------------------------------------------------------------- figures


def test_figures_are_those_of_a_slow_computation(woven_tree: Path) -> None:
    dataset = read_layout(woven_tree)
    certificate = compare(_detector(), _detector(_wave), _all(dataset), FP32)
    assert [row.name for row in certificate.images] == [sample.name for sample in dataset.test]
    expected = {sample.name: _slow(sample.path) for sample in dataset.test}
    for row in certificate.images:
        found = row.score_before, row.score_after, row.map_max, row.map_mean
        assert found == pytest.approx(expected[row.name], abs=1e-6)
    slow = np.array(list(expected.values()))
    assert certificate.map_max == pytest.approx(slow[:, 2].max(), abs=1e-7)
    assert certificate.map_mean == pytest.approx(slow[:, 3].mean(), abs=1e-7)
    assert certificate.score == pytest.approx(np.abs(slow[:, 0] - slow[:, 1]).max(), abs=1e-6)
    assert certificate.map_max > certificate.map_mean > 0
    assert certificate.execution == "planted 1.0 on paper in fp32"


@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_metrics_are_those_of_evaluate(woven_tree: Path, fit: str) -> None:
    before, after = (_detector(change, data__fit=fit, data__size=[64, 96]) for change in (lambda maps: maps, _shuffle))
    certificate = compare(before, after, _all(read_layout(woven_tree)), FP32)
    assert certificate.metrics_before == evaluate(before, woven_tree).metrics.to_dict()
    assert certificate.metrics_after == evaluate(after, woven_tree).metrics.to_dict()
    assert None not in (certificate.metrics_before or {"": None}).values()
    assert certificate.metrics_before != certificate.metrics_after


def _shuffle(maps: Images) -> Images:
    return np.ascontiguousarray(maps[:, ::-1])


def test_without_labels_there_are_no_metrics(woven_tree: Path) -> None:
    chosen = _all(read_layout(woven_tree / "train" / "good"))
    certificate = compare(_detector(), _detector(_wave), chosen, FP32)
    assert certificate.metrics_before is None
    assert certificate.metrics_after is None
    assert "7 of the 7 good images" in certificate.compared_on


def test_what_the_threshold_was_chosen_on_is_left_out(tmp_path: Path) -> None:
    dataset = read_layout(write_noise(tmp_path / "good", 20))
    data = CONFIG.data
    split = split_good(dataset.train_good, data.select_share, data.calibrate_share, CONFIG.training.seed)
    assert split.calibrate
    assert set(_all(dataset).samples) == {*split.train, *split.select}


def test_flips_are_counted_at_the_thresholds(woven_tree: Path) -> None:
    chosen = _all(read_layout(woven_tree))
    plain = compare(_detector(), _detector(_wave), chosen, FP32)
    assert plain.flips is None
    row = max(plain.images, key=lambda row: abs(row.score_after - row.score_before))
    between = (row.score_before + row.score_after) / 2
    for thresholds in (
        Thresholds(reject=between, chosen_on="a test"),
        Thresholds(reject=0.99, review=between, chosen_on="a test"),
    ):
        limit = thresholds.review or thresholds.reject
        wanted = {one.name for one in plain.images if (one.score_before > limit) != (one.score_after > limit)}
        assert row.name in wanted
        found = compare(_detector(thresholds=thresholds), _detector(_wave, thresholds), chosen, FP32)
        assert found.flips == len(wanted)
        assert {one.name for one in flipped(found.images, thresholds)} == wanted
        (told,) = (line for line in beyond(found, thresholds) if "decisions" in line)
        assert row.name in told


def test_unreadable_images_are_passed_over_by_both(woven_tree: Path, tmp_path: Path) -> None:
    tree = tmp_path / "woven"
    shutil.copytree(woven_tree, tree)
    (tree / "test" / "good" / "001.png").write_bytes(b"no image")
    seen: list[tuple[int, int]] = []
    certificate = compare(
        _detector(), _detector(_wave), _all(read_layout(tree)), FP32, progress=lambda *done: seen.append(done)
    )
    names = {sample.name for sample in read_layout(tree).test}
    assert {row.name for row in certificate.images} == names - {"test/good/001.png"}
    assert certificate.compared_on.endswith("1 of them could not be read")
    assert seen[-1] == (len(names), len(names))


def test_gone_images_are_one_line(woven_tree: Path) -> None:
    lost = Sample(Path("gone.png"), "gone.png", "test", "woven", "good", "good", None)
    with pytest.raises(DataError, match=r"none of 1 images can be read; first: gone\.png"):
        compare(_detector(), _detector(), Chosen((lost,), "one"), FP32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(woven_tree: Path, value: float) -> None:
    def spoil(maps: Images) -> Images:
        maps[-1, 3, 4] = value
        return maps

    with pytest.raises(ParityError, match="not numbers"):
        compare(_detector(), _detector(spoil), _all(read_layout(woven_tree)), tolerances("int8", "fp32", {}))


# ---------------------------------------------------------------------------------------------------------- tolerances


def test_tolerances_by_precision() -> None:
    assert tolerances("fp32", "fp32", {}) == {"map_max": 1e-3, "score": 1e-3, "flips": 0}
    half = {"map_max": 2e-2, "score": 1e-2, "flips": 0}
    assert tolerances("fp16", "fp32", {}) == tolerances("fp32", "bf16", {}) == tolerances("fp32", "fp16", {}) == half
    assert tolerances("int8", "bf16", {}) == {"map_mean": 1e-2, "score": 2e-2, "flips": 0}
    assert tolerances("fp32", "fp32", {"map_mean": 0.5, "flips": 2})["map_mean"] == 0.5


@pytest.mark.parametrize(("key", "value"), [("map", 1.0), ("score", float("nan")), ("flips", -1.0)])
def test_wrong_tolerances(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"tolerance {key}"):
        tolerances("fp32", "fp32", {key: value})


def test_beyond_names_the_worst_first(woven_tree: Path) -> None:
    chosen = _all(read_layout(woven_tree))
    limits = {"map_max": 0.0, "map_mean": 1.0, "score": 1e-9, "flips": 0.0}
    certificate = compare(_detector(), _detector(_wave), chosen, limits)
    by_map = sorted(certificate.images, key=lambda row: -row.map_max)
    found = beyond(certificate, None)
    assert [line.split(" difference")[0] for line in found] == ["largest map", "score"]
    places = [found[0].index(row.name) for row in by_map[:3]]
    assert places == sorted(places)
    assert f"and {len(by_map) - 3} more" in found[0]
    assert not beyond(compare(_detector(), _detector(), chosen, dict.fromkeys(limits, 0.0)), None)


def test_not_a_number_is_beyond_every_tolerance(woven_tree: Path) -> None:
    certificate = compare(_detector(), _detector(), _all(read_layout(woven_tree)), FP32)
    spoilt = certificate.model_copy(update={"map_max": float("nan")})
    assert beyond(spoilt, None)


# -------------------------------------------------------------------------------------------------------------- images


def _sample(defect: str, index: int) -> Sample:
    name = f"test/{defect}/{index:03d}.png"
    return Sample(Path(name), name, "test", "part", "good" if defect == "good" else "anomalous", defect, None)


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, wanted: object) -> NDArray[np.uint8]:
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr("draem.deployment.certificate.read_pixels", read)


@pytest.mark.usefixtures("readable")
def test_every_type_has_its_turn() -> None:
    sizes = {"crack": 3, "dent": 40, "good": 57}
    samples = [_sample(defect, index) for defect, size in sizes.items() for index in range(size)]
    chosen = choose_images(Dataset(Path("part"), "mvtec", tuple(samples)), 23, CONFIG)
    shares = {defect: [s for s in chosen.samples if s.defect == defect] for defect in sizes}
    assert {defect: len(share) for defect, share in shares.items()} == {"crack": 3, "dent": 10, "good": 10}
    assert [sample.name[-7:-4] for sample in shares["dent"]] == [f"{index:03d}" for index in range(0, 40, 4)]
    assert chosen.in_words == "23 of the 100 test images of part: 3 crack, 10 dent, 10 good"
    turned = choose_images(Dataset(Path("part"), "mvtec", tuple(reversed(samples))), 23, CONFIG)
    assert turned == chosen
    assert len(choose_images(Dataset(Path("part"), "mvtec", tuple(samples)), 1000, CONFIG).samples) == 100
    assert len(choose_images(Dataset(Path("part"), "mvtec", tuple(samples)), 2, CONFIG).samples) == 2


def test_images_that_do_not_fit_are_told_before_the_work(tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.zeros((20, 20, 5), np.uint8))
    with pytest.raises(DataError, match=r"none of 1 images can be used to compare; first: .*stack\.npy.*channels"):
        choose_images(read_layout(tmp_path), 8, CONFIG)
    with pytest.raises(DataError, match="no images to compare on"):
        choose_images(Dataset(tmp_path, "folder", ()), 8, CONFIG)
