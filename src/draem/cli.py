"""The command line: one short function a verb.

Progress and messages go to stderr, results to stdout; `--json` makes the last line of stdout one JSON object. Exit 0
fine, 1 a person's mistake (one line), 2 usage.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from draem.errors import DraemError, MemoryLimitError, MissingExtraError

app = typer.Typer(
    name="draem",
    help="From a folder of good images to a deployed defect detector.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder of good images, or a data set; its layout is found.")
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="RUN/model.safetensors.")]
Category = Annotated[
    str | None, typer.Option("--category", metavar="NAME", help="Which of several categories; all for all of them.")
]
Json = Annotated[bool, typer.Option("--json", help="Last line of stdout: one JSON object.")]
LayoutName = Annotated[str, typer.Option("--layout", help="auto, folder, mvtec, visa, … (docs/layouts.md).")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="training.seed=3, and so on.")]
Preset = Annotated[str, typer.Option("--preset", help="edge, fast, standard, large, official, paper.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", metavar="YAML", help="Settings over the preset's.")]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images in one run of the network.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where everything goes.")] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of data, split and training.")] = 0,
    as_json: Json = False,
) -> None:
    """Render parts with defects, train, calibrate and evaluate: the whole way in a few minutes."""
    from draem.demo import run_demo
    from draem.tables import metrics_table, show

    result = run_demo(out, seed, message=_message)
    show(metrics_table(result.evaluations, title="Demo: test images", mean=result.mean))
    for path in result.pictures:
        typer.echo(f"picture: {path}")
    _finish(as_json, result.to_dict())


@app.command()
def check(
    data: Data,
    layout: LayoutName = "auto",
    category: Category = None,
    settings: Settings = None,
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
    from draem.tables import counted, findings_table, show

    if html:
        environment()  # what is missing is said before the work
        refuse_place(html, (".html", ".htm"))
    known = Config.resolve("fast", None, {"data.layout": layout} | _settings(settings)).data
    dataset = read_layout(data, known.layout, category)
    if write_csv:
        refuse_list(write_csv, data, dataset)
    with counted("check") as progress:
        report = check_dataset(dataset, progress, None, category in (None, "all"), known.value_range)
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
            _message(f"{data} is read by this list from now on; with --layout {dataset.layout} as before")
    _finish(as_json, report.to_dict())
    if report.must_fix:
        raise typer.Exit(1)


@app.command()
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
    from draem.tables import counted, coverage_tables, show

    resolved = Config.resolve(preset, config, _settings(settings), default="fast")
    with _needs("train"):
        from draem.preview import write_preview
    with counted("simulate") as progress:
        preview = write_preview(data, out, resolved, count, seed, category, compare, progress)
    for problem in preview.left_out:
        _message(f"left out: {problem}")
    if preview.region is not None:
        _message(preview.region)
    if preview.coverage is not None:
        for table in coverage_tables(preview.coverage, title=f"{data}: real defects among simulated ones"):
            show(table)
        _message("to choose a simulation by these defects makes theirs a development set: test on others")
    for path in preview.pictures:
        typer.echo(f"picture: {path}")
    _finish(as_json, preview.to_dict())


@app.command()
def train(
    data: Data,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="The run's folder.")],
    preset: Preset = "",
    config: ConfigFile = None,
    settings: Settings = None,
    images: Annotated[int | None, typer.Option("--images", min=1, help="Budget: images seen.")] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Budget: passes over the data.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0)] = None,
    category: Category = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint, if there is one.")] = False,
    checkpoint_every: Annotated[
        float | None, typer.Option("--checkpoint-every", min=0, metavar="SECONDS", help="60 unless told.")
    ] = None,
    init: Annotated[Path | None, typer.Option("--init", metavar="MODEL", help="Start from its weights.")] = None,
    as_json: Json = False,
) -> None:
    """Train on good images; RUN/model.safetensors is the model; of all categories, RUN/CATEGORY/model.safetensors."""
    from draem import verbs

    flags = {"images": images, "epochs": epochs, "seed": seed, "checkpoint_every": checkpoint_every}
    chosen = {f"training.{key}": value for key, value in flags.items() if value is not None} | _settings(settings)
    if category == "all":
        models = verbs.train_all(data, out, preset, config=config, settings=chosen, resume=resume, init=init)
        if _first_process():
            for model in models.values():
                typer.echo(f"model: {model}")
            _finish(as_json, {"models": {name: str(model) for name, model in models.items()}})
        return
    detector = verbs.train(
        data, out, preset, config=config, settings=chosen, category=category, resume=resume, init=init
    )
    if _first_process():
        typer.echo(f"model: {out / 'model.safetensors'}")
        _finish(as_json, {"model": str(out / "model.safetensors"), **_summary(detector.header)})


@app.command()
def evaluate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="RUN/model.safetensors, or RUN with a model for each category.")
    ],
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="Folder for metrics.json and sheet.png.")],
    layout: LayoutName = "auto",
    category: Category = None,
    device: DeviceName = "auto",
    batch_size: BatchSize = 8,
    as_json: Json = False,
) -> None:
    """Metrics on labelled test images: overall, by category, by defect type."""
    from draem.config import Config
    from draem.evaluation.categories import evaluate_all
    from draem.evaluation.evaluate import evaluate as score
    from draem.tables import counted

    _refuse_file(out)
    known = Config.resolve("fast", None, {"data.layout": layout}).data.layout
    if model.is_dir():
        with counted("evaluate") as progress:
            found = evaluate_all(
                model,
                data,
                layout=known,
                category=category or "all",
                device=_known_device(device),
                batch_size=batch_size,
                progress=progress,
            )
        found.save(out)
        _show_evaluations(list(found.evaluations.values()), found.mean, data)
        pictures = [out / name / "sheet.png" for name, part in found.evaluations.items() if part.picture is not None]
    else:
        detector = _load(model, device)
        with counted("evaluate") as progress:
            evaluation = score(
                detector, data, layout=known, category=category, batch_size=batch_size, progress=progress
            )
        evaluation.save(out)
        _show_evaluations([evaluation], evaluation.mean if len(evaluation.by_category) > 1 else None, data)
        pictures = [out / "sheet.png"] if evaluation.picture is not None else []
    typer.echo(f"figures: {out / 'metrics.json'}")
    for picture in pictures:
        typer.echo(f"picture: {picture}")
    _finish(as_json, json.loads((out / "metrics.json").read_text(encoding="utf-8")))


def _show_evaluations(evaluations: list[Any], mean: Any, data: Path) -> None:
    from draem.tables import metrics_table, show

    for evaluation in evaluations:
        for problem in evaluation.unreadable:
            _message(f"left out: {problem}")
    size = evaluations[0].input_size
    at = "the images' own size" if size is None else f"{size[0]}×{size[1]}"
    images = sum(evaluation.count() for evaluation in evaluations)
    show(metrics_table(evaluations, f"{data}: {images} test images, metrics at {at}", mean))
    if all(evaluation.metrics.image_auroc is None for evaluation in evaluations):
        _message("only good or only anomalous images: nothing to tell apart, hence the dashes")


@app.command()
def predict(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB…", help="What to inspect.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for results.jsonl, overlays and maps.")],
    device: DeviceName = "auto",
    batch_size: BatchSize = 8,
    as_json: Json = False,
) -> None:
    """Inspect images: results.jsonl, and for each image an overlay and a 16-bit anomaly map."""
    from draem.inspection.folder import find_images, predict_files
    from draem.tables import counted

    _refuse_file(out)
    paths = find_images(images, out)
    detector = _load(model, device)
    with counted("predict") as progress:
        summary = predict_files(detector, paths, out, batch_size, progress)
    for problem in summary.unreadable:
        _message(f"left out: {problem}")
    typer.echo(summary.in_words())
    _finish(as_json, summary.to_dict())
    if summary.unreadable:
        raise typer.Exit(1)


@app.command("import-weights")
def import_weights(
    reconstructive: Annotated[Path, typer.Argument(metavar="NAME.pckl", help="Reconstructive sub-network.")],
    discriminative: Annotated[Path, typer.Argument(metavar="NAME_seg.pckl", help="Discriminative sub-network.")],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="The model file to write: …/model.safetensors.")],
) -> None:
    """Turn a pair of the published weights into a model file; BGR becomes RGB."""
    with _needs("train"):
        from draem.network.weights import import_published
    header = import_published(reconstructive, discriminative, out)
    network = header.config.network
    typer.echo(f"model: {out} ({network.reconstructive_width}/{network.discriminative_width}, no threshold yet)")


@app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Read a model file's header."""
    from draem.modelfile import read_header
    from draem.tables import header_table, show

    header = read_header(model)
    show(header_table(header))
    _finish(as_json, header.model_dump(mode="json"))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from draem import __version__

        typer.echo(f"draem {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a person's mistake is one line on stderr and exit code 1."""
    log = logging.getLogger("draem")
    if not log.handlers:
        log.addHandler(_Messages())
        log.setLevel(logging.INFO)
    try:
        app()
    except DraemError as error:
        # Of several processes that share a run, all meet the same mistakes; memory is each one's own.
        if _first_process() or isinstance(error, MemoryLimitError):
            _message(f"draem: {error}")
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does: nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A name too long, a folder without permission, a full disc: the system's own words, and where.
        place = f"{str(error.filename)[:200]}: " if error.filename else ""
        _message(f"draem: {place}{error.strerror or error}")
        sys.exit(1)


class _Messages(logging.Handler):
    """Shows what the package logs as messages."""

    def emit(self, record: logging.LogRecord) -> None:
        if _first_process():
            _message(record.getMessage())


def _first_process() -> bool:
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


@contextmanager
def _needs(extra: str) -> Iterator[None]:
    """Importing in this block needs an extra; says which one if a package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", extra) from None


def _refuse_file(out: Path) -> None:
    """Said before the work, not after it."""
    if out.exists() and not out.is_dir():
        raise DraemError(f"{out}: is a file; --out is a folder")


def _load(model: Path, device: str) -> Any:
    from draem.inspection.detector import Detector

    return Detector.load(model, _known_device(device))


def _known_device(device: str) -> Any:
    from draem.errors import ConfigError

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(f"--device {device}: use auto, cpu, cuda or mps")
    return device


def _settings(given: list[str] | None) -> dict[str, Any]:
    from draem.settings import parse_setting

    return dict(parse_setting(text) for text in given or [])


def _summary(header: Any) -> dict[str, Any]:
    plain: dict[str, Any] = header.model_dump(mode="json", include={"thresholds", "training", "data"})
    return plain


def _message(text: str) -> None:
    typer.echo(" ".join(text.split()) if text.startswith("draem:") else text, err=True)


def _finish(as_json: bool, result: dict[str, Any]) -> None:
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
