"""Plots of simulated and real defects, H×W×3 uint8 RGB; matplotlib is loaded when the first one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from draem.data.defects import Defect
from draem.figures import COLOURS, blank_figure, drawn
from draem.simulation.coverage import Coverage
from draem.simulation.survey import Survey

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "o^sDvP*X"
_GREY, _LIGHT = "#8c8c8c", "#e4e4e4"
_FAINTEST = 1e-3
_LABELS = {
    "area": "area, share of the image",
    "elongation": "length over width",
    "contrast": "contrast, 1 is black on white",
    "brightness": "brightness, below 0 darker",
    "texture": "roughness, 1 is the surroundings'",
}
_PANELS = (("area", "elongation"), ("area", "contrast"), ("contrast", "texture"), ("brightness", "texture"))


def statistics_plot(survey: Survey, title: str) -> NDArray[np.uint8]:
    """Distributions of simulated anomalies, with the median and the range of the middle 90 %.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = blank_figure(12, 6.4)
    panels = figure.subplots(2, 3).flat
    _histogram(next(panels), survey.areas, "anomalous share of the image")
    _histogram(next(panels), survey.counts, "defects in one image")
    for feature in ("area", "elongation", "contrast", "texture"):
        _histogram(next(panels), _values(survey.defects, feature), f"each defect: {_LABELS[feature]}")
    figure.suptitle(f"{title}: {len(survey.areas)} simulated anomalies, {len(survey.defects)} defects described")
    return drawn(figure)


def coverage_plot(coverage: Coverage, title: str) -> NDArray[np.uint8]:
    """Real defects among simulated ones (grey): a colour for each type of defect, rings around those outside.

    Dotted lines hold 99 % of the simulated ones.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = blank_figure(12, 9.6)
    kinds = coverage.by_kind()
    for axes, (across, up) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        _scatter(axes, coverage, (across, up), list(kinds))
    handles, labels = axes.get_legend_handles_labels()
    said = {kind: f"{kind}: {round(share * count)} of {count} covered" for kind, (count, share) in kinds.items()}
    names = [said.get(label, label) for label in labels]
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, markerscale=1.6)
    figure.suptitle(f"{title}: {coverage.share:.0%} of {len(coverage.real)} real defects lie among the simulated ones")
    return drawn(figure)


def _histogram(axes: Axes, values: ArrayLike, label: str) -> None:
    """Bars on a logarithmic axis; the median and the middle 90 % told. What is empty is left out."""
    numbers = np.asarray(values, np.float64)
    numbers = numbers[numbers > 0]
    axes.set_xlabel(label)
    if not len(numbers):
        return
    low, middle, high = np.percentile(numbers, (5, 50, 95))
    axes.axvspan(low, high, color=_LIGHT, zorder=0)
    axes.hist(numbers, np.geomspace(numbers.min() * 0.95, numbers.max() * 1.05, 31).tolist(), color=COLOURS[1])
    axes.axvline(middle, color=COLOURS[0])
    axes.set_xscale("log")
    axes.set_title(f"median {middle:.2g}, middle 90 %: {low:.2g} to {high:.2g}", fontsize="medium")


def _scatter(axes: Axes, coverage: Coverage, features: tuple[str, str], kinds: Sequence[str]) -> None:
    across, up = features
    defects = coverage.simulated
    axes.scatter(
        _values(defects, across), _values(defects, up), s=5, color=_GREY, alpha=0.35, linewidths=0, label="simulated"
    )
    for feature, line in ((across, axes.axvline), (up, axes.axhline)):
        for end in (coverage.spreads[feature].low, coverage.spreads[feature].high):
            line(_shown(feature, end), color=_GREY, linestyle=":", linewidth=0.9)
    outside = ~coverage.covered
    of = np.array([one.kind for one in coverage.real])
    real = [one.defect for one in coverage.real]
    x, y = _values(real, across), _values(real, up)
    for place, kind in enumerate(kinds):
        some = of == kind
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS) % len(MARKERS)]
        axes.scatter(x[some], y[some], s=16, color=colour, marker=marker, linewidths=0, alpha=0.85, label=kind)
    axes.scatter(x[outside], y[outside], s=48, facecolors="none", edgecolors="black", linewidths=0.6, label="outside")
    for feature, set_scale, set_label in (
        (across, axes.set_xscale, axes.set_xlabel),
        (up, axes.set_yscale, axes.set_ylabel),
    ):
        set_scale("linear" if feature == "brightness" else "log")
        set_label(_LABELS[feature])


def _values(defects: Sequence[Defect], feature: str) -> NDArray[np.float64]:
    return np.array([_shown(feature, getattr(defect, feature)) for defect in defects], np.float64)


def _shown(feature: str, value: float) -> float:
    """What a logarithmic axis can show: a contrast far below a grey level is as good as none."""
    return max(value, _FAINTEST) if feature == "contrast" else value
