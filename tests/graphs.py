"""Little graphs that look like an exported network and load in a moment: the anomaly map is the image's brightness."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import TensorProto, helper

from draem.config import Config
from draem.inspection.openvino_backend import import_openvino
from draem.modelfile import Artefact, Header, Thresholds, colour_order
from draem.modelfile import onnx as onnx_file
from draem.modelfile import openvino as openvino_file

SIZE = 16
WEIGHT = 0.75
"""The map is so much of the brightness."""


def brightness_header(thresholds: Thresholds | None = None, batch: int | None = None, **settings: object) -> Header:
    """A header that fits `brightness_graph`; `settings` have their dots written as two underscores."""
    chosen: dict[str, object] = {"data.size": SIZE, "score.map": "segmentation", "score.filter_size": 3}
    chosen |= {key.replace("__", "."): value for key, value in settings.items()}
    config = Config.resolve("edge", None, chosen)
    channels = config.data.pixel_format.channels
    return Header(
        config=config,
        channels=channels,
        colour_order=colour_order(channels),
        thresholds=thresholds,
        artefact=Artefact(format="onnx", precision="fp32", batch=batch, source_sha256="0" * 64),
    )


def brightness_graph(
    channels: int = 3,
    size: tuple[int, int] = (SIZE, SIZE),
    batch: int | None = None,
    names: tuple[str, str, str] = ("image", "anomaly_map", "reconstruction"),
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """image B×C×H×W → anomaly_map B×H×W (`WEIGHT` of the channels' mean), reconstruction B×C×H×W (the image)."""
    image, anomaly_map, reconstruction = names
    free = batch or "N"
    nodes = [
        helper.make_node("ReduceMean", [image, "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "weight"], [anomaly_map]),
        helper.make_node("Identity", [image], [reconstruction]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(image, kind, [free, channels, *size])],
        [
            helper.make_tensor_value_info(anomaly_map, kind, [free, *size]),
            helper.make_tensor_value_info(reconstruction, kind, [free, channels, *size]),
        ],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1]), helper.make_tensor("weight", kind, [1], [WEIGHT])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def brightness_ir(graph: onnx.ModelProto) -> tuple[bytes, bytes]:
    """The .xml and .bin of a graph."""
    ov = import_openvino()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(ov.Core().read_model(graph.SerializeToString()), path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def write_brightness(path: Path, header: Header, graph: onnx.ModelProto | None = None) -> Path:
    """A model file of a graph, `brightness_graph` unless told, of the kind that the suffix says."""
    batch = header.artefact.batch if header.artefact else None
    graph = graph or brightness_graph(header.channels, header.config.data.size, batch)
    if path.suffix == ".onnx":
        onnx_file.write_model(path, header, graph.SerializeToString())
    else:
        openvino_file.write_model(path, header, *brightness_ir(graph))
    return path
