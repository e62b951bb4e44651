"""Runs a network in torch, which is loaded only when a model needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from draem.errors import ConfigError, MemoryLimitError
from draem.inspection.execution import Device
from draem.pixels import Images

if TYPE_CHECKING:
    from draem.network.draem import Draem


class TorchBackend:
    """Runs a network in torch, in float32."""

    name = "torch"
    in_flight = 1

    def __init__(self, network: Draem, device: str = "cpu") -> None:
        import torch

        self._device = torch.device(device)
        self.execution = f"torch {torch.__version__} on {device} in fp32"
        self._network = network.eval().to(self._device).channels_last()

    def run(self, images: Images) -> tuple[Images, Images]:
        """See the module."""
        import torch

        from draem.network.draem import anomaly_map

        try:
            with torch.inference_mode():
                batch = torch.from_numpy(images).to(self._device, memory_format=torch.channels_last)
                reconstruction, logits = self._network(batch)
                maps = anomaly_map(logits.float())
                return maps.cpu().numpy(), reconstruction.float().contiguous().cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise MemoryLimitError(f"out of memory with {len(images)} images of {images.shape[2:]} at once") from None


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


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or the system says that memory ran out."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)
