"""Int8: the same answers within a tolerance, from simulated anomalies on good images, fragile layers kept."""

from __future__ import annotations

import copy
import re
import socket
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from draem.data.layouts import read_layout
from draem.data.samples import Dataset, Sample, split_good
from draem.deployment import material
from draem.deployment import quantise as quantising
from draem.deployment.formats import OnnxFormat, OpenvinoFormat
from draem.deployment.fragility import fragility
from draem.deployment.graph import InspectionGraph, onnx_graph
from draem.deployment.material import Simulations, draw_material
from draem.deployment.quantise import BUDGET, Damage, Quantised, damage, quantise
from draem.errors import DataError
from draem.images import write_image
from draem.inspection.openvino_backend import import_openvino
from draem.modelfile import ArtefactFormat, Header, Thresholds
from draem.network.draem import Draem, anomaly_map
from draem.network.weights import load_model
from draem.pixels import Images
from tiny import write_tiny_model

SIZE = (64, 64)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six smooth good images, and test images that cannot be read."""
    root = tmp_path_factory.mktemp("set")
    for index in range(6):
        pixels = np.random.default_rng(index).integers(60, 200, (8, 8, 3), dtype=np.uint8)
        write_image(root / "train" / "good" / f"{index}.png", pixels.repeat(8, 0).repeat(8, 1))
    for name in ("test/good/0.png", "test/hole/0.png"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"no image")
    return read_layout(root, "mvtec", None)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Draem, Header]:
    path = tmp_path_factory.mktemp("four") / "model.safetensors"
    return load_model(write_tiny_model(path, Thresholds(reject=0.55, chosen_on="a test's"), network__levels=4))


def _convolutions(network: Draem) -> list[str]:
    return [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d)]


@pytest.fixture(scope="module")
def made(network: tuple[Draem, Header], good: Dataset) -> dict[str, Quantised]:
    """The tiny model in int8, any batch for ONNX, a fixed one for OpenVINO; any word to the network fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _refuse)
        return {
            "onnx": next(quantise(*network, "onnx", None, good)),
            "openvino": next(quantise(*network, "openvino", 2, good)),
        }


def _refuse(*arguments: object) -> None:
    raise AssertionError("a connection was opened")


def _maps(made: Quantised, images: Images) -> Images:
    if not made.weights:
        session = onnxruntime.InferenceSession(made.content, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"image": images})[0])
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(made.content, openvino.Tensor(np.frombuffer(made.weights, np.uint8)))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([np.array(compiled({0: images[at : at + 2]})[0]) for at in range(0, len(images), 2)])


@torch.inference_mode()
def _exact(network: Draem, images: Images) -> Images:
    return anomaly_map(network(torch.from_numpy(images))[1]).numpy()


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_answers_like_the_network_on_simulated_anomalies(
    to: ArtefactFormat, made: dict[str, Quantised], network: tuple[Draem, Header], good: Dataset
) -> None:
    judged = draw_material(network[1], good, lambda done, total: None).judging
    exact = _exact(network[0], judged.images)
    found = _maps(made[to], judged.images)
    assert found.shape == exact.shape
    assert np.abs(found - exact).mean() < 0.05
    assert np.abs(found - exact).mean() < 0.3 * np.abs(exact - exact.mean()).mean()


@pytest.mark.parametrize("map_", ["segmentation", "joint"])
def test_it_is_judged_by_the_map_that_is_scored(map_: str, network: tuple[Draem, Header], good: Dataset) -> None:
    """Reconstructions that differ do harm only where they count."""
    header = network[1]
    score = header.config.score.model_copy(update={"map": map_})
    header = header.model_copy(update={"config": header.config.model_copy(update={"score": score})})
    judge = quantising._Judge(network[0], header, draw_material(header, good, lambda done, total: None).judging, 2)
    exact = quantising._runner(InspectionGraph(network[0]))

    def darker(images: Images) -> tuple[Images, Images]:
        maps, reconstructions = exact(images)
        return maps, reconstructions - np.float32(0.3)

    assert judge(exact).map_mean == 0.0
    assert (judge(darker).map_mean > 0.01) == (map_ == "joint")


def test_weights_are_int8(made: dict[str, Quantised], network: tuple[Draem, Header]) -> None:
    convolutions = len(_convolutions(network[0]))
    kinds = {i.name: i.data_type for i in onnx.load_from_string(made["onnx"].content).graph.initializer}
    weights = {name: kind for name, kind in kinds.items() if "weight" in name and name.startswith("q_output")}
    assert len(weights) == convolutions - len(made["onnx"].kept)
    assert set(weights.values()) == {onnx.TensorProto.INT8}
    openvino = import_openvino()
    model = openvino.Core().read_model(
        made["openvino"].content, openvino.Tensor(np.frombuffer(made["openvino"].weights, np.uint8))
    )
    whole = [
        op
        for op in model.get_ops()
        if op.get_type_name() == "Constant" and str(op.get_element_type()) == "<Type: 'int8_t'>"
    ]
    assert len(whole) >= convolutions - len(made["openvino"].kept)


def _optimised(made: Quantised, folder: Path) -> list[str]:
    """The operations that ONNX Runtime makes of it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(made.content, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def test_onnx_runtime_multiplies_in_int8(
    made: dict[str, Quantised], network: tuple[Draem, Header], tmp_path: Path
) -> None:
    """All but the three convolutions that see or give pixels."""
    expected = len(_convolutions(network[0])) - 3 - len(made["onnx"].kept)
    assert _optimised(made["onnx"], tmp_path).count("QLinearConv") >= expected


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_fold_in_int8(to: ArtefactFormat, good: Dataset, tmp_path: Path) -> None:
    """The convolutions of folded pixels are int8, too, but for ONNX Runtime's three that see or give pixels."""
    path = write_tiny_model(tmp_path / "model.safetensors", network__fold=2, network__levels=4)
    network, header = load_model(path)
    free = Damage(*4 * [10**6])
    made = next(quantise(network, header, to, None if to == "onnx" else 2, good, budget=free))
    assert made.kept == []
    images = draw_material(header, good, lambda done, total: None).judging.images
    exact, found = _exact(network, images), _maps(made, images)
    assert np.abs(found - exact).mean() < 0.3 * np.abs(exact - exact.mean()).mean()
    if to == "onnx":
        assert _optimised(made, tmp_path).count("QLinearConv") >= len(_convolutions(network)) - 3


def test_material_is_from_good_images_and_says_so(network: tuple[Draem, Header], good: Dataset) -> None:
    drawn = draw_material(network[1], good, lambda done, total: None)
    again = draw_material(network[1], good, lambda done, total: None)
    np.testing.assert_array_equal(drawn.calibration.images, again.calibration.images)
    for part in (drawn.calibration, drawn.judging):
        assert 0 < part.masks.any((1, 2)).sum() < len(part.masks)
    assert "simulated anomaly" in drawn.said
    config = network[1].config
    split = split_good(good.train_good, config.data.select_share, config.data.calibrate_share, config.training.seed)
    assert f"{len(split.train)} good ones" in drawn.said


def test_no_good_images(network: tuple[Draem, Header], good: Dataset) -> None:
    only_test = Dataset(good.root, good.layout, good.test)
    with pytest.raises(DataError, match=rf"^{re.escape(str(good.root))}: no good images .* use --precision fp16$"):
        draw_material(network[1], only_test, lambda done, total: None)


def test_material_is_of_all_categories(
    network: tuple[Draem, Header], good: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more images than are wanted those at the end of the names count, too."""
    monkeypatch.setattr(material, "CALIBRATED", 4)
    monkeypatch.setattr(material, "JUDGED", 1)
    read: list[str] = []

    def simulate(header: Header, samples: tuple[Sample, ...], count: int, *_: object) -> Simulations:
        read.extend(sample.category for sample in samples)
        assert len(samples) == count
        return Simulations(np.zeros((count, 3, 1, 1), np.float32), np.zeros((count, 1, 1), bool))

    monkeypatch.setattr(material, "_simulate", simulate)
    one = good.train_good[0]
    many = (replace(one, name=f"{kind}/{n}", category=kind) for kind in ("bolt", "nut") for n in range(20))
    draw_material(network[1], replace(good, samples=tuple(many)), lambda done, total: None)
    assert set(read[:4]) == {"bolt", "nut"}


def _with_outlier(network: Draem) -> Draem:
    """The same answers, but one channel of the first block is a million times larger, and undone in the next layer."""
    state = network.state_dict()
    block = "reconstructive.encoder.block1"
    for name, factor in ((f"{block}.1.weight", 1e6), (f"{block}.1.bias", 1e6)):
        state[name][0] *= factor
    state[f"{block}.3.weight"][:, 0] /= 1e6
    return network


def _to_nearest(network: Draem) -> Draem:
    """A copy with weights rounded to 8 bits."""
    rounded = copy.deepcopy(network)
    for layer in rounded.modules():
        if isinstance(layer, torch.nn.Conv2d):
            step = layer.weight.detach().abs().amax((1, 2, 3), keepdim=True) / 127
            layer.weight.data = (layer.weight.detach() / step).round() * step
    return rounded


FRAGILE = "reconstructive.encoder.block1.3"


def test_a_fragile_layer_is_found_and_kept(tiny_model: Path, good: Dataset) -> None:
    network, header = load_model(tiny_model)
    plain = load_model(tiny_model)[0]
    images = draw_material(header, good, lambda done, total: None).judging.images[:2]
    before, after = (
        fragility(each, _to_nearest(each), partial(_exact, each, images)) for each in (plain, _with_outlier(network))
    )
    assert max(after, key=lambda name: after[name][0]) == FRAGILE
    assert after[FRAGILE][0] > 5 * before[FRAGILE][0]
    assert before[FRAGILE][1] == 4 * 4 * 9 * 64 * 64
    made = next(quantise(network, header, "openvino", 1, good))
    assert FRAGILE in made.kept


def test_finer_attempts_keep_more_and_differ_less(tiny_model: Path, good: Dataset) -> None:
    network, header = load_model(tiny_model)
    judged = draw_material(header, good, lambda done, total: None).judging
    attempts = list(quantise(network, header, "openvino", 2, good, budget=Damage(*4 * [10**6])))
    assert attempts[0].kept == []
    assert 1 < len(attempts) <= 4
    for before, after in pairwise(attempts):
        assert set(before.kept) < set(after.kept)
    assert len(attempts[-1].kept) < len(_convolutions(network))
    exact = _exact(network, judged.images)
    moved = [np.abs(_maps(made, judged.images) - exact).mean() for made in (attempts[0], attempts[-1])]
    assert moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize("form", [OnnxFormat, OpenvinoFormat])
def test_kept_layers_are_floating_point(
    form: type[OnnxFormat] | type[OpenvinoFormat], network: tuple[Draem, Header], good: Dataset
) -> None:
    """With all layers kept nothing is rounded; so the answers are those of the network, and of no other layer."""
    images = draw_material(network[1], good, lambda done, total: None).judging.images[:2]
    graph = form(onnx_graph(network[0], 3, SIZE, 1))
    names = _convolutions(network[0])
    exact, kept, rounded = (
        graph.runner(model)(images[:1])[0]
        for model in (graph.float_model(), graph.int8_model([images[:1]], names), graph.int8_model([images[:1]], []))
    )
    np.testing.assert_allclose(kept, exact, atol=1e-5)
    assert np.abs(rounded - exact).max() > 1e-3


def test_damage_counts_what_it_says(network: tuple[Draem, Header], good: Dataset) -> None:
    judged = draw_material(network[1], good, lambda done, total: None).judging
    exact = np.where(judged.masks, 0.9, 0.1).astype(np.float32)
    none = damage(exact, exact, judged, network[1])
    assert (none.map_mean, none.score, none.pixel_ap, none.flips, none.share(BUDGET)) == (0.0, 0.0, 0.0, 0, 0.0)
    turned = damage(exact, 1.0 - exact, judged, network[1])
    assert turned.map_mean == pytest.approx(0.8, abs=1e-6)
    assert turned.pixel_ap > 0.5
    assert turned.flips > 0
    assert turned.share(BUDGET) > 1.0
