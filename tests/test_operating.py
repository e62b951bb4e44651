"""Thresholds by F1 and by cost against trying every one; shares of verdicts by counting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from draem.errors import ConfigError
from draem.evaluation.operating import Choice, Costs, Line, Share, by_cost, by_f1, interval, per_thousand, shares
from draem.modelfile import Thresholds

Floats = NDArray[np.float64]


def _scores(seed: int, digits: int = 3) -> tuple[Floats, Floats]:
    """Good and anomalous ones that overlap; few digits: many of them equal."""
    random = np.random.default_rng(seed)
    return np.round(random.beta(2, 6, 70), digits), np.round(random.beta(5, 4, 25), digits)


def _every(good: Floats, anomalous: Floats) -> Floats:
    """A threshold below all scores and one in every gap."""
    levels = np.unique(np.concatenate((good, anomalous)))
    return np.concatenate(([-1.0], (levels[1:] + levels[:-1]) / 2, [2.0]))


def _f1(good: Floats, anomalous: Floats, threshold: float) -> float:
    truth = np.repeat((0, 1), (len(good), len(anomalous)))
    return float(f1_score(truth, np.concatenate((good, anomalous)) > threshold, zero_division=0.0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("digits", [1, 2, 6])
def test_f1_is_the_highest_there_is(seed: int, digits: int) -> None:
    good, anomalous = _scores(seed, digits)
    reject, review = by_f1(good, anomalous)
    assert review is None
    best = max(_f1(good, anomalous, threshold) for threshold in _every(good, anomalous))
    assert _f1(good, anomalous, reject) == pytest.approx(best)


def test_where_scores_are_apart_the_threshold_lies_in_the_middle() -> None:
    for rule in (by_f1, by_cost(Costs(10, 1, 0.01))):
        assert rule(np.array([0.1, 0.2]), np.array([0.6, 0.9]))[0] == pytest.approx(0.4)


def _cost(costs: Costs, good: Floats, anomalous: Floats, choice: Choice) -> float:
    """Of a part on average, by counting."""
    reject, review = choice
    thresholds = Thresholds(reject=reject, review=review, chosen_on="a test's")
    looked_at = costs.review or 0.0
    of_good = {"accept": 0.0, "review": looked_at, "reject": costs.false_reject}
    of_anomalous = {"accept": costs.escape, "review": looked_at, "reject": 0.0}
    means = [
        np.mean([table[thresholds.verdict(float(score))] for score in scores])
        for table, scores in ((of_good, good), (of_anomalous, anomalous))
    ]
    return float((1 - costs.defect_rate) * means[0] + costs.defect_rate * means[1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "costs",
    [
        Costs(100, 1, 0.01),
        Costs(1, 1, 0.5),
        Costs(1000, 10, 0.02, review=2),
        Costs(50, 20, 0.1, review=0.5),
        Costs(50, 1, 0.1, review=5),
        Costs(1e-3, 1e3, 0.01),
        Costs(1e6, 1e-3, 0.5),
    ],
)
def test_cost_is_the_least_there_is(seed: int, costs: Costs) -> None:
    good, anomalous = _scores(seed, 2)
    found = by_cost(costs)(good, anomalous)
    every = _every(good, anomalous).tolist()
    tried: list[Choice] = [(reject, None) for reject in every]
    if costs.review is not None:
        tried += [(reject, review) for reject in every for review in every if review < reject]
    least = min(_cost(costs, good, anomalous, choice) for choice in tried)
    # Rejecting or accepting everything may be least; of thresholds, one below every score lies above 0.
    assert _cost(costs, good, anomalous, found) == pytest.approx(least)
    assert found[0] >= 0.0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"escape": 0.0}, "cost of escape"),
        ({"false_reject": float("nan")}, "cost of false reject"),
        ({"review": -1.0}, "cost of review"),
        ({"defect_rate": 1.0}, "defect rate"),
        ({"defect_rate": 0.0}, "defect rate"),
    ],
)
def test_costs_that_make_no_sense(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Costs(**({"escape": 10.0, "false_reject": 1.0, "defect_rate": 0.01} | wrong))


@pytest.mark.parametrize("rule", [by_f1, by_cost(Costs(20, 1, 0.05))])
def test_the_interval_holds_what_other_draws_give(rule: Callable[[Floats, Floats], Choice]) -> None:
    """Of draws from the true distribution, about 95 % fall into it; a bootstrap of 95 images may be off by some."""
    good, anomalous = _scores(0, 6)
    low, high = interval(rule, good, anomalous)
    assert low <= rule(good, anomalous)[0] <= high
    assert interval(rule, good, anomalous) == (low, high)
    others = [rule(*_scores(seed, 6))[0] for seed in range(100, 400)]
    assert np.mean([low <= other <= high for other in others]) > 0.6
    more_good, more_anomalous = np.tile(good, 20), np.tile(anomalous, 20)
    narrow = interval(rule, more_good, more_anomalous)
    assert narrow[1] - narrow[0] < high - low


def test_shares_by_counting() -> None:
    thresholds = Thresholds(reject=0.5, review=0.3, chosen_on="a test's")
    found = shares([thresholds.verdict(score) for score in (0.1, 0.3, 0.31, 0.5, 0.51)])
    assert found == {"accept": Share(2, 5), "review": Share(2, 5), "reject": Share(1, 5)}
    assert shares([]) == {}
    low, high = found["reject"].limits
    assert low < 0.2 < high
    assert found["reject"].to_dict() == {"count": 1, "of": 5, "share": 0.2, "low": low, "high": high}


def test_a_thousand_parts() -> None:
    found = per_thousand((0.1, 0.02), (0.95, 0.75), 0.1)
    assert found == pytest.approx({"escapes": 5.0, "false_rejects": 18.0, "reviews": 72.0 + 20.0})
    unknown = per_thousand((0.1, 0.02), None, 0.1)
    assert (unknown["escapes"], unknown["reviews"]) == (None, None)
    assert unknown["false_rejects"] == pytest.approx(18.0)


def test_a_shift() -> None:
    """8,000 parts, of which 2 % are anomalous: 7,840 and 160."""
    thresholds = Thresholds(reject=0.5, review=0.3, chosen_on="a test's")
    good = shares([thresholds.verdict(score) for score in [0.1] * 7 + [0.4, 0.4, 0.6]])
    anomalous = shares([thresholds.verdict(score) for score in (0.1, 0.4, 0.6, 0.6)])
    line = Line(1000, defect_rate=0.02)
    found = line.per_shift(good, anomalous)
    expected = {"false_rejects": 784.0, "escapes": 40.0, "reviews": 1568.0 + 40.0}
    assert {what: one["parts"] for what, one in found.items()} == pytest.approx(expected)
    low, high = good["reject"].limits
    assert (found["false_rejects"]["low"], found["false_rejects"]["high"]) == pytest.approx((7840 * low, 7840 * high))
    assert line.in_words(found).startswith("a shift of 8,000 parts, 2% of them anomalous: 784 false rejects (95%: ")
    assert line.per_shift(good, {}).keys() == {"false_rejects"}
    assert line.per_shift({}, anomalous).keys() == {"escapes"}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"parts_per_hour": 0.0}, "parts an hour: 0; give a number above 0"),
        ({"parts_per_hour": 10.0, "hours": -1.0}, "hours of a shift: -1"),
        ({"parts_per_hour": 1e308}, "parts an hour: 1e\\+308"),
        ({"parts_per_hour": float("nan")}, "parts an hour: nan"),
        ({"parts_per_hour": 10.0, "defect_rate": 2.0}, "the defect rate is 2"),
    ],
)
def test_lines_that_make_no_sense(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Line(**wrong)
