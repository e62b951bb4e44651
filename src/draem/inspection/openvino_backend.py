"""Runs a network in OpenVINO."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from draem.errors import MissingExtraError, ModelFileError
from draem.inspection.execution import Execution
from draem.inspection.signature import INPUT, OUTPUTS, Port, refuse_other_graph
from draem.modelfile import Sealed
from draem.pixels import Images


def import_openvino() -> Any:
    """The package openvino, which is kept from reporting its use over the network.

    Raises:
        MissingExtraError: it is not installed.
    """
    # Its import looks for this package to report with, and goes on without it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ModuleNotFoundError:
        raise MissingExtraError("openvino", "openvino") from None
    return openvino


class OpenvinoBackend:
    """Runs OpenVINO IR, or an ONNX model."""

    name = "openvino"
    in_flight = 1

    def __init__(self, path: Path, sealed: Sealed, execution: Execution) -> None:
        openvino = import_openvino()
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if execution.threads:
            options["INFERENCE_NUM_THREADS"] = execution.threads
        core = openvino.Core()
        try:
            weights = (openvino.Tensor(np.frombuffer(sealed.weights, np.uint8)),) if sealed.weights else ()
            self._model = core.compile_model(core.read_model(sealed.content, *weights), "CPU", options)
        except RuntimeError as error:
            raise ModelFileError(f"{path}: OpenVINO cannot load it ({' '.join(str(error).split())[:120]})") from None
        refuse_other_graph(path, sealed.header, _ports(self._model.inputs), _ports(self._model.outputs))
        self.execution = f"openvino {openvino.__version__.split('-')[0]} on cpu in fp32"

    def run(self, images: Images) -> tuple[Images, Images]:
        """See `draem.inspection.backends`."""
        request = self._model.create_infer_request()
        found = request.infer({0: images})
        return found[0].copy(), found[1].copy()


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
