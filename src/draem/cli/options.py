"""What several verbs are told: their arguments and options, and what these come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from draem.config import AnyLayout
    from draem.evaluation.operating import Line
    from draem.inspection.execution import Execution

Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder of good images, or a data set; its layout is found.")
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="RUN/model.safetensors, or an exported .onnx or .xml.")]
Category = Annotated[
    str | None, typer.Option("--category", metavar="NAME", help="Which of several categories; all for all of them.")
]
Json = Annotated[bool, typer.Option("--json", help="Last line of stdout: one JSON object.")]
LayoutName = Annotated[str, typer.Option("--layout", help="auto, folder, mvtec, visa, … (docs/layouts.md).")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="training.seed=3, and so on.")]
Preset = Annotated[str, typer.Option("--preset", help="edge, fast, standard, large, official, paper.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="YAML", help="Settings over the preset's.")]
Run = Annotated[Path, typer.Option("--out", metavar="RUN", help="The run's folder.")]
Images = Annotated[int | None, typer.Option("--images", min=1, help="Budget: images seen.")]
Epochs = Annotated[float | None, typer.Option("--epochs", help="Budget: passes over the data.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint, if there is one.")]
CheckpointEvery = Annotated[
    float | None, typer.Option("--checkpoint-every", min=0, metavar="SECONDS", help="60 unless told.")
]
Init = Annotated[Path | None, typer.Option("--init", metavar="MODEL", help="Start from its weights.")]
BackendOption = Annotated[str, typer.Option("--backend", help="auto (the fastest), torch, onnxruntime, openvino.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps, tensorrt, directml, intel-gpu.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="Of the arithmetic: fp32, bf16, fp16.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="Of the CPU; all cores unless told.")]
StreamsOption = Annotated[int, typer.Option("--streams", help="Runs of the network at the same time.")]
ProfileOption = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="The camera or product whose thresholds these are.")
]
PartsPerHour = Annotated[
    float | None, typer.Option("--parts-per-hour", help="Of the line: tells what a shift will see.")
]
ShiftHours = Annotated[float | None, typer.Option("--shift-hours", help="Of a shift; 8 unless told.")]
LineDefectRate = Annotated[
    float | None, typer.Option("--defect-rate", help="Share of all parts that is anomalous; 0.01 unless told.")
]
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


def line_of(parts_per_hour: float | None, shift_hours: float | None, defect_rate: float | None) -> Line | None:
    """What the options say of a line; none: nothing.

    Raises:
        ConfigError: a figure that makes no sense, or one that says nothing without the line's speed.
    """
    from draem.errors import ConfigError
    from draem.evaluation.operating import Line

    if parts_per_hour is None:
        if (shift_hours, defect_rate) != (None, None):
            raise ConfigError("--shift-hours and --defect-rate go with --parts-per-hour, which is not given")
        return None
    told = {"hours": shift_hours, "defect_rate": defect_rate}
    return Line(parts_per_hour, **{name: value for name, value in told.items() if value is not None})


def known_layout(name: str) -> AnyLayout:
    """What `--layout` says.

    Raises:
        ConfigError: there is no such layout.
    """
    from draem.config import Config

    return Config.resolve("fast", None, {"data.layout": name}).data.layout


def settings_of(given: list[str] | None) -> dict[str, Any]:
    """The settings of `--set KEY=VALUE`."""
    from draem.settings import parse_setting

    return dict(parse_setting(text) for text in given or [])
