"""What a run shows and keeps."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from draem.errors import TrainingError
from draem.training.progress import COLUMNS, RunLog

LOSSES = {"loss": 1.5, "ssim": 1.0, "l2": 0.25, "focal": 0.25, "learning_rate": 1e-3, "images_per_second": 8.0}


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def write(out: Path, first: int, last: int) -> None:
    """The rows of the steps from `first` to `last`, each with other numbers."""
    with RunLog(out, active=True, console=quiet()) as log:
        log.start(first - 1, 4 * (first - 1), 400)
        for step in range(first, last + 1):
            log.advance(4)
            validation = {"val_pixel_ap": 1 / (step + 1), "val_loss": None} if step % 2 else {}
            log.row({"step": step, "images": 4 * step, **LOSSES, "loss": 1 / step, **validation})


def scalars(out: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(out / "tensorboard"))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_rows_read_back(tmp_path: Path) -> None:
    write(tmp_path, 1, 3)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["step"], row["images"]) for row in rows] == [("1", "4"), ("2", "8"), ("3", "12")]
    assert float(rows[2]["loss"]) == pytest.approx(1 / 3, rel=1e-8)
    assert [row["val_pixel_ap"] for row in rows] == ["0.5", "", "0.25"]
    assert {row["val_loss"] for row in rows} == {""}


def test_resumed_history_is_that_of_an_unbroken_run(tmp_path: Path) -> None:
    """Rows after the step that the run goes on from are dropped, in metrics.csv and in TensorBoard."""
    write(tmp_path / "unbroken", 1, 9)
    write(tmp_path / "broken", 1, 7)
    write(tmp_path / "broken", 4, 9)
    files = [(tmp_path / run / "metrics.csv").read_text() for run in ("unbroken", "broken")]
    assert files[0] == files[1]
    for tag in ("training/loss", "validation/pixel_ap"):
        assert scalars(tmp_path / "unbroken", tag) == scalars(tmp_path / "broken", tag)


def test_begun_anew_the_history_is_empty(tmp_path: Path) -> None:
    write(tmp_path, 1, 5)
    write(tmp_path, 1, 2)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", [1, 3, 20])
def test_a_row_cut_short_is_dropped(tmp_path: Path, cut: int) -> None:
    """Step 10 cut within its digits would read as step 1."""
    write(tmp_path, 1, 9)
    path = tmp_path / "metrics.csv"
    whole = path.read_bytes()
    path.write_bytes(whole + b"10,40,0.123456789,0.1"[:cut])
    with RunLog(tmp_path, active=True, console=quiet()) as log:
        log.start(9, 36, 40)
    assert path.read_bytes() == whole


def test_tensorboard_holds_scalars_and_pictures(tmp_path: Path) -> None:
    with RunLog(tmp_path, active=True, console=quiet()) as log:
        log.start(0, 0, 40)
        log.row({"step": 7, "images": 28, **LOSSES, "val_image_auroc": 0.75, "val_pixel_ap": None})
        log.picture(7, "validation", np.zeros((5, 6, 3), np.uint8))
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    tags = accumulator.Tags()
    assert set(tags["scalars"]) == {f"training/{name}" for name in LOSSES} | {"validation/image_auroc"}
    (picture,) = accumulator.Images("validation")
    assert (picture.step, picture.height, picture.width) == (7, 5, 6)


def test_any_but_the_first_process_writes_and_says_nothing(tmp_path: Path) -> None:
    console = quiet()
    with RunLog(tmp_path, active=False, console=console) as log:
        log.start(0, 0, 10)
        log.message("hello")
        log.advance(5)
        log.row({"step": 1, "images": 5, **LOSSES})
        log.picture(1, "validation", np.zeros((5, 6, 3), np.uint8))
    assert not list(tmp_path.iterdir())
    assert written(console) == ""


@pytest.mark.parametrize("text", ["left out: parts [a]/1.png", "left out: [/b]/1.png", "x" * 300])
def test_messages_come_out_as_they_are(tmp_path: Path, text: str) -> None:
    """Brackets are no markup, and long paths stay on one line, for those who read them by machine."""
    console = quiet()
    RunLog(tmp_path, active=True, console=console).message(text)
    assert written(console) == text + "\n"


def test_the_bar_shows_losses_and_speed(tmp_path: Path) -> None:
    console = quiet()
    with RunLog(tmp_path, active=True, console=console) as log:
        log.start(0, 0, 10)
        log.advance(10)
        log.row({"step": 1, "images": 10, **LOSSES})
    shown = written(console)
    assert all(part in shown for part in ("100%", "ssim 1.000", "l2 0.250", "focal 0.250", "8.0 images/s"))


def test_a_history_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with RunLog(tmp_path, active=True, console=quiet()) as log:
        log.start(0, 0, 10)
        log.path.mkdir()
        with pytest.raises(TrainingError, match=r"metrics\.csv: cannot be written"):
            log.row({"step": 1, "images": 10, **LOSSES})
