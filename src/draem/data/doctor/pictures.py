"""Checks on what good images look like: light, focus, colour, orientation, suspects; each against its own set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from draem.data.doctor.evidence import Evidence, peak, strength
from draem.data.doctor.facts import Facts
from draem.data.doctor.findings import Finding
from draem.data.doctor.measures import MEAN, Look
from draem.data.doctor.tails import limits, medians

FEWEST = 16
"""Good images from which outliers can be told."""
_UNORIENTED = -0.8


class _Measure(NamedTuple):
    """A number of each image, how far it must be from the median to matter, and what lies beyond each limit."""

    check: str
    value: Callable[[Look], float]
    margin: float
    below: str | None
    above: str | None
    advice: str


_LIGHT = "take it again under the usual light and exposure, or remove it"
_FOCUS = "take it again in focus, or remove it"
MEASURES = (
    _Measure("exposure", lambda look: np.log(look.brightness + 4), 0.15, "much darker", "much brighter", _LIGHT),
    _Measure("exposure", lambda look: np.log(look.contrast + 1), 0.3, "much flatter", None, _LIGHT),
    _Measure("exposure", lambda look: look.white, 0.1, None, "far more burnt-out (white) pixels", _LIGHT),
    _Measure("exposure", lambda look: look.black, 0.1, None, "far more drowned (black) pixels", _LIGHT),
    _Measure("focus", lambda look: look.sharpness, 0.3, "much less sharp", None, _FOCUS),
    _Measure("focus", lambda look: look.sharpness_halved, 0.3, "much less fine structure", None, _FOCUS),
    _Measure(
        "colour", lambda look: look.tint[0], 5, "less red", "redder", "check white balance and light, or remove it"
    ),
    _Measure(
        "colour", lambda look: look.tint[1], 5, "less blue", "bluer", "check white balance and light, or remove it"
    ),
)

_TURNS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "turned by 90°": lambda planes: np.rot90(planes, 1, (-2, -1)),
    "turned by 180°": lambda planes: np.rot90(planes, 2, (-2, -1)),
    "turned by 270°": lambda planes: np.rot90(planes, 3, (-2, -1)),
    "mirrored left to right": lambda planes: planes[..., ::-1],
    "mirrored top to bottom": lambda planes: planes[..., ::-1, :],
}


def check_outliers(good: Sequence[Facts]) -> Iterator[Finding]:
    """Readable good images of one category far from the others in light, focus or colour; a finding for each check."""
    if len(good) < FEWEST:
        return
    told: dict[tuple[str, str], tuple[list[str], str]] = {}
    for measure in MEASURES:
        values = np.array([measure.value(facts.look) for facts in good if facts.look])
        low, high = limits(values, measure.margin)
        for facts, value in zip(good, values, strict=True):
            what = measure.below if value < low else measure.above if value > high else None
            if what:
                told.setdefault((facts.name, measure.check), ([], measure.advice))[0].append(what)
    for (name, check), (words, advice) in told.items():
        yield Finding(check, "warning", (name,), f"{' and '.join(words)} than in the other good images", advice)


def check_orientation(good: Sequence[Facts]) -> Iterator[Finding]:
    """Readable good images of one category that are turned or mirrored, where the set has an orientation.

    An image is projected on what tells the set's median image from its turned copy: about 1 for an image that is
    upright, -1 for one that is turned. Which way stripes run is a second such number, for quarter turns of textures. A
    set counts as oriented where its own tail ends before -0.8.
    """
    if len(good) < FEWEST:
        return
    found: dict[str, tuple[float, str]] = {}
    for turn, scores in _projections(good):
        lowest = min(limits(scores, 0.5)[0], -0.5)
        if lowest <= _UNORIENTED:
            continue
        for facts, score in zip(good, scores, strict=True):
            if score < lowest and score < found.get(facts.name, (0.0, ""))[0]:
                found[facts.name] = (float(score), turn)
    for name, (_, turn) in found.items():
        yield Finding("orientation", "warning", (name,), f"seems {turn}", "turn it upright, or remove it")


def check_suspects(good: Sequence[Facts], explained: frozenset[str]) -> Iterator[Finding]:
    """Readable good images of one category with a spot that no other has; those `explained` already are left out.

    The median of all good images stands for good, so most must be. It finds gross defects; faint ones it cannot.
    """
    if len(good) < FEWEST:
        return
    maps = list(Evidence(good).maps(good))
    strengths = [strength(distances) for distances in maps]
    highest = limits(strengths, 0.3)[1]
    for facts, distances, value in zip(good, maps, strengths, strict=True):
        if value > highest and facts.name not in explained:
            told = "a spot unlike all other good images: perhaps a bad part"
            advice = "look at the part; if it is bad, move the image to the anomalous ones"
            yield Finding("suspect", "warning", (facts.name,), told, advice, spots=(peak(distances),))


def _projections(good: Sequence[Facts]) -> Iterator[tuple[str, NDArray[np.floating[Any]]]]:
    """How an image would have been turned, and for each image how far it is upright (1) or turned (-1)."""
    planes = np.stack([facts.look.cells[MEAN] for facts in good if facts.look]).astype(np.float32)
    planes -= planes.mean(axis=(1, 2), keepdims=True)
    planes /= planes.std(axis=(1, 2), keepdims=True) + 1
    middle, spread = medians(planes)
    variance = spread**2 + 0.05
    for name, turn in _TURNS.items():
        difference = middle - turn(middle)
        weighted = difference / (variance + turn(variance))
        scale = float((weighted * difference).sum()) / 2
        centre = float((weighted * (middle + turn(middle))).sum()) / 2
        # Hardly any difference: a symmetric part, or a texture.
        if scale > 1e-3:
            yield name, (np.tensordot(planes, weighted, axes=2) - centre) / scale
    grain = np.array([facts.look.grain for facts in good if facts.look], np.float32)
    usual = float(np.median(grain))
    if abs(usual) > 0.05:
        yield "turned by 90°", grain / usual
