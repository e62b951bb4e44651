"""A plain folder of good images, at any depth: all that is needed to train."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.terms import ANOMALOUS, GOOD, category_of, make_sample
from draem.data.samples import Sample
from draem.errors import DataError
from draem.images import IMAGE_SUFFIXES

_NOT_GOOD = ANOMALOUS | {"ground_truth", "labels", "mask", "masks", "test", "train"}
"""Names of folders that a folder of good images cannot have below it: learning from what they hold spoils a model."""


def claims(root: Path, listing: Listing) -> bool:
    """Whether nothing speaks against every image being good."""
    return root.is_dir() and against(root, listing) is None


def against(root: Path, listing: Listing) -> str | None:
    """The first folder, at any depth, that says that not all images are good: by its name, or good beside others."""
    for place in listing.tree(root):
        names = listing.folders(place)
        good = [name for name in names if _words(name) & GOOD]
        speaking = [name for name in names if name.lower() in _NOT_GOOD or _words(name) & ANOMALOUS]
        if speaking or 0 < len(good) < len(names):
            return (place / (speaking or good)[0]).relative_to(root).as_posix()
    return None


def _words(name: str) -> set[str]:
    """`ok_front` is good as `ok` is."""
    return set(re.findall("[a-z]+", name.lower()))


def read(root: Path, listing: Listing) -> list[Sample]:
    """Every image is good and to train with."""
    images = listing.images(root)
    if not images:
        raise DataError(f"{root}: no images in it (looked for {' '.join(IMAGE_SUFFIXES)} to any depth)")
    return [make_sample(root, path, "train", category_of(root), "good") for path in images]


def contents(root: Path, listing: Listing) -> str:
    """What is in a folder, in words."""
    here = Counter(path.relative_to(root).parts[0] if path.parent != root else "" for path in listing.images(root))
    found = [f"{name}/ ({here[name]} images)" for name in listing.folders(root)]
    if here[""]:
        found.append(f"{here['']} images beside them")
    return listed(found) or "nothing"


def listed(names: list[str], most: int = 8) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


FOLDER = Reader("folder", "a folder of good images", "good images only", claims, read)
