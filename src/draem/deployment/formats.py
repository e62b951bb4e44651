"""Int8 in the two exported formats: NNCF's quantisation of a graph, and how the result is run and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from draem.deployment.graph import silent
from draem.deployment.ir import ir_bytes
from draem.errors import MissingExtraError
from draem.inspection.onnx_backend import import_onnxruntime, int8_entries, session_options
from draem.inspection.openvino_backend import import_openvino, int8_options
from draem.inspection.signature import INPUT
from draem.pixels import Images

Run = Callable[[Images], tuple[Images, Images]]
"""A batch of images → their anomaly maps and reconstructions, as `draem.inspection.execution.Backend.run` has it."""


class Int8Format(Protocol):
    """One graph, of which int8 models are made; a model is what its runtime takes."""

    def float_model(self) -> Any:
        """The graph as it is."""
        ...

    def int8_model(self, batches: Sequence[Images], kept: Iterable[str]) -> Any:
        """The graph in int8, with ranges from these batches; the convolutions named stay in floating point."""
        ...

    def runner(self, model: Any) -> Run:
        """Runs a model on this machine's CPU."""
        ...

    def written(self, model: Any) -> tuple[bytes, bytes]:
        """A model as `content` and `weights` of its files."""
        ...


class OpenvinoFormat:
    """OpenVINO IR with FakeQuantize."""

    def __init__(self, graph: bytes) -> None:
        self._openvino = import_openvino()
        self._graph = graph

    def float_model(self) -> Any:
        """See `Int8Format`."""
        from openvino.passes import ConstantFolding, Manager

        model = self._openvino.Core().read_model(self._graph)
        passes = Manager()
        passes.register_pass(ConstantFolding())
        passes.run_passes(model)
        return model

    def int8_model(self, batches: Sequence[Images], kept: Iterable[str]) -> Any:
        """See `Int8Format`."""
        import onnx

        wanted = _unquantised(onnx.load_from_string(self._graph).graph, kept)
        model = self.float_model()
        # The reader splits a convolution from its bias, which would be added in int8 then.
        both = wanted | {f"{name}/WithoutBiases" for name in wanted}
        names = [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() != "Constant"]
        return _quantise(model, list(batches), [name for name in names if name in both])

    def runner(self, model: Any) -> Run:
        """See `Int8Format`."""
        options = {"INFERENCE_PRECISION_HINT": "f32", **int8_options()}
        compiled = self._openvino.Core().compile_model(model, "CPU", options)
        request = compiled.create_infer_request()

        def run(images: Images) -> tuple[Images, Images]:
            found = request.infer({0: images})
            return np.array(found[0]), np.array(found[1])

        return run

    def written(self, model: Any) -> tuple[bytes, bytes]:
        """See `Int8Format`."""
        return ir_bytes(model)


class OnnxFormat:
    """ONNX with QuantizeLinear and DequantizeLinear."""

    def __init__(self, graph: bytes) -> None:
        self._graph = graph

    def float_model(self) -> Any:
        """See `Int8Format`."""
        import onnx

        return onnx.load_from_string(self._graph)

    def int8_model(self, batches: Sequence[Images], kept: Iterable[str]) -> Any:
        """See `Int8Format`."""
        model = self.float_model()
        wanted = _unquantised(model.graph, kept)
        model = _quantise(model, [{INPUT: batch} for batch in batches], sorted(wanted))
        _requantise(model.graph)
        return model

    def runner(self, model: Any) -> Run:
        """See `Int8Format`."""
        content = model.SerializeToString()
        session = import_onnxruntime().InferenceSession(
            content, session_options(int8_entries()), providers=["CPUExecutionProvider"]
        )

        def run(images: Images) -> tuple[Images, Images]:
            maps, reconstructions = session.run(None, {INPUT: images})
            return np.asarray(maps), np.asarray(reconstructions)

        return run

    def written(self, model: Any) -> tuple[bytes, bytes]:
        """See `Int8Format`."""
        del model.metadata_props[:]
        return model.SerializeToString(deterministic=True), b""


def _quantise(model: Any, items: list[Any], kept: list[str]) -> Any:
    """A model in int8; silent, and without a word to the network."""
    import_openvino()  # which keeps NNCF from reporting its use, too
    with silent():
        try:
            import nncf
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "nncf", "export") from None
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

        # Measured on these networks: seven bits for weights (the fix, for CPUs without VNNI, which the backends do
        # without) and the fast bias correction both move the maps two to three times as far as int8 without them does.
        advanced = AdvancedQuantizationParameters(overflow_fix=OverflowFix.DISABLE, disable_bias_correction=True)
        return nncf.quantize(
            model,
            nncf.Dataset(items),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(items),
            ignored_scope=nncf.IgnoredScope(names=kept) if kept else None,
            advanced_parameters=advanced,
        )


def _unquantised(graph: Any, kept: Iterable[str]) -> set[str]:
    """Convolutions, and what merely hands on values to these alone: it would round what they are to see exactly."""
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    names = set(kept)
    for node in reversed(graph.node):
        if node.op_type in ("Resize", "Concat", "MaxPool") and all(
            user.name in names for user in users.get(node.output[0], [])
        ):
            names.add(node.name)
    return names


def _requantise(graph: Any) -> None:
    """Quantise what an upsampling, a concatenation or a fold of int8 gives, by its input's range.

    NNCF takes that for granted, but ONNX Runtime would run the next convolution in floating point.
    """
    from onnx import helper

    quantised = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    users: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            users.setdefault(name, []).append((node, place))
    nodes: list[Any] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type not in ("Resize", "Concat", "Reshape", "Transpose"):
            continue
        sources = [quantised.get(name) for name in (node.input if node.op_type == "Concat" else node.input[:1])]
        if sources[0] is None or any(other is None for other in sources):
            continue
        ranged, found = list(sources[0].input[1:]), node.output[0]
        grid, back = f"{found}_int8", f"{found}_float"
        if any(user.op_type == "QuantizeLinear" for user, _ in users.get(found, [])):
            continue
        pair = (
            helper.make_node("QuantizeLinear", [found, *ranged], [grid], name=grid),
            helper.make_node("DequantizeLinear", [grid, *ranged], [back], name=back),
        )
        nodes.extend(pair)
        quantised[back] = pair[1]
        for user, place in users.get(found, []):
            user.input[place] = back
    del graph.node[:]
    graph.node.extend(nodes)
