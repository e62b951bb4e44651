"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from draem.errors import DraemError

_TEMPORARY = re.compile(r"[0-9a-f]{12}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, for writers that need one; renamed to `path` when the block ends well.

    Missing parent folders are made. The temporary name keeps the suffix (`model.onnx`, `.model-1f2e.onnx`), since some
    writers choose the format by it. If the block raises, the temporary file goes and `path` stays as it was.

    Raises:
        DraemError: the folder cannot be made, or the file cannot be written or renamed.
    """
    path = Path(path)
    if not path.name:
        raise DraemError(f"{path}: cannot be written: it is a folder")
    temporary = path.with_name(f".{path.stem[:100]}-{uuid4().hex[:12]}{path.suffix}")
    try:
        if path.exists() and not path.is_file():
            # Renaming over a device would put a plain file in its place.
            raise DraemError(f"{path}: cannot be written: it is a {'folder' if path.is_dir() else 'device'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise DraemError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a power cut, sees the old file or the new one, never a part.

    Missing parent folders are made.

    Raises:
        DraemError: the folder cannot be made, or the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def move_together(files: Mapping[Path, Path], kept: Path) -> None:
    """Rename finished files into their places, all of them or none; missing parent folders are made.

    Args:
        files: where each one lies, and its place, on the same disk.
        kept: a folder on that disk, for copies of what stands in these places: they come back if one cannot be taken.

    Raises:
        DraemError: a file cannot be renamed.
    """
    before = {place: kept / f"{index}.before" for index, place in enumerate(files.values())}
    moved: list[Path] = []
    try:
        for source, place in files.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                shutil.copy2(place, before[place])
            moved.append(place)
            source.replace(place)
        _sync_folder(place.parent)
    except BaseException as error:
        for place in reversed(moved):
            with suppress(OSError):
                before[place].replace(place) if before[place].exists() else place.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise DraemError(f"{place}: cannot be written: {error.strerror or error}") from error
        raise


def remove_unfinished(path: Path) -> None:
    """Remove what killed writers left beside `path`; only where no other process is writing it."""
    with suppress(OSError):
        for left in path.parent.glob(f".{glob.escape(path.stem[:100])}-*{path.suffix}"):
            if _TEMPORARY.fullmatch(left.stem.removeprefix(f".{path.stem[:100]}-")):
                left.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last; not every system lets a folder be opened, and none needs it to be right."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
