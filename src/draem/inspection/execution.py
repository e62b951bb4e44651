"""How a model is run, on which machine: a choice of every start, and no part of the model; and what runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from draem.errors import ConfigError
from draem.pixels import Images

BackendName = Literal["auto", "torch", "onnxruntime", "openvino"]
Device = Literal["auto", "cpu", "cuda", "mps", "tensorrt", "directml", "intel-gpu"]
Precision = Literal["fp32", "bf16", "fp16"]
MOST_AT_ONCE = 1024
"""Threads or streams: beyond any machine's cores a runtime would only choke on them."""


@dataclass(frozen=True)
class Execution:
    """The settings of a backend.

    Attributes:
        backend: what runs the network; `auto` takes the fastest that is installed, as measured here.
        device: where; `auto` is what the backend finds best.
        precision: of the arithmetic that is not int8 already; bf16 and fp16 only where asked for, since they change
            the answers.
        threads: of the CPU, for all runs together; none: as many as the backend finds best, about one a core.
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
                raise ConfigError(f"{name} {value}: use {', '.join(get_args(known))}")
        for name, number in (("threads", self.threads), ("streams", self.streams)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} {number}: at least 1 is needed")
            if number is not None and number > MOST_AT_ONCE:
                raise ConfigError(f"{name} {number}: at most {MOST_AT_ONCE}; about one a core is the fastest")


class Backend(Protocol):
    """Runs one network; may be called from several threads.

    Attributes:
        name: of the backend.
        execution: backend, version, device, precision, in words; what a certificate states.
        in_flight: how many runs at the same time, from as many threads, keep it busy.
    """

    name: str
    execution: str
    in_flight: int

    def run(self, images: Images) -> tuple[Images, Images]:
        """Anomaly maps and reconstructions of a batch, which are the caller's own.

        Args:
            images: B×C×H×W float32 in [0, 1], contiguous.

        Returns:
            B×H×W float32 in [0, 1], and B×C×H×W float32.

        Raises:
            MemoryLimitError: the batch does not fit into memory.
        """
        ...


def in_words(runtime: str, device: str, precision: str, threads: int | None, streams: int = 1) -> str:
    """What runs a network, as in "openvino 2026.4.1 on cpu in bf16, 2 threads"; threads none: not the CPU's matter."""
    words = f"{runtime} on {device} in {precision}"
    if threads is not None:
        words += f", {threads} thread{'s' * (threads != 1)}"
    if streams > 1:
        words += f", {streams} streams"
    return words


def int8_in_words(rest: str, *, emulated: bool) -> str:
    """The arithmetic of an int8 model, `rest` that of its layers in floating point, in which it may be emulated."""
    return f"int8 emulated in {rest}" if emulated else f"int8, else {rest}"
