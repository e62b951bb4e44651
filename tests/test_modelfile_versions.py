"""Headers of former versions are read; headers that contradict themselves or their weights are refused."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from draem.config import Config
from draem.inspection.detector import Detector
from draem.modelfile import FORMAT_VERSION, RegionOfInterest, edit_header, read_header, read_model
from draem.network.draem import Draem
from draem.pixels import PixelFormat
from modelfiles import Edit, join_parts, parts_of, refuse_load, sealed, setting, with_header
from tiny import TINY, lively_, write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest file there is: both widths 1."""
    path = tmp_path_factory.mktemp("modelfile") / "model.safetensors"
    return write_tiny_model(path, network__reconstructive_width=1, network__discriminative_width=1)


def test_a_header_from_before_channels_and_depth(model: Path, tmp_path: Path) -> None:
    """Files of older versions say nothing of them in their data settings: RGB of 8 bits."""

    def older(header: dict[str, Any]) -> None:
        for key in ("channels", "depth", "value_range"):
            del header["config"]["data"][key]

    path = with_header(model, tmp_path / "older.safetensors", older)
    assert "value_range" not in json.loads(parts_of(path)[0]["__metadata__"]["draem"])["config"]["data"]
    header = read_header(path)
    assert (header.channels, header.colour_order, header.config.data.pixel_format) == (3, "RGB", PixelFormat(3, 8))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert Detector.load(path, "cpu").predict(image).score == Detector.load(model, "cpu").predict(image).score


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (setting("channels", 1), "channels 1 (RGB), but its data.channels say 3 (RGB)"),
        (setting("colour_order", "grey"), "channels 3 (grey), but its data.channels say 3 (RGB)"),
        (setting("config.data.channels", 5), "channels 3 (RGB), but its data.channels say 5 (stack)"),
        (setting("config.data.channels", 10**9), "from 1 to 64"),
        (setting("config.data.depth", 12), "depth"),
    ],
)
def test_channels_that_contradict(model: Path, tmp_path: Path, edit: Edit, says: str) -> None:
    refuse_load(with_header(model, tmp_path / "wrong.safetensors", edit), "its header is wrong", says)


def test_weights_of_other_channels_than_the_header(model: Path, tmp_path: Path) -> None:
    def grey(header: dict[str, Any]) -> None:
        header["config"]["data"]["channels"] = header["channels"] = 1
        header["colour_order"] = "grey"

    path = with_header(model, tmp_path / "grey.safetensors", grey)
    refuse_load(path, "has shape (1, 3, 3, 3), (1, 1, 3, 3) expected")


# ------------------------------------------------------------------------------------------------------------ versions


def _write_first_version(path: Path, network: Draem) -> None:
    """A file as version 1 was written: no artefact, no region but the whole image, the text not ASCII alone."""
    content = safetensors.torch.save(network.state_dict())
    (length,) = struct.unpack_from("<Q", content)
    index, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header = {
        "kind": "draem-model",
        "format_version": 1,
        "config": Config.resolve("fast", None, TINY).model_dump(mode="json"),
        "channels": 3,
        "colour_order": "RGB",
        "value_range": [0, 1],
        "region": None,
        "thresholds": {"reject": 0.25, "review": 0.125, "chosen_on": "40 gute Bilder, ü"},
        "data": {"name": "bottle", "fingerprint": "f" * 64, "train": 5, "select": 2, "calibrate": 3},
        "training": {
            "images_seen": 16,
            "steps": 4,
            "step_kept": 3,
            "seconds": 1.5,
            "device": "cpu",
            "precision": "fp32",
            "validation": {"pixel_ap": 0.5, "image_auroc": None},
        },
        "origin": "trained",
        "versions": {"torch": "2"},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    join_parts(path, sealed({"__metadata__": {"draem": text}, **index}), data)


def test_version_1_is_read_and_the_newest_is_written(tmp_path: Path) -> None:
    network = Draem(Config.resolve("fast", None, TINY).network)
    lively_(network)
    path = tmp_path / "model.safetensors"
    _write_first_version(path, network)
    header = read_header(path)
    assert header.format_version == 1
    assert header.thresholds is not None
    assert (header.thresholds.reject, header.thresholds.chosen_on) == (0.25, "40 gute Bilder, ü")
    assert (header.artefact, header.region) == (None, None)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    before = Detector.load(path, "cpu").predict(image)
    weights = parts_of(path)[1]

    edit_header(path, header)
    assert FORMAT_VERSION == 4
    assert read_header(path) == header.model_copy(update={"format_version": FORMAT_VERSION})
    assert parts_of(path)[1] == weights
    after = Detector.load(path, "cpu").predict(image)
    assert (after.score, after.verdict) == (before.score, before.verdict)


def test_the_text_in_the_file_is_ascii(tmp_path: Path, model: Path) -> None:
    """A reader in any language may take it for Latin-1, UTF-8 or UTF-16 units and finds the same."""
    path = with_header(model, tmp_path / "x.safetensors", setting("origin", "ü \u2028 \U0001f600 \ufffe"))
    edit_header(path, read_header(path))
    assert parts_of(path)[0]["__metadata__"]["draem"].isascii()
    assert read_header(path).origin == "ü \u2028 \U0001f600 \ufffe"


@pytest.mark.parametrize("where", ["header", "metadata", "table"])
def test_what_is_said_twice_is_refused(tmp_path: Path, model: Path, where: str) -> None:
    """Of a key that is there twice some readers take the first, some the last."""
    index, data = parts_of(model)
    if where == "header":
        text = index["__metadata__"]["draem"]
        index["__metadata__"]["draem"] = text.replace('"channels":3', '"channels":3,"channels":3', 1)
    raw = json.dumps(sealed(index))
    if where == "metadata":
        raw = raw.replace('{"draem"', '{"sha256": "x", "draem"', 1)
    elif where == "table":
        name = json.dumps("reconstructive.encoder.block1.0.bias")
        raw = raw.replace(name, f'{name}: {{"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, {name}', 1)
    path = join_parts(tmp_path / "x.safetensors", raw.encode(), data)
    refuse_load(path)


@pytest.mark.parametrize("version", [True, 1.0, FORMAT_VERSION + 1, -1])
def test_versions_that_are_none(tmp_path: Path, model: Path, version: Any) -> None:
    refuse_load(with_header(model, tmp_path / "x.safetensors", setting("format_version", version)), "header version")


@pytest.mark.parametrize(
    "polygons",
    [
        {"inspect": [[[0, 0], [1, 1]]]},
        {"inspect": [[[0, 0], [1, 1], [2, 0]]]},
        {"inspect": [[[0, 0], [1, 1], [float("nan"), 0]]]},
        {"inspect": [[[0, 0, 0], [1, 1, 1], [0, 1, 1]]]},
        {"ignore": [[[0, 0], [1, 1], [0, 1]]] * 1001},
        {"inspect": [[[0, 0], [1, 1], [0, 1]] * 7000]},
        {"other": []},
        [],
    ],
)
def test_regions_that_are_none(tmp_path: Path, model: Path, polygons: Any) -> None:
    refuse_load(with_header(model, tmp_path / "x.safetensors", setting("region", polygons)), "its header")


def test_a_sum_of_other_weights_is_not_taken_over(tmp_path: Path, model: Path) -> None:
    """An edit of the header blesses no damage to the weights."""
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    header = read_header(path)
    edit_header(path, header.model_copy(update={"sha256": "", "region": RegionOfInterest()}))
    assert read_header(path).sha256 == header.sha256
    refuse_load(path, "the weights do not match")
    assert read_model(model).header.sha256 == header.sha256
