"""Runs a network in OpenVINO."""

from __future__ import annotations

import logging
import sys
from functools import cache
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np

from draem.errors import BrokenPackageError, ConfigError, MissingExtraError, ModelFileError
from draem.inspection.execution import Execution, in_words, int8_in_words
from draem.inspection.memory import within_memory
from draem.inspection.overflow import PROBE, Run, exact_settings
from draem.inspection.signature import INPUT, OUTPUTS, Port, refuse_other_graph
from draem.modelfile import Sealed
from draem.pixels import Images

_log = logging.getLogger(__name__)
_HINTS: dict[str, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_NAMES = {hint: name for name, hint in _HINTS.items()}
DEVICES = {"auto": "CPU", "cpu": "CPU", "intel-gpu": "GPU"}


def import_openvino() -> Any:
    """The package openvino, which is kept from reporting its use over the network.

    Raises:
        MissingExtraError: it is not installed.
        BrokenPackageError: it does not load.
    """
    # Its import looks for this package to report with, and goes on without it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except (ImportError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "openvino":
            raise MissingExtraError("openvino", "openvino") from None
        raise BrokenPackageError("openvino", error) from None
    return openvino


@cache
def int8_options() -> dict[str, str]:
    """What to compile an int8 model with on this CPU; see `draem.inspection.overflow.exact_settings`."""
    openvino = import_openvino()

    def running(options: dict[str, str]) -> Run:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(PROBE), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **options})
        return lambda images: np.asarray(compiled({0: images})[0])

    return exact_settings(f"OpenVINO {openvino.__version__.split('-')[0]}", {"LP_TRANSFORMS_MODE": "NO"}, running)


class OpenvinoBackend:
    """Runs OpenVINO IR, or an ONNX model.

    Raises:
        ConfigError: there is no such device, or it has not the precision asked for.
        ModelFileError: OpenVINO cannot load the model.
    """

    name = "openvino"

    def __init__(self, path: Path, sealed: Sealed, execution: Execution) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        device = _choose(execution, core.available_devices)
        artefact = sealed.header.artefact
        int8 = artefact is not None and artefact.precision == "int8"
        exact = int8_options() if int8 and device == "CPU" else {}
        try:
            weights = (openvino.Tensor(np.frombuffer(sealed.weights, np.uint8)),) if sealed.weights else ()
            compiled = core.compile_model(
                core.read_model(sealed.content, *weights), device, _options(execution) | exact
            )
        except RuntimeError as error:
            raise ModelFileError(f"{path}: OpenVINO cannot load it ({' '.join(str(error).split())[:120]})") from None
        refuse_other_graph(path, sealed.header, _ports(compiled.inputs), _ports(compiled.outputs))
        precision = _executed(compiled, execution)
        self._requests: LifoQueue[Any] = LifoQueue()
        self.in_flight = execution.streams
        for _ in range(execution.streams):
            self._requests.put(compiled.create_infer_request())
        self.execution = in_words(
            f"openvino {openvino.__version__.split('-')[0]}",
            device.lower().replace("gpu", "intel-gpu"),
            int8_in_words(precision, emulated=bool(exact)) if int8 else precision,
            int(compiled.get_property("INFERENCE_NUM_THREADS")) if device == "CPU" else None,
            execution.streams,
        )

    def run(self, images: Images) -> tuple[Images, Images]:
        """See `draem.inspection.execution.Backend`."""
        request = self._requests.get()
        try:
            with within_memory(images):
                # The input is read where it lies; what comes out is the caller's own.
                found = request.infer({0: images}, share_inputs=True, share_outputs=False)
                return found[0], found[1]
        finally:
            self._requests.put(request)


def _ports(nodes: list[Any]) -> list[Port]:
    """Inputs or outputs as a compiled model tells them; a side that is not a number is free.

    One may have several names, ours among them.
    """
    return [
        Port(
            min(node.names, key=lambda name: (name not in (INPUT, *OUTPUTS), name), default=""),
            node.element_type.get_type_name() == "f32",
            tuple(side.get_length() if side.is_static else None for side in node.partial_shape),
        )
        for node in nodes
    ]


def _choose(execution: Execution, there: list[str]) -> str:
    if execution.device not in DEVICES:
        raise ConfigError(f"device {execution.device}: OpenVINO runs on {', '.join(DEVICES)}")
    device = DEVICES[execution.device]
    if not any(name.split(".")[0] == device for name in there):
        raise ConfigError(f"device {execution.device}: OpenVINO finds none here (its driver is missing?); use cpu")
    return device


def _options(execution: Execution) -> dict[str, Any]:
    """Told in full: by itself OpenVINO takes bf16 where the processor has it."""
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[execution.precision],
        "PERFORMANCE_HINT": "LATENCY" if execution.streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": execution.streams,
    }
    if execution.threads:
        options["INFERENCE_NUM_THREADS"] = execution.threads
    return options


def _executed(compiled: Any, execution: Execution) -> str:
    """The precision that the compiled model has, which a device may choose against what it is told.

    Raises:
        ConfigError: it rounds more than what was asked for.
    """
    told = str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
    precision = _NAMES.get(told, told)
    if precision not in (execution.precision, "fp32"):
        raise ConfigError(
            f"precision {execution.precision}: OpenVINO would compute in {precision} here; use {precision} or fp32"
        )
    if precision != execution.precision:
        _log.warning("precision %s: OpenVINO computes in fp32 here, which takes longer", execution.precision)
    return precision
