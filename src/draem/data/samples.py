"""Samples: which image of a data set is for what; who trains, selects, calibrates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from draem.config import Layout
from draem.data.truth import Truth
from draem.errors import DataError


@dataclass(frozen=True)
class Sample:
    """One image of a data set; `name` is its path relative to the root, with forward slashes, and unique."""

    path: Path
    name: str
    split: Literal["train", "test"]
    category: str
    label: Literal["good", "anomalous"]
    defect: str
    """Type of defect; "good" for good images."""
    truth: Truth | None
    """Where the anomaly is, if the data set says so."""


@dataclass(frozen=True)
class Dataset:
    """The samples of a data set, sorted by name: of one category, or of several."""

    root: Path
    layout: Layout
    samples: tuple[Sample, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categories, sorted."""
        return tuple(sorted({sample.category for sample in self.samples}))

    @property
    def name(self) -> str:
        """The category, or the root's name where there are several."""
        categories = self.categories
        return categories[0] if len(categories) == 1 else self.root.resolve().name

    @property
    def train_good(self) -> tuple[Sample, ...]:
        """The good images to learn from; empty if the data set is for testing only."""
        return tuple(sample for sample in self.samples if sample.split == "train" and sample.label == "good")

    @property
    def test(self) -> tuple[Sample, ...]:
        """The images to test with, good and anomalous; empty for a plain folder."""
        return tuple(sample for sample in self.samples if sample.split == "test")

    @property
    def anomalous(self) -> tuple[Sample, ...]:
        """Every anomalous image, whatever its split: some sets have them among those to train with."""
        return tuple(sample for sample in self.samples if sample.label == "anomalous")

    def of(self, category: str) -> Dataset:
        """The samples of one category."""
        return replace(self, samples=tuple(sample for sample in self.samples if sample.category == category))


@dataclass(frozen=True)
class Split:
    """The good images by job, each sorted by name: no image has two jobs."""

    train: tuple[Sample, ...]
    select: tuple[Sample, ...]
    """For stopping and the choice of checkpoint, with simulated defects."""
    calibrate: tuple[Sample, ...]
    """For the threshold."""


def stratified(samples: Sequence[Sample], most: int) -> tuple[Sample, ...]:
    """At most so many of the samples, sorted by name: the same ones, in whatever order they come.

    Every category and defect type has its turn until the number is reached, so that rare ones are there; within one,
    the samples lie evenly spaced among their names.
    """
    kinds: dict[tuple[str, str], list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.name):
        kinds.setdefault((sample.category, sample.defect), []).append(sample)
    shares = _fair_shares({key: len(kind) for key, kind in kinds.items()}, most)
    taken = [kind[index * len(kind) // shares[key]] for key, kind in kinds.items() for index in range(shares[key])]
    return tuple(sorted(taken, key=lambda sample: sample.name))


def fingerprint(samples: Sequence[Sample]) -> str:
    """SHA-256 (hexadecimal) over the samples' names and sizes in bytes, in any order: tells data sets apart cheaply.

    Raises:
        DataError: an image is gone.
    """
    digest = hashlib.sha256()
    for sample in sorted(samples, key=lambda sample: sample.name):
        try:
            size = sample.path.stat().st_size
        except OSError as error:
            raise DataError(f"{sample.path}: cannot be read: {error.strerror}") from error
        digest.update(f"{sample.name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def content_sum(path: Path) -> str:
    """Ten hexadecimal digits that tell a file's content: the first of its SHA-256.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:10]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def split_good(
    samples: Sequence[Sample],
    select_share: float,
    calibrate_share: float,
    seed: int,
    fold: tuple[int, int] | None = None,
) -> Split:
    """Split good images into those to train on, to select a checkpoint with and to calibrate the threshold with.

    The jobs go by a hash of seed and name, so neither the order of the files nor the place of the data set matters.
    Shares are of all images, rounded. From five images on, a share above 0 gets at least one; one is always left to
    train on. With a fold k of K, every K-th image from the k-th on is to calibrate: the K folds share all images out.

    Raises:
        DataError: there are no images, or too few for the folds.
    """
    if not samples:
        raise DataError("no good images to train on")
    drawn = sorted(samples, key=lambda sample: _draw(seed, sample.name))
    if fold is not None:
        return _folded(drawn, select_share, *fold)
    select, calibrate = (_count(len(drawn), share) for share in (select_share, calibrate_share))
    while select + calibrate >= len(drawn):
        select, calibrate = (select - 1, calibrate) if select > calibrate else (select, calibrate - 1)
    parts = drawn[:select], drawn[select : select + calibrate], drawn[select + calibrate :]
    by_name: list[tuple[Sample, ...]] = [tuple(sorted(part, key=lambda sample: sample.name)) for part in parts]
    return Split(train=by_name[2], select=by_name[0], calibrate=by_name[1])


def _folded(drawn: Sequence[Sample], select_share: float, number: int, folds: int) -> Split:
    if len(drawn) < folds:
        raise DataError(f"{len(drawn)} good images cannot be shared out among {folds} folds")
    held_out = drawn[number::folds]
    rest = [sample for sample in drawn if sample not in set(held_out)]
    select = min(_count(len(rest), select_share), len(rest) - 1)
    by_name = [tuple(sorted(part, key=lambda sample: sample.name)) for part in (rest[select:], rest[:select], held_out)]
    return Split(*by_name)


def _fair_shares(sizes: Mapping[tuple[str, str], int], most: int) -> dict[tuple[str, str], int]:
    """How many of each kind: one each in turn, until there are enough or no more."""
    shares = dict.fromkeys(sizes, 0)
    for _ in range(min(most, sum(sizes.values()))):
        least = min((key for key in sizes if shares[key] < sizes[key]), key=lambda key: shares[key])
        shares[least] += 1
    return shares


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def _count(images: int, share: float) -> int:
    least = 1 if share > 0 and images >= 5 else 0
    return max(int(images * share + 0.5), least)
