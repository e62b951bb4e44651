"""Intervals of metrics: what other images of the same kind, as many of them, might have given.

Images are drawn again with replacement, the good ones of a category and those of each defect type apart, many times.
Instead of copying them, each replicate weighs an image by how often it was drawn: histograms of pixels are summed as
the images come, so that memory does not grow with their number. The same images in the same order get the same draws,
whatever model looks at them: so two models compare pair by pair.

Source: B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from draem.evaluation.metrics import LEVELS, METRIC_KEYS, PRO_MAX_FPR, Metrics, PixelCounts
from draem.evaluation.ranking import Counts, Floats, aupro, auroc, average_precision, f1_max, rankable

REPLICATES = 400
BINS = 1024
"""Of pixel scores, at most: the metrics' 65,536 levels would take 600 MB. They lie close near 0 and 1, as scores do."""
_AT_ONCE = 32
"""Images whose histograms are weighed in one matrix product."""
Stratum = tuple[str, str | None]
"""A category, and the defect type; none: its good images."""


def bin_edges() -> NDArray[np.int64]:
    """The first level of each bin, ascending from 0: equal steps of the logit, at least one level each."""
    logits = np.linspace(-np.log(LEVELS), np.log(LEVELS), BINS)
    levels = np.round((LEVELS - 1) / (1.0 + np.exp(-logits))).astype(np.int64)
    return np.unique(np.concatenate(([0], levels)))


_EDGES = bin_edges()


@dataclass
class _Drawn:
    """The images of one stratum: how often each was drawn (1 + replicates × images, see `_draws`), and their scores."""

    weights: NDArray[np.uint16]
    scores: list[float] = field(default_factory=list)


class _Sums:
    """The pixels of one category: in every replicate the weighted sum of the images' histograms."""

    def __init__(self, replicates: int) -> None:
        self.histograms: Floats = np.zeros((replicates, 3, len(_EDGES)))
        """Positives, negatives, overlap."""
        self.regions: Floats = np.zeros(replicates)
        self._waiting: list[tuple[NDArray[np.uint16], Floats, int]] = []

    def add(self, weights: NDArray[np.uint16], pixels: PixelCounts) -> None:
        kinds = (pixels.positives, pixels.negatives, pixels.overlap)
        histograms = np.concatenate([np.add.reduceat(kind, _EDGES) for kind in kinds]).astype(np.float64)
        self._waiting.append((weights, histograms, pixels.regions))
        if len(self._waiting) == _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            weights = np.stack([row for row, _, _ in self._waiting], axis=1).astype(np.float64)
            summed = weights @ np.stack([histograms for _, histograms, _ in self._waiting])
            self.histograms += summed.reshape(self.histograms.shape)
            self.regions += weights @ np.array([regions for _, _, regions in self._waiting], np.float64)
            self._waiting.clear()


class Bootstrap:
    """Takes images one at a time, and gives each metric's value in every replicate."""

    def __init__(self, strata: Iterable[Stratum], replicates: int = REPLICATES, seed: int = 0) -> None:
        """`strata`: of every image that will come, in any order; what does not come is left out of its stratum."""
        counts = Counter(strata)
        self._strata = {key: _Drawn(_draws(key, count, replicates, seed)) for key, count in counts.items()}
        self._categories = {category: _Sums(1 + replicates) for category, _ in counts}

    def add(self, stratum: Stratum, score: float, pixels: PixelCounts | None) -> None:
        """Count one image: its score, and the histograms of its own pixels, none where its truth is not known."""
        drawn = self._strata[stratum]
        if pixels is not None:
            self._categories[stratum[0]].add(drawn.weights[:, len(drawn.scores)], pixels)
        drawn.scores.append(score)

    def replicates(self, category: str | None = None) -> dict[str, Floats]:
        """Each metric in every replicate, of one category or of all images pooled; NaN where it cannot be known."""
        kinds = (("auroc", auroc), ("ap", average_precision), ("f1_max", lambda *of: f1_max(*of)[0]))
        found: dict[str, list[float]] = {name: [] for name in METRIC_KEYS}
        for counts in islice(self.image_counts(category), 1, None):
            for name, metric in kinds:
                found[f"image_{name}"].append(_value(metric, *counts))
        for positives, negatives, overlap, regions in islice(self.pixel_counts(category), 1, None):
            for name, metric in kinds:
                found[f"pixel_{name}"].append(_value(metric, positives, negatives))
            found["pixel_aupro"].append(_aupro(positives, negatives, overlap, regions))
        return {name: np.array(values) for name, values in found.items()}

    def image_counts(self, category: str | None = None) -> Iterator[tuple[Counts, Counts]]:
        """Anomalous and good images at each score, from the highest on: of the images themselves, then as drawn."""
        strata = {key: drawn for key, drawn in self._strata.items() if category in (None, key[0])}
        scores = np.concatenate([drawn.scores for drawn in strata.values()])
        anomalous = np.concatenate([np.full(len(drawn.scores), key[1] is not None) for key, drawn in strata.items()])
        weights = np.concatenate([drawn.weights[:, : len(drawn.scores)] for drawn in strata.values()], axis=1)
        distinct, entry = np.unique(-scores, return_inverse=True)
        for row in weights:
            positives, negatives = (
                np.bincount(entry[kind], weights=row[kind], minlength=len(distinct)) for kind in (anomalous, ~anomalous)
            )
            yield positives, negatives

    def pixel_counts(self, category: str | None = None) -> Iterator[tuple[Counts, Counts, Counts, float]]:
        """Anomalous and normal pixels at each bin from the highest on, overlap, and regions: likewise."""
        chosen = [sums for name, sums in self._categories.items() if category in (None, name)]
        for sums in chosen:
            sums.flush()
        histograms = np.sum([sums.histograms for sums in chosen], axis=0)[:, :, ::-1]
        regions = np.sum([sums.regions for sums in chosen], axis=0)
        for (positives, negatives, overlap), number in zip(histograms, regions, strict=True):
            yield positives, negatives, overlap, float(number)


def _draws(stratum: Stratum, count: int, replicates: int, seed: int) -> NDArray[np.uint16]:
    """How often each image is drawn: every one once, for the images themselves, and then as chance has it."""
    random = np.random.default_rng([seed, zlib.crc32(repr(stratum).encode("utf-8", "surrogateescape"))])
    weights = np.ones((1 + replicates, count), np.uint16)
    for row, drawn in zip(weights[1:], random.integers(0, count, (replicates, count)), strict=True):
        row[:] = np.bincount(drawn, minlength=count)
    return weights


def _value(metric: Callable[[Counts, Counts], float], positives: Counts, negatives: Counts) -> float:
    return metric(positives, negatives) if rankable(positives, negatives) else np.nan


def _aupro(positives: Counts, negatives: Counts, overlap: Counts, regions: float) -> float:
    return aupro(negatives, overlap, regions, PRO_MAX_FPR) if rankable(positives, negatives) else np.nan


def intervals(replicates: Mapping[str, Floats], metrics: Metrics, level: float = 0.95) -> dict[str, list[float] | None]:
    """Low and high of each metric that is known: percentiles of its replicates.

    They hold the metric itself, which counts pixels at finer levels than the replicates do.
    """
    found: dict[str, list[float] | None] = {}
    for name in METRIC_KEYS:
        value, values = getattr(metrics, name), replicates.get(name, np.empty(0))
        values = values[np.isfinite(values)]
        if value is None or not len(values):
            found[name] = None
            continue
        low, high = np.quantile(values, ((1.0 - level) / 2.0, (1.0 + level) / 2.0))
        found[name] = [min(float(low), value), max(float(high), value)]
    return found
