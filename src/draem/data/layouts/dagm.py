"""DAGM 2007 (M. Wieler, T. Hahn): ten textures with weakly labelled defects.

    Class1/Train/0576.PNG  Class1/Train/Label/0576_label.PNG  Class1/Train/Label/Labels.txt
    Class1/Test/0002.PNG   Class1/Test/Label/0002_label.PNG …

An image is anomalous if it has a label file: an ellipse around the defect. The anomalous images in Train keep that
split and are never trained on.
"""

from __future__ import annotations

from pathlib import Path

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.terms import DEFECT, Split, category_of, make_sample
from draem.data.samples import Sample
from draem.errors import DataError

_SPLITS: tuple[tuple[str, Split], ...] = (("Train", "train"), ("Test", "test"))


def claims(root: Path, listing: Listing) -> bool:
    """Whether Train or Test has a folder Label."""
    return any(listing.has_folder(root / name / "Label") for name, _ in _SPLITS)


def read(root: Path, listing: Listing) -> list[Sample]:
    """One class."""
    category, samples = category_of(root), []
    for name, split in _SPLITS:
        labels = {path.stem: path for path in listing.pictures(root / name / "Label")}
        for path in listing.pictures(root / name):
            mask = labels.pop(f"{path.stem}_label", None)
            samples.append(
                make_sample(root, path, split, category, DEFECT if mask else "good", [mask] if mask else None)
            )
        for left in labels.values():
            raise DataError(f"{left}: there is no image {left.stem.removesuffix('_label')} in {root / name}")
    return samples


DAGM = Reader("dagm", "DAGM", "Train/Label", claims, read)
