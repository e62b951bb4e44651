"""A picture of what a configuration simulates."""

from __future__ import annotations

from pathlib import Path

import torch

from draem.config import Config
from draem.data.bank import ImageBank
from draem.data.layouts import read_layout
from draem.errors import DataError
from draem.images import write_image
from draem.simulation.batch import load_batch
from draem.simulation.draws import sample_keys
from draem.simulation.simulator import Simulator, contact_sheet


def write_preview(
    data: Path, out: Path, config: Config, count: int, seed: int, category: str | None = None
) -> list[str]:
    """Write a contact sheet of `count` simulated anomalies on a data set's good images.

    Returns:
        What was left out, since it cannot be read, and why.

    Raises:
        DataError: no good images, or none that can be read.
    """
    good = read_layout(data, config.data.layout, category).train_good
    if not good:
        raise DataError(f"{data}: no good images to simulate on")
    chosen = torch.randperm(len(good), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    bank = ImageBank.load([good[index].path for index in chosen], config.data)
    samples = torch.arange(count)
    images = load_batch(bank, samples % len(bank), torch.device("cpu"))
    # Clean samples show nothing: the sheet has none.
    settings = config.simulation.model_copy(update={"clean_share": 0.0})
    simulated = Simulator(settings, config.data.size, "cpu")(images, sample_keys(seed, 0, samples))
    write_image(out, contact_sheet(simulated))
    return [reason for _, reason in bank.skipped]
