"""An evaluation as a figure and as HTML: what a notebook shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from draem.evaluation.curves import Curve
from draem.evaluation.metrics import METRIC_KEYS, Metrics
from draem.figures import COLOURS, blank_figure
from draem.modelfile import Thresholds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GOOD, _ANOMALOUS = COLOURS[1], COLOURS[0]
_CURVES = {
    "image_roc": ("images: ROC", "false-positive rate", "recall"),
    "pixel_pr": ("pixels", "recall", "precision"),
    "pro": ("regions: PRO", "false-positive rate", "overlap"),
}


def evaluation_figure(
    scores: Mapping[str, Sequence[float]], thresholds: Thresholds | None, curves: Mapping[str, Curve]
) -> Figure:
    """Scores (by label) with the thresholds, and curves with their bands.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = blank_figure(13.0, 3.6)
    panels = figure.subplots(1, 1 + len(_CURVES))
    _scores(panels[0], scores, thresholds)
    for axes, (name, words) in zip(panels[1:], _CURVES.items(), strict=True):
        axes.set_title(words[0])
        axes.set(xlabel=words[1], ylabel=words[2], ylim=(0.0, 1.02))
        if name in curves:
            _curve(axes, curves[name])
    return figure


def _scores(axes: Axes, scores: Mapping[str, Sequence[float]], thresholds: Thresholds | None) -> None:
    every = [score for some in scores.values() for score in some]
    edges = np.linspace(min(every), max(every) + 1e-6, 31).tolist()
    for (label, some), colour in zip(scores.items(), (_GOOD, _ANOMALOUS), strict=True):
        if some:
            axes.hist(some, edges, color=colour, alpha=0.65, label=f"{label} ({len(some)})")
    if thresholds is not None:
        axes.axvline(thresholds.reject, color="black", label="reject above")
        if thresholds.review is not None:
            axes.axvline(thresholds.review, color="black", linestyle="--", label="review above")
    axes.set(title="image scores", xlabel="score", ylabel="images")
    axes.legend(fontsize="small", frameon=False)


def _curve(axes: Axes, curve: Curve) -> None:
    axes.fill_between(curve.x, curve.low, curve.high, color=_GOOD, alpha=0.2, linewidth=0)
    axes.plot(curve.x, curve.y, color=_GOOD)


def evaluation_html(
    metrics: Metrics, limits: Mapping[str, list[float] | None], images: int, lines: Sequence[str]
) -> str:
    """A table of the metrics with their limits, and lines of text."""
    values = metrics.to_dict()
    rows = []
    for name in METRIC_KEYS:
        value, bounds = values[name], limits[name]
        shown = "–" if value is None else f"{value:.4f}"
        between = "" if bounds is None else "{:.4f} to {:.4f}".format(*bounds)
        rows.append(f"<tr><th>{name.replace('_', ' ')}</th><td>{shown}</td><td>{between}</td></tr>")
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    head = f"<tr><th>{images} images</th><th></th><th>95 %</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>{said}"
