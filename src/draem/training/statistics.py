"""Running statistics of BatchNorm that do not depend on how a batch was cut.

Each part of a batch (a forward pass, on whichever process) updates them from the same starting point, and the step ends
with their mean. So one process that accumulates k parts and k processes with one part each end alike.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor, nn


class PartStatistics:
    """Averages the floating point buffers of a network over the parts of a step."""

    def __init__(self, network: nn.Module, parts: int, processes: int = 1) -> None:
        self._buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self._processes = processes
        self._parts = parts * processes
        self._needed = self._parts > 1
        self._start: list[Tensor] = []
        self._sum: list[Tensor] = []

    def begin_step(self) -> None:
        """Remember where the parts of this step start from."""
        if self._needed:
            self._start = [buffer.clone() for buffer in self._buffers]
            self._sum = [torch.zeros_like(buffer) for buffer in self._buffers]

    def end_part(self) -> None:
        """Take in what this part made of them, and go back to the start."""
        if self._needed:
            torch._foreach_add_(self._sum, self._buffers)
            torch._foreach_copy_(self._buffers, self._start)

    def end_step(self) -> None:
        """Set them to the mean over all parts of all processes."""
        if self._needed:
            flat = torch.cat([total.flatten() for total in self._sum])
            if self._processes > 1:
                torch.distributed.all_reduce(flat)  # not Fabric's: that one waits for all devices first
            flat /= self._parts
            sizes = [buffer.numel() for buffer in self._buffers]
            for buffer, mean in zip(self._buffers, torch.split(flat, sizes), strict=True):
                buffer.copy_(mean.view_as(buffer))
