"""How images, masks, maps and boxes go to the network's input and back, against slow references."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from draem.images import FitMode, fit_image, fit_mask, plan_fit, unfit_box, unfit_map

RNG = np.random.default_rng(0)
SIZES = [(16, 2000), (2000, 16), (333, 200), (200, 333), (64, 64), (1, 1), (1, 300), (31, 97), (500, 499)]


def _area_weights(old: int, new: int) -> NDArray[Any]:
    """new×old matrix: the share of each old pixel in each new one, from the overlap of their intervals."""
    edges = np.arange(new + 1) * old / new
    low, high = np.maximum(edges[:-1, None], np.arange(old)), np.minimum(edges[1:, None], np.arange(old) + 1)
    return np.asarray(np.maximum(high - low, 0) * new / old)


def _linear_weights(old: int, new: int) -> NDArray[Any]:
    """new×old matrix of linear interpolation between pixel centres, the border repeated."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.asarray(np.maximum(1 - np.abs(place[:, None] - np.arange(old)), 0))


def _slow_resize(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    rows, columns = (
        (_area_weights if new < old else _linear_weights)(old, new)
        for old, new in zip(image.shape[:2], size, strict=True)
    )
    return np.stack([rows @ image[..., channel] @ columns.T for channel in range(image.shape[2])], axis=2)


@pytest.mark.parametrize("shape", [(60, 81), (20, 90), (90, 20), (20, 20), (64, 32), (7, 200)])
def test_resize_against_overlaps_of_pixels(shape: tuple[int, int]) -> None:
    image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    fitted = fit_image(image, (32, 48), "resize")
    assert np.abs(fitted - _slow_resize(image, (32, 48))).max() <= 1.6  # a rounding for each of two steps


def test_linear_is_plain_opencv() -> None:
    image = RNG.integers(0, 256, (90, 70, 3), dtype=np.uint8)
    expected = cv2.resize(image, (48, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(fit_image(image, (32, 48), "resize", "linear"), expected)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("size", [(256, 256), (64, 160)])
def test_letterbox_geometry(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    plan = plan_fit(shape, size, "letterbox")
    fitted = fit_image(image, size, "letterbox")
    assert fitted.shape == (*size, 3)
    assert plan.height == size[0] or plan.width == size[1]
    scale = min(size[0] / shape[0], size[1] / shape[1])
    assert abs(plan.height - max(shape[0] * scale, 1)) <= 0.5
    assert abs(plan.width - max(shape[1] * scale, 1)) <= 0.5
    assert 0 <= size[0] - plan.height - 2 * plan.top <= 1
    assert 0 <= size[1] - plan.width - 2 * plan.left <= 1
    rows = np.clip(np.arange(size[0]) - plan.top, 0, plan.height - 1)
    columns = np.clip(np.arange(size[1]) - plan.left, 0, plan.width - 1)
    np.testing.assert_array_equal(fitted, fitted[plan.window][rows][:, columns])
    np.testing.assert_array_equal(fitted[plan.window], fit_image(image, (plan.height, plan.width), "resize"))


def test_nothing_to_do_changes_nothing_and_shares_nothing() -> None:
    image = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for fit in ("resize", "letterbox"):
        fitted = fit_image(image, (32, 32), fit)
        np.testing.assert_array_equal(fitted, image)
        assert not np.shares_memory(fitted, image)


def test_mask_is_true_where_half_is_covered() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0:2, 0] = True  # half of the first 2×2 block
    mask[4, 4] = True  # a quarter
    mask[6:8, 2:4] = True  # all
    expected = np.zeros((4, 4), bool)
    expected[0, 0] = expected[3, 1] = True
    np.testing.assert_array_equal(fit_mask(mask, (4, 4), "resize"), expected)


@pytest.mark.parametrize("shape", SIZES)
def test_mask_lies_where_the_image_lies(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, bool)
    mask[
        shape[0] // 3 : shape[0] // 3 + max(1, shape[0] // 2), shape[1] // 4 : shape[1] // 4 + max(1, shape[1] // 2)
    ] = True
    for fit in ("resize", "letterbox"):
        plan, fitted = plan_fit(shape, (64, 160), fit), fit_mask(mask, (64, 160), fit)
        coverage = _slow_resize(mask[..., None], (plan.height, plan.width))[..., 0]
        clear = np.abs(coverage - 0.5) > 1e-3
        np.testing.assert_array_equal(fitted[plan.window][clear], coverage[clear] > 0.5)
        assert fitted.sum() == fitted[plan.window].sum()
        assert not fit_mask(~mask & mask, (64, 160), fit).any()
        assert fit_mask(mask | True, (64, 160), fit).sum() == plan.height * plan.width


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_map_returns_to_where_it_came_from(shape: tuple[int, int], fit: FitMode) -> None:
    """A ramp over the original, fitted and brought back, is the ramp again to within a pixel of the coarser grid."""
    size = (128, 192)
    plan = plan_fit(shape, size, fit)
    for axis, scaled in ((0, plan.height), (1, plan.width)):
        ramp = (np.indices(shape)[axis] + 0.5) / shape[axis]
        inside = _slow_resize(ramp[..., None], (plan.height, plan.width))[..., 0]
        anomaly_map = np.full(size, 9, np.float32)  # padding that must not come back
        anomaly_map[plan.window] = inside
        back = unfit_map(anomaly_map, shape, size, fit)
        assert back.shape == shape
        assert back.dtype == np.float32
        assert np.abs(back - ramp).max() <= 0.51 / min(scaled, shape[axis]) + 1e-5
        middle = slice(shape[axis] // 4, shape[axis] - shape[axis] // 4)
        if min(shape) > 30 and min(plan.height, plan.width) > 30:  # away from the border: within a tenth of a pixel
            assert np.abs(np.take(back - ramp, range(*middle.indices(shape[axis])), axis)).max() < 0.1 / shape[axis]


def test_peaks_survive_a_shrinking_map() -> None:
    """Picking every 32nd pixel would lose a spot; the average over each pixel's area keeps its weight."""
    anomaly_map = np.zeros((256, 256), np.float32)
    anomaly_map[100:104, 100:104] = 1
    back = unfit_map(anomaly_map, (8, 8), (256, 256), "resize")
    assert back.sum() == pytest.approx(anomaly_map.sum() / 32**2, rel=1e-5)


def test_map_of_another_size() -> None:
    with pytest.raises(ValueError, match="a map of"):
        unfit_map(np.zeros((8, 9), np.float32), (20, 20), (9, 8), "resize")


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_box_covers_what_it_came_from(shape: tuple[int, int], fit: FitMode) -> None:
    size = (128, 192)
    plan = plan_fit(shape, size, fit)
    for _ in range(30):
        top, left = int(RNG.integers(shape[0])), int(RNG.integers(shape[1]))
        bottom, right = int(RNG.integers(top, shape[0])) + 1, int(RNG.integers(left, shape[1])) + 1
        down, across = plan.height / shape[0], plan.width / shape[1]
        box = (
            int(plan.left + left * across),
            int(plan.top + top * down),
            int(np.ceil(plan.left + right * across)),
            int(np.ceil(plan.top + bottom * down)),
        )
        x0, y0, x1, y1 = unfit_box(box, shape, size, fit)
        assert 0 <= x0 <= left < right <= x1 <= shape[1]
        assert 0 <= y0 <= top < bottom <= y1 <= shape[0]
        # No more than an input pixel, and a rounding, is added on each side.
        assert max(left - x0, x1 - right) <= 1 / across + 1
        assert max(top - y0, y1 - bottom) <= 1 / down + 1
        # All of the box that shows the image is covered, not only what it was made from.
        assert plan.left + x0 * across <= box[0] + 1e-6
        assert plan.left + x1 * across >= min(box[2], plan.left + plan.width) - 1e-6
        assert plan.top + y0 * down <= box[1] + 1e-6
        assert plan.top + y1 * down >= min(box[3], plan.top + plan.height) - 1e-6
    assert unfit_box((0, 0, size[1], size[0]), shape, size, fit) == (0, 0, shape[1], shape[0])
