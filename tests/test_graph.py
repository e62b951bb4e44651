"""Exported graphs of every kind of network against torch, in both runtimes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from draem.config import Config
from draem.deployment.export import export_model
from draem.deployment.graph import with_norms_folded
from draem.deployment.ir import ir_of
from draem.inspection.backends import open_backend
from draem.inspection.detector import Detector
from draem.inspection.execution import Execution
from draem.modelfile import openvino, read_header
from draem.network.weights import load_model, save_model
from draem.pixels import Images
from tiny import TINY, write_tiny_model

RUNTIMES = ("onnxruntime", "openvino", "IR")


@dataclass(frozen=True)
class Kind:
    """A kind of network, and how many images its export takes in one run."""

    settings: dict[str, Any] = field(default_factory=dict)
    batch: int | None = None


KINDS = {
    "both, 5 channels, aligned corners, padded sides": Kind(
        {"data__channels": 5, "network__aligned_corners": True, "network__levels": 6, "data__size": [40, 72]}
    ),
    "reconstructive, grey, one image, SSIM": Kind(
        {"network__parts": "reconstructive", "data__channels": 1, "score__map": "ssim"}, batch=1
    ),
    "discriminative, grey of 16 bits, two images": Kind(
        {"network__parts": "discriminative", "data__channels": 1, "data__depth": 16}, batch=2
    ),
    "reconstructive, padded sides, MSGMS": Kind(
        {"network__parts": "reconstructive", "score__map": "msgms", "data__size": [96, 50]}
    ),
    "both, fold 2, padded sides": Kind({"network__fold": 2, "data__size": [96, 50]}),
    "reconstructive, fold 4, grey, one image, SSIM": Kind(
        {
            "network__parts": "reconstructive",
            "network__fold": 4,
            "data__channels": 1,
            "data__size": 128,
            "score__map": "ssim",
        },
        batch=1,
    ),
}


@dataclass(frozen=True)
class Made:
    """A model and its exports."""

    kind: Kind
    model: Path
    onnx: Path
    ir: Path

    def load(self, runtime: str) -> Detector:
        if runtime == "IR":
            return Detector.load(self.ir)
        return Detector.load(self.onnx, backend=runtime)  # type: ignore[arg-type]


def _write(folder: Path, kind: Kind) -> Made:
    model = _tamed(write_tiny_model(folder / "model.safetensors", **kind.settings))
    made = Made(kind, model, folder / "model.onnx", folder / "model.xml")
    header = export_model(model, made.onnx, "onnx", "fp32", kind.batch)
    openvino.write_model(made.ir, header, *ir_of(made.onnx.read_bytes()))
    return made


def _tamed(model: Path) -> Path:
    """Logits up to 30, as the lively last layer gives, show torch's own rounding: 1.3e-5 from its maps in float64."""
    network, header = load_model(model)
    state = network.state_dict()
    for name in state:
        if "decoder_segment.fin_out" in name:
            state[name] = state[name] / 4
    save_model(model, state, header)
    return model


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return _write(tmp_path_factory.mktemp("kind"), KINDS[request.param])


@pytest.fixture(scope="module")
def rgb(tiny_model: Path, tiny_onnx: Path, tiny_ir: Path) -> Made:
    return Made(Kind(), tiny_model, tiny_onnx, tiny_ir)


def _images(made: Made, count: int) -> Images:
    header = read_header(made.model)
    return np.random.default_rng(count).random((count, header.channels, *header.config.data.size), np.float32)


def _parts(made: Made, count: int) -> list[NDArray[np.float32]]:
    """Maps and reconstructions in torch of one run after the other, as many images at once as the export takes."""
    backend, _ = open_backend(made.model, Execution(device="cpu"))
    maps, reconstructions = backend.run(_images(made, count))
    return [maps, reconstructions]


def _compare(made: Made, runtime: str, count: int) -> None:
    for before, after in zip(_parts(made, count), made.load(runtime).backend.run(_images(made, count)), strict=True):
        assert after.shape == before.shape
        assert after.dtype == np.float32
        assert np.abs(after - before).max() <= 1e-5 * max(1.0, float(np.abs(before).max()))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_kind_answers_as_in_torch(made: Made, runtime: str) -> None:
    for count in (made.kind.batch,) if made.kind.batch else (1, 3):
        _compare(made, runtime, count)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_images(rgb: Made, runtime: str, count: int) -> None:
    _compare(rgb, runtime, count)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_detectors_say_the_same(made: Made, runtime: str) -> None:
    """With pre- and post-processing: maps of the reconstruction's error are made from what the graph gives."""
    header = read_header(made.model)
    highest = header.config.data.pixel_format.highest
    noise = np.random.default_rng(3).integers(0, highest, (2, 70, 90, header.channels), endpoint=True)
    sources = [image.astype(np.uint16 if highest > 255 else np.uint8) for image in noise]
    detectors = Detector.load(made.model, "cpu"), made.load(runtime)
    answers = (detector.stream(sources, made.kind.batch or 2) for detector in detectors)
    for before, after in zip(*answers, strict=True):
        assert np.abs(before.input_map - after.input_map).max() <= 2e-5
        assert after.score == pytest.approx(before.score, abs=2e-5)
        assert before.input_map.std() > 1e-4


def test_maps_differ_between_pixels_and_images(rgb: Made) -> None:
    """Else the comparisons above would hold for a graph of constants."""
    maps, reconstructions = _parts(rgb, 2)
    assert maps.std() > 0.01
    assert np.abs(maps[0] - maps[1]).max() > 0.01
    assert reconstructions.std() > 0.01


def test_fp16_is_half_inside_and_single_at_the_border(tiny_model: Path, rgb: Made, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    export_model(tiny_model, path, "onnx", "fp16")
    graph = onnx.load(path).graph
    weights = [one for one in graph.initializer if len(one.dims) == 4]
    assert len(weights) == len([node for node in graph.node if node.op_type == "Conv"]) > 20
    assert {one.data_type for one in weights} == {onnx.TensorProto.FLOAT16}
    border = [*graph.input, *graph.output]
    assert {one.type.tensor_type.elem_type for one in border} == {onnx.TensorProto.FLOAT}
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    (before, _), images = _parts(rgb, 3), _images(rgb, 3)
    for backend in ("onnxruntime", "openvino"):
        after, _ = Detector.load(path, backend=backend).backend.run(images)
        assert 0 < np.abs(after - before).max() <= 1e-2


def test_fp16_of_a_fold(tmp_path: Path) -> None:
    kind = Kind({"network__fold": 2})
    model, path = _tamed(write_tiny_model(tmp_path / "model.safetensors", **kind.settings)), tmp_path / "half.onnx"
    export_model(model, path, "onnx", "fp16")
    made = Made(kind, model, path, path)
    before = _parts(made, 2)
    for backend in ("onnxruntime", "openvino"):
        for exact, found in zip(before, made.load(backend).backend.run(_images(made, 2)), strict=True):
            assert 0 < np.abs(found - exact).max() <= 1e-2 * max(1.0, float(np.abs(exact).max()))
            assert exact.std() > 0.005


def test_norms_are_folded_once_and_the_input_still_is(tmp_path: Path) -> None:
    """A copy of a copy gives the same; of each square of pixels one logit each is left, second less first."""
    network, _ = load_model(write_tiny_model(tmp_path / "model.safetensors", network__fold=2))
    images = torch.rand(1, 3, 70, 64, generator=torch.Generator().manual_seed(0))
    once = with_norms_folded(network)
    twice = with_norms_folded(once)
    with torch.no_grad():
        (_, both), (_, one), (_, again) = network(images), once(images), twice(images)
    assert one.shape == (1, 1, 70, 64)
    torch.testing.assert_close(one[:, 0], both[:, 1] - both[:, 0], rtol=1e-4, atol=1e-4)
    assert torch.equal(one, again)


def test_fp16_of_openvino_is_in_the_weights(tiny_onnx: Path, rgb: Made, tmp_path: Path) -> None:
    xml, weights = ir_of(tiny_onnx.read_bytes(), half=True)
    path = tmp_path / "half.xml"
    openvino.write_model(path, read_header(rgb.ir), xml, weights)
    assert 0.45 < len(weights) / rgb.ir.with_suffix(".bin").stat().st_size < 0.55
    (before, _), (after, _) = _parts(rgb, 3), Detector.load(path).backend.run(_images(rgb, 3))
    assert 0 < np.abs(after - before).max() <= 1e-2


def test_the_configuration_of_the_kinds_is_what_they_say() -> None:
    for name, kind in KINDS.items():
        settings = TINY | {key.replace("__", "."): value for key, value in kind.settings.items()}
        config = Config.resolve("fast", None, settings)
        assert ("padded" in name) == any(side % config.network.stride for side in config.data.size)
        assert name.startswith(config.network.parts)
        assert ("fold" in name) == (config.network.fold > 1)
