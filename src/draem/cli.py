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
from draem.options import (
    BackendOption,
    BatchSize,
    DeviceOption,
    PrecisionOption,
    StreamsOption,
    ThreadsOption,
    execution,
)

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
    out: Run,
    preset: Preset = "",
    config: ConfigFile = None,
    settings: Settings = None,
    images: Images = None,
    epochs: Epochs = None,
    seed: Seed = None,
    category: Category = None,
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = None,
    init: Init = None,
    as_json: Json = False,
) -> None:
    """Train on good images; RUN/model.safetensors is the model; of all categories, RUN/CATEGORY/model.safetensors."""
    from draem import verbs

    chosen = _training_settings(images, epochs, seed, checkpoint_every) | _settings(settings)
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
    _show_trained(out, detector.header, as_json)


@app.command()
def distill(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help="A large trained model: RUN/model.safetensors.")],
    data: Data,
    out: Run,
    preset: Annotated[str, typer.Option("--preset", help="The student's: edge unless told.")] = "",
    config: ConfigFile = None,
    settings: Settings = None,
    images: Images = None,
    epochs: Epochs = None,
    seed: Seed = None,
    category: Category = None,
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = None,
    init: Init = None,
    as_json: Json = False,
) -> None:
    """Train a small network with a large trained one as its teacher; RUN/model.safetensors is the model."""
    from draem import verbs

    chosen = _training_settings(images, epochs, seed, checkpoint_every) | _settings(settings)
    detector = verbs.distill(
        teacher, data, out, preset, config=config, settings=chosen, category=category, resume=resume, init=init
    )
    _show_trained(out, detector.header, as_json)


def _training_settings(
    images: int | None, epochs: float | None, seed: int | None, checkpoint_every: float | None
) -> dict[str, Any]:
    flags = {"images": images, "epochs": epochs, "seed": seed, "checkpoint_every": checkpoint_every}
    return {f"training.{key}": value for key, value in flags.items() if value is not None}


def _show_trained(out: Path, header: Any, as_json: bool) -> None:
    if _first_process():
        typer.echo(f"model: {out / 'model.safetensors'}")
        _finish(as_json, {"model": str(out / "model.safetensors"), **_summary(header)})


@app.command()
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
    batch_size: BatchSize = 8,
    as_json: Json = False,
) -> None:
    """Metrics on labelled test images: overall, by category, by defect type."""
    from draem.config import Config
    from draem.evaluation.categories import evaluate_all
    from draem.evaluation.evaluate import evaluate as score
    from draem.inspection.backends import open_backend
    from draem.inspection.detector import Detector
    from draem.tables import counted

    _refuse_file(out)
    chosen = execution(backend, device, precision, threads, streams)
    known = Config.resolve("fast", None, {"data.layout": layout}).data.layout
    if model.is_dir():
        with counted("evaluate") as progress:
            found = evaluate_all(
                model,
                data,
                layout=known,
                category=category or "all",
                execution=chosen,
                batch_size=batch_size,
                progress=progress,
            )
        found.save(out)
        _show_evaluations(list(found.evaluations.values()), found.mean, data)
        pictures = [out / name / "sheet.png" for name, part in found.evaluations.items() if part.picture is not None]
    else:
        detector = Detector(*open_backend(model, chosen))
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
    backend: BackendOption = "auto",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    streams: StreamsOption = 1,
    batch_size: BatchSize = 8,
    as_json: Json = False,
) -> None:
    """Inspect images: results.jsonl, and for each image an overlay and a 16-bit anomaly map."""
    from draem.inspection.backends import open_backend
    from draem.inspection.detector import Detector
    from draem.inspection.folder import find_images, predict_files
    from draem.tables import counted

    _refuse_file(out)
    chosen = execution(backend, device, precision, threads, streams)
    paths = find_images(images, out)
    detector = Detector(*open_backend(model, chosen))
    with counted("predict") as progress:
        summary = predict_files(detector, paths, out, batch_size, progress)
    for problem in summary.unreadable:
        _message(f"left out: {problem}")
    _message(f"run by {detector.backend.execution}")
    typer.echo(summary.in_words())
    _finish(as_json, {**summary.to_dict(), "execution": detector.backend.execution})
    if summary.unreadable:
        raise typer.Exit(1)


@app.command()
def export(
    model: Model,
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
    from draem.config import Config
    from draem.deployment.export import certificate_file
    from draem.deployment.export import export as write
    from draem.tables import export_table, show, staged

    known = Config.resolve("fast", None, {"data.layout": layout}).data.layout
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
        _message(f"forced: {warning}")
    show(export_table(made))
    typer.echo(f"compared: {made.certificate.execution}; {made.certificate.compared_on}")
    typer.echo(f"model: {made.in_words()}")
    typer.echo(f"certificate: {certificate_file(made.path)}")
    _finish(as_json, made.to_dict())


def _tolerances(given: list[str] | None) -> dict[str, float]:
    from draem.errors import ConfigError

    found = {}
    for text in given or []:
        key, _, value = text.partition("=")
        try:
            found[key.strip()] = float(value)
        except ValueError:
            raise ConfigError(f"--tolerance {text}: write KEY=NUMBER, such as map_max=0.005") from None
    return found


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


@app.command()
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
    from draem.config import Config
    from draem.deployment.benchmark.plot import latency_plot
    from draem.deployment.benchmark.run import benchmark as run_benchmark
    from draem.files import atomic_write
    from draem.tables import benchmark_table, counted, show

    if out:
        _refuse_file(out)
    known = Config.resolve("fast", None, {"data.layout": layout}).data.layout
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
            _message(f"no plot: {error}")
            picture = None
        if picture is not None:
            atomic_write(out / "benchmark.png", picture)
            typer.echo(f"picture: {out / 'benchmark.png'}")
    _finish(as_json, found.to_dict())


@app.command("set")
def set_(
    model: Model,
    values: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE…", help="threshold, review, region, ignore (docs/model-file.md).")
    ],
    as_json: Json = False,
) -> None:
    """Set a model's threshold, review zone or region of interest, in place; its weights stay byte by byte."""
    from draem.inspection.edits import set_values
    from draem.tables import changed_rows

    before, after = set_values(model, values)
    for line in changed_rows(before, after) or ["nothing changed"]:
        typer.echo(line)
    _finish(as_json, after.model_dump(mode="json"))


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
