"""How far is too far: limits from a set's own middle and tails."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALARMS = 0.05
"""False alarms to be expected a set and side, if its tail goes on as it begins."""
_UNSURE = 15.0


def limits(values: ArrayLike, margin: float, draws: int | None = None) -> tuple[float, float]:
    """Lower and upper limit of what belongs to `values` (n): beyond them a value is an outlier.

    Each side has a tail of its own: the distance from the median at which a share p is left is taken as
    c·ln(0.5 / p)^k, with c and k from two quantiles of the set; k is 0.5 near a normal tail, 1 for an exponential one,
    and kept between 0.25 and 1. The quantiles lie inside, so that a few outliers do not hide themselves. The limit is
    where `ALARMS` of `draws` values (default: n) are expected beyond, a little farther out where few values tell it,
    and at least `margin` (in the values' unit) away from the median: what is too small to matter is no outlier.
    """
    known = np.asarray(values, np.float64)
    middle, draws = float(np.median(known)), draws or len(known)
    return middle - max(_reach(middle - known, draws), margin), middle + max(_reach(known - middle, draws), margin)


def _reach(distances: NDArray[np.float64], draws: int) -> float:
    """How far the upper tail of signed distances from the median goes."""
    shares = (0.1, 0.02) if len(distances) >= 100 else (0.25, 0.1)
    near, far = (float(np.quantile(distances, 1 - share)) for share in shares)
    steps = [np.log(0.5 / share) for share in (*shares, ALARMS / draws)]
    if near <= 0 or steps[2] <= steps[0]:
        return max(far, near, 0.0)
    power = float(np.clip(np.log(far / near) / np.log(steps[1] / steps[0]), 0.25, 1.0))
    return float(near * (steps[2] / steps[0]) ** power * (1 + _UNSURE / len(distances)))


def separation(first: ArrayLike, second: ArrayLike) -> float:
    """Chance that a value of `second` lies above one of `first` (AUROC, ties count half); 0.5 where one is empty.

    Source: Mann and Whitney, 1947.
    """
    a, b = np.sort(np.asarray(first, np.float64)), np.asarray(second, np.float64)
    if not len(a) or not len(b):
        return 0.5
    wins = np.searchsorted(a, b, "left") + np.searchsorted(a, b, "right")
    return float(wins.mean() / (2 * len(a)))


def is_chance(auroc: float, first: int, second: int, deviations: float = 3.3) -> bool:
    """Whether an AUROC of this many values each lies within so many standard deviations of 0.5."""
    spread = np.sqrt((first + second + 1) / (12 * max(first * second, 1)))
    return bool(abs(auroc - 0.5) <= deviations * spread)


def medians(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median and spread (1.4826 times the median distance from it) along the first axis."""
    middle = np.median(values, axis=0)
    return middle, np.asarray(1.4826 * np.median(np.abs(values - middle), axis=0), np.float32)
