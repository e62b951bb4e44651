"""VisA (Y. Zou et al., ECCV 2022): twelve parts, described by CSV files.

    split_csv/1cls.csv            object,split,label,image,mask: the split of the field, of all parts
    <category>/image_anno.csv     image,label,mask: the types of defects
    <category>/Data/Images/Normal/0000.JPG  Data/Images/Anomaly/000.JPG  Data/Masks/Anomaly/000.png

The masks number the defects from 1 on, so that all but 0 is anomalous. A category without split_csv gets a split of its
own: a tenth of the good images, by a hash of the name, and all anomalous ones to test, about as in 1cls.csv.
"""

from __future__ import annotations

from pathlib import Path

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.records import find_file, read_table, refuse_twice
from draem.data.layouts.terms import DEFECT, Split, category_of, hold_out, is_good, joined, make_sample
from draem.data.samples import Sample
from draem.data.truth import Truth
from draem.errors import DataError

_SPLIT = "split_csv/1cls.csv"
_TYPES = "image_anno.csv"
_TEST_SHARE = 0.1


def claims(root: Path, listing: Listing) -> bool:
    """Whether one of its CSV files is there."""
    return listing.has(root / _SPLIT) or listing.has(root / _TYPES)


def read(root: Path, listing: Listing) -> list[Sample]:
    """All categories of 1cls.csv, or the one of image_anno.csv."""
    return _by_split(root, listing) if listing.has(root / _SPLIT) else _one_category(root, listing)


def _by_split(root: Path, listing: Listing) -> list[Sample]:
    samples, seen = [], dict[Path, str]()
    types: dict[str, dict[str, str]] = {}
    for where, row in read_table(root / _SPLIT, ("object", "split", "label", "image", "mask")):
        category = row["object"]
        if category not in types:
            types[category] = _types(root / category / _TYPES, listing)
        path = find_file(row["image"], [root], where, listing)
        refuse_twice(seen, path, where)
        if row["split"] not in ("train", "test"):
            raise DataError(f"{where}: split {row['split']!r:.80} is not known: use train or test")
        split: Split = "train" if row["split"] == "train" else "test"
        defect = "good" if is_good(row["label"], where) else types[category].get(row["image"], DEFECT)
        samples.append(make_sample(root, path, split, category, defect, _truth(row["mask"], [root], where, listing)))
    return samples


def _one_category(root: Path, listing: Listing) -> list[Sample]:
    rows, seen = [], dict[Path, str]()
    bases = [root.parent, root]  # the paths begin with the category's name
    for where, row in read_table(root / _TYPES, ("image", "label", "mask")):
        path = find_file(row["image"], bases, where, listing)
        if not path.is_relative_to(root):
            raise DataError(f"{where}: {row['image']!r:.200} is not below {root}")
        refuse_twice(seen, path, where)
        rows.append((path, _type(row["label"]), _truth(row["mask"], bases, where, listing)))
    held = hold_out((path.name for path, defect, _ in rows if defect == "good"), _TEST_SHARE)
    category = category_of(root)
    return [
        make_sample(root, path, "test" if defect != "good" or path.name in held else "train", category, defect, truth)
        for path, defect, truth in rows
    ]


def _types(path: Path, listing: Listing) -> dict[str, str]:
    """Type of defect by image; none where a category comes without its CSV file."""
    if not listing.has(path):
        return {}
    return {row["image"]: _type(row["label"]) for _, row in read_table(path, ("image", "label"))}


def _type(label: str) -> str:
    """`bent,melt` is an image with two."""
    types = [part.strip() for part in label.split(",") if part.strip()] or [DEFECT]
    return "good" if types == ["normal"] else joined(types)


def _truth(mask: str, bases: list[Path], where: str, listing: Listing) -> Truth | None:
    return Truth((find_file(mask, bases, where, listing),), "nonzero") if mask else None


VISA = Reader("visa", "VisA", "split_csv/1cls.csv or image_anno.csv", claims, read)
