"""Tables of the accuracy bench: recipes by set, over all sets, and what leaving one set out would have chosen."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from draem.errors import DataError
from draem.figures import COLOURS, blank_figure, drawn
from draem.plots import MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = Mapping[str, Any]
"""One run's result.json."""
ACCURACY = {
    "image_auroc": "image\nAUROC",
    "image_ap": "image\nAP",
    "image_f1_max": "image\nF1-max",
    "pixel_auroc": "pixel\nAUROC",
    "pixel_ap": "pixel\nAP",
    "pixel_f1_max": "pixel\nF1-max",
    "pixel_aupro": "AUPRO",
    "val_pixel_ap": "simulated\npixel AP",
}
_COST = ("images_seen", "training_flop", "seconds")
_KEPT = ("set", "recipe", "seed", "metrics", "validation", "data_fingerprint", *_COST)
_CHOSEN_BY = "pixel_ap"
_PLOTTED = {"pixel_ap": "pixel AP", "image_auroc": "image AUROC"}


class Spread(NamedTuple):
    """Mean and sample standard deviation of the values that are known; of a single one there is no deviation."""

    mean: float
    std: float | None
    seeds: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """None where no value is known."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


class Choice(NamedTuple):
    """A set left out: a recipe chosen without looking at its test images, and what it gets there."""

    left_out: str
    by_others: str
    """The highest mean of pixel AP on the other sets."""
    by_simulated: str | None
    """The highest pixel AP on this set's simulated defects."""
    best: str
    """The highest pixel AP on the very test images: no honest choice."""


def read_result(path: Path) -> Result:
    """One run's result.json.

    Raises:
        DataError: it is damaged.
    """
    try:
        found: Result = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in _KEPT if key not in found]
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it, and the run is evaluated again") from None
    if missing:
        raise DataError(f"{path}: has no {missing[0]}; remove it, and the run is evaluated again")
    return found


def read_results(
    out: Path, recipes: Sequence[str] | None = None, sets: Sequence[str] = (), only: Sequence[str] = ()
) -> list[Result]:
    """The finished runs below a folder, of some recipes and sets or of all; by set, recipe and seed.

    Raises:
        DataError: there are none, one is damaged, or those of one set were not trained on the same images.
    """
    found = [read_result(path) for path in out.glob("*/*/seed-*/result.json")]
    chosen = [
        one
        for one in found
        if (recipes is None or one["recipe"] in recipes)
        and (not sets or one["set"] in sets)
        and (not only or any(fnmatchcase(one["recipe"], pattern) for pattern in only))
    ]
    if not chosen:
        raise DataError(f"{out}: no finished run of these recipes and sets")
    for name, runs in _grouped(chosen, "set").items():
        if len({run["data_fingerprint"] for run in runs}) > 1:
            raise DataError(f"{out / name}: its runs saw different images; use another --out for the other data")
    order = {name: place for place, name in enumerate(recipes or [])}
    return sorted(chosen, key=lambda one: (one["set"], order.get(one["recipe"], 0), one["recipe"], one["seed"]))


def value(result: Result, key: str) -> float | None:
    """An accuracy or a cost of a run; none where it is not known."""
    if key in _COST:
        return float(result[key])
    known: float | None = result["validation" if key.startswith("val_") else "metrics"].get(key)
    return known


def over_sets(results: Sequence[Result]) -> list[Result]:
    """For each recipe and seed that has every set, its mean over the sets, as if this were a run."""
    sets = _grouped(results, "set")
    means: list[Result] = []
    for recipe, runs in _grouped(results, "recipe").items():
        for seed, parts in _grouped(runs, "seed").items():
            if len(parts) == len(sets):
                mean = {key: _mean([value(part, key) for part in parts]) for key in (*ACCURACY, *_COST)}
                means.append({"recipe": recipe, "seed": seed, "metrics": mean, "validation": mean, **mean})
    return means


def leave_one_out(results: Sequence[Result]) -> list[Choice]:
    """For each of several sets, what the other sets would have chosen among the recipes that have all sets."""
    sets = list(_grouped(results, "set"))
    real, simulated = _means(results, _CHOSEN_BY), _means(results, "val_pixel_ap")
    recipes = [recipe for recipe, known in real.items() if len(known) == len(sets)]
    if len(sets) < 2 or not recipes:
        return []
    choices = []
    for here in sets:
        others = {recipe: statistics.fmean(real[recipe][name] for name in sets if name != here) for recipe in recipes}
        drawn = {recipe: simulated[recipe][here] for recipe in recipes if here in simulated[recipe]}
        seen = {recipe: real[recipe][here] for recipe in recipes}
        by_drawn = max(drawn, key=drawn.__getitem__) if drawn else None
        choices.append(Choice(here, max(others, key=others.__getitem__), by_drawn, max(seen, key=seen.__getitem__)))
    return choices


def _means(results: Sequence[Result], key: str) -> dict[str, dict[str, float]]:
    """By recipe and set, over the seeds; what is not known is left out."""
    means: dict[str, dict[str, float]] = {}
    for recipe, runs in _grouped(results, "recipe").items():
        spreads = {name: Spread.of(value(run, key) for run in part) for name, part in _grouped(runs, "set").items()}
        means[recipe] = {name: found.mean for name, found in spreads.items() if found is not None}
    return means


def tables(results: Sequence[Result]) -> list[Table]:
    """A table for each set; of several sets, their mean, and the choices when one is left out."""
    sets = _grouped(results, "set")
    made = [_recipes_table(name, runs) for name, runs in sets.items()]
    if len(sets) > 1:
        made.append(_recipes_table(f"mean of {len(sets)} sets, of seeds that have all", over_sets(results)))
        made.append(_choices_table(results))
    return made


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """What the tables say, and every run, ready for JSON."""
    return {
        "sets": {name: _summaries(runs) for name, runs in _grouped(results, "set").items()},
        "mean": _summaries(over_sets(results)),
        "leave_one_out": [choice._asdict() for choice in leave_one_out(results)],
        "runs": list(results),
    }


def _summaries(runs: Sequence[Result]) -> dict[str, Any]:
    keys = (*ACCURACY, *_COST)
    return {
        recipe: {key: found._asdict() for key in keys if (found := Spread.of(value(run, key) for run in part))}
        for recipe, part in _grouped(runs, "recipe").items()
    }


def _recipes_table(title: str, runs: Sequence[Result]) -> Table:
    """Accuracies in per cent."""
    table = Table("recipe", title=f"{title}, per cent, mean ± std over seeds", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("seeds", *ACCURACY.values(), "images", "training\nPFLOP", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for recipe, part in _grouped(runs, "recipe").items():
        cells = [percent(Spread.of(value(run, key) for run in part)) for key in ACCURACY]
        images, flop, seconds = (statistics.fmean(run[key] for run in part) for key in _COST)
        table.add_row(recipe, str(len(part)), *cells, f"{images:.0f}", f"{flop / 1e15:.3g}", f"{seconds / 60:.1f}")
    return table


def _choices_table(results: Sequence[Result]) -> Table:
    """Pixel AP of each choice on the set that was left out, and the mean over the sets."""
    table = Table("set", title="leave one set out: pixel AP, per cent", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("chosen by the other sets", "by its simulated defects", "by its test images (not honest)"):
        table.add_column(heading)
        table.add_column("gets", justify="right")
    runs = _grouped(results, "set")
    columns: list[list[float | None]] = [[], [], []]
    for choice in leave_one_out(results):
        row = []
        for column, recipe in zip(columns, choice[1:], strict=True):
            found = Spread.of(value(run, _CHOSEN_BY) for run in runs[choice.left_out] if run["recipe"] == recipe)
            column.append(found.mean if found else None)
            row += [recipe or "–", percent(found)]
        table.add_row(choice.left_out, *row)
    means = (_mean(column) if column else None for column in columns)
    table.add_row("mean", *(cell for mean in means for cell in ("", percent(Spread.of([mean])))), style="bold")
    return table


def percent(found: Spread | None) -> str:
    """``97.1±0.4``."""
    if found is None:
        return "–"
    return f"{100 * found.mean:.1f}" + ("" if found.std is None else f"±{100 * found.std:.1f}")


def cost_plot(results: Sequence[Result], latency: Mapping[str, float] | None = None) -> NDArray[np.uint8]:
    """Pixel AP and image AUROC, means over the sets, against the FLOP of training, and the latency where it is known.

    `latency` is by recipe, in milliseconds.

    Raises:
        DataError: no recipe has all sets.
        MissingExtraError: matplotlib is not installed.
    """
    means = _grouped(over_sets(results), "recipe")
    if not means:
        raise DataError("plot: no recipe has a seed that is finished on every set")
    columns: list[tuple[str, Mapping[str, float]]] = [
        ("training, PFLOP", {one: _cost(runs, "training_flop") / 1e15 for one, runs in means.items()}),
    ]
    if latency:
        columns.append(("latency of one image, ms", {one: latency[one] for one in means if one in latency}))
    figure = blank_figure(4.4 * len(columns), 3.6 * len(_PLOTTED))
    grid = figure.subplots(len(_PLOTTED), len(columns), sharex="col", sharey="row", squeeze=False)
    for row, (key, label) in zip(grid, _PLOTTED.items(), strict=True):
        for axes, (_, across) in zip(row, columns, strict=True):
            _points(axes, means, key, across)
        row[0].set_ylabel(label)
    for axes, (label, across) in zip(grid[-1], columns, strict=True):
        axes.set_xlabel(label)
        _scale(axes, list(across.values()))
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    sets = ", ".join(_grouped(results, "set"))
    figure.suptitle(f"mean of the sets, ± std over seeds; sets: {sets}", fontsize="medium")
    return drawn(figure)


def _cost(runs: Sequence[Result], key: str) -> float:
    return statistics.fmean(run[key] for run in runs)


def _points(axes: Axes, means: Mapping[str, Sequence[Result]], key: str, across: Mapping[str, float]) -> None:
    """Each recipe at its place of `across`, if it has one."""
    for place, (recipe, runs) in enumerate(means.items()):
        y = Spread.of(value(run, key) for run in runs)
        if recipe in across and y:
            colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place // len(COLOURS) % len(MARKERS)]
            look: dict[str, Any] = {"color": colour, "marker": marker, "capsize": 3, "linestyle": ""}
            axes.errorbar(across[recipe], y.mean, y.std, label=recipe, **look)
    axes.grid(color="#e4e4e4")


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis around the values, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    if values:
        axes.set_xlim(min(values) / 2, max(values) * 2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _mean(values: Sequence[float | None]) -> float | None:
    """None where any is not known: it would be another mean."""
    known = [one for one in values if one is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _grouped(results: Iterable[Result], key: str) -> dict[Any, list[Result]]:
    """By the value of a key, in the order of their first."""
    groups: dict[Any, list[Result]] = {}
    for one in results:
        groups.setdefault(one[key], []).append(one)
    return groups
