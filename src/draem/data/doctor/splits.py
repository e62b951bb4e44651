"""Checks on the sets as wholes: enough images, and good, anomalous, train and test differing in what they should."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from draem.data.doctor.facts import Facts
from draem.data.doctor.findings import Finding
from draem.data.doctor.measures import Look
from draem.data.doctor.tails import is_chance, separation

TRAIN_LEAST, TRAIN_FEW = 5, 20
TEST_FEW = 5
SHIFTED = 0.85
"""AUROC from which two groups of good images differ."""
TRIVIAL = 0.95
"""AUROC from which a single number tells anomalous images."""

_TRAITS: dict[str, tuple[Callable[[Look], float], float]] = {
    "brightness": (lambda look: look.brightness, 3.0),
    "contrast": (lambda look: float(np.log(look.contrast + 1)), 0.05),
    "sharpness": (lambda look: look.sharpness, 0.05),
    "red": (lambda look: look.tint[0] / (look.brightness + 4), 0.01),
    "blue": (lambda look: look.tint[1] / (look.brightness + 4), 0.01),
}
"""What is compared between splits, and the least difference of the medians that matters."""


def check_few(images: Sequence[Facts]) -> Iterator[Finding]:
    """Too few readable images of one category to train on, or to test with."""
    train = sum(facts.good and facts.sample.split == "train" for facts in images)
    test_good = sum(facts.good and facts.sample.split == "test" for facts in images)
    anomalous = sum(not facts.good for facts in images)
    more = "20 are a start; a threshold for 1 % of false rejects needs 990"
    if train < TRAIN_LEAST:
        told = f"{train} readable good image{'' if train == 1 else 's'} to train on"
        if train or not (test_good or anomalous):
            yield Finding("few images", "error", (), told, f"add good images: {more}")
        else:
            yield Finding("few images", "note", (), told, "the set can test a detector, but not train one")
    elif train < TRAIN_FEW:
        yield Finding("few images", "warning", (), f"only {train} good images to train on", f"add good images: {more}")
    for count, kind in ((test_good, "good"), (anomalous, "anomalous")):
        if test_good + anomalous and count < TEST_FEW:
            told = f"only {count} {kind} images to test with"
            yield Finding("few images", "note", (), told, "metrics will be dashes, or mean little: add some")


def check_shift(good: Sequence[Facts]) -> Iterator[Finding]:
    """Readable good images of one category: do those to test with look unlike those to train with?"""
    train, test = (
        [facts.look for facts in good if facts.look and facts.sample.split == split] for split in ("train", "test")
    )
    if len(train) < TEST_FEW or len(test) < TEST_FEW:
        return
    differ = [name for name in _TRAITS if _differ(train, test, name)]
    if not differ:
        return
    medians = (float(np.median([look.brightness for look in looks])) for looks in (train, test))
    if differ == ["brightness"]:
        told = "good images to test with differ from those to train with in brightness alone ({:.0f} and {:.0f})"
        told = told.format(*medians)
        advice = (
            "image AUROC will mislead, since brightness then counts as defect: take all under one light, or split anew"
        )
    else:
        told = f"good images to test with differ from those to train with in {', '.join(differ)}"
        advice = "image AUROC will mislead, since the difference then counts as defect: split anew, by part"
    yield Finding("split shift", "warning", (), told, advice)


def check_trivial(images: Sequence[Facts]) -> Iterator[Finding]:
    """Readable images to test with of one category: does one number tell the anomalous ones?"""
    good, anomalous = (
        [facts.look for facts in images if facts.look and facts.sample.split == "test" and facts.good == is_good]
        for is_good in (True, False)
    )
    if len(good) < TEST_FEW or len(anomalous) < TEST_FEW:
        return
    for name in ("brightness", "contrast"):
        value = _TRAITS[name][0]
        auroc = separation([value(look) for look in good], [value(look) for look in anomalous])
        if abs(auroc - 0.5) > TRIVIAL - 0.5 and not is_chance(auroc, len(good), len(anomalous), 2.5):
            told = f"{name} alone tells anomalous from good images to test with (AUROC {max(auroc, 1 - auroc):.3f})"
            advice = "image AUROC will be near 1 for any detector: look at pixel metrics"
            yield Finding("trivial", "warning", (), told, advice)


def _differ(train: Sequence[Look], test: Sequence[Look], name: str) -> bool:
    value, least = _TRAITS[name]
    first, second = ([value(look) for look in looks] for looks in (train, test))
    auroc = separation(first, second)
    far = abs(float(np.median(first)) - float(np.median(second))) > least
    return far and abs(auroc - 0.5) > SHIFTED - 0.5 and not is_chance(auroc, len(first), len(second))
