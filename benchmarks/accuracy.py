"""Recipes × data sets × seeds: train what is missing, and one table of accuracy and cost. See docs/recipes.md.

    python benchmarks/accuracy.py recipes.yaml --data SET… [--seeds 1 2 3] [--only NAME…] [--jobs 2] [--minutes 60]
    python benchmarks/accuracy.py --table [--out runs/accuracy] [--data SET…] [--only NAME…] [--plot FILE.png]

A SET is a data set with labelled test images, or the name of a surface that is rendered. Each run lies in
OUT/SET/RECIPE/seed-N, with its log beside it. What is finished is taken as it is, what was stopped goes on: the same
command may be stopped and given again at any time.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import recipes
from accuracy_table import cost_plot, read_result, read_results, summary, tables
from distill import find_set
from recipes import Run, read_recipes
from record import write_result

import draem
from draem.data.layouts import read_layout
from draem.errors import ConfigError, DataError, DraemError
from draem.evaluation.evaluate import samples_to_test
from draem.images import WRITTEN_SUFFIXES, write_image
from draem.settings import read_yaml
from draem.tables.console import show

_LOOK = 0.2
"""Seconds between two looks at the runs under way."""


def _testable(data: Path) -> Path:
    """The set itself; DataError before any training where it could not be evaluated."""
    if all(sample.label == "good" for sample in samples_to_test(read_layout(data))):
        raise DataError(f"{data}: has no anomalous images to test with; give a set with labelled test images")
    return data


def plan(given: Iterable[recipes.Recipe], sets: Sequence[Path], seeds: Sequence[int], out: Path) -> list[Run]:
    """Every run, seeds outermost: every recipe has its first seed before any has its second.

    Raises:
        ConfigError: two sets share a name, or a recipe is not any more what a run in its folder began with.
        DataError: a set has not the images any more that a finished run saw.
    """
    names = [data.name for data in sets]
    if len(set(names)) < len(names):
        raise ConfigError(f"--data: two sets are called {max(names, key=names.count)}: results are kept by this name")
    given = list(given)
    runs = [Run(recipe, data, seed, out) for seed in seeds for data in sets for recipe in given]
    for run in runs:
        run.refuse_changed()
        run.refuse_other_images()
    return runs


def carry_out(runs: Sequence[Run], jobs: int, minutes: float = math.inf) -> list[str]:
    """Carry out what is missing, `jobs` at once, until all is done or the time is over; returns what failed.

    Runs under way are stopped with a checkpoint when the time is over or at Ctrl-C. Those that another process is at
    are passed over.
    """
    waiting = [run for run in runs if not run.result.exists()]
    under_way: dict[str, tuple[Run, subprocess.Popen[bytes]]] = {}
    failed: list[str] = []
    deadline = time.monotonic() + 60 * minutes
    _say(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished")
    try:
        while (waiting or under_way) and time.monotonic() < deadline:
            while waiting and len(under_way) < jobs:
                run = waiting.pop(0)
                if run.result.exists():
                    continue
                process = _start(run, jobs)
                _say(f"{run.name}: {'another process is at it' if process is None else 'begins'}")
                if process is not None:
                    under_way[run.name] = run, process
            time.sleep(_LOOK)
            for name, (run, process) in list(under_way.items()):
                if process.poll() is not None:
                    del under_way[name]
                    failed += _told(run)
    finally:
        _stop([process for _, process in under_way.values()])
    return failed


def _start(run: Run, jobs: int) -> subprocess.Popen[bytes] | None:
    """The run in a process of its own, which Ctrl-C reaches only through us; none where another bench is at it."""
    threads = max(len(os.sched_getaffinity(0)) // jobs, 1)
    told = {"recipe": asdict(run.recipe), "data": run.data, "seed": run.seed, "out": run.out}
    source = Path(draem.__file__).parents[1]
    paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, recipes.__file__, json.dumps({**told, "threads": threads, "jobs": jobs}, default=str)]
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with run.log.open("ab") as log:
        try:
            # Kept by the process as long as it lives, since it inherits the open file.
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


def _told(run: Run) -> list[str]:
    """Say how a run ended; what failed is returned."""
    if run.result.exists():
        found = read_result(run.result)
        known = {key: found["metrics"][key] for key in ("pixel_ap", "image_auroc")}
        figures = [
            f"{key.replace('_', ' ')} {'–' if value is None else f'{value:.3f}'}" for key, value in known.items()
        ]
        _say(f"{run.name}: {', '.join(figures)}, {found['seconds'] / 60:.1f} min")
        return []
    lines = run.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    _say(f"{run.name}: failed: {lines[-1] if lines else 'it said nothing'} ({run.log})")
    return [run.name]


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End runs with a checkpoint; at a second Ctrl-C, at once."""
    for process in processes:
        process.terminate()
    if processes:
        _say(f"stopping {len(processes)} runs after their step; the same command goes on with them")
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(options: argparse.Namespace, names: Sequence[str] | None, sets: Sequence[str]) -> None:
    """Print the tables of what is finished, keep them, draw the plot."""
    results = read_results(options.out, names, sets, options.only)
    for table in tables(results):
        show(table)
    print(write_result("accuracy", summary(results), options.result or options.out / "accuracy.json"))
    if options.plot:
        write_image(options.plot, cost_plot(results, options.latency))
        print(options.plot)


def _latency(text: str) -> dict[str, float]:
    """Milliseconds by recipe, from a file."""
    try:
        found = read_yaml(Path(text))
    except DraemError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    for recipe, value in found.items():
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text}: {recipe}: milliseconds are a number above 0, not {value!r}")
    return found


def _picture(text: str) -> Path:
    """A file for the plot."""
    if Path(text).suffix.lower() not in WRITTEN_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text}: a picture is written as {', '.join(WRITTEN_SUFFIXES)}")
    return Path(text)


def _minutes(text: str) -> float:
    """A time above 0."""
    if not float(text) > 0:
        raise argparse.ArgumentTypeError(f"{text}: minutes above 0 are needed")
    return float(text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", type=Path, nargs="?", metavar="RECIPES.yaml")
    parser.add_argument("--data", nargs="+", default=[], metavar="SET")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="recipes, patterns allowed")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once; they share the cores")
    parser.add_argument("--minutes", type=_minutes, default=math.inf, help="stop after this time, to go on later")
    parser.add_argument("--table", action="store_true", help="of what is finished, without training")
    parser.add_argument("--result", type=Path, metavar="FILE.json", help="the table; else OUT/accuracy.json")
    parser.add_argument("--plot", type=_picture, metavar="FILE.png")
    parser.add_argument("--latency", type=_latency, metavar="FILE.json", help="of the plot: milliseconds by recipe")
    options = parser.parse_args(arguments)
    if not options.table and not (options.recipes and options.data):
        parser.error("training needs RECIPES.yaml and --data")
    if options.latency and not options.plot:
        parser.error("--latency is drawn by --plot FILE.png")
    if options.jobs < 1:
        parser.error("--jobs: 1 or more")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, print, keep."""
    options = parse(arguments)
    runs: list[Run] = []
    failed: list[str] = []
    try:
        chosen = read_recipes(options.recipes, options.only) if options.recipes else None
        names = None if chosen is None else [recipe.name for recipe in chosen]
        if not options.table:
            sets = [_testable(find_set(name, options.out).resolve()) for name in options.data]
            runs = plan(chosen or [], sets, options.seeds, options.out)
            failed = carry_out(runs, options.jobs, options.minutes)
        if options.table or any(run.result.exists() for run in runs):
            report(options, names, [Path(name).resolve().name for name in options.data])
    except (DraemError, OSError) as error:
        sys.exit(f"accuracy: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    if failed:
        sys.exit(f"accuracy: failed: {', '.join(failed)}")


if __name__ == "__main__":
    # A shell's background commands ignore Ctrl-C, and ours is to be had by `kill` too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    main()
