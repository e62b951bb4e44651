"""The exported graph: the answers of the network, one logit instead of two, and nothing of this machine in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from draem.config import NetworkConfig
from draem.deployment.graph import onnx_graph
from draem.network.draem import Draem, anomaly_map
from tiny import lively_

IMAGES = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)


@pytest.mark.parametrize("parts", ["both", "discriminative", "reconstructive"])
def test_answers_as_the_network(parts: str) -> None:
    config = NetworkConfig.model_validate(
        {"parts": parts, "reconstructive_width": 4, "discriminative_width": 4, "aligned_corners": parts == "both"}
    )
    network = Draem(config)
    lively_(network.eval()) if parts == "both" else network.eval()
    content = onnx_graph(network, 3, (64, 64), None)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        reconstruction, logits = network(torch.from_numpy(IMAGES))
    found = session.run(None, {"image": IMAGES})
    np.testing.assert_allclose(found[0], anomaly_map(logits).numpy(), atol=1e-5)
    np.testing.assert_allclose(found[1], reconstruction.numpy(), atol=1e-4)


def test_convolutions_are_named_as_the_layers_and_fold_their_neighbours(tiny_model: Path) -> None:
    from draem.network.weights import load_model

    network, _ = load_model(tiny_model)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    content = onnx_graph(network, 3, (64, 64), 1)
    nodes = onnx.load_from_string(content).graph.node
    layers = {name for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d)}
    assert {node.name for node in nodes if node.op_type == "Conv"} == layers
    assert not [node for node in nodes if node.op_type in ("BatchNormalization", "Sub", "Gather", "Shape")]
    assert str(Path.cwd()).encode() not in content
    assert b"stack_trace" not in content
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
