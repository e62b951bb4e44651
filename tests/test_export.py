"""Exports: what is written, what is refused and leaves nothing behind, and what is told before the work."""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import draem
from draem.deployment import graph, material, quantise
from draem.deployment.export import certificate_file, export
from draem.errors import DataError, DraemError, MissingExtraError, ParityError
from draem.evaluation.evaluate import evaluate
from draem.files import move_together
from draem.inspection.detector import Detector
from draem.modelfile import ArtefactFormat, Thresholds, edit_header, read_header, read_model
from draem.network.weights import load_model
from tiny import write_noise

Run = Callable[..., Any]
NAMES: dict[ArtefactFormat, str] = {"onnx": "part.onnx", "openvino": "part.xml"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tiny_onnx: Path) -> None:
    """The graph of `tiny_onnx` instead of the seconds that it takes to draw another."""
    monkeypatch.setattr(graph, "onnx_graph", lambda *arguments: tiny_onnx.read_bytes())


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing a graph fails the test: what is wrong must be told before."""

    def refuse(*arguments: object) -> NoReturn:
        raise AssertionError("the work began")

    monkeypatch.setattr(graph, "onnx_graph", refuse)


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch, tiny_onnx: Path) -> Callable[[float], None]:
    """Gives the exported graph the weights of the last convolution times a factor."""

    def times(factor: float) -> None:
        model = onnx.load_from_string(tiny_onnx.read_bytes())
        (weight,) = (one for one in model.graph.initializer if one.name.endswith("decoder_segment.fin_out.0.weight"))
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(factor), weight.name))
        monkeypatch.setattr(graph, "onnx_graph", lambda *arguments: model.SerializeToString())

    return times


def _left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------------------------- written


@pytest.mark.parametrize("to", NAMES)
@pytest.mark.usefixtures("drawn")
def test_what_is_written(tiny_model: Path, woven_tree: Path, tmp_path: Path, to: ArtefactFormat) -> None:
    out = tmp_path / "deep" / "er" / NAMES[to]
    made = export(tiny_model, out, woven_tree)
    files = [out.name, f"{out.name}.certificate.json", *(["part.bin"] if to == "openvino" else [])]
    assert sorted(path.name for path in out.parent.iterdir()) == sorted(files)
    assert _left(tmp_path)[:2] == ["deep", "deep/er"]
    assert read_model(out).header == read_header(out) == made.header
    trained = read_header(tiny_model)
    assert made.artefact.source_sha256 == trained.sha256
    assert made.header.model_copy(update={"artefact": None, "sha256": trained.sha256}) == trained
    assert made.size == sum(path.stat().st_size for path in out.parent.iterdir() if path.suffix != ".json")
    beside = json.loads(certificate_file(out).read_text(encoding="utf-8"))
    assert beside["artefact"]["certificate"] == made.certificate.model_dump(mode="json")
    assert beside["weights_sha256"] == made.header.sha256
    assert made.certificate.execution.startswith("onnxruntime" if to == "onnx" else "openvino")
    assert (made.certificate.flips, made.certificate.forced, made.warnings) == (0, False, [])


@pytest.mark.parametrize("to", NAMES)
def test_int8_is_compared_as_it_is_written_or_leaves_nothing(
    tiny_model: Path,
    woven_tree: Path,
    tmp_path: Path,
    to: ArtefactFormat,
    run_cli: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The certificate's scores are those of the file, run again; below what it differs by, it is refused."""
    monkeypatch.setattr(quantise, "_ROUNDS", 1)
    monkeypatch.setattr(material, "CALIBRATED", 8)
    monkeypatch.setattr(material, "JUDGED", 4)
    out = tmp_path / "line" / NAMES[to]
    given = ("export", tiny_model, "--data", woven_tree, "--precision", "int8", "--images", 4, "--out", out)
    refused = run_cli(*given, "--tolerance", "map_mean=1e-9")
    assert (refused.code, refused.out) == (1, "")
    assert "use --precision fp16, allow more with --tolerance" in refused.err.splitlines()[-1]
    assert _left(tmp_path) == []
    forced = run_cli(*given, "--force")
    assert forced.code == 0, forced.err
    header = read_model(out).header
    assert header.artefact is not None
    assert header.artefact.certificate is not None
    assert header.artefact.precision == "int8"
    assert "simulated anomaly" in header.artefact.quantised_on
    certificate = header.artefact.certificate
    assert "in int8" in certificate.execution
    assert certificate.map_mean > 0
    detector = Detector.load(out, backend="onnxruntime" if to == "onnx" else "openvino")
    for row in certificate.images:
        assert detector.predict(woven_tree / row.name).score == pytest.approx(row.score_after, abs=1e-6)


@pytest.mark.parametrize("force", [False, True])
def test_int8_that_is_refused_is_made_finer(
    tiny_model: Path,
    woven_tree: Path,
    tmp_path: Path,
    tiny_onnx: Path,
    spoil: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    force: bool,
) -> None:
    """The second attempt is as good as the model and written, a third one never made; forced, the first is written."""
    spoil(3.0)
    spoilt = graph.onnx_graph(*load_model(tiny_model), (64, 64), None)  # type: ignore[arg-type]

    def attempts(*arguments: object) -> Iterator[quantise.Quantised]:
        yield quantise.Quantised(spoilt, b"", [], "12 images", ())
        yield quantise.Quantised(tiny_onnx.read_bytes(), b"", ["one"], "12 images", ("0123456789",))
        raise AssertionError("a third one was made")

    monkeypatch.setattr(quantise, "quantise", attempts)
    made = export(tiny_model, tmp_path / "part.onnx", woven_tree, precision="int8", images=4, force=force)
    assert made.certificate.forced == force
    assert made.artefact.kept == ([] if force else ["one"])
    assert ("try 2" in made.artefact.quantised_on) != force
    assert (made.certificate.map_mean > 0.01) == force


@pytest.mark.usefixtures("drawn")
def test_metrics_are_those_of_evaluate_on_either_side(tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    made = export(tiny_model, tmp_path / "part.onnx", woven_tree, images=1000)
    before = evaluate(Detector.load(tiny_model, "cpu"), woven_tree)
    after = evaluate(Detector.load(made.path, backend="onnxruntime"), woven_tree)
    assert made.certificate.metrics_before == before.metrics.to_dict()
    assert made.certificate.metrics_after == after.metrics.to_dict()
    by_name = {image.name: image.score for image in after.images}
    assert {row.name: row.score_after for row in made.certificate.images} == by_name


@pytest.mark.usefixtures("drawn")
def test_choices(tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.onnx"
    made = draem.export(
        tiny_model, out, woven_tree, images=3, backend="openvino", precision="fp32", tolerance={"map_mean": 0.5}
    )
    assert made.certificate.execution.startswith("openvino")
    assert len(made.certificate.images) == 3
    assert made.certificate.tolerance == {"map_max": 1e-3, "score": 1e-3, "flips": 0, "map_mean": 0.5}
    half = draem.export(tiny_model, out, woven_tree, images=3, precision="fp16")
    assert half.certificate.tolerance["map_max"] == 2e-2
    assert half.artefact.precision == "fp16"


@pytest.mark.usefixtures("drawn")
def test_without_threshold_no_decisions_are_compared(
    tiny_model: Path, woven_tree: Path, tmp_path: Path, run_cli: Run
) -> None:
    model = tmp_path / "model.safetensors"
    shutil.copy(tiny_model, model)
    edit_header(model, read_header(model).model_copy(update={"thresholds": None}))
    ended = run_cli("export", model, "--data", woven_tree / "train" / "good", "--out", tmp_path / "part.onnx")
    assert ended.code == 0, ended.err
    assert "no threshold" in ended.out
    certificate = read_header(tmp_path / "part.onnx").artefact.certificate  # type: ignore[union-attr]
    assert certificate is not None
    assert (certificate.flips, certificate.metrics_before) == (None, None)


@pytest.mark.usefixtures("drawn")
def test_a_mapped_pair_is_not_written_into(tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.xml"
    weights = out.with_suffix(".bin")
    weights.write_bytes(b"old" * 5000)
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        export(tiny_model, out, woven_tree, images=2)
        assert mapped[:] == b"old" * 5000
    assert read_model(out).weights == weights.read_bytes()


def test_stdout_holds_the_result_alone(tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    """Of the true exporter, in a process of its own: it prints by many ways."""
    out = tmp_path / "part.xml"
    arguments = ["export", tiny_model, "--data", woven_tree, "--out", out, "--batch", 2, "--images", 4, "--json"]
    command = [sys.executable, "-m", "draem", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *table, compared, model, certificate, last = done.stdout.splitlines()
    assert (table[0][0], table[-1][0]) == ("┏", "└")
    assert compared.startswith("compared: openvino ")
    assert model.startswith(f"model: {out} (openvino fp32, 2 images at once, ")
    assert certificate == f"certificate: {certificate_file(out)}"
    told = json.loads(last)
    assert told["artefact"] == read_header(out).model_dump(mode="json")["artefact"]
    assert told["artefact"]["batch"] == 2
    assert not [line for line in done.stderr.splitlines() if line and not line.startswith("compare")]


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("to", NAMES)
def test_other_answers_are_refused_and_leave_nothing(
    tiny_model: Path, woven_tree: Path, tmp_path: Path, to: ArtefactFormat, spoil: Callable[[float], None], run_cli: Run
) -> None:
    spoil(0.9)
    ended = run_cli("export", tiny_model, "--data", woven_tree, "--out", tmp_path / "new" / NAMES[to])
    assert ended.code == 1
    assert not ended.out
    (line,) = (line for line in ended.err.splitlines() if line.startswith("draem:"))
    assert "part" in line
    assert "largest map difference" in line
    assert "(allowed 0.001)" in line
    assert "test/" in line
    assert "--force" in line
    assert not _left(tmp_path)


def test_what_stood_there_stays(
    tiny_model: Path, woven_tree: Path, tmp_path: Path, spoil: Callable[[float], None]
) -> None:
    before = {name: name.encode() for name in ("part.xml", "part.bin", "part.xml.certificate.json")}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    spoil(0.9)
    with pytest.raises(ParityError):
        export(tiny_model, tmp_path / "part.xml", woven_tree)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_flip_alone_is_refused(
    tiny_model: Path, woven_tree: Path, tmp_path: Path, spoil: Callable[[float], None]
) -> None:
    spoil(0.999)
    wide = {"map_max": 1.0, "score": 1.0}
    made = export(tiny_model, tmp_path / "a.onnx", woven_tree, tolerance=wide)
    row = max(made.certificate.images, key=lambda row: abs(row.score_after - row.score_before))
    between = (row.score_before + row.score_after) / 2
    model = tmp_path / "model.safetensors"
    shutil.copy(tiny_model, model)
    thresholds = Thresholds(reject=between, chosen_on="a test")
    edit_header(model, read_header(model).model_copy(update={"thresholds": thresholds}))
    with pytest.raises(ParityError, match=rf"decisions that differ \d+ \(allowed 0\): .*{row.name}|and \d+ more"):
        export(model, tmp_path / "b.onnx", woven_tree, tolerance=wide)
    assert not (tmp_path / "b.onnx").exists()


def test_forced_is_marked(
    tiny_model: Path, woven_tree: Path, tmp_path: Path, spoil: Callable[[float], None], run_cli: Run
) -> None:
    spoil(0.9)
    out = tmp_path / "part.onnx"
    ended = run_cli("export", tiny_model, "--data", woven_tree, "--out", out, "--force", "--json")
    assert ended.code == 0, ended.err
    assert "forced: largest map difference" in ended.err
    told = json.loads(ended.out.splitlines()[-1])
    assert told["artefact"]["certificate"]["forced"] is True
    assert read_header(out).model_dump(mode="json")["artefact"] == told["artefact"]
    spoil(1.0)
    assert not export(tiny_model, out, woven_tree, force=True).certificate.forced


@pytest.mark.parametrize("force", [False, True])
def test_what_is_not_a_number_is_refused_even_if_forced(
    tiny_model: Path, woven_tree: Path, tmp_path: Path, spoil: Callable[[float], None], force: bool
) -> None:
    spoil(float("nan"))
    with pytest.raises(ParityError, match="not numbers"):
        export(tiny_model, tmp_path / "part.onnx", woven_tree, force=force)
    assert not _left(tmp_path)


@pytest.mark.usefixtures("drawn")
def test_an_interrupt_leaves_nothing(tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            assert [path for path in tmp_path.rglob("*") if path.name == "part.xml"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tiny_model, tmp_path / "part.xml", woven_tree, progress=stop)
    assert not _left(tmp_path)


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_files_move_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    for name in ("new/a", "new/b", "new/c", "a", "b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name == "c":
            raise fault
        return rename(self, target)

    files = {tmp_path / "new" / name: tmp_path / name for name in "abc"}
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", failing)
        with pytest.raises(DraemError if isinstance(fault, OSError) else KeyboardInterrupt):
            move_together(files, kept=tmp_path / "new")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a", "b"]
    assert not (tmp_path / "c").exists()
    for name in "abc":
        (tmp_path / "new" / name).write_text(f"new/{name}")
    move_together(files, kept=tmp_path / "new")
    assert [(tmp_path / name).read_text() for name in "abc"] == ["new/a", "new/b", "new/c"]


# ---------------------------------------------------------------------------------------------------- before the work


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--out", "part.pt"], "an export's name ends in .onnx (onnx) or .xml (openvino)"),
        (["--out", "part.onnx", "--to", "openvino"], "an export's name ends in .xml (openvino)"),
        (["--out", "part.onnx", "--to", "tflite"], "use onnx or openvino"),
        (["--out", "part.onnx", "--precision", "int4"], "use fp32, fp16 or int8"),
        (["--out", "part.onnx", "--execution-precision", "tf32"], "use fp32, bf16, fp16"),
        (["--out", "part.xml", "--backend", "onnxruntime"], "does not run openvino; use openvino"),
        (["--out", "part.onnx", "--backend", "torch"], "does not run onnx; use onnxruntime or openvino"),
        (["--out", "part.onnx", "--tolerance", "map=1"], "use map_max, map_mean, score, flips"),
        (["--out", "part.onnx", "--tolerance", "score"], "write KEY=NUMBER"),
        (["--out", "part.onnx", "--tolerance", "score=0_1"], "write KEY=NUMBER"),
        (["--out", "folder.onnx"], "it is a folder"),
        (["--out", "bins.xml"], "bins.bin: cannot be written: it is a folder"),
        (["--out", "file/part.onnx"], "cannot be written: Not a directory"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_mistakes(
    tiny_model: Path, woven_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Run,
    arguments: list[str], told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "bins.bin").mkdir()
    (tmp_path / "file").touch()
    ended = run_cli("export", tiny_model, "--data", woven_tree, *arguments)
    assert ended.code == 1
    (line,) = ended.err.splitlines()
    assert told in line
    assert _left(tmp_path) == ["bins.bin", "file", "folder.onnx"]


@pytest.mark.usefixtures("no_work")
def test_wrong_models_and_data(tiny_model: Path, tiny_onnx: Path, woven_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(DraemError, match="is an export already"):
        export(tiny_onnx, tmp_path / "part.onnx", woven_tree)
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "stack.npy", np.zeros((20, 20, 5), np.uint8))
    with pytest.raises(DataError, match=r"none of 1 images can be used .*channels"):
        export(tiny_model, tmp_path / "part.onnx", tmp_path / "images")
    assert _left(tmp_path) == ["images", "images/stack.npy"]


@pytest.mark.parametrize(
    ("package", "name", "precision"),
    [("onnxscript", "part.onnx", "fp32"), ("openvino", "part.xml", "fp32"), ("nncf", "part.onnx", "int8")],
)
@pytest.mark.usefixtures("no_work")
def test_missing_packages(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, precision: Any
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    images = write_noise(tmp_path / "images", 2)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed: run pip install 'draem\[export\]'"):
        export(tiny_model, tmp_path / name, images, precision=precision)
