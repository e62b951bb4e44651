"""Images to take int8 ranges from and to judge the result on: good ones with simulated anomalies, never test images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from draem.data.bank import ImageBank
from draem.data.regions import Regions
from draem.data.registration import registrar_of
from draem.data.samples import Dataset, Sample, content_sum, split_good
from draem.errors import DataError
from draem.modelfile import Header
from draem.pixels import Images
from draem.simulation.batch import load_normal, load_regions
from draem.simulation.draws import sample_keys
from draem.simulation.simulator import Simulator

CALIBRATED, JUDGED = 96, 32
"""Images in all, good ones and ones with a simulated anomaly; every file is used equally often."""
_CALIBRATION_STEP, _JUDGING_STEP = -2, -3
"""Draws that neither training nor its validation has."""


@dataclass(frozen=True)
class Simulations:
    """Images B×C×H×W float32 in [0, 1], and where they are anomalous: B×H×W bool."""

    images: Images
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class Material:
    """What int8 ranges are taken from, what the result is judged on, and both in words."""

    calibration: Simulations
    judging: Simulations
    said: str
    used: tuple[str, ...]
    """Sums of the images: no threshold may be chosen on them (`draem.data.samples.content_sum`)."""


def draw_material(header: Header, dataset: Dataset, progress: Callable[[int, int], None]) -> Material:
    """Simulate anomalies on the good images by the model's own simulation: the same ones at every call.

    Ranges come from the images that the split of training learns from, judgement from those it holds out to select a
    checkpoint (of fewer than five images from the same). `progress` is called with the files read and their number.

    Raises:
        DataError: the data set has no good images outside of its test split, or none can be read.
    """
    config = header.config
    if not dataset.train_good:
        raise DataError(
            f"{dataset.root}: no good images to train with, which int8 takes its ranges from; "
            "give a data set that has some, or use --precision fp16"
        )
    split = split_good(dataset.train_good, config.data.select_share, config.data.calibrate_share, config.training.seed)
    held_out = split.select or split.calibrate or split.train
    parts = [_spread(split.train, CALIBRATED), _spread(held_out, JUDGED)]
    files = sum(len(part) for part in parts)
    calibration = _simulate(header, parts[0], CALIBRATED, _CALIBRATION_STEP, lambda done, _: progress(done, files))
    judging = _simulate(header, parts[1], JUDGED, _JUDGING_STEP, lambda done, _: progress(len(parts[0]) + done, files))
    said = (
        f"{len(calibration.images)} images from {len(parts[0])} good ones of {dataset.name}, of which "
        f"{int(calibration.masks.any((1, 2)).sum())} with a simulated anomaly; judged on {len(judging.images)} from "
        f"{len(parts[1])} others"
    )
    used = tuple(sorted({content_sum(sample.path) for part in parts for sample in part}))
    return Material(calibration, judging, said, used)


def _spread(samples: tuple[Sample, ...], most: int) -> tuple[Sample, ...]:
    """At most so many of them, evenly spaced by name: of several categories or days some of each."""
    count = min(len(samples), most)
    return tuple(samples[place * len(samples) // count] for place in range(count))


def _simulate(
    header: Header, samples: tuple[Sample, ...], count: int, step: int, progress: Callable[[int, int], None]
) -> Simulations:
    config, cpu = header.config, torch.device("cpu")
    paths = [sample.path for sample in samples]
    registrar = registrar_of(header.registration, header.region)
    with ImageBank.load(paths, config.data, progress=progress, registrar=registrar) as bank:
        regions = Regions.of_anomalies(bank, config.simulation.region, header.region, config.data)
        places = torch.arange(count)
        indices = places % len(bank)
        keys = sample_keys(config.training.seed, step, places)
        inspected = Regions.inspected(bank, header.region, config.data)
        images, _ = load_normal(bank, indices, keys, cpu, config, inspected)
        simulated = Simulator(config.simulation, config.data.size, cpu, header.channels)(
            images, keys, load_regions(regions, indices, keys, cpu)
        )
    return Simulations(simulated.anomalous.numpy(), simulated.mask[:, 0].numpy() > 0.5)
