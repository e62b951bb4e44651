"""Int8: post-training quantisation by NNCF, in which the layers that would hurt stay in floating point.

The network is fitted to 8 bits first: its channels are balanced, its weights rounded with care. Then all layers are
quantised. Where that costs more than the budget, on simulated anomalies on held-out good images, fragile layers are
kept as they were before rounding, more of them each time, until it does not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from draem.config import ScoreMap
from draem.data.samples import Dataset
from draem.deployment.balancing import balance
from draem.deployment.formats import Int8Format, OnnxFormat, OpenvinoFormat, Run
from draem.deployment.fragility import fragility
from draem.deployment.graph import InspectionGraph, onnx_graph, with_norms_folded, with_weights
from draem.deployment.material import Simulations, draw_material
from draem.deployment.rounding import round_weights
from draem.evaluation.metrics import MetricsAccumulator
from draem.inspection.residual import scored_maps
from draem.inspection.scoring import image_score, verdict
from draem.modelfile import ArtefactFormat, Header
from draem.network.draem import Draem
from draem.pixels import Images

_ROUNDS = 4
_RANKED_ON = 2
_FITTED_ON = 48
_MARGIN = 0.7
_FINER = 3
_HALVED = 2.0


@dataclass(frozen=True)
class Quantised:
    """An int8 model: its file's bytes (of OpenVINO IR the .xml, and the .bin as `weights`).

    kept: layers in floating point; said: in words, what it was calibrated on; used: sums of these images.
    """

    content: bytes
    weights: bytes
    kept: list[str]
    said: str
    used: tuple[str, ...]


@dataclass(frozen=True)
class Damage:
    """What int8 changes: mean difference of the maps, largest of two scores, loss of pixel AP, verdicts that differ."""

    map_mean: float
    score: float
    pixel_ap: float
    flips: int

    def share(self, budget: Damage) -> float:
        """Of a budget, by whatever is furthest beyond it; up to 1 is within. Flips beyond it count as a little more."""
        spent = (self.map_mean / budget.map_mean, self.score / budget.score, self.pixel_ap / budget.pixel_ap)
        return max(*spent, 1.1 if self.flips > budget.flips else 0.0)


BUDGET = Damage(map_mean=0.008, score=0.018, pixel_ap=0.005, flips=0)
"""A little less than a certificate allows by default, since real images are not the simulated ones."""


def quantise(
    network: Draem,
    header: Header,
    to: ArtefactFormat,
    batch: int | None,
    dataset: Dataset,
    progress: Callable[[int, int], None] = lambda done, total: None,
    budget: Damage = BUDGET,
) -> Iterator[Quantised]:
    """A network in int8, for a fixed number of images in one run or (none) for any; then again, each time finer.

    The first is within the budget if any is. Each one after it keeps more layers, of which about half the damage is
    expected; there are a few at most, and none that keeps all layers.

    Args:
        network: in evaluation mode.
        header: whose split, simulation, score rule and thresholds are those of the model.
        to: format of the file.
        batch: images in one run.
        dataset: its good images outside of the test split are calibrated and judged on, as training split them.
        progress: called with the files read and their number.
        budget: what int8 may cost; an infinite one keeps no layer, and is the fastest.

    Raises:
        DataError: there are no such images.
        MissingExtraError: NNCF, or what runs the format, is not installed.
    """
    material = draw_material(header, dataset, progress)
    judge = _Judge(network, header, material.judging, batch or 1)
    fitted = fit_to_int8(network, material.calibration.images)
    batches = [found for found, _ in _batches(material.calibration.images, batch or 1)]

    rounded = onnx_graph(fitted.rounded, header.channels, header.config.data.size, batch)

    def made(kept: list[str]) -> tuple[Int8Format, Any]:
        graph = with_weights(rounded, fitted.exact_weights(kept))
        form: Int8Format = OnnxFormat(graph) if to == "onnx" else OpenvinoFormat(graph)
        return form, form.int8_model(batches, kept)

    search = _Search(made, judge, lambda: _ranking(fitted, judge))
    form, model, kept = search.within(budget)
    yield Quantised(*form.written(model), kept, material.said, material.used)
    for more in search.finer(kept):
        form, model = made(more)
        yield Quantised(*form.written(model), more, material.said, material.used)


@dataclass(frozen=True)
class Fitted:
    """A network that is balanced and has its BatchNorm folded: as it is, and with weights on the grid of int8."""

    exact: Draem
    rounded: Draem

    def exact_weights(self, layers: Collection[str]) -> dict[str, NDArray[np.float32]]:
        """The weights of layers before rounding, by their names."""
        return {name: self.exact.get_parameter(f"{name}.weight").detach().numpy() for name in layers}


def fit_to_int8(network: Draem, images: Images) -> Fitted:
    """A network that answers nearly alike with weights that int8 leaves as they are.

    images: B×C×H×W in [0, 1], good ones and simulated anomalies; half of them are looked at.
    """
    exact = with_norms_folded(network)
    batch = torch.from_numpy(images[:: max(1, len(images) // _FITTED_ON)])
    balance(exact, batch)
    rounded = copy.deepcopy(exact)
    round_weights(rounded, batch)
    return Fitted(exact, rounded)


class _Judge:
    """Holds answers against those of the network as it was trained."""

    def __init__(self, network: Draem, header: Header, judging: Simulations, batch: int) -> None:
        self.judging, self._header, self._batch = judging, header, batch
        self._exact = self.maps(_runner(InspectionGraph(network)), judging.images)

    def __call__(self, run: Run) -> Damage:
        return damage(self._exact, self.maps(run, self.judging.images), self.judging, self._header)

    def maps(self, run: Run, images: Images) -> Images:
        """The maps that are scored, B×H×W."""
        kind = self._header.config.score.map
        return np.concatenate([_scored(kind, run, found)[:rest] for found, rest in _batches(images, self._batch)])


def _runner(graph: InspectionGraph) -> Run:
    """Runs a graph in torch."""

    @torch.inference_mode()
    def run(images: Images) -> tuple[Images, Images]:
        maps, reconstructions = graph(torch.from_numpy(images))
        return maps.numpy(), reconstructions.numpy()

    return run


class _Search:
    """Which layers to keep: the most fragile ones for their work, as many as it takes."""

    def __init__(
        self,
        made: Callable[[list[str]], tuple[Int8Format, Any]],
        judge: _Judge,
        ranking: Callable[[], dict[str, float]],
    ) -> None:
        self._made, self._judge, self._ranking = made, judge, ranking

    @cached_property
    def _ranked(self) -> dict[str, float]:
        return self._ranking()

    def within(self, budget: Damage) -> tuple[Int8Format, Any, list[str]]:
        """The int8 model and the layers kept: the first within the budget, else the best of some rounds."""
        tried: list[tuple[float, Int8Format, Any, list[str]]] = []
        kept: list[str] = []
        while True:
            form, model = self._made(kept)
            share = self._judge(form.runner(model)).share(budget)
            tried.append((share, form, model, kept))
            more = self._more(kept, share) if share > 1.0 and len(tried) < _ROUNDS else kept
            if len(more) == len(kept):
                return min(tried, key=lambda each: each[0])[1:]
            kept = more

    def finer(self, kept: list[str]) -> Iterator[list[str]]:
        """The layers to keep for half the damage, for a quarter, and so on."""
        for _ in range(_FINER):
            more = self._more(kept, _HALVED)
            if not len(kept) < len(more) < len(self._ranked):
                return
            kept = more
            yield kept

    def _more(self, kept: list[str], share: float) -> list[str]:
        """Those that divide the damage by `share` and a margin; independent roundings add up by their squares."""
        fragilities = list(self._ranked.values())
        left = np.append(np.sqrt(np.cumsum(np.square(fragilities)[::-1])[::-1]), 0.0)
        fits = left * share <= left[len(kept)] * _MARGIN
        return list(self._ranked)[: max(int(np.argmax(fits)), len(kept))]


def damage(exact: Images, found: Images, judging: Simulations, header: Header) -> Damage:
    """What the maps of int8, B×H×W, lose against the exact ones."""
    size = header.config.score.filter_size
    scores = np.array([[image_score(each, size) for each in maps] for maps in (exact, found)])
    verdicts = [[verdict(float(score), header.thresholds) for score in row] for row in scores]
    lost = _pixel_ap(exact, judging.masks) - _pixel_ap(found, judging.masks)
    return Damage(
        map_mean=float(np.abs(exact - found).mean()),
        score=float(np.abs(scores[0] - scores[1]).max()),
        pixel_ap=max(lost, 0.0),
        flips=sum(before != after for before, after in zip(*verdicts, strict=True)),
    )


def _ranking(fitted: Fitted, judge: _Judge) -> dict[str, float]:
    """Fragility by layer, first the layers that save the most damage for their work, on images with much to see."""
    order = np.argsort(-judge.judging.masks.mean((1, 2)), kind="stable")
    images = judge.judging.images[np.sort(order[:_RANKED_ON])]
    graph = InspectionGraph(fitted.exact)
    found = fragility(graph.network, fitted.rounded, lambda: judge.maps(_runner(graph), images))
    by_worth = sorted(found.items(), key=lambda pair: pair[1][0] ** 2 / pair[1][1], reverse=True)
    return {name: moved for name, (moved, _) in by_worth}


def _pixel_ap(maps: Images, masks: NDArray[np.bool_]) -> float:
    accumulator = MetricsAccumulator()
    for found, mask in zip(maps, masks, strict=True):
        accumulator.add(0.0, bool(mask.any()), np.clip(found, 0.0, 1.0), mask)
    return accumulator.overall().pixel_ap or 0.0


def _scored(kind: ScoreMap, run: Run, images: Images) -> Images:
    maps, reconstructions = run(images)
    return scored_maps(kind, maps, images, reconstructions)


def _batches(images: Images, size: int) -> list[tuple[Images, int]]:
    """The images in batches of one size, the last filled up from the first images; and how many of each count."""
    starts = range(0, len(images), size)
    return [(images[np.arange(start, start + size) % len(images)], min(size, len(images) - start)) for start in starts]
