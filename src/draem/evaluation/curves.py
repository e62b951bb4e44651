"""ROC, precision-recall and PRO curves, each with the band that holds it with 95 % at every place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from draem.evaluation.bootstrap import Bootstrap
from draem.evaluation.metrics import PRO_MAX_FPR
from draem.evaluation.ranking import Counts, Floats, rankable

_POINTS = 101


@dataclass(frozen=True)
class Curve:
    """Values of `y` over `x`, and their limits: percentiles of the replicates."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats


def curves_of(bootstrap: Bootstrap, category: str | None = None) -> dict[str, Curve]:
    """`image_roc`, `image_pr`, `pixel_pr`, `pro`; what cannot be known is not there."""
    share = np.linspace(0.0, 1.0, _POINTS)
    kinds: dict[str, tuple[Floats, Callable[..., Floats], Iterable[tuple[Any, ...]]]] = {
        "image_roc": (share, _roc, bootstrap.image_counts(category)),
        "image_pr": (share, _precision, bootstrap.image_counts(category)),
        "pixel_pr": (share, _precision, bootstrap.pixel_counts(category)),
        "pro": (share * PRO_MAX_FPR, _overlap, bootstrap.pixel_counts(category)),
    }
    found = {}
    for name, (x, curve, counts) in kinds.items():
        rows = [curve(x, *one) for one in counts if rankable(one[0], one[1])]
        if rows:
            low, high = np.quantile(rows, (0.025, 0.975), axis=0)
            found[name] = Curve(x, rows[0], np.minimum(low, rows[0]), np.maximum(high, rows[0]))
    return found


def _roc(x: Floats, positives: Counts, negatives: Counts) -> Floats:
    """Recall over the false-positive rate."""
    return _at(x, _cumulated(negatives), _cumulated(positives))


def _overlap(x: Floats, positives: Counts, negatives: Counts, overlap: Counts, regions: float) -> Floats:
    """Mean overlap of the regions over the false-positive rate."""
    return _at(x, _cumulated(negatives), np.cumsum(overlap) / regions)


def _precision(x: Floats, positives: Counts, negatives: Counts, *_: Any) -> Floats:
    """Precision at the highest threshold that reaches a recall."""
    found = np.cumsum(positives)
    precision = found / np.maximum(found + np.cumsum(negatives), 1e-12)
    entry = np.searchsorted(found / found[-1], np.maximum(x, 1e-9) - 1e-12)
    return np.asarray(precision[np.minimum(entry, len(precision) - 1)], np.float64)


def _cumulated(counts: Counts) -> Floats:
    total = np.cumsum(counts)
    return np.asarray(total / total[-1], np.float64)


def _at(x: Floats, rate: Floats, value: Floats) -> Floats:
    """The curve from (0, 0) through these points, at x; of points with one rate, the highest."""
    last = np.append(rate[1:] > rate[:-1], True)
    start = 0.0 if rate[0] > 0.0 else float(value[last][0])
    return np.asarray(np.interp(x, np.append(0.0, rate[last]), np.append(start, value[last])), np.float64)
