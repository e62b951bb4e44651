"""Every backend gives what torch gives; what cannot run is one line; `auto` takes what is fastest, and remembers it."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import draem
from conftest import Outcome
from draem.errors import ConfigError, MemoryLimitError, MissingExtraError, ModelFileError
from draem.files import atomic_write
from draem.images import write_image
from draem.inspection import backends, fastest, processor
from draem.inspection.backends import Backend, open_backend
from draem.inspection.detector import Detector
from draem.inspection.execution import Execution
from draem.inspection.fixed_batch import FixedBatch
from draem.inspection.memory import out_of_memory, within_memory
from draem.inspection.onnx_backend import OnnxBackend
from draem.inspection.openvino_backend import OpenvinoBackend, _executed, import_openvino
from draem.inspection.torch_backend import TorchBackend
from draem.modelfile import Header, Thresholds, onnx, read_header
from draem.network.weights import load_model
from draem.pixels import Images
from tiny import write_tiny_ir, write_tiny_model, write_tiny_onnx

Run = Callable[..., Outcome]
ALL = ("torch", "onnxruntime", "openvino", "openvino of IR")


@pytest.fixture
def models(tiny_model: Path, tiny_onnx: Path, tiny_ir: Path) -> dict[str, Path]:
    return {"torch": tiny_model, "onnxruntime": tiny_onnx, "openvino": tiny_onnx, "openvino of IR": tiny_ir}


def _execution(name: str, **settings: Any) -> Execution:
    backend: Any = name.split()[0]
    return Execution(backend=backend, device="cpu", **settings)


def _images(count: int, channels: int = 3, size: tuple[int, int] = (64, 64), seed: int = 0) -> Images:
    return np.random.default_rng(seed).random((count, channels, *size), np.float32)


def _by_torch(model: Path, images: Images) -> tuple[Images, Images]:
    """Maps and reconstructions from the network itself."""
    network, _ = load_model(model)
    with torch.inference_mode():
        reconstruction, logits = network.eval()(torch.from_numpy(images))
        return torch.softmax(logits, 1)[:, 1].numpy(), reconstruction.numpy()


def _close(found: tuple[Images, Images], expected: tuple[Images, Images], tolerance: float = 1e-5) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=tolerance)


# -------------------------------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("threads", "streams"), [(None, 1), (1, 1), (2, 1), (2, 2), (1, 3)])
def test_every_backend_gives_what_the_network_gives(
    models: dict[str, Path], name: str, threads: int | None, streams: int
) -> None:
    backend, _ = open_backend(models[name], _execution(name, threads=threads, streams=streams))
    assert (backend.name, backend.in_flight) == (name.split()[0], streams)
    for count in (1, 3):
        images = _images(count)
        _close(backend.run(images), _by_torch(models["torch"], images))
    if threads is not None:
        assert f" on cpu in fp32, {min(threads, processor.usable_cores())}" in backend.execution
    assert (f", {streams} streams" in backend.execution) == (streams > 1)


@pytest.mark.parametrize("name", ALL)
def test_results_are_the_callers_own(models: dict[str, Path], name: str) -> None:
    backend, _ = open_backend(models[name], _execution(name))
    first = backend.run(_images(2, seed=1))
    kept = [array.copy() for array in first]
    for seed in range(2, 5):
        backend.run(_images(2, seed=seed))
    for array, before in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, before)
        array += 1.0  # it may be written to


@pytest.mark.parametrize("name", ALL)
def test_threads_get_their_own_answers(models: dict[str, Path], name: str) -> None:
    backend, _ = open_backend(models[name], _execution(name, threads=2, streams=2))
    batches = [_images(1 + seed % 3, seed=seed) for seed in range(12)]
    expected = [backend.run(images) for images in batches]
    with ThreadPoolExecutor(6) as pool:
        for found, wanted in zip(pool.map(backend.run, batches), expected, strict=True):
            _close(found, wanted, 1e-6)


def _header_of(model: Path, **settings: object) -> Header:
    """A model's header with other settings of its data."""
    header = read_header(model)
    return header.model_copy(update={"config": header.config.override(None, settings)})


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({"data.fit": "letterbox"}, np.uint8),
        ({"data.depth": 16}, np.uint16),
        ({"data.depth": 16, "data.value_range": [0, 4095]}, np.uint16),
    ],
)
def test_detectors_agree_whatever_the_images(
    models: dict[str, Path], tmp_path: Path, settings: dict[str, Any], dtype: type
) -> None:
    content = onnx.read_model(models["onnxruntime"]).content
    onnx.write_model(tmp_path / "model.onnx", _header_of(models["onnxruntime"], **settings), content)
    reference = Detector(Detector.load(models["torch"], "cpu").backend, _header_of(models["torch"], **settings))
    rng = np.random.default_rng(0)
    highest = 4096 if "data.value_range" in settings else np.iinfo(dtype).max
    images = [rng.integers(0, highest, (*shape, 3), dtype=dtype) for shape in ((50, 90), (64, 64), (200, 30))]
    expected = reference.predict(images)
    for name in ("onnxruntime", "openvino"):
        detector = Detector(*open_backend(tmp_path / "model.onnx", _execution(name)))
        for found, wanted in zip(detector.predict(images), expected, strict=True):
            np.testing.assert_allclose(found.input_map, wanted.input_map, atol=1e-5)
            np.testing.assert_allclose(found.anomaly_map, wanted.anomaly_map, atol=1e-5)
            assert found.score == pytest.approx(wanted.score, abs=1e-5)
            assert found.verdict == wanted.verdict
            assert [region.box for region in found.regions] == [region.box for region in wanted.regions]
    assert len({found.verdict for found in expected}) >= 1


@pytest.mark.parametrize(("channels", "size", "batch"), [(1, (32, 64), 2), (5, (64, 32), None)])
def test_grey_stacks_and_oblong_inputs(tmp_path: Path, channels: int, size: tuple[int, int], batch: int | None) -> None:
    """And any number of images through a model for a fixed number."""
    thresholds = Thresholds(reject=0.5, chosen_on="a test's")
    model = write_tiny_model(tmp_path / "model.safetensors", thresholds, data__channels=channels, data__size=list(size))
    exported = write_tiny_onnx(model, tmp_path / "model.onnx", batch)
    made = [
        (exported, "onnxruntime"),
        (exported, "openvino"),
        (write_tiny_ir(exported, tmp_path / "ir.xml"), "openvino"),
    ]
    pictures = [np.random.default_rng(n).integers(0, 256, (40, 50, channels), dtype=np.uint8) for n in range(5)]
    wanted = Detector.load(model, "cpu").predict(pictures)
    for path, name in made:
        backend, header = open_backend(path, _execution(name))
        assert isinstance(backend, FixedBatch) == (batch is not None)
        for count in (1, 2, 5):
            images = _images(count, channels, size, seed=count)
            _close(backend.run(images), _by_torch(model, images), 5e-5)
        for found, expected in zip(Detector(backend, header).stream(pictures, 3), wanted, strict=True):
            assert found.score == pytest.approx(expected.score, abs=5e-5)
            assert found.verdict == expected.verdict


def test_a_fixed_batch_is_filled_up_and_cut() -> None:
    seen: list[Images] = []

    class Mean:
        name = execution = "mean"
        in_flight = 1

        def run(self, images: Images) -> tuple[Images, Images]:
            seen.append(images)
            return images.mean(1), images

    images = _images(7, size=(4, 4))
    maps, reconstructions = FixedBatch(Mean(), 3).run(images)
    np.testing.assert_array_equal(maps, images.mean(1))
    np.testing.assert_array_equal(reconstructions, images)
    assert [len(part) for part in seen] == [3, 3, 3]
    assert not seen[-1][1:].any()


# ----------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("name", ["torch", "openvino", "openvino of IR"])
def test_half_precision_is_near_and_said(models: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "lacks_bf16", lambda: False)
    try:
        backend, _ = open_backend(models[name], _execution(name, precision="bf16"))
    except ConfigError:  # a processor without it, where OpenVINO says so
        pytest.skip("no bf16 on this processor")
    maps, _ = backend.run(_images(2))
    expected, _ = _by_torch(models["torch"], _images(2))
    assert np.abs(maps - expected).mean() < 2e-2
    if " in bf16" in backend.execution:
        assert np.abs(maps - expected).max() > 0


def test_fp32_is_asked_for_in_so_many_words(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO takes bf16 unless it is told otherwise."""
    told: list[dict[str, Any]] = []
    core = import_openvino().Core
    usual = core.compile_model

    def compile_model(self: Any, model: Any, device: str, options: dict[str, Any]) -> Any:
        told.append(options)
        return usual(self, model, device, options)

    monkeypatch.setattr(core, "compile_model", compile_model)
    assert " in fp32" in open_backend(models["openvino"], _execution("openvino"))[0].execution
    assert told[0]["INFERENCE_PRECISION_HINT"] == "f32"


def test_what_would_round_more_than_asked_is_refused(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="precision fp16: torch has it on accelerators"):
        open_backend(models["torch"], _execution("torch", precision="fp16"))
    for precision in ("fp16", "bf16"):
        with pytest.raises(ConfigError, match=f"precision {precision}: ONNX Runtime"):
            open_backend(models["onnxruntime"], _execution("onnxruntime", precision=precision))


def test_openvino_in_another_precision_than_told() -> None:
    class Compiled:
        def __init__(self, told: str) -> None:
            self.told = told

        def get_property(self, name: str) -> Any:
            return self

        def get_type_name(self) -> str:
            return self.told

    assert _executed(Compiled("bf16"), Execution(precision="bf16")) == "bf16"
    assert _executed(Compiled("f32"), Execution(precision="bf16")) == "fp32"
    with pytest.raises(ConfigError, match="precision fp16: OpenVINO would compute in bf16"):
        _executed(Compiled("bf16"), Execution(precision="fp16"))


def test_bf16_without_a_processor_for_it_is_said(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for lacking in (True, False):
        monkeypatch.setattr(backends, "lacks_bf16", lambda lacking=lacking: lacking)
        with caplog.at_level(logging.WARNING, "draem"):
            open_backend(tiny_model, _execution("torch", precision="bf16"))
        assert ("no such arithmetic" in caplog.text) == lacking
        caplog.clear()


@pytest.mark.parametrize(
    ("told", "name", "lacks"),
    [
        ("model name\t: Old CPU @ 2 GHz\nflags\t\t: fpu avx2\n", "Old CPU @ 2 GHz", True),
        ("model name\t: New CPU\nflags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", "New CPU", False),
        ("processor: 0\nFeatures\t: fp asimd bf16\n", None, False),
        ("processor: 0\nFeatures\t: fp asimd\n", None, True),
        ("", None, False),
    ],
)
def test_what_a_processor_says(monkeypatch: pytest.MonkeyPatch, told: str, name: str | None, lacks: bool) -> None:
    monkeypatch.setattr(processor, "_told", lambda: told)
    assert processor.lacks_bf16.__wrapped__() == lacks
    found = processor.processor_name.__wrapped__()
    assert found == name or (name is None and found)


@pytest.mark.parametrize("name", ALL)
def test_more_threads_than_cores_are_not_taken(models: dict[str, Path], name: str) -> None:
    """They would wait for each other: with hundreds, for minutes a run. OpenVINO sees to that by itself."""
    detector = Detector(*open_backend(models[name], _execution(name, threads=1000)))
    assert f", {processor.usable_cores()} thread" in detector.backend.execution
    assert detector.predict(np.zeros((8, 8, 3), np.uint8)).score >= 0


def test_torch_has_its_threads_back_after_a_run(models: dict[str, Path]) -> None:
    before = torch.get_num_threads()
    backend, _ = open_backend(models["torch"], _execution("torch", threads=3))
    backend.run(_images(1))
    assert torch.get_num_threads() == before


# -------------------------------------------------------------------------------------------------------- what cannot


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "torch"}, "backend torch does not run .onnx files; use onnxruntime or openvino"),
        ({"device": "mps"}, "device mps"),
        ({"backend": "onnxruntime", "device": "mps"}, "device mps: ONNX Runtime runs on"),
        ({"backend": "openvino", "device": "cuda"}, "device cuda: OpenVINO runs on"),
        ({"backend": "onnxruntime", "precision": "bf16"}, "precision bf16: ONNX Runtime"),
    ],
)
def test_what_does_not_go_together(tiny_onnx: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        draem.load(tiny_onnx, **settings)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "directml"])
def test_a_provider_that_is_not_installed(tiny_onnx: Path, device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match=f"device {device}: .* pip install onnxruntime-(gpu|directml)"):
        draem.load(tiny_onnx, device, backend="onnxruntime")


def test_a_provider_that_does_not_start(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed, but the driver is missing: ONNX Runtime then takes the CPU without a word."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    usual = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda content, options, providers: usual(content, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(ConfigError, match="device cuda: ONNX Runtime cannot start it"):
        draem.load(tiny_onnx, "cuda", backend="onnxruntime")
    assert " on cpu in fp32" in draem.load(tiny_onnx, backend="onnxruntime").backend.execution


def test_a_runtime_that_is_not_installed(tiny_onnx: Path, tiny_ir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for path, backend in ((tiny_onnx, "openvino"), (tiny_ir, "auto"), (tiny_ir, "openvino")):
        with pytest.raises(MissingExtraError, match=r"openvino is not installed: .*draem\[openvino\]"):
            open_backend(path, Execution(backend=backend))  # type: ignore[arg-type]
    assert open_backend(tiny_onnx)[0].name == "onnxruntime"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match="onnxruntime: it is not installed"):
        open_backend(tiny_onnx, Execution(backend="onnxruntime"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("onnxruntime", "raise ImportError('libcudart.so.12: cannot open\\nshared object file')"),
        ("openvino", "raise ImportError('libtbb.so.12: cannot open\\nshared object file')"),
        ("onnxruntime", "import a_module_that_is_not_there"),
        ("openvino", "raise OSError('libtbb.so.12: invalid ELF header')"),
        ("onnxruntime", ""),
    ],
)
def test_a_runtime_that_is_broken(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, run_cli: Run
) -> None:
    (tmp_path / f"{name}.py").write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name)
    told = run_cli("predict", str(tiny_onnx), str(tiny_onnx), "--out", str(tmp_path / "out"), "--backend", name)
    assert told.code == 1
    assert told.err.count("\n") == 1
    assert f"draem: {name} is installed, but does not load (" in told.err
    assert f"pip install --force-reinstall {name}" in told.err


def test_a_broken_runtime_leaves_the_other(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libgomp.so.1')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime")
    assert open_backend(tiny_onnx)[0].name == "openvino"


def test_a_device_of_one_backend_alone(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other is not what the error is about."""
    with pytest.raises(ConfigError, match=r"device intel-gpu: OpenVINO finds none here"):
        open_backend(tiny_onnx, Execution(device="intel-gpu"))
    with pytest.raises(ConfigError, match=r"device intel-gpu: ONNX Runtime runs on .*; --backend openvino runs on it"):
        open_backend(tiny_onnx, Execution("onnxruntime", device="intel-gpu"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'draem\[openvino\]'"):
        open_backend(tiny_onnx, Execution(device="intel-gpu"))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_graphs_that_are_other_than_the_header_says(tiny_onnx: Path, tmp_path: Path, name: str) -> None:
    sealed = onnx.read_model(tiny_onnx)
    artefact = sealed.header.artefact
    assert artefact is not None
    other = (
        _header_of(tiny_onnx, **{"data.size": 32}),
        sealed.header.model_copy(update={"artefact": artefact.model_copy(update={"batch": 2})}),
    )
    for header in other:
        path = tmp_path / "model.onnx"
        onnx.write_model(path, header, sealed.content)
        with pytest.raises(ModelFileError, match=r"its graph has image .*; its header says"):
            open_backend(path, _execution(name))


def test_runtimes_say_out_of_memory_in_many_words() -> None:
    said = (
        "CUDA out of memory. Tried to allocate 2 GiB",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 8",
        "Exception from src/plugins/intel_cpu/src/node.cpp:700: std::bad_alloc",
        "[GPU] CL_OUT_OF_MEMORY: out of GPU resources: out_of_memory",
    )
    for words in said:
        assert out_of_memory(RuntimeError(words)), words
        with pytest.raises(MemoryLimitError, match="2 images of 64×64"), within_memory(_images(2)):
            raise RuntimeError(words)
    with pytest.raises(ValueError, match="shape mismatch"), within_memory(_images(2)):
        raise ValueError("shape mismatch")


# ---------------------------------------------------------------------------------------------------------------- auto


class Sleeper:
    """A backend that takes its time."""

    in_flight = 1
    execution = "asleep"

    def __init__(self, name: str, seconds: float, opened: list[str] | None = None) -> None:
        self.name, self.seconds, self.runs = name, seconds, 0
        if opened is not None:
            opened.append(name)

    def run(self, images: Images) -> tuple[Images, Images]:
        self.runs += 1
        time.sleep(self.seconds)
        return images[:, 0], images


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "platform", "linux")
    return fastest.cache_file()


def _sleepers(
    opened: list[str], slow: str = "onnxruntime", quick: str = "openvino"
) -> dict[str, Callable[[], Backend]]:
    return {slow: lambda: Sleeper(slow, 0.05, opened), quick: lambda: Sleeper(quick, 0.0, opened)}


def test_the_fastest_is_taken_and_remembered(tiny_onnx: Path, cache: Path) -> None:
    header, opened = read_header(tiny_onnx), list[str]()
    assert fastest.open_fastest(_sleepers(opened), header, Execution()).name == "openvino"
    assert sorted(opened) == ["onnxruntime", "openvino"]
    assert list(json.loads(cache.read_text()).values()) == ["openvino"]
    opened.clear()
    # Now the other one is faster: what was measured counts.
    again = _sleepers(opened, slow="openvino", quick="onnxruntime")
    assert fastest.open_fastest(again, header, Execution()).name == "openvino"
    assert opened == ["openvino"]
    assert fastest.open_fastest(again, header, Execution(threads=1)).name == "onnxruntime", "another execution"
    other = header.model_copy(update={"sha256": "0" * 64})
    assert fastest.open_fastest(again, other, Execution()).name == "onnxruntime", "another model"


def test_another_processor_is_measured_anew(tiny_onnx: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_header(tiny_onnx)
    fastest.open_fastest(_sleepers([]), header, Execution())
    monkeypatch.setattr(fastest, "processor_name", lambda: "another")
    again = _sleepers([], slow="openvino", quick="onnxruntime")
    assert fastest.open_fastest(again, header, Execution()).name == "onnxruntime"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null", b'{"a": ' * 100_000, b'{"KEY": 3}'])
def test_a_damaged_cache_is_measured_anew(tiny_onnx: Path, cache: Path, content: bytes) -> None:
    header = read_header(tiny_onnx)
    key = fastest._key(("onnxruntime", "openvino"), header, Execution())
    atomic_write(cache, content.replace(b"KEY", key.encode()))
    assert fastest.open_fastest(_sleepers([]), header, Execution()).name == "openvino"
    assert json.loads(cache.read_text())[key] == "openvino"


def test_a_cache_that_cannot_be_written_is_none(tiny_onnx: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_write(cache.parent, b"a file where the folder would be")
    assert fastest.open_fastest(_sleepers([]), read_header(tiny_onnx), Execution()).name == "openvino"
    assert cache.parent.read_bytes() == b"a file where the folder would be"


def test_one_that_fails_at_the_measurement_is_not_taken(
    tiny_onnx: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(sleeper: Sleeper, images: Images) -> tuple[Images, Images]:
        if sleeper.name == "openvino":
            raise RuntimeError("no such operation")
        return images[:, 0], images

    monkeypatch.setattr(Sleeper, "run", fail)
    assert fastest.open_fastest(_sleepers([]), read_header(tiny_onnx), Execution()).name == "onnxruntime"
    assert list(json.loads(cache.read_text()).values()) == ["onnxruntime"]


def test_the_cache_does_not_grow_without_end(tiny_onnx: Path, cache: Path) -> None:
    atomic_write(cache, json.dumps({f"old {index}": "openvino" for index in range(500)}).encode())
    header = read_header(tiny_onnx)
    fastest.open_fastest(_sleepers([]), header, Execution())
    known = json.loads(cache.read_text())
    assert len(known) == 200
    assert fastest._key(("onnxruntime", "openvino"), header, Execution()) in known


def test_a_single_candidate_is_not_measured(tiny_onnx: Path, cache: Path) -> None:
    only = Sleeper("openvino", 0.0)
    assert fastest.open_fastest({"openvino": lambda: only}, read_header(tiny_onnx), Execution()) is only
    assert (only.runs, cache.exists()) == (0, False)

    def refuses() -> Backend:
        raise ConfigError("not in this precision")

    able = fastest.open_fastest({"onnxruntime": refuses, "openvino": lambda: only}, read_header(tiny_onnx), Execution())
    assert (able, only.runs, cache.exists()) == (only, 0, False)
    with pytest.raises(ConfigError, match="not in this precision"):
        fastest.open_fastest({"onnxruntime": refuses, "openvino": refuses}, read_header(tiny_onnx), Execution())


def test_auto_is_one_of_those_that_run_the_file(
    models: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def seconds(backend: Backend, images: Images) -> float:
        measured.append(backend.name)
        return -len(measured)

    monkeypatch.setattr(fastest, "_seconds", seconds)
    assert open_backend(models["onnxruntime"])[0].name == "openvino"
    assert measured == ["onnxruntime", "openvino"]
    assert isinstance(open_backend(models["onnxruntime"])[0], OpenvinoBackend), "as remembered"
    assert isinstance(open_backend(models["torch"])[0], TorchBackend)
    assert isinstance(open_backend(models["openvino of IR"])[0], OpenvinoBackend)
    assert isinstance(open_backend(models["onnxruntime"], Execution("onnxruntime"))[0], OnnxBackend)
    assert len(measured) == 2


def test_auto_keeps_to_the_precision_asked_for(models: dict[str, Path], cache: Path) -> None:
    with_bf16 = open_backend(models["openvino"], Execution(precision="bf16"))[0]
    assert with_bf16.name == "openvino", "ONNX Runtime does not compute in bf16"


@pytest.mark.parametrize(
    ("platform", "variable", "place"),
    [
        ("linux", "XDG_CACHE_HOME", "X/draem/backends.json"),
        ("win32", "LOCALAPPDATA", "X/draem/backends.json"),
        ("darwin", "HOME", "X/Library/Caches/draem/backends.json"),
        ("linux", "HOME", "X/.cache/draem/backends.json"),
    ],
)
def test_the_cache_lies_where_the_system_has_its_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, variable: str, place: str
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, "X")
    assert fastest.cache_file() == Path(place)


# -------------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("name", ALL)
def test_predict_and_evaluate_by_every_backend(
    models: dict[str, Path], woven_tree: Path, tmp_path: Path, name: str, run_cli: Callable[..., Outcome]
) -> None:
    options = ("--backend", name.split()[0], "--device", "cpu", "--threads", "1", "--streams", "2", "--json")
    done = run_cli("predict", models[name], woven_tree / "test", "--out", tmp_path / "out", *options)
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["execution"].startswith(name.split()[0])
    scored = run_cli("evaluate", models[name], woven_tree, "--out", tmp_path / "figures", *options)
    assert scored.code == 0, scored.err
    wanted = draem.evaluate(Detector.load(models["torch"], "cpu"), woven_tree)
    found = json.loads((tmp_path / "figures" / "metrics.json").read_text())
    assert [row["score"] for row in found["images"]] == pytest.approx([i.score for i in wanted.images], abs=1e-5)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--backend", "tflite", "--backend tflite: use auto, torch, onnxruntime, openvino"),
        ("--precision", "fp8", "--precision fp8: use fp32, bf16, fp16"),
        ("--threads", "0", "--threads 0: at least 1"),
        ("--streams", "-1", "--streams -1: at least 1"),
        ("--threads", "100000000000", "--threads 100000000000: at most 1024"),
        ("--streams", "1025", "--streams 1025: at most 1024"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_wrong_values_are_one_line(
    tiny_onnx: Path, tmp_path: Path, verb: str, option: str, value: str, says: str, run_cli: Callable[..., Outcome]
) -> None:
    write_image(tmp_path / "x.png", np.zeros((8, 8, 3), np.uint8))
    done = run_cli(verb, tiny_onnx, tmp_path / "x.png", "--out", tmp_path / "out", option, value)
    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert not os.path.exists(tmp_path / "out")  # noqa: PTH110
