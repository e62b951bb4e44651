"""What a configuration simulates, in pictures and figures: `draem simulate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from draem.config import Config, MaskKind, MaskWeights, SimulationConfig, SourceKind, SourceWeights
from draem.data.bank import ImageBank
from draem.data.defects import describe
from draem.data.layouts import read_layout
from draem.data.samples import Dataset, Sample
from draem.data.truth import load_truth
from draem.errors import DataError, ImageError, MissingExtraError
from draem.files import atomic_write
from draem.images import fit_image, read_image, write_image
from draem.pictures import sheet
from draem.plots import coverage_plot, statistics_plot
from draem.simulation.batch import load_batch
from draem.simulation.coverage import Coverage, RealDefect, compare
from draem.simulation.draws import sample_keys
from draem.simulation.masks import MASKS
from draem.simulation.simulator import Simulated, Simulator, contact_sheet, pixels
from draem.simulation.structural import STRUCTURAL
from draem.simulation.survey import survey

Progress = Callable[[int, int], None]

_IMAGES = 200
"""Good images that figures are taken on."""
_SURVEYED, _COMPARED = 400, 1000
"""Simulated samples behind the statistics, and behind a comparison."""
_TELLING = 0.1
"""Share of the image that a mask has where a sheet is to show what is inside it."""


@dataclass(frozen=True)
class Preview:
    """What was written, what was left out and why, and how the real defects compare, if they were to."""

    pictures: list[Path]
    left_out: list[str]
    coverage: Coverage | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        coverage = None if self.coverage is None else self.coverage.to_dict()
        return {"pictures": [str(path) for path in self.pictures], "left_out": self.left_out, "coverage": coverage}


def write_preview(
    data: Path,
    out: Path,
    config: Config,
    count: int,
    seed: int,
    comparing: bool = False,
    progress: Progress = lambda done, total: None,
) -> Preview:
    """Write what is simulated on a data set's good images.

    OUT shows `count` samples, OUT-components every kind of mask and source side by side, OUT-statistics how several
    hundred samples are distributed; `comparing` adds OUT-coverage: where the data set's real defects lie among them.
    Without matplotlib the plots are left out.

    Raises:
        DataError: no good images, none that can be read, or nothing to compare with.
    """
    dataset = read_layout(data, config.data.layout)
    if not dataset.train_good:
        raise DataError(f"{data}: no good images to simulate on")
    marked = _marked(dataset) if comparing else ()
    with _bank(dataset, config, max(count, _IMAGES), seed) as bank:
        settings = config.simulation.model_copy(update={"clean_share": 0.0})  # clean samples show nothing
        simulator = Simulator(settings, config.data.size, "cpu")
        write_image(out, contact_sheet(_simulated(simulator, bank, seed, torch.arange(count))))
        pictures = [out, _beside(out, "components")]
        write_image(pictures[1], _components(settings, bank, seed))
        surveyed = survey(simulator, bank, _COMPARED if comparing else _SURVEYED, seed, progress)
    left_out = [reason for _, reason in bank.skipped]
    coverage = None
    if comparing:
        real, unread = _described(marked, config)
        left_out += unread
        coverage = compare(real, surveyed.defects)
        told = json.dumps(coverage.to_dict(), indent=1, allow_nan=False)
        atomic_write(_beside(out, "coverage").with_suffix(".json"), told.encode())
    try:
        write_image(_beside(out, "statistics"), statistics_plot(surveyed, dataset.name))
        pictures.append(_beside(out, "statistics"))
        if coverage is not None:
            write_image(_beside(out, "coverage"), coverage_plot(coverage, dataset.name))
            pictures.append(_beside(out, "coverage"))
    except MissingExtraError as error:
        left_out.append(f"plots: {error}")
    return Preview(pictures, left_out, coverage)


def _beside(out: Path, part: str) -> Path:
    return out.with_name(f"{out.stem}-{part}{out.suffix}")


def _marked(dataset: Dataset) -> tuple[Sample, ...]:
    """The anomalous images whose defects are marked."""
    marked = tuple(sample for sample in dataset.anomalous if sample.truth is not None)
    if not marked:
        raise DataError(
            f"{dataset.root}: no real defects with masks to compare with: leave --compare away, or give a data set "
            "with test/<defect> and ground_truth/<defect>"
        )
    return marked


def _bank(dataset: Dataset, config: Config, count: int, seed: int) -> ImageBank:
    good = dataset.train_good
    chosen = torch.randperm(len(good), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    return ImageBank.load([good[index].path for index in chosen], config.data)


def _simulated(simulator: Simulator, bank: ImageBank, seed: int, samples: torch.Tensor) -> Simulated:
    images = load_batch(bank, samples % len(bank), simulator.device)
    return simulator(images, sample_keys(seed, 0, samples))


def _described(marked: tuple[Sample, ...], config: Config) -> tuple[list[RealDefect], list[str]]:
    """The real defects as the network would see them, and which images cannot be read, and why."""
    real, unread = [], []
    for sample in marked:
        assert sample.truth is not None
        try:
            image = read_image(sample.path)
            mask = load_truth(sample.truth, image.shape[:2], config.data)
        except ImageError as error:
            unread.append(str(error))
            continue
        fitted = fit_image(image, config.data.size, config.data.fit, config.data.interpolation)
        real += [RealDefect(sample.name, sample.defect, defect) for defect in describe(fitted, mask)]
    return real, unread


# ---------------------------------------------------------------------------------------------------------- components


def _components(config: SimulationConfig, bank: ImageBank, seed: int) -> NDArray[np.uint8]:
    """Every kind of mask with one source, then every kind of source with one mask; opaque, whatever their weights."""
    opaque = config.model_copy(update={"beta": (0.0, 0.0), "structural_beta": (0.0, 0.0)})
    chosen = _telling(opaque, bank, seed)
    by_mask = {kind: opaque.model_copy(update=_only(kind, "procedural")) for kind in MASKS}
    by_source = {kind: opaque.model_copy(update=_only(None, kind)) for kind in _sources(config)}
    parts = [_by_kind(by_mask, "mask", bank, seed, chosen), _by_kind(by_source, "source", bank, seed, chosen)]
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in parts]
    )


def _sources(config: SimulationConfig) -> list[SourceKind]:
    """The kinds that can be shown: folders only where they are given."""
    kinds: list[SourceKind] = ["procedural", "flat", *STRUCTURAL]
    return kinds + (["folder"] if config.textures else []) + (["crops"] if config.crops else [])


def _only(mask: MaskKind | None, source: SourceKind) -> dict[str, Any]:
    """Weights for one kind of source, and for one kind of mask unless it stays as configured."""
    sources = SourceWeights(**{**dict.fromkeys(SourceWeights.model_fields, 0.0), source: 1.0})
    if mask is None:
        return {"sources": sources}
    return {"sources": sources, "masks": MaskWeights(**{**dict.fromkeys(MaskWeights.model_fields, 0.0), mask: 1.0})}


def _telling(config: SimulationConfig, bank: ImageBank, seed: int) -> torch.Tensor:
    """Two of the first sixteen samples: those whose masks come closest to a tenth of the image."""
    samples = torch.arange(16)
    masks = _simulated(Simulator(config, bank.size, "cpu"), bank, seed, samples).mask
    return samples[(masks.mean((1, 2, 3)) - _TELLING).abs().argsort(stable=True)[:2]]


def _by_kind(
    configs: dict[Any, SimulationConfig], shown: str, bank: ImageBank, seed: int, samples: torch.Tensor
) -> NDArray[np.uint8]:
    """A column for each kind, and for each sample what is shown of it, and the augmented image."""
    columns = [_simulated(Simulator(config, bank.size, "cpu"), bank, seed, samples) for config in configs.values()]
    rows, captions = [], []
    for index in range(len(samples)):
        for part in (shown, "anomalous"):
            pictures = [
                pixels(getattr(simulated, part)[index : index + 1].expand(-1, 3, -1, -1)) for simulated in columns
            ]
            rows.append([picture[0] for picture in pictures])
            captions.append("augmented" if part == "anomalous" else shown)
    return sheet(rows, [f"{kind} {shown}" if shown == "mask" else kind for kind in configs], captions, cell=(160, 160))
