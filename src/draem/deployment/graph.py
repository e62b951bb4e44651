"""A network as an ONNX graph: images B×C×H×W float32 in [0, 1] in, anomaly map B×H×W and reconstruction B×C×H×W out."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from draem.network.draem import Draem, anomaly_map

INPUT, OUTPUTS = "image", ("anomaly_map", "reconstruction")
_OPSET = 18


class InspectionGraph(nn.Module):
    """The network as it inspects; in half precision it still takes and gives float32."""

    def __init__(self, network: Draem, half: bool = False) -> None:
        super().__init__()
        folded = _folded(network)
        self.network = folded.half() if half else folded
        self.half_precision = half

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        reconstruction, logits = self.network(image.half() if self.half_precision else image)
        return anomaly_map(logits.float()), reconstruction.float()


def onnx_graph(network: Draem, channels: int, size: tuple[int, int], batch: int | None, half: bool = False) -> bytes:
    """The ONNX model of a network in evaluation mode, BatchNorm folded; `batch` none: any number of images."""
    graph = InspectionGraph(network, half).eval()
    example = torch.zeros(batch or 2, channels, *size)
    dynamic = {"image": {0: torch.export.Dim("batch", min=1)}} if batch is None else None
    with _silent():
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
    content: bytes = program.model_proto.SerializeToString()
    return content


def _folded(network: Draem) -> Draem:
    """A copy with each BatchNorm in the convolution before it.

    Folded only after halving, the weights would be rounded twice: measured, maps then differ four times as much.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for index, (first, second) in enumerate(pairwise(module)):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    module[index], module[index + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return network


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter prints its steps, and warns of packages that are not needed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
