"""Which image is seen when: a pure function of the seed and the position in the run."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from draem.simulation.draws import sample_keys

_NO_SAMPLE = torch.tensor([-1])
"""The index of no sample: an epoch's order is drawn apart from every simulated anomaly."""


def image_indices(
    positions: Tensor, images: int, seed: int, sampling: Literal["shuffle", "replacement"] = "shuffle"
) -> Tensor:
    """Indices into the training images for global sample positions (int64, counted over the whole run).

    `shuffle` sees every image once an epoch; `replacement` draws each anew, as the published code does.
    """
    epochs = torch.div(positions, images, rounding_mode="floor")
    first, last = int(epochs.min()), int(epochs.max())
    orders = torch.stack([_order(images, seed, epoch, sampling) for epoch in range(first, last + 1)])
    return orders[epochs - first, positions % images]


@lru_cache(maxsize=4)
def _order(images: int, seed: int, epoch: int, sampling: str) -> Tensor:
    # The generator heeds the lowest 32 bits alone: seed and epoch are hashed into them.
    generator = torch.Generator().manual_seed(int(sample_keys(seed, epoch, _NO_SAMPLE)) & 0xFFFFFFFF)
    if sampling == "replacement":
        return torch.randint(images, (images,), generator=generator)
    return torch.randperm(images, generator=generator)
