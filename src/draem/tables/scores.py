"""Tables of scores: metrics, single defects, two models, thresholds."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from draem.evaluation.calibrate import Calibration
from draem.evaluation.compare import Comparison
from draem.evaluation.evaluate import Evaluation
from draem.evaluation.found import by_kind, by_size
from draem.evaluation.metrics import METRIC_KEYS, Metrics
from draem.evaluation.operating import VERDICTS, Share
from draem.tables.console import figure, right_aligned


def metrics_table(evaluations: Sequence[Evaluation], title: str, mean: Metrics | None = None) -> Table:
    """A row for each category and each of its defect types, and one for the mean of several evaluations.

    Below a category's figures stand the limits that hold them with 95 %. A dash stands for what cannot be known.
    """
    table = Table(title=escape(title), title_justify="left")
    table.add_column("category")
    table.add_column("defect")
    table.add_column("images", justify="right")
    for key in METRIC_KEYS:
        table.add_column(key.replace("_", " "), justify="right")
    for evaluation in evaluations:
        for category, metrics in evaluation.by_category.items():
            table.add_row(escape(category), "all", str(evaluation.count(category)), *_cells(metrics), style="bold")
            limits = evaluation.category_intervals(category)
            table.add_row("", "95 %", "", *(_limits(limits[key]) for key in METRIC_KEYS), style="dim")
            for (owner, defect), part in evaluation.by_defect.items():
                if owner == category:
                    table.add_row("", escape(defect), str(evaluation.count(category, defect)), *_cells(part))
    if mean is not None:
        images = sum(evaluation.count() for evaluation in evaluations)
        table.add_row("mean", "", str(images), *_cells(mean), style="bold")
    return table


def _limits(found: list[float] | None) -> str:
    return "–" if found is None else "{:.3f}–{:.3f}".format(*found)


def recall_table(evaluation: Evaluation) -> Table:
    """How many single defects are found, by type and by size, with 95 % limits."""
    table = Table(
        "defects", *right_aligned("found", "of", "recall", "95 %"), title="single defects", title_justify="left"
    )
    for (category, kind), share in by_kind(evaluation.defects).items():
        name = kind if len(evaluation.by_category) == 1 else f"{category}: {kind}"
        table.add_row(escape(name), *_recall(share))
    table.add_section()
    for one in by_size(evaluation.defects):
        table.add_row(f"{one.low:g} to {one.high:g} pixels across", *_recall(one.share))
    return table


def comparison_table(found: Comparison, names: tuple[str, str]) -> Table:
    """Each metric of two models, their difference, its 95 % limits, and how sure the second is better."""
    table = Table("", *right_aligned(*(escape(name) for name in names), "difference", "95 %", "second is better"))
    for name, one in found.differences.items():
        limits = f"{one.low:+.4f} to {one.high:+.4f}"
        cells = (f"{one.first:.4f}", f"{one.second:.4f}", f"{one.value:+.4f}", limits, f"{one.better:.1%}")
        sure = one.low > 0.0 or one.high < 0.0
        table.add_row(name.replace("_", " "), *cells, style="bold" if sure else None)
    return table


def _recall(share: Share) -> tuple[str, ...]:
    return str(share.count), str(share.of), f"{share.value:.3f}", "{:.3f}–{:.3f}".format(*share.limits)


def calibration_table(found: Calibration) -> Table:
    """What each verdict gets of a thousand good and of a thousand anomalous parts, with 95 % limits."""
    table = Table("of 1,000 parts", *right_aligned("good", "anomalous"))
    parts = found.good_shares, found.anomalous_shares
    for verdict in VERDICTS:
        if verdict != "review" or found.thresholds.review is not None:
            table.add_row(verdict, *(_per_thousand(part.get(verdict)) for part in parts))
    return table


def _per_thousand(share: Share | None) -> str:
    if share is None:
        return "–"
    low, high = share.limits
    return f"{1000 * share.value:.1f} ({1000 * low:.1f} to {1000 * high:.1f})"


def _cells(metrics: Metrics) -> list[str]:
    return [figure(value) for value in metrics.to_dict().values()]
