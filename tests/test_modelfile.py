"""The model file: what is written is read, and whatever is damaged or hostile is refused in one line."""

from __future__ import annotations

import hashlib
import json
import math
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from draem.config import Config
from draem.errors import ModelFileError
from draem.inspection.detector import Detector
from draem.modelfile import (
    FORMAT_VERSION,
    DataRecord,
    Header,
    Thresholds,
    TrainingRecord,
    read_header,
    read_model,
)
from draem.modelfile.tensors import read_record, write_model, write_record
from draem.network.weights import load_model
from draem.pixels import PixelFormat
from tiny import write_tiny_model

Edit = Callable[[dict[str, Any]], None]

WRONG_ENTRIES: dict[str, list[Any]] = {
    "data_offsets": [[0, 10**30], [0, -1], [0], None, "12", {}, [4, 0], [0, "9" * 5000], [0, math.inf], [0, math.nan]],
    "dtype": ["F16", "F64", "I32", "X", 5, None, "F4", "C64", "F8_E4M3", "BOOL"],
    "shape": [[-1], [2**63], "x", [0], [1.5], [2**64, 2], None, [7]],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest file there is: both widths 1."""
    path = tmp_path_factory.mktemp("modelfile") / "model.safetensors"
    return write_tiny_model(path, network__reconstructive_width=1, network__discriminative_width=1)


def _parts(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    index: dict[str, Any] = json.loads(content[8 : 8 + length])
    return index, content[8 + length :]


def _join(path: Path, index: Any, data: bytes) -> Path:
    raw = index if isinstance(index, bytes) else json.dumps(index).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def _with_header(model: Path, to: Path, edit: Edit) -> Path:
    """A copy of a model with its header changed, all else whole."""
    index, data = _parts(model)
    header = json.loads(index["__metadata__"]["draem"])
    edit(header)
    index["__metadata__"]["draem"] = json.dumps(header)
    return _join(to, _sealed(index), data)


def _sealed(index: dict[str, Any]) -> dict[str, Any]:
    """The table with a sum of the header that fits: what is wrong is then found by what it says."""
    table = {name: entry for name, entry in index.items() if name != "__metadata__"}
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode())
    digest.update(index["__metadata__"]["draem"].encode("utf-8", "surrogatepass"))
    index["__metadata__"]["sha256"] = digest.hexdigest()
    return index


def _set(dotted: str, value: Any) -> Edit:
    def edit(header: dict[str, Any]) -> None:
        *parents, last = dotted.split(".")
        place = header
        for parent in parents:
            place = place[parent]
        place[last] = value

    return edit


def _refused(path: Path, *says: str) -> str:
    texts = []
    for read in (load_model, lambda path: Detector.load(path, "cpu")):
        with pytest.raises(ModelFileError) as caught:
            read(path)
        texts.append(str(caught.value))
    text = texts[0]
    assert "\n" not in text
    assert len(text) < len(str(path)) + 300
    assert text.startswith(str(path))
    for part in says:
        assert part in text
    return text


# ---------------------------------------------------------------------------------------------------------- round trip


def test_round_trip_of_the_header(tmp_path: Path) -> None:
    header = Header(
        config=Config.resolve("official", None, {"data.size": [64, 96]}),
        thresholds=Thresholds(reject=0.1 + 0.2, review=1e-9, chosen_on="ö \u2028 \U0001f600 [/b]"),
        data=DataRecord(name="x", fingerprint="f", train=1, select=2, calibrate=3),
        training=TrainingRecord(
            images_seen=1, steps=2, step_kept=3, seconds=0.5, device="cpu", precision="fp32", validation={"a": None}
        ),
        versions={"torch": "2"},
    )
    tensors = safetensors.torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(0)})
    path = tmp_path / "deep" / "model.safetensors"
    written = write_model(path, header, tensors)
    assert written == header.model_copy(update={"sha256": written.sha256})
    assert read_header(path) == written
    whole = read_model(path)
    assert whole.header == written
    assert whole.content == path.read_bytes()
    # Another reader of the format agrees, and the sum is that of the data alone.
    arrays = safetensors.numpy.load_file(path)
    assert arrays["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert written.sha256 == hashlib.sha256(_parts(path)[1]).hexdigest()
    assert [entry.name for entry in path.parent.iterdir()] == ["model.safetensors"]


def test_data_starts_where_the_format_aligns_it(model: Path) -> None:
    (length,) = struct.unpack_from("<Q", model.read_bytes())
    assert length % 8 == 0


def test_round_trip_of_a_record(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    record = {"step": 3, "losses": [0.1, 1e-300], "text": "ö"}
    write_record(path, record, safetensors.torch.save({"a": torch.ones(2)}))
    again, content = read_record(path)
    assert again == record
    assert torch.equal(safetensors.torch.load(content)["a"], torch.ones(2))


def test_a_record_is_no_model_and_a_model_no_record(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_record(path, {"step": 3}, safetensors.torch.save({"a": torch.ones(2)}))
    _refused(path, "not a draem model")
    with pytest.raises(ModelFileError):
        read_record(model)


@pytest.mark.parametrize("where", ["record", "tensors"])
def test_a_changed_record_is_refused(tmp_path: Path, where: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_record(path, {"step": 3}, safetensors.torch.save({"a": torch.ones(2)}))
    old, new = {"record": (b"3}", b"4}"), "tensors": (b"\x80\x3f", b"\x80\x3e")}[where]
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(ModelFileError, match="checksum"):
        read_record(path)


# ------------------------------------------------------------------------------------------------------------- damaged


def test_not_there_or_not_a_file(tmp_path: Path) -> None:
    _refused(tmp_path / "none.safetensors")
    for place in (tmp_path / "none", Path("a\0b"), tmp_path / ("x" * 300)):
        with pytest.raises(ModelFileError, match="no such file"):
            read_header(place)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 2**63) + bytes(100),
        struct.pack("<Q", 50) + b"{}",
        struct.pack("<Q", 0) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"\xff\xff",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        b"PK\x03\x04" + bytes(64),
        b"\x80\x02}q\x00.",
        b"training: {images: 3}\n",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    _refused(path)


def test_another_suffix_names_import_weights(tmp_path: Path) -> None:
    path = tmp_path / "bottle.pckl"
    path.write_bytes(b"x")
    with pytest.raises(ModelFileError, match="import-weights"):
        Detector.load(path, "cpu")


def test_safetensors_of_others(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}, {"format": "pt"}))
    _refused(path, "not a draem model")


def test_wrong_sum_of_the_weights(tmp_path: Path, model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    _refused(path, "checksum")
    assert read_header(path) == read_header(model), "the header alone is still whole"


def test_longer_than_it_says(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(model.read_bytes() + b"\0")
    _refused(path, "damaged")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", FORMAT_VERSION + 1),
        ("format_version", 0),
        ("format_version", "1"),
        ("format_version", None),
        ("format_version", 10**30),
    ],
)
def test_versions_it_does_not_know(tmp_path: Path, model: Path, key: str, value: Any) -> None:
    _refused(_with_header(model, tmp_path / "x.safetensors", _set(key, value)), "header version", "update draem")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "x"),
        ("channels", 0),
        ("channels", -1),
        ("channels", 1),
        ("channels", 10**12),
        ("colour_order", "BGR"),
        ("thresholds", {"reject": float("nan"), "chosen_on": ""}),
        ("thresholds", {"reject": float("inf"), "chosen_on": ""}),
        ("thresholds", {"reject": 1}),
        ("extra", 1),
        ("a\nb\x1b[31m", 1),
        ("\ud800", 1),
        ("origin", "\ud800"),
        ("origin", 5),
        ("config", 5),
        ("config.preset", None),
        ("config.network.reconstructive_width", 0),
        ("config.network.reconstructive_width", 2),
        ("config.network.reconstructive_width", 10**6),
        ("config.network.reconstructive_width", 10**12),
        ("config.network.discriminative_width", 2),
        ("config.score.filter_size", 2),
        ("config.data.size", [1, 1]),
        ("sha256", "0"),
    ],
)
def test_wrong_headers(tmp_path: Path, model: Path, key: str, value: Any) -> None:
    _refused(_with_header(model, tmp_path / "x.safetensors", _set(key, value)))


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{", "[" * 100_000, '{"format_version": 1}', "\ud800", "NaN"])
def test_headers_that_are_none(tmp_path: Path, model: Path, text: str) -> None:
    index, data = _parts(model)
    index["__metadata__"]["draem"] = text
    _refused(_join(tmp_path / "x.safetensors", index, data))


@pytest.mark.parametrize("metadata", [None, 5, [], {"draem": 5}, {"draem": {"format_version": 1}}, {}])
def test_metadata_that_are_none(tmp_path: Path, model: Path, metadata: Any) -> None:
    index, data = _parts(model)
    index["__metadata__"] = metadata
    _refused(_join(tmp_path / "x.safetensors", index, data))


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in WRONG_ENTRIES.items() for value in values],
)
def test_wrong_tables_of_tensors(tmp_path: Path, model: Path, key: str, value: Any) -> None:
    index, data = _parts(model)
    name = "reconstructive.encoder.block1.0.bias"
    index[name][key] = value
    _refused(_join(tmp_path / "x.safetensors", index, data))


def test_a_missing_and_an_unknown_tensor(tmp_path: Path, model: Path) -> None:
    name = "reconstructive.encoder.block1.0.bias"
    index, data = _parts(model)
    index["stranger"] = index.pop(name)
    _refused(_join(tmp_path / "x.safetensors", _sealed(index), data), name, "missing")


def test_cut_anywhere(tmp_path: Path, model: Path) -> None:
    content = model.read_bytes()
    rng = random.Random(0)
    path = tmp_path / "x.safetensors"
    for length in [*range(12), *(rng.randrange(len(content)) for _ in range(60)), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            load_model(path)


def test_mutations_are_refused_or_harmless(tmp_path: Path, model: Path) -> None:
    content = model.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    good, _ = load_model(model)
    weights = {name: value.numpy().tobytes() for name, value in good.state_dict().items()}
    rng = random.Random(1)
    path = tmp_path / "x.safetensors"
    refused = 0
    for turn in range(400):
        changed = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 8])):
            # Most of them in the header: in the weights, the sum tells.
            place = rng.randrange(8 + length if turn % 5 else len(content))
            likely = rng.choice(b'0123456789{}[]",:-.eE ntf')
            changed[place] = likely if rng.random() < 0.6 else rng.randrange(256)
        if turn % 7 == 0:
            start = rng.randrange(8 + length)
            del changed[start : start + rng.randrange(1, 60)]
        path.write_bytes(changed)
        with suppress(ModelFileError):  # and nothing else
            network, _ = load_model(path)
            # What does load has every weight as it was: only settings in words and numbers can differ.
            assert {name: value.numpy().tobytes() for name, value in network.state_dict().items()} == weights
            continue
        refused += 1
    assert refused > 300


def test_a_changed_threshold_is_refused(tmp_path: Path) -> None:
    """The header has a sum of its own: a flipped digit would change verdicts in silence."""
    thresholds = Thresholds(reject=0.555, chosen_on="nothing")
    path = tmp_path / "model.safetensors"
    write_model(path, Header(config=Config.resolve("fast"), thresholds=thresholds), safetensors.torch.save({}))
    content = path.read_bytes()
    assert content.count(b"0.555") == 1
    path.write_bytes(content.replace(b"0.555", b"0.955"))
    with pytest.raises(ModelFileError, match="header does not match its checksum"):
        read_header(path)


def test_what_a_person_may_have_meant(tmp_path: Path) -> None:
    """A run's folder, the model of a run that is not finished, a name that is nowhere: each has its answer."""
    run = tmp_path / "run"
    run.mkdir()
    for place, said in ((run, "is a folder"), (run / "model.safetensors", "training writes")):
        for read in (read_header, lambda path: Detector.load(path, "cpu")):
            with pytest.raises(ModelFileError, match=said):
                read(place)
    (run / "checkpoint.safetensors").write_bytes(b"")
    with pytest.raises(ModelFileError, match="is not finished; train with --resume"):
        read_header(run / "model.safetensors")


# ------------------------------------------------------------------------------------------------------------ channels


def test_a_header_from_before_channels_and_depth(model: Path, tmp_path: Path) -> None:
    """Files of older versions say nothing of them in their data settings: RGB of 8 bits."""

    def older(header: dict[str, Any]) -> None:
        for key in ("channels", "depth", "value_range"):
            del header["config"]["data"][key]

    path = _with_header(model, tmp_path / "older.safetensors", older)
    assert "value_range" not in json.loads(_parts(path)[0]["__metadata__"]["draem"])["config"]["data"]
    header = read_header(path)
    assert (header.channels, header.colour_order, header.config.data.pixel_format) == (3, "RGB", PixelFormat(3, 8))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert Detector.load(path, "cpu").predict(image).score == Detector.load(model, "cpu").predict(image).score


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (_set("channels", 1), "channels 1 (RGB), but its data.channels say 3 (RGB)"),
        (_set("colour_order", "grey"), "channels 3 (grey), but its data.channels say 3 (RGB)"),
        (_set("config.data.channels", 5), "channels 3 (RGB), but its data.channels say 5 (stack)"),
        (_set("config.data.channels", 10**9), "from 1 to 64"),
        (_set("config.data.depth", 12), "depth"),
    ],
)
def test_channels_that_contradict(model: Path, tmp_path: Path, edit: Edit, says: str) -> None:
    _refused(_with_header(model, tmp_path / "wrong.safetensors", edit), "its header is wrong", says)


def test_weights_of_other_channels_than_the_header(model: Path, tmp_path: Path) -> None:
    def grey(header: dict[str, Any]) -> None:
        header["config"]["data"]["channels"] = header["channels"] = 1
        header["colour_order"] = "grey"

    path = _with_header(model, tmp_path / "grey.safetensors", grey)
    _refused(path, "has shape (1, 3, 3, 3), (1, 1, 3, 3) expected")
