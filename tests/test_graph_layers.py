"""What the exported graph is made of: one logit instead of two, and nothing of this machine in it."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from draem.deployment.graph import onnx_graph


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
