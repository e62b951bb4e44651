"""What the doctor measures, against closed forms and slow references; its limits, against distributions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score

from draem.data.demo import render_image
from draem.data.doctor.facts import Facts
from draem.data.doctor.masks import _inside, fit
from draem.data.doctor.measures import GRID, WORKING_SIDE, cells, grain, measure, sharpness
from draem.data.doctor.tails import is_chance, limits, medians, separation
from draem.data.doctor.twins import detail, likeness, near_twins, neighbours, same_pixels
from draem.data.samples import Sample

Image = NDArray[np.uint8]


def noise(seed: int, side: int = 128) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


def facts(image: Image, name: str) -> Facts:
    sample = Sample(Path(name), name, "train", "parts", "good", "good", None)
    return Facts(sample, look=measure(image), pixels=image.tobytes())


# -------------------------------------------------------------------------------------------------------------- limits


def test_limits_of_normal_values() -> None:
    """About the 1 - 0.05 / n quantile of a normal distribution, on either side; a little farther, never much."""
    values = np.random.default_rng(0).normal(10, 2, 4000)
    low, high = limits(values, 0.0)
    expected = stats.norm.isf(0.05 / 4000)
    for limit, sign in ((low, -1), (high, 1)):
        assert 0.85 < sign * (limit - 10) / 2 / expected < 1.4


@pytest.mark.parametrize("draw", ["normal", "exponential", "uniform", "standard_t", "lognormal"])
@pytest.mark.parametrize("count", [20, 60, 300])
def test_false_alarms_are_rare_whatever_the_distribution(draw: str, count: int) -> None:
    rng = np.random.default_rng(5)
    arguments = {"standard_t": [4]}.get(draw, [])
    sets = [getattr(rng, draw)(*arguments, size=count) for _ in range(200)]
    beyond = [np.sum((values < limits(values, 0.0)[0]) | (values > limits(values, 0.0)[1])) for values in sets]
    assert np.sum(beyond) / (200 * count) < 0.01


def test_outliers_do_not_hide_themselves() -> None:
    rng = np.random.default_rng(1)
    for count in (20, 100, 1000):
        values = np.append(rng.normal(0, 1, count), [30.0] * max(1, count // 100))
        assert limits(values, 0.0)[1] < 30


def test_what_is_too_small_to_matter_is_no_outlier() -> None:
    assert limits([5.0] * 50, 0.3) == pytest.approx((4.7, 5.3))
    assert limits(np.linspace(0, 1e-3, 50), 0.3) == pytest.approx((-0.2995, 0.3005))


def test_more_draws_lie_farther_out() -> None:
    values = np.random.default_rng(2).normal(size=300)
    assert limits(values, 0.0, draws=100_000)[1] > limits(values, 0.0)[1]


def test_separation_is_auroc() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 8, 40), rng.integers(2, 10, 30)
    truth = [0] * 40 + [1] * 30
    assert separation(first, second) == pytest.approx(roc_auc_score(truth, [*first, *second]))
    assert separation([], second) == 0.5


def test_chance_is_the_rank_sum_test() -> None:
    """The limit in standard deviations is scipy's z of the Mann-Whitney test, without its continuity correction."""
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=30), rng.normal(0.9, 1, size=25)
    auroc = separation(first, second)
    p = stats.mannwhitneyu(second, first, use_continuity=False, method="asymptotic").pvalue
    z = stats.norm.isf(p / 2)
    assert is_chance(auroc, 30, 25, z + 1e-6)
    assert not is_chance(auroc, 30, 25, z - 1e-6)


def test_medians() -> None:
    values = np.random.default_rng(6).normal(3, 2, (20_001, 2)).astype(np.float32)
    middle, spread = medians(values)
    np.testing.assert_allclose(middle, 3, atol=0.05)
    np.testing.assert_allclose(spread, 2, rtol=0.03)


# ------------------------------------------------------------------------------------------------------------ measures


def test_cells_are_what_they_say() -> None:
    image = noise(0, WORKING_SIDE)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    planes = cells(image).astype(np.float32)
    side = WORKING_SIDE // GRID
    for row, column in ((0, 0), (3, 17), (31, 31)):
        rows, columns = (slice(place * side, (place + 1) * side) for place in (row, column))
        cell, colour = grey[rows, columns], image[rows, columns].astype(np.float32).mean(axis=(0, 1))
        expected = [cell.mean(), cell.min(), cell.max()]
        np.testing.assert_allclose(planes[:3, row, column], expected, atol=0.1)
        np.testing.assert_allclose(planes[4:, row, column], [colour[0] - colour[1], colour[2] - colour[1]], atol=0.1)


def test_measures_of_a_plain_picture() -> None:
    look = measure(np.full((40, 60, 3), (200, 100, 50), np.uint8))
    assert (look.size, look.extent, look.contrast) == ((40, 60), 0, 0.0)
    assert look.colour == (200.0, 100.0, 50.0)
    assert look.tint == (100.0, -50.0)
    assert not look.grey
    assert measure(np.full((40, 60, 3), 90, np.uint8)).grey
    assert measure(np.full((40, 60, 3), 254, np.uint8)).white == 1.0


def test_sharpness_falls_with_blur_not_with_light() -> None:
    grey = cv2.cvtColor(render_image("woven", size=128).image, cv2.COLOR_RGB2GRAY)
    blurred = [sharpness(ndimage.gaussian_filter(grey, sigma)) for sigma in (0.0, 0.5, 1.0, 2.0)]
    assert blurred == sorted(blurred, reverse=True)
    assert blurred[0] - blurred[3] > 0.4
    assert abs(sharpness((grey * 0.6).astype(np.uint8)) - blurred[0]) < 0.1


def test_grain_changes_sign_with_a_quarter_turn() -> None:
    stripes = np.tile((np.arange(64) % 8 * 30).astype(np.uint8), (64, 1))
    assert grain(stripes) == pytest.approx(-1, abs=1e-3)
    assert grain(np.ascontiguousarray(stripes.T)) == pytest.approx(1, abs=1e-3)
    assert abs(grain(noise(1)[..., 0])) < 0.05


# -------------------------------------------------------------------------------------------------------------- copies


def test_likeness_of_copies_and_of_others() -> None:
    photograph, other = (measure(render_image("woven", size=256, index=index).image).small for index in (0, 1))
    shifted = np.roll(photograph, (3, -5), (0, 1))
    lighter = np.clip(photograph * 1.1 + 5, 0, 255).astype(np.uint8)
    assert likeness(detail(photograph), detail(photograph)) == pytest.approx(1, abs=1e-5)
    assert likeness(detail(photograph), detail(shifted)) > 0.95
    assert likeness(detail(photograph), detail(lighter)) > 0.95
    assert likeness(detail(photograph), detail(other)) < 0.5


def test_neighbours_are_the_nearest() -> None:
    images = [facts(noise(seed // 3) // 2 + noise(100 + seed) // 8, f"{seed}.png") for seed in range(30)]
    order = neighbours(images)
    for row in range(30):
        same = {other for other in range(30) if other // 3 == row // 3 and other != row}
        assert set(order[row, :2].tolist()) == same


def test_groups_of_copies() -> None:
    images = [render_image("woven", size=128, index=index).image for index in range(14)]
    known = [facts(image, f"{index:02d}.png") for index, image in enumerate(images)]
    assert same_pixels(known) == near_twins(known) == []
    known.append(facts(images[3], "copy.png"))
    known.append(facts(np.clip(images[7] * 1.05, 0, 255).astype(np.uint8), "lighter.png"))
    known.append(facts(np.clip(images[7] * 0.95, 0, 255).astype(np.uint8), "darker.png"))
    assert [[one.name for one in group] for group in same_pixels(known)] == [["03.png", "copy.png"]]
    groups = [[one.name for one in group] for group in near_twins(known)]
    assert groups == [["03.png", "copy.png"], ["07.png", "lighter.png", "darker.png"]]


# --------------------------------------------------------------------------------------------------------------- masks


def test_fit_against_every_shift() -> None:
    rng = np.random.default_rng(8)
    distances = ndimage.gaussian_filter(rng.random((GRID, GRID)), 1.5).astype(np.float32)
    mask = np.zeros((GRID, GRID), np.float32)
    mask[20:24, 5:8], mask[24, 5] = 1, 0.5
    here, best = fit(distances, mask)
    above = distances - np.median(distances)
    slow = [
        (above * np.roll(mask, (down, right), (0, 1))).sum() / mask.sum()
        for down in range(-20, GRID - 24)
        for right in range(-5, GRID - 7)
    ]
    assert here == pytest.approx((above * mask).sum() / mask.sum(), abs=1e-5)
    assert best == pytest.approx(max(slow), abs=1e-5)


def test_inside_is_auroc_weighted_by_coverage() -> None:
    rng = np.random.default_rng(9)
    distances = rng.random((GRID, GRID)).astype(np.float32)
    mask = (rng.random((GRID, GRID)) < 0.2).astype(np.float32)
    assert _inside(distances, mask) == pytest.approx(roc_auc_score(mask.ravel() > 0, distances.ravel()))
