"""Which good images a model finds strangest: where bad parts among them would be."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from draem.data.doctor.findings import Box, Finding
from draem.data.samples import Sample
from draem.errors import ImageError
from draem.inspection.detector import Detector
from draem.inspection.prediction import Prediction

_SHARE, _LEAST = 0.1, 5
_MARGIN = 0.02
"""Around the spot, as a share of the image's sides."""


def strangest(
    detector: Detector, samples: Sequence[Sample], model: str, progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """The tenth of the good images (five at least) with the highest scores, the highest first, each with its spot.

    The model may well have been trained on them: what is rare it has learnt least. There always is a tenth, so it is a
    list to look through and no alarm. What the model cannot inspect is counted; where that is all, a warning says so.
    Of no good images there is nothing.

    Args:
        detector: the model.
        samples: images, of which the good ones are inspected.
        model: its name for people.
        progress: called with the images inspected and their number.
    """
    good = {sample.path: sample.name for sample in samples if sample.label == "good"}
    most = max(_LEAST, round(_SHARE * len(good)))
    scores: list[float] = []
    refused: list[ImageError] = []
    kept: list[tuple[float, str, Box]] = []
    for result in detector.stream(list(good), on_unreadable=lambda _, error: refused.append(error)):
        assert result.path is not None
        scores.append(result.score)
        entry = result.score, good[result.path], _spot(result)
        (heapq.heappush if len(kept) < most else heapq.heappushpop)(kept, entry)
        if progress:
            progress(len(scores), len(good))
    if not kept:
        return [_nothing(model, refused)] if refused else []
    kept.sort(key=lambda entry: (-entry[0], entry[1]))
    found, names, spots = zip(*kept, strict=True)
    told = f"the {len(kept)} of {len(scores)} good images that {model} finds strangest, the strangest first: "
    told += f"scores from {found[0]:.3f} to {found[-1]:.3f}; half of all lie below {np.median(scores):.3f}"
    told += f"; {len(refused)} could not be inspected" if refused else ""
    advice = "look at them; move those that are bad to the anomalous ones, and train again"
    return [Finding("suspect", "note", names, told, advice, spots=spots)]


def _nothing(model: str, refused: Sequence[ImageError]) -> Finding:
    told = f"{model} could inspect none of the {len(refused)} good images; the first: {refused[0]}"
    return Finding("suspect", "warning", (), told, "take a model of such images, or mend the files")


def _spot(result: Prediction) -> Box:
    """Around the strongest region: where the smoothed map is above half of its peak."""
    height, width = result.image.shape[:2]
    regions = result.regions_above(float(result.smoothed.max()) / 2)
    left, top, right, bottom = regions[0].box if regions else (0, 0, width, height)
    return (
        max(left / width - _MARGIN, 0.0),
        max(top / height - _MARGIN, 0.0),
        min(right / width + _MARGIN, 1.0),
        min(bottom / height + _MARGIN, 1.0),
    )
