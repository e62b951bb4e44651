"""From a model to what runs on the line: export, benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from draem.cli.options import Category, DeviceOption, Json, LayoutName, ThreadsOption, execution, known_layout
from draem.cli.speaking import finish, message, refuse_file
from draem.errors import MissingExtraError


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model: RUN/model.safetensors.")],
    data: Annotated[Path, typer.Option("--data", metavar="DATA", help="A data set: its images are compared on.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="NAME.onnx, or NAME.xml (with NAME.bin).")],
    to: Annotated[str | None, typer.Option("--to", help="onnx, openvino; unless told, as FILE ends.")] = None,
    precision: Annotated[str, typer.Option("--precision", help="Of the weights: fp32, fp16, int8.")] = "fp32",
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Images in one run; any number unless told.")] = (
        None
    ),
    images: Annotated[int, typer.Option("--images", min=1, help="The most to compare on.")] = 64,
    backend: Annotated[str, typer.Option("--backend", help="For the certificate: onnxruntime, openvino.")] = "auto",
    execution_precision: Annotated[
        str, typer.Option("--execution-precision", help="Of the arithmetic, for the certificate: fp32, bf16, fp16.")
    ] = "fp32",
    tolerance: Annotated[
        list[str] | None, typer.Option("--tolerance", metavar="KEY=VALUE", help="map_max, map_mean, score, flips.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write it beyond the tolerance, marked as such.")] = False,
    layout: LayoutName = "auto",
    category: Category = None,
    as_json: Json = False,
) -> None:
    """Write a trained model as ONNX or OpenVINO IR, with a certificate that it gives the same answers."""
    from draem.deployment.export import certificate_file
    from draem.deployment.export import export as write
    from draem.tables.console import show, staged
    from draem.tables.models import export_table

    known = known_layout(layout)
    chosen: dict[str, Any] = {
        "to": to,
        "precision": precision,
        "batch": batch,
        "images": images,
        "backend": backend,
        "execution_precision": execution_precision,
        "tolerance": _tolerances(tolerance),
        "force": force,
        "layout": known,
        "category": category,
    }
    with staged() as progress:
        made = write(model, out, data, progress=progress, **chosen)
    for warning in made.warnings:
        message(f"forced: {warning}")
    show(export_table(made))
    typer.echo(f"compared: {made.certificate.execution}; {made.certificate.compared_on}")
    typer.echo(f"model: {made.in_words()}")
    typer.echo(f"certificate: {certificate_file(made.path)}")
    finish(as_json, made.to_dict())


def _tolerances(given: list[str] | None) -> dict[str, float]:
    from draem.errors import ConfigError
    from draem.settings import parse_number

    found = {}
    for text in given or []:
        key, _, value = text.partition("=")
        try:
            found[key.strip()] = parse_number(value)
        except ValueError:
            raise ConfigError(f"--tolerance {text}: write KEY=NUMBER, such as map_max=0.005") from None
    return found


def benchmark(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model, or an exported one.")],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DATA", help="Test images; without: rendered ones, no accuracy.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="For benchmark.json, benchmark.png and the exports.")
    ] = None,
    only: Annotated[
        str, typer.Option("--only", metavar="LIST", help="Such as openvino:int8,torch; all unless told.")
    ] = "",
    images: Annotated[int, typer.Option("--images", min=1, help="The most test images to evaluate on.")] = 100,
    repeats: Annotated[
        int | None, typer.Option("--repeats", min=1, help="Times of each kind; else up to 99, fewer of slow ones.")
    ] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    layout: LayoutName = "auto",
    category: Category = None,
    as_json: Json = False,
) -> None:
    """Every backend and precision on this machine: size, load time, latency, throughput, memory, accuracy."""
    from draem.deployment.benchmark.plot import latency_plot
    from draem.deployment.benchmark.run import benchmark as run_benchmark
    from draem.files import atomic_write
    from draem.tables.console import counted, show
    from draem.tables.models import benchmark_table

    if out:
        refuse_file(out)
    known = known_layout(layout)
    with counted("benchmark") as progress:
        found = run_benchmark(
            model,
            data,
            out=out,
            only=only,
            images=images,
            repeats=repeats,
            threads=threads,
            device=execution(device=device).device,
            layout=known,
            category=category,
            progress=progress,
        )
    show(benchmark_table(found))
    if out:
        typer.echo(f"figures: {found.save(out)}")
        try:
            picture = latency_plot(found)
        except MissingExtraError as error:
            message(f"no plot: {error}")
            picture = None
        if picture is not None:
            atomic_write(out / "benchmark.png", picture)
            typer.echo(f"picture: {out / 'benchmark.png'}")
    finish(as_json, found.to_dict())
