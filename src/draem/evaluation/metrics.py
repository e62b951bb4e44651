"""How well scores separate anomalous from normal: AUROC, AP, F1-max and AUPRO, of images and of pixels.

Image metrics are exact on float64 scores. Pixel metrics are exact on scores quantised to 65,536 levels: pixels go into
histograms, so memory does not grow with the number of images, and every curve is a cumulative sum over levels.
A metric that cannot be known (no anomalous or no normal samples, no masks) is None: never 0, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from draem.errors import ConfigError, DataError
from draem.evaluation.ranking import aupro, auroc, average_precision, f1_max, rankable

LEVELS = 65_536
"""Number of score levels of the pixel metrics: 16 bits, as in the anomaly maps written to PNG."""

PRO_MAX_FPR = 0.3
"""False-positive rate up to which the per-region overlap is integrated (Bergmann et al., IJCV 2021)."""

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """All metrics of one set of images, each in [0, 1], or None where it cannot be known."""

    image_auroc: float | None = None
    image_ap: float | None = None
    image_f1_max: float | None = None
    pixel_auroc: float | None = None
    pixel_ap: float | None = None
    pixel_f1_max: float | None = None
    pixel_aupro: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """The metrics by their keys, in the order of the fields."""
        return asdict(self)


METRIC_KEYS = tuple(f.name for f in fields(Metrics))


def mean_metrics(parts: Iterable[Metrics]) -> Metrics:
    """Average each metric over the parts where it is known, for example over categories as the literature does."""
    rows = [part.to_dict() for part in parts]
    means: dict[str, float | None] = {}
    for key in METRIC_KEYS:
        known = [value for row in rows if (value := row[key]) is not None]
        means[key] = math.fsum(known) / len(known) if known else None
    return Metrics(**means)


def _count_images(scores: ArrayLike, labels: ArrayLike) -> tuple[IntArray, IntArray] | None:
    """Anomalous and normal images per distinct score, highest first; None unless there are both."""
    values = np.asarray(scores, dtype=np.float64)
    anomalous = np.asarray(labels, dtype=bool)
    if values.ndim != 1 or values.shape != anomalous.shape:
        raise DataError(
            f"image scores {values.shape} and labels {anomalous.shape} must be two lists of one length: pass one of "
            "each per image"
        )
    if not np.isfinite(values).all():
        where = int(np.argmin(np.isfinite(values)))
        raise DataError(f"image score {where} is {values[where]}: scores must be finite, check the model")
    if anomalous.all() or not anomalous.any():
        return None
    distinct, entry = np.unique(-values, return_inverse=True)
    positives = np.bincount(entry[anomalous], minlength=len(distinct))
    negatives = np.bincount(entry[~anomalous], minlength=len(distinct))
    return positives, negatives


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve of image scores, exact, ties counting one half.

    Args: `scores`, N finite numbers, higher is more anomalous; `labels`, N booleans, True is anomalous.
    Returns a value in [0, 1], or None unless there are both normal and anomalous images.
    Raises DataError for scores that are not finite, or lengths that differ.
    """
    counts = _count_images(scores, labels)
    return None if counts is None else auroc(*counts)


def image_ap(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Average precision of image scores, exact; arguments, result and errors as in `image_auroc`."""
    counts = _count_images(scores, labels)
    return None if counts is None else average_precision(*counts)


def image_f1_max(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Largest F1 of image scores over all thresholds, exact; arguments, result and errors as in `image_auroc`.

    The threshold behind it is chosen with the labels at hand: it bounds what a calibrated threshold can reach.
    """
    counts = _count_images(scores, labels)
    return None if counts is None else f1_max(*counts)[0]


def quantise(anomaly_map: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Score levels 0 to 65,535 of a map in [0, 1]: 65,535 times the score, rounded half up; beyond the range, clipped.

    Raises DataError when a score is NaN or infinite.
    """
    scores = np.asarray(anomaly_map, dtype=np.float32)
    if scores.size and not (math.isfinite(scores.min()) and math.isfinite(scores.max())):
        raise DataError("an anomaly map holds NaN or infinite scores: check the model and its input")
    levels = np.clip(scores, 0.0, 1.0)
    levels *= LEVELS - 1
    # Half up and not half to even: then `score >= lower edge of a level` and `level >= that level` decide alike.
    levels += 0.5
    return levels.astype(np.uint16)


class PixelCounts:
    """Histograms of pixel scores from which every pixel metric follows; 1.5 MB, however many images are counted.

    `positives` and `negatives` count anomalous and normal pixels at each score level. `overlap` sums, at each level,
    the anomalous pixels weighted by one over the area of their region, so that its cumulative sum over the number of
    `regions` is the mean per-region overlap. Regions are the 8-connected components of each mask. Counts add with `+`.
    """

    def __init__(self) -> None:
        self.positives: IntArray = np.zeros(LEVELS, dtype=np.int64)
        self.negatives: IntArray = np.zeros(LEVELS, dtype=np.int64)
        self.overlap: FloatArray = np.zeros(LEVELS, dtype=np.float64)
        self.regions = 0

    def update(
        self,
        anomaly_map: NDArray[np.floating],
        mask: NDArray[np.bool_] | None,
        counted: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count one image: its map, H×W float in [0, 1], and its mask, H×W bool, None where all pixels are normal.

        Where `counted`, H×W bool, is False, nothing is counted.

        Raises DataError, and counts nothing, when a score is not finite or the mask does not fit the map.
        """
        if anomaly_map.ndim != 2:
            raise DataError(f"an anomaly map has the shape {anomaly_map.shape}: it must be height × width")
        if mask is not None and (mask.dtype != np.bool_ or mask.shape != anomaly_map.shape):
            raise DataError(
                f"an anomaly mask is {mask.dtype} {mask.shape}, its map {anomaly_map.shape}: pass a bool mask of the "
                "map's size"
            )
        levels = quantise(anomaly_map)
        counts = np.bincount(levels.ravel() if counted is None else levels[counted], minlength=LEVELS)
        if mask is not None and counted is not None:
            mask = mask & counted
        if mask is not None and mask.any():
            anomalous = levels[mask]
            weights, regions = _region_weights(mask)
            positives = np.bincount(anomalous, minlength=LEVELS)
            counts -= positives
            self.positives += positives
            self.overlap += np.bincount(anomalous, weights=weights, minlength=LEVELS)
            self.regions += regions
        self.negatives += counts

    def __add__(self, other: PixelCounts) -> PixelCounts:
        """The counts of both sets of images together."""
        total = PixelCounts()
        total += self
        total += other
        return total

    def __iadd__(self, other: PixelCounts) -> PixelCounts:
        self.positives += other.positives
        self.negatives += other.negatives
        self.overlap += other.overlap
        self.regions += other.regions
        return self

    def auroc(self) -> float | None:
        """Area under the ROC curve over pixels, in [0, 1]; None unless there are normal and anomalous pixels."""
        counts = self._ranked()
        return None if counts is None else auroc(*counts)

    def ap(self) -> float | None:
        """Average precision over pixels, in [0, 1]; None unless there are normal and anomalous pixels."""
        counts = self._ranked()
        return None if counts is None else average_precision(*counts)

    def f1_max(self) -> float | None:
        """Largest F1 over all thresholds, in [0, 1]; None unless there are normal and anomalous pixels."""
        counts = self._ranked()
        return None if counts is None else f1_max(*counts)[0]

    def f1_max_threshold(self) -> float | None:
        """The highest threshold that reaches `f1_max`: a pixel with score ≥ threshold is anomalous; None likewise.

        It is the lower edge of a score level, so it decides alike on maps that were not quantised, up to float32
        rounding at the very edge. Chosen with the truth at hand, it describes the counted images and is no setting to
        deploy.
        """
        counts = self._ranked()
        if counts is None:
            return None
        level = LEVELS - 1 - f1_max(*counts)[1]
        return max(level - 0.5, 0.0) / (LEVELS - 1)

    def aupro(self, max_fpr: float = PRO_MAX_FPR) -> float | None:
        """Area under the per-region overlap over the false-positive rate up to `max_fpr`, divided by `max_fpr`.

        Trapezoid from (0, 0), interpolated linearly at the limit; the negatives are the normal pixels of all images.
        Returns a value in [0, 1], or None unless there are regions and normal pixels. Raises ConfigError unless
        0 < max_fpr ≤ 1. Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021.
        """
        if not 0.0 < max_fpr <= 1.0:
            raise ConfigError(f"max_fpr is {max_fpr}: the limit of AUPRO must lie above 0 and not above 1")
        if self._ranked() is None:
            return None
        return aupro(self.negatives[::-1], self.overlap[::-1], self.regions, max_fpr)

    def _ranked(self) -> tuple[IntArray, IntArray] | None:
        """Positives and negatives from the highest level to the lowest; None unless there are both."""
        if not rankable(self.positives, self.negatives):
            return None
        return self.positives[::-1], self.negatives[::-1]


def _region_weights(mask: NDArray[np.bool_]) -> tuple[FloatArray, int]:
    """One over the area of its region for each anomalous pixel, in the order of `array[mask]`, and how many regions."""
    found, labels = cv2.connectedComponents(np.ascontiguousarray(mask).view(np.uint8), connectivity=8)
    region = labels[mask]
    areas = np.bincount(region, minlength=found)
    areas[0] = 1  # the background, which no anomalous pixel belongs to
    return (1.0 / areas)[region], found - 1


@dataclass
class _Group:
    """The normal images of a category, or its images of one defect type."""

    scores: list[float] = field(default_factory=list)
    pixels: PixelCounts = field(default_factory=PixelCounts)


class MetricsAccumulator:
    """Takes scored images one at a time and gives the metrics overall, by category and by defect type.

    Keeps one float an image and one `PixelCounts` for each defect type and for the normal images of each category.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str | None], _Group] = {}
        self.without_pixel_truth = 0
        """Images left out of the pixel metrics: no map, or anomalous without a mask."""

    def add(
        self,
        score: float,
        anomalous: bool,
        anomaly_map: NDArray[np.floating] | None = None,
        mask: NDArray[np.bool_] | None = None,
        *,
        counted: NDArray[np.bool_] | None = None,
        category: str = "",
        defect_type: str = "anomalous",
    ) -> PixelCounts | None:
        """Count one image; returns the counts of its own pixels, none where it is left out of the pixel metrics.

        Args: `score`, finite, higher is more anomalous; `anomaly_map`, H×W float in [0, 1]; `mask`, H×W bool. An
        anomalous image without a mask has unknown pixels and is left out of the pixel metrics; a normal image without
        one is normal in every pixel. `counted`, H×W bool: which pixels the pixel metrics are taken on; none: all.
        `defect_type` is not looked at for normal images.
        Raises DataError, and counts nothing, for a score that is not finite, a mask that does not fit the map, or a
        normal image whose mask marks pixels.
        """
        score = float(score)
        if not math.isfinite(score):
            raise DataError(f"an image score is {score}: scores must be finite, check the model")
        if not anomalous and mask is not None and mask.any():
            raise DataError("a normal image has a mask that marks anomalous pixels: correct its label or its mask")
        key = (category, defect_type if anomalous else None)
        group = self._groups.get(key) or _Group()
        pixels = None
        if anomaly_map is not None and (mask is not None or not anomalous):
            pixels = PixelCounts()
            pixels.update(anomaly_map, mask, counted)
            group.pixels += pixels
        else:
            self.without_pixel_truth += 1
        group.scores.append(score)
        self._groups[key] = group
        return pixels

    def overall(self) -> Metrics:
        """Metrics of all images pooled in one ranking.

        The literature averages over categories instead: `mean_metrics(accumulator.by_category().values())`.
        """
        return self._metrics(self._groups)

    def by_category(self) -> dict[str, Metrics]:
        """Metrics of each category, in the order in which the categories came."""
        categories = dict.fromkeys(category for category, _ in self._groups)
        return {name: self._metrics(key for key in self._groups if key[0] == name) for name in categories}

    def by_defect_type(self) -> dict[tuple[str, str], Metrics]:
        """Metrics of each (category, defect type): images of that type against all normal images of the category."""
        return {
            (category, defect): self._metrics(((category, defect), (category, None)))
            for category, defect in self._groups
            if defect is not None
        }

    def _metrics(self, keys: Iterable[tuple[str, str | None]]) -> Metrics:
        scores: list[float] = []
        labels: list[bool] = []
        pixels = PixelCounts()
        for key in keys:
            if (group := self._groups.get(key)) is not None:
                scores += group.scores
                labels += [key[1] is not None] * len(group.scores)
                pixels += group.pixels
        return Metrics(
            image_auroc=image_auroc(scores, labels),
            image_ap=image_ap(scores, labels),
            image_f1_max=image_f1_max(scores, labels),
            pixel_auroc=pixels.auroc(),
            pixel_ap=pixels.ap(),
            pixel_f1_max=pixels.f1_max(),
            pixel_aupro=pixels.aupro(),
        )
