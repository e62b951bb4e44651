"""Many simulated anomalies in figures: what a configuration simulates on a data set's images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from draem.config import SimulationConfig
from draem.data.bank import ImageBank
from draem.data.defects import Defect, describe
from draem.data.regions import Regions
from draem.pixels import Pixels
from draem.simulation.batch import load_batch, load_regions
from draem.simulation.draws import sample_keys
from draem.simulation.lighting import relight
from draem.simulation.simulator import Simulated, Simulator

_BATCH = 8
_DESCRIBED = 8
"""Of one sample: fine noise makes hundreds of spots, which would speak for everything that is simulated."""


@dataclass(frozen=True)
class Stage:
    """The good images that anomalies are simulated on."""

    bank: ImageBank
    seed: int
    regions: Regions | None = None

    def simulator(self, config: SimulationConfig) -> Simulator:
        """What simulates on these images, on the CPU."""
        return Simulator(config, self.bank.size, "cpu", self.bank[0].shape[-1])

    def simulate(self, simulator: Simulator, samples: Tensor) -> Simulated:
        """Simulate these samples (int64 B), each on the image whose turn it is; the same number, the same sample."""
        places = samples % len(self.bank)
        keys = sample_keys(self.seed, 0, samples)
        images = relight(load_batch(self.bank, places, keys, simulator.device), keys, simulator.config.lighting)
        return simulator(images, keys, load_regions(self.regions, places, keys, simulator.device))

    def as_files(self, images: Tensor) -> Pixels:
        """Images, B×C×H×W in [0, 1], with the steps of the bank's: B×H×W×C."""
        dtype = self.bank[0].dtype
        levels = images.cpu().clamp(0, 1).mul(np.iinfo(dtype).max).round()
        return np.asarray(levels.permute(0, 2, 3, 1).numpy(), dtype)


@dataclass(frozen=True)
class Survey:
    """Figures of simulated anomalies."""

    areas: list[float]
    """Share of the image that each sample's mask covers."""
    counts: list[int]
    """Connected defects in each sample."""
    defects: list[Defect]
    """Of each sample at most eight, spread over their sizes."""


def survey(
    simulator: Simulator, stage: Stage, count: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Survey:
    """Simulate `count` samples, and describe what is to be seen.

    The normal image behind an anomaly is not looked at, since real defects have none.
    """
    found = Survey([], [], [])
    for samples in torch.split(torch.arange(count), _BATCH):
        _add(found, stage, stage.simulate(simulator, samples))
        progress(int(samples[-1]) + 1, count)
    return found


def _add(found: Survey, stage: Stage, simulated: Simulated) -> None:
    masks = (simulated.mask[:, 0] > 0.5).cpu().numpy()
    for image, mask in zip(stage.as_files(simulated.anomalous), masks, strict=True):
        defects = describe(image, mask, _DESCRIBED)
        found.areas.append(float(mask.mean()))
        found.counts.append(defects[0].count if defects else 0)
        found.defects.extend(defects)
