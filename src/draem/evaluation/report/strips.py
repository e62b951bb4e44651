"""The "why" of single images: a strip of pictures for each of those that a report shows."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from draem.data.samples import Sample
from draem.images import fit_image
from draem.inspection.prediction import Prediction
from draem.modelfile import Thresholds, Verdict
from draem.pages import thumbnail
from draem.pictures import heat_map, overlay, scaled

MOST_PICTURED = 500
"""Images; of more, those with the worst and the closest decisions."""
PANELS = ("image", "reconstruction", "difference", "anomaly map", "regions")
_SIDE = 168
_AMPLIFIED = 3.0
"""Differences of image and reconstruction are small beside an image's whole range."""
_SHOWN_REGIONS = 20


@dataclass(frozen=True)
class Strip:
    """One image as the report shows it."""

    name: str
    category: str
    label: str
    defect: str
    score: float
    p_value: float | None
    source: str
    """The five panels of `PANELS` side by side, as a data URI."""
    ratio: float
    """Width over height of one panel."""
    regions: list[dict[str, object]]
    milliseconds: float
    verdict: Verdict | None
    lost: bool


class Strips:
    """Takes inspected images, and keeps strips of those that matter most; memory stays bounded."""

    def __init__(self, thresholds: Thresholds | None, most: int = MOST_PICTURED) -> None:
        self._thresholds, self._most = thresholds, most
        self._kept: list[tuple[float, int, Strip]] = []
        self._seen = 0

    def add(self, sample: Sample, prediction: Prediction, mask: NDArray[np.bool_] | None) -> None:
        """Look at one image; its strip is drawn only if it is to be kept for now."""
        wrong = self._wrongness(sample, prediction.score)
        self._seen += 1
        if len(self._kept) == self._most and wrong <= self._kept[0][0]:
            return
        entry = (wrong, -self._seen, _strip(sample, prediction, mask))
        (heapq.heappush if len(self._kept) < self._most else heapq.heappushpop)(self._kept, entry)

    def worst_first(self) -> list[Strip]:
        """Escapes and false rejects by how far they are from the threshold, then the closest decisions."""
        return [strip for _, _, strip in sorted(self._kept, reverse=True)]

    def _wrongness(self, sample: Sample, score: float) -> float:
        """How far a score is on the wrong side of what is accepted; without a threshold, of the middle."""
        threshold = 0.5 if self._thresholds is None else self._thresholds.lowest
        return threshold - score if sample.label == "anomalous" else score - threshold


def _strip(sample: Sample, prediction: Prediction, mask: NDArray[np.bool_] | None) -> Strip:
    found = prediction.input_map
    size = (found.shape[0], found.shape[1])
    image = fit_image(prediction.image, *prediction.data.frame(size))
    difference = np.abs(image.astype(np.float32) - prediction.reconstruction).max(axis=2) / 255.0
    if prediction.inspected is not None:  # elsewhere the network may have seen grey, and nothing counts
        difference[~prediction.inspected] = 0.0
    marked = (
        None if prediction.lowest_threshold is None else prediction.smoothed > np.float64(prediction.lowest_threshold)
    )
    panels = (
        overlay(image, np.zeros(size, np.float32), mask),
        prediction.reconstruction,
        heat_map(_AMPLIFIED * difference),
        heat_map(found),
        overlay(image, found, marked),
    )
    cells = [scaled(panel, (_SIDE, _SIDE)) for panel in panels]
    height, width = cells[0].shape[:2]
    regions = [
        {"box": list(region.box), "area": region.area, "peak": round(region.peak, 4)}
        for region in prediction.regions[:_SHOWN_REGIONS]
    ]
    return Strip(
        name=sample.name,
        category=sample.category,
        label=sample.label,
        defect=sample.defect,
        score=prediction.score,
        p_value=prediction.p_value,
        source=thumbnail(np.concatenate(cells, axis=1), width * len(cells)),
        ratio=width / height,
        regions=regions,
        milliseconds=prediction.milliseconds,
        verdict=prediction.verdict,
        lost=prediction.lost,
    )
