"""The parity certificate: real images through the network in torch and through its export, and how far these differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from draem.config import Config
from draem.data.samples import Dataset, Sample, split_good, stratified
from draem.errors import ConfigError, DataError, ImageError, ModelFileError, ParityError
from draem.evaluation.evaluate import count_prediction, mask_of
from draem.evaluation.metrics import MetricsAccumulator
from draem.images import read_pixels
from draem.inspection.detector import Detector, Source
from draem.inspection.execution import Precision
from draem.inspection.prediction import Prediction
from draem.inspection.scoring import verdict
from draem.modelfile import Certificate, ImageParity, Thresholds, WeightPrecision
from draem.pixels import PixelFormat

BATCH = 8
"""Images in one run, where the export takes any number."""

_TOLERANCES: dict[str, dict[str, float]] = {
    "fp32": {"map_max": 1e-3, "score": 1e-3, "flips": 0},
    "half": {"map_max": 2e-2, "score": 1e-2, "flips": 0},
    "int8": {"map_mean": 1e-2, "score": 2e-2, "flips": 0},
}
_NAMES = {
    "map_max": "largest map difference",
    "map_mean": "mean map difference",
    "score": "score difference",
    "flips": "decisions that differ",
}
_NAMED = 3
"""Images that a refusal names."""


@dataclass(frozen=True)
class Chosen:
    """The images to compare on, and in words which these are."""

    samples: tuple[Sample, ...]
    in_words: str


def tolerances(weights: WeightPrecision, execution: Precision, changed: Mapping[str, float]) -> dict[str, float]:
    """The largest difference allowed by key: by the weights' precision and the arithmetic's, and what was changed.

    Raises:
        ConfigError: a key is unknown, or a value is no number from 0 on.
    """
    for key, value in changed.items():
        if key not in _NAMES:
            raise ConfigError(f"tolerance {key}: unknown; use {', '.join(_NAMES)}")
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"tolerance {key}={value:g}: a number from 0 on is needed")
    half = weights == "fp16" or execution != "fp32"
    return _TOLERANCES["int8" if weights == "int8" else "half" if half else "fp32"] | dict(changed)


def choose_images(dataset: Dataset, most: int, config: Config) -> Chosen:
    """At most so many images to compare on: the test images, or good ones where there are none.

    Of the good ones those that the threshold was chosen on are left out: the score of one is the threshold, and any
    rounding would change its verdict.

    Of many, those that `draem.data.samples.stratified` takes.

    Raises:
        DataError: there are no images, or none of them can be read as the model's kind of pixels.
    """
    pool, kind = (dataset.test, "test images") if dataset.test else (_uncalibrated(dataset, config), "good images")
    if not pool:
        raise DataError(f"{dataset.root}: {dataset.name} has no images to compare on")
    chosen = stratified(pool, most)
    _refuse_unreadable(chosen, config.data.pixel_format)
    counts = Counter(sample.defect for sample in chosen)
    parts = ", ".join(f"{number} {defect}" for defect, number in sorted(counts.items()))
    return Chosen(chosen, f"{len(chosen)} of the {len(pool)} {kind} of {dataset.name}: {parts}")


def compare(
    before: Detector,
    after: Detector,
    chosen: Chosen,
    tolerance: Mapping[str, float],
    batch: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Certificate:
    """The certificate of a model (`before`) and its export (`after`), from one pass over images.

    Maps are those that are scored, at the network's input size. Memory does not grow with the number of images, but
    for a row each.

    Raises:
        DataError: none of the images can be read.
        ParityError: the export's anomaly map holds values that are not numbers.
    """
    by_path = {sample.path: sample for sample in chosen.samples}
    left_out: dict[Source, ImageError] = {}
    rows: list[ImageParity] = []
    metrics = MetricsAccumulator(), MetricsAccumulator()
    pairs = zip(*_answers(before, after, list(by_path), batch or BATCH, left_out), strict=True)
    for pair in pairs:
        sample = by_path[pair[0].path or Path()]
        mask, _ = mask_of(sample, pair[0])
        for accumulator, prediction in zip(metrics, pair, strict=True):
            count_prediction(accumulator, sample, prediction, mask)
        rows.append(_parity(sample.name, *pair))
        progress(len(rows) + len(left_out), len(by_path))
    if not rows:
        raise DataError(f"none of {len(by_path)} images can be read; first: {next(iter(left_out.values()))}")
    known = [side.overall().to_dict() for side in metrics]
    labelled = any(value is not None for value in known[0].values())
    skipped = f"; {len(left_out)} of them could not be read" if left_out else ""
    return Certificate(
        execution=after.backend.execution,
        compared_on=chosen.in_words + skipped,
        images=rows,
        map_max=max(row.map_max for row in rows),
        map_mean=math.fsum(row.map_mean for row in rows) / len(rows),
        score=max(_score_difference(row) for row in rows),
        flips=None if before.header.thresholds is None else len(flipped(rows, before.header.thresholds)),
        tolerance=dict(tolerance),
        metrics_before=known[0] if labelled else None,
        metrics_after=known[1] if labelled else None,
    )


def beyond(certificate: Certificate, thresholds: Thresholds | None) -> list[str]:
    """In words, each figure that is beyond its tolerance and the images where it is worst; empty: parity holds."""
    found = []
    for key, allowed in certificate.tolerance.items():
        value = getattr(certificate, key)
        # Not `value > allowed`: what is not a number is beyond every tolerance.
        if value is not None and not value <= allowed:
            found.append(f"{_NAMES[key]} {value:.3g} (allowed {allowed:g}): {_worst(key, certificate, thresholds)}")
    return found


def flipped(rows: Sequence[ImageParity], thresholds: Thresholds | None) -> list[ImageParity]:
    """The images whose verdict differs."""
    return [row for row in rows if verdict(row.score_before, thresholds) != verdict(row.score_after, thresholds)]


def _uncalibrated(dataset: Dataset, config: Config) -> tuple[Sample, ...]:
    if not dataset.train_good:
        return ()
    split = split_good(dataset.train_good, config.data.select_share, config.data.calibrate_share, config.training.seed)
    return split.train + split.select


def _refuse_unreadable(samples: Sequence[Sample], pixel_format: PixelFormat) -> None:
    """Said before minutes of work, not after them: that no image at all is of the model's kind."""
    first: ImageError | None = None
    for sample in samples:
        try:
            read_pixels(sample.path, pixel_format)
            return
        except ImageError as error:
            first = first or error
    raise DataError(f"none of {len(samples)} images can be used to compare; first: {first}")


def _answers(
    before: Detector, after: Detector, paths: list[Path], batch: int, left_out: dict[Source, ImageError]
) -> tuple[Iterator[Prediction], Iterator[Prediction]]:
    """What both say of the same images, in the same order; both pass over what cannot be read."""

    def spoken() -> Iterator[Prediction]:
        try:
            yield from after.stream(list(paths), batch, on_unreadable=left_out.__setitem__)
        except ModelFileError as error:
            raise ParityError(f"the export fails where the model does not: {error}") from None

    return before.stream(list(paths), batch, on_unreadable=left_out.__setitem__), spoken()


def _parity(name: str, before: Prediction, after: Prediction) -> ImageParity:
    difference = np.abs(before.input_map.astype(np.float64) - after.input_map)
    if before.path != after.path or not np.isfinite(difference).all():
        raise ParityError(f"{name}: the export's anomaly map cannot be compared with the model's")
    return ImageParity(
        name=name,
        score_before=before.score,
        score_after=after.score,
        map_max=float(difference.max()),
        map_mean=float(difference.mean()),
    )


def _score_difference(row: ImageParity) -> float:
    return abs(row.score_before - row.score_after)


def _worst(key: str, certificate: Certificate, thresholds: Thresholds | None) -> str:
    """The images where one figure is worst, worst first."""
    if key == "flips":
        rows = flipped(certificate.images, thresholds)
        named = [f"{row.name} {_decision(row, thresholds)}" for row in rows[:_NAMED]]
    else:
        figure = _score_difference if key == "score" else lambda row: float(getattr(row, key))
        over = [row for row in certificate.images if not figure(row) <= certificate.tolerance[key]]
        rows = sorted(over, key=figure, reverse=True)
        named = [f"{row.name} {figure(row):.3g}" for row in rows[:_NAMED]]
    return ", ".join(named) + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")


def _decision(row: ImageParity, thresholds: Thresholds | None) -> str:
    before, after = (f"{verdict(score, thresholds)} {score:.4f}" for score in (row.score_before, row.score_after))
    return f"{before} → {after}"
