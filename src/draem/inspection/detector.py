"""The detector: a model file that inspects images."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from draem.data.registration import Placement, registrar_of
from draem.errors import DataError, ImageError, MemoryLimitError, ModelFileError
from draem.images import fit_image, plan_fit, read_raw
from draem.inspection.backends import Backend, open_backend
from draem.inspection.described import header_rows
from draem.inspection.execution import BackendName, Device, Execution, Precision
from draem.inspection.prediction import Prediction
from draem.inspection.region import InspectedPixels
from draem.inspection.residual import scored_maps
from draem.inspection.scoring import image_score, verdict
from draem.inspection.stream import overlapped
from draem.inspection.tiling import Tiling, batched, in_order
from draem.modelfile import Header
from draem.pixels import Images, PixelFormat, Pixels, convert, unlike, view

Source = str | Path | NDArray[Any]
"""An image file, or an array: H×W, or H×W×C with red first, of uint8, uint16 or floats, as files hold them."""

_log = logging.getLogger(__name__)
_Loaded = tuple[Path | None, Pixels]
_Found = tuple[list[Images], list[NDArray[np.uint8]], float]
"""Of each image the map that is scored, and the reconstruction for people; and the seconds that they waited."""
_PIXELS_AT_ONCE = 8 * 256 * 256
"""In one run of the network on tiles."""


class Detector:
    """Inspects images with one model; may be called from several threads.

    Made by `draem.load` or `draem.train`.

    Attributes:
        backend: what runs the network.
        header: what the model file says of it.
        inspected: where anomalies count, on a part that lies as it should.
    """

    def __init__(self, backend: Backend, header: Header) -> None:
        self.backend = backend
        self.header = header
        self.inspected = InspectedPixels(header.region, header.config.data)
        self._registrar = registrar_of(header.registration, header.region)
        self._doubted = threading.Lock()  # by the first of the images that are loaded at once, for good
        self._lost = threading.Lock()  # likewise
        # An image in tiles keeps the whole backend busy.
        self._turns = threading.BoundedSemaphore(1 if header.config.data.fit == "tiles" else backend.in_flight)

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
        profile: str | None = None,
    ) -> Detector:
        """Read a model file; how it is run is told in `draem.inspection.execution.Execution`.

        `profile` is the camera or product whose thresholds are taken; none: the model's own.

        Raises:
            ModelFileError: it is damaged or not a model, or has no such profile.
            MissingExtraError: what runs it is not installed.
        """
        return cls.open(Path(path), Execution(backend, device, precision, threads, streams), profile)

    @classmethod
    def open(cls, path: Path, execution: Execution, profile: str | None = None) -> Detector:
        """As `load`, with all that is told of how it is run in one.

        Raises:
            ModelFileError: it is damaged or not a model, or has no such profile.
            MissingExtraError: what runs it is not installed.
        """
        backend, header = open_backend(path, execution)
        return cls(backend, header.at_profile(profile))

    def __repr__(self) -> str:
        config = self.header.config
        return f"Detector({config.preset} {config.network.widths}, run by {self.backend.execution})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in header_rows(self.header).items()
        )
        return f"<table><tbody>{rows}</tbody></table><p>run by {escape(self.backend.execution)}</p>"

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
        return self._inspect([self._load(source)])[0]

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
            batch_size: images in one run of the network; 1 for the shortest wait. Big images in tiles go one at a time.
            on_unreadable: called with each file that cannot be read, which is then passed over; without it, such a
                file raises.

        Raises:
            ImageError: a file cannot be read, and there is no `on_unreadable`.
            DataError: an array is not an image; the error tells its number, counted from 0.
        """
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; at least 1 is needed")
        at_once = 1 if self.header.config.data.fit == "tiles" else batch_size
        # A camera may fill one array again and again: what is looked at later is copied now.
        kept = (source.copy() if isinstance(source, np.ndarray) else source for source in sources)
        numbered, in_flight = enumerate(kept), self.backend.in_flight
        for batch in overlapped(numbered, self._load_frame, self._inspect, at_once, in_flight, ImageError):
            for (_, source), error in batch.unloadable:
                if on_unreadable is None:
                    raise error
                on_unreadable(source, error)
            yield from batch.results

    def _load_frame(self, numbered: tuple[int, Source]) -> _Loaded:
        """As `_load`; an array has no name, so an error tells its number."""
        number, source = numbered
        try:
            return self._load(source)
        except ImageError:
            raise
        except DataError as error:
            raise DataError(f"frame {number} (counted from 0): {error}") from None

    def _load(self, source: Source) -> _Loaded:
        wanted = self.header.config.data.pixel_format
        path, raw = _read(source, wanted)
        try:
            pixels = convert(raw, wanted, str(path or "the array"))
        except ImageError as error:
            if path is None:  # no file that could be passed over
                raise DataError(str(error)) from None
            raise
        if not self._doubted.locked() and (why := unlike(raw, wanted)) and self._doubted.acquire(blocking=False):
            _log.warning(
                "%s: %s to this model, whose answers mean little then; give it images of its own kind, or train on "
                "such (docs/images.md)",
                path or "the array",
                why,
            )
        return path, pixels

    def _inspect(self, batch: list[_Loaded]) -> list[Prediction]:
        """Inspect some images together; a batch that does not fit into memory is halved until it does."""
        started = time.perf_counter()
        data, score = self.header.config.data, self.header.config.score
        placements = [self._placed(path, image) for path, image in batch]
        lying = [
            place.onto_reference(image) if place else image for place, (_, image) in zip(placements, batch, strict=True)
        ]
        maps, reconstructions, waited = (self._tiled if data.fit == "tiles" else self._fitted)(lying)
        found = [self._as_it_lies(*each) for each in zip(maps, reconstructions, lying, placements, strict=True)]
        scores = [image_score(values, score.filter_size) for values, _, _ in found]
        milliseconds = (time.perf_counter() - started - waited) * 1000 / len(batch)
        thresholds = self.header.thresholds
        return [
            Prediction(
                image=view(image),
                path=path,
                score=value,
                verdict=verdict(value, thresholds, lost=placement is not None and not placement.found),
                thresholds=thresholds,
                reference=self.header.reference,
                input_map=values,
                reconstruction=reconstruction,
                inspected=inspected,
                placement=placement,
                milliseconds=milliseconds,
                data=data,
                filter_size=score.filter_size,
            )
            for (path, image), placement, value, (values, reconstruction, inspected) in zip(
                batch, placements, scores, found, strict=True
            )
        ]

    def _placed(self, path: Path | None, image: Pixels) -> Placement | None:
        """How the part lies; none where the model does not ask. The first image without one is named in the log."""
        if self._registrar is None:
            return None
        placement = self._registrar.place(image)
        if not placement.found and self._lost.acquire(blocking=False):
            _log.warning(
                "%s: the part was not found within the limits of registration: inspected as it lies (docs/inspect.md)",
                path or "the array",
            )
        return placement

    def _as_it_lies(
        self, found: Images, reconstruction: NDArray[np.uint8], image: Pixels, placement: Placement | None
    ) -> tuple[Images, NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Map and reconstruction in the image's own frame, and which pixels were inspected: nothing is found elsewhere.

        Neither outside of the region of interest nor in a letterbox's padding; nor what registration moved off it.
        """
        size = (image.shape[0], image.shape[1])
        inside = self.inspected.mask(size)
        found = found if inside is None else np.where(inside, found, np.float32(0))
        if placement is None or not placement.found:
            return found, reconstruction, inside
        fit = plan_fit(size, *self.header.config.data.frame(size))
        seen = placement.inspected(inside, fit)
        moved = np.where(seen, placement.onto_image(found, fit), np.float32(0))
        return moved, placement.onto_image(reconstruction, fit), seen

    def _fitted(self, images: list[Pixels]) -> _Found:
        """Maps and reconstructions of images brought to the network's input size."""
        data = self.header.config.data
        inputs = [fit_image(image, *data.frame(data.size), data.interpolation) for image in images]
        stacked = np.stack([self._blanked(fitted, image) for fitted, image in zip(inputs, images, strict=True)])
        with self._turn() as waited:
            found = self._maps(stacked)
        return list(found[:, 0]), [_shown(one) for one in found], waited

    def _tiled(self, images: list[Pixels]) -> _Found:
        """Maps and reconstructions of images at their own size, looked at in tiles."""
        data, step = self.header.config.data, self.header.config.tile_step
        at_once = max(1, _PIXELS_AT_ONCE // (data.size[0] * data.size[1]))
        maps, reconstructions = [], []
        with self._turn() as waited:
            for image in images:
                tiling = Tiling.of((image.shape[0], image.shape[1]), data.size, data.overlap, step)
                maps.append(np.empty(image.shape[:2], np.float32))
                reconstructions.append(np.empty((*image.shape[:2], 3), np.uint8))
                batches = batched(tiling.cut(self._blanked(image, image)), at_once)
                runs = in_order(lambda tiles: self._maps(np.stack(tiles)), batches, self.backend.in_flight)
                for rows, band in tiling.blend(chain.from_iterable(runs)):
                    np.clip(band[0], 0.0, 1.0, out=maps[-1][rows])  # weights add up to 1 but for the last bit
                    reconstructions[-1][rows] = _shown(band)
        return maps, reconstructions, waited

    def _maps(self, inputs: Pixels) -> Images:
        """Of inputs, B×H×W×C, the maps that are scored and the reconstructions: B×(1+C)×H×W."""
        highest = np.float32(self.header.config.data.pixel_format.highest)
        images = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2), dtype=np.float32) / highest
        maps, reconstructions = self._run(images)
        maps = scored_maps(self.header.config.score.map, maps, images, reconstructions)
        if not np.isfinite(maps).all():
            # Not a number is above no threshold: every part would be accepted.
            raise ModelFileError("the network's anomaly map holds values that are not numbers: its weights are spoilt")
        return np.concatenate((maps[:, None], reconstructions), axis=1)

    def _blanked(self, fitted: Pixels, image: Pixels) -> Pixels:
        """What the network sees of an image: mid-grey where nothing counts, if it was trained so."""
        data = self.header.config.data
        if self.header.region is None or not data.blanks:
            return fitted
        mask = self.inspected.mask((image.shape[0], image.shape[1]))
        assert mask is not None
        return np.where(mask[..., None], fitted, fitted.dtype.type(data.pixel_format.middle))

    @contextmanager
    def _turn(self) -> Iterator[float]:
        """The right to run the network, and the seconds it was waited for: no work on these images."""
        asked = time.perf_counter()
        with self._turns:
            yield time.perf_counter() - asked

    def _run(self, images: Images) -> tuple[Images, Images]:
        """Halves of a batch that does not fit; not of a model for a fixed number, which always runs as many."""
        fixed = self.header.artefact.batch if self.header.artefact else None
        try:
            return self.backend.run(images)
        except MemoryLimitError:
            if fixed or len(images) == 1:
                at_once = "a single image" if fixed in (None, 1) else f"{fixed} images"
                smaller = "" if fixed in (None, 1) else "export with a smaller --batch, "
                raise MemoryLimitError(
                    f"out of memory with {at_once} of {images.shape[2]}×{images.shape[3]} pixels; {smaller}"
                    "train a narrower preset or a smaller data.size, or free memory"
                ) from None
        # Outside of the handler, so that nothing holds the failed run's memory any more.
        half = len(images) // 2
        first, second = self._run(images[:half]), self._run(images[half:])
        return np.concatenate((first[0], second[0])), np.concatenate((first[1], second[1]))


def _shown(found: Images) -> NDArray[np.uint8]:
    """The reconstruction for people, of map and reconstruction one above the other."""
    return view(found[1:].transpose(1, 2, 0))


def _read(source: Source, wanted: PixelFormat) -> tuple[Path | None, NDArray[Any]]:
    """The file, none of an array, and its raw values."""
    if not isinstance(source, str | Path | np.ndarray):
        raise DataError(f"a path, an array or a list of these is inspected, not {type(source).__name__}")
    if not isinstance(source, np.ndarray):
        return Path(source), read_raw(Path(source), wanted.depth)
    if source.dtype.kind not in "uf" or source.ndim not in (2, 3) or source.size == 0:
        shape = "×".join(str(side) for side in source.shape)
        raise DataError(f"an image is an H×W or H×W×C array of uint8, uint16 or floats, not {shape} of {source.dtype}")
    return None, source
