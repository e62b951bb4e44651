"""A cleaned list of the images: what passed, as a CSV file that is a data set itself."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np

from draem.data.doctor.findings import Report
from draem.data.samples import Dataset, Sample
from draem.data.truth import Truth
from draem.errors import DataError
from draem.files import atomic_write
from draem.images import write_map

COLUMNS = ("path", "split", "label", "mask", "defect", "category")


def refuse_place(path: Path, suffixes: tuple[str, ...]) -> None:
    """Whether a result may be written there: say so before the work, not after it.

    Its suffix keeps it from taking the place of an image, or of what describes a data set.

    Raises:
        DataError: it is a folder, or its suffix is none of `suffixes`.
    """
    if Path(path).is_dir():
        raise DataError(f"{path}: cannot be written: it is a folder")
    if Path(path).suffix.lower() not in suffixes:
        raise DataError(f"{path}: would not be known for what it is: give it a name that ends in {suffixes[0]}")


def refuse_list(path: Path, data: Path, dataset: Dataset) -> None:
    """A list describes images in its own folder and below, by names that a CSV file can hold, and replaces no other.

    Raises:
        DataError: the list would replace or contradict the one that describes `data`; images or masks lie outside
            the list's folder; their names cannot be told in a list.
    """
    refuse_place(path, (".csv",))
    listed = dataset.layout == "csv" and data.is_dir() and os.path.realpath(path.parent) == os.path.realpath(data)
    if listed or os.path.realpath(path) == os.path.realpath(data):
        beside = data.parent / Path(path).name if listed else path.with_stem(f"{path.stem}_passed")
        raise DataError(f"{path}: a list already describes {data}, and stays as it is: write to {beside}")
    for sample in dataset.samples:
        masks = sample.truth.files if sample.truth and _is_plain(sample.truth) else ()
        for file in (sample.path, *masks):
            place = _relative(file, Path(path).parent)
            if place.startswith("../"):
                beside = dataset.root.parent / Path(path).name
                raise DataError(f"{path}: a list must lie above its images: write it to {beside}")
            if not _can_be_told(place) or (file != sample.path and ";" in place):
                raise DataError(f"{place!a}: a list cannot hold this name: rename it, or do without --write-csv")


def write_cleaned(path: Path, dataset: Dataset, report: Report) -> int:
    """Write the samples that the report does not leave out, and return how many they are.

    Paths are relative to the file's folder, with forward slashes; several masks are separated by `;`. Masks that are
    told by shapes or by a colour are drawn into a folder beside the list, `LIST_masks`.

    Raises:
        DraemError: a file cannot be written.
    """
    folder, dropped = Path(path).parent, report.dropped
    kept = [sample for sample in dataset.samples if sample.name not in dropped]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample in kept:
        masks = ";".join(_relative(mask, folder) for mask in _mask_files(sample, Path(path)))
        place = _relative(sample.path, folder)
        writer.writerow([place, sample.split, sample.label, masks, sample.defect, sample.category])
    atomic_write(Path(path), text.getvalue().encode())
    return len(kept)


def _mask_files(sample: Sample, path: Path) -> tuple[Path, ...]:
    """The files of a sample's mask, drawn first where a list could not say how to read them."""
    if sample.truth is None or _is_plain(sample.truth):
        return sample.truth.files if sample.truth else ()
    drawn = path.with_name(f"{path.stem}_masks") / f"{sample.name}.png"
    write_map(drawn, sample.truth.read().astype(np.float32))
    return (drawn,)


def _is_plain(truth: Truth) -> bool:
    """Whether its files say all, read as a list's masks are."""
    return truth == Truth(truth.files)


def _can_be_told(place: str) -> bool:
    """Whether a path comes back from a CSV file: text, without what reading it takes away or changes."""
    try:
        place.encode()
    except UnicodeEncodeError:
        return False
    return place == place.strip() and not set(place) & set("\\\r")


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # Windows: another drive
        return "../" + path.as_posix()
