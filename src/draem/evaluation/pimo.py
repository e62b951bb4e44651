"""AUPIMO: recall of each anomalous image where hardly any pixel of a good image is a false alarm.

Source: J. Bertoldo, D. Ameln, A. Vaidya, S. Akçay, "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High
Speed and Low Tolerance", BMVC 2024.
"""

from __future__ import annotations

import math

import numpy as np

from draem.evaluation.bootstrap import bin_edges
from draem.evaluation.metrics import LEVELS, PixelCounts
from draem.evaluation.ranking import Floats

LOWEST, HIGHEST = 1e-5, 1e-4
"""Of the false-positive rate of good images, between which recall is averaged over its logarithm."""
_EDGES = bin_edges()


class PimoAccumulator:
    """Takes images one at a time; keeps 6 KB of each anomalous one."""

    def __init__(self) -> None:
        self._good: Floats = np.zeros(LEVELS)
        self._images = 0
        self._recalls: list[np.ndarray[tuple[int], np.dtype[np.float32]] | None] = []

    def add(self, anomalous: bool, pixels: PixelCounts | None) -> None:
        """Count one image, by the histograms of its own pixels; none where its truth is not known."""
        if not anomalous:
            total = 0 if pixels is None else int(pixels.negatives.sum())
            if pixels is not None and total:
                self._good += np.cumsum(pixels.negatives[::-1]) / total
                self._images += 1
            return
        if pixels is None or not pixels.positives.any():
            self._recalls.append(None)
            return
        at_edges = np.cumsum(pixels.positives[::-1])[::-1][_EDGES]
        self._recalls.append((at_edges / at_edges[0]).astype(np.float32))

    def values(self) -> list[float | None]:
        """Of each anomalous image in its order, in [0, 1]; none where its truth is not known or no image is good."""
        if not self._images:
            return [None] * len(self._recalls)
        # From the highest threshold to the lowest, as rates grow; pixels at or above the edge's level count.
        rates = (self._good / self._images)[::-1][_EDGES][::-1]
        return [
            None if recall is None else _average(rates, recall[::-1].astype(np.float64)) for recall in self._recalls
        ]

    def mean(self) -> float | None:
        """Their mean over the images where it is known."""
        known = [value for value in self.values() if value is not None]
        return math.fsum(known) / len(known) if known else None


def _average(rates: Floats, recall: Floats) -> float:
    """Mean of a recall over the logarithm of the rate between the bounds; both ascend, from the highest threshold on.

    At each rate the recall is that of the lowest threshold whose own rate is not above it: where the rate jumps, the
    recall of what lies beyond counts for nothing.
    """
    inside = (rates > LOWEST) & (rates < HIGHEST)
    starts = np.concatenate(([LOWEST], rates[inside], [HIGHEST]))
    # The lowest threshold is the last of those whose rate is no higher.
    last = np.searchsorted(rates, starts[:-1], side="right") - 1
    values = np.where(last < 0, 0.0, recall[np.maximum(last, 0)])
    return min(1.0, float(np.diff(np.log(starts)) @ values) / math.log(HIGHEST / LOWEST))
