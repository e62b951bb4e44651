"""Figures and HTML of predictions and evaluations say what these hold."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from draem.evaluation.evaluate import Evaluation, evaluate
from draem.figures import drawn
from draem.inspection.detector import Detector
from draem.modelfile import Reference, Thresholds


@pytest.fixture(scope="module")
def evaluation(tiny_detector: Detector, woven_tree: Path) -> Evaluation:
    return evaluate(tiny_detector, woven_tree)


def test_a_prediction_as_a_figure(tiny_detector: Detector, woven_tree: Path) -> None:
    found = tiny_detector.predict(woven_tree / "test" / "hole" / "000.png")
    figure = found.plot()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["image", "reconstruction", "anomaly map", "regions"]
    shown = figure.axes[2].images[0].get_array()
    assert shown is not None
    np.testing.assert_array_equal(np.asarray(shown), found.input_map)
    np.testing.assert_array_equal(np.asarray(figure.axes[3].images[0].get_array()), found.overlay())
    assert figure.get_suptitle() == found.in_words()
    assert drawn(figure).shape[2] == 3


def test_a_prediction_in_a_notebook(tiny_detector: Detector) -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    found = tiny_detector.predict(image)
    text = found._repr_html_()
    assert "array: " in text
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    data = [np.frombuffer(base64.b64decode(picture), np.uint8) for picture in pictures]
    decoded = [cv2.imdecode(one, cv2.IMREAD_COLOR) for one in data]
    assert [np.shape(np.asarray(one)) for one in decoded] == [(40, 50, 3), (40, 50, 3)]
    assert "http" not in text


def test_words_name_what_is_known(tiny_detector: Detector) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    header = tiny_detector.header
    blind = Detector(tiny_detector.backend, header.model_copy(update={"thresholds": None})).predict(image)
    assert re.fullmatch(r"array: no threshold \(score 0\.\d{4}\)", blind.in_words())
    known = header.model_copy(
        update={"thresholds": Thresholds(reject=0.01, chosen_on="x"), "reference": Reference(scores=[0.0, 0.0])}
    )
    seen = Detector(tiny_detector.backend, known).predict(image)
    assert "array: reject (score 0." in seen.in_words()
    assert "threshold 0.0100, p-value 0.333)" in seen.in_words()


def test_an_evaluation_as_a_figure(evaluation: Evaluation) -> None:
    figure = evaluation.plot()
    assert [axes.get_title() for axes in figure.axes] == ["image scores", "images: ROC", "pixels", "regions: PRO"]
    bars = sum(patch.get_height() for patch in figure.axes[0].patches if isinstance(patch, Rectangle))
    assert bars == len(evaluation.images)
    assert evaluation.thresholds is not None
    lines = [line.get_xdata()[0] for line in figure.axes[0].lines]  # type: ignore[index]
    assert lines == [evaluation.thresholds.reject, evaluation.thresholds.review]
    for axes, name in zip(figure.axes[1:], ("image_roc", "pixel_pr", "pro"), strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), evaluation.curves[name].y)
    assert drawn(figure).shape[2] == 3


def test_an_evaluation_in_a_notebook(evaluation: Evaluation) -> None:
    text = evaluation._repr_html_()
    assert f"{len(evaluation.images)} images" in text
    assert f"<th>image auroc</th><td>{evaluation.metrics.image_auroc:.4f}</td>" in text
    assert "good images rejected" in text


def test_a_detector_in_a_notebook(tiny_detector: Detector) -> None:
    header = tiny_detector.header.model_copy(update={"origin": "<script>"})
    text = Detector(tiny_detector.backend, header)._repr_html_()
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert f"run by {tiny_detector.backend.execution}" in text
