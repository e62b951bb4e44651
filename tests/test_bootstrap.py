"""Weighted histograms against copies of images; intervals against other draws from the same distribution."""

from __future__ import annotations

from itertools import repeat

import numpy as np
import pytest
from numpy.typing import NDArray

from draem.evaluation.bootstrap import BINS, Bootstrap, Stratum, bin_edges, intervals
from draem.evaluation.metrics import LEVELS, METRIC_KEYS, Metrics, MetricsAccumulator

Map = NDArray[np.float32]
Image = tuple[Stratum, float, Map, NDArray[np.bool_] | None]


def _images(seed: int, good: int = 12, bad: int = 14, side: int = 24) -> list[Image]:
    """Good ones, and of two defect types, of two categories; some of the scores are equal."""
    random = np.random.default_rng(seed)
    found: list[Image] = []
    for place in range(good + bad):
        category = "ab"[place % 2]
        values = random.beta(1, 12, (side, side)).astype(np.float32)
        kind, mask = (None if place < good else ("dent", "scratch")[place % 3 % 2]), None
        if kind:
            mask = np.zeros((side, side), bool)
            top, left = random.integers(0, side - 8, 2)
            mask[top : top + 7, left : left + (2 if kind == "scratch" else 6)] = True
            values[mask] = random.beta(3, 4, int(mask.sum()))
        score = float(np.clip(random.normal(0.5 if kind else 0.4, 0.1), 0.0, 1.0))
        found.append(((category, kind), round(score, 2), values, mask))
    return found


def _count(images: list[Image], times: list[int] | None = None) -> MetricsAccumulator:
    accumulator = MetricsAccumulator()
    for ((category, kind), score, values, mask), many in zip(images, times or repeat(1), strict=False):
        for _ in range(many):
            accumulator.add(score, kind is not None, values, mask, category=category, defect_type=kind or "")
    return accumulator


def _bootstrap(images: list[Image], replicates: int = 25, seed: int = 0) -> Bootstrap:
    bootstrap = Bootstrap([stratum for stratum, *_ in images], replicates, seed)
    for stratum, score, values, mask in images:
        pixels = MetricsAccumulator().add(score, stratum[1] is not None, values, mask)
        bootstrap.add(stratum, score, pixels)
    return bootstrap


def _drawn(images: list[Image], bootstrap: Bootstrap, replicate: int) -> list[int]:
    """How often each image is in a replicate."""
    seen: dict[Stratum, int] = {}
    times = []
    for stratum, *_ in images:
        place = seen[stratum] = seen.get(stratum, -1) + 1
        times.append(int(bootstrap._strata[stratum].weights[1 + replicate, place]))
    return times


def test_bins_are_fine_at_both_ends() -> None:
    edges = bin_edges()
    assert edges[0] == 0
    assert edges[-1] >= LEVELS - 2
    assert (np.diff(edges) > 0).all()
    assert len(edges) <= BINS
    assert edges[10] == 10
    assert np.diff(edges).max() < LEVELS / 100


@pytest.mark.parametrize("category", [None, "a", "b"])
def test_a_replicate_is_the_metrics_of_the_images_as_often_as_drawn(category: str | None) -> None:
    images = _images(0)
    bootstrap = _bootstrap(images)
    found = bootstrap.replicates(category)
    for replicate in range(5):
        times = _drawn(images, bootstrap, replicate)
        accumulator = _count(images, times)
        exact = accumulator.overall() if category is None else accumulator.by_category()[category]
        for name in METRIC_KEYS:
            # Image metrics are exact; pixels are counted in coarser bins.
            near = 1e-12 if name.startswith("image") else 0.015 if name == "pixel_f1_max" else 0.004
            wanted = pytest.approx(getattr(exact, name), abs=near)
            assert found[name][replicate] == wanted, name


def test_every_stratum_is_drawn_as_often_as_it_is_large() -> None:
    images = _images(1)
    bootstrap = _bootstrap(images)
    assert len(bootstrap._strata) == 6
    for stratum, drawn in bootstrap._strata.items():
        size = sum(image[0] == stratum for image in images)
        assert drawn.weights.shape == (26, size)
        assert (drawn.weights[0] == 1).all()  # the images themselves
        assert (drawn.weights.sum(axis=1) == size).all()
    weights = np.concatenate([drawn.weights.ravel() for drawn in _bootstrap(images, 400)._strata.values()])
    assert weights.mean() == pytest.approx(1.0)
    assert weights.var() == pytest.approx(1.0, abs=0.35)  # 1 − 1/n of a stratum


def test_the_same_images_get_the_same_draws_whatever_the_model() -> None:
    images = _images(2)
    others: list[Image] = [
        (stratum, score / 2, values / np.float32(2), mask) for stratum, score, values, mask in images
    ]
    first, second = _bootstrap(images), _bootstrap(others)
    for stratum in first._strata:
        assert (first._strata[stratum].weights == second._strata[stratum].weights).all()
    assert (first.replicates()["image_auroc"] == second.replicates()["image_auroc"]).all()
    assert (_bootstrap(images, seed=1)._strata[("a", None)].weights != first._strata[("a", None)].weights).any()


def test_images_that_do_not_come_are_left_out() -> None:
    images = _images(3)
    bootstrap = Bootstrap([stratum for stratum, *_ in images] + [("a", None)] * 3, 25)
    for stratum, score, values, mask in images:
        bootstrap.add(stratum, score, MetricsAccumulator().add(score, stratum[1] is not None, values, mask))
    found = bootstrap.replicates()
    assert all(np.isfinite(values).all() for values in found.values())


def test_what_is_not_known_has_no_interval() -> None:
    good = [image for image in _images(4) if image[0][1] is None]
    found = _bootstrap(good).replicates()
    assert all(np.isnan(values).all() for values in found.values())
    assert set(intervals(found, Metrics()).values()) == {None}
    images = [(stratum, score, values, None) for stratum, score, values, _ in _images(4)]
    bootstrap = Bootstrap([stratum for stratum, *_ in images], 25)
    for stratum, score, *_ in images:
        bootstrap.add(stratum, score, None)
    replicates = bootstrap.replicates()
    assert np.isnan(replicates["pixel_ap"]).all()
    assert np.isfinite(replicates["image_ap"]).all()


def test_intervals_hold_what_very_many_images_give() -> None:
    """About 95 % of them should; of 60 images, 83 to 93 % did in 60 draws."""
    names = ("image_ap", "pixel_ap", "pixel_aupro", "pixel_auroc")
    truth = _count(_images(999, 1500, 1500)).overall()
    holds: dict[str, list[bool]] = {name: [] for name in names}
    for seed in range(20):
        images = _images(seed, 30, 30)
        metrics = _count(images).overall()
        found = intervals(_bootstrap(images, 100).replicates(), metrics)
        for name in names:
            low, high = found[name] or [1.0, 0.0]
            assert low <= getattr(metrics, name) <= high
            holds[name].append(low <= getattr(truth, name) <= high)
    assert {name: np.mean(held) >= 0.7 for name, held in holds.items()} == dict.fromkeys(names, True)


def test_more_images_narrower_intervals() -> None:
    images = _images(5, 20, 20)
    wide, narrow = (
        intervals(_bootstrap(some, 200).replicates(), _count(some).overall()) for some in (images, images * 9)
    )
    for name in ("image_ap", "pixel_ap", "pixel_aupro"):
        (low, high), (inner_low, inner_high) = wide[name] or [0, 0], narrow[name] or [0, 0]
        assert (inner_high - inner_low) / (high - low) == pytest.approx(1 / 3, abs=0.12), name
