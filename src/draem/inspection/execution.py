"""How a model is run, on which machine: a choice of every start, and no part of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from draem.errors import ConfigError

BackendName = Literal["auto", "torch", "onnxruntime", "openvino"]
Device = Literal["auto", "cpu", "cuda", "mps", "tensorrt", "directml"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Execution:
    """The settings of a backend.

    Attributes:
        backend: what runs the network; `auto` takes the fastest that is installed, as measured here.
        device: where; `auto` is what the backend finds best.
        precision: of the arithmetic that is not int8 already; bf16 and fp16 only where asked for, since they change
            the answers.
        threads: of the CPU, for one run of the network; none: all cores.
        streams: runs of the network at the same time, which share the threads: more images a second, each one later.

    Raises:
        ConfigError: a value is none of those.
    """

    backend: BackendName = "auto"
    device: Device = "auto"
    precision: Precision = "fp32"
    threads: int | None = None
    streams: int = 1

    def __post_init__(self) -> None:
        for name, known in (("backend", BackendName), ("device", Device), ("precision", Precision)):
            value = getattr(self, name)
            if value not in get_args(known):
                raise ConfigError(f"{name} {value!r}: use {', '.join(get_args(known))}")
        for name, number in (("threads", self.threads), ("streams", self.streams)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} is {number}; at least 1 is needed")
