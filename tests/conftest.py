"""What several test modules share: a small model with lively weights, a small rendered data set, the command line."""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from draem import cli, preview
from draem.data.demo import render_demo
from draem.inspection.detector import Detector
from draem.inspection.onnx_backend import import_onnxruntime
from draem.modelfile import Thresholds
from tiny import write_tiny_ir, write_tiny_model, write_tiny_onnx

import_onnxruntime()  # before any test does: it would report its use over the network
# Workers run side by side, a core each: more threads would wait for one another.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _torch_as_it_was() -> Iterator[None]:
    """A run sets threads and the handling of denormal numbers for its process."""
    yield
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)


@pytest.fixture(autouse=True, scope="session")
def _each_graph_once() -> Iterator[None]:
    """The same network is exported by many tests, and torch takes seconds for it: what it gave is given again."""
    made: dict[bytes, Any] = {}
    export = torch.onnx.export

    def once(graph: torch.nn.Module, example: tuple[torch.Tensor], **told: Any) -> Any:
        key = hashlib.sha256(pickle.dumps((graph, example[0].shape, str(told)))).digest()
        if key not in made:
            made[key] = export(graph, example, **told)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", once)
        yield


@pytest.fixture(autouse=True)
def _short_surveys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics below a picture of simulated anomalies are of few; a test of them sets its own number."""
    monkeypatch.setattr(preview, "_SURVEYED", 40)
    monkeypatch.setattr(preview, "_COMPARED", 250)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with random weights, a threshold and a review zone; not to be changed."""
    thresholds = Thresholds(reject=0.555, review=0.548, chosen_on="nothing: a test's")
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model.safetensors", thresholds)


@pytest.fixture(scope="session")
def tiny_onnx(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_model` as an ONNX file in fp32 that takes any number of images; not to be changed."""
    return write_tiny_onnx(tiny_model, tmp_path_factory.mktemp("tiny") / "model.onnx")


@pytest.fixture(scope="session")
def tiny_ir(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_onnx` as OpenVINO IR; not to be changed."""
    return write_tiny_ir(tiny_onnx, tmp_path_factory.mktemp("tiny") / "model.xml")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered between runs lies in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_detector(tiny_model: Path) -> Detector:
    """The detector of `tiny_model`, on the CPU."""
    return Detector.load(tiny_model, "cpu")


@pytest.fixture(scope="session")
def woven_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered data set in MVTec AD layout, 64×64 pixels: 8 good to train, 4 good and 2 of each defect to test."""
    return render_demo(tmp_path_factory.mktemp("demo"), "woven", size=64, train=8, test_good=4, test_defect=2)[0]


class Outcome(NamedTuple):
    """How a command ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `draem ARGUMENTS…` in this process; whatever is not caught by the command line fails the test."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["draem", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return Outcome(code or 0, written.out, written.err)

    return run
