"""The model file: what is written is read, and whatever is damaged or hostile is refused in one line."""

from __future__ import annotations

import hashlib
import math
import random
import struct
from pathlib import Path
from typing import Any

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
from modelfiles import join_parts, parts_of, refuse_load, sealed, setting, with_header
from tiny import write_tiny_model

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
    assert written.sha256 == hashlib.sha256(parts_of(path)[1]).hexdigest()
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
    refuse_load(path, "not a draem model")
    with pytest.raises(ModelFileError):
        read_record(model)


@pytest.mark.parametrize("where", ["record", "tensors"])
def test_a_changed_record_isrefuse_load(tmp_path: Path, where: str) -> None:
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
    refuse_load(tmp_path / "none.safetensors")
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
    refuse_load(path)


def test_another_suffix_names_import_weights(tmp_path: Path) -> None:
    path = tmp_path / "bottle.pckl"
    path.write_bytes(b"x")
    with pytest.raises(ModelFileError, match="import-weights"):
        Detector.load(path, "cpu")


def test_safetensors_of_others(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors.torch.save({"a": torch.ones(2)}, {"format": "pt"}))
    refuse_load(path, "not a draem model")


def test_wrong_sum_of_the_weights(tmp_path: Path, model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    refuse_load(path, "checksum")
    assert read_header(path) == read_header(model), "the header alone is still whole"


def test_longer_than_it_says(tmp_path: Path, model: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(model.read_bytes() + b"\0")
    refuse_load(path, "damaged")


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
    refuse_load(with_header(model, tmp_path / "x.safetensors", setting(key, value)), "header version", "update draem")


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
    refuse_load(with_header(model, tmp_path / "x.safetensors", setting(key, value)))


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{", "[" * 100_000, '{"format_version": 1}', "\ud800", "NaN"])
def test_headers_that_are_none(tmp_path: Path, model: Path, text: str) -> None:
    index, data = parts_of(model)
    index["__metadata__"]["draem"] = text
    refuse_load(join_parts(tmp_path / "x.safetensors", index, data))


@pytest.mark.parametrize("metadata", [None, 5, [], {"draem": 5}, {"draem": {"format_version": 1}}, {}])
def test_metadata_that_are_none(tmp_path: Path, model: Path, metadata: Any) -> None:
    index, data = parts_of(model)
    index["__metadata__"] = metadata
    refuse_load(join_parts(tmp_path / "x.safetensors", index, data))


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in WRONG_ENTRIES.items() for value in values],
)
def test_wrong_tables_of_tensors(tmp_path: Path, model: Path, key: str, value: Any) -> None:
    index, data = parts_of(model)
    name = "reconstructive.encoder.block1.0.bias"
    index[name][key] = value
    refuse_load(join_parts(tmp_path / "x.safetensors", index, data))


def test_a_missing_and_an_unknown_tensor(tmp_path: Path, model: Path) -> None:
    name = "reconstructive.encoder.block1.0.bias"
    index, data = parts_of(model)
    index["stranger"] = index.pop(name)
    refuse_load(join_parts(tmp_path / "x.safetensors", sealed(index), data), name, "missing")


def test_cut_anywhere(tmp_path: Path, model: Path) -> None:
    content = model.read_bytes()
    rng = random.Random(0)
    path = tmp_path / "x.safetensors"
    for length in [*range(12), *(rng.randrange(len(content)) for _ in range(60)), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ModelFileError):
            load_model(path)


def test_a_changed_threshold_isrefuse_load(tmp_path: Path) -> None:
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
