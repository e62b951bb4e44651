"""CSV and JSON files that describe a data set: read with care, since people write them by hand."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from draem.data.layouts.files import Listing
from draem.errors import DataError

_LARGEST = 256 * 2**20
_HEAD = 2**16


def home(place: Path) -> Path:
    """The folder below which a data set lies, given the folder itself or the file that describes it."""
    if place.is_dir():
        return place
    folder = place.parent
    # A CSV file or manifest speaks of what is beside it.
    while place.suffix.lower() == ".json" and (folder.name == "annotations" or folder.name.startswith("realiad_json")):
        folder = folder.parent
    return folder


def head(path: Path) -> str:
    """The beginning of a text file, to see what it is; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(_HEAD)
    except OSError:
        return ""
    # Spreadsheets write UTF-16 too: it is recognised here, and refused where it is read.
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return start.decode("utf-16" if wide else "utf-8-sig", "replace")


def read_text(path: Path) -> str:
    """A text file in UTF-8.

    Raises:
        DataError: it cannot be read, is not UTF-8, or is larger than any description of a data set.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise DataError(f"{path}: {size >> 20} MB; files that describe a data set are read up to 256 MB: split it")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def parse_json(text: str, where: str) -> dict[str, Any]:
    """The JSON object in a text.

    Raises:
        DataError: it is cut short, no JSON, or no object.
    """
    try:
        found = json.loads(text)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(found, ensure_ascii=False).encode()  # half a character could not be shown, nor name a file
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{where}: damaged or cut short: no JSON at {at}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets thousands deep
        raise DataError(f"{where}: cannot be read as JSON: {' '.join(str(error).split())[:80]}") from None
    if not isinstance(found, dict):
        raise DataError(f"{where}: a JSON object is needed, not a {type(found).__name__}")
    return found


def read_table(path: Path, required: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file with a header: where each is, and its cells by column in lower case; empty rows are none.

    Raises:
        DataError: it cannot be read, a column is missing, or a row has more or fewer cells than the header.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        missing = [name for name in required if name not in columns]
        if missing:
            found = ",".join(columns)[:120]
            raise DataError(f"{path}: no column {missing[0]}: its header is {found!r}, needed are {','.join(required)}")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(columns):
                raise DataError(f"{where}: {len(row)} cells, the header has {len(columns)}")
            yield where, {name: cell.strip() for name, cell in zip(columns, row, strict=True)}
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def find_file(text: Any, bases: Sequence[Path], where: str, listing: Listing) -> Path:
    """The file that a description names, below the first of the bases that has it.

    Raises:
        DataError: it is no path, leads out of the data set, or there is no such file.
    """
    inside = inner_path(text, where)
    for base in bases:
        if listing.has(base / inside):
            return base / inside
    raise DataError(f"{where}: no such file: {text!r:.200} (looked below {bases[0]!s:.200})")


def inner_path(text: Any, where: str) -> str:
    """A path as a description gives it, with forward slashes.

    Raises:
        DataError: it is no path, or leads out of the data set.
    """
    clean = text.strip().replace("\\", "/") if isinstance(text, str) else ""
    parts = PurePosixPath(clean).parts
    if not parts:
        raise DataError(f"{where}: a path is needed, not {text!r:.80}")
    if clean.startswith("/") or ".." in parts or re.match("[A-Za-z]:", clean):
        raise DataError(f"{where}: {text!r:.200} leads out of the data set: give paths relative to it")
    return "/".join(parts)


def refuse_twice(seen: dict[Path, str], path: Path, where: str) -> None:
    """Note that an image is described; raises DataError where it was before."""
    if path in seen:
        raise DataError(f"{where}: {path.name} is described before, at {seen[path]}: leave one of them")
    seen[path] = where
