"""Runs a network in ONNX Runtime, on what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from draem.errors import ModelFileError
from draem.inspection.execution import Execution
from draem.inspection.signature import Port, refuse_other_graph
from draem.modelfile import Sealed
from draem.pixels import Images


class OnnxBackend:
    """Runs an ONNX model."""

    name = "onnxruntime"
    in_flight = 1

    def __init__(self, path: Path, sealed: Sealed, execution: Execution) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = execution.threads or 0
        try:
            self._session = onnxruntime.InferenceSession(sealed.content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base but this
            raise ModelFileError(
                f"{path}: ONNX Runtime cannot load it ({' '.join(str(error).split())[:120]})"
            ) from None
        inputs, outputs = (_ports(nodes) for nodes in (self._session.get_inputs(), self._session.get_outputs()))
        refuse_other_graph(path, sealed.header, inputs, outputs)
        self.execution = f"onnxruntime {onnxruntime.__version__} on cpu in fp32"

    def run(self, images: Images) -> tuple[Images, Images]:
        """See `draem.inspection.backends`."""
        maps, reconstructions = self._session.run(None, {"image": images})
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
