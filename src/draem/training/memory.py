"""Which batch fits into memory, found by trying; and memory that is kept for the next step."""

from __future__ import annotations

import ctypes
import sys

import torch

from draem.config import Config
from draem.inspection.memory import out_of_memory
from draem.network.draem import Draem
from draem.network.losses import taught_loss
from draem.simulation.simulator import Simulated
from draem.training.distillation import Teacher
from draem.training.objective import recipe_losses
from draem.training.optimizer import make_optimizer

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Options of glibc's `mallopt`."""


def largest_batch(config: Config, device: torch.device, below: int, teacher: Teacher | None = None) -> int:
    """The largest power of two below `below` with which a training step fits; 0 if even the smallest does not.

    A teacher lies on the device already; what it holds while it answers is counted.
    """
    size = 1 << max(below - 1, 0).bit_length() - 1 if below > 1 else 0
    while size >= smallest_batch(config):
        try:
            _try_step(config, device, size, teacher)
            return size
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        size //= 2
    return 0


def smallest_batch(config: Config) -> int:
    """BatchNorm needs two values a channel, and the innermost layer sees one pixel of `stride` a side."""
    return 1 if max(config.data.size) > config.network.stride else 2


def _try_step(config: Config, device: torch.device, size: int, teacher: Teacher | None) -> None:
    """Forward, a teacher's answer, backward and the optimiser's moments, on black images."""
    channels = config.data.pixel_format.channels
    network = Draem(config.network, channels).to(device)
    images = torch.zeros(size, channels, *config.data.size, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.training.precision != "fp32"):
        reconstruction, logits = network(images)
        answer = None if teacher is None else teacher.logits(images)
    simulated = Simulated(normal=images, anomalous=images, mask=images[:, :1], source=images)
    total = recipe_losses(config, reconstruction, logits, simulated, None).total
    if answer is not None:
        total = total + taught_loss(logits, answer, 2.0)
    total.backward()  # type: ignore[no-untyped-call]
    make_optimizer(network, config.training, device).step()


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one, instead of giving it back and faulting it in again.

    A step frees gigabytes in large blocks; keeping them saves most of its page faults (docs/experiments.md). It holds
    for the whole process, which keeps the memory of its largest step until it ends.
    Elsewhere, or with another allocator, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_MAX, 0)
        set_option(_TRIM_THRESHOLD, 2**31 - 1)
