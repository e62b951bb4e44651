"""Runs a network in ONNX Runtime, on what it finds."""

from __future__ import annotations

from pathlib import Path

from draem.errors import ModelFileError
from draem.inspection.execution import Execution
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
        self.execution = f"onnxruntime {onnxruntime.__version__} on cpu in fp32"

    def run(self, images: Images) -> tuple[Images, Images]:
        """See `draem.inspection.backends`."""
        maps, reconstructions = self._session.run(None, {"image": images})
        return maps, reconstructions
