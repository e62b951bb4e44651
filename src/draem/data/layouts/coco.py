"""COCO's instances (T.-Y. Lin et al., ECCV 2014), as labelling tools export them: JSON with images and their defects.

    annotations/instances_train.json …  or one JSON file at the top     images at its side, in images/, in train/ …
    train/_annotations.coco.json  valid/…  test/…                       Roboflow's

An image without annotations is good, and so is one with categories good, ok or normal only. Outlines are polygons or
runs; boxes count only where there are none. A name with train or test in it, the file's first, gives the split; without
any, and for validation, good images train and anomalous ones test.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.records import find_file, head, home, parse_json, read_text, refuse_twice
from draem.data.layouts.terms import GOOD, category_of, joined, make_sample, split_named
from draem.data.samples import Sample
from draem.data.shapes import LARGEST, Polygon, Run, Shapes
from draem.data.truth import Truth
from draem.errors import DataError
from draem.images import IMAGE_SUFFIXES

_ROBOFLOW = "_annotations.coco.json"


def claims(place: Path, listing: Listing) -> bool:
    """Whether a file is JSON, or a folder has such files."""
    return bool(_sources(place, listing))


def read(place: Path, listing: Listing) -> list[Sample]:
    """The images of all files of a folder, or of one."""
    root, seen = home(place), dict[Path, str]()
    files = _sources(place, listing) or [place]
    return [sample for file in files for sample in _read_file(file, root, listing, seen)]


def _sources(place: Path, listing: Listing) -> list[Path]:
    if not place.is_dir():
        return [place] if place.suffix.lower() == ".json" else []
    exported = [place / name / _ROBOFLOW for name in listing.folders(place) if listing.has(place / name / _ROBOFLOW)]
    files = [
        folder / name
        for folder in (place, place / "annotations")
        for name in listing.files(folder)
        if name.lower().endswith(".json") and not _is_sidecar(folder, name, listing) and _is_ours(folder / name)
    ]
    # COCO's own folder has captions and keypoints of the same images too.
    instances = [file for file in files if file.name.startswith("instances_")]
    return exported + (instances or files)


def _is_sidecar(folder: Path, name: str, listing: Listing) -> bool:
    """A file of each image's own, as some labelling tools write them."""
    return any(listing.has(folder / f"{name[:-5]}{suffix}") for suffix in IMAGE_SUFFIXES)


def _is_ours(file: Path) -> bool:
    return re.search(r'"(images|annotations|categories)"\s*:\s*\[\s*[{\]]', head(file)) is not None


def _read_file(file: Path, root: Path, listing: Listing, seen: dict[Path, str]) -> Iterator[Sample]:
    content = parse_json(read_text(file), str(file))
    images, annotations, categories = (_objects(content, key, file) for key in ("images", "annotations", "categories"))
    names = {_key(entry, "id", where): str(_key(entry, "name", where)) for where, entry in categories}
    marks: dict[Any, list[tuple[str, str, dict[str, Any]]]] = defaultdict(list)
    for where, entry in annotations:
        name = names.get(_key(entry, "category_id", where))
        if name is None:
            raise DataError(f"{where}: category_id {entry['category_id']!r:.80} is none of its categories")
        marks[_key(entry, "image_id", where)].append((where, name, entry))
    inside = file.relative_to(root).with_suffix("").as_posix()
    bases = _bases(file, root)
    for where, entry in images:
        path = find_file(entry.get("file_name"), bases, where, listing)
        refuse_twice(seen, path, where)
        found = [mark for mark in marks.pop(_key(entry, "id", where), []) if mark[1].strip().lower() not in GOOD]
        split = split_named(not found, inside, path.relative_to(root).as_posix())
        truth = Truth(shapes=_shapes(found, entry, where)) if found else None
        defect = joined(name for _, name, _ in found) if found else "good"
        yield make_sample(root, path, split, category_of(root), defect, truth)
    for left in marks.values():
        raise DataError(f"{left[0][0]}: image_id {left[0][2]['image_id']!r:.80} is none of its images")


def _bases(file: Path, root: Path) -> list[Path]:
    """Where the images of a file may lie: instances_train2017.json speaks of those in train2017 or images/train2017."""
    part = file.stem.rpartition("_")[2]
    beside = [file.parent, file.parent / "images"]
    return [*beside, root, root / "images", root / part, root / "images" / part]


def _objects(content: dict[str, Any], key: str, file: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a list, each with where it is."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{file}: no list {key!r}: COCO's files have images, annotations and categories")
    found = [(f"{file}: {key}[{index}]", entry) for index, entry in enumerate(entries)]
    for where, entry in found:
        if not isinstance(entry, dict):
            raise DataError(f"{where}: an object is needed")
    return found


def _key(entry: dict[str, Any], key: str, where: str) -> int | str:
    value = entry.get(key)
    if not isinstance(value, int | str):
        raise DataError(f"{where}: {key} is missing")
    return value


def _shapes(marks: list[tuple[str, str, dict[str, Any]]], image: dict[str, Any], where: str) -> Shapes:
    """The outlines of an image's defects."""
    height, width = image.get("height"), image.get("width")
    if not (
        isinstance(height, int) and isinstance(width, int) and 0 < height <= LARGEST and 0 < width * height <= LARGEST
    ):
        raise DataError(f"{where}: height and width are needed, in pixels, not {height!r:.40} and {width!r:.40}")
    polygons: list[Polygon] = []
    runs: list[Run] = []
    for place, _, entry in marks:
        outline = entry.get("segmentation")
        if isinstance(outline, dict):
            runs.append(_run(outline, (height, width), place))
        elif outline:
            polygons += [_polygon(part, place) for part in (outline if isinstance(outline, list) else [outline])]
        else:
            polygons.append(_box(entry.get("bbox"), place))
    return Shapes(where, (height, width), tuple(polygons), tuple(runs))


def _polygon(part: Any, where: str) -> Polygon:
    if not _numbers(part) or len(part) < 6 or len(part) % 2:
        raise DataError(f"{where}: a polygon is a list of x1, y1, x2, y2, x3, y3 …")
    return tuple(map(float, part))


def _box(box: Any, where: str) -> Polygon:
    if not _numbers(box) or len(box) != 4 or min(box[2:]) <= 0:
        raise DataError(f"{where}: no segmentation, and no bbox of left, top, width and height")
    left, top, right, bottom = box[0], box[1], box[0] + box[2], box[1] + box[3]
    return tuple(map(float, (left, top, right, top, right, bottom, left, bottom)))


def _run(outline: dict[str, Any], size: tuple[int, int], where: str) -> Run:
    counts = outline.get("counts")
    if outline.get("size") != list(size):
        told = f"{outline.get('size')!r:.40}"
        raise DataError(f"{where}: runs of size {told} in an image of {size[0]}×{size[1]} (height×width)")
    if isinstance(counts, str):
        return counts
    if not isinstance(counts, list) or not all(isinstance(count, int) and 0 <= count <= LARGEST for count in counts):
        raise DataError(f"{where}: counts are whole numbers of pixels, or their text")
    return tuple(counts)


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, int | float) and abs(v) <= LARGEST for v in values)


COCO = Reader("coco", "COCO", "annotations/*.json or _annotations.coco.json", claims, read, of_files=True)
