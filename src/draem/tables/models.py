"""Tables of models: the header, an export, a benchmark."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from draem.deployment.benchmark.job import Rate
from draem.deployment.benchmark.result import Benchmark, Row, machine_in_words
from draem.deployment.benchmark.stopwatch import Latency
from draem.deployment.export import Export
from draem.inspection.described import doubtful, header_rows, printable
from draem.modelfile import Header
from draem.tables.console import right_aligned


def header_table(header: Header) -> Table:
    """A model's header for the eye; what is to be wondered at is yellow."""
    table = Table(show_header=False)
    for name, value in header_rows(header).items():
        table.add_row(name, escape(printable(value)), style="yellow" if name in doubtful(header) else None)
    return table


def export_table(made: Export) -> Table:
    """How close an export's answers are: differences beside what is allowed, metrics before and after."""
    certificate = made.certificate
    table = Table("", *right_aligned("model", "export", "difference", "allowed"))
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
