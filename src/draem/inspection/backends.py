"""The backend for a model file; each runtime is loaded only when a model needs it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from draem.errors import ConfigError, MissingExtraError
from draem.inspection import onnx_backend, openvino_backend
from draem.inspection.execution import Backend, BackendName, Execution
from draem.inspection.fastest import open_fastest
from draem.inspection.fixed_batch import FixedBatch
from draem.inspection.onnx_backend import OnnxBackend
from draem.inspection.openvino_backend import OpenvinoBackend
from draem.inspection.processor import lacks_bf16
from draem.modelfile import Header, Sealed, read_model, refuse_no_file

__all__ = ["RUNS", "Backend", "open_backend"]

_log = logging.getLogger(__name__)
RUNS: dict[str, tuple[BackendName, ...]] = {
    ".safetensors": ("torch",),
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
}
"""Which backends run which kind of model file."""
_DEVICES = {"onnxruntime": tuple(onnx_backend.DEVICES), "openvino": tuple(openvino_backend.DEVICES)}


def open_backend(path: Path, execution: Execution = Execution()) -> tuple[Backend, Header]:  # noqa: B008 (frozen)
    """The backend for a model file, and its header.

    Raises:
        ModelFileError: the file is damaged, or of a kind that is not read.
        MissingExtraError: its runtime is not installed.
        ConfigError: there is no such device, or the backend does not run this kind of file in this way.
    """
    refuse_no_file(path)
    able = RUNS.get(path.suffix.lower(), ())
    if able and execution.backend not in ("auto", *able):
        raise ConfigError(
            f"{path}: backend {execution.backend} does not run {path.suffix} files; use {' or '.join(able)}"
        )
    if execution.precision == "bf16" and execution.device in ("auto", "cpu") and lacks_bf16():
        _log.warning("precision bf16: this processor has no such arithmetic, fp32 is faster on it")
    if able == ("torch",):
        return _open_torch(path, execution)
    sealed = read_model(path)
    names = able if execution.backend == "auto" else (execution.backend,)
    return open_fastest(_openers(names, path, sealed, execution), sealed.header, execution), sealed.header


def _openers(
    names: tuple[BackendName, ...], path: Path, sealed: Sealed, execution: Execution
) -> dict[str, Callable[[], Backend]]:
    """How each backend is opened; of several, those that have the device, and of these those that are installed."""
    able = [name for name in names if execution.device in _DEVICES[name]] or names
    there = [name for name in able if len(able) == 1 or find_spec(name)]
    return {name: partial(_open_graph, name, path, sealed, execution) for name in there or able}


def _open_graph(name: BackendName, path: Path, sealed: Sealed, execution: Execution) -> Backend:
    runner = OnnxBackend if name == "onnxruntime" else OpenvinoBackend
    backend = runner(path, sealed, execution)
    artefact = sealed.header.artefact
    return FixedBatch(backend, artefact.batch) if artefact and artefact.batch else backend


def _open_torch(path: Path, execution: Execution) -> tuple[Backend, Header]:
    try:
        from draem.inspection.torch_backend import TorchBackend, choose_device
        from draem.network.weights import load_model
    except ModuleNotFoundError:
        raise MissingExtraError("torch", "train", "or export the model where it is (draem export)") from None
    network, header = load_model(path)
    return TorchBackend(network, choose_device(execution.device), execution), header
