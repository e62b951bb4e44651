"""From images to what is simulated on them: demo, check, simulate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from draem.cli.options import Category, ConfigFile, Data, Json, LayoutName, Preset, Settings, settings_of
from draem.cli.speaking import finish, message, needing


def demo(
    out: Annotated[Path, typer.Option("--out", help="Where everything goes.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of data, split and training.")] = 0,
    as_json: Json = False,
) -> None:
    """Render parts with defects, train, calibrate and evaluate: the whole way in ten minutes or so."""
    from draem.demo import run_demo
    from draem.tables.console import show
    from draem.tables.scores import metrics_table

    result = run_demo(out, seed, message=message)
    show(metrics_table(result.evaluations, title="Demo: test images", mean=result.mean))
    for path in result.pictures:
        typer.echo(f"picture: {path}")
    finish(as_json, result.to_dict())


def check(
    data: Data,
    layout: LayoutName = "auto",
    category: Category = None,
    settings: Settings = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL", help="Show the good images that it finds strangest.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="PAGE.html", help="A page with thumbnails.")] = None,
    write_csv: Annotated[
        Path | None, typer.Option("--write-csv", metavar="LIST.csv", help="The images that pass, as a data set.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look for what is wrong with a data set; exit code 1 when something must be fixed. No image is touched."""
    from draem.config import Config
    from draem.data.doctor.cleaned import refuse_list, refuse_place, write_cleaned
    from draem.data.doctor.examine import check_dataset
    from draem.data.doctor.page import write_check_page
    from draem.data.layouts import read_layout
    from draem.pages import environment
    from draem.tables.console import show, staged
    from draem.tables.images import findings_table

    if html:
        environment()  # what is missing is said before the work
        refuse_place(html, (".html", ".htm"))
    detector = None
    if model:
        from draem.evaluation.suspects import strangest
        from draem.inspection.detector import Detector

        detector = Detector.load(model)
    known = Config.resolve("fast", None, {"data.layout": layout} | settings_of(settings)).data
    dataset = read_layout(data, known.layout, category)
    if write_csv:
        refuse_list(write_csv, data, dataset)
    with staged() as move:
        unused = category in (None, "all")
        report = check_dataset(dataset, partial(move, "check"), None, unused, known.value_range)
        if model and detector:
            report = report.beside(strangest(detector, dataset.samples, model.name, partial(move, "inspect")))
    if report.findings:
        show(findings_table(report))
    else:
        typer.echo(report.in_words())
    if html:
        write_check_page(html, dataset, report, known.value_range)
        typer.echo(f"page: {html}")
    if write_csv:
        kept = write_cleaned(write_csv, dataset, report)
        typer.echo(f"list: {write_csv} ({kept} of {len(dataset.samples)} images)")
        if data.is_dir() and write_csv.resolve().parent == data.resolve():
            message(f"{data} is read by this list from now on; with --layout {dataset.layout} as before")
    finish(as_json, report.to_dict())
    if report.must_fix:
        raise typer.Exit(1)


def simulate(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="The contact sheet: a PNG file.")],
    preset: Preset = "",
    config: ConfigFile = None,
    settings: Settings = None,
    count: Annotated[int, typer.Option("--count", min=1, max=64, help="Samples on the sheet.")] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    category: Category = None,
    compare: Annotated[bool, typer.Option("--compare", help="Where real defects lie among the simulated.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is simulated: samples, every kind of mask and source, statistics, and what real defects it covers."""
    from draem.config import Config
    from draem.tables.console import counted, show
    from draem.tables.images import coverage_tables

    resolved = Config.resolve(preset, config, settings_of(settings), default="fast")
    with needing("train"):
        from draem.preview import write_preview
    with counted("simulate") as progress:
        preview = write_preview(data, out, resolved, count, seed, category, compare, progress)
    for problem in preview.left_out:
        message(f"left out: {problem}")
    if preview.region is not None:
        message(preview.region)
    if preview.coverage is not None:
        for table in coverage_tables(preview.coverage, title=f"{data}: real defects among simulated ones"):
            show(table)
        message("to choose a simulation by these defects makes theirs a development set: test on others")
    for path in preview.pictures:
        typer.echo(f"picture: {path}")
    finish(as_json, preview.to_dict())
