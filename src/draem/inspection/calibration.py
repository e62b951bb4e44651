"""Thresholds from the scores of good images that nothing else was chosen on, and what they promise.

With n scores of good parts drawn alike, the share of all good parts that score above the k-th highest is distributed as
Beta(k, n − k + 1), whatever the scores' distribution, and is smaller where scores are equal. So how many of the n may
lie above a threshold follows from what is to be promised, and from nothing else. Of anomalous parts and what scores
below, the same holds.

Sources: S. S. Wilks, "Determination of sample sizes for setting tolerance limits", Annals of Mathematical Statistics 12
(1941); Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from draem.config import ScoreConfig
from draem.errors import ConfigError, DataError
from draem.inspection.binomial import at_most
from draem.modelfile import Promise, Reference, Thresholds
from draem.modelfile.thresholds import MOST_REFERENCE, percent


@dataclass(frozen=True)
class Assurance:
    """How a share is promised: with this confidence; or on average over choices of images, where it is none.

    Raises:
        ConfigError: the confidence is no share between 0 and 1.
    """

    confidence: float | None = 0.95

    def __post_init__(self) -> None:
        if self.confidence is not None and not 0.0 < self.confidence < 1.0:
            raise ConfigError(f"the confidence is {self.confidence:g}; give a share between 0 and 1, such as 0.95")

    def beyond(self, images: int, rate: float) -> int:
        """How many of the images may lie beyond a threshold that promises this rate; −1: not even none suffices."""
        if self.confidence is None:
            # Rounded first: (n + 1) · α is often a whole number but for the last bit.
            return math.floor(round((images + 1) * rate, 9)) - 1
        low, high = -1, images  # the largest count whose tail is small enough lies in [low, high)
        while high - low > 1:
            middle = (low + high) // 2
            enough = at_most(middle, images, rate) <= (1.0 - self.confidence) * (1.0 + 1e-9)
            low, high = (middle, high) if enough else (low, middle)
        return low

    def least_images(self, rate: float) -> int:
        """The fewest images with which this rate can be promised."""
        if self.confidence is None:
            return max(1, math.ceil(round(1.0 / max(rate, 1e-12), 9)) - 1)
        return max(1, math.ceil(round(math.log(1.0 - self.confidence) / math.log1p(-max(rate, 1e-12)), 9)))

    def best_rate(self, images: int) -> float:
        """The lowest rate that so many images can promise: that of their highest score."""
        if self.confidence is None:
            return 1.0 / (images + 1)
        return -math.expm1(math.log(1.0 - self.confidence) / images)

    def in_words(self) -> str:
        """How sure it is."""
        return "on average" if self.confidence is None else f"with {percent(self.confidence)} confidence"


CONFIDENT, ON_AVERAGE = Assurance(), Assurance(None)


def good_threshold(scores: Sequence[float], rate: float, assurance: Assurance) -> tuple[float, Promise]:
    """The lowest of the scores above which at most this share of good parts is promised to score.

    Raises:
        DataError: there are too few scores for it; it says what they could promise, and how many are needed.
    """
    return _threshold(scores, rate, assurance, "good")


def anomalous_threshold(scores: Sequence[float], rate: float, assurance: Assurance) -> tuple[float, Promise]:
    """The highest threshold that at most this share of such anomalous parts is promised not to exceed.

    Raises:
        DataError: there are too few scores for it, or anomalous parts that score 0, which no threshold finds.
    """
    found, promise = _threshold([-score for score in scores], rate, assurance, "anomalous")
    if found >= 0.0:
        missed = sum(score == 0.0 for score in scores)
        raise DataError(f"{missed} of {promise.images} anomalous images score 0: no threshold finds them")
    # An anomalous part of this very score is to be found: it lies just above.
    return math.nextafter(-found, 0.0), promise


def _threshold(
    scores: Sequence[float], rate: float, assurance: Assurance, of: Literal["good", "anomalous"]
) -> tuple[float, Promise]:
    beyond = assurance.beyond(len(scores), rate)
    if beyond < 0:
        raise DataError(too_few(len(scores), rate, assurance, of))
    highest_first = sorted(scores, reverse=True)
    value = highest_first[min(beyond, len(scores) - 1)]
    above = sum(score > value for score in scores)
    promise = Promise(of=of, rate=rate, confidence=assurance.confidence, images=len(scores), beyond=above)
    return value, promise


def too_few(images: int, rate: float, assurance: Assurance, of: Literal["good", "anomalous"] = "good") -> str:
    """What can be promised of so few images, and how many the wanted rate needs; for people."""
    needed = f"{percent(rate)} {assurance.in_words()} needs {assurance.least_images(rate)}"
    if assurance.confidence is not None:
        needed += f", on average {ON_AVERAGE.least_images(rate)}"
    if not images:
        return f"no {of} images to choose a threshold with: {needed}"
    best = f"{percent(_rounded_up(assurance.best_rate(images)))} {assurance.in_words()}"
    return f"with {images} {of} image{'s' * (images > 1)} the best promise is {best}; {needed}"


def _rounded_up(rate: float) -> float:
    """Two digits, never better than it is: what is told can be asked for."""
    digits = 1 - math.floor(math.log10(rate))
    return min(1.0, math.ceil(round(rate * 10.0**digits, 6)) / 10.0**digits)


def first_thresholds(scores: Sequence[float], config: ScoreConfig) -> Thresholds | None:
    """Thresholds of a new model, from the images held out for them, on average; none without any.

    Where there are too few, their highest score is taken, and what that promises is said.
    """
    if not scores:
        return None
    least = ON_AVERAGE.best_rate(len(scores))
    reject, promise = good_threshold(scores, max(config.false_reject, least), ON_AVERAGE)
    review, review_promise = good_threshold(scores, max(config.review, least), ON_AVERAGE)
    words = f"{len(scores)} good images held out by name; {promise.in_words()}"
    if promise.rate > config.false_reject:
        words += f"; {percent(config.false_reject)} needs {ON_AVERAGE.least_images(config.false_reject)} images"
    if review >= reject:
        return Thresholds(reject=reject, chosen_on=words, reject_promise=promise)
    return Thresholds(
        reject=reject, review=review, chosen_on=words, reject_promise=promise, review_promise=review_promise
    )


def reference_of(scores: Sequence[float]) -> Reference | None:
    """Good scores to take p-values against; none without any. Of very many, evenly spaced ones.

    Rounded up to 7 decimals, so that no p-value comes out too low.
    """
    if not scores:
        return None
    ascending = sorted(min(1.0, math.ceil(score * 1e7) / 1e7) for score in scores)
    if len(ascending) > MOST_REFERENCE:
        # The highest of each run of equally many, so that a p-value comes out too high rather than too low.
        ascending = [
            ascending[-(-rank * len(ascending) // MOST_REFERENCE) - 1] for rank in range(1, MOST_REFERENCE + 1)
        ]
    return Reference(scores=ascending)
