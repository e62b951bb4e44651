"""What thresholds promise, in simulated draws and against SciPy; those of training against their closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from draem.config import ScoreConfig
from draem.errors import DataError
from draem.inspection.binomial import at_most, beta_quantile, limits
from draem.inspection.calibration import (
    CONFIDENT,
    ON_AVERAGE,
    Assurance,
    anomalous_threshold,
    first_thresholds,
    good_threshold,
    reference_of,
    too_few,
)
from draem.modelfile.thresholds import MOST_REFERENCE, Reference, percent

RNG = np.random.default_rng(0)
DRAWS = 2000


# ----------------------------------------------------------------------------------------------------- binomial tails


@pytest.mark.parametrize("trials", [1, 2, 10, 598, 10_000])
@pytest.mark.parametrize("rate", [0.0, 1e-6, 0.005, 0.5, 0.9999, 1.0])
def test_tails_are_scipys(trials: int, rate: float) -> None:
    for successes in sorted({-1, 0, 1, trials // 3, trials - 1, trials, trials + 1}):
        assert at_most(successes, trials, rate) == pytest.approx(
            float(stats.binom.cdf(successes, trials, rate)), rel=1e-9, abs=1e-300
        )


@pytest.mark.parametrize(("count", "of"), [(0, 1), (1, 1), (0, 63), (3, 50), (50, 50), (500, 10_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_limits_are_scipys(count: int, of: int, confidence: float) -> None:
    exact = stats.binomtest(count, of).proportion_ci(confidence, "exact")
    assert limits(count, of, confidence) == pytest.approx((float(exact.low), float(exact.high)), abs=1e-9)


def test_beta_quantiles_are_scipys() -> None:
    for a, b, share in ((1, 1, 0.3), (1, 598, 0.95), (7, 3, 0.001), (40, 960, 0.5)):
        assert beta_quantile(a, b, share) == pytest.approx(float(stats.beta.ppf(share, a, b)), abs=1e-12)


# ------------------------------------------------------------------------------------------------------ the promises


def _rates(count: int, rate: float, assurance: Assurance, draws: int = DRAWS) -> list[float]:
    """Of uniform scores, the true share that each draw's threshold rejects."""
    random = np.random.default_rng(count)
    return [1.0 - good_threshold(random.random(count).tolist(), rate, assurance)[0] for _ in range(draws)]


def _escapes(count: int, rate: float, assurance: Assurance, draws: int = DRAWS) -> list[float]:
    random = np.random.default_rng(count)
    return [anomalous_threshold(random.random(count).tolist(), rate, assurance)[0] for _ in range(draws)]


@pytest.mark.parametrize("found", [_rates, _escapes])
@pytest.mark.parametrize(("count", "rate"), [(59, 0.05), (100, 0.05), (598, 0.005), (300, 0.02)])
def test_violations_are_as_rare_as_promised(found: object, count: int, rate: float) -> None:
    """They lie within the 99.9 % band of the exact tail, which itself is at most 5 %."""
    true = found(count, rate, CONFIDENT)  # type: ignore[operator]
    exact = float(stats.binom.cdf(CONFIDENT.beyond(count, rate), count, rate))
    assert exact <= 0.05
    low, high = stats.binom.interval(0.999, DRAWS, exact)
    assert low <= sum(share > rate for share in true) <= high


@pytest.mark.parametrize("found", [_rates, _escapes])
@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (50, 0.05), (199, 0.005), (333, 0.02)])
def test_the_average_is_as_promised(found: object, count: int, rate: float) -> None:
    true = np.array(found(count, rate, ON_AVERAGE))  # type: ignore[operator]
    expected = (ON_AVERAGE.beyond(count, rate) + 1) / (count + 1)
    assert rate - 1 / (count + 1) < expected <= rate + 1e-12
    assert true.mean() == pytest.approx(expected, abs=4 * true.std() / math.sqrt(DRAWS))


@pytest.mark.parametrize("assurance", [CONFIDENT, ON_AVERAGE, Assurance(0.5)])
@pytest.mark.parametrize("rate", [0.005, 0.03, 0.1, 0.5])
def test_a_threshold_is_the_lowest_that_keeps_the_promise(assurance: Assurance, rate: float) -> None:
    """By trying each number of images beyond it."""
    for count in (1, 5, 19, 59, 200, 598, 1200):
        if assurance.confidence is None:
            fits = [beyond for beyond in range(count) if (beyond + 1) / (count + 1) <= rate + 1e-12]
        else:
            tails = stats.binom.cdf(np.arange(count), count, rate)
            fits = np.flatnonzero(tails <= (1.0 - assurance.confidence) * (1.0 + 1e-9)).tolist()
        assert assurance.beyond(count, rate) == (max(fits) if fits else -1)
        assert (count >= assurance.least_images(rate)) == bool(fits)


def test_the_fewest_images_and_the_best_rate() -> None:
    assert [CONFIDENT.least_images(rate) for rate in (0.005, 0.05, 0.999)] == [598, 59, 1]
    assert [ON_AVERAGE.least_images(rate) for rate in (0.005, 0.05, 0.5)] == [199, 19, 1]
    assert CONFIDENT.best_rate(42) == pytest.approx(0.0688, abs=1e-4)
    for count in (1, 2, 42, 598):
        assert CONFIDENT.beyond(count, CONFIDENT.best_rate(count) + 1e-9) == 0
        assert CONFIDENT.beyond(count, CONFIDENT.best_rate(count) - 1e-9) == -1


def test_too_few_say_what_is_possible() -> None:
    with pytest.raises(DataError, match="no good images to choose"):
        good_threshold([], 0.01, CONFIDENT)
    said = too_few(42, 0.005, CONFIDENT)
    assert said == (
        "with 42 good images the best promise is 6.9% with 95% confidence; 0.5% with 95% confidence needs 598, "
        "on average 199"
    )
    assert "2.4% on average; 0.5% on average needs 199" in too_few(42, 0.005, ON_AVERAGE)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 42, 199, 597])
@pytest.mark.parametrize("assurance", [CONFIDENT, ON_AVERAGE])
def test_the_best_promise_that_is_told_can_be_had(count: int, assurance: Assurance) -> None:
    told = too_few(count, 1e-4, assurance).split("best promise is ")[1].split("%")[0]
    good_threshold(RNG.random(count).tolist(), min(float(told) / 100, 1 - 1e-9), assurance)


def test_equal_scores_are_not_above() -> None:
    threshold, promise = good_threshold([0.5] * 600, 0.05, CONFIDENT)
    assert (threshold, promise.beyond, promise.images) == (0.5, 0, 600)


def test_an_anomalous_part_at_the_edge_is_found() -> None:
    scores = (RNG.random(200) * 0.5 + 0.25).tolist()
    threshold, promise = anomalous_threshold(scores, 0.05, CONFIDENT)
    edge = sorted(scores)[promise.beyond]
    assert threshold < edge
    assert sum(score <= threshold for score in scores) == promise.beyond == CONFIDENT.beyond(200, 0.05)
    with pytest.raises(DataError, match="score 0: no threshold finds them"):
        anomalous_threshold([0.0] * 100 + scores, 0.05, CONFIDENT)


def test_promises_in_words() -> None:
    scores = RNG.random(600).tolist()
    good = good_threshold(scores, 0.05, CONFIDENT)[1].in_words()
    assert good == "at most 5% of good parts score above, with 95% confidence (20 of 600 above)"
    found = anomalous_threshold(scores, 0.02, ON_AVERAGE)[1].in_words()
    assert found == "on average at most 2% of such defects score no higher (11 of 600 no higher)"
    assert [percent(share) for share in (0.005, 0.1, 0.0688, 1.0, 1 / 3)] == ["0.5%", "10%", "6.88%", "100%", "33.3%"]


# ----------------------------------------------------------------------------------------------------------- p-values


def _p_value(reference: Sequence[float], score: float) -> float:
    return (1 + sum(other >= score for other in reference)) / (len(reference) + 1)


def test_p_values_by_counting() -> None:
    scores = np.round(RNG.random(50), 2).tolist()
    reference = reference_of(scores)
    assert reference is not None
    for score in (*scores, 0.0, 0.005, 1.0):
        assert reference.p_value(score) == pytest.approx(_p_value(scores, score))
    assert reference_of([]) is None


def test_p_values_of_good_parts_are_uniform() -> None:
    """At most a share p of good parts has p or less: over draws of the reference too, within four deviations."""
    found = []
    for _ in range(DRAWS):
        *scores, new = RNG.random(40).tolist()
        reference = reference_of(scores)
        assert reference is not None
        found.append(reference.p_value(new))
    for level in (1 / 41, 0.1, 0.25, 0.5, 0.9):
        rare = np.mean(np.array(found) <= level + 1e-12)
        assert rare <= level + 4 * math.sqrt(level * (1 - level) / DRAWS)


def test_very_many_scores_are_thinned_to_the_safe_side() -> None:
    scores = RNG.random(MOST_REFERENCE * 2 + 77).tolist()
    reference = reference_of(scores)
    assert reference is not None
    assert len(reference.scores) == MOST_REFERENCE
    ascending = np.sort(scores)
    for score in RNG.random(200).tolist():
        exact = (1 + len(scores) - int(np.searchsorted(ascending, score))) / (len(scores) + 1)
        assert exact - 1e-9 <= reference.p_value(score) <= exact + 2 / MOST_REFERENCE


def test_a_reference_ascends() -> None:
    with pytest.raises(ValueError, match="ascend"):
        Reference(scores=[0.2, 0.1])


# ---------------------------------------------------------------------------------------------- thresholds of training


def _order_statistic(scores: list[float], rate: float) -> float | None:
    """The smallest score k of n with k/(n+1) ≥ 1 − rate, by trying each; none if there is no such score."""
    ordered = sorted(scores)
    fits = [rank for rank in range(1, len(ordered) + 1) if rank / (len(ordered) + 1) >= 1 - rate - 1e-12]
    return ordered[fits[0] - 1] if fits else None


@pytest.mark.parametrize("count", [1, 2, 5, 18, 19, 20, 98, 99, 100, 199, 1000])
@pytest.mark.parametrize(("rate", "review"), [(0.01, 0.05), (0.05, 0.05), (0.005, 0.5), (0.1, 0.2)])
def test_thresholds_are_order_statistics(count: int, rate: float, review: float) -> None:
    scores = RNG.random(count).tolist()
    found = first_thresholds(scores, ScoreConfig(false_reject=rate, review=review))
    assert found is not None
    reject = _order_statistic(scores, rate)
    lower = _order_statistic(scores, review)
    assert found.reject == (max(scores) if reject is None else reject)
    expected = max(scores) if lower is None else lower
    assert found.review == (expected if expected < found.reject else None)


def test_the_rate_holds_on_average() -> None:
    # A new part among n + 1 exchangeable ones is above the threshold of the other n with chance at most the rate.
    rejected = 0
    config = ScoreConfig(false_reject=0.1, review=0.3)
    for _ in range(2000):
        *scores, new = RNG.random(30).tolist()
        found = first_thresholds(scores, config)
        assert found is not None
        rejected += new > found.reject
    assert rejected / 2000 == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 2000))


def test_order_does_not_matter_and_ties_are_fine() -> None:
    scores = [0.3, 0.1, 0.3, 0.2, 0.3]
    config = ScoreConfig(false_reject=0.01, review=0.05)
    assert first_thresholds(scores, config) == first_thresholds(sorted(scores), config)
    found = first_thresholds([0.2] * 50, config)
    assert found is not None
    assert (found.reject, found.review) == (0.2, None)


@pytest.mark.parametrize("rate", [0.999, 1 - 1e-12])
def test_rates_near_one_take_the_smallest_score(rate: float) -> None:
    found = first_thresholds([0.3, 0.1, 0.2], ScoreConfig(false_reject=rate, review=rate))
    assert found is not None
    assert found.reject == 0.1


def test_no_images_no_threshold() -> None:
    assert first_thresholds([], ScoreConfig()) is None


def test_what_it_was_chosen_on_in_words() -> None:
    config = ScoreConfig(false_reject=0.01, review=0.05)
    few, enough = (first_thresholds(RNG.random(count).tolist(), config) for count in (9, 99))
    assert few is not None
    assert enough is not None
    assert "9 good images" in few.chosen_on
    assert "at most 10% of good parts" in few.chosen_on  # 1/(n+1): all that nine images can promise
    assert "1% needs 99 images" in few.chosen_on
    assert "99 good images" in enough.chosen_on
    assert "at most 1% of good parts" in enough.chosen_on
    assert "needs" not in enough.chosen_on
    assert "needs" in str(first_thresholds(RNG.random(98).tolist(), config))
