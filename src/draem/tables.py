"""What the command line shows: tables on stdout, counting bars on stderr."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from draem.data.doctor.findings import Report
from draem.deployment.benchmark.job import Rate
from draem.deployment.benchmark.result import Benchmark, Row, machine_in_words
from draem.deployment.benchmark.stopwatch import Latency
from draem.deployment.export import Export
from draem.evaluation.calibrate import Calibration
from draem.evaluation.evaluate import Evaluation
from draem.evaluation.metrics import METRIC_KEYS, Metrics
from draem.evaluation.operating import VERDICTS, Share
from draem.inspection.region import draw_region
from draem.modelfile import Artefact, Certificate, Header, Thresholds
from draem.simulation.coverage import Coverage

_FINE = (512, 512)
"""Pixels that a region's share of the image is counted on."""


def show(table: Table) -> None:
    """Print on stdout; a pipe gets a width at which nothing is cut."""
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)


def metrics_table(evaluations: Sequence[Evaluation], title: str, mean: Metrics | None = None) -> Table:
    """A row for each category and each of its defect types, and one for the mean of several evaluations.

    A dash stands for what cannot be known.
    """
    table = Table(title=escape(title), title_justify="left")
    table.add_column("category")
    table.add_column("defect")
    table.add_column("images", justify="right")
    for key in METRIC_KEYS:
        table.add_column(key.replace("_", " "), justify="right")
    for evaluation in evaluations:
        for category, metrics in evaluation.by_category.items():
            table.add_row(escape(category), "all", str(evaluation.count(category)), *_cells(metrics), style="bold")
            for (owner, defect), part in evaluation.by_defect.items():
                if owner == category:
                    table.add_row("", escape(defect), str(evaluation.count(category, defect)), *_cells(part))
    if mean is not None:
        images = sum(evaluation.count() for evaluation in evaluations)
        table.add_row("mean", "", str(images), *_cells(mean), style="bold")
    return table


def findings_table(report: Report) -> Table:
    """A row for each check that found something: how much, where, what, and what to do."""
    table = Table(title=escape(printable(report.in_words())), title_justify="left")
    for name in ("severity", "check", "found", "where", "what", "what to do"):
        table.add_column(name, justify="right" if name == "found" else "left")
    for group in report.groups():
        first, found = group[0], len(group)
        names = [printable(name) for finding in group for name in finding.names]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        where = escape(f"{names[0]}{more}" if names else "the whole set")
        what = escape(printable(first.message)) + (" …" if found > 1 else "")
        style = {"error": "red", "warning": "yellow"}.get(first.severity)
        table.add_row(first.severity, first.check, str(found), where, what, escape(first.advice), style=style)
    return table


def printable(text: str) -> str:
    """Text with what a terminal would act upon, or cannot show, spelled out: file names may hold anything."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def header_table(header: Header) -> Table:
    """A model's header for the eye; what is to be wondered at is yellow."""
    table = Table(show_header=False)
    for name, value in header_rows(header).items():
        table.add_row(name, escape(printable(value)), style="yellow" if name in _doubtful(header) else None)
    return table


def header_rows(header: Header) -> dict[str, str]:
    """What there is to know of a model, in words."""
    network, data, score = header.config.network, header.config.data, header.config.score
    rows = {
        "preset": f"{header.config.preset}, widths {network.widths}",
        "input": f"{data.size[0]}×{data.size[1]} {_pixels(header)}, {data.fit}",
        "region": _region(header),
        "score": f"maximum of the {score.map} map after a {score.filter_size}×{score.filter_size} mean filter",
        "origin": header.origin,
        "reject above": "none",
    }
    if header.thresholds is not None:
        review = header.thresholds.review
        rows["reject above"] = f"{header.thresholds.reject:.6g}"
        rows["review above"] = "none" if review is None else f"{review:.6g}"
        rows["chosen on"] = header.thresholds.chosen_on
    if header.reference is not None:
        rows["p-values"] = f"against the scores of {len(header.reference.scores)} good images"
    for name, profile in header.profiles.items():
        rows[f"profile {name}"] = "none" if profile.thresholds is None else _in_words(profile.thresholds)
    if header.data is not None:
        jobs = f"{header.data.train} train, {header.data.select} select, {header.data.calibrate} calibrate"
        rows["data"] = f"{header.data.name}: {jobs}; fingerprint {header.data.fingerprint[:16]}"
    if header.training is not None:
        record = header.training
        rows["training"] = (
            f"{record.images_seen} images, {record.seconds / 60:.1f} min on {record.device} in {record.precision}, "
            f"seed {header.config.training.seed}, weights of step {record.step_kept} of {record.steps}"
        )
        if record.teacher is not None:
            taught = record.teacher
            rows["teacher"] = f"{taught.preset}, widths {taught.widths}, sha256 {taught.sha256[:16]}"
    if header.artefact is not None:
        rows |= _artefact_rows(header.artefact)
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in header.versions.items())
    rows["weights"] = f"sha256 {header.sha256}"
    return rows


def _in_words(thresholds: Thresholds) -> str:
    review = "" if thresholds.review is None else f", review above {thresholds.review:.6g}"
    return f"reject above {thresholds.reject:.6g}{review}; {thresholds.chosen_on}"


def changed_rows(before: Header, after: Header) -> list[str]:
    """A line for each row of `header_rows` that two headers of one model do not share."""
    rows = header_rows(before), header_rows(after)
    moved = {"region"} if before.region != after.region else set()  # another one may read the same
    names = [name for name in rows[0] | rows[1] if name in moved or rows[0].get(name) != rows[1].get(name)]
    return [printable(f"{name}: {rows[0].get(name, 'none')} → {rows[1].get(name, 'none')}") for name in names]


def _region(header: Header) -> str:
    if header.region is None:
        return "the whole image"
    counts = [(len(header.region.inspect), "inspected"), (len(header.region.ignore), "ignored")]
    outlines = ", ".join(f"{number} polygon{'s' * (number > 1)} {what}" for number, what in counts if number)
    return f"{draw_region(header.region, _FINE).mean():.0%} of the image: {outlines}"


def _artefact_rows(artefact: Artefact) -> dict[str, str]:
    batch = "any number of images" if artefact.batch is None else f"{artefact.batch} images"
    rows = {"artefact": f"{artefact.format}, {artefact.precision}, {batch} in one run"}
    rows["exported from"] = f"weights with sha256 {artefact.source_sha256}"
    if artefact.quantised_on:
        rows["quantised on"] = artefact.quantised_on
    if artefact.kept:
        more = f" and {len(artefact.kept) - 5} more" if len(artefact.kept) > 5 else ""
        rows["kept in full"] = ", ".join(artefact.kept[:5]) + more
    certificate = artefact.certificate
    if certificate is None:
        return rows | {"certificate": "none"}
    forced = "; beyond its tolerance, written by force" if certificate.forced else ""
    rows["certificate"] = f"{_differences(certificate)}; {certificate.execution}{forced}"
    rows["verdicts"] = _flips(certificate)
    if certificate.metrics_before and certificate.metrics_after:
        after = certificate.metrics_after
        rows["metrics"] = ", ".join(
            f"{name.replace('_', ' ')} {_figure(value)} → {_figure(after.get(name))}"
            for name, value in certificate.metrics_before.items()
            if value is not None
        )
    if certificate.stale:
        rows["stale"] = certificate.stale
    return rows


def _differences(certificate: Certificate) -> str:
    """How far the answers are from the network's, and how far they may be."""
    words = {"map_max": "map at most", "map_mean": "map on average", "score": "score at most"}
    limits = certificate.tolerance
    return ", ".join(
        f"{what} {getattr(certificate, name):.2g}" + (f" (of {limits[name]:g})" if name in limits else "")
        for name, what in words.items()
    )


def _flips(certificate: Certificate) -> str:
    count = len(certificate.images)
    if certificate.flips is None:
        return f"none without a threshold; {count} images compared"
    return f"{certificate.flips} of {count} differ from the network's"


def _doubtful(header: Header) -> set[str]:
    """Rows that a person should look at twice."""
    certificate = header.artefact.certificate if header.artefact else None
    if certificate is None:
        return set()
    found = {"certificate": certificate.forced, "verdicts": bool(certificate.flips), "stale": bool(certificate.stale)}
    return {name for name, doubtful in found.items() if doubtful}


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def export_table(made: Export) -> Table:
    """How close an export's answers are: differences beside what is allowed, metrics before and after."""
    certificate = made.certificate
    table = Table("", *_right("model", "export", "difference", "allowed"))
    allowed = certificate.tolerance
    differences = {"map_max": "map, largest", "map_mean": "map, mean", "score": "score, largest"}
    for key, name in differences.items():
        limit = f"{allowed[key]:g}" if key in allowed else "–"
        table.add_row(name, "", "", f"{getattr(certificate, key):.2e}", limit)
    flips = "no threshold" if certificate.flips is None else str(certificate.flips)
    table.add_row("decisions that differ", "", "", flips, f"{allowed['flips']:g}")
    before, after = certificate.metrics_before or {}, certificate.metrics_after or {}
    for key, value in before.items():
        now = after[key]
        if value is not None and now is not None:
            table.add_row(key.replace("_", " "), f"{value:.4f}", f"{now:.4f}", f"{now - value:+.4f}", "")
    return table


def calibration_table(found: Calibration) -> Table:
    """What each verdict gets of a thousand good and of a thousand anomalous parts, with 95 % limits."""
    table = Table("of 1,000 parts", *_right("good", "anomalous"))
    parts = found.good_shares, found.anomalous_shares
    for verdict in VERDICTS:
        if verdict != "review" or found.thresholds.review is not None:
            table.add_row(verdict, *(_per_thousand(part.get(verdict)) for part in parts))
    return table


def _per_thousand(share: Share | None) -> str:
    if share is None:
        return "–"
    low, high = share.limits
    return f"{1000 * share.value:.1f} ({1000 * low:.1f} to {1000 * high:.1f})"


def coverage_tables(coverage: Coverage, title: str, most: int = 20) -> list[Table]:
    """Real defects among simulated ones: by type, by feature; the reasons, and the `most` that are farthest outside."""
    kinds = Table("defect", *_right("defects", "covered"), "why not", title=escape(title), title_justify="left")
    for kind, (count, share) in coverage.by_kind().items():
        kinds.add_row(escape(kind), str(count), _percent(share), _reasons(coverage, kind))
    kinds.add_row("all", str(len(coverage.real)), _percent(coverage.share), "", style="bold")
    features = Table("feature", *_right("99 % of the simulated", "real ones below", "above"))
    for feature, spread in coverage.spreads.items():
        reach = f"{spread.low:.3g} to {spread.high:.3g}"
        features.add_row(feature, reach, f"{spread.below:.0%}", f"{spread.above:.0%}")
    if not coverage.outsiders:
        return [kinds, features]
    shown = min(most, len(coverage.outsiders))
    said = f"outside: {shown} of {len(coverage.outsiders)}, the farthest first"
    outside = Table("image", "box", "unlike the simulated", title=said, title_justify="left")
    for one in coverage.outsiders[:most]:
        outside.add_row(escape(one.real.name), ",".join(map(str, one.real.defect.box)), one.in_words())
    advice = Table("outside since", "what would bring the simulated closer")
    for word, setting in dict.fromkeys((one.reasons[0].word, one.advice()) for one in coverage.outsiders):
        advice.add_row(word, setting)
    return [kinds, features, outside, advice]


def _percent(share: float) -> str:
    """Whole percents, rounded down: 100 % is all of them."""
    return f"{math.floor(share * 100 + 1e-9)}%"


def _reasons(coverage: Coverage, kind: str) -> str:
    """The weightiest reasons why defects of one type are outside, the most frequent first."""
    words = Counter(one.reasons[0].word for one in coverage.outsiders if one.real.kind == kind)
    return ", ".join(f"{number} {word}" for word, number in words.most_common())


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


_EMULATED = "computed in floating point, since int8 overflows on this processor; fp32 is as fast"


def benchmark_table(benchmark: Benchmark) -> Table:
    """A row for every way to run the model; a dash stands for what is not known or could not be measured."""
    title = f"{benchmark.model}, {benchmark.measured_on}"
    table = Table("backend", "precision", title=escape(title), title_justify="left", caption_justify="left")
    for name in (
        *("size\nMB", "load\ns", "file to decision, ms\np50 / p95 / p99", "network alone, ms\np50 / p95 / p99"),
        *("network\nimages/s", "files\nimages/s", "memory\nMB", "image\nAUROC", "pixel\nAP"),
    ):
        table.add_column(name, justify="right")
    for row in benchmark.rows:
        table.add_row(row.way.backend, row.way.precision, *_figures(row), style="dim" if row.reason else None)
    said = [f"{row.way.name}: {row.reason}" for row in benchmark.rows if row.reason]
    said += [f"{row.way.name}: its answers differ by more than export allows" for row in benchmark.rows if row.forced]
    said += [f"{row.way.name}: {_EMULATED}" for row in benchmark.rows if "emulated" in (row.execution or "")]
    table.caption = escape("\n".join([machine_in_words(benchmark.machine), *said]))
    return table


def _figures(row: Row) -> list[str]:
    def known(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    def rate(value: Rate | None) -> str:
        return "–" if value is None else _three(value.images_per_second)

    best = row.best
    batch = "" if best is None else f" ({best.batch}{f'×{best.streams}' if best.streams > 1 else ''})"
    return [
        known(row.bytes and row.bytes / 1e6, ".1f"),
        known(row.load_seconds, ".2f"),
        _latency(row.decision),
        _latency(row.network),
        rate(best) + batch,
        rate(row.files),
        known(row.memory and row.memory / 1e6, ".0f"),
        known(row.metric("image_auroc"), ".4f"),
        known(row.metric("pixel_ap"), ".4f"),
    ]


def _latency(found: Latency | None) -> str:
    return "–" if found is None else " / ".join(map(_three, (found.p50, found.p95, found.p99)))


def _three(value: float) -> str:
    """A figure with the decimals that it is worth."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


@contextmanager
def counted(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, moved by calling with what is done and how much there is."""
    with staged() as move:
        yield lambda done, total: move(verb, done, total)


@contextmanager
def staged() -> Iterator[Callable[[str, int, int], None]]:
    """As `counted`, with a bar for each stage that is named."""
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def move(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage, total=None)
        progress.start()  # only now: what fails before has one line to say
        progress.update(tasks[stage], completed=done, total=total)

    try:
        yield move
    finally:
        if progress.live.is_started:
            progress.stop()


def _pixels(header: Header) -> str:
    """Channels, depth and range of the network's images, such as `RGB, 8 bit`."""
    kind = header.config.data.pixel_format
    colours = f"stack of {kind.channels} channels" if header.colour_order == "stack" else header.colour_order
    raw = "" if kind.value_range is None else ", raw values {:g} to {:g}".format(*kind.value_range)
    return f"{colours}, {kind.depth} bit{raw}"


def _cells(metrics: Metrics) -> list[str]:
    return [_figure(value) for value in metrics.to_dict().values()]
