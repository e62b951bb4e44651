"""Two detectors on the same images: how much better the second is, and whether that may be chance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from draem.errors import DataError
from draem.evaluation.evaluate import Evaluation, ImageResult
from draem.evaluation.metrics import METRIC_KEYS
from draem.inspection.binomial import at_most


@dataclass(frozen=True)
class Difference:
    """A metric of both, and the second's less the first's, with the limits that hold it with 95 %."""

    first: float
    second: float
    low: float
    high: float
    better: float
    """Share of the replicates in which the second is better, ties counting one half: the same draws for both."""

    @property
    def value(self) -> float:
        """The second's less the first's."""
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same images."""

    differences: dict[str, Difference]
    """By metric; what cannot be known of both is not there."""
    verdicts: dict[tuple[str, str], int]
    """How many images got which verdicts of both; empty where one has no threshold."""
    only_first: int
    """Images on which the first alone decides rightly: accepts a good one, does not accept an anomalous one."""
    only_second: int
    images: int

    @property
    def p_value(self) -> float | None:
        """Of no difference between the decisions, two-sided and exact; none where both never differ.

        Source: Q. McNemar, Psychometrika 12 (1947).
        """
        differ = self.only_first + self.only_second
        return min(1.0, 2.0 * at_most(min(self.only_first, self.only_second), differ, 0.5)) if differ else None

    def in_words(self) -> list[str]:
        """Which verdicts differ, and whether that may be chance."""
        if not self.verdicts:
            return ["no verdicts to compare: a model has no threshold"]
        lines = [f"{count} images: {a} → {b}" for (a, b), count in sorted(self.verdicts.items()) if a != b]
        rights = f"right in the first alone: {self.only_first}, in the second alone: {self.only_second}"
        chance = "" if self.p_value is None else f"; p = {self.p_value:.3g} if there were no difference"
        return [*lines, rights + chance]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "images": self.images,
            "metrics": {name: {**vars(one), "difference": one.value} for name, one in self.differences.items()},
            "verdicts": [{"first": a, "second": b, "images": count} for (a, b), count in self.verdicts.items()],
            "right_in_first_alone": self.only_first,
            "right_in_second_alone": self.only_second,
            "p_value": self.p_value,
        }


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare image by image: both must have seen the same ones, and the same of them.

    Raises:
        DataError: they have not.
    """
    if first.region != second.region:
        raise DataError("the two models have different regions of interest: their figures are of different pixels")
    names = [[(one.category, one.name, one.label) for one in part.images] for part in (first, second)]
    if names[0] != names[1]:
        raise DataError(
            f"the two saw different images ({len(names[0])} and {len(names[1])}): compare on one data set, with files "
            "that both can read"
        )
    differences = {}
    for name in METRIC_KEYS:
        value, other = getattr(first.metrics, name), getattr(second.metrics, name)
        gains = second.replicates[name] - first.replicates[name]
        gains = gains[np.isfinite(gains)]
        if value is None or other is None or not len(gains):
            continue
        low, high = np.quantile(gains, (0.025, 0.975))
        better = float(np.mean((gains > 0) + 0.5 * (gains == 0)))
        gain = other - value
        differences[name] = Difference(value, other, min(float(low), gain), max(float(high), gain), better)
    pairs = list(zip(first.images, second.images, strict=True))
    decided = [(one, other) for one, other in pairs if one.verdict is not None and other.verdict is not None]
    right = Counter((_right(one), _right(other)) for one, other in decided)
    verdicts = Counter((str(one.verdict), str(other.verdict)) for one, other in decided)
    return Comparison(differences, dict(verdicts), right[True, False], right[False, True], len(pairs))


def _right(image: ImageResult) -> bool:
    return (image.verdict == "accept") == (image.label == "good")
