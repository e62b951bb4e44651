"""A detector on a labelled data set: metrics overall, by category and by defect type, and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from draem.config import AnyLayout
from draem.data.layouts import read_layout
from draem.data.samples import Dataset, Sample, content_sum
from draem.data.truth import load_truth
from draem.errors import DataError, ImageError
from draem.evaluation.bootstrap import Bootstrap, Stratum, intervals
from draem.evaluation.curves import Curve, curves_of
from draem.evaluation.figures import evaluation_figure, evaluation_html
from draem.evaluation.found import DETECTABLE, Defect, defects_in, smallest_detectable
from draem.evaluation.found import to_dict as recall_to_dict
from draem.evaluation.metrics import Metrics, MetricsAccumulator, PixelCounts, mean_metrics
from draem.evaluation.operating import Line, Share, shares
from draem.evaluation.pimo import PimoAccumulator
from draem.evaluation.ranking import Floats
from draem.evaluation.sheets import SheetRows
from draem.files import atomic_write
from draem.images import write_image
from draem.inspection.detector import Detector
from draem.inspection.prediction import Prediction
from draem.modelfile import RegionOfInterest, Thresholds, Verdict
from draem.modelfile.edits import OTHER_SCENE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Watch = Callable[[Sample, Prediction, NDArray[np.bool_] | None], None]
"""Takes a sample, what was predicted of it, and its mask at the map's size, none where it is not known."""


@dataclass(frozen=True)
class ImageResult:
    """One test image: what it is, and what the detector said."""

    name: str
    category: str
    label: Literal["good", "anomalous"]
    defect: str
    score: float
    verdict: Verdict | None
    p_value: float | None
    lost: bool = False
    """Registration did not find the part: inspected as it lies, and not accepted."""
    aupimo: float | None = None
    """Of an anomalous image with a mask: its own; see `draem.evaluation.pimo`."""


@dataclass(frozen=True)
class Evaluation:
    """What is known of a detector on a data set; a metric that cannot be known is none.

    Metrics are taken at the network's input size, masks resized and thresholded at 0.5; of images inspected in tiles
    at their own size, which then is no `input_size`.
    """

    metrics: Metrics
    by_category: dict[str, Metrics]
    by_defect: dict[tuple[str, str], Metrics]
    images: list[ImageResult]
    unreadable: list[str]
    without_mask: int
    input_size: tuple[int, int] | None
    picture: NDArray[np.uint8] | None = field(repr=False)
    aupimo: float | None = None
    """Mean recall of anomalous images where at most 1e-5 to 1e-4 of good pixels are false alarms."""
    defects: list[Defect] = field(default_factory=list, repr=False)
    """Single defects of the masks: their size, and whether they were found."""
    thresholds: Thresholds | None = None
    replicates: dict[str, Floats] = field(default_factory=dict, repr=False)
    """Each metric for other draws of as many images: see `draem.evaluation.bootstrap`."""
    category_replicates: dict[str, dict[str, Floats]] = field(default_factory=dict, repr=False)
    region: RegionOfInterest | None = None
    known: int = 0
    """Images that the model was trained or selected on, or that chose its thresholds: figures on them are flattered."""
    curves: dict[str, Curve] = field(default_factory=dict, repr=False)
    """See `draem.evaluation.curves`."""
    line: Line | None = None
    """Where such parts are made."""

    @property
    def intervals(self) -> dict[str, list[float] | None]:
        """Low and high of each overall metric, 95 %."""
        return intervals(self.replicates, self.metrics)

    def category_intervals(self, category: str) -> dict[str, list[float] | None]:
        """The same of a category."""
        return intervals(self.category_replicates[category], self.by_category[category])

    @property
    def unplaced(self) -> int:
        """Images on which registration did not find the part: inspected as they lie, and not accepted."""
        return sum(one.lost for one in self.images)

    @property
    def reviews(self) -> bool:
        """Whether there is anything for a person to look at: a review zone, or parts that were not found."""
        return self.thresholds is not None and (self.thresholds.review is not None or self.unplaced > 0)

    @property
    def false_rejects(self) -> Share | None:
        """Good images that were rejected; none without a threshold or without good images."""
        return self.shares("good").get("reject")

    @property
    def escapes(self) -> Share | None:
        """Anomalous images that were accepted; none without a threshold or without such images."""
        return self.shares("anomalous").get("accept")

    @property
    def per_shift(self) -> dict[str, dict[str, float]]:
        """See `Line.per_shift`; empty where no line or no threshold is known; reviews where there are any."""
        if self.line is None or self.thresholds is None:
            return {}
        found = self.line.per_shift(self.shares("good"), self.shares("anomalous"))
        return {what: one for what, one in found.items() if what != "reviews" or self.reviews}

    def in_words(self) -> list[str]:
        """What the verdicts were, and from which size on defects are found, each where it is known."""
        lines = []
        reviews = self.reviews
        for what, share, label in (
            ("good images rejected", self.false_rejects, "good"),
            ("anomalous ones accepted", self.escapes, "anomalous"),
        ):
            if share is not None:
                low, high = share.limits
                looked_at = f", {self.shares(label)['review'].count} to review" if reviews else ""
                counted = f"{share.count} of {share.of}, {share.value:.1%} (95%: {low:.1%} to {high:.1%})"
                lines.append(f"{what}: {counted}{looked_at}")
        if self.line is not None:
            known = self.line.in_words(self.per_shift) if self.per_shift else "unknown: the model has no threshold"
            lines.append(known if self.per_shift else f"what a shift sees is {known}")
        if self.known:
            lines.append(f"flattered: {self.known} of these images trained the model or chose its thresholds")
        if self.thresholds is not None and OTHER_SCENE in self.thresholds.chosen_on:
            lines.append(f"the threshold {OTHER_SCENE}")
        if self.unplaced:
            first = next(one.name for one in self.images if one.lost)
            lines.append(
                f"the part was not found on {self.unplaced} images, which are not accepted; the first: {first}"
            )
        return lines + self.beyond_verdicts()

    def beyond_verdicts(self) -> list[str]:
        """From which size on defects are found, and AUPIMO, each where it is known."""
        lines = []
        smallest = smallest_detectable(self.defects)
        if smallest is not None:
            some = Share.of_all(one.found for one in self.defects if one.diameter >= smallest)
            said = f"at least {smallest:.1f} pixels across are found ({some.count} of {some.of})"
            lines.append(f"{DETECTABLE:.0%} or more of the defects {said}")
        if self.aupimo is not None:
            lines.append(f"AUPIMO {self.aupimo:.4f}: recall at hardly any false pixel on good images")
        return lines

    def scores(self) -> dict[str, list[float]]:
        """Of the `good` images, and of the `anomalous` ones, in their order."""
        return {label: [one.score for one in self.images if one.label == label] for label in ("good", "anomalous")}

    def shares(self, label: str) -> dict[Verdict, Share]:
        """How many of the `good` or `anomalous` images got each verdict; empty without a threshold, or images."""
        return shares([one.verdict for one in self.images if one.label == label and one.verdict is not None])

    def count(self, category: str | None = None, defect: str | None = None) -> int:
        """Images of a category and a defect type; none stands for all."""
        return sum(category in (None, i.category) and defect in (None, i.defect) for i in self.images)

    @property
    def mean(self) -> Metrics:
        """Each metric's average over the categories where it is known, as the literature gives it."""
        return mean_metrics(self.by_category.values())

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        size = "image's" if self.input_size is None else "input"
        return {
            "metrics": self.metrics.to_dict(),
            "mean": self.mean.to_dict(),
            "intervals": self.intervals,
            "by_category": {name: metrics.to_dict() for name, metrics in self.by_category.items()},
            "by_category_intervals": {name: self.category_intervals(name) for name in self.by_category},
            "by_defect": [
                {"category": category, "defect": defect, "images": self.count(category, defect), **metrics.to_dict()}
                for (category, defect), metrics in self.by_defect.items()
            ],
            "aupimo": self.aupimo,
            "thresholds": None if self.thresholds is None else self.thresholds.model_dump(mode="json"),
            "verdicts": {
                label: {verdict: share.to_dict() for verdict, share in self.shares(label).items()}
                for label in self.scores()
            },
            "line": None if self.line is None else vars(self.line),
            "per_shift": self.per_shift,
            "recall": recall_to_dict(self.defects),
            "images": [vars(image) for image in self.images],
            "unreadable": self.unreadable,
            "known_to_the_model": self.known,
            "unplaced": self.unplaced,
            "anomalous_without_mask": self.without_mask,
            "input_size": None if self.input_size is None else list(self.input_size),
            "mask_rule": f"resized to the {size} size, anomalous where at least half covered",
        }

    def plot(self) -> Figure:
        """Scores with thresholds and curves with their bands, as a matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return evaluation_figure(self.scores(), self.thresholds, self.curves)

    def _repr_html_(self) -> str:
        return evaluation_html(self.metrics, self.intervals, len(self.images), self.in_words())

    def save(self, out: str | Path) -> None:
        """Write metrics.json and sheet.png into a folder."""
        folder = Path(out)
        atomic_write(folder / "metrics.json", json.dumps(self.to_dict(), indent=1, allow_nan=False).encode())
        if self.picture is not None:
            write_image(folder / "sheet.png", self.picture)


def evaluate(
    detector: Detector,
    data: str | Path,
    *,
    layout: AnyLayout = "auto",
    category: str | None = None,
    line: Line | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score a detector on the test images of a data set; a plain folder of good images counts as good test images.

    Args:
        detector: the detector.
        data: a data set whose layout is understood.
        layout: how the data set lies in its folders; found by itself unless told.
        category: which of several categories; `all` for all of them.
        line: where such parts are made, for what a shift of it will see (`Evaluation.per_shift`).
        batch_size: images in one run of the network.
        progress: called with the images done and their number.

    Raises:
        DataError: there are no test images, or none of them can be read.
    """
    dataset = read_layout(Path(data), layout, category)
    return replace(evaluate_dataset(detector, dataset, batch_size=batch_size, progress=progress), line=line)


def evaluate_dataset(
    detector: Detector,
    dataset: Dataset,
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
    watch: Watch = lambda sample, prediction, mask: None,
) -> Evaluation:
    """As `evaluate`, on a data set that is read already; `watch` is called with every image while it is at hand."""
    config, samples = detector.header.config.data, samples_to_test(dataset)
    by_path = {sample.path: sample for sample in samples}
    tally, sheet_rows = _Tally(detector, samples), SheetRows()
    left_out: list[str] = []
    masks_unread: list[str] = []
    found = detector.stream(list(by_path), batch_size, on_unreadable=lambda source, error: left_out.append(str(error)))
    for prediction in found:
        sample = by_path[prediction.path or Path()]
        mask, problem = mask_of(sample, prediction)
        masks_unread += [problem] if problem else []
        tally.add(sample, prediction, mask)
        sheet_rows.add(sample, prediction, mask, config)
        watch(sample, prediction, mask)
        progress(len(tally.images) + len(left_out), len(samples))
    if not tally.images:
        raise DataError(f"{dataset.root}: none of its {len(samples)} test images can be read; first: {left_out[0]}")
    return tally.evaluation(left_out + masks_unread, sheet_rows.picture())


class _Tally:
    """Everything that is counted while the images go by."""

    def __init__(self, detector: Detector, samples: Sequence[Sample]) -> None:
        self.images: list[ImageResult] = []
        self._detector = detector
        self._metrics, self._pimo = MetricsAccumulator(), PimoAccumulator()
        self._bootstrap = Bootstrap(_stratum(sample) for sample in samples)
        self._defects: list[Defect] = []
        header = detector.header
        self._known_sums = {
            *(header.data.used if header.data is not None else ()),
            *(header.thresholds.images if header.thresholds is not None else ()),
        }
        self._known = 0

    def add(self, sample: Sample, prediction: Prediction, mask: NDArray[np.bool_] | None) -> None:
        pixels = count_prediction(self._metrics, sample, prediction, mask)
        self._bootstrap.add(_stratum(sample), prediction.score, pixels)
        self._pimo.add(sample.label == "anomalous", pixels)
        if mask is not None and sample.truth is not None:
            limit, inside = prediction.lowest_threshold, prediction.inspected
            regions = defects_in(sample.truth.read(), prediction.smoothed, prediction.fit, limit, inside)
            self._defects += [Defect(sample.name, sample.category, sample.defect, *region) for region in regions]
        self._known += bool(self._known_sums) and content_sum(sample.path) in self._known_sums
        what = (sample.name, sample.category, sample.label, sample.defect)
        said = (prediction.score, prediction.verdict, prediction.p_value, prediction.lost)
        self.images.append(ImageResult(*what, *said))

    def evaluation(self, unreadable: list[str], picture: NDArray[np.uint8] | None) -> Evaluation:
        config, by_category = self._detector.header.config.data, self._metrics.by_category()
        each = iter(self._pimo.values())
        images = [replace(one, aupimo=next(each)) if one.label == "anomalous" else one for one in self.images]
        return Evaluation(
            metrics=self._metrics.overall(),
            by_category=by_category,
            by_defect=self._metrics.by_defect_type(),
            images=images,
            unreadable=unreadable,
            without_mask=self._metrics.without_pixel_truth,
            input_size=None if config.fit == "tiles" else config.size,
            picture=picture,
            aupimo=self._pimo.mean(),
            defects=self._defects,
            thresholds=self._detector.header.thresholds,
            replicates=self._bootstrap.replicates(),
            category_replicates={name: self._bootstrap.replicates(name) for name in by_category},
            curves=curves_of(self._bootstrap),
            region=self._detector.header.region,
            known=self._known,
        )


def _stratum(sample: Sample) -> Stratum:
    return sample.category, sample.defect if sample.label == "anomalous" else None


def samples_to_test(dataset: Dataset) -> tuple[Sample, ...]:
    """The images to test with: a plain folder's good ones, else those of its test split.

    Raises:
        DataError: there are none.
    """
    if dataset.test:
        return dataset.test
    if dataset.layout == "folder":
        return dataset.train_good
    raise DataError(f"{dataset.root}: {dataset.name} has no test images to evaluate on")


def count_prediction(
    accumulator: MetricsAccumulator,
    sample: Sample,
    prediction: Prediction,
    mask: NDArray[np.bool_] | None,
) -> PixelCounts | None:
    """Add an image that a detector has inspected to the metrics, with its mask of `mask_of`.

    Returns the counts of its own pixels; none where their truth is not known.
    """
    # A letterbox's padding and what is not inspected would flatter the metrics, as pixels that are always right.
    return accumulator.add(
        prediction.score,
        sample.label == "anomalous",
        prediction.input_map,
        mask,
        counted=prediction.inspected,
        category=sample.category,
        defect_type=sample.defect,
    )


def mask_of(sample: Sample, prediction: Prediction) -> tuple[NDArray[np.bool_] | None, str]:
    """The mask at the map's size, none where there is none or it cannot be read; and the reason for the latter.

    What some sets have as masks of good images is not looked at: their label says that they have no anomaly.
    """
    if sample.truth is None or sample.label == "good":
        return None, ""
    try:
        height, width = prediction.image.shape[:2]
        return load_truth(sample.truth, (height, width), prediction.data), ""
    except ImageError as error:
        return None, str(error)
