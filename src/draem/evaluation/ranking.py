"""Ranking metrics from counts: how many positives and negatives each distinct score has.

The counts are ordered from the highest score to the lowest; equal scores share an entry, so ties need no care. They may
be weights: whole numbers are not asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[Any]
"""Numbers or weights, one for each distinct score, from the highest score to the lowest."""
Floats = NDArray[np.float64]


def rankable(positives: Counts, negatives: Counts) -> bool:
    """Whether there are both."""
    return bool(positives.any() and negatives.any())


def auroc(positives: Counts, negatives: Counts) -> float:
    """The chance that a positive scores above a negative, ties counting one half: the trapezoid under the ROC curve."""
    true_positives = np.cumsum(positives)
    above = true_positives - 0.5 * positives
    return _unit(float(np.dot(above, negatives)) / (float(true_positives[-1]) * float(negatives.sum())))


def average_precision(positives: Counts, negatives: Counts) -> float:
    """Sum of precision times the step in recall, without interpolation (the definition of scikit-learn)."""
    true_positives = np.cumsum(positives)
    false_positives = np.cumsum(negatives)
    step = positives > 0
    precision = true_positives[step] / (true_positives[step] + false_positives[step])
    return _unit(float(np.dot(precision, positives[step])) / float(true_positives[-1]))


def f1_max(positives: Counts, negatives: Counts) -> tuple[float, int]:
    """The largest F1 over all thresholds, and the entry of the highest threshold that reaches it."""
    true_positives = np.cumsum(positives)
    predicted = true_positives + np.cumsum(negatives)
    f1 = 2.0 * true_positives / (predicted + true_positives[-1])
    best = int(np.argmax(f1))
    return float(f1[best]), best


def area_below(x: Floats, y: Floats, limit: float) -> float:
    """Trapezoid under the ascending curve from (0, 0) to x = limit, with y interpolated linearly at the limit."""
    x, y = np.concatenate([[0.0], x]), np.concatenate([[0.0], y])
    end = int(np.searchsorted(x, limit, side="right"))
    area = float(np.trapezoid(y[:end], x[:end]))
    if end < len(x):
        last_x, last_y = float(x[end - 1]), float(y[end - 1])
        slope = (float(y[end]) - last_y) / (float(x[end]) - last_x)
        width = limit - last_x
        area += width * (last_y + 0.5 * slope * width)
    return area


def _unit(value: float) -> float:
    """Rounding of a sum may leave [0, 1] by some 1e-16; a metric may not."""
    return min(max(value, 0.0), 1.0)


def aupro(negatives: Counts, overlap: Counts, regions: float, max_fpr: float) -> float:
    """Area under the mean per-region overlap over the false-positive rate up to `max_fpr`, divided by `max_fpr`.

    `overlap` sums each entry's anomalous pixels, each weighted by one over the area of its region.
    """
    false_positives = np.cumsum(negatives)
    rate = false_positives / false_positives[-1]
    return _unit(area_below(rate, np.cumsum(overlap) / regions, max_fpr) / max_fpr)
