"""`draem set` changes the header alone: all or nothing, by turns, and what a certificate says of it stays true."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from conftest import Outcome
from draem.data.interest import draw_region
from draem.errors import ConfigError, DraemError, ModelFileError
from draem.images import write_image
from draem.inspection.detector import Detector
from draem.inspection.edits import KEYS, set_values
from draem.inspection.openvino_backend import import_openvino
from draem.modelfile import (
    Artefact,
    Certificate,
    DataRecord,
    Header,
    ImageParity,
    RegionOfInterest,
    Thresholds,
    TrainingRecord,
    edit_header,
    read_header,
    read_model,
)
from graphs import SIZE, brightness_header, write_brightness
from tiny import write_tiny_model

Run = Callable[..., Outcome]
PAGE = Path(__file__).parent.parent / "docs" / "model-file.md"
THRESHOLDS = Thresholds(reject=0.5, review=0.4, chosen_on="40 good images")
SCORES = [(0.10, 0.11), (0.29, 0.31), (0.30, 0.30), (0.45, 0.44), (0.70, 0.71)]
"""Of five images, before and after."""


def _certificate(**changes: Any) -> Certificate:
    images = [
        ImageParity(name=f"{place}.png", score_before=before, score_after=after, map_max=0.02, map_mean=0.001)
        for place, (before, after) in enumerate(SCORES)
    ]
    known: dict[str, Any] = {
        "execution": "openvino 1 on cpu in int8",
        "map_max": 0.02,
        "map_mean": 0.001,
        "score": 0.02,
    }
    return Certificate(**known | {"images": images, "flips": 0, "tolerance": {"map_mean": 0.01}} | changes)


@pytest.fixture(params=[".safetensors", ".onnx", ".xml"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model of each kind, which may be changed."""
    path = tmp_path / f"model{request.param}"
    if path.suffix == ".safetensors":
        return write_tiny_model(path, THRESHOLDS)
    return _exported(path)


def _exported(path: Path, **changes: Any) -> Path:
    header = brightness_header(THRESHOLDS)
    assert header.artefact is not None
    artefact = header.artefact.model_copy(update={"certificate": _certificate(**changes)})
    return write_brightness(path, header.model_copy(update={"artefact": artefact}))


def _weights(path: Path) -> str:
    """The sum of all but the header, taken by other means than ours."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        (length,) = struct.unpack_from("<Q", content)
        return hashlib.sha256(content[8 + length :]).hexdigest()
    if path.suffix == ".onnx":
        proto = onnx.load(path)
        del proto.metadata_props[:]
        return hashlib.sha256(proto.SerializeToString()).hexdigest()
    start, stop = content.index(b"<draem>"), content.index(b"</draem>")
    return hashlib.sha256(content[:start] + content[stop:] + path.with_suffix(".bin").read_bytes()).hexdigest()


def _said(run: Run, *arguments: object) -> str:
    done = run(*arguments)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    return done.err


def _draw(path: Path, mask: np.ndarray[Any, Any]) -> Path:
    write_image(path, np.repeat(mask[..., None] * np.uint8(255), 3, axis=2).astype(np.uint8))
    return path


# --------------------------------------------------------------------------------------------------------------- values


def test_thresholds(model: Path, run_cli: Run) -> None:
    weights, sha = _weights(model), read_header(model).sha256
    done = run_cli("set", model, "threshold=0.3", "review=0.125", "--json")
    assert done.code == 0
    assert "reject above: 0.5 → 0.3" in done.out
    assert json.loads(done.out.splitlines()[-1]) == read_header(model).model_dump(mode="json")
    assert read_header(model).thresholds == Thresholds(reject=0.3, review=0.125, chosen_on="set by hand")
    assert (_weights(model), read_model(model).header.sha256) == (weights, sha)
    assert Detector.load(model, "cpu").header == read_header(model)


def test_one_threshold_alone(model: Path) -> None:
    set_values(model, ["review=0.25"])
    assert read_header(model).thresholds == Thresholds(
        reject=0.5, review=0.25, chosen_on="40 good images; review set by hand"
    )
    set_values(model, ["thresholds.review=none"])
    assert read_header(model).thresholds == Thresholds(reject=0.5, chosen_on="40 good images; review set by hand")
    set_values(model, ["thresholds.reject=1"])
    assert read_header(model).thresholds == Thresholds(reject=1, chosen_on="set by hand")
    set_values(model, ["threshold=none"])
    assert read_header(model).thresholds is None


def test_a_region_from_a_mask(model: Path, tmp_path: Path, run_cli: Run) -> None:
    mask = np.zeros((240, 320), bool)
    mask[40:200, 80:240] = True
    mask[100:140, 140:180] = False
    done = run_cli("set", model, f"region={_draw(tmp_path / 'mask.png', mask)}")
    assert "region: the whole image → 31% of the image: 2 polygons inspected" in done.out
    region = read_header(model).region
    assert region is not None
    np.testing.assert_array_equal(draw_region(region, mask.shape), mask)
    ignored = np.zeros((240, 320), bool)
    ignored[:, :120] = True
    set_values(model, [f"ignore={_draw(tmp_path / 'ignored.png', ignored)}"])
    region = read_header(model).region
    assert region is not None
    np.testing.assert_array_equal(draw_region(region, mask.shape), mask & ~ignored)
    set_values(model, ["ignore=none"])
    region = read_header(model).region
    assert region is not None
    assert region.ignore == []
    set_values(model, ["region=none"])
    assert read_header(model).region is None


def test_a_region_from_polygons(model: Path, tmp_path: Path) -> None:
    polygons = {"inspect": [[[0, 0], [1, 0], [0, 1]]], "ignore": [[[0, 0], [0.5, 0], [0, 0.5]]]}
    (tmp_path / "r.json").write_text(json.dumps(polygons))
    set_values(model, [f"region={tmp_path / 'r.json'}"])
    assert read_header(model).region == RegionOfInterest.model_validate(polygons)


def test_a_white_mask_is_the_whole_image(model: Path, tmp_path: Path) -> None:
    set_values(model, [f"region={_draw(tmp_path / 'mask.png', np.ones((6, 8), bool))}"])
    assert read_header(model).region is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["treshold=0.4"], "'treshold=0.4' sets nothing; did you mean threshold?"),
        (["colour=0.4"], "threshold=a number from 0 to 1, or none; review="),
        (["threshold=0_1"], "give a number from 0 to 1"),
        (["threshold=-0"], "give a number from 0 to 1"),
        (["review=-0.0"], "give a number below the threshold"),
        (["threshold"], "'threshold' sets nothing"),
        (["threshold="], "no value"),
        (["threshold=x"], "give a number from 0 to 1"),
        (["threshold=nan"], "give a number from 0 to 1"),
        (["threshold=inf"], "give a number from 0 to 1"),
        (["threshold=1.01"], "give a number from 0 to 1"),
        (["threshold=0.4"], "review 0.4 does not lie below the threshold 0.4"),
        (["threshold=none", "review=0.3"], "no threshold"),
        (["threshold=0.6", "threshold=0.7"], "set twice"),
        (["threshold=0.6", "thresholds.reject=0.7"], "set twice"),
        (["threshold=0.6", "region=none.png"], "no such file"),
        (["threshold=0.6", "region=none.json"], "No such file"),
        (["threshold=0.6", "region=black.png"], "nothing in it is white"),
        (["threshold=0.6", "region=text.png"], "not an image"),
        (["threshold=0.6", "region=text.json"], "not JSON"),
        (["threshold=0.6", "region=wrong.json"], "at 'inspect.0.1.0' (Input should be less than or equal to 1)"),
        (["threshold=0.6", "ignore=white.png"], "nothing to inspect"),
        (["threshold=0.6", "ignore=wrong.json"], "not an image"),
        (["sha256=0"], "sets nothing"),
    ],
)
def test_mistakes_change_nothing(
    tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, values: list[str], says: str
) -> None:
    """One line that says what there is; of several values none is set."""
    monkeypatch.chdir(tmp_path)
    model = _exported(tmp_path / "model.xml")
    _draw(tmp_path / "black.png", np.zeros((6, 8), bool))
    _draw(tmp_path / "white.png", np.ones((6, 8), bool))
    (tmp_path / "text.png").write_text("x")
    (tmp_path / "text.json").write_text("{")
    (tmp_path / "wrong.json").write_text('{"inspect": [[[0, 0], [2, 0], [0, 1]]]}')
    before = model.read_bytes()
    assert says in _said(run_cli, "set", model, *values)
    assert model.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_nothing_to_set(tmp_path: Path, run_cli: Run) -> None:
    with pytest.raises(ConfigError, match="nothing to set; give KEY=VALUE"):
        set_values(_exported(tmp_path / "model.onnx"), [])
    assert run_cli("set", tmp_path / "model.onnx").code == 2


def test_what_is_no_model(tmp_path: Path, run_cli: Run) -> None:
    (tmp_path / "x.onnx").write_text("x")
    for name, says in (("x.onnx", "not an ONNX model"), ("none.xml", "no such file"), ("", "is a folder")):
        assert says in _said(run_cli, "set", tmp_path / name, "threshold=0.5")


# ---------------------------------------------------------------------------------------------------------- certificate


@pytest.mark.parametrize(
    ("reject", "review", "flips"),
    [(0.9, None, 0), (0.5, 0.4, 0), (0.5, 0.3, 1), (0.3, None, 1), (0.445, 0.3, 2), (0.105, None, 1), (0.0, None, 0)],
)
def test_flips_are_counted_anew(tmp_path: Path, reject: float, review: float | None, flips: int) -> None:
    """From the scores that the certificate holds, at the new thresholds; none without a threshold."""
    model = _exported(tmp_path / "model.onnx", flips=9)
    set_values(model, [f"threshold={reject}", f"review={'none' if review is None else review}"])
    assert _stored(model) == _certificate(flips=flips)
    set_values(model, ["threshold=none"])
    assert _stored(model) == _certificate(flips=None)


def test_a_region_as_large_elsewhere_is_told(tmp_path: Path, run_cli: Run) -> None:
    model = _exported(tmp_path / "model.xml")
    mask = np.zeros((6, 8), bool)
    mask[:, :4] = True
    run_cli("set", model, f"region={_draw(tmp_path / 'left.png', mask)}")
    done = run_cli("set", model, f"region={_draw(tmp_path / 'right.png', ~mask)}")
    assert done.out.startswith("region: ")
    again = run_cli("set", model, f"region={tmp_path / 'right.png'}")
    assert again.out == "nothing changed\n"


def test_another_region_makes_a_certificate_stale(tmp_path: Path, run_cli: Run) -> None:
    model = _exported(tmp_path / "model.xml")
    mask = np.zeros((6, 8), bool)
    mask[:, :4] = True
    set_values(model, ["region=none"])
    assert _stored(model).stale == "", "nothing changed"
    done = run_cli("set", model, f"region={_draw(tmp_path / 'mask.png', mask)}")
    assert "set it on the trained model, and export that" in done.out
    assert _stored(model).stale
    assert "set it on the trained model" in run_cli("info", model).out
    set_values(model, ["threshold=0.9", "region=none"])
    assert _stored(model).stale, "the figures are still those of another region and its scores"


def _stored(model: Path) -> Certificate:
    artefact = read_header(model).artefact
    assert artefact is not None
    assert artefact.certificate is not None
    return artefact.certificate


# ------------------------------------------------------------------------------------------------------------- the file


def test_the_weights_of_an_ir_are_never_opened_for_writing(tmp_path: Path) -> None:
    """They are read-only and mapped by a compiled model, which runs on while the header changes."""
    model = _exported(tmp_path / "model.xml")
    binary = model.with_suffix(".bin")
    binary.chmod(stat.S_IRUSR)
    compiled = import_openvino().Core().compile_model(model, "CPU")
    images = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)
    before = compiled([images])[0].copy()
    kept = binary.stat()
    set_values(model, ["threshold=0.75"])
    np.testing.assert_array_equal(compiled([images])[0], before)
    now = binary.stat()
    assert (now.st_mtime_ns, now.st_ctime_ns, now.st_ino) == (kept.st_mtime_ns, kept.st_ctime_ns, kept.st_ino)
    thresholds = Detector.load(model).header.thresholds
    assert thresholds is not None
    assert thresholds.reject == 0.75


def test_permissions_and_links_stay(model: Path, tmp_path: Path) -> None:
    model.chmod(0o640)
    link = tmp_path / f"link{model.suffix}"
    link.symlink_to(model)
    set_values(link, ["threshold=0.75"])
    assert link.is_symlink()
    assert stat.S_IMODE(model.stat().st_mode) == 0o640
    thresholds = read_header(model).thresholds
    assert thresholds is not None
    assert thresholds.reject == 0.75


def test_an_edit_that_fails_leaves_the_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DraemError, match="No space left"):
        set_values(model, ["threshold=0.75"])
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []


def test_a_damaged_header_is_not_edited(model: Path) -> None:
    content = model.read_bytes()
    assert content.count(b"40 good images") == 1
    model.write_bytes(content.replace(b"40 good images", b"41 good images"))
    with pytest.raises(ModelFileError, match="does not match its checksum"):
        set_values(model, ["threshold=0.75"])
    with pytest.raises(ModelFileError, match="does not match its checksum"):
        edit_header(model, brightness_header())


COUNT_UP = """
import sys
from pathlib import Path
from draem.modelfile.edits import change_header
for _ in range(10):
    change_header(
        Path(sys.argv[1]), lambda header: header.model_copy(update={"origin": str(int(header.origin) + 1)})
    )
"""


@pytest.mark.skipif(os.name != "posix", reason="folders are locked on POSIX alone")
def test_processes_take_turns(tmp_path: Path) -> None:
    """No edit is lost where two processes change one file at once."""
    model = _exported(tmp_path / "model.xml")
    edit_header(model, read_header(model).model_copy(update={"origin": "0"}))
    both = [subprocess.Popen([sys.executable, "-c", COUNT_UP, str(model)]) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert read_header(model).origin == "20"
    assert read_model(model)


# ------------------------------------------------------------------------------------------------------------- the page


def test_the_page_tells_every_key_and_field() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for key in KEYS:
        assert f"| `{key}` |" in page
    parts = (Header, Thresholds, RegionOfInterest, DataRecord, TrainingRecord, Artefact, Certificate, ImageParity)
    for field in {name for part in parts for name in part.model_fields}:
        assert f"`{field}`" in page, field


def test_the_page_s_readers_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of code of the page finds the header in a file of its kind."""
    import_openvino()
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    paths = [write_tiny_model(Path("model.safetensors"), THRESHOLDS)]
    paths += [_exported(Path(name)) for name in ("model.onnx", "model.xml")]
    for snippet, path in zip(snippets, paths, strict=True):
        found: dict[str, Any] = {}
        exec(compile(snippet, "model-file.md", "exec"), found)  # the page is our own
        assert found["header"] == read_header(path).model_dump(mode="json")


def test_the_page_s_sums_are_those_of_the_files(tmp_path: Path) -> None:
    """Taken as the page says, of each kind."""
    ours = write_tiny_model(tmp_path / "model.safetensors", THRESHOLDS)
    assert _weights(ours) == read_header(ours).sha256
    ir = _exported(tmp_path / "model.xml")
    xml = re.sub(rb"\s*<draem>.*</draem>", b"", ir.read_bytes(), flags=re.DOTALL)
    assert hashlib.sha256(xml + ir.with_suffix(".bin").read_bytes()).hexdigest() == read_header(ir).sha256
    graph = _exported(tmp_path / "model.onnx")
    assert _weights(graph) == read_header(graph).sha256
