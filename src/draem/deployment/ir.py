"""OpenVINO IR: a pair of files, as bytes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from draem.inspection.openvino_backend import import_openvino


def ir_of(content: bytes, half: bool = False) -> tuple[bytes, bytes]:
    """An ONNX model as OpenVINO IR: the .xml and the .bin, whose weights are fp16 with `half`."""
    return ir_bytes(import_openvino().Core().read_model(content), half)


def ir_bytes(model: Any, half: bool = False) -> tuple[bytes, bytes]:
    """An `openvino.Model` as the .xml and the .bin."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        import_openvino().save_model(model, path, compress_to_fp16=half)
        return path.read_bytes(), np.fromfile(path.with_suffix(".bin"), np.uint8).tobytes()
