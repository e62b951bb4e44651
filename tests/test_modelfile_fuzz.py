"""Ten thousand spoilt model files of three kinds: each is refused in one line, or says what it said before."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from draem.errors import ModelFileError
from draem.inspection.detector import Detector
from draem.modelfile import RegionOfInterest, Sealed, Thresholds, onnx, openvino, read_model, tensors
from draem.modelfile.protobuf import encode
from graphs import brightness_graph, brightness_header, brightness_ir
from modelfiles import sealed

KINDS = (".safetensors", ".onnx", ".xml")
LIKELY = b'0123456789{}[]",:-.eE ntf<>/&\x00\x7f\x80\xff\x08\x0a\x12\x3a\x72'
VALUES: list[Any] = [None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 0.5, 1e308, "", "x", "RGB", "\ud800", [], {}, [[]]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model file of each kind, with all that a header may hold."""
    folder = tmp_path_factory.mktemp("fuzz")
    header = brightness_header(Thresholds(reject=0.5, review=0.25, chosen_on="a test's")).model_copy(
        update={"region": RegionOfInterest(inspect=[[(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)]])}
    )
    paths = {suffix: folder / f"model{suffix}" for suffix in KINDS}
    weights = safetensors.numpy.save({"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 3), np.float32)})
    tensors.write_model(paths[".safetensors"], header, weights)
    graph = brightness_graph()
    onnx.write_model(paths[".onnx"], header, graph.SerializeToString())
    openvino.write_model(paths[".xml"], header, *brightness_ir(graph))
    return paths


def _flip(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _replace(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        content[rng.randrange(len(content))] = rng.choice(LIKELY)


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _remove(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.randrange(1, 60)]


def _insert(content: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(content) + 1)
    content[place:place] = bytes(rng.choice(LIKELY) for _ in range(rng.choice([1, 1, 4, 40])))


def _splice(content: bytearray, rng: random.Random) -> None:
    """A piece of the file stands at another place as well, or instead of what is there."""
    start, place = rng.randrange(len(content)), rng.randrange(len(content))
    piece = content[start : start + rng.choice([1, 4, 30, 400])]
    content[place : place + (len(piece) if rng.random() < 0.5 else 0)] = piece


DAMAGES = (_flip, _replace, _cut, _remove, _insert, _splice)


def _spoilt(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    rng.choice(DAMAGES)(changed, rng)
    return bytes(changed)


def _put(path: Path, content: bytes) -> None:
    """Write over what is there: to empty a file first, as `write_bytes` does, takes some systems milliseconds."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(content)
        file.truncate()


def _read(path: Path) -> Sealed | None:
    """What a file says; none where it is refused in one line that names it. Anything else is an error."""
    try:
        return read_model(path)
    except ModelFileError as error:
        text = str(error)
        assert text.startswith(str(path.with_suffix("")))
        assert len(text) < len(str(path)) + 400
        assert "\n" not in text
        return None


def _payload(suffix: str, whole: Sealed) -> str:
    """The sum of all but the header, taken here."""
    if suffix == ".safetensors":
        (length,) = struct.unpack_from("<Q", whole.content)
        return hashlib.sha256(whole.content[8 + length :]).hexdigest()
    return whole.header.sha256


@pytest.mark.parametrize("suffix", KINDS)
def test_damage_is_refused_or_harmless(models: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    """2,500 of each kind: bits, bytes, cuts, insertions, splices; what is read says the same of the same weights."""
    good = read_model(models[suffix])
    path = tmp_path / f"x{suffix}"
    if suffix == ".xml":
        path.with_suffix(".bin").write_bytes(good.weights)
    rng, refused = random.Random(f"damage {suffix}"), 0
    for _ in range(2500):
        _put(path, _spoilt(good.content, rng))
        if (found := _read(path)) is None:
            refused += 1
            continue
        assert found.header == good.header
        assert _payload(suffix, found) == _payload(suffix, good)
    assert refused > 2000


def test_damage_to_the_weights_of_an_ir_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    good = read_model(models[".xml"])
    path = tmp_path / "x.xml"
    path.write_bytes(good.content)
    rng = random.Random("bin")
    for _ in range(200):
        if (changed := _spoilt(good.weights, rng)) != good.weights:
            _put(path.with_suffix(".bin"), changed)
            assert _read(path) is None


# ----------------------------------------------------------------------------------------------------- edits with a sum


def _with_text(suffix: str, good: Sealed, header: str) -> bytes:
    """A file with another text for a header, whose sum fits: what is wrong must be found by what it says."""
    raw = header.encode("utf-8", "surrogatepass")
    seal = hashlib.sha256(raw).hexdigest()
    if suffix == ".safetensors":
        (length,) = struct.unpack_from("<Q", good.content)
        index: dict[str, Any] = json.loads(good.content[8 : 8 + length])
        index["__metadata__"]["draem"] = header
        table = json.dumps(sealed(index)).encode()
        return b"".join((struct.pack("<Q", len(table)), table, good.content[8 + length :]))
    if suffix == ".onnx":
        pairs = ((b"draem", raw), (b"sha256", seal.encode()))
        ours = [encode(14, encode(1, key) + encode(2, text)) for key, text in pairs]
        return b"".join((brightness_graph().SerializeToString(), *ours))
    start, stop = good.content.index(b'<header value="'), good.content.index(b"</draem>")
    entries = f'<header value="{escape(header)}" /><sha256 value="{seal}" />'.encode("utf-8", "surrogatepass")
    return good.content[:start] + entries + good.content[stop:]


def _places(values: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and index in a JSON value, however deep."""
    keys = values.keys() if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()
    return [place for key in keys for place in ((*at, key), *_places(values[key], (*at, key)))]


def _edited(values: dict[str, Any], rng: random.Random) -> str:
    """The header with a field changed, removed, added or renamed; or its text damaged."""
    values = json.loads(json.dumps(values))
    if rng.random() < 0.3:
        text = bytearray(json.dumps(values).encode())
        rng.choice(DAMAGES)(text, rng)
        return text.decode("utf-8", "replace")
    *parents, last = rng.choice(_places(values))
    inner: Any = values
    for key in parents:
        inner = inner[key]
    if rng.random() < 0.7 or isinstance(inner, list):
        inner[last] = rng.choice(VALUES)
    elif rng.random() < 0.5:
        del inner[last]
    else:
        inner[f"{last}x"] = inner.pop(last)
    return json.dumps(values)


@pytest.mark.parametrize("suffix", KINDS)
def test_edits_with_a_sum_that_fits(models: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    """900 of each kind: what passes for a header has all its fields right, and the weights are those of its sum."""
    good = read_model(models[suffix])
    path, rng, passed = tmp_path / f"x{suffix}", random.Random(f"edits {suffix}"), 0
    path.with_suffix(".bin").write_bytes(good.weights)
    for _ in range(900):
        _put(path, _with_text(suffix, good, _edited(good.header.model_dump(mode="json"), rng)))
        if (found := _read(path)) is not None:
            assert type(found.header).model_validate(found.header.model_dump()) == found.header
            assert found.header.sha256 == good.header.sha256
            passed += 1
    assert 0 < passed < 450


# ------------------------------------------------------------------------------------------------------------- runtimes


@pytest.mark.parametrize(("suffix", "backend"), [(".onnx", "onnxruntime"), (".onnx", "openvino"), (".xml", "openvino")])
def test_damage_never_reaches_a_runtime(models: dict[str, Path], tmp_path: Path, suffix: str, backend: Any) -> None:
    good = read_model(models[suffix])
    path = tmp_path / f"x{suffix}"
    path.with_suffix(".bin").write_bytes(good.weights)
    image = np.full((16, 16, 3), 200, np.uint8)
    expected = Detector.load(models[suffix], backend=backend).predict(image)
    rng = random.Random(f"load {suffix}")
    for _ in range(100):
        _put(path, _spoilt(good.content, rng))
        try:
            found = Detector.load(path, backend=backend)
        except ModelFileError:
            continue
        assert found.predict(image).score == expected.score


@pytest.mark.parametrize(("suffix", "backend"), [(".onnx", "onnxruntime"), (".onnx", "openvino"), (".xml", "openvino")])
def test_spoilt_graphs_with_a_sum_that_fits(models: dict[str, Path], tmp_path: Path, suffix: str, backend: Any) -> None:
    """What a runtime makes of a graph that nobody exported: an error of ours, or a graph that fits its header."""
    header, path = brightness_header(), tmp_path / f"x{suffix}"
    graph = brightness_graph().SerializeToString()
    xml, weights = brightness_ir(brightness_graph())
    rng, loaded = random.Random(f"graphs {suffix} {backend}"), 0
    for _ in range(150):
        try:
            if suffix == ".onnx":
                onnx.write_model(path, header, _spoilt(graph, rng))
            else:
                openvino.write_model(path, header, _spoilt(xml, rng), weights)
            Detector.load(path, backend=backend)
        except ModelFileError:  # and nothing else
            continue
        loaded += 1
    assert 0 < loaded < 150
