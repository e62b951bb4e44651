"""One pass over a data set's files: each is read once, measured and let go."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.data.bank import processors
from draem.data.doctor.measures import GRID, Look, extent, measure
from draem.data.samples import Sample
from draem.data.truth import Truth
from draem.errors import ImageError
from draem.imagefiles import damage, file_format
from draem.imageheaders import ImageHeader, read_header
from draem.images import decode_raw, show
from draem.pixels import ValueRange

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MaskFacts:
    """What is known of an image's mask."""

    trouble: str | None
    """Why it cannot be read."""
    size: tuple[int, int] = (0, 0)
    """Height and width in pixels."""
    share: float = 0.0
    """Share of the pixels that it marks."""
    cells: NDArray[np.float16] | None = None
    """GRID×GRID share of each cell that it marks."""


@dataclass(frozen=True)
class Facts:
    """What is known of one image: why it cannot be used, or what it looks like."""

    sample: Sample
    unreadable: str | None = None
    damaged: str | None = None
    format: str | None = None
    """Format by content, as `draem.imagefiles.file_format` names it."""
    header: ImageHeader | None = None
    look: Look | None = None
    pixels: bytes = b""
    """SHA-256 of the decoded values: the same for copies in other formats without loss."""
    highest: int | None = None
    """The highest raw value of 16 bits, where no range of values is given."""
    mask: MaskFacts | None = None
    """None where the data set names no mask."""

    @property
    def name(self) -> str:
        """The sample's name."""
        return self.sample.name

    @property
    def good(self) -> bool:
        """Whether the data set calls the image good."""
        return self.sample.label == "good"


def gather(
    samples: Sequence[Sample],
    progress: Progress | None = None,
    workers: int | None = None,
    value_range: ValueRange | None = None,
) -> list[Facts]:
    """Read and measure every image and mask, in `workers` threads (default: one for each processor)."""
    found: list[Facts] = []
    with ThreadPoolExecutor(min(workers or processors(), max(len(samples), 1))) as pool:
        try:
            for facts in pool.map(lambda sample: examine(sample, value_range), samples):
                found.append(facts)
                if progress:
                    progress(len(found), len(samples))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return found


def examine(sample: Sample, value_range: ValueRange | None = None) -> Facts:
    """Read and measure one image and its mask; nothing that is wrong with the files raises."""
    mask = None if sample.truth is None else examine_mask(sample.truth)
    try:
        data = sample.path.read_bytes()
    except OSError as error:
        return Facts(sample, unreadable=f"cannot be read: {error.strerror or error}", mask=mask)
    kind = file_format(data)
    if kind is None:
        what = f"not an image: it starts with {data[:12]!r}" if data else "the file is empty"
        return Facts(sample, unreadable=what, mask=mask)
    if wrong := damage(data):
        return Facts(sample, damaged=f"{kind}: {wrong}", format=kind, mask=mask)
    try:
        raw = decode_raw(data, sample.name)
        image = show(raw, sample.name, value_range)
    except ImageError as error:
        return Facts(sample, unreadable=str(error).removeprefix(f"{sample.name}: "), format=kind, mask=mask)
    look = replace(measure(image), extent=extent(raw))
    highest = int(raw.max()) if raw.dtype == np.uint16 and value_range is None else None
    return Facts(sample, None, None, kind, read_header(data), look, _digest(raw, image), highest, mask)


def examine_mask(truth: Truth) -> MaskFacts:
    """Read and measure one mask."""
    try:
        mask = truth.read()
    except ImageError as error:
        return MaskFacts(trouble=_named(error, truth.files))
    shrunk = cv2.resize(mask.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA)
    return MaskFacts(None, (mask.shape[0], mask.shape[1]), float(mask.mean()), shrunk.astype(np.float16))


def _digest(raw: NDArray[Any], image: NDArray[np.uint8]) -> bytes:
    """Of the shown image where that holds all that the raw values do, as of 8 bits stored in 16, else of these."""
    shown = raw.ndim == 2 or raw.shape[2] == 3
    whole = shown and (raw.dtype == np.uint8 or (raw.dtype == np.uint16 and not (raw % 257).any()))
    values = image if whole else np.ascontiguousarray(raw)
    digest = hashlib.sha256(repr((values.shape, values.dtype.str)).encode())
    digest.update(values.data)
    return digest.digest()


def _named(error: ImageError, files: Sequence[Path]) -> str:
    """The error's words with the mask's name in place of its whole path."""
    words = str(error)
    for path in files:
        words = words.replace(str(path), path.name)
    return words
