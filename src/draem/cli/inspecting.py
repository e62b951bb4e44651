"""A model at work: evaluate, compare, report, predict, info, set."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from draem.cli.options import (
    BackendOption,
    BatchSize,
    Category,
    Data,
    DeviceOption,
    Json,
    LayoutName,
    LineDefectRate,
    Model,
    PartsPerHour,
    PrecisionOption,
    ProfileOption,
    ShiftHours,
    StreamsOption,
    ThreadsOption,
    execution,
    known_layout,
    line_of,
)
from draem.cli.speaking import finish, message, refuse_file


def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="RUN/model.safetensors, or RUN with a model for each category.")
    ],
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Folder for metrics.json and sheet.png.")],
    layout: LayoutName = "auto",
    category: Category = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    streams: StreamsOption = 1,
    profile: ProfileOption = None,
    parts_per_hour: PartsPerHour = None,
    shift_hours: ShiftHours = None,
    defect_rate: LineDefectRate = None,
    batch_size: BatchSize = 8,
    as_json: Json = False,
) -> None:
    """Metrics on labelled test images: overall, by category, by defect type."""
    from draem.errors import ConfigError
    from draem.evaluation.categories import evaluate_all
    from draem.evaluation.evaluate import evaluate as score
    from draem.evaluation.sheets import PICTURED_EACH
    from draem.inspection.detector import Detector
    from draem.tables.console import counted

    refuse_file(out)
    chosen = execution(backend, device, precision, threads, streams)
    line = line_of(parts_per_hour, shift_hours, defect_rate)
    how: dict[str, Any] = {"layout": known_layout(layout), "line": line, "batch_size": batch_size}
    if model.is_dir():
        if profile is not None:
            raise ConfigError(f"--profile: {model} holds a model for each category; evaluate one of them")
        with counted("evaluate") as progress:
            found = evaluate_all(model, data, category=category or "all", execution=chosen, progress=progress, **how)
        found.save(out)
        evaluations = {out / name: one for name, one in found.evaluations.items()}
        show_mean: Any = found.mean
    else:
        detector = Detector.open(model, chosen, profile)
        with counted("evaluate") as progress:
            one = score(detector, data, category=category, progress=progress, **how)
        one.save(out)
        evaluations, show_mean = {out: one}, one.mean if len(one.by_category) > 1 else None
    _show_evaluations(list(evaluations.values()), show_mean, data)
    typer.echo(f"figures: {out / 'metrics.json'}")
    for folder, one in evaluations.items():
        if one.picture is not None:
            typer.echo(f"picture: {folder / 'sheet.png'} (the first {PICTURED_EACH} images of each kind)")
    finish(as_json, json.loads((out / "metrics.json").read_text(encoding="utf-8")))
    if any(one.unreadable for one in evaluations.values()):
        raise typer.Exit(1)


def _show_evaluations(evaluations: list[Any], mean: Any, data: Path) -> None:
    from draem.tables.console import show
    from draem.tables.scores import metrics_table, recall_table

    for evaluation in evaluations:
        for problem in evaluation.unreadable:
            message(f"left out: {problem}")
    size = evaluations[0].input_size
    at = "the images' own size" if size is None else f"{size[0]}×{size[1]}"
    images = sum(evaluation.count() for evaluation in evaluations)
    show(metrics_table(evaluations, f"{data}: {images} test images, metrics at {at}", mean))
    for evaluation in evaluations:
        if any(defect.found is not None for defect in evaluation.defects):
            show(recall_table(evaluation))
        for line in evaluation.in_words():
            typer.echo(line)
    if all(evaluation.metrics.image_auroc is None for evaluation in evaluations):
        message("only good or only anomalous images: nothing to tell apart, hence the dashes")


def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="A model file.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another one.")],
    data: Data,
    layout: LayoutName = "auto",
    category: Category = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    streams: StreamsOption = 1,
    profile: ProfileOption = None,
    batch_size: BatchSize = 8,
    as_json: Json = False,
) -> None:
    """Two models on the same labelled images: differences with their limits, and verdicts that differ."""
    from draem.evaluation.compare import compare as pair
    from draem.evaluation.evaluate import evaluate as score
    from draem.inspection.detector import Detector
    from draem.tables.console import show, staged
    from draem.tables.scores import comparison_table

    chosen = execution(backend, device, precision, threads, streams)
    known = known_layout(layout)
    # Both before the first one runs: what is no model is told at once.
    detectors = {"first": Detector.open(first, chosen, profile), "second": Detector.open(second, chosen, profile)}
    found = []
    with staged() as progress:
        for stage, detector in detectors.items():
            move = partial(progress, stage)
            found.append(score(detector, data, layout=known, category=category, batch_size=batch_size, progress=move))
    for problem in dict.fromkeys(found[0].unreadable + found[1].unreadable):
        message(f"left out: {problem}")
    compared = pair(found[0], found[1])
    show(comparison_table(compared, ("first", "second")))
    for line in compared.in_words():
        typer.echo(line)
    finish(as_json, compared.to_dict())
    if found[0].unreadable or found[1].unreadable:
        raise typer.Exit(1)


def report(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option("--out", metavar="NAME.html", help="The page.")],
    layout: LayoutName = "auto",
    category: Category = None,
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    streams: StreamsOption = 1,
    profile: ProfileOption = None,
    parts_per_hour: PartsPerHour = None,
    shift_hours: ShiftHours = None,
    defect_rate: LineDefectRate = None,
    batch_size: BatchSize = 8,
    as_json: Json = False,
) -> None:
    """One offline page on a model and labelled images: verdicts, thresholds to try, curves, every image's why."""
    from draem.evaluation.report.page import report as write
    from draem.tables.console import counted

    known, line = known_layout(layout), line_of(parts_per_hour, shift_hours, defect_rate)
    with counted("report") as progress:
        found = write(
            model,
            data,
            out,
            layout=known,
            category=category,
            profile=profile,
            line=line,
            execution=execution(backend, device, precision, threads, streams),
            batch_size=batch_size,
            progress=progress,
        )
    for problem in found.unreadable:
        message(f"left out: {problem}")
    for said in found.in_words():
        typer.echo(said)
    typer.echo(f"report: {out}")
    finish(as_json, {"report": str(out), **found.to_dict()})
    if found.unreadable:
        raise typer.Exit(1)


def predict(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB…", help="What to inspect.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for results.jsonl, overlays and maps.")],
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    streams: StreamsOption = 1,
    profile: ProfileOption = None,
    batch_size: BatchSize = 8,
    as_json: Json = False,
) -> None:
    """Inspect images: results.jsonl, and for each image an overlay and a 16-bit anomaly map."""
    from draem.inspection.detector import Detector
    from draem.inspection.folder import find_images, predict_files
    from draem.tables.console import counted

    refuse_file(out)
    chosen = execution(backend, device, precision, threads, streams)
    paths = find_images(images, out)
    detector = Detector.open(model, chosen, profile)
    with counted("predict") as progress:
        summary = predict_files(detector, paths, out, batch_size, progress)
    for problem in summary.unreadable:
        message(f"left out: {problem}")
    if summary.unplaced:
        message(
            f"the part was not found on {summary.unplaced} images: inspected as they lie, none is accepted; "
            "see placement in results.jsonl"
        )
    if summary.older_pictures:
        message(
            f"older pictures in {out}: {summary.older_pictures} of earlier runs stay; those of this one are in "
            "results.jsonl"
        )
    message(f"run by {detector.backend.execution}")
    typer.echo(summary.in_words())
    finish(as_json, {**summary.to_dict(), "execution": detector.backend.execution})
    if summary.unreadable:
        raise typer.Exit(1)


def info(model: Model, as_json: Json = False) -> None:
    """Read a model file's header."""
    from draem.modelfile import read_header
    from draem.tables.console import show
    from draem.tables.models import header_table

    header = read_header(model)
    show(header_table(header))
    finish(as_json, header.model_dump(mode="json"))


def set_(
    model: Model,
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY=VALUE…", help="threshold, review, region, ignore, registration (docs/model-file.md)."
        ),
    ],
    profile: ProfileOption = None,
    as_json: Json = False,
) -> None:
    """Set a model's thresholds, region of interest or registration, in place; its weights stay byte by byte."""
    from draem.inspection.described import changed_rows
    from draem.inspection.edits import set_values

    before, after = set_values(model, values, profile)
    for line in changed_rows(before, after) or ["nothing changed"]:
        typer.echo(line)
    finish(as_json, after.model_dump(mode="json"))
