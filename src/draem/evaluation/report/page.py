"""The report: summary, thresholds to try, curves, defects, images, data, training, model, certificate."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from draem.config import AnyLayout
from draem.data.layouts import read_layout
from draem.data.samples import Dataset, fingerprint
from draem.errors import DataError
from draem.evaluation.bootstrap import REPLICATES
from draem.evaluation.evaluate import Evaluation, evaluate_dataset, samples_to_test
from draem.evaluation.found import by_kind, by_size
from draem.evaluation.operating import VERDICTS, Line, Share
from draem.evaluation.report.charts import curve_chart, history_chart, score_chart
from draem.evaluation.report.strips import PANELS, Strip, Strips
from draem.inspection.calibration import CONFIDENT
from draem.inspection.described import doubtful, header_rows
from draem.inspection.detector import Detector
from draem.inspection.execution import Execution
from draem.modelfile import Header, Verdict
from draem.modelfile.thresholds import percent
from draem.pages import environment, write_page

_CURVES = {
    "image_roc": ("Images: ROC", "false-positive rate", "recall"),
    "image_pr": ("Images: precision and recall", "recall", "precision"),
    "pixel_pr": ("Pixels: precision and recall", "recall", "precision"),
    "pro": ("Pixels: overlap of regions (PRO)", "false-positive rate", "overlap"),
}
_HISTORY = {"loss": "loss", "val_pixel_ap": "pixel AP on simulated defects"}
_FEW = 59
"""Good images below which their rejected share is hardly known: none of 59 still leaves 5 %."""
_USE = (
    "For images of the kind, camera and light that it was trained on. It finds what looks unlike good parts; it does "
    "not know what a defect is, and what it was never tested on may escape. Its thresholds promise what is said of "
    "them, and only for parts that come about as those did that they were chosen on: check it again after any change "
    "of the line."
)


def report(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    layout: AnyLayout = "auto",
    category: str | None = None,
    profile: str | None = None,
    line: Line | None = None,
    execution: Execution | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Evaluate a model on labelled images and write it as one HTML file that loads nothing from elsewhere.

    Args:
        model: a model file of any kind.
        data: a data set whose layout is understood; a folder of good images has scores and no metrics.
        out: the page, NAME.html; it is written whole or not at all.
        layout: how the data set lies in its folders; found by itself unless told.
        category: which of several categories; `all` for all of them.
        profile: the camera or product whose thresholds are taken.
        line: where such parts are made, which the page begins with: 1,000 parts an hour unless told.
        execution: how the model is run.
        batch_size: images in one run of the network.
        progress: called with the images done and their number.

    Raises:
        DataError: there are no test images, none can be read, or `out` is no name of a page.
        MissingExtraError: Jinja2 is not installed.
    """
    page = Path(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"{page}: the report is one page; give a name that ends in .html")
    environment()  # before the work: tells at once where Jinja2 is missing
    dataset = read_layout(Path(data), layout, category)
    detector = Detector.open(Path(model), execution or Execution(), profile)
    strips = Strips(detector.header.thresholds)
    found = evaluate_dataset(detector, dataset, batch_size=batch_size, progress=progress, watch=strips.add)
    found = replace(found, line=line)
    write_page(page, "report", _values(Path(model), profile, detector, dataset, found, strips.worst_first()))
    return found


def _values(
    model: Path, profile: str | None, detector: Detector, dataset: Dataset, found: Evaluation, strips: Sequence[Strip]
) -> dict[str, Any]:
    header, thresholds = detector.header, found.thresholds
    scores = found.scores()
    history = _history(model)
    parts = {
        "scores": "Scores and thresholds",
        "curves": "Curves" if found.curves else "",
        "defects": "Defects",
        "gallery": "Images",
        "data": "Data",
        "training": "Training" if history else "",
        "model": "Model",
        "certificate": "Certificate" if header.artefact and header.artefact.certificate else "",
    }
    facts = {
        "command": shlex.join(["draem", "set", *(["--profile", profile] if profile else []), model.name]),
        "reject": None if thresholds is None else thresholds.reject,
        "review": None if thresholds is None else thresholds.review,
        **scores,
        "lost": {label: [one.lost for one in found.images if one.label == label] for label in scores},
    }
    return {
        "title": f"Report on {dataset.name}",
        "lead": _lead(found, detector),
        "contents": [("summary", "Summary"), *((anchor, name) for anchor, name in parts.items() if name)],
        "tiles": _tiles(found),
        "said": _said(found),
        "doubts": _doubts(found, header, len(scores["good"])),
        "score_chart": _markup(score_chart(scores["good"], scores["anomalous"])),
        "counts": {label: _counts(found.shares(label)) for label in scores},
        "curves": [
            {"svg": _markup(curve_chart(curve, *_CURVES[name])), "said": _CURVES[name][0]}
            for name, curve in found.curves.items()
        ],
        "replicates": REPLICATES,
        "kinds": _kinds(found),
        "sizes": [
            {"name": f"{one.low:g} to {one.high:g}", "cells": [one.share.of, one.share.count, _share(one.share)]}
            for one in by_size(found.defects)
        ],
        "strips": [_strip(strip, len(dataset.categories) > 1) for strip in strips],
        "pictured": f"{len(strips)} of {len(found.images)} images, the worst decisions first.",
        "filters": sorted({_kind(strip, len(dataset.categories) > 1) for strip in strips}),
        "panels": PANELS,
        "data": _data_rows(dataset, found),
        "history": history,
        "use": _USE,
        "model": list(header_rows(header).items()),
        "certificate": _certificate(header),
        "line": found.line or Line(1000),
        "facts": _markup(json.dumps(facts, allow_nan=False).replace("<", "\\u003c")),
        "version": version("draem"),
        "made_on": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _markup(text: str) -> Any:
    """Text that is markup already, of our own making."""
    from markupsafe import Markup

    return Markup(text)


def _lead(found: Evaluation, detector: Detector) -> str:
    at = "their own size" if found.input_size is None else "{}×{}".format(*found.input_size)
    images = f"{len(found.images)} images, metrics at {at}, run by {detector.backend.execution}."
    if found.thresholds is None:
        return f"{images} The model has no threshold: scores without verdicts."
    parts = [
        f"{share.count} of {share.of} {what}"
        for what, share in (
            ("good images are rejected", found.false_rejects),
            ("anomalous ones accepted", found.escapes),
        )
        if share is not None
    ]
    return f"{images} At the model's thresholds {', '.join(parts)}."


def _tiles(found: Evaluation) -> list[dict[str, str]]:
    limits = found.intervals
    tiles = [
        {"name": name, "value": f"{value:.3f}", "limits": _limits(limits[key])}
        for name, key in (("Image AUROC", "image_auroc"), ("Pixel AP", "pixel_ap"), ("AUPRO", "pixel_aupro"))
        if (value := getattr(found.metrics, key)) is not None
    ]
    for name, share, label in (
        ("Anomalous, accepted", found.escapes, "anomalous"),
        ("Good, rejected", found.false_rejects, "good"),
    ):
        if share is not None:
            low, high = share.limits
            limits_of = f"95 %: {percent(low)} to {percent(high)}"
            if found.reviews:
                limits_of += f"; {found.shares(label)['review'].count} to review"
            tiles.append({"name": name, "value": f"{share.count} of {share.of}", "limits": limits_of})
    return tiles


def _limits(values: list[float] | None) -> str:
    return "" if values is None else "95 %: {:.3f} to {:.3f}".format(*values)


def _said(found: Evaluation) -> list[str]:
    lines = found.beyond_verdicts()
    if found.thresholds is not None:
        lines.append(f"Thresholds: {found.thresholds.chosen_on}")
    return [line[0].upper() + line[1:] + "." for line in lines]


def _doubts(found: Evaluation, header: Header, good: int) -> list[str]:
    """What a reader must know before she signs."""
    lines = []
    thresholds = found.thresholds
    if thresholds is None:
        lines.append("There is no threshold: draem calibrate chooses one.")
    elif thresholds.reject_promise is None:
        lines.append("The threshold promises nothing: draem calibrate chooses one that does.")
    if good < _FEW:
        least = f"even if none of {good} is rejected, {percent(CONFIDENT.best_rate(good))} may be" if good else "none"
        lines.append(f"Few good images: {least} (95 % confidence).")
    if found.known:
        lines.append(
            f"{found.known} of these images trained the model or chose its thresholds: what is said here is flattered."
        )
    if found.unplaced:
        lines.append(f"The part was not found on {found.unplaced} images: inspected as they lie, and not accepted.")
    if found.without_mask:
        lines.append(f"{found.without_mask} anomalous images have no mask: pixel metrics are without them.")
    if found.unreadable:
        lines.append(f"{len(found.unreadable)} files could not be read; the first: {found.unreadable[0]}.")
    lines += [f"Certificate: {header_rows(header)[row]}." for row in sorted(doubtful(header))]
    return lines


def _counts(found: Mapping[Verdict, Share]) -> dict[str, str]:
    told = {name: f"{share.count} ({share.value:.1%})" for name, share in found.items()}
    return {name: told.get(name, "–") for name in VERDICTS}


def _share(share: Share) -> str:
    return "{:.3f}, {:.3f} to {:.3f}".format(share.value, *share.limits)


def _kinds(found: Evaluation) -> list[dict[str, Any]]:
    singles, several = by_kind(found.defects), len(found.by_category) > 1
    rows = []
    for (category, kind), metrics in found.by_defect.items():
        verdicts = [one.verdict for one in found.images if (one.category, one.defect) == (category, kind)]
        seen = "–"
        if found.thresholds is not None:
            seen = _share(Share(len(verdicts) - verdicts.count("accept"), len(verdicts)))
        figures = [
            "–" if value is None else f"{value:.3f}"
            for value in (metrics.image_auroc, metrics.pixel_ap, metrics.pixel_aupro)
        ]
        single = singles.get((category, kind))
        cells = [len(verdicts), seen, *figures, "–" if single is None else f"{single.count} of {single.of}"]
        rows.append({"name": f"{category}: {kind}" if several else kind, "cells": cells})
    return rows


def _kind(strip: Strip, several: bool) -> str:
    return f"{strip.category}: {strip.defect}" if several else strip.defect


def _strip(strip: Strip, several: bool) -> dict[str, Any]:
    lost = ", part not found" if strip.lost else ""
    unusual = "" if strip.p_value is None else f", p-value {strip.p_value:.3g}"
    height = 168 if strip.ratio <= 1 else 168 / strip.ratio
    return {
        "name": strip.name,
        "label": strip.label,
        "kind": _kind(strip, several),
        "score": repr(strip.score),
        "shown_score": f"{strip.score:.4f}",
        "verdict": strip.verdict or "–",
        "lost": str(strip.lost).lower(),
        "source": strip.source,
        "alt": f"{strip.name}, {strip.defect}: {', '.join(PANELS)}",
        "width": round(5 * height * strip.ratio),
        "height": round(height),
        "said": f"{strip.label}, {strip.defect}{lost}; score {strip.score:.4f}{unusual}; {strip.milliseconds:.1f} ms",
        "regions": strip.regions,
    }


def _data_rows(dataset: Dataset, found: Evaluation) -> list[tuple[str, str]]:
    kinds = Counter(
        f"{one.category}: {one.defect}" if len(found.by_category) > 1 else one.defect for one in found.images
    )
    tested = samples_to_test(dataset)
    return [
        ("name", dataset.name),
        ("layout", dataset.layout),
        ("tested", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))),
        ("good images to train with", str(len(dataset.train_good))),
        ("fingerprint of the tested", fingerprint(tested)),
        ("could not be read", ", ".join(found.unreadable[:5]) or "none"),
    ]


def _history(model: Path) -> list[dict[str, Any]]:
    """Curves of the training, from the metrics.csv beside the model; none without one that can be understood."""
    try:
        with (model.parent / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        charts = []
        for key, name in _HISTORY.items():
            points = [(float(row["images"]), float(row[key])) for row in rows if row.get(key)]
            points = [point for point in points if all(map(math.isfinite, point))]
            if len(points) > 1:
                x, y = zip(*points, strict=True)
                charts.append(
                    {"svg": _markup(history_chart(x, y, "images seen", name)), "said": name[0].upper() + name[1:]}
                )
    except (OSError, KeyError, ValueError, csv.Error):
        return []
    return charts


def _certificate(header: Header) -> list[dict[str, str]]:
    certificate = header.artefact.certificate if header.artefact else None
    if certificate is None:
        return []
    return [
        {
            "name": image.name,
            "before": f"{image.score_before:.4f}",
            "after": f"{image.score_after:.4f}",
            "map": f"{image.map_max:.2e}",
        }
        for image in sorted(certificate.images, key=lambda image: -abs(image.score_after - image.score_before))
    ]
