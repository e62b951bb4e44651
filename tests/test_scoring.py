"""Scores, regions and verdicts against SciPy and each other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from draem.inspection.scoring import exceeds, find_regions, image_score, smooth, verdict
from draem.modelfile import Thresholds

Map = NDArray[np.float32]
RNG = np.random.default_rng(0)


def _map(*shape: int, blobs: float = 2.0, seed: int = 0) -> Map:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), blobs)
    return np.asarray((noise - noise.min()) / (np.ptp(noise) + 1e-9), np.float32)


def _thresholds(reject: float, review: float | None = None) -> Thresholds:
    return Thresholds(reject=reject, review=review, chosen_on="a test's")


# -------------------------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("side", [1, 3, 11, 21, 63])
@pytest.mark.parametrize("shape", [(64, 64), (40, 97), (8, 200), (16, 16)])
def test_mean_filter_against_scipy(side: int, shape: tuple[int, int]) -> None:
    found = RNG.random(shape, dtype=np.float32)
    expected = ndimage.uniform_filter(found.astype(np.float64), side, mode="constant")
    smoothed = smooth(found, side)
    assert smoothed.dtype == np.float32
    np.testing.assert_allclose(smoothed, expected, atol=2e-6)
    assert image_score(found, side) == pytest.approx(expected.max(), abs=2e-6)


def test_a_view_is_smoothed_as_its_copy() -> None:
    found = RNG.random((64, 64), dtype=np.float32)
    np.testing.assert_array_equal(smooth(found[::2, ::-1], 5), smooth(found[::2, ::-1].copy(), 5))


@pytest.mark.parametrize("area", [1, 10, 441])
def test_a_small_defect_scores_at_most_its_share_of_the_window(area: int) -> None:
    found = np.zeros((64, 64), np.float32)
    found[20:41, 20:41].flat[:area] = 1.0
    assert image_score(found, 21) == pytest.approx(area / 441, abs=1e-6)


def test_the_map_is_not_changed() -> None:
    found = _map(32, 32)
    before = found.copy()
    find_regions(smooth(found, 1), 0.5)
    smooth(found, 5)
    np.testing.assert_array_equal(found, before)


# ------------------------------------------------------------------------------------------------------------- regions


@pytest.mark.parametrize("seed", range(6))
def test_regions_against_scipy(seed: int) -> None:
    smoothed = _map(48, 71, seed=seed)
    threshold = 0.6
    labels, count = ndimage.label(smoothed > threshold, np.ones((3, 3)))
    expected = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels == label
        box = (columns.start, rows.start, columns.stop, rows.stop)
        row, column = np.unravel_index(np.where(inside, smoothed, -1).argmax(), inside.shape)
        mean = float(smoothed[inside].mean(dtype=np.float64))
        place = (float(column) + 0.5, float(row) + 0.5)
        expected.append((box, int(inside.sum()), float(smoothed[inside].max()), mean, place))
    assert count > 1
    found = find_regions(smoothed, threshold)
    seen = [(one.box, one.area, one.peak, one.mean, one.place) for one in found]
    assert seen == sorted(expected, key=lambda region: -region[2])


def test_contours_hold_their_regions() -> None:
    """Filled again, each gives its region but for holes; corners are middles of pixels on its border."""
    smoothed = _map(60, 80, seed=3)
    for region in find_regions(smoothed, 0.55):
        corners = np.array(region.contour) - 0.5
        assert (corners == corners.round()).all()
        filled = cv2.fillPoly(np.zeros(smoothed.shape, np.uint8), [corners.astype(np.int32)], 1) > 0
        labels, _ = ndimage.label(smoothed > 0.55, np.ones((3, 3)))
        own = labels == labels[int(region.place[1]), int(region.place[0])]
        np.testing.assert_array_equal(filled, ndimage.binary_fill_holes(own))
        left, top, right, bottom = region.box
        assert (corners.min(0) == (left, top)).all()
        assert (corners.max(0) == (right - 1, bottom - 1)).all()


def test_a_region_ready_for_json() -> None:
    (found,) = find_regions(np.pad(np.ones((2, 3), np.float32), 2), 0.5)
    assert found.to_dict() == {
        "box": [2, 2, 5, 4],
        "area": 6,
        "peak": 1.0,
        "mean": 1.0,
        "place": [2.5, 2.5],
        "contour": [[2.5, 2.5], [2.5, 3.5], [4.5, 3.5], [4.5, 2.5]],
    }


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    smoothed = np.zeros((8, 8), np.float32)
    smoothed[[2, 3, 4], [2, 3, 4]] = 1.0
    (found,) = find_regions(smoothed, 0.5)
    assert (found.box, found.area, found.peak) == ((2, 2, 5, 5), 3, 1.0)


@pytest.mark.parametrize("seed", range(8))
def test_there_are_regions_exactly_where_the_score_is_above(seed: int) -> None:
    found = _map(40, 40, seed=seed)
    score = image_score(found, 5)
    smoothed = smooth(found, 5)
    # Around the score in float32 steps and in float64 steps, which float32 cannot tell apart.
    near = [
        score,
        np.nextafter(score, 0),
        np.nextafter(score, 1),
        float(np.nextafter(np.float32(score), np.float32(0))),
    ]
    for threshold in [0.0, 0.3, 1.0, *map(float, near)]:
        regions = find_regions(smoothed, threshold)
        assert bool(regions) == (score > threshold) == (verdict(score, _thresholds(threshold)) == "reject")
        assert exceeds(smoothed, threshold).sum() == sum(region.area for region in regions)
        if regions:
            assert regions[0].peak == score


def test_verdicts_at_their_borders() -> None:
    thresholds = _thresholds(0.5, 0.25)
    scores = [0.0, 0.25, 0.25000001, 0.5, 0.50000001, 1.0]
    expected = ["accept", "accept", "review", "review", "reject", "reject"]
    assert [verdict(score, thresholds) for score in scores] == expected
    assert [verdict(score, _thresholds(0.5)) for score in scores] == ["accept"] * 4 + ["reject"] * 2
    assert verdict(1.0, None) is None
