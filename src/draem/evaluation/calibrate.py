"""Thresholds for a model, from images that it has not seen: what is promised, or best, and what it will cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from draem.config import AnyLayout
from draem.data.layouts import read_layout
from draem.data.samples import Dataset, Sample, content_sum
from draem.errors import ConfigError, DataError
from draem.evaluation.operating import Costs, Share, by_cost, by_f1, interval, per_thousand, shares
from draem.inspection.calibration import (
    CONFIDENT,
    Assurance,
    anomalous_threshold,
    good_threshold,
    reference_of,
)
from draem.inspection.detector import Detector
from draem.inspection.execution import Execution
from draem.modelfile import Header, Thresholds, Verdict
from draem.modelfile.edits import change_header, with_thresholds
from draem.modelfile.thresholds import MOST_REFERENCE, percent

_UNKNOWN = "which images the model was trained on is not known"
_FEWEST = 2
"""Of good and of anomalous images, to choose a threshold between them."""


@dataclass(frozen=True)
class Rule:
    """How thresholds are chosen: by one or both of two promises, by F1, or by cost.

    Raises:
        ConfigError: nothing is asked for, or what excludes one another.
    """

    false_reject: float | None = None
    """At most this share of good parts is rejected: from good images."""
    review: float | None = None
    """At most this share of good parts goes to review or is rejected: from good images."""
    escape: float | None = None
    """At most this share of anomalous parts is accepted: from labelled ones. With `false_reject`: what lies between the
    two goes to review."""
    f1: bool = False
    """The highest F1 on labelled images."""
    costs: Costs | None = None
    """The least cost on labelled images."""
    assurance: Assurance = CONFIDENT
    """How sure the promises are."""

    def __post_init__(self) -> None:
        promised = self.false_reject is not None or self.escape is not None
        if promised + self.f1 + (self.costs is not None) != 1:
            raise ConfigError("choose thresholds by false rejects and escapes, or by F1, or by cost: by one of these")
        if self.review is not None and (self.false_reject is None or self.escape is not None):
            raise ConfigError("a review rate goes with a false-reject rate alone; with an escape rate, that bounds it")
        for name in ("false_reject", "review", "escape"):
            rate = getattr(self, name)
            if rate is not None and not 0.0 < rate < 1.0:
                raise ConfigError(f"{name.replace('_', '-')} is {rate:g}; give a share between 0 and 1, such as 0.01")
        if self.review is not None and self.false_reject is not None and self.review <= self.false_reject:
            raise ConfigError(
                f"review {self.review:g} must be above false-reject {self.false_reject:g}: rejected parts count in it"
            )

    @property
    def needs_anomalous(self) -> bool:
        """Whether good images do not suffice."""
        return self.escape is not None or self.f1 or self.costs is not None

    def choose(
        self, good: list[float], anomalous: list[float], of: str
    ) -> tuple[Thresholds, tuple[float, float] | None]:
        """Thresholds, and an interval of the one of rejection where it was chosen between labelled images.

        Raises:
            DataError: there are too few images.
        """
        if self.f1 or self.costs is not None:
            return self._best(good, anomalous, of)
        return self._promised(good, anomalous, of), None

    def _promised(self, good: list[float], anomalous: list[float], of: str) -> Thresholds:
        found: dict[str, Any] = {}
        if self.false_reject is not None:
            found["reject"], found["reject_promise"] = good_threshold(good, self.false_reject, self.assurance)
        if self.review is not None:
            found["review"], found["review_promise"] = good_threshold(good, self.review, self.assurance)
        if self.escape is not None:
            name = "reject" if self.false_reject is None else "review"
            found[name], found[f"{name}_promise"] = anomalous_threshold(anomalous, self.escape, self.assurance)
        words = f"{of}; {found['reject_promise'].in_words()}"
        if "review" in found:
            words += f"; review: {found['review_promise'].in_words()}"
        if found.get("review", -1.0) >= found["reject"]:
            # Both promises hold at the threshold of rejection: nothing is left between them.
            del found["review"], found["review_promise"]
        return Thresholds(chosen_on=words, **found)

    def _best(self, good: list[float], anomalous: list[float], of: str) -> tuple[Thresholds, tuple[float, float]]:
        for name, scores in (("good", good), ("anomalous", anomalous)):
            if len(scores) < _FEWEST:
                raise DataError(f"{len(scores)} {name} images: at least {_FEWEST} are needed to choose between them")
        rule = by_f1 if self.costs is None else by_cost(self.costs)
        parts = np.asarray(good, np.float64), np.asarray(anomalous, np.float64)
        reject, review = rule(*parts)
        words = f"{of}; highest F1"
        if self.costs is not None:
            costs = self.costs
            at = "" if costs.review is None else f", a review {costs.review:g}"
            words = (
                f"{of}; least cost where an escape costs {costs.escape:g}, a false reject {costs.false_reject:g}{at}, "
                f"and {percent(costs.defect_rate)} of parts are anomalous"
            )
        words += "; the best for these images, no promise for others"
        return Thresholds(reject=reject, review=review, chosen_on=words), interval(rule, *parts)


@dataclass(frozen=True)
class Calibration:
    """Thresholds, what they were chosen from, and what they would do to these images."""

    thresholds: Thresholds
    good: list[float]
    anomalous: list[float]
    interval: tuple[float, float] | None
    """Of the threshold of rejection, by bootstrap; none where it is a promise."""
    notes: list[str]
    """What was not used, and why; what is not known."""
    defect_rate: float | None
    header: Header
    """As it was written."""

    @property
    def good_shares(self) -> dict[Verdict, Share]:
        """How many of the good images each verdict gets."""
        return shares([self.thresholds.verdict(score) for score in self.good])

    @property
    def anomalous_shares(self) -> dict[Verdict, Share]:
        """How many of the anomalous images each verdict gets; empty without any."""
        return shares([self.thresholds.verdict(score) for score in self.anomalous])

    def per_thousand(self) -> dict[str, float | None] | None:
        """Escapes, false rejects and reviews of a thousand parts on the line; none without a defect rate."""
        if self.defect_rate is None:
            return None
        return per_thousand(self._above("good"), self._above("anomalous"), self.defect_rate)

    def _above(self, label: Literal["good", "anomalous"]) -> tuple[float, float] | None:
        """Expected shares of such parts above the thresholds of review (else of rejection) and of rejection.

        Of the images that a threshold was chosen from as an order statistic, so many lie beyond; of new parts one in
        their number and one more, on average.
        """
        scores = self.good if label == "good" else self.anomalous
        if not scores:
            return None
        limits, found = self.thresholds, []
        for cut, promise in (
            (limits.lowest, limits.reject_promise if limits.review is None else limits.review_promise),
            (limits.reject, limits.reject_promise),
        ):
            above = sum(score > cut for score in scores) / len(scores)
            if promise is not None and promise.of == label:
                beyond = (promise.beyond + 1) / (promise.images + 1)
                above = beyond if label == "good" else 1.0 - beyond
            found.append(above)
        return found[0], min(found)

    def in_words(self) -> list[str]:
        """The thresholds and what they promise, line by line."""
        lines = [f"reject above {self.thresholds.reject:.6g}"]
        if self.thresholds.review is not None:
            lines.append(f"review above {self.thresholds.review:.6g}")
        if self.interval is not None:
            lines.append(
                "other such images would move it between {:.6g} and {:.6g} (95%, bootstrap)".format(*self.interval)
            )
        lines.append(f"chosen on {self.thresholds.chosen_on}")
        expected = self.per_thousand()
        if expected is not None:
            known = [f"{value:.1f} {what.replace('_', ' ')}" for what, value in expected.items() if value is not None]
            lines.append(f"of 1,000 parts, {percent(self.defect_rate or 0.0)} of them anomalous: {', '.join(known)}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "thresholds": self.thresholds.model_dump(mode="json"),
            "interval": None if self.interval is None else list(self.interval),
            "good": {verdict: share.to_dict() for verdict, share in self.good_shares.items()},
            "anomalous": {verdict: share.to_dict() for verdict, share in self.anomalous_shares.items()},
            "per_thousand": self.per_thousand(),
            "notes": self.notes,
        }


def calibrate(
    model: str | Path,
    data: str | Path,
    rule: Rule,
    *,
    profile: str | None = None,
    defect_rate: float | None = None,
    layout: AnyLayout = "auto",
    category: str | None = None,
    execution: Execution | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Choose thresholds on images that the model has not seen, and write them into its header.

    Of a data set with several splits, a rule that needs good images alone takes those to train with, less those that
    the model was trained or selected on; test images stay unused. A rule that needs labels takes the test images too.

    Args:
        model: a model file of any kind; its weights stay byte by byte.
        data: a folder of good images, or a data set whose layout is understood.
        rule: how thresholds are chosen.
        profile: for which camera or product; none: for all that have no profile.
        defect_rate: share of parts on the line that is anomalous, to tell what a thousand parts will get.
        layout: how the data set lies in its folders; found by itself unless told.
        category: which of several categories; `all` for all of them.
        execution: how the model is run.
        batch_size: images in one run of the network.
        progress: called with the images done and their number.

    Raises:
        DataError: there are too few images for what is asked; it says what is possible. The model stays as it was.
        ModelFileError: the file is damaged or not a model.
    """
    model = Path(model)
    if defect_rate is not None and not 0.0 < defect_rate < 1.0:
        raise ConfigError(f"the defect rate is {defect_rate:g}; give a share between 0 and 1, such as 0.01")
    dataset = read_layout(Path(data), layout, category)
    detector = Detector.open(model, execution or Execution())
    samples, notes = unseen(_candidates(dataset, rule), detector.header)
    unsure = []
    if not _knows_its_images(detector.header):
        notes.append(f"{_UNKNOWN}: give it only new ones")
        unsure.append(_UNKNOWN)
    good, anomalous, lost = _scores(detector, list(samples.values()), batch_size, notes, progress)
    if lost:
        unsure.append(f"the part was not found on {lost} of them, which count as they lie")
        notes.append(unsure[-1])
    if 2 * lost > len(samples):
        raise DataError(f"{dataset.root}: {notes[-1]}: give others, or another registration (draem set)")
    counts = f"{len(good)} good" + (f" and {len(anomalous)} anomalous" if rule.needs_anomalous else "")
    try:
        chosen_on = "; ".join([f"{counts} images of {dataset.name}", *unsure])
        thresholds, found = rule.choose(good, anomalous, chosen_on)
    except DataError as error:
        noted = f" ({'; '.join(notes)[:300]})" if notes else ""
        raise DataError(f"{dataset.root}: {error}{noted}") from None
    thresholds = thresholds.model_copy(update={"images": sorted(samples)[:MOST_REFERENCE]})
    _, header = change_header(model, lambda before: with_thresholds(before, thresholds, reference_of(good), profile))
    return Calibration(thresholds, good, anomalous, found, notes, defect_rate, header)


def _candidates(dataset: Dataset, rule: Rule) -> tuple[Sample, ...]:
    if rule.needs_anomalous:
        if not dataset.anomalous:
            raise DataError(f"{dataset.root}: no anomalous images, which this rule needs; or give a false-reject rate")
        return dataset.samples
    return dataset.train_good or tuple(sample for sample in dataset.test if sample.label == "good")


def _knows_its_images(header: Header) -> bool:
    """Whether a model says which images it was trained on: older versions do not; imported weights were not here."""
    return header.origin != "trained" or (header.data is not None and bool(header.data.used))


def unseen(samples: Iterable[Sample], header: Header) -> tuple[dict[str, Sample], list[str]]:
    """The images that the model was neither trained nor selected on, by their sums; and what was left out, in words.

    A copy of an image would count twice in a promise that takes images as independent.
    """
    used = set(header.data.used) if header.data is not None else set()
    kept: dict[str, Sample] = {}
    trained = copies = 0
    for sample in samples:
        content = content_sum(sample.path)
        trained += content in used
        copies += content in kept
        if content not in used:
            kept.setdefault(content, sample)
    said = []
    if trained:
        said.append(f"left out: {trained} images that the model was trained or selected on")
    if copies:
        said.append(f"left out: {copies} copies of other images")
    return kept, said


def _scores(
    detector: Detector,
    samples: list[Sample],
    batch_size: int,
    notes: list[str],
    progress: Callable[[int, int], None],
) -> tuple[list[float], list[float], int]:
    """Of the good and of the anomalous images, and on how many no part was found; what cannot be read is noted."""
    found: dict[str, list[float]] = {"good": [], "anomalous": []}
    by_path = {sample.path: sample for sample in samples}
    stream = detector.stream(
        list(by_path), batch_size, on_unreadable=lambda source, error: notes.append(f"left out: {error}")
    )
    lost = 0
    for done, prediction in enumerate(stream, 1):
        lost += prediction.lost
        found[by_path[prediction.path or Path()].label].append(prediction.score)
        progress(done, len(by_path))
    return found["good"], found["anomalous"], lost
