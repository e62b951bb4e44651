"""Which pictures are the same, or almost: pairs of images that must come from one photograph."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.data.bank import processors
from draem.data.doctor.facts import Facts
from draem.data.doctor.measures import MEAN, SMALL_SIDE
from draem.data.doctor.tails import limits

NEIGHBOURS = 5
"""Candidates an image."""
ALIKE = 0.8
"""Correlation of fine detail from which two pictures can be one."""
_BLOCK = 1024
_CONTROLS = 400
_REMEMBERED = 1024
_APART = 0.8
_FARTHEST = SMALL_SIDE // 4
_EDGE = 4


def same_pixels(images: Sequence[Facts]) -> list[list[Facts]]:
    """Groups of at least two readable images with the very same pixels."""
    groups: dict[bytes, list[Facts]] = {}
    for facts in images:
        groups.setdefault(facts.pixels, []).append(facts)
    return [group for group in groups.values() if len(group) > 1]


def near_twins(images: Sequence[Facts]) -> list[list[Facts]]:
    """Groups of at least two readable images of one category that are one photograph, though not to the pixel.

    Candidates are each image's nearest neighbours, by its coarse grey levels against the set's median image. A pair is
    shifted onto each other and its fine detail compared: noise and texture of one photograph repeat in its copies, and
    in no other photograph. Parts that lie alike share outlines, though; so the limit is the set's own, from pairs at
    random and from less near neighbours, as far out as the best of all pairs may lie by chance.
    """
    if len(images) < 3:
        return []
    order = neighbours(images)
    small = [facts.look.small for facts in images if facts.look]
    # Pairs come sorted, so that most of what a bounded memory forgets is not asked for again.
    known = lru_cache(maxsize=_REMEMBERED)(lambda index: detail(small[index]))
    pairs = sorted({(min(a, int(b)), max(a, int(b))) for a in range(len(images)) for b in order[a, :NEIGHBOURS]})
    groups = [pairs, *_controls(order)]
    with ThreadPoolExecutor(processors()) as pool:
        alike, *usual = (
            np.array(list(pool.map(lambda pair: likeness(known(pair[0]), known(pair[1])), group))) for group in groups
        )
    draws = len(images) ** 2 // 2
    highest = max(limits(np.arctanh(np.clip(some, -0.999, 0.999)), _APART, draws)[1] for some in usual)
    least = max(ALIKE, float(np.tanh(highest)))
    return _joined(images, [pair for pair, value in zip(pairs, alike, strict=True) if value >= least])


def _controls(order: NDArray[np.intp]) -> list[list[tuple[int, int]]]:
    """Pairs at random, and pairs of less near neighbours."""
    images, count = len(order), min(_CONTROLS, 4 * len(order))
    ends = np.random.default_rng(0).integers(0, images, (count, 2)).tolist()
    farther = [(row, int(other)) for row in range(images) for other in order[row, NEIGHBOURS:]]
    return [[(a, b) for a, b in ends if a != b], farther[:: max(1, len(farther) // count)]]


def neighbours(images: Sequence[Facts]) -> NDArray[np.intp]:
    """Indices of each image's NEIGHBOURS nearest others, then of some with an eighth to a quarter of all nearer."""
    coarse = np.stack([facts.look.cells[MEAN] for facts in images if facts.look]).astype(np.float32)
    coarse = coarse.reshape(len(images), -1)
    coarse -= coarse.mean(axis=1, keepdims=True)
    coarse -= np.median(coarse[:: max(1, len(images) // 500)], axis=0)
    coarse /= np.linalg.norm(coarse, axis=1, keepdims=True) + 1e-6
    farther = (max(NEIGHBOURS, len(images) // part) for part in (8, 6, 5, 4))
    places = [min(place, len(images) - 2) for place in (*range(NEIGHBOURS), *farther)]
    found = np.empty((len(images), len(places)), np.intp)
    for start in range(0, len(images), _BLOCK):
        distance = -coarse[start : start + _BLOCK] @ coarse.T
        rows = np.arange(len(distance))
        distance[rows, rows + start] = np.inf
        found[start : start + _BLOCK] = np.argpartition(distance, places, axis=1)[:, places]
    return found


class Detail(NamedTuple):
    """What two pictures are compared by."""

    grey: NDArray[np.float32]
    fine: NDArray[np.float32]
    """Detail of a few pixels, evened out so that a few strong edges do not speak for all of it."""


def detail(small: NDArray[np.uint8]) -> Detail:
    """Prepare a grey picture for `likeness`."""
    grey = small.astype(np.float32)
    band = cv2.GaussianBlur(grey, (0, 0), 0.7) - cv2.GaussianBlur(grey, (0, 0), 3.0)
    return Detail(grey, np.asarray(band / (np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 4.0)) + 2), np.float32))


def likeness(first: Detail, second: Detail) -> float:
    """Correlation of the fine detail of two pictures of one size, after the best shift; -1 to 1."""
    shape = first.grey.shape
    (right, down), _ = cv2.phaseCorrelate(first.grey, second.grey, _window(*shape))
    here = _correlation(first.fine, second.fine, _EDGE)
    reach = max(abs(right), abs(down))
    if not 0.05 < reach < _FARTHEST:
        return here
    shift = np.array([[1, 0, right], [0, 1, down]], np.float32)
    moved = cv2.warpAffine(second.fine, shift, shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return max(here, _correlation(first.fine, np.asarray(moved, np.float32), _EDGE + int(np.ceil(reach))))


@lru_cache(maxsize=1)
def _window(height: int, width: int) -> NDArray[np.float32]:
    return np.asarray(cv2.createHanningWindow((width, height), cv2.CV_32F), np.float32)


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32], edge: int) -> float:
    inside = slice(edge, -edge)
    first, second = (plane[inside, inside] - plane[inside, inside].mean() for plane in (a, b))
    norms = float(np.sqrt((first * first).sum() * (second * second).sum()))
    return float((first * second).sum()) / norms if norms > 1e-3 else 0.0


def _joined(images: Sequence[Facts], pairs: Sequence[tuple[int, int]]) -> list[list[Facts]]:
    """Groups that the pairs connect, in the images' order."""
    leader = list(range(len(images)))

    def root(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        leader[high] = low
    groups: dict[int, list[Facts]] = {}
    for index, facts in enumerate(images):
        groups.setdefault(root(index), []).append(facts)
    return [group for group in groups.values() if len(group) > 1]
