"""Runs a network in torch, which is loaded only when a model needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from draem.errors import ConfigError
from draem.inspection.execution import Device, Execution, in_words
from draem.inspection.memory import within_memory
from draem.inspection.processor import usable_cores
from draem.pixels import Images

if TYPE_CHECKING:
    from draem.network.draem import Draem


class TorchBackend:
    """Runs a network in torch; in half precision its weights are changed to it."""

    name = "torch"

    def __init__(self, network: Draem, device: str = "cpu", execution: Execution = Execution()) -> None:  # noqa: B008
        import torch

        if execution.precision == "fp16" and device == "cpu":
            raise ConfigError("precision fp16: torch has it on accelerators alone; use fp32 or bf16 on a CPU")
        self._device = torch.device(device)
        self._type = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[execution.precision]
        # More than the cores would wait for each other. Each run has a team of threads of its own.
        threads = min(execution.threads, usable_cores()) if execution.threads else None
        self._threads = max(1, threads // execution.streams) if threads else None
        self.in_flight = execution.streams
        shown = (threads or torch.get_num_threads()) if device == "cpu" else None
        self.execution = in_words(f"torch {torch.__version__}", device, execution.precision, shown, execution.streams)
        self._network = network.eval().to(self._device, self._type).channels_last()

    def run(self, images: Images) -> tuple[Images, Images]:
        """See `draem.inspection.execution.Backend`."""
        import torch

        from draem.network.draem import anomaly_map

        with within_memory(images), torch.inference_mode(), _threads(self._threads):
            batch = torch.from_numpy(images).to(self._device, self._type, memory_format=torch.channels_last)
            reconstruction, logits = self._network(batch)
            maps = anomaly_map(logits.float())
            return maps.cpu().numpy(), reconstruction.float().contiguous().cpu().numpy()


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """So many threads for what the calling thread does in this block; none: as many as it has."""
    import torch

    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_device(device: Device) -> str:
    """`auto` is CUDA, else MPS, else CPU.

    Raises:
        ConfigError: the device asked for is not there.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, available in there.items() if available)
    if not there.get(device, False):
        raise ConfigError(f"device {device} is not available here; use cpu or auto")
    return device
