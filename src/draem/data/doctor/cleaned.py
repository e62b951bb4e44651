"""A cleaned list of the images: what passed, as a CSV file that is a data set itself."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from draem.data.doctor.findings import Report
from draem.data.samples import Dataset
from draem.errors import DataError
from draem.files import atomic_write

COLUMNS = ("path", "split", "label", "mask", "defect", "category")


def refuse_outside(path: Path, dataset: Dataset) -> None:
    """A list describes images in its own folder and below: say so before the work, not after it.

    Raises:
        DataError: images or masks lie outside the list's folder.
    """
    for sample in dataset.samples:
        for file in (sample.path, *(sample.truth.files if sample.truth else ())):
            if _relative(file, Path(path).parent).startswith("../"):
                beside = dataset.root.parent / Path(path).name
                raise DataError(f"{path}: a list must lie above its images: write it to {beside}")


def write_cleaned(path: Path, dataset: Dataset, report: Report) -> int:
    """Write the samples that the report does not leave out, and return how many they are.

    Paths are relative to the file's folder, with forward slashes; several masks are separated by `;`.

    Raises:
        DataError: images or masks lie outside the file's folder.
        DraemError: the file cannot be written.
    """
    refuse_outside(path, dataset)
    folder, dropped = Path(path).parent, report.dropped
    kept = [sample for sample in dataset.samples if sample.name not in dropped]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for sample in kept:
        masks = ";".join(_relative(mask, folder) for mask in sample.truth.files) if sample.truth else ""
        place = _relative(sample.path, folder)
        writer.writerow([place, sample.split, sample.label, masks, sample.defect, sample.category])
    atomic_write(Path(path), text.getvalue().encode("utf-8", "surrogateescape"))
    return len(kept)


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # Windows: another drive
        return "../" + path.as_posix()
