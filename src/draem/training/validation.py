"""How well a network finds simulated defects on good images that it was not trained on. Never on test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from draem.config import Config
from draem.data.bank import ImageBank
from draem.data.regions import Regions
from draem.evaluation.metrics import Metrics, MetricsAccumulator
from draem.inspection.residual import scored_maps
from draem.inspection.scoring import image_score
from draem.modelfile import RegionOfInterest
from draem.network.draem import Draem, anomaly_map
from draem.pictures import heat_map, sheet
from draem.pixels import view
from draem.simulation.batch import load_normal, load_regions
from draem.simulation.draws import sample_keys
from draem.simulation.simulator import Simulator
from draem.training.objective import recipe_losses

SAMPLES = 48
"""At least this many simulated samples; every select image is used equally often."""
_STEP = -1
"""Draws of the validation lie at a step that no training has."""
_PICTURED = 4


@dataclass(frozen=True)
class Validation:
    """Metrics on simulated defects, the mean loss, and a picture of some samples."""

    metrics: Metrics
    loss: float
    picture: NDArray[np.uint8]


@torch.no_grad()
def validate(
    network: Draem,
    simulator: Simulator,
    bank: ImageBank,
    config: Config,
    device: torch.device,
    regions: Regions | None = None,
    interest: RegionOfInterest | None = None,
) -> Validation:
    """Score the network on simulated defects, which lie in the regions; every call sees the same ones.

    Nothing counts outside of the region of interest.

    Runs in the mode of the surrounding autocast; the network is left in the mode it was in.
    """
    repeats = -(-SAMPLES // len(bank))
    count = repeats * len(bank)
    size = config.training.batch_size
    accumulator = MetricsAccumulator()
    losses: list[Tensor] = []
    rows: list[tuple[bool, list[NDArray[np.uint8]]]] = []
    was_training, inspected = network.training, Regions.inspected(bank, interest, config.data)
    network.eval()
    for start in range(0, count, size):
        samples = torch.arange(start, min(start + size, count))
        indices = samples % len(bank)
        keys = sample_keys(config.training.seed, _STEP, samples)
        images, counted = load_normal(bank, indices, keys, device, config, inspected)
        simulated = simulator(images, keys, load_regions(regions, indices, keys, device))
        reconstruction, logits = network(simulated.anomalous)
        terms = recipe_losses(config, reconstruction, logits, simulated, counted)
        losses.append(terms.total * len(samples))
        maps = scored_maps(
            config.score.map,
            anomaly_map(logits.float()).cpu().numpy(),
            simulated.anomalous.cpu().numpy(),
            reconstruction.float().cpu().numpy(),
        )
        masks = simulated.mask[:, 0].cpu().numpy() > 0.5
        kept = [None] * len(maps) if counted is None else list(counted[:, 0].cpu().numpy() > 0.5)
        for found, mask, inside in zip(maps, masks, kept, strict=True):
            seen = found if inside is None else np.where(inside, found, np.float32(0))
            score = image_score(seen, config.score.filter_size)
            accumulator.add(score, bool(mask.any()), seen, mask, counted=inside)
        if sum(anomalous for anomalous, _ in rows) < _PICTURED:
            views = (simulated.normal, simulated.anomalous, reconstruction)
            pictures = [_pictures(view) for view in views]
            rows += [
                (bool(mask.any()), [normal, seen, restored, _grey(mask), heat_map(found)])
                for normal, seen, restored, mask, found in zip(*pictures, masks, maps, strict=True)
            ]
    network.train(was_training)
    rows.sort(key=lambda row: not row[0])  # anomalous ones first, clean ones only where there are too few
    picture = sheet(
        [row for _, row in rows[:_PICTURED]], ["normal", "simulated", "reconstruction", "mask", "anomaly map"]
    )
    return Validation(accumulator.overall(), float(torch.stack(losses).sum()) / count, picture)


def _pictures(images: Tensor) -> NDArray[np.uint8]:
    return view(images.float().cpu().permute(0, 2, 3, 1).numpy())


def _grey(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
