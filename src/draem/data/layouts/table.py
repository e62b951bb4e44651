"""A CSV file of one's own: a line for each image.

    path,split,label,mask,defect,category
    images/001.png,train,good,,,
    images/002.png,test,anomalous,masks/002_a.png;masks/002_b.png,crack,

Only path and label are needed. Paths are relative to the file's folder; several masks are separated by `;`. Without a
split, good images train and anomalous ones test.
"""

from __future__ import annotations

import re
from pathlib import Path

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.records import find_file, head, home, read_table, refuse_twice
from draem.data.layouts.terms import DEFECT, Split, category_of, is_good, make_sample
from draem.data.samples import Sample
from draem.errors import DataError

_COLUMNS = frozenset({"path", "split", "label", "mask", "defect", "category"})
_IMAGES = frozenset({"file", "file_name", "filename", "image", "image_path", "img", "name"})
"""What others call the path: near enough to be asked about."""


def claims(place: Path, listing: Listing) -> bool:
    """Whether a file is called CSV, or a folder has one with such a header."""
    return bool(_sources(place, listing))


def read(place: Path, listing: Listing) -> list[Sample]:
    """The images of all lines."""
    files = _sources(place, listing) or [place]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DataError(f"{place}: several CSV files describe it ({names}): give one of them, such as {files[0]}")
    root, seen, samples = home(place), dict[Path, str](), list[Sample]()
    for where, row in read_table(files[0], ("path", "label")):
        path = find_file(row["path"], [root], where, listing)
        refuse_twice(seen, path, where)
        good = is_good(row["label"], where)
        defect = row.get("defect") or ("good" if good else DEFECT)
        if good != (defect == "good"):
            raise DataError(f"{where}: label {row['label']} and defect {defect:.80} contradict one another")
        masks = [find_file(mask, [root], where, listing) for mask in row.get("mask", "").split(";") if mask.strip()]
        category = row.get("category") or category_of(root)
        samples.append(make_sample(root, path, _split(row.get("split", ""), good, where), category, defect, masks))
    return samples


def _sources(place: Path, listing: Listing) -> list[Path]:
    if not place.is_dir():
        return [place] if place.suffix.lower() == ".csv" else []
    return [place / name for name in listing.files(place) if name.lower().endswith(".csv") and _is_ours(place / name)]


def _is_ours(file: Path) -> bool:
    """`path`, or two other columns: a header that is nearly right is to be mended, not passed over.

    So is one separated by semicolons or tabs, as spreadsheets write them, or one with names of its own for the image.
    """
    header = head(file).partition("\n")[0]
    names = {name.strip(' \r"').lower() for name in re.split("[,;\t]", header)}
    return "path" in names or len(names & _COLUMNS) > 1 or bool(names & {"label", "mask"} and names & _IMAGES)


def _split(word: str, good: bool, where: str) -> Split:
    lower = word.lower()
    if lower in ("train", "training"):
        return "train"
    if lower in ("test", "testing"):
        return "test"
    if lower in ("", "val", "valid", "validation"):
        return "train" if good else "test"
    raise DataError(f"{where}: split {word!r:.80} is not known: use train, test or nothing")


CSV = Reader("csv", "CSV", "a CSV file with path,label", claims, read, of_files=True)
