"""Options of several verbs that say how a model is run, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from draem.inspection.execution import Execution

BackendOption = Annotated[str, typer.Option("--backend", help="auto (the fastest), torch, onnxruntime, openvino.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps, tensorrt, directml, intel-gpu.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="Of the arithmetic: fp32, bf16, fp16.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="Of the CPU; all cores unless told.")]
StreamsOption = Annotated[int, typer.Option("--streams", help="Runs of the network at the same time.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images in one run of the network.")]


def execution(
    backend: str = "auto", device: str = "auto", precision: str = "fp32", threads: int | None = None, streams: int = 1
) -> Execution:
    """What the options say.

    Raises:
        ConfigError: naming the option that is wrong.
    """
    from draem.errors import ConfigError
    from draem.inspection.execution import Execution

    values: dict[str, Any] = {"backend": backend, "device": device, "precision": precision}
    try:
        return Execution(**values, threads=threads, streams=streams)
    except ConfigError as error:
        raise ConfigError(f"--{error}") from None
