"""What a run shows and keeps: a progress bar, metrics.csv, TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter

from draem.errors import TrainingError
from draem.files import atomic_write

COLUMNS = (
    "step",
    "images",
    "loss",
    "ssim",
    "l2",
    "focal",
    "taught",
    "learning_rate",
    "images_per_second",
    "val_pixel_ap",
    "val_pixel_auroc",
    "val_image_auroc",
    "val_loss",
)


class RunLog:
    """Writes a run's history; on any but the first process it does nothing.

    Rows after the step that a run resumes from are dropped, so the file reads as that of an unbroken run.
    """

    def __init__(self, out: Path, *, active: bool, console: Console | None = None) -> None:
        self._out = out
        self._active = active
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._board: SummaryWriter | None = None

    @property
    def path(self) -> Path:
        """The history file."""
        return self._out / "metrics.csv"

    def start(self, step: int, images_seen: int, images: int) -> None:
        """Open the files and the bar at `step`, after `images_seen` of `images`."""
        if not self._active:
            return
        self._drop_rows_after(step)
        self._board = SummaryWriter(str(self._out / "tensorboard"), purge_step=step + 1, flush_secs=10)
        self._bar = Progress(
            TextColumn("[bold]train"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self._console,
            speed_estimate_period=120,
        )
        self._bar.add_task("train", total=images, completed=images_seen, losses="", speed="")
        self._bar.start()

    def message(self, text: str) -> None:
        """One line for the person at the console."""
        if self._active:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def counted(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A passing bar, moved by calling with what is done and how much there is."""
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn())
        hidden = not (self._active and self._console.is_terminal)  # in a file it would leave an empty line
        with Progress(*columns, console=self._console, transient=True, disable=hidden) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def advance(self, images: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], images)

    def shorten(self, images: int) -> None:
        """The run will end after so many images."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], total=images)

    def row(self, values: Mapping[str, float | int | None]) -> None:
        """Append to metrics.csv and TensorBoard; what a row does not name stays empty."""
        if not self._active:
            return
        self._append(values)
        step = int(values["step"] or 0)
        if self._board is not None:
            for name, value in values.items():
                if value is not None and name not in ("step", "images"):
                    group = "validation" if name.startswith("val_") else "training"
                    self._board.add_scalar(f"{group}/{name.removeprefix('val_')}", value, step)
        if self._bar is not None and values.get("loss") is not None:
            losses = " ".join(f"{name} {values[name]:.3f}" for name in ("ssim", "l2", "focal"))
            speed = f"{values['images_per_second']:.1f} images/s"
            self._bar.update(self._bar.task_ids[0], losses=losses, speed=speed)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Put an H×W×3 picture into TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Stop the bar and close the files."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._board is not None:
            self._board.close()
            self._board = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, values: Mapping[str, Any]) -> None:
        new = not self.path.exists()
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, restval="")
                if new:
                    writer.writeheader()
                writer.writerow({name: _cell(value) for name, value in values.items()})
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be written ({error.strerror})") from None

    def _drop_rows_after(self, step: int) -> None:
        if not self.path.exists():
            return
        with self.path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit()]
        # A row cut short may end within its step's digits: it lacks columns.
        kept = [row for row in rows if int(row["step"]) <= step and None not in row.values()]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        atomic_write(self.path, text.getvalue().encode())


def _cell(value: float | int | None) -> str | int:
    if value is None:
        return ""
    return value if isinstance(value, int) else f"{value:.9g}"


def duration(seconds: float) -> str:
    """In the unit that people would take: 40 seconds, 12 minutes, 3.5 hours."""
    if seconds < 100:
        return f"{seconds:.0f} seconds" if seconds >= 1.5 else "1 second"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
