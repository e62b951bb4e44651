"""Checks on masks: there, readable, of their image's shape, and where the anomaly is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.data.doctor.evidence import Evidence
from draem.data.doctor.facts import Facts, MaskFacts
from draem.data.doctor.findings import Finding
from draem.data.doctor.measures import GRID
from draem.data.doctor.tails import limits

_NEARLY_ALL = 0.95
_FITS_BETTER = 0.05
_SURELY = 2.4
_FITS_BADLY = 0.25
_STRANGER = 1.5
_FEWEST = 5
"""Masks from which the whole set's can be judged."""
_KNOWN = 20
"""Good images from which single masks can be judged."""

_TURNS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "mirrored left to right": lambda mask: mask[:, ::-1],
    "mirrored top to bottom": lambda mask: mask[::-1],
    "turned by 180°": lambda mask: mask[::-1, ::-1],
    "with rows and columns swapped": lambda mask: mask.T,
    "turned by 90°": lambda mask: np.rot90(mask),
    "turned by 270°": lambda mask: np.rot90(mask, 3),
}


def check_masks(images: Sequence[Facts]) -> Iterator[Finding]:
    """Masks one by one, as far as their files tell."""
    for facts in images:
        if facts.mask is not None:
            yield from _one(facts, facts.mask)


def check_missing(images: Sequence[Facts]) -> Iterator[Finding]:
    """Anomalous images of one category without a mask: an error where most have one."""
    anomalous = [facts for facts in images if not facts.good]
    without = tuple(facts.name for facts in anomalous if facts.mask is None)
    if not without:
        return
    masked = len(anomalous) - len(without)
    if masked >= len(without):
        for name in without:
            yield Finding(
                "mask missing",
                "error",
                (name,),
                f"no mask, though {masked} of {len(anomalous)} anomalous images have one",
                "name it as the others are named, or remove the image",
                drop=(name,),
            )
    elif masked:
        told = f"{len(without)} of {len(anomalous)} anomalous images have no mask"
        yield Finding("mask missing", "warning", without, told, "pixel metrics are taken on the others only")
    else:
        told = "no anomalous image has a mask"
        yield Finding("mask missing", "note", (), told, "pixel metrics will be dashes; image metrics are not affected")


def check_alignment(images: Sequence[Facts]) -> Iterator[Finding]:
    """Masks of one category that mark what looks good, while what they should mark lies elsewhere.

    The whole set: would the masks fit clearly better turned or mirrored? Then one by one: how much of what the same
    mask would find at its best place does it find where it is? An image counts only where that best place is much
    stranger than any place in the good images.
    """
    good = [facts for facts in images if facts.good and facts.look]
    masked = [facts for facts in images if not facts.good and facts.look and _usable(facts.mask)]
    if len(good) < _FEWEST or not masked:
        return
    evidence = Evidence(good)
    maps = [_smooth(distances) for distances in evidence.maps(masked)]
    masks = [_cells(facts) for facts in masked]
    turned = _turned(maps, masks) if len(masked) >= _FEWEST else None
    if turned:
        told = f"the masks would fit the images much better {turned}"
        names = tuple(facts.name for facts in masked)
        yield Finding("mask misaligned", "warning", names, told, "turn the masks, or export them again")
        return
    if len(good) < _KNOWN:
        return
    fits = [fit(distances, mask) for distances, mask in zip(maps, masks, strict=True)]
    shares = np.array([here / best if best > 0 else 1.0 for here, best in fits])
    lowest = min(_FITS_BADLY, limits(shares, 0.0)[0] if len(shares) >= _FEWEST else _FITS_BADLY)
    suspects = [row for row, share in enumerate(shares) if share < lowest]
    usual = [_smooth(distances) for distances in evidence.maps(good[:: max(1, len(good) // 200)])] if suspects else []
    for row in suspects:
        if fits[row][1] > _STRANGER * max(fit(distances, masks[row])[1] for distances in usual):
            told = "the mask marks what looks good; something else in the image does not"
            advice = "compare image and mask: it may belong to another image, or be shifted"
            yield Finding("mask misaligned", "warning", (masked[row].name,), told, advice)


def fit(distances: NDArray[np.float32], mask: NDArray[np.float32]) -> tuple[float, float]:
    """Mean of a map, above its median, under the mask where it is and under the mask shifted to its best place."""
    padded = ((0, GRID), (0, GRID))
    spectrum = np.conj(np.fft.rfft2(np.pad(mask.astype(np.float64), padded)))
    above, ones = distances - np.median(distances), np.ones((GRID, GRID))
    total, room = (
        np.fft.irfft2(np.fft.rfft2(np.pad(plane, padded)) * spectrum, s=(2 * GRID, 2 * GRID)) for plane in (above, ones)
    )
    inside = room > 0.95 * mask.sum()
    mean = np.where(inside, total / np.maximum(room, 1e-6), -np.inf)
    return float(mean[0, 0]), float(mean.max())


def _one(facts: Facts, mask: MaskFacts) -> Iterator[Finding]:
    def found(check: str, told: str, advice: str) -> Finding:
        return Finding(check, "error", (facts.name,), told, advice, drop=(facts.name,))

    if mask.trouble:
        yield found("mask unreadable", mask.trouble, "export the mask again, or remove the image")
    elif facts.look and not _same_shape(mask.size, facts.look.size):
        sizes = ("×".join(str(side) for side in size) for size in (mask.size, facts.look.size))
        yield found("mask shape", "a mask of {}, an image of {}".format(*sizes), "it belongs to another image")
    elif facts.good and mask.share > 0:
        told = f"a good image with a mask that marks {mask.share:.1%}"
        yield found("mask on good", told, "it is not good, or the mask is another image's")
    elif not facts.good and mask.share == 0:
        yield found("mask empty", "an anomalous image with a mask that marks nothing", "mark the anomaly, or remove it")
    elif not facts.good and _inverted(mask):
        told = f"the mask marks {mask.share:.1%}, most of the border too: it looks inverted"
        yield Finding("mask inverted", "warning", (facts.name,), told, "255 is anomalous, 0 is good: swap them")


def _same_shape(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """A mask of another resolution is fine, to a pixel's rounding, as `draem.data.truth.load_truth` has it."""
    return abs(mask[0] * image[1] / image[0] - mask[1]) <= max(1.0, image[1] / image[0])


def _inverted(mask: MaskFacts) -> bool:
    if mask.cells is None or mask.share < 0.5:
        return False
    border = np.concatenate([mask.cells[0], mask.cells[-1], mask.cells[:, 0], mask.cells[:, -1]])
    return mask.share > _NEARLY_ALL or bool(mask.share < 1 and border.mean() > 0.8)


def _usable(mask: MaskFacts | None) -> bool:
    return mask is not None and mask.cells is not None and 0 < mask.share < 0.5


def _cells(facts: Facts) -> NDArray[np.float32]:
    assert facts.mask is not None
    assert facts.mask.cells is not None
    return facts.mask.cells.astype(np.float32)


def _smooth(distances: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.blur(distances, (3, 3), borderType=cv2.BORDER_REFLECT), np.float32)


def _turned(maps: Sequence[NDArray[np.float32]], masks: Sequence[NDArray[np.float32]]) -> str | None:
    """How the masks would have to be turned so that most of them fit clearly better, or None."""
    usual = np.array([_inside(*pair) for pair in zip(maps, masks, strict=True)])
    gains = {
        name: np.array([_inside(one, turn(mask)) for one, mask in zip(maps, masks, strict=True)]) - usual
        for name, turn in _TURNS.items()
    }
    best = max(gains, key=lambda name: float(np.median(gains[name])))
    # A sign test: by chance half of them would fit better.
    surely = np.mean(np.sign(gains[best])) * np.sqrt(len(masks)) > _SURELY
    return best if surely and np.median(gains[best]) > _FITS_BETTER else None


def _inside(distances: NDArray[np.float32], mask: NDArray[np.float32]) -> float:
    """Chance that a marked cell is stranger than an unmarked one: AUROC, cells weighted by their share."""
    marked = mask.ravel()[np.argsort(distances, axis=None)].astype(np.float64)
    below = np.cumsum(1 - marked) - (1 - marked) / 2
    return float((marked * below).sum() / max(marked.sum() * (1 - marked).sum(), 1e-9))
