"""Checks on copies: the same photograph twice in a split, in train and test, or both good and anomalous."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from draem.data.doctor.facts import Facts
from draem.data.doctor.findings import Finding
from draem.data.doctor.twins import near_twins, same_pixels


def check_exact(images: Sequence[Facts]) -> Iterator[Finding]:
    """Readable images with the very same pixels, in whatever files."""
    for group in same_pixels(images):
        names = tuple(facts.name for facts in group)
        if len({facts.sample.label for facts in group}) > 1:
            told = "the same picture is called good and anomalous"
            yield Finding("label conflict", "error", names, told, "look at it: keep one of them", drop=names)
        elif _splits(group) > 1:
            told = "the same picture to train and to test with"
            advice = "remove it from train: what a model has seen tests nothing"
            kept = next(facts.name for facts in group if facts.sample.split == "test")
            drop = tuple(name for name in names if name != kept)
            yield Finding("exact leak", "error", names, told, advice, drop=drop)
        else:
            told = f"the same picture {len(group)} times"
            yield Finding("exact duplicate", "warning", names, told, "keep one of them", drop=names[1:])


def check_near(images: Sequence[Facts]) -> Iterator[Finding]:
    """Readable images of one category that are one photograph, or one part photographed twice, but not to the pixel."""
    unique: dict[bytes, Facts] = {}
    for facts in images:
        unique.setdefault(facts.pixels, facts)
    for group in near_twins(list(unique.values())):
        names = tuple(facts.name for facts in group)
        mixed = ", good and anomalous" if len({facts.sample.label for facts in group}) > 1 else ""
        if _splits(group) > 1:
            told = f"almost the same picture to train and to test with{mixed}: one photograph, or one part"
            advice = "keep all pictures of one part in one split"
            drop = tuple(facts.name for facts in group if facts.sample.split == "train")
            yield Finding("near leak", "warning", names, told, advice, drop=drop)
        else:
            told = f"{len(group)} pictures almost the same{mixed}: one photograph, or one part"
            advice = "keep one, or know that they count for more than the others"
            yield Finding("near duplicate", "warning", names, told, advice)


def _splits(group: Sequence[Facts]) -> int:
    return len({facts.sample.split for facts in group})
