"""The metrics against scikit-learn, closed forms, and a slow loop over every threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from draem.errors import ConfigError, DataError, DraemError
from draem.evaluation.metrics import (
    LEVELS,
    METRIC_KEYS,
    Metrics,
    MetricsAccumulator,
    PixelCounts,
    image_ap,
    image_auroc,
    image_f1_max,
    mean_metrics,
    quantise,
)

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]

CONTRACT = ["image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_aupro"]


def sklearn_f1_max(labels: NDArray[np.bool_], scores: NDArray[np.generic]) -> tuple[float, float]:
    """Largest F1 and the highest threshold that reaches it, from the precision-recall curve."""
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        f1 = np.nan_to_num(2 * precision * recall / (precision + recall))[:-1]
    best = np.flatnonzero(np.isclose(f1, f1.max(), rtol=1e-13, atol=0))[-1]
    return float(f1[best]), float(thresholds[best])


def slow_aupro(maps: list[Map], masks: list[Mask], max_fpr: float) -> float:
    """Every distinct threshold from the top: overlap of each region by itself, then trapezoids cut at the limit."""
    levels = [quantise(m).astype(int) for m in maps]
    regions = []
    for image, mask in enumerate(masks):
        labels, found = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(image, labels == k) for k in range(1, found + 1)]
    points = [(0.0, 0.0)]
    for threshold in sorted({int(v) for m in levels for v in m.flat}, reverse=True):
        above = [m >= threshold for m in levels]
        false = sum((a & ~m).sum() for a, m in zip(above, masks, strict=True))
        overlaps = [above[image][region].mean() for image, region in regions]
        points.append((false / sum((~m).sum() for m in masks), float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            y1 = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
            x1 = max_fpr
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


def simulate(seed: int, images: int = 4, size: int = 24, decimals: int | None = None) -> tuple[list[Map], list[Mask]]:
    """Noisy maps with a few regions of very different size; `decimals` rounds the scores into heavy ties."""
    rng = np.random.default_rng(seed)
    maps, masks = [], []
    for _ in range(images):
        mask = np.zeros((size, size), dtype=bool)
        for _ in range(rng.integers(0, 4)):
            y, x = rng.integers(0, size, 2)
            height, width = rng.integers(1, size // 2, 2)
            mask[y : y + height, x : x + width] = True
        scores = np.clip(rng.normal(0.4 + 0.2 * mask, 0.15), 0, 1)
        maps.append((scores if decimals is None else scores.round(decimals)).astype(np.float32))
        masks.append(mask)
    masks[0][2, 3] = True  # never without a region
    return maps, masks


def count(maps: list[Map], masks: list[Mask]) -> PixelCounts:
    counts = PixelCounts()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        counts.update(anomaly_map, mask)
    return counts


def half_anomalous(size: int = 16) -> Mask:
    mask = np.zeros((size, size), dtype=bool)
    mask[:, size // 2 :] = True
    return mask


# ---- pixels against scikit-learn


@pytest.mark.parametrize("decimals", [None, 3, 1, 0])
@pytest.mark.parametrize("seed", range(5))
def test_pixel_metrics_equal_scikit_learn_on_the_quantised_scores(seed: int, decimals: int | None) -> None:
    maps, masks = simulate(seed, decimals=decimals)
    counts = count(maps, masks)
    scores = np.concatenate([quantise(m).ravel() for m in maps]).astype(np.int64)
    labels = np.concatenate([m.ravel() for m in masks])
    f1, level = sklearn_f1_max(labels, scores)
    assert counts.auroc() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert counts.ap() == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert counts.f1_max() == pytest.approx(f1, abs=1e-12)
    assert counts.f1_max_threshold() == pytest.approx((level - 0.5) / (LEVELS - 1) if level else 0.0, abs=1e-12)


def test_the_f1_threshold_reaches_f1_max_on_maps_that_were_not_quantised() -> None:
    maps, masks = simulate(seed=11, decimals=2)
    counts = count(maps, masks)
    labels, scores = np.concatenate(masks).ravel(), np.concatenate(maps).ravel()
    threshold = counts.f1_max_threshold()
    assert threshold is not None
    predicted = scores >= threshold
    f1 = 2 * (predicted & labels).sum() / (predicted.sum() + labels.sum())
    assert counts.f1_max() == pytest.approx(f1, abs=1e-12)


def test_quantised_metrics_stay_within_the_resolution_of_exact_ones() -> None:
    maps, masks = simulate(seed=3, images=8, size=64)
    counts = count(maps, masks)
    labels, scores = np.concatenate(masks).ravel(), np.concatenate(maps).ravel()
    assert counts.auroc() == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)
    assert counts.ap() == pytest.approx(average_precision_score(labels, scores), abs=1e-4)


def test_quantise_rounds_half_up_clips_and_keeps_16_bit_maps() -> None:
    levels = np.arange(LEVELS, dtype=np.uint16)
    np.testing.assert_array_equal(quantise((levels / 65535).astype(np.float32)), levels)
    edges = np.array([-3.0, 0.5 / 65535 * 0.999, 0.5 / 65535 * 1.001, 1.0, 7.0], dtype=np.float32)
    np.testing.assert_array_equal(quantise(edges), [0, 0, 1, 65535, 65535])


# ---- closed forms


def test_constant_maps_know_nothing() -> None:
    mask = half_anomalous()
    mask[:, 12:] = False  # a quarter is anomalous
    counts = count([np.full((16, 16), 0.3, dtype=np.float32)], [mask])
    assert counts.auroc() == 0.5
    assert counts.ap() == 0.25
    assert counts.f1_max() == pytest.approx(2 * 0.25 / 1.25)
    assert counts.aupro(0.3) == pytest.approx(0.15)  # the diagonal


def test_perfect_and_inverted_maps() -> None:
    mask = half_anomalous()
    perfect = mask.astype(np.float32)
    good, bad = count([perfect], [mask]), count([(~mask).astype(np.float32)], [mask])
    assert (good.auroc(), good.ap(), good.f1_max(), good.aupro()) == (1.0, 1.0, 1.0, 1.0)
    assert (bad.auroc(), bad.aupro()) == (0.0, 0.0)


def test_ramp_has_the_auroc_of_its_overlap() -> None:
    # Columns 0 to 15 rise; anomalous are 4 to 7 and 12 to 15: of the 64 pairs, 16 · 3 are in order.
    ramp = np.tile(np.arange(16) / 15, (5, 1)).astype(np.float32)
    mask = np.tile((np.arange(16) // 4) % 2 == 1, (5, 1))
    assert count([ramp], [mask]).auroc() == pytest.approx(0.75)


# ---- AUPRO against the slow loop


@pytest.mark.parametrize("decimals", [2, 1])
@pytest.mark.parametrize("seed", range(5))
def test_aupro_equals_a_loop_over_thresholds(seed: int, decimals: int) -> None:
    maps, masks = simulate(seed, decimals=decimals)
    counts = count(maps, masks)
    for max_fpr in (0.3, 0.05, 1.0):
        assert counts.aupro(max_fpr) == pytest.approx(slow_aupro(maps, masks, max_fpr), abs=1e-12)


def test_aupro_on_all_distinct_scores() -> None:
    maps, masks = simulate(seed=21, images=2, size=20)
    assert count(maps, masks).aupro() == pytest.approx(slow_aupro(maps, masks, 0.3), abs=1e-12)


def test_aupro_interpolates_at_the_limit() -> None:
    # Ten normal pixels in two steps of five: (0, 1/2), (1/2, 1), (1, 1), and the limit cuts the first slope.
    mask = np.zeros((2, 7), dtype=bool)
    mask[0, :2] = mask[1, 0] = mask[0, 6] = True
    scores = np.zeros((2, 7), dtype=np.float32)
    scores[mask] = 1.0
    scores[0, 6] = 0.5  # the single-pixel region comes with the first five false positives
    normal = np.flatnonzero(~mask)
    scores.flat[normal[:5]] = 0.5
    assert len(normal) == 10
    at_limit = 0.5 + 0.5 * 0.3 / 0.5
    assert count([scores], [mask]).aupro(0.3) == pytest.approx((0.5 + at_limit) / 2, abs=1e-12)


def test_small_regions_count_as_much_as_large_ones() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:10, :10] = True
    mask[15, 15] = True
    scores = np.zeros((20, 20), dtype=np.float32)
    scores[:10, :10] = 1.0  # finds 100 of 101 pixels, but one of two regions
    counts = count([scores], [mask])
    # From (0, 1/2) straight to (1, 1).
    assert counts.aupro(0.3) == pytest.approx(0.5 + 0.3 / 2 / 2)
    assert counts.auroc() == pytest.approx((100 + 0.5) / 101)


def test_pixels_that_touch_diagonally_are_one_region() -> None:
    mask = np.eye(6, dtype=bool)
    mask[0, 5] = True
    counts = count([np.zeros((6, 6), dtype=np.float32)], [mask])
    assert counts.regions == 2
    assert counts.overlap.sum() == pytest.approx(2)


def test_masks_that_are_views_are_read_right() -> None:
    maps, masks = simulate(seed=5, images=1, size=40)
    view, flipped = maps[0][::2, ::-1].T, masks[0][::2, ::-1].T
    expected = slow_aupro([view.copy()], [flipped.copy()], 0.3)
    assert count([view], [flipped]).aupro() == pytest.approx(expected, abs=1e-12)


# ---- accumulation


def test_merged_counts_equal_joint_counts() -> None:
    maps, masks = simulate(seed=8, images=6)
    joint = count(maps, masks)
    merged = count(maps[:2], masks[:2]) + count(maps[2:], masks[2:])
    np.testing.assert_array_equal(merged.positives, joint.positives)
    np.testing.assert_array_equal(merged.negatives, joint.negatives)
    np.testing.assert_allclose(merged.overlap, joint.overlap, rtol=1e-12)
    assert merged.regions == joint.regions
    assert (merged.auroc(), merged.ap(), merged.f1_max()) == (joint.auroc(), joint.ap(), joint.f1_max())
    assert merged.aupro() == pytest.approx(joint.aupro(), abs=1e-12)


def test_adding_leaves_its_parts_as_they_were() -> None:
    maps, masks = simulate(seed=8, images=2)
    first, second = count(maps[:1], masks[:1]), count(maps[1:], masks[1:])
    before = first.ap()
    total = first + second
    total.update(maps[0], masks[0])
    assert first.ap() == before
    assert first.positives.sum() + first.negatives.sum() == maps[0].size


def test_no_mask_means_all_normal() -> None:
    maps, _ = simulate(seed=1)
    counts = PixelCounts()
    counts.update(maps[0], None)
    assert counts.negatives.sum() == maps[0].size
    assert counts.positives.sum() == 0


@pytest.mark.parametrize("mask", [None, np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)])
def test_pixel_metrics_without_both_kinds_are_unknown(mask: Mask | None) -> None:
    counts = PixelCounts()
    counts.update(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4), mask)
    for counted in (counts, PixelCounts()):
        values = [counted.auroc(), counted.ap(), counted.f1_max(), counted.f1_max_threshold(), counted.aupro()]
        assert values == [None] * 5


@pytest.mark.parametrize("seed", range(30))
def test_pixel_metrics_stay_within_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 20))
    mask = rng.random((size, size)) < rng.random()
    mask[0, 0], mask[-1, -1] = True, False
    scores = rng.random((size, size)).round(int(rng.integers(0, 6))).astype(np.float32)
    counts = count([scores], [mask])
    for value in (counts.auroc(), counts.ap(), counts.f1_max(), counts.aupro(float(rng.uniform(0.01, 1)))):
        assert value is not None
        assert 0.0 <= value <= 1.0


# ---- images


@pytest.mark.parametrize("decimals", [15, 2, 1, 0])
@pytest.mark.parametrize("seed", range(5))
def test_image_metrics_equal_scikit_learn(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.random(300) < 0.3
    scores = rng.normal(labels, 1.0).round(decimals)  # beyond [0, 1] too
    assert image_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert image_ap(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert image_f1_max(scores, labels) == pytest.approx(sklearn_f1_max(labels, scores)[0], abs=1e-12)


def test_image_scores_are_not_quantised() -> None:
    assert image_auroc([0.5, np.nextafter(0.5, 1)], [False, True]) == 1.0
    assert image_auroc([0.5, 0.5], [False, True]) == 0.5


@pytest.mark.parametrize("labels", [[], [True, True], [False, False]])
def test_image_metrics_without_both_kinds_are_unknown(labels: list[bool]) -> None:
    scores = [0.1, 0.9][: len(labels)]
    assert [image_auroc(scores, labels), image_ap(scores, labels), image_f1_max(scores, labels)] == [None] * 3


# ---- groups


def two_categories() -> tuple[MetricsAccumulator, list[tuple[str, str | None, float, Map, Mask]]]:
    """An accumulator, and the rows that went in: category, defect type (None: normal), score, map, mask."""
    accumulator, rows = MetricsAccumulator(), []
    rng = np.random.default_rng(0)
    for seed, category in enumerate(["bottle", "cable"]):
        maps, masks = simulate(seed, images=12)
        for index, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
            defect = [None, "scratch", "dent"][index % 3]
            truth = mask if defect else np.zeros_like(mask)
            truth[0, 0] = defect is not None
            score = float(rng.normal(0.5 + 0.2 * (defect is not None), 0.3))
            accumulator.add(
                score, defect is not None, anomaly_map, truth if defect else None,
                category=category, defect_type=defect or "ignored",
            )  # fmt: skip
            rows.append((category, defect, score, anomaly_map, truth))
    return accumulator, rows


def expected_metrics(rows: list[tuple[str, str | None, float, Map, Mask]]) -> Metrics:
    labels = np.array([defect is not None for _, defect, *_ in rows])
    scores = np.array([row[2] for row in rows])
    truth = np.concatenate([row[4].ravel() for row in rows])
    levels = np.concatenate([quantise(row[3]).ravel() for row in rows])
    return Metrics(
        image_auroc=roc_auc_score(labels, scores),
        image_ap=average_precision_score(labels, scores),
        image_f1_max=sklearn_f1_max(labels, scores)[0],
        pixel_auroc=roc_auc_score(truth, levels),
        pixel_ap=average_precision_score(truth, levels),
        pixel_f1_max=sklearn_f1_max(truth, levels)[0],
        pixel_aupro=count([row[3] for row in rows], [row[4] for row in rows]).aupro(),
    )


def test_groups_hold_their_own_images() -> None:
    accumulator, rows = two_categories()
    assert accumulator.overall().to_dict() == pytest.approx(expected_metrics(rows).to_dict(), abs=1e-12)
    assert list(accumulator.by_category()) == ["bottle", "cable"]
    for category, metrics in accumulator.by_category().items():
        own = [row for row in rows if row[0] == category]
        assert metrics.to_dict() == pytest.approx(expected_metrics(own).to_dict(), abs=1e-12)
    by_defect = accumulator.by_defect_type()
    assert list(by_defect) == [(c, d) for c in ("bottle", "cable") for d in ("scratch", "dent")]
    for (category, defect), metrics in by_defect.items():
        own = [row for row in rows if row[0] == category and row[1] in (defect, None)]
        assert metrics.to_dict() == pytest.approx(expected_metrics(own).to_dict(), abs=1e-12)
    assert accumulator.without_pixel_truth == 0


def test_anomalous_image_without_mask_is_left_out_of_the_pixel_metrics() -> None:
    maps, masks = simulate(seed=2, images=3)
    accumulator, alone = MetricsAccumulator(), PixelCounts()
    accumulator.add(0.1, False, maps[1])
    accumulator.add(0.8, True, maps[0], masks[0])
    accumulator.add(0.05, True, maps[2])
    alone.update(maps[1], None)
    alone.update(maps[0], masks[0])
    metrics = accumulator.overall()
    assert (metrics.pixel_auroc, metrics.pixel_aupro) == (alone.auroc(), alone.aupro())
    assert metrics.image_auroc == 0.5  # the image counts
    assert accumulator.without_pixel_truth == 1


def test_what_cannot_be_known_is_none() -> None:
    assert MetricsAccumulator().overall() == Metrics()
    maps, masks = simulate(seed=2, images=2)
    unmasked = MetricsAccumulator()
    unmasked.add(0.1, False, maps[0])
    unmasked.add(0.9, True, maps[1])
    assert unmasked.overall() == Metrics(image_auroc=1.0, image_ap=1.0, image_f1_max=1.0)
    only_anomalous = MetricsAccumulator()
    only_anomalous.add(0.9, True, maps[0], masks[0], defect_type="hole")
    metrics = only_anomalous.by_defect_type()["", "hole"]
    assert (metrics.image_auroc, metrics.image_ap) == (None, None)
    assert metrics.pixel_auroc == count(maps[:1], masks[:1]).auroc()  # its own normal pixels suffice


def test_metric_keys_are_the_contract() -> None:
    assert list(METRIC_KEYS) == list(Metrics().to_dict()) == [f.name for f in fields(Metrics)] == CONTRACT


def test_mean_is_over_what_is_known() -> None:
    mean = mean_metrics([Metrics(image_auroc=0.5, pixel_ap=0.2), Metrics(image_auroc=1.0)])
    assert mean == Metrics(image_auroc=0.75, pixel_ap=0.2)
    assert mean_metrics([]) == Metrics()


# ---- mistakes


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_errors_and_count_nothing(bad: float) -> None:
    broken = np.zeros((4, 4), dtype=np.float32)
    broken[1, 2] = bad
    accumulator = MetricsAccumulator()
    with pytest.raises(DataError, match="NaN or infinite"):
        accumulator.add(0.2, False, broken)
    with pytest.raises(DataError, match="must be finite"):
        accumulator.add(bad, False, None)
    assert accumulator.by_category() == {}
    assert accumulator.without_pixel_truth == 0
    with pytest.raises(DataError, match=r"image score 1 is"):
        image_auroc([0.1, bad], [False, True])


@pytest.mark.parametrize(
    ("anomaly_map", "mask", "says"),
    [
        (np.zeros((4, 4), np.float32), np.zeros((4, 5), bool), r"\(4, 5\)"),
        (np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint8), "uint8"),
        (np.zeros((1, 4, 4), np.float32), None, "height × width"),
    ],
)
def test_masks_and_maps_that_do_not_fit_are_errors(anomaly_map: Map, mask: Mask | None, says: str) -> None:
    counts = PixelCounts()
    with pytest.raises(DataError, match=says):
        counts.update(anomaly_map, mask)
    assert counts.negatives.sum() == counts.positives.sum() == 0


def test_other_mistakes_are_errors_of_one_line() -> None:
    maps, masks = simulate(seed=0, images=1)
    calls: list[tuple[type[DraemError], Callable[[], object]]] = [
        (DataError, lambda: MetricsAccumulator().add(0.1, False, maps[0], masks[0])),
        (DataError, lambda: image_ap([0.1, 0.2], [True])),
        (ConfigError, lambda: count(maps, masks).aupro(0.0)),
        (ConfigError, lambda: PixelCounts().aupro(1.5)),
    ]
    for kind, call in calls:
        with pytest.raises(kind) as caught:
            call()
        assert "\n" not in str(caught.value)
