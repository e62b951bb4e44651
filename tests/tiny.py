"""A small network with lively weights and its model file; small images of noise: what tests inspect and train with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from draem.config import Config
from draem.deployment.graph import onnx_graph
from draem.deployment.ir import ir_of
from draem.images import write_image
from draem.modelfile import Artefact, Header, Thresholds, colour_order, onnx, openvino
from draem.network.draem import Draem
from draem.network.weights import load_model, save_model

TINY = {
    "data.size": 64,
    "network.reconstructive_width": 4,
    "network.discriminative_width": 4,
    "network.fold": 1,
    "network.levels": 3,
    "score.map": "segmentation",
    "score.filter_size": 5,
    "training.threads": 1,
}


def lively_(network: nn.Module, seed: int = 0) -> None:
    """Seeded weights and statistics, in place, with which activations neither fade nor grow and maps differ."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.1, generator=generator)  # type: ignore[arg-type]
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3, generator=generator)
            nn.init.normal_(module.bias, 0.0, 0.2, generator=generator)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0.0, 0.2, generator=generator)
            module.running_var.uniform_(0.7, 1.3, generator=generator)
    if isinstance(network, Draem) and network.parts != "reconstructive":
        last = network.discriminative.decoder_segment.fin_out[0]
        with torch.no_grad():
            last.weight.mul_(10.0)  # type: ignore[operator]
            last.bias.zero_()  # type: ignore[operator]


def write_tiny_model(path: Path, thresholds: Thresholds | None = None, **settings: object) -> Path:
    """A model file of widths 4/4 for 64×64 pixels; `settings` have their dots written as two underscores."""
    config = Config.resolve("fast", None, TINY | {key.replace("__", "."): value for key, value in settings.items()})
    channels = config.data.pixel_format.channels
    network = Draem(config.network, channels)
    lively_(network)
    header = Header(config=config, channels=channels, colour_order=colour_order(channels), thresholds=thresholds)
    save_model(path, network.state_dict(), header)
    return path


def write_noise(folder: Path, count: int, seed: int = 0) -> Path:
    """Seeded images of noise, 32×32 pixels, to train on where it does not matter what is seen; returns the folder."""
    for index in range(count):
        pixels = np.random.default_rng([seed, index]).integers(60, 200, (32, 32, 3), dtype=np.uint8)
        write_image(folder / f"{index:02d}.png", pixels)
    return folder


def write_tiny_onnx(model: Path, path: Path, batch: int | None = None) -> Path:
    """A trained model's network as an ONNX model file, with its header; seconds go by."""
    network, header = load_model(model)
    artefact = Artefact(format="onnx", precision="fp32", batch=batch, source_sha256=header.sha256)
    content = onnx_graph(network, header.channels, header.config.data.size, batch)
    onnx.write_model(path, header.model_copy(update={"artefact": artefact}), content)
    return path


def write_tiny_ir(model: Path, path: Path) -> Path:
    """An ONNX model file as OpenVINO IR."""
    sealed = onnx.read_model(model)
    assert sealed.header.artefact is not None
    artefact = sealed.header.artefact.model_copy(update={"format": "openvino"})
    openvino.write_model(path, sealed.header.model_copy(update={"artefact": artefact}), *ir_of(sealed.content))
    return path
