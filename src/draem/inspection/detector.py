"""The detector: a model file that inspects images."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from draem.errors import DataError, ImageError, MemoryLimitError, ModelFileError
from draem.images import fit_image, read_pixels
from draem.inspection.backends import Backend, open_backend
from draem.inspection.execution import BackendName, Device, Execution, Precision
from draem.inspection.prediction import Prediction
from draem.inspection.region import InspectedPixels
from draem.inspection.residual import scored_maps
from draem.inspection.scoring import image_score, verdict
from draem.inspection.stream import overlapped
from draem.modelfile import Header
from draem.pixels import Images, PixelFormat, Pixels, convert, view

Source = str | Path | NDArray[Any]
"""An image file, or an array: H×W, or H×W×C with red first, of uint8, uint16 or floats, as files hold them."""

_Loaded = tuple[Path | None, Pixels]


class Detector:
    """Inspects images with one model; may be called from several threads.

    Made by `draem.load` or `draem.train`.

    Attributes:
        backend: what runs the network.
        header: what the model file says of it.
        inspected: where anomalies count.
    """

    def __init__(self, backend: Backend, header: Header) -> None:
        self.backend = backend
        self.header = header
        self.inspected = InspectedPixels(header.region, header.config.data)
        self._turns = threading.BoundedSemaphore(backend.in_flight)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: Device = "auto",
        *,
        backend: BackendName = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
        streams: int = 1,
    ) -> Detector:
        """Read a model file; how it is run is told in `draem.inspection.execution.Execution`.

        Raises:
            ModelFileError: it is damaged or not a model.
            MissingExtraError: what runs it is not installed.
        """
        return cls(*open_backend(Path(path), Execution(backend, device, precision, threads, streams)))

    @overload
    def predict(self, source: Source) -> Prediction: ...
    @overload
    def predict(self, source: list[Source] | list[str] | list[Path] | list[NDArray[Any]]) -> list[Prediction]: ...
    def predict(
        self, source: Source | list[Source] | list[str] | list[Path] | list[NDArray[Any]]
    ) -> Prediction | list[Prediction]:
        """Inspect one image, or a list of them.

        Args:
            source: path, H×W or H×W×C array (red first) of uint8, uint16 or floats in [0, 1] (or in the model's
                data.value_range), or a list of these. Grey and RGB stand in for each other, as in files.

        Raises:
            ImageError: a file cannot be read.
            DataError: an array is not an image.
        """
        if isinstance(source, list):
            return list(self.stream(source))
        return self._inspect([_load(source, self.header.config.data.pixel_format)])[0]

    def stream(
        self,
        sources: Iterable[Source],
        batch_size: int = 8,
        on_unreadable: Callable[[Source, ImageError], None] | None = None,
    ) -> Generator[Prediction]:
        """Inspect images in batches, in order; the next ones are read and run while the caller uses the first.

        Memory stays bounded: beyond the caller's batch, `streams` + 1 are under way. Closing the iterator stops them.

        Args:
            sources: paths or arrays, possibly without end; they are taken from an iterator in another thread.
            batch_size: images in one run of the network; 1 for the shortest wait.
            on_unreadable: called with each file that cannot be read, which is then passed over; without it, such a
                file raises.

        Raises:
            ImageError: a file cannot be read, and there is no `on_unreadable`.
        """
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; at least 1 is needed")
        wanted = self.header.config.data.pixel_format
        # A camera may fill one array again and again: what is looked at later is copied now.
        kept = (source.copy() if isinstance(source, np.ndarray) else source for source in sources)
        load = lambda source: _load(source, wanted)  # noqa: E731
        for batch in overlapped(kept, load, self._inspect, batch_size, self.backend.in_flight, ImageError):
            for source, error in batch.unloadable:
                if on_unreadable is None:
                    raise error
                on_unreadable(source, error)
            yield from batch.results

    def _inspect(self, batch: list[_Loaded]) -> list[Prediction]:
        """Inspect some images together; a batch that does not fit into memory is halved until it does."""
        started = time.perf_counter()
        data, score = self.header.config.data, self.header.config.score
        inputs = np.stack([fit_image(image, data.size, data.fit, data.interpolation) for _, image in batch])
        images = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(
            data.pixel_format.highest
        )
        asked = time.perf_counter()
        with self._turns:
            started += time.perf_counter() - asked  # waiting for other runs is no work on these images
            maps, reconstructions = self._run(images)
        maps = scored_maps(score.map, maps, images, reconstructions)
        if not np.isfinite(maps).all():
            # Not a number is above no threshold: every part would be accepted.
            raise ModelFileError("the network's anomaly map holds values that are not numbers: its weights are spoilt")
        inside = [self._inside(found, image) for found, (_, image) in zip(maps, batch, strict=True)]
        scores = [image_score(found, score.filter_size) for found in inside]
        milliseconds = (time.perf_counter() - started) * 1000 / len(batch)
        thresholds = self.header.thresholds
        return [
            Prediction(
                image=view(image),
                path=path,
                score=value,
                verdict=verdict(value, thresholds),
                thresholds=thresholds,
                input_map=found,
                reconstruction=view(reconstruction.transpose(1, 2, 0)),
                milliseconds=milliseconds,
                data=data,
                filter_size=score.filter_size,
            )
            for (path, image), value, found, reconstruction in zip(batch, scores, inside, reconstructions, strict=True)
        ]

    def _inside(self, found: Images, image: Pixels) -> Images:
        """The map with nothing found outside of the region of interest, and in a letterbox's padding."""
        mask = self.inspected.mask((image.shape[0], image.shape[1]))
        return found if mask is None else np.where(mask, found, np.float32(0))

    def _run(self, images: Images) -> tuple[Images, Images]:
        try:
            return self.backend.run(images)
        except MemoryLimitError:
            if len(images) == 1:
                raise MemoryLimitError(
                    f"out of memory with a single image of {images.shape[2]}×{images.shape[3]} pixels; "
                    "train a narrower preset or a smaller data.size, or free memory"
                ) from None
        # Outside of the handler, so that nothing holds the failed run's memory any more.
        half = len(images) // 2
        first, second = self._run(images[:half]), self._run(images[half:])
        return np.concatenate((first[0], second[0])), np.concatenate((first[1], second[1]))


def _load(source: Source, wanted: PixelFormat) -> _Loaded:
    if isinstance(source, np.ndarray):
        return None, _converted(source, wanted)
    if not isinstance(source, str | Path):
        raise DataError(f"a path, an array or a list of these is inspected, not {type(source).__name__}")
    path = Path(source)
    return path, read_pixels(path, wanted)


def _converted(image: NDArray[Any], wanted: PixelFormat) -> Pixels:
    if image.dtype.kind not in "uf" or image.ndim not in (2, 3) or image.size == 0:
        shape = "×".join(str(side) for side in image.shape)
        raise DataError(f"an image is an H×W or H×W×C array of uint8, uint16 or floats, not {shape} of {image.dtype}")
    try:
        return convert(image, wanted, "the array")
    except ImageError as error:  # no file that could be passed over
        raise DataError(str(error)) from None
