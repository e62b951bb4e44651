"""Int8: post-training quantisation by NNCF, in which the layers that would hurt stay in floating point.

All layers are quantised first. Where that costs more than the budget, on simulated anomalies on held-out good images,
the most fragile layers are kept, more of them each time, until it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from draem.data.samples import Dataset
from draem.deployment.formats import Int8Format, OnnxFormat, OpenvinoFormat, Run
from draem.deployment.fragility import fragility
from draem.deployment.graph import onnx_graph
from draem.deployment.material import Material, Simulations, draw_material
from draem.evaluation.metrics import MetricsAccumulator
from draem.inspection.scoring import image_score, verdict
from draem.modelfile import Header
from draem.network.draem import Draem
from draem.pixels import Images

MAP_MEAN, SCORE, PIXEL_AP = 0.008, 0.018, 0.005
"""The budget: mean difference of the maps, largest of two scores (both a little less than a certificate allows), and
loss of pixel AP against the simulated truth."""
_ROUNDS = 4
_RANKED_ON = 2
_MARGIN = 0.7


@dataclass(frozen=True)
class Quantised:
    """An int8 model: its file's bytes (of OpenVINO IR the .xml, and the .bin as `weights`).

    kept: layers in floating point, most fragile first; said: in words, what it was calibrated on.
    """

    content: bytes
    weights: bytes
    kept: list[str]
    said: str


@dataclass(frozen=True)
class Damage:
    """What int8 changes: mean difference of the maps, largest of two scores, loss of pixel AP, verdicts that differ."""

    map_mean: float
    score: float
    pixel_ap: float
    flips: int

    @property
    def share(self) -> float:
        """Of the budget, by whatever is furthest beyond it; up to 1 is within."""
        spent = (self.map_mean / MAP_MEAN, self.score / SCORE, self.pixel_ap / PIXEL_AP)
        return max(*spent, 1.1 if self.flips else 0.0)


def quantise(
    network: Draem,
    header: Header,
    to: Literal["onnx", "openvino"],
    batch: int | None,
    dataset: Dataset,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Quantised:
    """A network in int8, for a fixed number of images in one run or (none) for any.

    Args:
        network: in evaluation mode.
        header: whose split, simulation, score rule and thresholds are those of the model.
        to: format of the file.
        batch: images in one run.
        dataset: its good images outside of the test split are calibrated and judged on, as training split them.
        progress: called with the files read and their number.

    Raises:
        DataError: there are no such images.
        MissingExtraError: NNCF, or what runs the format, is not installed.
    """
    material = draw_material(header, dataset, progress)
    graph = onnx_graph(network, header.channels, header.config.data.size, batch)
    form: Int8Format = OnnxFormat(graph) if to == "onnx" else OpenvinoFormat(graph)
    model, kept = _within_budget(form, network, header, material, batch or 1)
    return Quantised(*form.written(model), kept, material.said)


def _within_budget(
    form: Int8Format, network: Draem, header: Header, material: Material, batch: int
) -> tuple[Any, list[str]]:
    """The int8 model and the layers kept: the first within the budget, else the best of some rounds."""
    judging = material.judging
    batches = [found for found, _ in _batches(material.calibration.images, batch)]
    exact = _maps(form.runner(form.float_model()), judging.images, batch)
    ranked: dict[str, float] = {}
    kept: list[str] = []
    best: tuple[float, Any, list[str]] | None = None
    for _ in range(_ROUNDS):
        model = form.int8_model(batches, kept)
        share = damage(exact, _maps(form.runner(model), judging.images, batch), judging, header).share
        if best is None or share < best[0]:
            best = share, model, kept
        if share <= 1.0:
            break
        ranked = ranked or _ranked(network, judging)
        kept = list(ranked)[: _enough(list(ranked.values()), len(kept), share)]
    assert best is not None
    return best[1], best[2]


def damage(exact: Images, found: Images, judged: Simulations, header: Header) -> Damage:
    """What the maps of int8, B×H×W, lose against the exact ones."""
    size = header.config.score.filter_size
    scores = np.array([[image_score(each, size) for each in maps] for maps in (exact, found)])
    verdicts = [[verdict(float(score), header.thresholds) for score in row] for row in scores]
    lost = _pixel_ap(exact, judged.masks) - _pixel_ap(found, judged.masks)
    return Damage(
        map_mean=float(np.abs(exact - found).mean()),
        score=float(np.abs(scores[0] - scores[1]).max()),
        pixel_ap=max(lost, 0.0),
        flips=sum(before != after for before, after in zip(*verdicts, strict=True)),
    )


def _ranked(network: Draem, judging: Simulations) -> dict[str, float]:
    """Fragility by layer, the most fragile first, on the images with the most to see."""
    order = np.argsort(-judging.masks.mean((1, 2)), kind="stable")
    found = fragility(network, judging.images[np.sort(order[:_RANKED_ON])])
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _enough(fragilities: list[float], kept: int, share: float) -> int:
    """How many of the most fragile layers to keep: roundings add up by their squares, as independent ones do."""
    left = np.sqrt(np.cumsum(np.square(fragilities)[::-1])[::-1])
    fits = left * share <= left[min(kept, len(left) - 1)] * _MARGIN
    wanted = int(np.argmax(fits)) if fits.any() else len(left)
    return min(max(wanted, kept + 1), len(left))


def _pixel_ap(maps: Images, masks: NDArray[np.bool_]) -> float:
    accumulator = MetricsAccumulator()
    for found, mask in zip(maps, masks, strict=True):
        accumulator.add(0.0, bool(mask.any()), np.clip(found, 0.0, 1.0), mask)
    return accumulator.overall().pixel_ap or 0.0


def _maps(run: Run, images: Images, batch: int) -> Images:
    return np.concatenate([run(found)[:rest] for found, rest in _batches(images, batch)])


def _batches(images: Images, size: int) -> list[tuple[Images, int]]:
    """The images in batches of one size, the last filled up from the first images; and how many of each count."""
    starts = range(0, len(images), size)
    return [(images[np.arange(start, start + size) % len(images)], min(size, len(images) - start)) for start in starts]
