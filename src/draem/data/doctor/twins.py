"""Which pictures are the same, or almost: pairs of images that must come from one photograph."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

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
    in no other photograph. Parts that lie alike share outlines, though; so the limit is the set's own, from pairs that
    are no neighbours.
    """
    if len(images) < 3:
        return []
    order = neighbours(images)
    small = [facts.look.small for facts in images if facts.look]
    pairs = sorted({(min(a, int(b)), max(a, int(b))) for a in range(len(images)) for b in order[a, :NEIGHBOURS]})
    controls = min(_CONTROLS, 4 * len(images))
    ends = np.random.default_rng(0).integers(0, len(images), (controls, 2))
    rows = np.repeat(np.arange(len(images)), order.shape[1] - NEIGHBOURS)
    farther = np.stack([rows, order[:, NEIGHBOURS:].ravel()], axis=1)
    farther = farther[:: max(1, len(farther) // controls)]
    with ThreadPoolExecutor(processors()) as pool:

        def alike(some: Sequence[Sequence[int]] | NDArray[np.intp]) -> NDArray[np.float64]:
            return np.array(list(pool.map(lambda pair: likeness(small[pair[0]], small[pair[1]]), some)))

        values = alike(pairs)
        usual = [alike(ends[ends[:, 0] != ends[:, 1]]), alike(farther)]
    draws = len(images) ** 2 // 2
    highest = max(limits(np.arctanh(np.clip(some, -0.999, 0.999)), _APART, draws)[1] for some in usual)
    least = max(ALIKE, float(np.tanh(highest)))
    return _joined(images, [pair for pair, value in zip(pairs, values, strict=True) if value >= least])


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


def likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Correlation of the fine detail of two grey pictures, after the best shift; -1 to 1."""
    a, b = first.astype(np.float32), second.astype(np.float32)
    (right, down), _ = cv2.phaseCorrelate(a, b, _window(a.shape))
    fine = _fine(a), _fine(b)
    here = _correlation(*fine, _EDGE)
    reach = max(abs(right), abs(down))
    if not 0.05 < reach < _FARTHEST:
        return here
    shift = np.array([[1, 0, right], [0, 1, down]], np.float32)
    moved = cv2.warpAffine(fine[1], shift, a.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return max(here, _correlation(fine[0], np.asarray(moved, np.float32), _EDGE + int(np.ceil(reach))))


def _window(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.asarray(cv2.createHanningWindow((shape[1], shape[0]), cv2.CV_32F), np.float32)


def _fine(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fine detail, evened out so that a few strong edges do not speak for all of it."""
    detail = cv2.GaussianBlur(grey, (0, 0), 0.7) - cv2.GaussianBlur(grey, (0, 0), 3.0)
    return np.asarray(detail / (np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 4.0)) + 2), np.float32)


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
