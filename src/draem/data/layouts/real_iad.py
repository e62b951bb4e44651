"""Real-IAD (C. Wang et al., CVPR 2024): thirty parts from five sides, a JSON file for each.

realiad_jsons/audiojack.json            or realiad_jsons/realiad_jsons/…, or the files beside the categories' folders
realiad_1024/audiojack/OK/S0001/….jpg   or realiad_256, realiad_512, …: the first by name that has the images

{"meta": {"prefix": "audiojack/", "normal_class": "OK"},
 "train": [{"category", "anomaly_class", "image_path", "mask_path"}, …], "test": […]}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.records import find_file, head, home, inner_path, parse_json, read_text, refuse_twice
from draem.data.layouts.terms import Split, make_sample
from draem.data.samples import Sample
from draem.errors import DataError

_FOLDERS = ("realiad_jsons", "realiad_jsons/realiad_jsons", "realiad_jsons/jsons", ".")
_SPLITS: tuple[Split, ...] = ("train", "test")


def claims(place: Path, listing: Listing) -> bool:
    """Whether a JSON file is Real-IAD's, or a folder has such files."""
    return bool(_sources(place, listing))


def read(place: Path, listing: Listing) -> list[Sample]:
    """All categories that the files describe."""
    root, seen = home(place), dict[Path, str]()
    return [sample for file in _sources(place, listing) or [place] for sample in _read_file(file, root, listing, seen)]


def _sources(place: Path, listing: Listing) -> list[Path]:
    if not place.is_dir():
        return [place] if place.suffix.lower() == ".json" and _is_ours(place) else []
    for name in _FOLDERS:
        files = [place / name / file for file in listing.files(place / name) if file.lower().endswith(".json")]
        if files and _is_ours(files[0]):
            return [file for file in files if _is_ours(file)]
    return []


def _is_ours(file: Path) -> bool:
    """`meta` comes first in these files."""
    return re.search(r'^\s*\{\s*"meta"\s*:\s*\{[^}]*"(normal_class|prefix)"', head(file)) is not None


def _read_file(file: Path, root: Path, listing: Listing, seen: dict[Path, str]) -> Iterator[Sample]:
    content = parse_json(read_text(file), str(file))
    meta = content.get("meta")
    if not isinstance(meta, dict) or not isinstance(meta.get("normal_class"), str):
        raise DataError(f"{file}: no meta.normal_class: this is no file of Real-IAD")
    prefix = inner_path(meta["prefix"], f"{file}: meta.prefix") if meta.get("prefix") else "."
    bases = [base / prefix for base in (root, *(root / name for name in listing.folders(root)))]
    for split in _SPLITS:
        entries = content.get(split, [])
        if not isinstance(entries, list):
            raise DataError(f"{file}: {split} is no list")
        for index, entry in enumerate(entries):
            where = f"{file}: {split}[{index}]"
            if not isinstance(entry, dict):
                raise DataError(f"{where}: an object is needed")
            path = find_file(entry.get("image_path"), bases, where, listing)
            # All images of a file are of one resolution.
            bases = [base for base in bases if path.is_relative_to(base)][:1]
            refuse_twice(seen, path, where)
            masks = [find_file(entry["mask_path"], bases, where, listing)] if entry.get("mask_path") else None
            defect = _text(entry, "anomaly_class", where)
            defect = "good" if defect == meta["normal_class"] else defect
            yield make_sample(root, path, split, str(entry.get("category") or file.stem), defect, masks)


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key} is missing")
    return value


REAL_IAD = Reader("real_iad", "Real-IAD", "realiad_jsons/<category>.json", claims, read, of_files=True)
