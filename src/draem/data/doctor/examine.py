"""The examination: facts of every file, all checks, one report. The files are read, never touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from draem.data.doctor.copies import check_exact, check_near
from draem.data.doctor.facts import Facts, Progress, gather
from draem.data.doctor.files import check_extension, check_headers, check_readable, check_uniform
from draem.data.doctor.findings import Finding, Report, in_order
from draem.data.doctor.masks import check_alignment, check_masks, check_missing
from draem.data.doctor.pictures import check_orientation, check_outliers, check_suspects
from draem.data.doctor.splits import check_few, check_shift, check_trivial
from draem.data.samples import Dataset
from draem.images import IMAGE_SUFFIXES
from draem.pixels import ValueRange

_OTHER_SUFFIXES = (".gif", ".jp2", ".heic", ".avif", ".tga", ".pgm", ".ppm", ".pnm", ".exr", ".dng", ".jfif")
"""Formats of images that are not read: their files are passed over in silence elsewhere."""

_BLACK_MASKS = {"kolektor_sdd": "_label", "kolektor_sdd2": "_GT"}
"""Layouts where good images have masks, all black, and what these end in."""


def check_dataset(
    dataset: Dataset,
    progress: Progress | None = None,
    workers: int | None = None,
    unused: bool = True,
    value_range: ValueRange | None = None,
) -> Report:
    """Examine a data set: read and measure every file once, in `workers` threads, then run all checks.

    `value_range` are the raw values that become black and white, as in `data.value_range`.
    `progress` is called with the images measured and their number. Without `unused`, files below the root that are not
    the data set's are not looked for: they may belong to its other categories.
    """
    facts = gather(dataset.samples, progress, workers, value_range)
    findings = [*check_readable(facts), *check_extension(facts), *check_headers(facts), *check_masks(facts)]
    findings += check_exact([one for one in facts if one.look])
    # A list of images may well leave some of the folder out.
    findings += check_unused(dataset) if unused and dataset.layout not in ("csv", "manifest", "coco") else []
    several = len(dataset.categories) > 1
    for category in dataset.categories:
        own = [one for one in facts if one.sample.category == category]
        for finding in _of_category(own):
            told = f"{category}: {finding.message}" if several and len(finding.names) != 1 else finding.message
            findings.append(replace(finding, message=told))
    counts = Counter(f"{sample.split} {sample.label}" for sample in dataset.samples)
    return Report(dataset.name, dataset.layout, dict(counts), in_order(findings))


def check_unused(dataset: Dataset) -> Iterator[Finding]:
    """Image files below the root that are neither a sample's image nor its mask."""
    used = {sample.path for sample in dataset.samples}
    used |= {path for sample in dataset.samples if sample.truth for path in sample.truth.files}
    suffixes = (*IMAGE_SUFFIXES, *_OTHER_SUFFIXES)
    ending, stems = _BLACK_MASKS.get(dataset.layout, ""), {path.with_suffix("") for path in used}
    left: dict[Path, list[str]] = {}
    for path in sorted(dataset.root.rglob("*")):
        name = path.relative_to(dataset.root).as_posix()
        if ending and path.stem.endswith(ending) and path.with_name(path.stem.removesuffix(ending)) in stems:
            continue
        if path.suffix.lower() in suffixes and path not in used and not _hidden(name) and path.is_file():
            left.setdefault(path.parent, []).append(name)
    for names in left.values():
        told = (
            f"{len(names)} image file{'' if len(names) == 1 else 's'} without a place in the data set, or of a format "
        )
        told += "that is not read"
        yield Finding(
            "unused", "note", tuple(names), told, "a mask without its image, or an image in the wrong folder?"
        )


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _of_category(facts: Sequence[Facts]) -> Iterator[Finding]:
    """What is judged against images of the same category."""
    # Blank pictures are told of already, and would look like copies of one another.
    seen = [one for one in facts if one.look and one.look.extent > 2]
    good = [one for one in seen if one.good]
    yield from check_uniform(seen)
    yield from check_missing(facts)
    yield from check_alignment(seen)
    yield from check_near(seen)
    yield from check_few(seen)
    yield from check_shift(good)
    yield from check_trivial(seen)
    outliers = [*check_outliers(good), *check_orientation(good)]
    yield from outliers
    # Out of focus explains no spot: a large spot itself changes how much fine detail there is.
    explained = frozenset(name for finding in outliers if finding.check != "focus" for name in finding.names)
    yield from check_suspects(good, explained)
