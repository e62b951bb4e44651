"""Inspect files and keep the results: results.jsonl, overlays, 16-bit maps."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from draem.data.layouts.files import Listing
from draem.errors import DataError, ImageError
from draem.files import atomic_path
from draem.images import IMAGE_SUFFIXES, write_image, write_map
from draem.inspection.detector import Detector, Source
from draem.inspection.prediction import Prediction

_OVERLAYS, _MAPS = "overlays", "maps"
_WRITERS = 2
"""Threads that write pictures."""


@dataclass(frozen=True)
class Summary:
    """What came of a number of files."""

    out: Path
    images: int
    verdicts: dict[str, int]
    unreadable: list[str]
    median_milliseconds: float
    unplaced: int
    """Images on which registration did not find the part: inspected as they lie."""
    older_pictures: int
    """Of earlier runs into the same folder: they stay, though no row of results.jsonl names them."""

    def in_words(self) -> str:
        """One line for the person at the console."""
        counts = ", ".join(f"{number} {name}" for name, number in sorted(self.verdicts.items()))
        return f"{self.images} images: {counts or 'none'} | {self.median_milliseconds:.0f} ms each | {self.out}"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**vars(self), "out": str(self.out), "results": str(self.out / "results.jsonl")}


def find_images(patterns: Sequence[str], out: Path | None = None) -> list[Path]:
    """Files named by paths, folders (searched to any depth) and globs, each once, in order.

    Pictures that an earlier run has written below `out` are passed over.

    Raises:
        DataError: one of them names nothing.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_file():
            matches = [path]
        elif path.is_dir():
            matches = Listing().images(path)
        else:
            matches = _files(sorted(Path(name) for name in glob.glob(pattern, recursive=True)))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        if out is not None:
            matches = [match for match in matches if not _written(match, out)]
        if not matches:
            if path.is_dir():
                raise DataError(f"{pattern}: no images in it (looked for {', '.join(IMAGE_SUFFIXES)})")
            raise DataError(f"{pattern}: no such image, folder of images or pattern")
        for match in matches:
            found.setdefault(_absolute(match), match)
    return list(found.values())


def predict_files(
    detector: Detector, paths: Sequence[Path], out: Path, batch_size: int, progress: Callable[[int, int], None]
) -> Summary:
    """Inspect files; results.jsonl appears when all are done, a file that cannot be read has a row with its error.

    Raises:
        DraemError: the folder cannot be written.
    """
    unreadable: list[str] = []
    rows: list[dict[str, Any]] = []
    names = _names(paths)

    def note(source: Source, error: ImageError) -> None:
        unreadable.append(str(error))
        rows.append({"path": str(source), "error": str(error)})

    def keep(prediction: Prediction) -> dict[str, Any]:
        return _keep(prediction, out, names[prediction.path or Path()])

    for row in _beside(keep, detector.stream(paths, batch_size, on_unreadable=note)):
        rows.append(row)
        progress(len(rows), len(paths))
    order = {str(path): index for index, path in enumerate(paths)}
    rows.sort(key=lambda row: order[row["path"]])
    with atomic_path(out / "results.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")
    times = sorted(row["milliseconds"] for row in rows if "milliseconds" in row)
    verdicts = Counter(row["verdict"] or "without verdict" for row in rows if "error" not in row)
    median = times[len(times) // 2] if times else 0.0
    unplaced = sum(row.get("placement") is not None and not row["placement"]["found"] for row in rows)
    return Summary(out, len(times), dict(verdicts), unreadable, median, unplaced, _older_pictures(out, rows))


def _keep(prediction: Prediction, out: Path, name: str) -> dict[str, Any]:
    """Write the pictures of an image; returns its row."""
    overlay, anomaly_map = out / _OVERLAYS / f"{name}.png", out / _MAPS / f"{name}.png"
    write_image(overlay, prediction.overlay())
    write_map(anomaly_map, prediction.anomaly_map)
    return {**prediction.to_dict(), "overlay": str(overlay), "anomaly_map": str(anomaly_map)}


def _older_pictures(out: Path, rows: Sequence[dict[str, Any]]) -> int:
    """How many pictures there are that no row names."""
    named = {row[key] for row in rows for key in ("overlay", "anomaly_map") if key in row}
    there = (path for folder in (_OVERLAYS, _MAPS) for path in (out / folder).rglob("*.png"))
    return sum(str(path) not in named for path in there)


def _beside(work: Callable[[Prediction], dict[str, Any]], found: Generator[Prediction]) -> Iterator[dict[str, Any]]:
    """`work` on each, in order, some at once in other threads; no more of them wait than are worked on."""
    waiting: deque[Future[dict[str, Any]]] = deque()
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="draem-write") as pool, closing(found):
        for prediction in found:
            waiting.append(pool.submit(work, prediction))
            if len(waiting) > 2 * _WRITERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _files(matches: Sequence[Path]) -> list[Path]:
    """Folders among the matches of a glob stand for their images."""
    files: list[Path] = []
    for match in matches:
        if match.is_dir():
            files += Listing().images(match)
        elif match.suffix.lower() in IMAGE_SUFFIXES:
            files.append(match)
    return files


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each file's pictures: its path below the folder all share, with suffixes where two would meet."""
    resolved = {path: _absolute(path) for path in paths}
    shared = _shared_folder(list(resolved.values()))
    plain = {path: whole.relative_to(shared).with_suffix("").as_posix() for path, whole in resolved.items()}
    # Without regard to case, as some file systems look at names.
    counts = Counter(name.casefold() for name in plain.values())
    if max(counts.values()) == 1:
        return plain
    return {path: whole.relative_to(shared).as_posix() for path, whole in resolved.items()}


def _written(path: Path, out: Path) -> bool:
    """Whether a file lies where `predict_files` puts its pictures: it would inspect them, or write over its input."""
    return any(_absolute(path).is_relative_to(_absolute(out / folder)) for folder in (_OVERLAYS, _MAPS))


def _absolute(path: Path) -> Path:
    """Without `..`, and with links as they are named: two links to one file keep two names."""
    return Path(os.path.normpath(path.absolute()))


def _shared_folder(paths: Sequence[Path]) -> Path:
    """The deepest folder that holds all.

    Raises:
        DataError: there is none, as with files on two drives.
    """
    try:
        return Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:
        raise DataError("the images lie on several drives; inspect those of each drive on their own") from None
