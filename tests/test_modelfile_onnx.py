"""The ONNX model file: read as the package onnx reads it, and refused where it is damaged or names other files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from draem.errors import ModelFileError
from draem.inspection.detector import Detector
from draem.modelfile import Thresholds, edit_header, read_header, read_model
from draem.modelfile.onnx import write_model
from draem.modelfile.protobuf import BYTES, FIXED32, FIXED64, VARINT, encode, fields
from graphs import SIZE, WEIGHT, brightness_graph, brightness_header, write_brightness

THRESHOLDS = Thresholds(reject=0.5, chosen_on="ü < & > \" ' ]]> a test's")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brightness(tmp_path_factory.mktemp("onnx") / "model.onnx", brightness_header(THRESHOLDS))


def _refused(path: Path, *says: str) -> None:
    for read in (read_model, lambda path: Detector.load(path, backend="onnxruntime")):
        with pytest.raises(ModelFileError) as caught:
            read(path)
        text = str(caught.value)
        assert text.startswith(str(path))
        assert "\n" not in text
        assert len(text) < len(str(path)) + 300
        for part in says:
            assert part in text


def _write(path: Path, graph: onnx.ModelProto) -> Path:
    write_model(path, brightness_header(THRESHOLDS), graph.SerializeToString())
    return path


# ---------------------------------------------------------------------------------------------------------- round trip


def test_others_read_the_header(model: Path) -> None:
    """The package onnx and ONNX Runtime find it where an integrator is told to look."""
    header = read_header(model)
    assert header.thresholds == THRESHOLDS
    (entry,) = (pair for pair in onnx.load(model).metadata_props if pair.key == "draem")
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["draem"] == entry.value
    assert json.loads(entry.value) == header.model_dump(mode="json")


def test_an_edit_leaves_all_else_as_it_is(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(model.read_bytes())
    changed = read_header(path).model_copy(update={"thresholds": None})
    edit_header(path, changed)
    assert read_model(path).header == changed
    before, after = onnx.load(model), onnx.load(path)
    for whole in (before, after):
        del whole.metadata_props[:]
    assert before == after
    assert before == brightness_graph()


def test_one_saved_again_by_others_is_read(model: Path, tmp_path: Path) -> None:
    """The sum is of what the model says, not of where our entries stand among its metadata."""
    proto = onnx.load(model)
    proto.metadata_props.insert(0, onnx.StringStringEntryProto(key="note", value="ours"))
    ours = [pair for pair in proto.metadata_props if pair.key != "note"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(reversed(ours))
    path = tmp_path / "x.onnx"
    path.write_bytes(proto.SerializeToString())
    assert read_model(path).header == read_header(model)


def test_damage_is_not_blessed_by_an_edit(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    weight = np.float32(WEIGHT).tobytes()
    assert model.read_bytes().count(weight) == 1
    path.write_bytes(model.read_bytes().replace(weight, np.float32(0.5).tobytes()))
    edit_header(path, read_header(path).model_copy(update={"sha256": "0" * 64}))
    _refused(path, "the weights do not match their checksum")


def test_the_walk_agrees_with_protobuf(model: Path) -> None:
    """Fields of each message, by the package's own parser and by ours."""

    def ours(content: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        for field in fields(content, start, end):
            yield field.number, content[field.payload : field.end]

    proto = onnx.load(model)
    content = proto.SerializeToString()
    found = list(ours(content, 0, len(content)))
    (graph,) = (payload for number, payload in found if number == 7)
    assert graph == proto.graph.SerializeToString()
    nodes = [payload for number, payload in ours(graph, 0, len(graph)) if number == 1]
    assert nodes == [node.SerializeToString() for node in proto.graph.node]


# ------------------------------------------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("cut", [0, 1, 2, 7, 40, -1, -100])
def test_cut_short(model: Path, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(model.read_bytes()[:cut])
    _refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x00" * 100,
        b"\x3a" + b"\xff" * 9 + b"\x01",  # a graph of 2**64 bytes
        b"\x3a" + b"\x80" * 200,  # a length without end
        b"\x3b" * 100,  # groups, which are no more
        b"\xff" * 1000,
        b"\xf2\xff\xff\xff\xff\x0f\x00",  # the number of a field beyond 32 bits
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"PK\x03\x04" + bytes(64),
        b'<?xml version="1.0"?><net></net>',
    ],
)
def test_not_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    _refused(path, "not an ONNX model")


def test_onnx_of_others(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    onnx.save(brightness_graph(), path)
    _refused(path, "not a draem model", "draem export")


@pytest.mark.parametrize("copied", ["draem", "sha256"])
def test_several_headers(model: Path, tmp_path: Path, copied: str) -> None:
    proto = onnx.load(model)
    proto.metadata_props.extend([pair for pair in proto.metadata_props if pair.key == copied])
    path = tmp_path / "x.onnx"
    path.write_bytes(proto.SerializeToString())
    _refused(path, "several headers")


def test_a_huge_header(model: Path, tmp_path: Path) -> None:
    pair = encode(1, b"draem") + encode(2, b"[" * 2**25)
    path = tmp_path / "x.onnx"
    path.write_bytes(brightness_graph().SerializeToString() + encode(14, pair))
    _refused(path)


def test_a_header_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    pair = encode(1, b"draem") + encode(2, b"\xff\xfe")
    path.write_bytes(brightness_graph().SerializeToString() + encode(14, pair))
    _refused(path)


def test_millions_of_fields(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(brightness_graph().SerializeToString() + b"\x08\x01" * 1_100_000)
    _refused(path, "not an ONNX model")
    deeper = encode(7, encode(1, b"\x08\x01" * 200_000))
    write_model(path, brightness_header(), brightness_graph().SerializeToString() + deeper)
    _refused(path, "larger or deeper than any")


def test_larger_than_any(model: Path, tmp_path: Path) -> None:
    """A file full of nothing takes no disk, and is not read."""
    path = tmp_path / "x.onnx"
    path.write_bytes(model.read_bytes())
    os.truncate(path, 2**40)
    _refused(path, "larger than any")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name is of POSIX")
@pytest.mark.parametrize("suffix", ["onnx", "xml", "safetensors"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    os.mkfifo(path)
    with pytest.raises(ModelFileError, match="a pipe or a device"):
        read_model(path)


def test_a_device_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.symlink_to("/dev/zero")
    _refused(path, "a pipe or a device")


# --------------------------------------------------------------------------------------------------------- other files


def _external(tensor: TensorProto) -> TensorProto:
    """The tensor as if it lay in another file."""
    outside = TensorProto()
    outside.CopyFrom(tensor)
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../etc/passwd")
    return outside


def _in_initialiser(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    proto.graph.initializer.append(tensor)


def _in_constant(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    proto.graph.node.append(helper.make_node("Constant", [], ["other"], value=tensor))


def _in_branch(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph([helper.make_node("Constant", [], ["a"], value=tensor)], "inner", [], [])
    proto.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


def _in_sparse(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    proto.graph.sparse_initializer.add().values.CopyFrom(tensor)


def _in_function(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["other"], value=tensor)
    proto.functions.append(helper.make_function("d", "f", [], ["other"], [node], [helper.make_opsetid("", 18)]))


def _in_training(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    proto.training_info.add().initialization.initializer.append(tensor)


@pytest.mark.parametrize(
    "put",
    [_in_initialiser, _in_constant, _in_branch, _in_sparse, _in_function, _in_training],
    ids=lambda put: put.__name__,
)
def test_weights_in_another_file(tmp_path: Path, put: Callable[[onnx.ModelProto, TensorProto], None]) -> None:
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "other")
    inside, outside = brightness_graph(), brightness_graph()
    put(inside, tensor)
    put(outside, _external(tensor))
    read_model(_write(tmp_path / "inside.onnx", inside))
    _refused(_write(tmp_path / "outside.onnx", outside), "lie in another file")


def test_a_location_without_a_place(tmp_path: Path) -> None:
    """One of the two fields alone, and a number that only its lowest 32 bits make into EXTERNAL."""
    plain = brightness_graph()
    plain.graph.initializer[1].data_location = TensorProto.EXTERNAL
    _refused(_write(tmp_path / "x.onnx", plain), "lie in another file")
    graph = brightness_graph().SerializeToString()
    tensor = encode(5, b"\x70\x81\x80\x80\x80\x10")
    write_model(tmp_path / "y.onnx", brightness_header(), graph + encode(7, tensor))
    _refused(tmp_path / "y.onnx", "lie in another file")


def test_a_compiled_model_in_another_file(tmp_path: Path) -> None:
    proto = brightness_graph()
    node = helper.make_node("EPContext", [], ["other"], domain="com.microsoft", ep_cache_context="/etc/passwd")
    proto.graph.node.append(node)
    _refused(_write(tmp_path / "x.onnx", proto), "a compiled model in another file")


def test_nested_without_end(tmp_path: Path) -> None:
    """A graph in a node in a graph …, which a walk that calls itself would not come out of."""
    graph = encode(1, b"")
    for _ in range(3000):
        graph = encode(1, encode(5, encode(6, graph)))
    path = tmp_path / "x.onnx"
    write_model(path, brightness_header(), brightness_graph().SerializeToString() + encode(7, graph))
    _refused(path, "deeper than any")


# --------------------------------------------------------------------------------------------------------- wrong graph


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"channels": 1}, f"image N×1×{SIZE}×{SIZE}"),
        ({"size": (SIZE, 2 * SIZE)}, f"image N×3×{SIZE}×{2 * SIZE}"),
        ({"batch": 1}, f"image 1×3×{SIZE}×{SIZE}"),
        ({"names": ("input", "anomaly_map", "reconstruction")}, "input N"),
        ({"names": ("image", "reconstruction", "anomaly_map")}, "reconstruction N×16×16"),
        ({"kind": TensorProto.FLOAT16}, "not of float32"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_graphs_that_do_not_fit_the_header(tmp_path: Path, backend: Any, wrong: dict[str, Any], says: str) -> None:
    path = _write(tmp_path / "x.onnx", brightness_graph(**wrong))
    assert read_model(path)
    with pytest.raises(ModelFileError, match="its graph has") as caught:
        Detector.load(path, backend=backend)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", [None, 1, 2])
def test_a_graph_that_fits(tmp_path: Path, backend: Any, batch: int | None) -> None:
    path = write_brightness(tmp_path / "x.onnx", brightness_header(batch=batch))
    images = np.random.default_rng(0).random((batch or 3, 3, SIZE, SIZE), np.float32)
    maps, reconstructions = Detector.load(path, backend=backend).backend.run(images)
    np.testing.assert_allclose(maps, WEIGHT * images.mean(1), rtol=1e-6)
    np.testing.assert_array_equal(reconstructions, images)


def test_an_artefact_of_another_batch_than_its_graph(tmp_path: Path) -> None:
    path = write_brightness(tmp_path / "x.onnx", brightness_header(batch=2), brightness_graph(batch=3))
    with pytest.raises(ModelFileError, match="its graph has image 3×3×16×16"):
        Detector.load(path)


def test_kinds_of_fields() -> None:
    """A number, eight and four bytes, bytes; each at its place."""
    content = b"\x08\x96\x01" + b"\x11" + bytes(8) + encode(3, b"abc") + b"\x25" + bytes(4)
    found = [(field.number, field.kind, field.value) for field in fields(content, 0, len(content))]
    assert found == [(1, VARINT, 150), (2, FIXED64, 0), (3, BYTES, 0), (4, FIXED32, 0)]
