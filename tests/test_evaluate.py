"""Evaluations against scikit-learn on the detector's own maps; data sets that lack something; what is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

import draem
from draem.config import Config
from draem.data.layouts import read_layout
from draem.data.truth import load_truth
from draem.errors import DataError, DraemError
from draem.evaluation.evaluate import Evaluation, evaluate
from draem.evaluation.metrics import METRIC_KEYS, quantise
from draem.images import plan_fit, read_image, read_mask, write_image
from draem.inspection.detector import Detector
from draem.modelfile import Header
from draem.pixels import Images
from draem.tables.models import header_table
from draem.tables.scores import metrics_table
from tiny import write_tiny_model

PIXEL = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro")
IMAGE = ("image_auroc", "image_ap", "image_f1_max")


def _strictly(path: Path) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def _direct(detector: Detector, root: Path) -> dict[str, float]:
    """Image and pixel AUROC and AP with scikit-learn, from single predictions; only pixels that show the image."""
    config = detector.header.config.data
    scores, labels = [], []
    levels: list[NDArray[np.uint16]] = []
    truths: list[NDArray[np.bool_]] = []
    for sample in read_layout(root).test:
        found = detector.predict(sample.path)
        image = read_image(sample.path)
        mask = load_truth(sample.truth, image.shape[:2], config) if sample.truth else np.zeros(config.size, bool)
        window = plan_fit((image.shape[0], image.shape[1]), *config.frame(config.size)).window
        scores.append(found.score)
        labels.append(sample.label == "anomalous")
        levels.append(quantise(found.input_map)[window].ravel())
        truths.append(mask[window].ravel())
    pixels, truth = np.concatenate(levels), np.concatenate(truths)
    return {
        "image_auroc": roc_auc_score(labels, scores),
        "image_ap": average_precision_score(labels, scores),
        "pixel_auroc": roc_auc_score(truth, pixels),
        "pixel_ap": average_precision_score(truth, pixels),
    }


def _copy(root: Path, to: Path, without: tuple[str, ...] = ()) -> Path:
    shutil.copytree(root, to)
    for name in without:
        shutil.rmtree(to / name)
    return to


def _known(evaluation: Evaluation) -> set[str]:
    return {key for key, value in evaluation.metrics.to_dict().items() if value is not None}


# ------------------------------------------------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def whole(tiny_detector: Detector, woven_tree: Path) -> Evaluation:
    return evaluate(tiny_detector, woven_tree)


def test_metrics_against_scikit_learn(whole: Evaluation, tiny_detector: Detector, woven_tree: Path) -> None:
    found = whole.metrics.to_dict()
    assert _known(whole) == set(METRIC_KEYS)
    for key, expected in _direct(tiny_detector, woven_tree).items():
        assert found[key] == pytest.approx(expected, abs=1e-4), key
    assert len(set(found.values())) == len(METRIC_KEYS), "metrics that are all alike would compare nothing"


def test_by_defect_is_that_defect_against_all_good(whole: Evaluation) -> None:
    good = [image.score for image in whole.images if image.defect == "good"]
    for (category, defect), metrics in whole.by_defect.items():
        bad = [image.score for image in whole.images if image.defect == defect]
        assert category == "woven"
        assert len(bad) == whole.count(category, defect) == 2
        assert len(good) == whole.count(category, "good") == 4
        assert metrics.image_auroc == pytest.approx(roc_auc_score([0] * 4 + [1] * 2, good + bad))
    assert {defect for _, defect in whole.by_defect} == {image.defect for image in whole.images} - {"good"}
    assert whole.by_category == {"woven": whole.metrics}
    assert whole.count() == len(whole.images) == len({image.name for image in whole.images})


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_do_not_matter(whole: Evaluation, tiny_detector: Detector, woven_tree: Path, batch_size: int) -> None:
    again = evaluate(tiny_detector, woven_tree, batch_size=batch_size)
    assert [image.name for image in again.images] == [image.name for image in whole.images]
    np.testing.assert_allclose([i.score for i in again.images], [i.score for i in whole.images], atol=1e-5)


def test_a_letterboxs_padding_is_not_counted(tmp_path: Path, woven_tree: Path) -> None:
    root = _copy(woven_tree, tmp_path / "woven")
    for path in root.rglob("*.png"):
        if "ground_truth" in path.parts:
            write_image(path, np.repeat(read_mask(path)[8:40, :, None], 3, 2).astype(np.uint8) * 255)
        else:
            write_image(path, read_image(path)[8:40])
    detector = Detector.load(write_tiny_model(tmp_path / "model.safetensors", data__fit="letterbox"), "cpu")
    found = evaluate(detector, root).metrics.to_dict()
    for key, expected in _direct(detector, root).items():
        assert found[key] == pytest.approx(expected, abs=1e-4), key


def test_a_perfect_detector_is_perfect(woven_tree: Path, tmp_path: Path) -> None:
    config = Config.resolve("fast", None, {"data.size": 64, "score.map": "segmentation", "score.filter_size": 1})
    masks = [
        np.zeros((64, 64), bool) if sample.truth is None else load_truth(sample.truth, (64, 64), config.data)
        for sample in read_layout(woven_tree).test
    ]

    class Oracle:
        name = execution = "oracle"
        in_flight = 1

        def run(self, images: Images) -> tuple[Images, Images]:
            return np.stack(masks).astype(np.float32), images

    # One batch: several are run at once, in no order.
    evaluation = evaluate(Detector(Oracle(), Header(config=config)), woven_tree, batch_size=len(masks))
    assert list(evaluation.metrics.to_dict().values()) == pytest.approx([1.0] * len(METRIC_KEYS))


def test_progress_counts_every_image_once(tiny_detector: Detector, woven_tree: Path, tmp_path: Path) -> None:
    root = _copy(woven_tree, tmp_path / "woven")
    next((root / "test" / "good").iterdir()).write_bytes(b"damaged")
    next(root.rglob("*_mask.png")).write_bytes(b"damaged")
    moved: list[tuple[int, int]] = []
    evaluation = evaluate(tiny_detector, root, progress=lambda done, total: moved.append((done, total)))
    count = len(evaluation.images) + 1
    assert moved[-1] == (count, count)
    assert [done for done, _ in moved] == sorted({done for done, _ in moved})


# ------------------------------------------------------------------------------------------------------------- lacking


def _without_masks(root: Path) -> None:
    shutil.rmtree(root / "ground_truth")


def _without_defects(root: Path) -> None:
    for folder in (root / "test").iterdir():
        if folder.name != "good":
            shutil.rmtree(folder)


def _without_good(root: Path) -> None:
    shutil.rmtree(root / "test" / "good")


def _without_good_and_masks(root: Path) -> None:
    _without_good(root)
    _without_masks(root)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        (_without_masks, set(IMAGE)),
        (_without_defects, set()),
        (_without_good, set(PIXEL)),
        (_without_good_and_masks, set()),
    ],
)
def test_what_cannot_be_known_is_null(
    tiny_detector: Detector, woven_tree: Path, tmp_path: Path, change: Callable[[Path], object], known: set[str]
) -> None:
    root = _copy(woven_tree, tmp_path / "woven")
    change(root)
    evaluation = evaluate(tiny_detector, root)
    assert _known(evaluation) == known
    evaluation.save(tmp_path / "out")
    written = _strictly(tmp_path / "out" / "metrics.json")
    assert {key for key, value in written["metrics"].items() if value is not None} == known
    assert set(written["metrics"]) == set(METRIC_KEYS)
    assert (tmp_path / "out" / "sheet.png").is_file()
    anomalous = sum(image["defect"] != "good" for image in written["images"])
    assert written["anomalous_without_mask"] == (0 if (root / "ground_truth").exists() else anomalous)
    Console(width=140, quiet=True).print(metrics_table([evaluation], "x"))


def test_a_plain_folder_is_good_test_images(tiny_detector: Detector, woven_tree: Path) -> None:
    evaluation = evaluate(tiny_detector, woven_tree / "train" / "good")
    assert len(evaluation.images) == 8
    assert {image.defect for image in evaluation.images} == {"good"}
    assert _known(evaluation) == set()
    assert not evaluation.by_defect


def test_some_masks_are_missing(tiny_detector: Detector, woven_tree: Path, tmp_path: Path) -> None:
    root = _copy(woven_tree, tmp_path / "woven")
    gone = sorted((root / "ground_truth").iterdir())[0]
    shutil.rmtree(gone)
    evaluation = evaluate(tiny_detector, root)
    assert _known(evaluation) == set(METRIC_KEYS)
    assert evaluation.without_mask == 2
    metrics = evaluation.by_defect["woven", gone.name]
    assert metrics.pixel_auroc is None
    assert metrics.image_auroc is not None


def test_damaged_images_and_masks_are_named(tiny_detector: Detector, woven_tree: Path, tmp_path: Path) -> None:
    root = _copy(woven_tree, tmp_path / "woven")
    image, mask = sorted((root / "test" / "good").iterdir())[1], sorted(root.rglob("*_mask.png"))[0]
    for path in (image, mask):
        path.write_bytes(b"damaged")
    evaluation = evaluate(tiny_detector, root)
    assert len(evaluation.unreadable) == 2
    assert str(image) in evaluation.unreadable[0]
    assert str(mask) in evaluation.unreadable[1]
    assert evaluation.without_mask == 1
    assert image.relative_to(root).as_posix() not in {found.name for found in evaluation.images}


def test_a_mask_of_another_shape_is_named(tiny_detector: Detector, woven_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(woven_tree, root)
    cut, small = root / "ground_truth" / "hole" / "000_mask.png", root / "ground_truth" / "hole" / "001_mask.png"
    write_image(cut, read_image(cut)[:20, :50])
    write_image(small, read_image(small)[::2, ::2])  # another resolution is fine
    found = evaluate(tiny_detector, root)
    (said,) = found.unreadable
    assert "000_mask.png" in said
    assert "20×50" in said
    assert "64×64" in said
    assert found.without_mask == 1


def test_nothing_to_evaluate_on(tiny_detector: Detector, woven_tree: Path, tmp_path: Path) -> None:
    only_train = _copy(woven_tree, tmp_path / "train-only", ("test", "ground_truth"))
    with pytest.raises(DataError, match="no test images"):
        evaluate(tiny_detector, only_train)
    with pytest.raises(DataError, match="no such folder"):
        evaluate(tiny_detector, tmp_path / "none")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of its 1 test images can be read; first: .*a\.png"):
        evaluate(tiny_detector, damaged)


# ------------------------------------------------------------------------------------------------------------- written


def test_metrics_json_and_sheet(whole: Evaluation, tmp_path: Path) -> None:
    whole.save(tmp_path / "deep" / "out")
    written = _strictly(tmp_path / "deep" / "out" / "metrics.json")
    assert written == json.loads(json.dumps(whole.to_dict()))
    assert written["metrics"] == whole.metrics.to_dict()
    assert written["input_size"] == [64, 64]
    assert {row["defect"]: row["images"] for row in written["by_defect"]} == dict.fromkeys(
        (defect for _, defect in whole.by_defect), 2
    )
    assert {image["verdict"] for image in written["images"]} <= {"accept", "review", "reject"}
    assert whole.picture is not None
    np.testing.assert_array_equal(read_image(tmp_path / "deep" / "out" / "sheet.png"), whole.picture)
    assert sorted(path.name for path in (tmp_path / "deep" / "out").iterdir()) == ["metrics.json", "sheet.png"]


def test_the_sheet_has_a_row_for_at_most_four_of_each_kind(whole: Evaluation, woven_tree: Path) -> None:
    kinds = 1 + len(whole.by_defect)
    rows = 4 + 2 * (kinds - 1)
    assert whole.picture is not None
    assert whole.picture.shape[0] > rows * 192
    assert whole.picture.shape[0] < (rows + 1) * (192 + 60)


def test_a_folder_that_cannot_be_written(whole: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DraemError, match="cannot be written"):
        whole.save(tmp_path / "file")


def test_public_name() -> None:
    assert draem.evaluate is evaluate


# -------------------------------------------------------------------------------------------------------------- tables


def _printed(table: Any) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_names_with_brackets_are_shown_as_they_are(tiny_detector: Detector, woven_tree: Path, tmp_path: Path) -> None:
    root = _copy(woven_tree, tmp_path / "[red]parts")
    (root / "test" / "good").rename(root / "test" / "[bold]odd")
    shown = _printed(metrics_table([evaluate(tiny_detector, root)], "x[/y] of [link]"))
    for text in ("[red]parts", "[bold]odd", "x[/y] of [link]"):
        assert text in shown


def test_a_header_with_brackets_is_shown_as_it_is() -> None:
    header = Header(config=Config.resolve("fast"), origin="imported from wood[/x].pckl", versions={"[red]": "[/]"})
    shown = _printed(header_table(header))
    assert "wood[/x].pckl" in shown
    assert "[red] [/]" in shown


def test_a_dash_stands_for_what_is_not_known(tiny_detector: Detector, woven_tree: Path) -> None:
    shown = _printed(metrics_table([evaluate(tiny_detector, woven_tree / "train" / "good")], "x"))
    row = next(line for line in shown.splitlines() if " all " in line)
    assert row.count("–") == len(METRIC_KEYS)
    assert "0.0000" not in shown
