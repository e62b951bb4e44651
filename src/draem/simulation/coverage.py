"""Where real defects lie among the simulated ones: how many are covered, which are not, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from draem.data.defects import Defect
from draem.errors import DataError

FEATURES = ("area", "elongation", "contrast", "brightness", "texture")
_NEIGHBOURS = 5
_OUTSIDE = 99.0
"""Percentile of the simulated defects' distances to one another beyond which a real one lies outside."""
_RANGE = (0.5, 99.5)
"""Percentiles of the simulated defects' figures beyond which one figure alone puts a real one outside: neighbours in
many dimensions forgive much in one."""
_NARROWEST = 0.05
"""Decades (of brightness: of the full range) that count as one deviation where the simulated ones hardly differ."""
_LEVEL = 1.0 / 255.0
_BLOCK = 256

WORDS = {
    ("area", "below"): ("smaller", "a lower simulation.area, or a finer simulation.lattice"),
    ("area", "above"): ("larger", "a larger simulation.area, more simulation.masks.stain"),
    ("elongation", "below"): ("rounder", "more simulation.masks.blob or simulation.masks.rectangle"),
    ("elongation", "above"): ("thinner", "more simulation.masks.scratch, simulation.masks.crack"),
    ("contrast", "below"): ("fainter", "a higher simulation.beta, more simulation.sources.patch or deform"),
    ("contrast", "above"): ("of more contrast", "a lower simulation.beta, more simulation.sources.flat"),
    ("brightness", "below"): ("darker", "a lower simulation.beta, more simulation.sources.flat"),
    ("brightness", "above"): ("brighter", "a lower simulation.beta, more simulation.sources.flat"),
    ("texture", "below"): ("smoother", "more simulation.sources.flat, simulation.sources.blur or missing"),
    ("texture", "above"): ("rougher", "your own simulation.textures, more simulation.sources.procedural"),
}
"""How a defect differs from simulated ones, and which settings bring those closer to it."""


@dataclass(frozen=True)
class RealDefect:
    """A defect of a data set: the image's name, the type of defect, and its figures."""

    name: str
    kind: str
    defect: Defect


@dataclass(frozen=True)
class Reason:
    """Why a real defect is unlike the simulated ones."""

    feature: str
    side: str
    """`below` or `above`: where it lies of the simulated ones in this feature."""
    alone: bool
    """Whether this figure is beyond the simulated range; else it is the oddest of a rare combination."""

    @property
    def word(self) -> str:
        """Compared with the simulated ones: larger, fainter, and so on."""
        return WORDS[self.feature, self.side][0]


@dataclass(frozen=True)
class Outsider:
    """A real defect unlike the simulated ones."""

    real: RealDefect
    distance: float
    """To its fifth nearest simulated defect, in units of the limit."""
    reasons: tuple[Reason, ...]
    """The weightiest first; never none."""

    def in_words(self) -> str:
        """What is unlike, and by which figures."""
        told = [f"{one.word} ({one.feature} {getattr(self.real.defect, one.feature):.2g})" for one in self.reasons]
        return ", ".join(told) if self.reasons[0].alone else f"a rare combination: {told[0]} than others like it"

    def advice(self) -> str:
        """Which settings would bring the simulated ones closer in the weightiest."""
        return WORDS[self.reasons[0].feature, self.reasons[0].side][1]


@dataclass(frozen=True)
class Spread:
    """One feature: the range that holds 99 % of the simulated defects, and the shares of real ones beyond it."""

    low: float
    high: float
    below: float
    above: float


@dataclass(frozen=True)
class Coverage:
    """Real defects among simulated ones."""

    real: list[RealDefect]
    simulated: list[Defect]
    covered: NDArray[np.bool_]
    """Of each real defect, whether it lies among the simulated ones."""
    spreads: dict[str, Spread]
    outsiders: list[Outsider]
    """The farthest first."""

    @property
    def share(self) -> float:
        """Share of the real defects that are covered."""
        return float(np.mean(self.covered))

    def by_kind(self) -> dict[str, tuple[int, float]]:
        """Of each type of defect, how many there are and which share of them is covered."""
        kinds = np.array([one.kind for one in self.real])
        return {
            str(kind): (int((kinds == kind).sum()), float(np.mean(self.covered[kinds == kind])))
            for kind in np.unique(kinds)
        }

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return {
            "real": len(self.real),
            "simulated": len(self.simulated),
            "covered": self.share,
            "by_kind": {kind: {"defects": n, "covered": share} for kind, (n, share) in self.by_kind().items()},
            "features": {feature: vars(spread) for feature, spread in self.spreads.items()},
            "outside": [
                {
                    "name": one.real.name,
                    "kind": one.real.kind,
                    "distance": one.distance,
                    "reasons": [vars(reason) for reason in one.reasons],
                    "words": one.in_words(),
                    "advice": one.advice(),
                    "defect": vars(one.real.defect),
                }
                for one in self.outsiders
            ],
        }


def compare(real: Sequence[RealDefect], simulated: Sequence[Defect]) -> Coverage:
    """Find each real defect's place among the simulated ones.

    A real defect is outside if one of its figures is beyond the range of 99 % of the simulated ones, or if, in
    logarithms and in units of the simulated ones' spread, it is farther from its fifth nearest simulated one than 99 %
    of the simulated ones are from theirs. So of defects drawn like the simulated ones about 95 % are covered.

    Raises:
        DataError: no real defects, or too few simulated ones.
    """
    if not real:
        raise DataError("no real defects to compare with")
    if len(simulated) <= _NEIGHBOURS:
        raise DataError(f"only {len(simulated)} simulated defects: too few to compare with")
    known, asked = _positions(simulated), _positions([one.defect for one in real])
    middle, unit = known.mean(0), known.std(0).clip(min=_NARROWEST)
    known, asked = (known - middle) / unit, (asked - middle) / unit
    own, _ = _nearest(known, known, skip=1)
    found, neighbours = _nearest(asked, known)
    # Where all simulated ones are alike, a thousandth of their unit is still as good as the same.
    distances = found / max(float(np.percentile(own, _OUTSIDE)), 1e-3)
    low, high = np.percentile(known, _RANGE, axis=0)
    beyond = np.maximum(asked - high, 0) - np.maximum(low - asked, 0)
    covered = (distances <= 1.0) & ~beyond.any(1)
    outsiders = [
        Outsider(real[i], float(distances[i]), _reasons(beyond[i], asked[i] - known[neighbours[i]].mean(0)))
        for i in np.argsort(-distances, kind="stable")
        if not covered[i]
    ]
    return Coverage(list(real), list(simulated), covered, _spreads(simulated, beyond), outsiders)


def _positions(defects: Sequence[Defect]) -> NDArray[np.float64]:
    """N×F: decimal logarithms; brightness, which has a sign, as it is."""
    table = np.array([[getattr(defect, feature) for feature in FEATURES] for defect in defects], np.float64)
    for column, feature in enumerate(FEATURES):
        if feature != "brightness":
            # A contrast below a grey level is as good as none.
            table[:, column] = np.log10(table[:, column] + (_LEVEL if feature == "contrast" else 0.0))
    return table


def _nearest(
    asked: NDArray[np.float64], known: NDArray[np.float64], skip: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distance of each of `asked` to its k-th nearest of `known`, and which the k nearest are (without order).

    skip: how many of the nearest do not count: 1 where the points are among the known ones themselves.
    """
    last = _NEIGHBOURS - 1 + skip
    distances, places = np.empty(len(asked)), np.empty((len(asked), last + 1), np.intp)
    for start in range(0, len(asked), _BLOCK):
        some = asked[start : start + _BLOCK]
        squares = np.zeros((len(some), len(known)))
        for column in range(some.shape[1]):
            squares += (some[:, None, column] - known[None, :, column]) ** 2
        nearest = np.argpartition(squares, last, axis=1)[:, : last + 1]
        places[start : start + len(some)] = nearest
        distances[start : start + len(some)] = np.sqrt(np.take_along_axis(squares, nearest, 1).max(1))
    return distances, places


def _reasons(beyond: NDArray[np.float64], offset: NDArray[np.float64]) -> tuple[Reason, ...]:
    """The features beyond the simulated range; where there is none, the one that differs most from the neighbours'."""
    if beyond.any():
        order = np.argsort(-np.abs(beyond), kind="stable")
        return tuple(_reason(i, beyond[i], alone=True) for i in order if beyond[i])
    oddest = int(np.abs(offset).argmax())
    return (_reason(oddest, offset[oddest], alone=False),)


def _reason(feature: int, offset: float, *, alone: bool) -> Reason:
    return Reason(FEATURES[feature], "above" if offset > 0 else "below", alone)


def _spreads(simulated: Sequence[Defect], beyond: NDArray[np.float64]) -> dict[str, Spread]:
    below, above = (beyond < 0).mean(0), (beyond > 0).mean(0)
    spreads = {}
    for column, feature in enumerate(FEATURES):
        low, high = np.percentile([getattr(defect, feature) for defect in simulated], _RANGE)
        spreads[feature] = Spread(float(low), float(high), float(below[column]), float(above[column]))
    return spreads
