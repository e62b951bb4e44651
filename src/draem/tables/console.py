"""What all tables share; counting bars on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table


def show(table: Table) -> None:
    """Print on stdout; a pipe gets a width at which nothing is cut."""
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


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


def right_aligned(*names: str) -> list[Column]:
    """Columns of figures."""
    return [Column(name, justify="right") for name in names]


def figure(value: float | None) -> str:
    """A metric; a dash where it cannot be known."""
    return "–" if value is None else f"{value:.4f}"
