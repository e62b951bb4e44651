"""Thresholds from labelled scores, by F1 or by cost; and how many parts each verdict gets.

What is chosen here is the best for the images at hand, and promises nothing of others: its interval says how far other
images of the same kind might have moved it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from draem.errors import ConfigError
from draem.inspection.binomial import limits
from draem.modelfile import Verdict
from draem.modelfile.thresholds import percent

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_DRAWS = 1000
_MOST = 1e6
"""Parts an hour, and hours of a shift."""

Floats = NDArray[np.float64]
Choice = tuple[float, float | None]
"""Thresholds of rejection and of review; none: no such zone."""


@dataclass(frozen=True)
class Costs:
    """What wrong decisions cost, in any unit, and how many of all parts are anomalous.

    Raises:
        ConfigError: a figure that makes no sense.
    """

    escape: float
    """An anomalous part that is accepted."""
    false_reject: float
    """A good part that is rejected."""
    defect_rate: float
    """The share of all parts that is anomalous, on the line: not that of the images."""
    review: float | None = None
    """A part that a person looks at, and then decides rightly; none: nobody does."""

    def __post_init__(self) -> None:
        for name in ("escape", "false_reject", "review"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise ConfigError(f"the cost of {name.replace('_', ' ')} is {value:g}; give a number above 0")
        if not 0.0 < self.defect_rate < 1.0:
            raise ConfigError(f"the defect rate is {self.defect_rate:g}; give a share between 0 and 1, such as 0.01")


def by_f1(good: Floats, anomalous: Floats) -> Choice:
    """The threshold with the highest F1 of finding anomalous images, at their share of the images."""
    cuts = _Cuts(good, anomalous)
    found = len(anomalous) - cuts.escapes
    scale = found + (len(good) - cuts.accepted_good) + len(anomalous)
    return cuts.best(2.0 * found / np.maximum(scale, 1.0)), None


def by_cost(costs: Costs) -> Callable[[Floats, Floats], Choice]:
    """A rule: the thresholds at which a part costs least on average."""

    def choose(good: Floats, anomalous: Floats) -> Choice:
        cuts = _Cuts(good, anomalous)
        escapes = costs.defect_rate * cuts.escapes / len(anomalous)
        accepted_good = (1.0 - costs.defect_rate) * cuts.accepted_good / len(good)
        if costs.review is not None:
            # Cost is a sum of what the lower threshold decides and what the upper does, up to a constant.
            below = (costs.escape - costs.review) * escapes - costs.review * accepted_good
            above = costs.review * escapes + (costs.review - costs.false_reject) * accepted_good
            review, reject = cuts.best(-below), cuts.best(-above)
            if review < reject:
                return reject, review
        return cuts.best(-(costs.escape * escapes - costs.false_reject * accepted_good)), None

    return choose


class _Cuts:
    """Every threshold that divides the images differently, and how many it accepts."""

    def __init__(self, good: Floats, anomalous: Floats) -> None:
        levels = np.unique(np.concatenate((good, anomalous)))
        # In the middle between two scores, and at the highest, where all is accepted; below the lowest all is rejected.
        self.values = np.append((levels[:-1] + levels[1:]) / 2.0, levels[-1])
        self._margins = np.append(np.diff(levels), 0.0)
        if levels[0] > 0.0:
            self.values = np.append(levels[0] / 2.0, self.values)
            self._margins = np.append(levels[0], self._margins)
        self.escapes = np.searchsorted(np.sort(anomalous), self.values, side="right").astype(np.float64)
        self.accepted_good = np.searchsorted(np.sort(good), self.values, side="right").astype(np.float64)

    def best(self, merit: Floats) -> float:
        """The threshold of the highest merit; of several, the one farthest from any score."""
        highest = np.flatnonzero(merit >= merit.max() - 1e-12)
        return float(self.values[highest[np.argmax(self._margins[highest])]])


def interval(
    rule: Callable[[Floats, Floats], Choice], good: ArrayLike, anomalous: ArrayLike, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """In which the threshold of rejection lies for so many draws of as many good and as many anomalous images.

    Source: B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993: percentiles, good and anomalous apart.
    """
    parts = [np.asarray(part, np.float64) for part in (good, anomalous)]
    random = np.random.default_rng(seed)
    found = [rule(*(part[random.integers(0, len(part), len(part))] for part in parts))[0] for _ in range(_DRAWS)]
    low, high = np.quantile(found, ((1.0 - level) / 2.0, (1.0 + level) / 2.0))
    return float(low), float(high)


@dataclass(frozen=True)
class Share:
    """So many of some images, and what share of all such parts they stand for."""

    count: int
    of: int

    @classmethod
    def of_all(cls, found: Iterable[bool | None]) -> Share:
        """How many are true, of all that are known."""
        known = [one for one in found if one is not None]
        return cls(sum(known), len(known))

    @property
    def value(self) -> float:
        """The share of the images."""
        return self.count / self.of

    @property
    def limits(self) -> tuple[float, float]:
        """The interval that holds the true share with 95 % confidence, if the threshold was not chosen on them."""
        return limits(self.count, self.of)

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        low, high = self.limits
        return {"count": self.count, "of": self.of, "share": self.value, "low": low, "high": high}


def shares(found: Sequence[Verdict]) -> dict[Verdict, Share]:
    """How many of some images got each verdict; empty without images."""
    return {verdict: Share(found.count(verdict), len(found)) for verdict in VERDICTS} if found else {}


@dataclass(frozen=True)
class Line:
    """A line of parts, in whose terms shares of images are told.

    Raises:
        ConfigError: a figure that makes no sense.
    """

    parts_per_hour: float
    hours: float = 8.0
    """Of a shift."""
    defect_rate: float = 0.01
    """The share of all parts that is anomalous."""

    def __post_init__(self) -> None:
        for name, value in (("parts an hour", self.parts_per_hour), ("hours of a shift", self.hours)):
            if not 0.0 < value <= _MOST:
                raise ConfigError(f"{name}: {value:g}; give a number above 0, up to {_MOST:,.0f}")
        if not 0.0 <= self.defect_rate <= 1.0:
            raise ConfigError(f"the defect rate is {self.defect_rate:g}; give a share from 0 to 1, such as 0.01")

    @property
    def parts(self) -> float:
        """Of a shift."""
        return self.parts_per_hour * self.hours

    def per_shift(
        self, good: Mapping[Verdict, Share], anomalous: Mapping[Verdict, Share]
    ) -> dict[str, dict[str, float]]:
        """How many parts of a shift are rejected though good, accepted though anomalous, reviewed; each with limits.

        What no image tells is left out. The limits hold the number with 95 % confidence; of reviews, the sum of both
        kinds' limits, with more.
        """
        counts = self.parts * (1.0 - self.defect_rate), self.parts * self.defect_rate
        told = {
            "false_rejects": [(counts[0], good["reject"])] if good else [],
            "escapes": [(counts[1], anomalous["accept"])] if anomalous else [],
            "reviews": [(counts[0], good["review"]), (counts[1], anomalous["review"])] if good and anomalous else [],
        }
        return {
            what: {
                "parts": sum(count * share.value for count, share in terms),
                "low": sum(count * share.limits[0] for count, share in terms),
                "high": sum(count * share.limits[1] for count, share in terms),
            }
            for what, terms in told.items()
            if terms
        }

    def in_words(self, expected: Mapping[str, Mapping[str, float]]) -> str:
        """What `per_shift` gives, in one line."""
        known = [
            f"{_count(one['parts'])} {what.replace('_', ' ')} (95%: {_count(one['low'])} to {_count(one['high'])})"
            for what, one in expected.items()
        ]
        anomalous = percent(self.defect_rate)
        return f"a shift of {_count(self.parts)} parts, {anomalous} of them anomalous: {', '.join(known)}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def per_thousand(
    good: tuple[float, float] | None, anomalous: tuple[float, float] | None, defect_rate: float
) -> dict[str, float | None]:
    """Of a thousand parts on the line: escapes, false rejects, reviews; none where nothing is known of them.

    Args:
        good: shares of good parts that are not accepted, and that are rejected.
        anomalous: the same of anomalous parts.
        defect_rate: share of all parts that is anomalous.
    """
    escapes = None if anomalous is None else 1000.0 * defect_rate * (1.0 - anomalous[0])
    rejects = None if good is None else 1000.0 * (1.0 - defect_rate) * good[1]
    reviews = None
    if good is not None and anomalous is not None:
        reviews = 1000.0 * ((1.0 - defect_rate) * (good[0] - good[1]) + defect_rate * (anomalous[0] - anomalous[1]))
    return {"escapes": escapes, "false_rejects": rejects, "reviews": reviews}
