"""What a configuration simulates, in pictures and figures: `draem simulate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from draem.components import component_sheet
from draem.config import Config, DataConfig
from draem.data.bank import ImageBank
from draem.data.defects import Defect, describe
from draem.data.formats import resolve_format
from draem.data.interest import interest_of
from draem.data.layouts import read_layout
from draem.data.regions import Regions
from draem.data.registration import registrar_of, registration_of
from draem.data.samples import Dataset, Sample
from draem.data.truth import load_truth
from draem.errors import DataError, ImageError, MissingExtraError
from draem.files import atomic_write
from draem.images import fit_image, read_pixels, write_image
from draem.inspection.tiling import Tiling
from draem.pictures import overlay, scaled, sheet
from draem.pixels import Pixels, view
from draem.plots import coverage_plot, statistics_plot
from draem.simulation.coverage import Coverage, RealDefect, compare
from draem.simulation.simulator import contact_sheet
from draem.simulation.survey import Stage, survey

Progress = Callable[[int, int], None]

_IMAGES = 200
"""Good images that figures are taken on."""
_CELL = (192, 192)
_SURVEYED, _COMPARED = 200, 1000
"""Simulated samples behind the statistics, and behind a comparison."""


@dataclass(frozen=True)
class Preview:
    """What was written, what was left out and why, where anomalies lie, and how the real defects compare."""

    pictures: list[Path]
    left_out: list[str]
    region: str | None
    """Where anomalies lie, in words; none: everywhere."""
    coverage: Coverage | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        coverage = None if self.coverage is None else self.coverage.to_dict()
        pictures = [str(path) for path in self.pictures]
        return {"pictures": pictures, "left_out": self.left_out, "region": self.region, "coverage": coverage}


def write_preview(
    data: Path,
    out: Path,
    config: Config,
    count: int,
    seed: int,
    category: str | None = None,
    comparing: bool = False,
    progress: Progress = lambda done, total: None,
) -> Preview:
    """Write what is simulated on a data set's good images.

    OUT shows `count` samples, OUT-components every kind of mask and source side by side, OUT-region where anomalies may
    lie, unless everywhere, and OUT-statistics how hundreds of samples are distributed; `comparing` adds
    OUT-coverage: where the data set's real defects lie among them. Without matplotlib the plots are left out.

    Raises:
        DataError: no good images, none that can be read, or nothing to compare with.
    """
    dataset = read_layout(data, config.data.layout, category)
    if not dataset.train_good:
        raise DataError(f"{data}: no good images to simulate on")
    marked = _marked(dataset) if comparing else ()
    data_config, _ = resolve_format(config.data, [sample.path for sample in dataset.train_good])
    with _bank(dataset, data_config, max(count, _IMAGES), seed) as bank:
        regions = Regions.of_anomalies(bank, config.simulation.region, interest_of(data_config), data_config)
        stage = Stage(bank, seed, regions)
        settings = config.simulation.model_copy(update={"clean_share": 0.0})  # clean samples show nothing
        simulator = stage.simulator(settings)
        write_image(out, contact_sheet(stage.simulate(simulator, torch.arange(count))))
        pictures = [out, _beside(out, "components")]
        write_image(pictures[1], component_sheet(settings, stage))
        if regions is not None:
            pictures.append(_beside(out, "region"))
            write_image(pictures[-1], _region_sheet(bank, regions, count))
        surveyed = survey(simulator, stage, _COMPARED if comparing else _SURVEYED, progress)
    left_out = [reason for _, reason in bank.skipped]
    region = None if regions is None else str(regions)
    coverage = None
    if comparing:
        real, unread = _described(marked, data_config)
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
    return Preview(pictures, left_out, region, coverage)


def _beside(out: Path, part: str) -> Path:
    return out.with_name(f"{out.stem}-{part}{out.suffix}")


def _region_sheet(bank: ImageBank, regions: Regions, count: int) -> NDArray[np.uint8]:
    """The images of the samples with the region outlined, and how clearly it stands out."""
    shown = min(count, len(bank))
    rows = []
    for place in range(shown):
        mask = regions.whole(place)
        rows.append(
            [scaled(picture, _CELL) for picture in (overlay(view(bank[place][0]), np.zeros(mask.shape), mask), mask)]
        )
    captions = [f"quality {quality:.2f}" for quality in regions.qualities[:shown]]
    return sheet(rows, ("image", "region"), captions, cell=_CELL)


def _marked(dataset: Dataset) -> tuple[Sample, ...]:
    """The anomalous images whose defects are marked."""
    marked = tuple(sample for sample in dataset.anomalous if sample.truth is not None)
    if not marked:
        raise DataError(
            f"{dataset.root}: no real defects with masks to compare with: leave --compare away, or give a data set "
            "with test/<defect> and ground_truth/<defect>"
        )
    return marked


def _bank(dataset: Dataset, config: DataConfig, count: int, seed: int) -> ImageBank:
    good = dataset.train_good
    chosen = torch.randperm(len(good), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    registrar = registrar_of(registration_of(config), interest_of(config))
    return ImageBank.load([good[index].path for index in chosen], config, registrar=registrar)


def _described(marked: tuple[Sample, ...], config: DataConfig) -> tuple[list[RealDefect], list[str]]:
    """The real defects as the network would see them, and which images cannot be read, and why."""
    real, unread = [], []
    for sample in marked:
        assert sample.truth is not None
        try:
            image = read_pixels(sample.path, config.pixel_format)
            mask = load_truth(sample.truth, (image.shape[0], image.shape[1]), config)
        except ImageError as error:
            unread.append(str(error))
            continue
        fitted = fit_image(image, *config.frame((image.shape[0], image.shape[1])), config.interpolation)
        real += [RealDefect(sample.name, sample.defect, defect) for defect in _seen(fitted, mask, config)]
    return real, unread


def _seen(image: Pixels, mask: NDArray[np.bool_], config: DataConfig) -> list[Defect]:
    """The defects on an image as simulated ones are seen: within one input of the network."""
    found = []
    for top, left in Tiling.of(mask.shape, config.size, overlap=0, step=1).corners:
        part = slice(top, top + config.size[0]), slice(left, left + config.size[1])
        if mask[part].any():
            for defect in describe(image[part], mask[part]):
                first, above, last, below = defect.box
                found.append(replace(defect, box=(first + left, above + top, last + left, below + top)))
    return found
