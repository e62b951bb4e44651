"""Which single defects are found: recall by type and by size, and the smallest size from which nearly all are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.evaluation.operating import Share
from draem.images import Fit
from draem.inspection.scoring import exceeds

DETECTABLE = 0.9
"""The share of defects that must be found for their size to count as detectable."""


@dataclass(frozen=True)
class Defect:
    """One connected anomalous region of a mask (8 neighbours), and whether the map exceeds a threshold on it."""

    image: str
    category: str
    kind: str
    area: float
    """In pixels of the image file."""
    peak: float
    """The highest value of the smoothed map on it."""
    found: bool | None
    """At the threshold of review, else of rejection; none where the model has none."""

    @property
    def diameter(self) -> float:
        """Of a disc of this area, in pixels of the image file."""
        return 2.0 * math.sqrt(self.area / math.pi)


def defects_in(
    mask: NDArray[np.bool_],
    smoothed: NDArray[np.float32],
    fit: Fit,
    threshold: float | None,
    inside: NDArray[np.bool_] | None = None,
) -> list[tuple[float, float, bool | None]]:
    """Area in the image's pixels, peak, and found or not, of each region of a mask at its own resolution.

    So a defect that vanishes at the network's input size is there, and counts as one that may be missed.

    Args:
        mask: bool, the truth, of the image's shape or a resolution of it.
        smoothed: what the image score is the maximum of, at the size of the map.
        fit: where the image lies in the map.
        threshold: scores above are not accepted; none: nothing is found or missed.
        inside: bool, of the map's size, what is inspected; regions that have no such pixel are left out.
    """
    scale = fit.original[0] * fit.original[1] / mask.size
    down, across = fit.height / mask.shape[0], fit.width / mask.shape[1]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=8
    )
    found = []
    for label in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[label])
        rows, columns = np.nonzero(labels[top : top + height, left : left + width] == label)
        # Every pixel of the map that the region touches: one that covers less than half of a pixel touches it, too.
        touched = np.unique(
            np.stack(
                (
                    fit.top + ((rows + top + 0.5) * down).astype(np.int64),
                    fit.left + ((columns + left + 0.5) * across).astype(np.int64),
                )
            ),
            axis=1,
        )
        place = (touched[0], touched[1])
        if inside is not None:
            seen = inside[place]
            place = (touched[0][seen], touched[1][seen])
        values = smoothed[place]
        if len(values):
            above = None if threshold is None else bool(exceeds(values, threshold).any())
            found.append((area * scale, float(values.max()), above))
    return found


@dataclass(frozen=True)
class SizeClass:
    """Defects whose diameter lies in [low, high) pixels of the image file, and how many of them were found."""

    low: float
    high: float
    share: Share


def by_size(defects: Sequence[Defect]) -> list[SizeClass]:
    """Recall by diameter, every class twice as large as the one before; classes without defects are left out."""
    known = [defect for defect in defects if defect.found is not None]
    classes: dict[int, list[Defect]] = {}
    for defect in known:
        classes.setdefault(math.floor(math.log2(defect.diameter)), []).append(defect)
    return [
        SizeClass(2.0**octave, 2.0 ** (octave + 1), Share.of_all(one.found for one in some))
        for octave, some in sorted(classes.items())
    ]


def by_kind(defects: Sequence[Defect]) -> dict[tuple[str, str], Share]:
    """Recall of single defects by category and type, in the order in which they came."""
    kinds: dict[tuple[str, str], list[Defect]] = {}
    for defect in defects:
        if defect.found is not None:
            kinds.setdefault((defect.category, defect.kind), []).append(defect)
    return {key: Share.of_all(one.found for one in some) for key, some in kinds.items()}


def smallest_detectable(defects: Sequence[Defect], recall: float = DETECTABLE) -> float | None:
    """The smallest diameter such that of the defects at least as large this share is found; none: of no size.

    In pixels of the image file. It is a property of these defects at this threshold; few of them say little.
    """
    known = sorted((one for one in defects if one.found is not None), key=lambda one: -one.area)
    smallest, found = None, 0
    for place, defect in enumerate(known, 1):
        found += bool(defect.found)
        last_of_its_size = place == len(known) or known[place].area < defect.area
        if last_of_its_size and found >= recall * place:
            smallest = defect.diameter
    return smallest


def to_dict(defects: Sequence[Defect]) -> dict[str, Any]:
    """All of it, ready for JSON."""
    return {
        "by_kind": [
            {"category": category, "defect": kind, **share.to_dict()}
            for (category, kind), share in by_kind(defects).items()
        ],
        "by_size": [{"low": one.low, "high": one.high, **one.share.to_dict()} for one in by_size(defects)],
        "smallest_detectable": smallest_detectable(defects),
        "detectable_recall": DETECTABLE,
        "defects": [vars(defect) for defect in defects],
    }
