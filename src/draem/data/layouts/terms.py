"""Words for labels and splits in the data sets of the field, and a split for sets that have none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from draem.data.samples import Sample
from draem.data.truth import Truth
from draem.errors import DataError

Split = Literal["train", "test"]

GOOD = frozenset({"good", "negative", "negatives", "normal", "ok", "pass"})
ANOMALOUS = frozenset(
    {"abnormal", "anomalies", "anomalous", "anomaly", "bad", "broken", "damaged", "defect", "defective", "defects"}
    | {"faulty", "ko", "ng", "nok", "not_good", "not_ok", "positive", "positives"}
    | {"fail", "failed", "reject", "rejected", "scrap"}
)
DEFECT = "defect"
"""The type of defects that a data set gives no type."""


def is_good(word: str, where: str) -> bool:
    """What a label says.

    Raises:
        DataError: it is neither good nor anomalous.
    """
    lower = word.strip().lower()
    if lower not in GOOD | ANOMALOUS:
        raise DataError(f"{where}: label {word!r:.80} is not known: use good or anomalous")
    return lower in GOOD


def split_named(good: bool, *places: str) -> Split:
    """The split that a name speaks of, the first that does; else good images train and anomalous ones test."""
    for place in places:
        words = set(re.findall(r"[a-z]+", place.lower()))
        train, test = bool(words & {"train", "training"}), bool(words & {"test", "testing"})
        if train != test:
            return "train" if train else "test"
    return "train" if good else "test"


def hold_out(groups: Iterable[str], share: float) -> set[str]:
    """The groups to test with: a share of them, at least one of two, by a hash of the name and so always the same."""
    drawn = sorted(set(groups), key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    return set(drawn[: max(round(len(drawn) * share), int(len(drawn) > 1))])


def joined(types: Iterable[str]) -> str:
    """One name for an image with defects of several types."""
    return " + ".join(sorted(set(types)))


def make_sample(
    root: Path, path: Path, split: Split, category: str, defect: str, masks: Sequence[Path] | Truth | None = None
) -> Sample:
    """A sample named by its place below the root; the defect type `good` makes it a good one."""
    truth = masks if isinstance(masks, Truth) else Truth(tuple(masks)) if masks else None
    label: Literal["good", "anomalous"] = "good" if defect == "good" else "anomalous"
    return Sample(path, path.relative_to(root).as_posix(), split, category, label, defect, truth)


def category_of(folder: Path) -> str:
    """The name of a folder's category: its own, also where the folder is given as `.`."""
    return folder.resolve().name
