"""The report says what the evaluation found, loads nothing, and its thresholds can be tried in a browser.

The model's score is an image's brightness, so that every verdict is known.
"""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import draem
from conftest import Outcome
from draem.data.samples import Sample
from draem.errors import DataError
from draem.evaluation.calibrate import Rule, calibrate
from draem.evaluation.evaluate import Evaluation, evaluate
from draem.evaluation.report import strips
from draem.evaluation.report.charts import curve_chart, history_chart, score_chart
from draem.evaluation.report.page import report
from draem.evaluation.report.strips import Strips
from draem.images import write_image
from draem.inspection.calibration import ON_AVERAGE
from draem.inspection.prediction import Prediction
from draem.modelfile import RegionOfInterest, Thresholds, edit_header, read_header
from graphs import SIZE, WEIGHT, brightness_header, write_brightness

GOOD, BAD = range(40, 80), range(60, 100)
LEVEL = 69.5


def _score(level: float) -> float:
    return WEIGHT * level / 255


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good images of brightness 40 … 79, anomalous ones of 60 … 99 whose left half is the defect."""
    root = tmp_path_factory.mktemp("data") / "part <b>&"
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:, : SIZE // 2] = 255
    for kind, levels in (("good", GOOD), ("bright", BAD)):
        for number, level in enumerate(levels):
            write_image(root / "test" / kind / f"{number:02d}.png", np.full((SIZE, SIZE, 3), level, np.uint8))
            if kind == "bright":
                write_image(root / "ground_truth" / kind / f"{number:02d}_mask.png", mask)
    write_image(root / "train" / "good" / "0.png", np.full((SIZE, SIZE, 3), 50, np.uint8))
    return root


def _model(folder: Path, thresholds: Thresholds | None = None) -> Path:
    return write_brightness(folder / "model.onnx", brightness_header(thresholds))


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    """A report with a review zone from 59.5 to 69.5, and what it was made of."""
    folder = tmp_path_factory.mktemp("report")
    thresholds = Thresholds(reject=_score(LEVEL), review=_score(59.5), chosen_on="a <test>'s")
    model = _model(folder, thresholds)
    (folder / "metrics.csv").write_text("images,loss,val_pixel_ap\n80,1.5,\n160,0.5,0.25\n240,0.25,0.75\n")
    return folder / "report.html", report(model, data, folder / "report.html")


class _Page(HTMLParser):
    """What a page would load, and whether every element is closed."""

    VOID = ("meta", "img", "input", "br", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.labels: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "data", "action", "xlink:href")]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.labels += [found["for"] or ""] if tag == "label" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# ------------------------------------------------------------------------------------------------------------- the page


def test_nothing_is_loaded_from_elsewhere(made: tuple[Path, Evaluation]) -> None:
    page = _Page(made[0].read_text(encoding="utf-8"))
    assert page.open == []
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for value in page.loaded)
    assert {value[1:] for value in page.loaded if value.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.labels) <= set(page.ids)


def test_it_says_what_was_found(made: tuple[Path, Evaluation]) -> None:
    path, found = made
    text = path.read_text(encoding="utf-8")
    assert "part &lt;b&gt;&amp;" in text
    assert "<b>&" not in text
    assert "A &lt;test&gt;&#39;s" in text or "a &lt;test&gt;&#39;s" in text
    assert f"{found.metrics.image_auroc:.3f}" in text
    assert "10 of 40 good images are rejected, 0 of 40 anomalous ones accepted" in text
    assert "The threshold promises nothing" in text
    assert "Few good images: even if none of 40 is rejected, 7.22% may be" in text
    assert "Pixel AP on simulated defects" in text
    assert "Certificate" not in text
    facts = json.loads(re.findall(r'id="facts">(.*?)</script>', text)[0])
    assert facts["good"] == [image.score for image in found.images if image.label == "good"]
    assert (facts["reject"], facts["review"]) == (_score(LEVEL), _score(59.5))


def test_it_is_the_evaluation(made: tuple[Path, Evaluation], data: Path) -> None:
    path, found = made
    assert found.metrics == evaluate(draem.load(path.with_name("model.onnx")), data).metrics


def test_a_calibrated_threshold_gives_no_doubt(data: Path, tmp_path: Path) -> None:
    model = _model(tmp_path)
    report(model, data, tmp_path / "none.html")
    text = (tmp_path / "none.html").read_text(encoding="utf-8")
    assert "There is no threshold: draem calibrate chooses one." in text
    assert "scores without verdicts" in text
    calibrate(model, data / "test" / "good", Rule(false_reject=0.1, assurance=ON_AVERAGE))
    report(model, data, tmp_path / "promised.html")
    text = (tmp_path / "promised.html").read_text(encoding="utf-8")
    assert "promises nothing" not in text
    assert "on average at most 10% of good parts score above" in text
    assert "p-value" in text


def test_thresholds_chosen_on_these_images_are_doubted(data: Path, tmp_path: Path) -> None:
    model = _model(tmp_path)
    calibrate(model, data, Rule(f1=True), profile="cam")
    report(model, data, tmp_path / "r.html", profile="cam")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "80 of these images trained the model or chose its thresholds" in text
    facts = json.loads(re.findall(r'id="facts">(.*?)</script>', text)[0])
    assert facts["command"] == "draem set --profile cam model.onnx"


def test_only_good_images(data: Path, tmp_path: Path) -> None:
    model = _model(tmp_path, Thresholds(reject=_score(LEVEL), chosen_on="a test's"))
    found = report(model, data / "test" / "good", tmp_path / "good.html")
    assert found.curves == {}
    _Page((tmp_path / "good.html").read_text(encoding="utf-8"))


def test_the_command(run_cli: Callable[..., Outcome], data: Path, tmp_path: Path) -> None:
    model = _model(tmp_path, Thresholds(reject=_score(LEVEL), chosen_on="a test's"))
    ended = run_cli("report", model, data, "--out", tmp_path / "r.html", "--parts-per-hour", 321.5, "--json")
    assert ended.code == 0, ended.err
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall(r'id="(speed|shift|rate)"[^>]* value="([^"]+)"', page) == [
        ("speed", "321.5"),
        ("shift", "8.0"),
        ("rate", "1.0"),
    ]
    assert "a shift of 2,572 parts" in ended.out
    assert json.loads(ended.out.splitlines()[-1])["report"] == str(tmp_path / "r.html")
    assert "good images rejected: 10 of 40" in ended.out
    for out in (tmp_path / "r.pdf", tmp_path):
        ended = run_cli("report", model, data, "--out", out)
        assert ended.code == 1
        assert "ends in .html" in ended.err
    with pytest.raises(DataError, match="ends in"):
        report(model, data, tmp_path / "report")


# --------------------------------------------------------------------------------------------------------------- strips


def test_the_worst_come_first_and_few_are_kept(data: Path, tmp_path: Path) -> None:
    detector = draem.load(_model(tmp_path, Thresholds(reject=_score(LEVEL), chosen_on="a test's")))
    strips = Strips(detector.header.thresholds, 12)
    wrongness = {}
    for kind, levels, label in (("good", GOOD, 1), ("bright", BAD, -1)):
        for number, level in enumerate(levels):
            path = data / "test" / kind / f"{number:02d}.png"
            name = f"{kind}/{number:02d}.png"
            wrongness[name] = label * (_score(level) - _score(LEVEL))
            which: Any = "good" if kind == "good" else "anomalous"
            strips.add(Sample(path, name, "test", "part", which, kind, None), detector.predict(path), None)
    kept = [strip.name for strip in strips.worst_first()]
    worst = sorted(wrongness, key=lambda name: -wrongness[name])
    assert [wrongness[name] for name in kept] == pytest.approx([wrongness[name] for name in worst[:12]])
    assert all(strip.source.startswith("data:image/jpeg;base64,") for strip in strips.worst_first())


def test_no_difference_is_shown_where_nothing_counts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network sees grey there, and reconstructs that."""
    model = _model(tmp_path)
    half = RegionOfInterest(inspect=[[(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]])
    edit_header(model, read_header(model).model_copy(update={"region": half}))
    path = data / "test" / "bright" / "00.png"
    prediction = draem.load(model).predict(path)
    prediction = replace(prediction, reconstruction=np.full_like(prediction.reconstruction, 200))
    shown: list[Any] = []

    def noted(values: Any) -> Any:
        shown.append(values)
        return np.zeros((*values.shape, 3), np.uint8)

    monkeypatch.setattr(strips, "heat_map", noted)
    Strips(None).add(Sample(path, "a", "test", "part", "anomalous", "bright", None), prediction, None)
    difference = shown[0]
    assert (difference[:, : SIZE // 2] > 0).all()
    assert not difference[:, SIZE // 2 :].any()


# --------------------------------------------------------------------------------------------------------------- charts


def test_charts_are_well_formed_and_say_what_they_show(made: tuple[Path, Evaluation]) -> None:
    _, found = made
    charts = [curve_chart(curve, name, "x <", 'y "') for name, curve in found.curves.items()]
    charts += [
        score_chart([0.1, 0.2], [0.9]),
        score_chart([0.5], []),
        history_chart([1, 2, 3], [0.3, 2.0, 1.0], "x", "y"),
    ]
    for chart in charts:
        root = xml.etree.ElementTree.fromstring(chart)
        assert root.get("aria-label")
        for element in root.iter():
            for number in re.findall(r"-?\d+\.\d+", " ".join(element.attrib.values())):
                assert np.isfinite(float(number))


def test_bars_are_the_shares_of_the_images() -> None:
    root = xml.etree.ElementTree.fromstring(score_chart([0.1, 0.1, 0.1, 0.5], [0.9, 0.7]))
    bars = [element for element in root if (element.get("class") or "").startswith("bar")]
    heights = sorted(float(bar.get("height") or 0) for bar in bars)
    assert len(heights) == 4
    tallest = heights[-1]
    assert np.divide(heights, tallest) == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1], abs=0.01)


# -------------------------------------------------------------------------------------------------------------- browser


@pytest.fixture(scope="module")
def browser(made: tuple[Path, Evaluation]) -> Iterator[Any]:
    """Chromium without a window, with the report; skipped where there is none."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its driver on this machine")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    quiet = (
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "no-first-run",
        "disable-quic",
    )
    for word in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1200,900", *quiet):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.get(made[0].as_uri())
    yield chrome
    chrome.quit()


def _table(browser: Any) -> dict[str, list[int]]:
    """Accept, review and reject as the page counts them now."""
    script = (
        "return ['accept', 'review', 'reject'].map(v => document.getElementById(arguments[0] + '-' + v).textContent)"
    )
    return {
        label: [int(text.split()[0]) for text in browser.execute_script(script, label)]
        for label in ("good", "anomalous")
    }


def _counts(evaluation: Evaluation, reject: float, review: float | None) -> dict[str, list[int]]:
    thresholds = Thresholds(reject=reject, review=review, chosen_on="a test's")
    return {
        label: [
            sum(thresholds.verdict(one.score) == verdict for one in evaluation.images if one.label == label)
            for verdict in ("accept", "review", "reject")
        ]
        for label in ("good", "anomalous")
    }


def _slide(browser: Any, name: str, value: float) -> float:
    """Move a slider to a score; returns the one that it can be moved to."""
    script = """
      const slider = document.getElementById(arguments[0]), value = arguments[1];
      const chart = document.getElementById("scores-chart");
      const [low, high] = [Number(chart.dataset.low), Number(chart.dataset.high)];
      slider.value = Math.round((value - low) / (high - low) * Number(slider.max));
      slider.dispatchEvent(new Event("input", {bubbles: true}));
      return low + (high - low) * Number(slider.value) / Number(slider.max);
    """
    return float(browser.execute_script(script, name, value))


def test_the_thresholds_of_the_model_stay_exact(browser: Any, made: tuple[Path, Evaluation]) -> None:
    assert _table(browser) == _counts(made[1], _score(LEVEL), _score(59.5))
    command = browser.execute_script("return document.getElementById('command').textContent")
    assert command == f"draem set model.onnx threshold={_score(LEVEL)!r} review={_score(59.5)!r}"


def test_sliders_count_anew(browser: Any, made: tuple[Path, Evaluation]) -> None:
    for level in (50.5, 75.5, 90.5, 66.5):
        reject = _slide(browser, "reject", _score(level))
        review = None if level == 50.5 else _slide(browser, "review", _score(level - 5))
        assert _table(browser) == _counts(made[1], reject, review)
        good = _counts(made[1], reject, review)["good"]
        told = browser.execute_script("return document.getElementById('per-shift').textContent")
        assert f"{8000 * 0.99 * good[2] / 40:,.0f} false rejects" in told or good[2] == 0
        wrong = browser.execute_script("return document.querySelectorAll('.gallery .wrong').length")
        bad = _counts(made[1], reject, review)["anomalous"]
        assert wrong == good[1] + good[2] + bad[0]
    assert browser.get_log("browser") == []


def test_without_thresholds_there_are_no_verdicts_until_one_is_moved(
    browser: Any, made: tuple[Path, Evaluation], data: Path, tmp_path: Path
) -> None:
    report(_model(tmp_path), data, tmp_path / "none.html")
    browser.get((tmp_path / "none.html").as_uri())
    cells = "return Array.from(document.querySelectorAll('[id^=good-], [id^=anomalous-]')).map(c => c.textContent)"
    assert set(browser.execute_script(cells)) == {"–"}
    assert browser.execute_script("return document.querySelectorAll('.wrong').length") == 0
    assert browser.execute_script("return document.getElementById('command').textContent") == ""
    reject = _slide(browser, "reject", _score(LEVEL))
    assert _table(browser) == _counts(made[1], reject, None)
    assert browser.get_log("browser") == []
    browser.get(made[0].as_uri())


def test_no_threshold_accepts_a_part_that_was_not_found(
    browser: Any, made: tuple[Path, Evaluation], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: the darkest ones."""
    monkeypatch.setattr(Prediction, "lost", property(lambda self: self.score < _score(55.5)))
    report(_model(tmp_path, Thresholds(reject=_score(LEVEL), chosen_on="a test's")), data, tmp_path / "lost.html")
    browser.get((tmp_path / "lost.html").as_uri())
    for level in (LEVEL, 75.5, 90.5):
        reject = _slide(browser, "reject", _score(level))
        for label, (accepted, _, rejected) in _counts(made[1], reject, None).items():
            lost = sum(one.score < _score(55.5) for one in made[1].images if one.label == label)
            assert _table(browser)[label] == [accepted - lost, lost, rejected]
            assert lost > 0 or label == "anomalous"
        badges = (
            "return Array.from(document.querySelectorAll('#images > li[data-lost=true] .verdict'), b => b.textContent)"
        )
        assert set(browser.execute_script(badges)) == {"review"}
    browser.get(made[0].as_uri())


def test_order_and_filter(browser: Any, made: tuple[Path, Evaluation]) -> None:
    shown = "Array.from(document.querySelectorAll('#images > li:not([hidden])'))"
    scores = f"return {shown}.map(card => Number(card.dataset.score))"
    choose = """
      const select = document.getElementById(arguments[0]);
      select.value = arguments[1];
      select.dispatchEvent(new Event("change"));
    """
    worst = browser.execute_script(scores)
    browser.execute_script(choose, "order", "high")
    assert browser.execute_script(scores) == sorted(worst, reverse=True)
    browser.execute_script(choose, "order", "low")
    assert browser.execute_script(scores) == sorted(worst)
    browser.execute_script(choose, "order", "worst")
    assert browser.execute_script(scores) == worst
    browser.execute_script(choose, "show", "bright")
    assert len(browser.execute_script(scores)) == 40
    assert "40 of 80 images" in browser.execute_script("return document.getElementById('shown').textContent")
    browser.execute_script(choose, "show", "wrong")
    wrong = browser.execute_script("return document.querySelectorAll('.wrong').length")
    assert len(browser.execute_script(scores)) == wrong
    browser.execute_script(choose, "show", "all")


def test_the_keyboard_suffices(browser: Any) -> None:
    """Tab reaches every control in its order; arrows move a slider, Enter opens an image's why."""
    from selenium.webdriver.common.keys import Keys

    browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = []
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(browser.execute_script("return document.activeElement.id || document.activeElement.tagName"))
    for name in ("reject", "review", "speed", "shift", "rate", "show", "order", "SUMMARY"):
        assert name in reached, name
    slider = browser.execute_script("const s = document.getElementById('reject'); s.focus(); return s")
    before = browser.execute_script("return document.getElementById('reject-value').textContent")
    slider.send_keys(Keys.ARROW_RIGHT * 10)
    assert browser.execute_script("return document.getElementById('reject-value').textContent") != before
    summary = browser.execute_script("const s = document.querySelector('#images summary'); s.focus(); return s")
    summary.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.querySelector('#images details').open")
    panels = "return getComputedStyle(document.querySelector('details[open] .panels')).display"
    assert browser.execute_script(panels) == "grid"


def test_nothing_is_asked_for_on_the_network(browser: Any) -> None:
    entries = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in entries if not name.startswith("data:")] == []
