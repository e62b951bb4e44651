"""Thresholds from good images that nothing else was chosen on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from draem.config import ScoreConfig
from draem.modelfile import Thresholds


def first_thresholds(scores: Sequence[float], config: ScoreConfig) -> Thresholds | None:
    """Conformal quantiles of the scores of calibrate images; none without any.

    The (n+1)(1−α)-th smallest of n scores is exceeded by a new good part with probability at most α on average, if
    parts are exchangeable. With n < 1/α − 1 scores no such quantile exists: the largest score is taken, its average
    false-reject rate is 1/(n+1), and `chosen_on` says so.

    Source: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005.
    """
    if not scores:
        return None
    ordered = sorted(scores)
    reject = _quantile(ordered, config.false_reject)
    review = _quantile(ordered, config.review)
    count = len(ordered)
    rate = max(config.false_reject, 1 / (count + 1))
    words = f"{count} good images held out by name; on average at most {rate:.1%} of good parts score above"
    if rate > config.false_reject:
        words += (
            f" (the largest score: {config.false_reject:.1%} needs {math.ceil(1 / config.false_reject) - 1} images)"
        )
    return Thresholds(reject=reject, review=review if review < reject else None, chosen_on=words)


def _quantile(ordered: Sequence[float], rate: float) -> float:
    # Rounded first: (n+1)(1−α) is often a whole number but for the last bit.
    rank = math.ceil(round((len(ordered) + 1) * (1 - rate), 9))
    return ordered[min(max(rank, 1), len(ordered)) - 1]
