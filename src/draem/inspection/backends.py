"""What runs a network: one `run` for all; torch is loaded only when a torch model is.

A backend takes a batch B×C×H×W float32 in [0,1] and gives anomaly maps B×H×W float32 in [0,1] and reconstructions
B×C×H×W float32. It may be called from several threads, and raises MemoryLimitError where a batch does not fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from draem.errors import ConfigError, MemoryLimitError, MissingExtraError, ModelFileError
from draem.modelfile import Header, refuse_no_file

if TYPE_CHECKING:
    from draem.network.draem import Draem

Images = NDArray[np.float32]
Device = Literal["auto", "cpu", "cuda", "mps"]


class Backend(Protocol):
    """Runs one network."""

    name: str

    def run(self, images: Images) -> tuple[Images, Images]:
        """Anomaly maps and reconstructions of a batch."""
        ...


class TorchBackend:
    """Runs a network in torch, in float32."""

    name = "torch"

    def __init__(self, network: Draem, device: str = "cpu") -> None:
        import torch

        self._device = torch.device(device)
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


def open_backend(path: Path, device: Device = "auto") -> tuple[Backend, Header]:
    """The backend for a model file, and its header.

    Raises:
        ModelFileError: the file is damaged, or of a kind that is not read.
        MissingExtraError: its runtime is not installed.
        ConfigError: there is no such device.
    """
    refuse_no_file(path)
    if path.suffix != ".safetensors":
        raise ModelFileError(f"{path}: a draem model ends in .safetensors; published weights come in by import-weights")
    try:
        from draem.network.weights import load_model
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from None
    network, header = load_model(path)
    return TorchBackend(network, choose_device(device)), header


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
