"""From anomaly map to image score, regions and verdict: the one place where this is done, for every backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.modelfile import Thresholds, Verdict


@dataclass(frozen=True)
class Region:
    """A connected part of the smoothed map above the threshold.

    Attributes:
        box: (left, top, right, bottom) in pixels, right and bottom exclusive.
        area: in pixels.
        peak: the largest value of the smoothed map in it.
        mean: its mean there.
        place: (x, y) of the peak's pixel, its middle.
        contour: corners (x, y) of its outer border, through the middles of its pixels.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float
    mean: float = 0.0
    place: tuple[float, float] = (0.0, 0.0)
    contour: tuple[tuple[float, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; places with one decimal."""
        return {
            "box": list(self.box),
            "area": self.area,
            "peak": self.peak,
            "mean": self.mean,
            "place": [round(value, 1) for value in self.place],
            "contour": [[round(x, 1), round(y, 1)] for x, y in self.contour],
        }


def smooth(anomaly_map: NDArray[np.float32], filter_size: int) -> NDArray[np.float32]:
    """Mean filter of odd side `filter_size`, stride 1, zeros beyond the border (the paper's has side 21)."""
    if filter_size == 1:
        return anomaly_map
    side = (filter_size, filter_size)
    return cv2.blur(np.ascontiguousarray(anomaly_map), side, borderType=cv2.BORDER_CONSTANT).astype(
        np.float32, copy=False
    )


def image_score(anomaly_map: NDArray[np.float32], filter_size: int) -> float:
    """The maximum of the smoothed map, in [0,1]: η of the paper."""
    return float(smooth(anomaly_map, filter_size).max())


def verdict(score: float, thresholds: Thresholds | None, lost: bool = False) -> Verdict | None:
    """What a score means, none where there is no threshold; what would be accepted of a lost part goes to a person."""
    if thresholds is None:
        return None
    found = thresholds.verdict(score)
    return "review" if lost and found == "accept" else found


def exceeds(smoothed: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Where a smoothed map is above a threshold, as `verdict` compares: NumPy alone would round the threshold."""
    return np.asarray(smoothed > np.float64(threshold))


def find_regions(smoothed: NDArray[np.float32], threshold: float) -> list[Region]:
    """Connected regions (8 neighbours) of a smoothed map above a threshold, highest peak first.

    An image whose score is above the threshold has at least one, and no other has any.
    """
    above = exceeds(smoothed, threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    regions = []
    for label in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[label])
        inside = labels[top : top + height, left : left + width] == label
        values = np.where(inside, smoothed[top : top + height, left : left + width], -np.inf)
        row, column = divmod(int(values.argmax()), width)
        outer = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0][0]
        corners = tuple((float(x) + left + 0.5, float(y) + top + 0.5) for x, y in outer[:, 0])
        regions.append(
            Region(
                box=(left, top, left + width, top + height),
                area=area,
                peak=float(values.max()),
                mean=float(values[inside].mean(dtype=np.float64)),
                place=(left + column + 0.5, top + row + 0.5),
                contour=corners,
            )
        )
    return sorted(regions, key=lambda region: -region.peak)
