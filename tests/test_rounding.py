"""What is done to a network before int8: channels balanced, weights rounded so that errors make up for each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from draem.config import NetworkConfig
from draem.config.sections import Parts
from draem.deployment import rounding
from draem.deployment.balancing import balance
from draem.deployment.formats import OnnxFormat, OpenvinoFormat
from draem.deployment.graph import onnx_graph, with_norms_folded, with_weights
from draem.deployment.quantise import fit_to_int8
from draem.deployment.rounding import round_matrix, round_weights
from draem.network.draem import Draem
from draem.network.weights import load_model
from draem.pixels import Images

SIZE = (64, 64)


@pytest.fixture(scope="module")
def network(tiny_model: Path) -> Draem:
    return load_model(tiny_model)[0]


@pytest.fixture(scope="module")
def images() -> Images:
    coarse = np.random.default_rng(0).random((6, 3, 8, 8), dtype=np.float32)
    return np.ascontiguousarray(coarse.repeat(8, 2).repeat(8, 3))


def _correlated(count: int, inputs: int) -> Tensor:
    """Inputs that resemble their neighbours, as pixels do."""
    noise = torch.randn(count, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return noise.cumsum(1)


def _weight(outputs: int, inputs: int) -> Tensor:
    return torch.randn(outputs, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def _slow(weight: Tensor, products: Tensor) -> Tensor:
    """Column by column, with the best answer of all columns still free to each error, solved anew each time."""
    step = weight.abs().amax(1) / 127
    hessian = products + 0.01 * products.diagonal().mean() * torch.eye(len(products))
    free = products.diagonal().argsort(descending=True, stable=True).tolist()
    left, largest = weight.clone(), weight.abs().argmax(1)
    while free:
        column, rest = free[0], free[1:]
        before = left[:, column].clone()
        left[:, column] = (before / step).round().clamp(-127, 127) * step
        pinned = largest == column
        left[pinned, column] = weight[pinned, column]
        if rest:
            # The error e in this column is best met by x with H_rr x = -H_rc e.
            met = torch.linalg.solve(hessian[rest][:, rest], hessian[rest, column])
            left[:, rest] += (before - left[:, column])[:, None] * met
        free = rest
    return left


def test_round_matrix_is_the_slow_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "_BLOCK", 8)
    inputs = _correlated(200, 27)
    products = inputs.T @ inputs
    weight = _weight(5, 27)
    torch.testing.assert_close(round_matrix(weight, products), _slow(weight, products), rtol=0, atol=1e-9)


def test_round_matrix_is_on_the_grid_and_errs_less_than_the_nearest() -> None:
    inputs = _correlated(2000, 150)
    weight = _weight(12, 150)
    step = weight.abs().amax(1, keepdim=True) / 127
    found = round_matrix(weight, inputs.T @ inputs)
    steps = found / step
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.abs().amax(1, keepdim=True) / 127, step)
    nearest = (weight / step).round() * step
    error, plain = (((rounded - weight) @ inputs.T).square().mean() for rounded in (found, nearest))
    assert error < plain / 20


def test_round_matrix_of_unrelated_inputs_is_the_nearest() -> None:
    weight = _weight(4, 9)
    step = weight.abs().amax(1, keepdim=True) / 127
    for products in (torch.eye(9).double(), torch.zeros(9, 9).double()):
        torch.testing.assert_close(round_matrix(weight, products), (weight / step).round() * step)
    assert not round_matrix(torch.zeros(2, 3), torch.eye(3)).any()


@pytest.mark.parametrize("parts", ["both", "discriminative", "reconstructive"])
def test_a_balanced_network_answers_the_same(parts: Parts, images: Images) -> None:
    torch.manual_seed(0)
    network = Draem(NetworkConfig(parts=parts, reconstructive_width=6, discriminative_width=6)).eval()
    _enliven(network)
    balanced = with_norms_folded(network)
    before = {name: layer.weight.clone() for name, layer in _convolutions(balanced)}
    balance(balanced, torch.from_numpy(images))
    changed = [name for name, layer in _convolutions(balanced) if not torch.equal(layer.weight, before[name])]
    # All of them, since each takes another one's channels, but the first of each sub-network may give none.
    assert len(changed) == len(before)
    other = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        for exact, found in zip(with_norms_folded(network)(other), balanced(other), strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()) + 1e-7)


def _enliven(network: Draem) -> None:
    """Channels of very different strength."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.05, 3.0)
            nn.init.uniform_(module.bias, -0.2, 0.4)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.01, 0.1)


def _convolutions(network: Draem) -> Iterator[tuple[str, nn.Conv2d]]:
    return ((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))


def test_a_strong_channel_is_brought_down(network: Draem, images: Images) -> None:
    strong = with_norms_folded(network)
    first, second = strong.reconstructive.encoder.block1[0], strong.reconstructive.encoder.block1[3]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    with torch.no_grad():
        first.weight[0] *= 300.0
        assert first.bias is not None
        first.bias[0] *= 300.0
        second.weight[:, 0] /= 300.0
    seen: list[Tensor] = []
    second.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].amax((0, 2, 3))))
    batch = torch.from_numpy(images)
    with torch.inference_mode():
        strong(batch)
    before = seen[-1]
    balance(strong, batch)
    with torch.inference_mode():
        strong(batch)
    after = seen[-1]
    assert after.max() / after.median() < 0.3 * before.max() / before.median()


def test_all_layers_at_once_or_in_groups(network: Draem, images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, grouped = with_norms_folded(network), with_norms_folded(network)
    round_weights(whole, torch.from_numpy(images))
    monkeypatch.setattr(rounding, "_MOST_BYTES", 100_000)
    round_weights(grouped, torch.from_numpy(images))
    for (_, one), (_, other) in zip(_convolutions(whole), _convolutions(grouped), strict=True):
        torch.testing.assert_close(one.weight, other.weight)


def test_careful_rounding_moves_maps_less(network: Draem, images: Images) -> None:
    exact, careful, plain = with_norms_folded(network), with_norms_folded(network), with_norms_folded(network)
    round_weights(careful, torch.from_numpy(images))
    for _, layer in _convolutions(plain):
        step = layer.weight.abs().amax((1, 2, 3), keepdim=True) / 127
        layer.weight.data = (layer.weight / step).round() * step
    other = torch.from_numpy(np.ascontiguousarray(images[:, :, ::-1]))
    with torch.inference_mode():
        logits = [each(other)[1] for each in (exact, careful, plain)]
    assert (logits[1] - logits[0]).abs().mean() < 0.5 * (logits[2] - logits[0]).abs().mean()


@pytest.mark.parametrize("form", [OnnxFormat, OpenvinoFormat])
def test_int8_leaves_rounded_weights_as_they_are(
    form: type[OnnxFormat] | type[OpenvinoFormat], network: Draem, images: Images
) -> None:
    fitted = fit_to_int8(network, images).rounded
    made = form(onnx_graph(fitted, 3, SIZE, 1))
    content, weights = made.written(made.int8_model([images[:1]], []))
    found = _int8_weights(content, weights)
    for name, layer in _convolutions(fitted):
        step = layer.weight.abs().amax((1, 2, 3), keepdim=True) / 127
        whole = (layer.weight / step).round().detach().numpy().astype(np.int8)
        assert any(np.array_equal(whole, one) for one in found if one.shape == whole.shape), name


def _int8_weights(content: bytes, weights: bytes) -> list[np.ndarray]:
    if not weights:
        graph = onnx.load_from_string(content).graph
        found = (onnx.numpy_helper.to_array(each) for each in graph.initializer)
    else:
        import openvino

        model = openvino.Core().read_model(content, openvino.Tensor(np.frombuffer(weights, np.uint8)))
        found = (op.data for op in model.get_ops() if op.get_type_name() == "Constant")
    return [each for each in found if each.dtype == np.int8 and each.ndim == 4]


def test_kept_layers_are_not_rounded(network: Draem, images: Images) -> None:
    fitted = fit_to_int8(network, images)
    names = [name for name, _ in _convolutions(fitted.exact)]
    graph = onnx_graph(fitted.rounded, 3, images.shape[2:], 1)
    mixed = onnx.load_from_string(with_weights(graph, fitted.exact_weights(names[::2]))).graph
    found = {each.name: onnx.numpy_helper.to_array(each) for each in mixed.initializer}
    for place, name in enumerate(names):
        exact, rounded = (each.get_parameter(f"{name}.weight").detach() for each in (fitted.exact, fitted.rounded))
        assert not torch.equal(exact, rounded)
        np.testing.assert_array_equal(found[f"network.{name}.weight"], rounded if place % 2 else exact)
