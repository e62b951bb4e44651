"""Runs a network in ONNX Runtime, on the CPU or by one of its providers for accelerators."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from draem.errors import BrokenPackageError, ConfigError, ModelFileError
from draem.inspection.execution import Execution, in_words, int8_in_words
from draem.inspection.memory import within_memory
from draem.inspection.overflow import PROBE, Run, exact_settings
from draem.inspection.processor import usable_cores
from draem.inspection.signature import INPUT, Port, refuse_other_graph
from draem.modelfile import Sealed
from draem.pixels import Images

_PROVIDERS = {
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "directml": ("DmlExecutionProvider", "onnxruntime-directml"),
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
}
"""By device: the provider, and the package that brings it in the place of `onnxruntime`."""
DEVICES = ("auto", *sorted(_PROVIDERS))
_FOUND = ("cuda", "directml", "cpu")
"""What `auto` looks for; TensorRT, which takes minutes to prepare a network, only where it is asked for."""


def import_onnxruntime() -> Any:
    """The package onnxruntime, which is kept from reporting its use over the network.

    Raises:
        ConfigError: it is not installed.
        BrokenPackageError: it does not load.
    """
    # Read when it is loaded; turning its events off later leaves the first one, which is sent seconds afterwards.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # where the caller has loaded it before
    except (ImportError, OSError, AttributeError) as error:  # the last: a folder that a removed one has left
        if isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime":
            raise ConfigError("backend onnxruntime: it is not installed; run pip install onnxruntime") from None
        raise BrokenPackageError("onnxruntime", error) from None
    return onnxruntime


@cache
def int8_entries() -> dict[str, str]:
    """What a session of an int8 model is told on this CPU; see `draem.inspection.overflow.exact_settings`."""
    onnxruntime = import_onnxruntime()

    def running(entries: dict[str, str]) -> Run:
        session = onnxruntime.InferenceSession(PROBE, session_options(entries), providers=["CPUExecutionProvider"])
        return lambda images: np.asarray(session.run(None, {"x": images})[0])

    return exact_settings(f"ONNX Runtime {onnxruntime.__version__}", {"session.disable_quant_qdq": "1"}, running)


def session_options(entries: dict[str, str]) -> Any:
    """Options of a silent session."""
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 4
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return options


class OnnxBackend:
    """Runs an ONNX model.

    Raises:
        ConfigError: the provider for the device is not installed or does not start, or has no such precision.
        ModelFileError: ONNX Runtime cannot load the model.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, sealed: Sealed, execution: Execution) -> None:
        onnxruntime = import_onnxruntime()
        device = _choose(execution, onnxruntime.get_available_providers())
        artefact = sealed.header.artefact
        # On any device: what an accelerator leaves over, or all of it where it does not start, the CPU runs.
        exact = int8_entries() if artefact and artefact.precision == "int8" else {}
        options = session_options(exact)
        # With more threads than cores they wait for each other: with hundreds, without end. OpenVINO caps them itself.
        threads = min(execution.threads or usable_cores(), usable_cores())
        if execution.threads or execution.streams > 1:
            # Runs share the session's pool, and each brings the thread that asks for it.
            options.intra_op_num_threads = max(1, threads - execution.streams + 1)
        try:
            self._session = onnxruntime.InferenceSession(
                sealed.content, options, providers=[(_PROVIDERS[device][0], _provider_options(device, execution))]
            )
        except Exception as error:  # its errors share no base but this
            raise ModelFileError(
                f"{path}: ONNX Runtime cannot load it ({' '.join(str(error).split())[:120]})"
            ) from None
        inputs, outputs = (_ports(nodes) for nodes in (self._session.get_inputs(), self._session.get_outputs()))
        refuse_other_graph(path, sealed.header, inputs, outputs)
        if self._session.get_providers()[0] != _PROVIDERS[device][0]:
            if execution.device != "auto":
                raise ConfigError(f"device {device}: ONNX Runtime cannot start it here (its driver?); use cpu")
            device = "cpu"
        self.in_flight = execution.streams
        self.execution = in_words(
            f"onnxruntime {onnxruntime.__version__}",
            device,
            _computed(sealed, execution, emulated=bool(exact) and device == "cpu"),
            threads if device == "cpu" else None,
            execution.streams,
        )

    def run(self, images: Images) -> tuple[Images, Images]:
        """See `draem.inspection.execution.Backend`."""
        with within_memory(images):
            maps, reconstructions = self._session.run(None, {INPUT: images})
        return maps, reconstructions


def _ports(nodes: list[Any]) -> list[Port]:
    """Inputs or outputs as a session tells them; a side that is not a number is free."""
    return [
        Port(
            node.name,
            node.type == "tensor(float)",
            tuple(side if isinstance(side, int) else None for side in node.shape),
        )
        for node in nodes
    ]


def _computed(sealed: Sealed, execution: Execution, *, emulated: bool) -> str:
    """The precision in words: the runtime computes as the file was exported, unless it is told otherwise."""
    stored = sealed.header.artefact.precision if sealed.header.artefact else "fp32"
    if stored == "int8":
        return int8_in_words(execution.precision, emulated=emulated)
    return stored if execution.precision == "fp32" else execution.precision


def _choose(execution: Execution, installed: list[str]) -> str:
    """The device that runs, of those whose provider is installed.

    Raises:
        ConfigError: the one asked for is not, or it has not the precision asked for.
    """
    if execution.device == "auto":
        device = next(name for name in _FOUND if _PROVIDERS[name][0] in installed)
    elif execution.device not in _PROVIDERS:
        raise ConfigError(
            f"device {execution.device}: ONNX Runtime runs on {', '.join(DEVICES)}"
            + ("; --backend openvino runs on it" if execution.device == "intel-gpu" else "")
        )
    else:
        device = execution.device
    provider, package = _PROVIDERS[device]
    if provider not in installed:
        raise ConfigError(
            f"device {device}: this ONNX Runtime has no {provider}; run pip uninstall onnxruntime and "
            f"pip install {package}"
        )
    if execution.precision != "fp32" and device != "tensorrt":
        raise ConfigError(
            f"precision {execution.precision}: ONNX Runtime on {device} computes as the file was exported; use fp32, "
            "or --backend openvino"
        )
    return device


def _provider_options(device: str, execution: Execution) -> dict[str, Any]:
    if device == "cuda":
        return {"use_tf32": "0"}  # which it does otherwise, and rounds to 10 bits
    if device == "tensorrt" and execution.precision != "fp32":
        return {f"trt_{execution.precision}_enable": "1"}
    return {}
