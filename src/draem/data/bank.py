"""Decoded images, once and for all: in RAM or, past a limit, in a memory-mapped temporary file.

Decoding costs more than a training step's pixels do; so every image is read, fitted to the network's input and kept;
or, to be looked at in tiles, kept as it is.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.registration import Registrar
from draem.errors import DataError, ImageError
from draem.images import extend, fit_image, read_pixels
from draem.pixels import Pixels

Progress = Callable[[int, int], None]
_CLAIMED = 256 * 2**20
"""Bytes of disc that are claimed at once for images of any size."""


class ImageBank:
    """Images with the network's channels, of uint8 or uint16; made by `ImageBank.load`.

    They have the size of the network's input, or their own where the network sees tiles of them.
    `paths` are the images kept, in the order given; `skipped` the ones that could not be read, each with the reason.
    A context manager; a temporary file is gone with `close`, with the object, or at the end of the process.
    """

    def __init__(
        self,
        images: Sequence[Pixels],
        size: tuple[int, int],
        paths: Sequence[Path],
        skipped: Sequence[tuple[Path, str]],
        unplaced: Sequence[Path] = (),
    ) -> None:
        self._images: Sequence[Pixels] | None = images
        self.paths = tuple(paths)
        self.skipped = tuple(skipped)
        self.size = size
        """Height and width of the network's input in pixels."""
        self.shapes = np.array([image.shape[:2] for image in images])
        """Height and width of each image, N×2."""
        self.unplaced = tuple(unplaced)
        """Images on which registration did not find the part: they are there as they lie."""
        self.in_memory = not any(isinstance(image, np.memmap) for image in images)
        """Whether the images are in RAM, not in a temporary file."""

    @classmethod
    def load(
        cls,
        paths: Iterable[Path],
        config: DataConfig,
        cache: Path | None = None,
        progress: Progress | None = None,
        workers: int | None = None,
        registrar: Registrar | None = None,
    ) -> Self:
        """Read images in `workers` threads (default: one for each processor) and fit them as `config` says.

        With a `registrar` they are shifted and turned onto its reference first.

        Beyond `config.memory_limit_mb` they go to a temporary file in the folder `cache` (default: the system's).
        `progress` is called with the images done and their number.

        Raises:
            ImageError: an image cannot be read, and `config.on_corrupt` is "stop".
            DataError: no images, none of them can be read, or too little disc space.
        """
        kept = list(paths)
        if not kept:
            raise DataError("no images to load")
        room = (_OwnRooms if config.fit == "tiles" else _SharedRoom)(len(kept), config, cache)
        reasons, unplaced = _decode_all(kept, room, config, registrar, progress, workers or processors())
        good = [row for row, reason in enumerate(reasons) if reason is None]
        skipped = [(path, reason) for path, reason in zip(kept, reasons, strict=True) if reason is not None]
        if not good:
            raise DataError(f"none of {len(kept)} images can be read; the first: {skipped[0][1]}")
        lost = [kept[row] for row in sorted(unplaced)]
        return cls([room.images[row] for row in good], config.size, [kept[row] for row in good], skipped, lost)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: int | slice | Sequence[int] | NDArray[np.integer]) -> Pixels:
        """A new B×H×W×C array of the images at these places in `paths`, all of one size; one place gives B = 1."""
        images = self._opened()
        chosen = [images[place] for place in np.atleast_1d(np.arange(len(images))[indices])]
        return np.asarray(np.stack(chosen)) if chosen else np.empty((0, *images[0].shape), images[0].dtype)

    def views(self, places: NDArray[np.int64], draws: NDArray[np.float32]) -> Pixels:
        """What the network sees of these images, B×H×W×C at its input size: all of each, or a tile.

        draws: B×2 in [0, 1), how far down and to the right of the image a tile lies.
        """
        images = self._opened()
        corners = view_corners(self.shapes[places], self.size, draws)
        seen = [
            extend(images[place][top : top + self.size[0], left : left + self.size[1]], self.size)
            for place, (top, left) in zip(places, corners, strict=True)
        ]
        return np.asarray(np.stack(seen))

    @property
    def highest(self) -> int:
        """The highest value of a pixel."""
        return max(int(image.max()) for image in self._opened())

    def _opened(self) -> Sequence[Pixels]:
        if self._images is None:
            raise ValueError("the image bank is closed")
        return self._images

    def close(self) -> None:
        """Give the memory or the temporary file back; the bank cannot be read any more."""
        self._images = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _decode_all(
    paths: Sequence[Path],
    room: _SharedRoom | _OwnRooms,
    config: DataConfig,
    registrar: Registrar | None,
    progress: Progress | None,
    workers: int,
) -> tuple[list[str | None], list[int]]:
    """Fill the room; for each image the reason why it could not be read, or None; and on which no part was found."""
    unplaced: list[int] = []

    def decode(row: int) -> str | None:
        try:
            pixels = read_pixels(paths[row], config.pixel_format)
        except ImageError as error:
            if config.on_corrupt == "stop":
                raise
            return str(error)
        if registrar is not None:
            placement = registrar.place(pixels)
            pixels = placement.onto_reference(pixels)
            unplaced.extend([] if placement.found else [row])
        room.put(row, pixels)
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
    return reasons, unplaced


def processors() -> int:
    """Processors this process may use: in a container fewer than the machine has."""
    with suppress(AttributeError):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _SharedRoom:
    """Room for images that are fitted: in RAM up to the limit, all in one temporary file beyond."""

    def __init__(self, count: int, config: DataConfig, cache: Path | None) -> None:
        self._config, wanted = config, config.pixel_format
        shape = (count, *config.size, wanted.channels)
        fits = math.prod(shape) * wanted.dtype.itemsize <= config.memory_limit_mb * 2**20
        store = np.empty(shape, wanted.dtype) if fits else _on_disc(shape, wanted.dtype, cache)
        self.images: list[Pixels] = list(store)

    def put(self, row: int, pixels: Pixels) -> None:
        config = self._config
        self.images[row][...] = fit_image(pixels, *config.frame(config.size), config.interpolation)


class _OwnRooms:
    """Room for images of any size: in RAM up to the limit, many in one temporary file beyond.

    A file for each would need an open one for each, of which a process has about a thousand.
    """

    def __init__(self, count: int, config: DataConfig, cache: Path | None) -> None:
        self.images: list[Pixels] = [np.empty((0, 0, 0), np.uint8)] * count
        self._left, self._cache, self._lock = config.memory_limit_mb * 2**20, cache, Lock()
        self._claimed = min(self._left, _CLAIMED)
        self._free: Pixels = np.empty(0, np.uint8)

    def put(self, row: int, pixels: Pixels) -> None:
        with self._lock:
            fits = pixels.nbytes <= self._left
            self._left -= pixels.nbytes if fits else 0
            place = pixels if fits else self._place(pixels.nbytes).view(pixels.dtype).reshape(pixels.shape)
        if not fits:
            place[...] = pixels
        self.images[row] = place

    def _place(self, needed: int) -> Pixels:
        """Bytes in a temporary file; in a new one where the last has too few left."""
        if needed > len(self._free):
            self._free = _on_disc((max(needed, self._claimed),), np.dtype(np.uint8), self._cache)
        place, self._free = self._free[:needed], self._free[needed:]
        return place


def view_corners(shapes: NDArray[np.int64], size: tuple[int, int], draws: NDArray[np.float32]) -> NDArray[np.int64]:
    """Top and left of a part of `size` of images of these shapes (B×2), by draws in [0, 1): anywhere, evenly."""
    room = np.maximum(shapes - np.array(size), 0)
    return np.asarray(np.minimum((draws * (room + 1)).astype(np.int64), room))


def _on_disc(shape: tuple[int, ...], dtype: np.dtype[Any], cache: Path | None) -> Pixels:
    """Room for images in a temporary file."""
    needed = math.prod(shape) * dtype.itemsize
    folder = Path(cache) if cache is not None else Path(tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed:
            shallower = ", set data.depth=8" if dtype.itemsize > 1 else ""
            what, smaller = (f"{shape[0]} images", ", make data.size smaller") if len(shape) == 4 else ("images", "")
            raise DataError(
                f"{folder}: {what} need {needed / 2**20:.0f} MB of disc, {free / 2**20:.0f} MB are free: "
                f"raise data.memory_limit_mb{smaller}{shallower}, or free some space"
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
