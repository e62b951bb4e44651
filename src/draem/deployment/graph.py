"""A network as an ONNX graph: images B×C×H×W float32 in [0, 1] in, anomaly map B×H×W and reconstruction B×C×H×W out."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from draem.inspection.signature import INPUT, OUTPUTS
from draem.network.draem import Draem

_OPSET = 18


class InspectionGraph(nn.Module):
    """The network as it inspects; in half precision it still takes and gives float32."""

    def __init__(self, network: Draem, half: bool = False) -> None:
        super().__init__()
        self.network = with_norms_folded(network)
        if half:
            self.network.half()
        self.half_precision = half

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        reconstruction, logit = self.network(image.half() if self.half_precision else image)
        # Of the reconstructive sub-network alone there still are two, both zero.
        return torch.sigmoid(logit[:, :1].float()).squeeze(1), reconstruction.float()


def onnx_graph(network: Draem, channels: int, size: tuple[int, int], batch: int | None, half: bool = False) -> bytes:
    """The ONNX model of a network in evaluation mode, BatchNorm folded; `batch` none: any number of images.

    Its convolutions have the names of the network's layers, such as `reconstructive.encoder.block1.0`.
    """
    graph = InspectionGraph(network, half).eval()
    example = torch.zeros(batch or 2, channels, *size)
    dynamic = {"image": {0: torch.export.Dim("batch", min=1)}} if batch is None else None
    with silent():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=_OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.name = node.input[1].removeprefix("network.").removesuffix(".weight")
        del node.metadata_props[:]  # stack traces, with the paths of this machine
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def with_weights(graph: bytes, weights: Mapping[str, NDArray[np.float32]]) -> bytes:
    """What `onnx_graph` made, with other weights for the layers named: faster by far than making it again."""
    import onnx

    model = onnx.load_from_string(graph)
    for stored in model.graph.initializer:
        layer = stored.name.removeprefix("network.").removesuffix(".weight")
        if layer in weights:
            stored.CopyFrom(onnx.numpy_helper.from_array(weights[layer], stored.name))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def with_norms_folded(network: Draem) -> Draem:
    """A copy with each BatchNorm in the convolution before it, and one logit; of such a copy: a copy.

    Folded only after halving, the weights would be rounded twice: measured, maps then differ four times as much. The
    last convolution gives the difference of its two logits, of which the map is the sigmoid: by its weights'
    difference, so at half the work.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for index, (first, second) in enumerate(pairwise(module)):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    module[index], module[index + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    if network.parts != "reconstructive":
        last = network.discriminative.decoder_segment.fin_out
        last[0] = _difference(last[0], network.fold**2)
    return network


def _difference(logits: nn.Module, pixels: int) -> nn.Conv2d:
    """The second half of a convolution's outputs less the first, `pixels` each; what gives these alone as it is."""
    assert isinstance(logits, nn.Conv2d)
    assert logits.bias is not None
    if logits.out_channels == pixels:
        return logits
    difference = nn.Conv2d(logits.in_channels, pixels, 3, padding=1)
    with torch.no_grad():
        difference.weight.copy_(logits.weight[pixels:] - logits.weight[:pixels])
        assert difference.bias is not None
        difference.bias.copy_(logits.bias[pixels:] - logits.bias[:pixels])
    return difference


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing on stdout, no warnings: exporters print their steps, and warn of packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
