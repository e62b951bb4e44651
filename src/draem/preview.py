"""A picture of what a configuration simulates."""

from __future__ import annotations

from pathlib import Path

import torch

from draem.config import Config
from draem.data.bank import ImageBank
from draem.data.formats import resolve_format
from draem.data.layouts import read_layout
from draem.data.regions import Regions
from draem.errors import DataError
from draem.images import write_image
from draem.simulation.batch import load_batch, load_regions
from draem.simulation.draws import sample_keys
from draem.simulation.simulator import Simulator, contact_sheet


def write_preview(
    data: Path, out: Path, config: Config, count: int, seed: int, category: str | None = None
) -> list[str]:
    """Write a contact sheet of `count` simulated anomalies on a data set's good images.

    Returns:
        What there is to say: images left out and why, and where the anomalies lie.

    Raises:
        DataError: no good images, or none that can be read.
    """
    good = read_layout(data, config.data.layout, category).train_good
    if not good:
        raise DataError(f"{data}: no good images to simulate on")
    chosen = torch.randperm(len(good), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    data_config, _ = resolve_format(config.data, [sample.path for sample in good])
    bank = ImageBank.load([good[index].path for index in chosen], data_config)
    samples = torch.arange(count)
    indices, device = samples % len(bank), torch.device("cpu")
    regions = Regions.of(bank, config.simulation.region, data_config)
    images, region = load_batch(bank, indices, device), load_regions(regions, indices, device)
    # Clean samples show nothing: the sheet has none.
    settings = config.simulation.model_copy(update={"clean_share": 0.0})
    simulated = Simulator(settings, config.data.size, device, data_config.pixel_format.channels)(
        images, sample_keys(seed, 0, samples), region
    )
    write_image(out, contact_sheet(simulated))
    return [f"left out: {reason}" for _, reason in bank.skipped] + ([str(regions)] if regions else [])
