"""Thresholds: calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from draem.cli.options import (
    BackendOption,
    BatchSize,
    Category,
    Data,
    DeviceOption,
    Json,
    LayoutName,
    Model,
    PrecisionOption,
    ProfileOption,
    StreamsOption,
    ThreadsOption,
    execution,
    known_layout,
)
from draem.cli.speaking import finish, message, needing

if TYPE_CHECKING:
    from draem.evaluation.calibrate import Rule


FalseReject = Annotated[
    float | None, typer.Option("--false-reject", metavar="SHARE", help="Reject at most this share of good parts.")
]
Review = Annotated[
    float | None, typer.Option("--review", metavar="SHARE", help="Reject or review at most this share of them.")
]
Escape = Annotated[
    float | None, typer.Option("--escape", metavar="SHARE", help="Accept at most this share of such defects.")
]
PromiseKind = Annotated[
    str | None,
    typer.Option("--promise", help="confidence (it holds so surely; unless told), average (of many calibrations)."),
]
Confidence = Annotated[
    float | None, typer.Option("--confidence", metavar="SHARE", help="Of that promise; 0.95 unless told.")
]
F1 = Annotated[bool, typer.Option("--f1", help="Highest F1 on labelled images, without a promise.")]
EscapeCost = Annotated[
    float | None, typer.Option("--escape-cost", metavar="COST", help="Least cost: an accepted defect's.")
]
RejectCost = Annotated[
    float | None,
    typer.Option("--reject-cost", metavar="COST", help="A rejected good part's, in the same unit; 1 unless told."),
]
ReviewCost = Annotated[
    float | None, typer.Option("--review-cost", metavar="COST", help="A part's that a person looks at.")
]
DefectRate = Annotated[float | None, typer.Option("--defect-rate", metavar="SHARE", help="Of all parts on the line.")]
Folds = Annotated[
    int | None, typer.Option("--folds", help="Few good images: estimate by so many trainings of the recipe.")
]
_UNLESS_TOLD = ("auto", "auto", "fp32", None, 1, 8, "auto")
"""Backend, device, precision, threads, streams, batch size, layout: folds run as their trainings do."""
Runs = Annotated[Path | None, typer.Option("--runs", metavar="DIR", help="Where these trainings lie.")]


def calibrate(
    model: Model,
    data: Data,
    false_reject: FalseReject = None,
    review: Review = None,
    escape: Escape = None,
    promise: PromiseKind = None,
    confidence: Confidence = None,
    f1: F1 = False,
    escape_cost: EscapeCost = None,
    reject_cost: RejectCost = None,
    review_cost: ReviewCost = None,
    defect_rate: DefectRate = None,
    folds: Folds = None,
    runs: Runs = None,
    profile: ProfileOption = None,
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
    """Choose thresholds on images that the model has not seen, with what they promise, and write them into it."""
    from draem.evaluation.calibrate import calibrate as choose
    from draem.tables.console import counted, show
    from draem.tables.scores import calibration_table

    costs = (escape_cost, reject_cost, review_cost, defect_rate)
    if folds is not None:
        ran = (backend, device, precision, threads, streams, batch_size, layout)
        told = [one for one, usual in zip(ran, _UNLESS_TOLD, strict=True) if one != usual]
        _refuse("--folds", promise, confidence, escape, *costs, f1 or None, *told)
        _by_folds(model, data, folds, runs, false_reject, review, profile, category, as_json)
        return
    rule = _rule(false_reject, review, escape, promise, confidence, f1, costs)
    known = known_layout(layout)
    chosen = execution(backend, device, precision, threads, streams)
    with counted("calibrate") as progress:
        found = choose(
            model,
            data,
            rule,
            profile=profile,
            defect_rate=defect_rate,
            layout=known,
            category=category,
            execution=chosen,
            batch_size=batch_size,
            progress=progress,
        )
    for line in found.notes:
        message(line)
    show(calibration_table(found))
    for line in found.in_words():
        typer.echo(line)
    finish(as_json, found.to_dict())


def _rule(
    false_reject: float | None,
    review: float | None,
    escape: float | None,
    promise: str | None,
    confidence: float | None,
    f1: bool,
    costs: tuple[float | None, float | None, float | None, float | None],
) -> Rule:
    """What the options say; `costs`: of an escape, a false reject, a review, and the defect rate."""
    from draem.errors import ConfigError
    from draem.evaluation.calibrate import Rule
    from draem.evaluation.operating import Costs
    from draem.inspection.calibration import ON_AVERAGE, Assurance

    if promise not in (None, "confidence", "average"):
        raise ConfigError(f"--promise {promise}: confidence or average")
    if promise == "average":
        _refuse("--promise average", confidence)
    if f1:
        _refuse("--f1", promise, confidence)
    escape_cost, reject_cost, review_cost, defect_rate = costs
    least = None
    if escape_cost is None:
        if (reject_cost, review_cost) != (None, None):
            raise ConfigError("--reject-cost and --review-cost go with --escape-cost, which is not given")
    elif defect_rate is None:
        raise ConfigError("--escape-cost needs --defect-rate: how many of all parts are anomalous, such as 0.01")
    else:
        _refuse("--escape-cost", promise, confidence)
        least = Costs(escape_cost, 1.0 if reject_cost is None else reject_cost, defect_rate, review_cost)
    if false_reject is None and escape is None and not f1 and least is None:
        false_reject = 0.01
    assurance = ON_AVERAGE if promise == "average" else Assurance(0.95 if confidence is None else confidence)
    return Rule(false_reject, review, escape, f1, least, assurance)


def _refuse(option: str, *others: object) -> None:
    """What an option leaves no room for is not to be ignored."""
    from draem.errors import ConfigError

    if any(other is not None for other in others):
        raise ConfigError(f"{option}: leave out the options that it has no use for (draem calibrate --help)")


def _by_folds(
    model: Path,
    data: Path,
    folds: int,
    runs: Path | None,
    false_reject: float | None,
    review: float | None,
    profile: str | None,
    category: str | None,
    as_json: bool,
) -> None:
    from draem.errors import ConfigError

    if runs is None:
        raise ConfigError("--folds needs --runs DIR, where its trainings lie")
    with needing("train"):
        from draem.training.folds import fold_thresholds
    rate = 0.01 if false_reject is None else false_reject
    found, _ = fold_thresholds(model, data, runs, folds, rate, review=review, profile=profile, category=category)
    typer.echo(f"reject above {found.reject:.6g}")
    if found.review is not None:
        typer.echo(f"review above {found.review:.6g}")
    typer.echo(f"chosen on {found.chosen_on}")
    finish(as_json, {"thresholds": found.model_dump(mode="json")})
