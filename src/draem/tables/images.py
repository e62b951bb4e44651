"""Tables of images: what the doctor found, which defects are covered."""

from __future__ import annotations

import math
from collections import Counter

from rich.markup import escape
from rich.table import Table

from draem.data.doctor.findings import Report
from draem.inspection.described import printable
from draem.simulation.coverage import Coverage
from draem.tables.console import right_aligned


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


def coverage_tables(coverage: Coverage, title: str, most: int = 20) -> list[Table]:
    """Real defects among simulated ones: by type, by feature; the reasons, and the `most` that are farthest outside."""
    kinds = Table("defect", *right_aligned("defects", "covered"), "why not", title=escape(title), title_justify="left")
    for kind, (count, share) in coverage.by_kind().items():
        kinds.add_row(escape(kind), str(count), _percent(share), _reasons(coverage, kind))
    kinds.add_row("all", str(len(coverage.real)), _percent(coverage.share), "", style="bold")
    features = Table("feature", *right_aligned("99 % of the simulated", "real ones below", "above"))
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
