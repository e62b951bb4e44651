"""The model file of OpenVINO: a pair that OpenVINO reads, of which neither half is another model's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from draem.errors import ModelFileError
from draem.inspection.detector import Detector
from draem.inspection.openvino_backend import import_openvino
from draem.modelfile import Thresholds, edit_header, read_header, read_model
from draem.modelfile.openvino import write_model
from graphs import SIZE, WEIGHT, brightness_graph, brightness_header, brightness_ir, write_brightness

THRESHOLDS = Thresholds(reject=0.5, chosen_on="ü < & > \" ' ]]> &lt; a test's")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brightness(tmp_path_factory.mktemp("ir") / "model.xml", brightness_header(THRESHOLDS))


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A pair to be spoilt."""
    for suffix in (".xml", ".bin"):
        shutil.copy(model.with_suffix(suffix), tmp_path / f"copy{suffix}")
    return tmp_path / "copy.xml"


def _refused(path: Path, *says: str) -> None:
    for read in (read_model, Detector.load):
        with pytest.raises(ModelFileError) as caught:
            read(path)
        text = str(caught.value)
        assert text.startswith(str(path.with_suffix("")))
        assert "\n" not in text
        assert len(text) < len(str(path)) + 300
        for part in says:
            assert part in text


def test_openvino_reads_the_header(model: Path) -> None:
    loaded = import_openvino().Core().read_model(model)
    assert json.loads(loaded.get_rt_info(["draem", "header"]).astype(str)) == json.loads(
        read_header(model).model_dump_json()
    )


@pytest.mark.parametrize("kept", [True, False])
def test_with_and_without_other_entries(tmp_path: Path, kept: bool) -> None:
    """OpenVINO writes entries of its own at the place of ours, or none."""
    xml, weights = brightness_ir(brightness_graph())
    if not kept:
        start = xml.rindex(b"<rt_info>")
        xml = xml[:start].rstrip() + b"\n</net>\n"
    path = tmp_path / "x.xml"
    header = write_model(path, brightness_header(THRESHOLDS), xml, weights)
    assert read_model(path).header == header
    edit_header(path, header.model_copy(update={"thresholds": None}))
    assert read_model(path).header.thresholds is None
    again = write_model(path, header, path.read_bytes(), weights)
    assert again == header, "with a header of ours or without, the sum is the same"
    images = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)
    maps, _ = Detector.load(path).backend.run(images)
    np.testing.assert_allclose(maps, WEIGHT * images.mean(1), rtol=1e-6)


def test_the_weights_of_another_model(copy: Path, tmp_path: Path) -> None:
    graph = brightness_graph()
    graph.graph.initializer[1].float_data[0] = 0.5
    other = write_brightness(tmp_path / "other.xml", brightness_header(THRESHOLDS), graph)
    assert other.with_suffix(".bin").stat().st_size == copy.with_suffix(".bin").stat().st_size
    shutil.copy(other.with_suffix(".bin"), copy.with_suffix(".bin"))
    _refused(copy, "are not the pair that was exported", "copy both again")


def test_without_its_weights(copy: Path) -> None:
    copy.with_suffix(".bin").unlink()
    _refused(copy, "copy.bin is not beside it")
    assert read_header(copy).thresholds == THRESHOLDS


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name is of POSIX")
def test_weights_that_are_no_file(copy: Path) -> None:
    binary = copy.with_suffix(".bin")
    binary.unlink()
    os.mkfifo(binary)
    _refused(copy, "a pipe or a device")


@pytest.mark.parametrize("content", [b"", b"x", bytes(100)])
def test_other_weights(copy: Path, content: bytes) -> None:
    copy.with_suffix(".bin").write_bytes(content)
    _refused(copy, "are not the pair")


def test_the_bin_is_named(copy: Path) -> None:
    _refused(copy.with_suffix(".bin"), "name copy.xml beside it")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"1.0"?>', b'"1.0"?><!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>', "DOCTYPE"),
        (b"<layers>", b"<!-- comment --><layers>", "comments"),
        (b"<layers>", b"<layers><![CDATA[x]]>", "comments"),
        (b"<draem>", b"<draem></draem><draem>", "several headers"),
        (b"<draem>", b"<draem><other />", "header is damaged"),
        (b"<draem>", b"<draem>" + b" " * 100, "header is damaged"),
        (b"</draem>", b"", "header is damaged"),
        (b"<draem>", b"<draen>", "no header"),
        (b"</net>", b"", "not an OpenVINO IR"),
        (b"<?xml", b"\xef\xbb\xbf<?xml", "not an OpenVINO IR"),
        (b"&quot;onnx&quot;", b"&quot;onny&quot;", "does not match its checksum"),
        (b'<header value="', b'<header value="\xff', "header is damaged"),
        (b'type="Const"', b'type="Conxt"', "are not the pair"),
    ],
)
def test_spoilt_xml(copy: Path, old: bytes, new: bytes, says: str) -> None:
    content = copy.read_bytes()
    assert old in content
    copy.write_bytes(content.replace(old, new, 1))
    _refused(copy, says)


@pytest.mark.parametrize("content", [b"", b" " * 1000, b"<net ></net>", b"<?xml ?></net>", b"\0" * 100])
def test_not_an_ir(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.xml"
    path.write_bytes(content)
    _refused(path)


def test_spaces_without_end_take_no_time(copy: Path) -> None:
    """Searching for our entries is linear in whatever a file holds."""
    content = copy.read_bytes()
    copy.write_bytes(
        content.replace(b"<draem>", b" " * 2**20 + b"<draen>", 1).replace(b"</net>", b"\n" * 2**20, 1) + b"</net>"
    )
    _refused(copy)


def test_larger_than_any(copy: Path) -> None:
    os.truncate(copy, 2**40)
    _refused(copy, "larger than any")


def test_the_loaded_network_keeps_its_weights(copy: Path) -> None:
    """An edit while a program inspects: its answers stay, the next load has the new header."""
    image = np.full((SIZE, SIZE, 3), 200, np.uint8)
    running = Detector.load(copy)
    before = running.predict(image).score
    edit_header(copy, read_header(copy).model_copy(update={"thresholds": None}))
    assert running.predict(image).score == before
    assert Detector.load(copy).predict(image).verdict is None
