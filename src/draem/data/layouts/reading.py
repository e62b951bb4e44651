"""From a folder or a file to a data set: which layout it has, which of its categories are wanted, and its samples."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from draem.config import AnyLayout, Layout
from draem.data.layouts.coco import COCO
from draem.data.layouts.dagm import DAGM
from draem.data.layouts.files import Listing
from draem.data.layouts.folder import FOLDER, against, contents, listed
from draem.data.layouts.kolektor import KOLEKTOR_SDD, KOLEKTOR_SDD2
from draem.data.layouts.magnetic_tile import MAGNETIC_TILE
from draem.data.layouts.manifest import MANIFEST
from draem.data.layouts.mvtec import BTAD, MPDD, MVTEC, MVTEC_LOCO
from draem.data.layouts.reader import Reader
from draem.data.layouts.real_iad import REAL_IAD
from draem.data.layouts.records import home
from draem.data.layouts.table import CSV
from draem.data.layouts.visa import VISA
from draem.data.samples import Dataset, Sample
from draem.errors import DataError

_log = logging.getLogger(__name__)

ALL = "all"
"""The category that stands for all of them."""


READERS = (
    # Those that describe their images themselves come first, then those with the more telling trees.
    *(VISA, CSV, MANIFEST, REAL_IAD, COCO),
    *(KOLEKTOR_SDD, KOLEKTOR_SDD2, MAGNETIC_TILE, DAGM, BTAD, MVTEC_LOCO, MPDD, MVTEC),
)


def read_layout(root: Path, layout: AnyLayout = "auto", category: str | None = None) -> Dataset:
    """Find the samples of a data set; `auto` finds the layout by itself.

    Hidden files and folders and files that are no images (by their suffix) are passed over; links are followed.

    Args:
        root: a folder, or a CSV, JSON or manifest file that describes images.
        layout: how the data set lies in its folders.
        category: which of several categories, `all` for all of them; not needed where there is one.

    Raises:
        DataError: nothing there, several categories and none named, or what is there fits no layout.
    """
    root, listing = Path(root), Listing()
    if not root.exists():
        raise DataError(f"{root}: no such folder or file")
    if root.is_file() and root.parent.name in ("", ".."):
        root = root.parent.resolve() / root.name  # the data set may lie above the folder that one is in
    reader, folders = _found(root, listing) if layout == "auto" else _told(root, layout, listing)
    if not folders:
        samples = reader.read(root, listing)
        names = sorted({sample.category for sample in samples}) or [root.resolve().name]
        chosen = set(_chosen(root, reader, names, category, several=len(names) > 1))
        base, samples = home(root), [sample for sample in samples if sample.category in chosen]
    else:
        below = _chosen(root, reader, folders, category, several=True)
        if category == ALL:
            _name_left_out(root, reader, folders, listing)
        base = root if category == ALL else root / below[0]
        samples = [sample for name in below for sample in _read_below(reader, root / name, base, listing)]
    if not samples:
        raise DataError(f"{root}: describes no images ({reader.title})")
    if odd := {s.category for s in samples if not re.fullmatch(r"(?!\.\.?$)[^/\\\0]{1,255}", s.category)}:
        # Runs and results get folders of that name.
        raise DataError(f"{root}: category {min(odd)!r:.120} cannot be the name of a folder")
    return Dataset(base, reader.layout, tuple(sorted(samples, key=lambda sample: sample.name)))


def _read_below(reader: Reader, place: Path, base: Path, listing: Listing) -> list[Sample]:
    """The samples of one category's folder, named after it and from the base on."""
    prefix = "" if place == base else f"{place.name}/"
    return [replace(s, name=f"{prefix}{s.name}", category=place.name) for s in reader.read(place, listing)]


def _name_left_out(root: Path, reader: Reader, folders: Sequence[str], listing: Listing) -> None:
    """Say which folders beside the categories have images, such as one that was unpacked a level too deep."""
    for name in listing.folders(root):
        if name not in folders and listing.has_images(root / name):
            _log.info("left out: %s: has images, but is no %s category", root / name, reader.title)


def _chosen(root: Path, reader: Reader, names: Sequence[str], category: str | None, *, several: bool) -> Sequence[str]:
    if category == ALL or (category is None and not several):
        return names
    there = f"{len(names)} {reader.title} categor{'y' if len(names) == 1 else 'ies'} ({listed(list(names))})"
    if category is None:
        raise DataError(f"{root}: holds {there}: add --category NAME, such as --category {names[0]}, or --category all")
    if category not in names:
        raise DataError(f"{root}: no category {category!r:.80}: holds {there}")
    return [category]


# ----------------------------------------------------------------------------------------------------------- detection


def _found(root: Path, listing: Listing) -> tuple[Reader, list[str]]:
    """The layout of a folder or file, and the sub-folders with its categories if it is one above them."""
    for reader in READERS:
        if (reader.of_files or root.is_dir()) and reader.claims(root, listing):
            return reader, []
    if not root.is_dir():
        _not_a_folder(root)
    if below := _categories(root, listing, READERS):
        # What all of them have: a folder with MPDD's and MVTec AD's parts has MVTec AD's layout.
        for reader in READERS:
            if all(reader.claims(root / name, listing) for name in below):
                return reader, list(below)
        found = listed([f"{name}/ ({reader.title})" for name, reader in below.items()])
        raise DataError(
            f"{root}: holds several data sets: {found}: give one of them, such as {root / next(iter(below))}"
        )
    if not FOLDER.claims(root, listing):
        _unclear(root, listing)
    return FOLDER, []


def _told(root: Path, layout: Layout, listing: Listing) -> tuple[Reader, list[str]]:
    """The layout that was asked for, if it can be that."""
    reader = next((reader for reader in READERS if reader.layout == layout), FOLDER)
    if not root.is_dir():
        if not reader.of_files:
            _not_a_folder(root)
        return reader, []
    if reader is FOLDER:
        # All images below several categories, defects and masks too, would pass as good ones.
        if below := _categories(root, listing, READERS):
            _chosen(root, next(iter(below.values())), list(below), None, several=True)
        return reader, []
    if reader.claims(root, listing):
        return reader, []
    below = _categories(root, listing, [reader])
    if not below:
        raise DataError(
            f"{root}: is not {reader.title} ({reader.tree}): found {contents(root, listing)}; leave the layout away "
            "to have it found"
        )
    return reader, list(below)


def _categories(root: Path, listing: Listing, readers: Iterable[Reader]) -> dict[str, Reader]:
    """The sub-folders that have a layout of their own."""
    found = {}
    for name in listing.folders(root):
        if reader := next((reader for reader in readers if reader.claims(root / name, listing)), None):
            found[name] = reader
    return found


# -------------------------------------------------------------------------------------------------------------- errors


def _not_a_folder(root: Path) -> NoReturn:
    raise DataError(
        f"{root}: is a file: give the folder of images, or a .csv, .json, .jsonl or .manifest file that describes them"
    )


def _unclear(root: Path, listing: Listing) -> NoReturn:
    """Say what was found, what is understood and what to do, in one line."""
    others = ", ".join(reader.title for reader in READERS[:-1])
    place = against(root, listing) or ""
    deep = f"; {place}/ is below" if "/" in place else ""
    raise DataError(
        f"{root}: unclear which images are good: found {contents(root, listing)}{deep}. Give the folder that holds "
        "good images only, or take every image as good (train: --set data.layout=folder, evaluate: --layout folder). "
        f"Understood are a folder of good images, {MVTEC.title} ({MVTEC.tree}), {others}: see docs/layouts.md"
    )
