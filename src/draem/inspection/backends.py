"""What runs a network: one `run` for all. Each runtime is loaded only when a model needs it.

A backend takes a batch B×C×H×W float32 in [0,1] and gives anomaly maps B×H×W float32 in [0,1] and reconstructions
B×C×H×W float32. It may be called from several threads, and raises MemoryLimitError where a batch does not fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from draem.errors import ConfigError, MissingExtraError
from draem.inspection.execution import BackendName, Execution
from draem.inspection.onnx_backend import OnnxBackend
from draem.inspection.openvino_backend import OpenvinoBackend
from draem.modelfile import Header, read_model, refuse_no_file
from draem.pixels import Images

RUNS: dict[str, tuple[BackendName, ...]] = {
    ".safetensors": ("torch",),
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
}
"""Which backends run which kind of model file."""


class Backend(Protocol):
    """Runs one network.

    Attributes:
        name: of the backend.
        execution: backend, version, device, precision, in words; what a certificate states.
        in_flight: how many runs at the same time, from as many threads, keep it busy.
    """

    name: str
    execution: str
    in_flight: int

    def run(self, images: Images) -> tuple[Images, Images]:
        """Anomaly maps and reconstructions of a batch."""
        ...


def open_backend(path: Path, execution: Execution = Execution()) -> tuple[Backend, Header]:  # noqa: B008 (frozen)
    """The backend for a model file, and its header.

    Raises:
        ModelFileError: the file is damaged, or of a kind that is not read.
        MissingExtraError: its runtime is not installed.
        ConfigError: there is no such device, or the backend does not run this kind of file.
    """
    refuse_no_file(path)
    able = RUNS.get(path.suffix.lower(), ())
    if able and execution.backend not in ("auto", *able):
        raise ConfigError(
            f"{path}: backend {execution.backend} does not run {path.suffix} files; use {' or '.join(able)}"
        )
    if able == ("torch",):
        return _open_torch(path, execution)
    sealed = read_model(path)
    name = able[0] if execution.backend == "auto" else execution.backend
    runner = OnnxBackend if name == "onnxruntime" else OpenvinoBackend
    return runner(path, sealed, execution), sealed.header


def _open_torch(path: Path, execution: Execution) -> tuple[Backend, Header]:
    try:
        from draem.inspection.torch_backend import TorchBackend, choose_device
        from draem.network.weights import load_model
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from None
    network, header = load_model(path)
    return TorchBackend(network, choose_device(execution.device)), header
