"""The ways to run a model: which backend, on which file, in which precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from draem.errors import ConfigError
from draem.inspection.backends import RUNS
from draem.inspection.execution import BackendName, Precision
from draem.modelfile import ArtefactFormat, Header, WeightPrecision


@dataclass(frozen=True)
class Way:
    """A backend and a precision; `artefact` is what is exported for it, none: the model file itself.

    `precision` names the file's, or the arithmetic's where that is another (bf16).
    """

    backend: BackendName
    precision: str
    artefact: tuple[ArtefactFormat, WeightPrecision] | None = None
    arithmetic: Precision = "fp32"

    @property
    def name(self) -> str:
        """Such as openvino:int8."""
        return f"{self.backend}:{self.precision}"


_TRAINED = (
    Way("torch", "fp32"),
    Way("torch", "bf16", None, "bf16"),
    Way("onnxruntime", "fp32", ("onnx", "fp32")),
    Way("onnxruntime", "fp16", ("onnx", "fp16")),
    Way("onnxruntime", "int8", ("onnx", "int8")),
    Way("openvino", "fp32", ("openvino", "fp32")),
    Way("openvino", "fp16", ("openvino", "fp16")),
    Way("openvino", "bf16", ("openvino", "fp16"), "bf16"),
    Way("openvino", "int8", ("openvino", "int8")),
)


def ways_to_run(model: Path, header: Header) -> tuple[Way, ...]:
    """Of a trained model all there are, through exports of it; of an exported one those of its file."""
    if header.artefact is None:
        return _TRAINED
    precision = header.artefact.precision
    found = [Way(backend, precision) for backend in RUNS[model.suffix.lower()]]
    if precision != "int8":
        found.append(Way("openvino", "bf16", None, "bf16"))
    return tuple(found)


def chosen(ways: Sequence[Way], only: str) -> tuple[Way, ...]:
    """Those that a list such as `openvino:int8,torch` names, in their own order; empty: all.

    Raises:
        ConfigError: a name is none of them.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [way.name for way in ways]
    for name in names:
        if not any(name in (way.name, way.backend) for way in ways):
            raise ConfigError(f"--only {name}: this model is run by {', '.join(known)}")
    return tuple(way for way in ways if not names or way.name in names or way.backend in names)
