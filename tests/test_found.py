"""Recall of single defects by counting; AUPIMO against its definition on every threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from draem.evaluation.found import Defect, by_kind, by_size, defects_in, smallest_detectable
from draem.evaluation.metrics import LEVELS, PixelCounts, quantise
from draem.evaluation.operating import Share
from draem.evaluation.pimo import HIGHEST, LOWEST, PimoAccumulator
from draem.images import plan_fit

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


def _defect(area: float, found: bool | None, kind: str = "hole") -> Defect:
    return Defect("x.png", "part", kind, area, 0.5, found)


# ------------------------------------------------------------------------------------------------------ single defects


def test_each_region_of_a_mask_is_a_defect() -> None:
    random = np.random.default_rng(0)
    mask = ndimage.binary_opening(random.random((60, 80)) > 0.55)
    smoothed = random.random((60, 80)).astype(np.float32)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    same, twice = plan_fit((60, 80), (60, 80), "resize"), plan_fit((120, 160), (60, 80), "resize")
    found = defects_in(mask, smoothed, twice, 0.97)
    assert len(found) == count > 5
    wanted = []
    for label in range(1, count + 1):
        values = smoothed[labels == label]
        wanted.append((4.0 * len(values), float(values.max()), bool((values > 0.97).any())))
    assert sorted(found) == sorted(wanted)
    assert {True, False} == {seen for *_, seen in found}
    assert {seen for *_, seen in defects_in(mask, smoothed, same, None)} == {None}
    left = np.zeros((60, 80), bool)
    left[:, :30] = True
    some = defects_in(mask, smoothed, same, 0.5, left)
    assert len(some) == len(np.unique(labels[:, :30])) - 1


def test_a_defect_that_vanishes_at_the_input_size_is_one() -> None:
    """Dots of four pixels in 512², seen at 64²; and a scratch of one pixel's width stays one defect."""
    mask = np.zeros((512, 512), bool)
    for place in (100, 200, 300):
        mask[place : place + 2, place : place + 2] = True
    mask[np.arange(50, 400), np.arange(100, 450)] = True
    smoothed = np.zeros((64, 64), np.float32)
    smoothed[200 // 8, 200 // 8] = 0.9
    found = sorted(defects_in(mask, smoothed, plan_fit((512, 512), (64, 64), "resize"), 0.5))
    assert [area for area, *_ in found] == [4.0, 4.0, 4.0, 350.0]
    assert sum(bool(seen) for *_, seen in found) == 1


def test_in_a_letterbox_a_defect_lies_where_its_image_does() -> None:
    mask = np.zeros((32, 64), bool)
    mask[2:4, 60:64] = True
    smoothed = np.zeros((64, 64), np.float32)
    smoothed[18, 61] = 0.9  # the image begins at row 16
    ((area, peak, seen),) = defects_in(mask, smoothed, plan_fit((32, 64), (64, 64), "letterbox"), 0.5)
    assert (area, round(peak, 6), seen) == (8.0, 0.9, True)


def test_recall_by_type_and_size() -> None:
    defects = [_defect(math.pi * radius**2, found) for radius, found in ((1, False), (1.9, True), (2, True), (5, True))]
    defects += [_defect(math.pi * 25, False, "scratch"), _defect(1.0, None, "unknown")]
    assert by_kind(defects) == {("part", "hole"): Share(3, 4), ("part", "scratch"): Share(0, 1)}
    sizes = [(one.low, one.high, one.share) for one in by_size(defects)]
    assert sizes == [(2.0, 4.0, Share(1, 2)), (4.0, 8.0, Share(1, 1)), (8.0, 16.0, Share(1, 2))]


def _smallest(defects: list[Defect], recall: float) -> float | None:
    """By trying each size."""
    sizes = sorted({defect.diameter for defect in defects})
    for size in sizes:
        some = [defect for defect in defects if defect.diameter >= size]
        if sum(bool(defect.found) for defect in some) >= recall * len(some):
            return size
    return None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("recall", [0.5, 0.9, 1.0])
def test_the_smallest_detectable_defect(seed: int, recall: float) -> None:
    random = np.random.default_rng(seed)
    areas = random.integers(1, 30, 25)
    defects = [_defect(float(area), bool(random.random() < area / 25)) for area in areas]
    assert smallest_detectable(defects, recall) == _smallest(defects, recall)


def test_nothing_is_detectable_where_nothing_is_known_or_found() -> None:
    assert smallest_detectable([]) is None
    assert smallest_detectable([_defect(10, None)]) is None
    assert smallest_detectable([_defect(10, False), _defect(20, False)]) is None


# --------------------------------------------------------------------------------------------------------------- AUPIMO


def _aupimo(good: list[Map], anomalous: list[tuple[Map, Mask]]) -> list[float]:
    """The definition: recall of an image over the logarithm of the good images' mean false-positive rate."""
    levels = [quantise(one) for one in good]
    rates = np.zeros(LEVELS)
    for one in levels:
        rates += np.cumsum(np.bincount(one.ravel(), minlength=LEVELS)[::-1]) / one.size / len(levels)
    grid = np.geomspace(LOWEST, HIGHEST, 2001)
    found = []
    for values, mask in anomalous:
        inside = np.bincount(quantise(values)[mask], minlength=LEVELS)
        recall = np.cumsum(inside[::-1]) / mask.sum()
        # Of each rate the lowest threshold that does not exceed it.
        reached = [recall[rates <= rate].max(initial=0.0) for rate in grid]
        found.append(float(np.trapezoid(reached, np.log(grid)) / math.log(HIGHEST / LOWEST)))
    return found


@pytest.mark.parametrize("sharp", [2.0, 6.0, 15.0])
def test_aupimo_is_its_definition(sharp: float) -> None:
    random = np.random.default_rng(0)
    good = [random.beta(1, 8, (300, 300)).astype(np.float32) for _ in range(6)]
    anomalous = []
    for _ in range(8):
        values, mask = random.beta(1, 8, (300, 300)).astype(np.float32), np.zeros((300, 300), bool)
        mask[50:90, 60:100] = True
        values[mask] = random.beta(sharp, 3, int(mask.sum()))
        anomalous.append((values, mask))
    accumulator = PimoAccumulator()
    for one in good:
        counts = PixelCounts()
        counts.update(one, None)
        accumulator.add(False, counts)
    for values, mask in anomalous:
        counts = PixelCounts()
        counts.update(values, mask)
        accumulator.add(True, counts)
    wanted = _aupimo(good, anomalous)
    assert accumulator.values() == pytest.approx(wanted, abs=0.01)
    assert accumulator.mean() == pytest.approx(np.mean(wanted), abs=0.01)
    assert 0.01 < np.mean(wanted) < 1.0


def test_a_perfect_map_has_one_and_an_empty_one_has_none() -> None:
    accumulator = PimoAccumulator()
    mask = np.zeros((64, 64), bool)
    mask[10:20, 10:20] = True
    counts = PixelCounts()
    counts.update(mask.astype(np.float32), mask)
    accumulator.add(True, counts)
    accumulator.add(True, None)
    assert accumulator.values() == [None, None]  # no good image yet
    counts = PixelCounts()
    counts.update(np.zeros((64, 64), np.float32), None)
    accumulator.add(False, counts)
    assert accumulator.values() == [1.0, None]
    assert accumulator.mean() == 1.0
    assert PimoAccumulator().mean() is None


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_detector_that_sees_nothing_has_none(level: float) -> None:
    accumulator, mask = PimoAccumulator(), np.zeros((64, 64), bool)
    mask[10:20, 10:20] = True
    for truth in (None, mask):
        counts = PixelCounts()
        counts.update(np.full((64, 64), level, np.float32), truth)
        accumulator.add(truth is not None, counts)
    assert accumulator.values() == [0.0]


def test_false_alarms_above_a_defect_hide_it() -> None:
    """A large one on one of the good images: no threshold with so few false pixels finds the defects below it."""
    accumulator, mask = PimoAccumulator(), np.zeros((64, 64), bool)
    mask[10:20, 10:20] = True
    for place in range(5):
        values, counts = np.zeros((64, 64), np.float32), PixelCounts()
        values[:20, :25] = 0.9 if place == 0 else 0.0
        counts.update(values, None)
        accumulator.add(False, counts)
    counts = PixelCounts()
    counts.update(0.5 * mask.astype(np.float32), mask)
    accumulator.add(True, counts)
    assert accumulator.values() == [0.0]
