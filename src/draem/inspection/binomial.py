"""Exact binomial tails, the limits of a share, and order statistics of uniform numbers; without SciPy.

All that is promised of a share of parts follows from these: of n parts drawn alike, how many lie beyond a threshold is
binomial.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BISECTIONS = 60
"""Halvings of [0, 1]: below the last bit that matters."""


def at_most(successes: int, trials: int, rate: float) -> float:
    """P(X ≤ successes), X binomial with so many trials at this rate; exact but for rounding."""
    if successes < 0:
        return 0.0
    if successes >= trials or rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    terms = _log_choices(trials)[: successes + 1].copy()
    counts = np.arange(successes + 1)
    terms += counts * math.log(rate) + (trials - counts) * math.log1p(-rate)
    highest = float(terms.max())
    return min(1.0, math.exp(highest) * math.fsum(np.exp(terms - highest).tolist()))


def limits(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval that holds the true share with at least this confidence; (0, 1) of no trials.

    Source: C. Clopper, E. Pearson, Biometrika 26 (1934).
    """
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else beta_quantile(successes, trials - successes + 1, tail)
    high = 1.0 if successes == trials else beta_quantile(successes + 1, trials - successes, 1.0 - tail)
    return low, high


def beta_quantile(a: int, b: int, probability: float) -> float:
    """The quantile of Beta(a, b), both whole numbers from 1: of the a-th smallest of a + b − 1 uniform numbers."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        # P(Beta ≤ x) is the chance of at least `a` of a + b − 1 uniform numbers below x.
        if 1.0 - at_most(a - 1, a + b - 1, middle) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


@lru_cache(maxsize=4)
def _log_choices(trials: int) -> NDArray[np.float64]:
    """Logarithms of the binomial coefficients of 0 … trials."""
    logs = np.array([math.lgamma(count + 1.0) for count in range(trials + 1)])
    choices: NDArray[np.float64] = logs[-1] - logs - logs[::-1]
    return choices
