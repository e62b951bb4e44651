"""Export: a trained model as ONNX or OpenVINO IR, which gives the same answers or is not written."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from draem.deployment.graph import onnx_graph
from draem.inspection.openvino_backend import import_openvino
from draem.modelfile import Artefact, Header, onnx, openvino
from draem.network.weights import load_model

Format = Literal["onnx", "openvino"]
WeightPrecision = Literal["fp32", "fp16", "int8"]


def export_model(
    model: Path, out: Path, to: Format = "onnx", precision: WeightPrecision = "fp32", batch: int | None = None
) -> Header:
    """Write a trained model as another kind of model file; returns its header."""
    network, header = load_model(model)
    artefact = Artefact(format=to, precision=precision, batch=batch, source_sha256=header.sha256)
    header = header.model_copy(update={"artefact": artefact})
    content = onnx_graph(
        network, header.channels, header.config.data.size, batch, half=to == "onnx" and precision == "fp16"
    )
    if to == "onnx":
        return onnx.write_model(out, header, content)
    xml, weights = ir_of(content, half=precision == "fp16")
    return openvino.write_model(out, header, xml, weights)


def ir_of(content: bytes, half: bool = False) -> tuple[bytes, bytes]:
    """An ONNX model as OpenVINO IR: the .xml and the .bin."""
    ov = import_openvino()
    model = ov.Core().read_model(content)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=half)
        return path.read_bytes(), np.fromfile(path.with_suffix(".bin"), np.uint8).tobytes()
