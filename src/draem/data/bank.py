"""Decoded images, once and for all: in RAM or, past a limit, in a memory-mapped temporary file.

Decoding costs more than a training step's pixels do; so every image is read, fitted to the network's input and kept.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.errors import DataError, ImageError
from draem.images import fit_image, read_pixels
from draem.pixels import Pixels

Progress = Callable[[int, int], None]


class ImageBank:
    """Images at the network's input size, with its channels, of uint8 or uint16; made by `ImageBank.load`.

    `paths` are the images kept, in the order given; `skipped` the ones that could not be read, each with the reason.
    A context manager; a temporary file is gone with `close`, with the object, or at the end of the process.
    """

    def __init__(
        self,
        store: Pixels,
        rows: NDArray[np.intp],
        paths: Sequence[Path],
        skipped: Sequence[tuple[Path, str]],
    ) -> None:
        self._store: Pixels | None = store
        self._rows = rows
        self.paths = tuple(paths)
        self.skipped = tuple(skipped)
        self.size: tuple[int, int] = (store.shape[1], store.shape[2])
        """Height and width in pixels."""
        self.in_memory = not isinstance(store, np.memmap)
        """Whether the images are in RAM, not in a temporary file."""

    @classmethod
    def load(
        cls,
        paths: Iterable[Path],
        config: DataConfig,
        cache: Path | None = None,
        progress: Progress | None = None,
        workers: int | None = None,
    ) -> Self:
        """Read images in `workers` threads (default: one for each processor) and fit them to `config.size`.

        Beyond `config.memory_limit_mb` they go to a temporary file in the folder `cache` (default: the system's).
        `progress` is called with the images done and their number.

        Raises:
            ImageError: an image cannot be read, and `config.on_corrupt` is "stop".
            DataError: no images, none of them can be read, or too little disc space.
        """
        kept = list(paths)
        if not kept:
            raise DataError("no images to load")
        wanted = config.pixel_format
        store = _room((len(kept), *config.size, wanted.channels), wanted.dtype, config.memory_limit_mb, cache)
        reasons = _decode_all(kept, store, config, progress, workers or processors())
        good = [row for row, reason in enumerate(reasons) if reason is None]
        skipped = [(path, reason) for path, reason in zip(kept, reasons, strict=True) if reason is not None]
        if not good:
            raise DataError(f"none of {len(kept)} images can be read; the first: {skipped[0][1]}")
        return cls(store, np.asarray(good, np.intp), [kept[row] for row in good], skipped)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: int | slice | Sequence[int] | NDArray[np.integer]) -> Pixels:
        """A new B×H×W×C array of the images at these places in `paths`; one place gives B = 1."""
        if self._store is None:
            raise ValueError("the image bank is closed")
        return np.asarray(self._store[np.atleast_1d(self._rows[indices])])

    def close(self) -> None:
        """Give the memory or the temporary file back; the bank cannot be read any more."""
        self._store = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _decode_all(
    paths: Sequence[Path], store: Pixels, config: DataConfig, progress: Progress | None, workers: int
) -> list[str | None]:
    """Fill the store; for each image the reason why it could not be read, or None."""

    def decode(row: int) -> str | None:
        try:
            store[row] = fit_image(
                read_pixels(paths[row], config.pixel_format), config.size, config.fit, config.interpolation
            )
        except ImageError as error:
            if config.on_corrupt == "stop":
                raise
            return str(error)
        return None

    reasons: list[str | None] = []
    with ThreadPoolExecutor(min(workers, len(paths))) as pool:
        try:
            for reason in pool.map(decode, range(len(paths))):
                reasons.append(reason)
                if progress:
                    progress(len(reasons), len(paths))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return reasons


def processors() -> int:
    """Processors this process may use: in a container fewer than the machine has."""
    with suppress(AttributeError):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _room(shape: tuple[int, int, int, int], dtype: np.dtype[Any], limit_mb: int, cache: Path | None) -> Pixels:
    """Room for the images: in RAM up to the limit, in a temporary file beyond."""
    needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if needed <= limit_mb * 2**20:
        return np.empty(shape, dtype)
    folder = Path(cache) if cache is not None else Path(tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed:
            shallower = ", set data.depth=8" if dtype.itemsize > 1 else ""
            raise DataError(
                f"{folder}: {shape[0]} images need {needed / 2**20:.0f} MB of disc, {free / 2**20:.0f} MB are free: "
                f"raise data.memory_limit_mb, make data.size smaller{shallower}, or free some space"
            )
        return _mapped_file(folder, shape, dtype, needed)
    except OSError as error:
        raise DataError(f"{folder}: no temporary file for the images: {error.strerror or error}") from error


def _mapped_file(folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any], needed: int) -> Pixels:
    handle, name = tempfile.mkstemp(prefix="draem-images-", suffix=".tmp", dir=folder)
    try:
        # A file with holes would end the process with a bus error when the disc fills up: so claim the space at once.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, needed)
        store: np.memmap[tuple[int, ...], np.dtype[Any]] = np.memmap(name, dtype, "r+", shape=shape)
    except BaseException:
        os.close(handle)
        Path(name).unlink()
        raise
    os.close(handle)
    try:
        Path(name).unlink()  # the mapping keeps its pages: nothing is left behind, however the process ends
    except OSError:  # Windows deletes no file that is mapped
        weakref.finalize(store, _remove, name)
    return store


def _remove(name: str) -> None:
    with suppress(OSError):
        Path(name).unlink()
