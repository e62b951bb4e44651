"""A defect's figures against closed forms: rectangles, discs and lines on grounds of known noise."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from draem.data.defects import Defect, describe
from draem.pixels import Pixels

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def ground(level: int = 100, size: tuple[int, int] = (128, 128), channels: int = 3) -> Image:
    return np.full((*size, channels), level, np.uint8)


def rectangle(height: int, width: int, size: tuple[int, int] = (128, 128)) -> Mask:
    mask = np.zeros(size, bool)
    mask[20 : 20 + height, 10 : 10 + width] = True
    return mask


def only(image: Pixels, mask: Mask) -> Defect:
    (defect,) = describe(image, mask)
    return defect


def noise(deviation: float, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(0, deviation, (128, 128, 1)).repeat(3, 2)


@pytest.mark.parametrize(("height", "width"), [(1, 100), (100, 1), (2, 60), (3, 90), (5, 50), (16, 40), (30, 30)])
def test_elongation_of_a_rectangle_is_its_ratio(height: int, width: int) -> None:
    found = only(ground(), rectangle(height, width))
    assert found.elongation == pytest.approx(max(height, width) / min(height, width), rel=0.04)
    assert found.area == height * width / 128**2
    assert found.size == pytest.approx((height * width) ** 0.5)
    assert found.box == (10, 20, 10 + width, 20 + height)


def test_a_disc_is_as_round_as_a_square() -> None:
    mask = cv2.circle(np.zeros((128, 128), np.uint8), (64, 64), 30, 1, -1) > 0
    assert only(ground(), mask).elongation == pytest.approx(1.0, abs=0.02)


def test_a_bent_line_is_as_long_as_a_straight_one() -> None:
    rows, columns = np.mgrid[:128, :128]
    radius = np.hypot(rows - 63.5, columns - 63.5)
    assert only(ground(), (radius > 36) & (radius < 44)).elongation == pytest.approx(2 * np.pi * 40 / 8, rel=0.2)


def test_one_pixel_is_a_defect() -> None:
    found = only(ground(), rectangle(1, 1))
    assert found.elongation == pytest.approx(1.0, abs=0.05)
    assert found.texture == 1.0


@pytest.mark.parametrize(("inside", "around"), [(200, 100), (40, 100), (255, 0), (100, 100)])
def test_contrast_on_flat_ground(inside: int, around: int) -> None:
    mask = rectangle(12, 30)
    image = ground(around)
    image[mask] = inside
    found = only(image, mask)
    assert found.contrast == pytest.approx(abs(inside - around) / 255, abs=1e-6)
    assert found.brightness == pytest.approx((inside - around) / 255, abs=1e-6)
    assert found.texture == pytest.approx(1.0)


def test_colours_of_one_brightness_have_contrast() -> None:
    mask = rectangle(12, 30)
    image = ground(0)
    image[mask] = (255, 0, 0)
    found = only(image, mask)
    assert found.contrast == pytest.approx((1 / 3) ** 0.5, abs=1e-6)
    assert found.brightness == pytest.approx(0.299, abs=1e-6)


def test_channels_of_any_number_count_alike() -> None:
    mask = rectangle(12, 30)
    image = ground(0, channels=4)
    image[mask] = (0, 0, 0, 200)
    found = only(image, mask)
    assert found.contrast == pytest.approx(200 / 255 / 2, abs=1e-6)
    assert found.brightness == pytest.approx(200 / 255 / 4, abs=1e-6)


def test_sixteen_bits_are_the_same_as_eight() -> None:
    mask = rectangle(12, 30)
    image = np.where(mask[..., None], 60 + noise(5), 128 + noise(9, 1)).round().astype(np.uint8)
    fine, coarse = vars(only(image.astype(np.uint16) * 257, mask)), vars(only(image, mask))
    for key, value in coarse.items():
        assert fine[key] == pytest.approx(value, rel=1e-5), key


def test_contrast_is_with_the_ring_not_with_what_lies_far_away() -> None:
    image = ground(100)
    image[:, 64:] = 250
    mask = rectangle(12, 12)
    image[mask] = 120
    assert only(image, mask).contrast == pytest.approx(20 / 255, abs=1e-6)


def test_texture_is_the_ratio_of_the_noises() -> None:
    mask = rectangle(40, 60)
    for inside, around in ((24, 6), (3, 12)):
        image = np.where(mask[..., None], 128 + noise(inside), 128 + noise(around, 1)).round().astype(np.uint8)
        # The mean difference of two normal values is 2σ/√π; one grey level is added to each.
        expected = (2 * inside / np.pi**0.5 + 1) / (2 * around / np.pi**0.5 + 1)
        assert only(image, mask).texture == pytest.approx(expected, rel=0.06)


def test_an_edge_is_not_texture() -> None:
    image = ground(0)
    mask = rectangle(3, 60)
    image[mask] = 255
    assert only(image, mask).texture == pytest.approx(1.0)


def test_a_broken_scratch_is_one_defect_and_as_long() -> None:
    whole = cv2.line(np.zeros((256, 256), np.uint8), (30, 40), (200, 180), 1, 1) > 0
    broken = whole.copy()
    broken[:, ::9] = False
    one, found = only(ground(size=(256, 256)), whole), only(ground(size=(256, 256)), broken)
    assert found.elongation == pytest.approx(one.elongation, rel=0.15)
    assert found.count == 1


def test_defects_apart_are_several_the_largest_first() -> None:
    mask = rectangle(10, 10)
    mask[80:84, 20:24] = True
    mask[80:100, 80:100] = True
    found = describe(ground(), mask)
    assert [round(one.size) for one in found] == [20, 10, 4]
    assert {one.count for one in found} == {3}
    assert [round(one.size) for one in describe(ground(), mask, most=2)] == [20, 4]


def test_specks_count_only_where_there_is_nothing_larger() -> None:
    mask = np.zeros((256, 256), bool)
    mask[200, 200] = True
    assert len(describe(ground(size=(256, 256)), mask)) == 1
    mask[20:40, 20:40] = True
    assert [round(one.size) for one in describe(ground(size=(256, 256)), mask)] == [20]


def test_a_neighbour_is_no_surroundings() -> None:
    image, mask = ground(100), np.zeros((128, 128), bool)
    for start, level in ((20, 130), (40, 250)):
        mask[20:60, start : start + 14] = True
        image[20:60, start : start + 14] = level
    assert [one.contrast for one in describe(image, mask)] == pytest.approx([30 / 255, 150 / 255], abs=1e-6)


def test_nothing_around_and_nothing_at_all() -> None:
    everything = only(ground(), np.ones((128, 128), bool))
    assert (everything.area, everything.contrast, everything.brightness, everything.texture) == (1.0, 0.0, 0.0, 1.0)
    assert describe(ground(), np.zeros((128, 128), bool)) == []
