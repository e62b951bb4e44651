"""Manifests of Amazon Lookout for Vision and SageMaker Ground Truth: JSON lines, one for each image.

    {"source-ref": "s3://bucket/prefix/train/001.png",
     "anomaly-label": 1,
     "anomaly-label-metadata": {"class-name": "anomaly", "type": "groundtruth/image-classification"},
     "anomaly-mask-ref": "s3://bucket/prefix/masks/001.png",
     "anomaly-mask-ref-metadata": {"internal-color-map":
         {"0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"}, "1": {"class-name": "scratch", …}}}}

A reference into S3 is the file with the longest tail of its key below the manifest's folder. A pixel of a mask is
anomalous if it has not the colour of the background. Names with train or test in them, the manifest's first, give the
split; without any, good images train and anomalous ones test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.records import head, home, inner_path, parse_json, read_text, refuse_twice
from draem.data.layouts.terms import DEFECT, category_of, is_good, joined, make_sample, split_named
from draem.data.samples import Sample
from draem.data.truth import Colour, Truth
from draem.errors import DataError

SUFFIXES = (".manifest", ".jsonl")
_WHITE: Colour = (255, 255, 255)


def claims(place: Path, listing: Listing) -> bool:
    """Whether a file is called a manifest, or a folder has manifests."""
    return bool(_sources(place, listing))


def read(place: Path, listing: Listing) -> list[Sample]:
    """The images of all manifests of a folder, or of one."""
    root, seen = home(place), dict[Path, str]()
    files = _sources(place, listing) or [place]
    return [sample for file in files for sample in _read_file(file, root, listing, seen)]


def _sources(place: Path, listing: Listing) -> list[Path]:
    if not place.is_dir():
        return [place] if place.suffix.lower() in SUFFIXES else []
    files = [place / name for name in listing.files(place) if name.lower().endswith(SUFFIXES)]
    return [file for file in files if '"source-ref"' in head(file)]


def _read_file(file: Path, root: Path, listing: Listing, seen: dict[Path, str]) -> Iterator[Sample]:
    category = category_of(root)
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        where = f"{file}:{number}"
        if not line.strip():
            continue
        entry = parse_json(line, where)
        path = _resolve(entry.get("source-ref"), root, where, listing)
        refuse_twice(seen, path, where)
        good = is_good(_class_name(entry, where), where)
        truth, types = _truth(entry, root, where, listing)
        split = split_named(good, file.stem, path.relative_to(root).as_posix(), str(entry["source-ref"]))
        yield make_sample(root, path, split, category, "good" if good else joined(types or [DEFECT]), truth)


def _resolve(reference: Any, root: Path, where: str, listing: Listing) -> Path:
    """The file that a reference into S3 means."""
    key = re.sub(r"^s3://[^/]*/", "", reference) if isinstance(reference, str) else reference
    parts = inner_path(key, where).split("/")
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        if listing.has(path):
            return path
    raise DataError(f"{where}: no such file: {reference!r:.200} (looked for the ends of its key below {root})")


def _class_name(entry: dict[str, Any], where: str) -> str:
    """That of the attribute which classifies the image."""
    for key, value in entry.items():
        if key.endswith("-metadata") and isinstance(value, dict):
            kind, name = value.get("type"), value.get("class-name")
            if isinstance(name, str) and str(kind).endswith("/image-classification"):
                return name
    raise DataError(f"{where}: no label: an attribute whose -metadata has class-name, of type image-classification")


def _truth(entry: dict[str, Any], root: Path, where: str, listing: Listing) -> tuple[Truth | None, list[str]]:
    """Where the anomaly is, and its types, if the line says so."""
    if "anomaly-mask-ref" not in entry:
        return None, []
    background, types = _WHITE, []
    metadata = entry.get("anomaly-mask-ref-metadata")
    colours = metadata.get("internal-color-map") if isinstance(metadata, dict) else None
    for colour in (colours or {}).values() if isinstance(colours, dict | None) else [colours]:
        if not isinstance(colour, dict) or not isinstance(colour.get("class-name"), str):
            raise DataError(f"{where}: internal-color-map: class-name and hex-color are needed for each colour")
        if colour["class-name"].upper() == "BACKGROUND":
            background = _rgb(colour.get("hex-color"), where)
        else:
            types.append(colour["class-name"])
    mask = _resolve(entry["anomaly-mask-ref"], root, where, listing)
    return Truth((mask,), background=background), types


def _rgb(text: Any, where: str) -> Colour:
    if not isinstance(text, str) or not re.fullmatch("#[0-9a-fA-F]{6}", text):
        raise DataError(f"{where}: hex-color {text!r:.80}: write it as #ffffff")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


MANIFEST = Reader("manifest", "Lookout manifest", "JSON lines with source-ref", claims, read, of_files=True)
