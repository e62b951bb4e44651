"""Int8 is exact on every processor: where its sums would overflow, the runtimes compute in floating point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import draem
from draem.deployment.export import export
from draem.errors import ConfigError
from draem.images import write_image
from draem.inspection import onnx_backend, openvino_backend, overflow
from draem.inspection.onnx_backend import import_onnxruntime, int8_entries, session_options
from draem.inspection.openvino_backend import import_openvino, int8_options
from draem.inspection.overflow import PROBE, overflows

ONES = np.ones((1, 16, 10, 10), np.float32)
EXACT = 16 * 9
PICTURES = [np.random.default_rng(n).integers(60, 200, (8, 8, 3), dtype=np.uint8) for n in range(12)]


def _probe() -> onnx.ModelProto:
    """Input and weights are 255 and 127 steps everywhere."""
    constants: dict[str, NDArray[Any] | np.generic] = {
        "s": np.float32(1 / 255),
        "z": np.uint8(0),
        "w": np.full((16, 16, 3, 3), 127, np.int8),
        "ws": np.float32(1 / 127),
        "wz": np.int8(0),
        "os": np.float32(EXACT / 255),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["xd", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "os", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "os", "z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 10, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 8, 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _in_openvino(options: dict[str, str]) -> NDArray[Any]:
    core = import_openvino().Core()
    told = {"INFERENCE_PRECISION_HINT": "f32", **options}
    return np.asarray(core.compile_model(core.read_model(PROBE), "CPU", told)({0: ONES})[0])


def _in_onnxruntime(entries: dict[str, str]) -> NDArray[Any]:
    session = import_onnxruntime().InferenceSession(PROBE, session_options(entries), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": ONES})[0])


def test_the_probe_is_this_model() -> None:
    assert onnx.load_from_string(PROBE) == _probe()


def test_halved_sums_are_seen() -> None:
    assert not overflows(lambda images: np.full((1, 16, 8, 8), EXACT, np.float32))
    assert overflows(lambda images: np.full((1, 16, 8, 8), EXACT * 32767 / (2 * 255 * 127), np.float32))


@pytest.mark.parametrize("told", [{}, {"LP_TRANSFORMS_MODE": "NO"}])
def test_openvino_is_exact_on_this_machine(told: dict[str, str]) -> None:
    assert _in_openvino(int8_options() | told) == pytest.approx(EXACT, rel=1e-3)


@pytest.mark.parametrize("told", [{}, {"session.disable_quant_qdq": "1"}])
def test_onnx_runtime_is_exact_on_this_machine(told: dict[str, str]) -> None:
    assert _in_onnxruntime(int8_entries() | told) == pytest.approx(EXACT, rel=1e-3)


@pytest.fixture(scope="module")
def int8(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in int8."""
    folder = tmp_path_factory.mktemp("int8")
    for index, picture in enumerate(PICTURES):
        write_image(folder / "good" / f"{index}.png", picture)
    export(tiny_model, folder / "tiny.onnx", data=folder / "good", precision="int8", force=True)
    return folder / "tiny.onnx"


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_emulated_int8_gives_the_same_answers_and_says_so(
    backend: Any, int8: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = draem.load(int8, backend=backend)
    monkeypatch.setattr(openvino_backend, "int8_options", lambda: {"LP_TRANSFORMS_MODE": "NO"})
    monkeypatch.setattr(onnx_backend, "int8_entries", lambda: {"session.disable_quant_qdq": "1"})
    slow = draem.load(int8, backend=backend)
    assert "int8 emulated in fp32" in slow.backend.execution
    for one in PICTURES:
        np.testing.assert_allclose(slow.predict(one).anomaly_map, fast.predict(one).anomaly_map, atol=0.02)


@pytest.fixture
def fresh() -> Iterator[None]:
    """What was found out of this machine is forgotten, before and after."""
    found = (int8_options, int8_entries)
    for each in found:
        each.cache_clear()
    yield
    for each in found:
        each.cache_clear()


@pytest.mark.parametrize("module", [openvino_backend, onnx_backend])
def test_a_runtime_that_cannot_emulate_is_refused(
    module: ModuleType, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overflow, "overflows", lambda run: True)
    with pytest.raises(ConfigError, match=r"int8 overflows on this processor in .*; export in fp32"):
        int8_options() if module is openvino_backend else int8_entries()


@pytest.mark.parametrize("module", [openvino_backend, onnx_backend])
def test_a_runtime_that_cannot_read_the_probe_is_refused(
    module: ModuleType, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROBE", b"no model")
    with pytest.raises(ConfigError, match="cannot run it here"):
        int8_options() if module is openvino_backend else int8_entries()


def test_an_accelerator_that_does_not_start_leaves_int8_exact(int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its session falls back to the CPU, as it was set up."""
    told: list[dict[str, str]] = []
    usual = onnx_backend.session_options

    def seen(entries: dict[str, str]) -> Any:
        told.append(entries)
        return usual(entries)

    monkeypatch.setattr(onnx_backend, "session_options", seen)
    monkeypatch.setattr(onnx_backend, "int8_entries", lambda: {"session.disable_quant_qdq": "1"})
    monkeypatch.setattr(onnx_backend, "_choose", lambda execution, installed: "cuda")
    monkeypatch.setattr(onnx_backend, "_PROVIDERS", onnx_backend._PROVIDERS | {"cuda": ("CPUExecutionProvider", "")})
    monkeypatch.setattr(onnx_backend, "_provider_options", lambda device, execution: {})
    draem.load(int8, backend="onnxruntime")
    assert told == [{"session.disable_quant_qdq": "1"}]


def test_openvino_is_told(int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, Any]] = []
    core = import_openvino().Core
    usual = core.compile_model

    def compile_model(self: Any, model: Any, device: str, options: dict[str, Any]) -> Any:
        told.append(options)
        return usual(self, model, device, options)

    monkeypatch.setattr(core, "compile_model", compile_model)
    monkeypatch.setattr(openvino_backend, "int8_options", lambda: {"LP_TRANSFORMS_MODE": "NO"})
    draem.load(int8, backend="openvino")
    assert [options.get("LP_TRANSFORMS_MODE") for options in told] == ["NO"]
