"""The package's border to image files: files of any depth and channels ↔ arrays, and their fit to the network."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.arrayfiles import read_array
from draem.errors import DraemError, ImageError
from draem.files import atomic_write
from draem.imagefiles import damage, file_format, with_plain_alpha
from draem.imageheaders import ImageHeader, read_header
from draem.pixels import Depth, PixelFormat, Pixels, ValueRange, convert, view

WRITTEN_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Suffixes of the files that `write_image` writes."""
IMAGE_SUFFIXES = (*WRITTEN_SUFFIXES, ".npy")
"""Suffixes of the files taken as images, in lower case."""
_FIRST_BYTES = 1 << 20

FitMode = Literal["resize", "letterbox"]
Interpolation = Literal["area", "linear"]
Box = tuple[int, int, int, int]
Kind = TypeVar("Kind", bound=np.unsignedinteger[Any])


# ---------------------------------------------------------------------------------------------------------------- read


def read_image(path: Path, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Read an image file for people's eyes: H×W×3 uint8 RGB; grey is repeated, of a stack the first channels are shown.

    Raises:
        ImageError: no such file, a folder, empty, not an image, damaged, or of a kind that is not understood.
    """
    return decode_image(_read_bytes(path), str(path), value_range)


def decode_image(data: bytes, name: str, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Decode the bytes of an image file as `read_image` does; `name` says in errors which image it was."""
    return show(decode_raw(data, name), name, value_range)


def decode_raw(data: bytes, name: str) -> NDArray[Any]:
    """Raw values in the bytes of an image file: H×W, or H×W×C with red first, as deep as they are stored.

    Raises:
        ImageError: as `read_image`.
    """
    return _decode(data, name)[0]


def show(raw: NDArray[Any], name: str, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Raw values as `read_image` shows them; `name` says in errors which image it was.

    Raises:
        ImageError: they are of a type that is not understood, or floats outside [0, 1].
    """
    return view(convert(raw, PixelFormat(1 if raw.ndim == 2 else raw.shape[2], 8, value_range), name))


def read_pixels(path: Path, wanted: PixelFormat) -> Pixels:
    """Read an image file as H×W×C pixels of a format, by the rules in docs/images.md.

    Raises:
        ImageError: as `read_image`, or the file's channels do not fit the format.
    """
    return convert(read_raw(path, wanted.depth), wanted, str(path))


def read_raw(path: Path, depth: Depth = 8) -> NDArray[Any]:
    """Raw values of an image file as of `decode_raw`, of which at least so many bits are read, if it has them.

    Raises:
        ImageError: as `read_image`, or only 8 of more bits can be read.
    """
    raw, header = _decode(_read_bytes(path), str(path))
    if depth == 16 and header.bits > 8 and raw.dtype == np.uint8:
        raise ImageError(f"{path}: only 8 of its {header.bits} bits can be read: save it as grey or RGB without alpha")
    return raw


def read_file_header(path: Path) -> ImageHeader | None:
    """The header of an image file, from its first bytes where these suffice; none where there is no header to read.

    Raises:
        ImageError: the file cannot be read.
    """
    return read_header(_read_bytes(path, _FIRST_BYTES)) or read_header(_read_bytes(path))


def read_mask(path: Path, rule: Literal["half", "nonzero"] = "half") -> NDArray[np.bool_]:
    """Read an anomaly mask as H×W bool: True above half of the file's range (127.5, 32767.5, or 0.5 for float).

    A mask that stays below half of its range numbers its defects, 0/1 masks among them: all but 0 is True. So it is
    with the rule `nonzero`, for masks whose numbers go higher. In colour masks the brightest channel counts.

    Raises:
        ImageError: as `read_image`.
    """
    data = _read_bytes(path)
    pixels, _ = _decode(data, str(path))
    if pixels.ndim == 3:
        pixels = pixels.max(axis=2)
    if rule == "nonzero":
        return np.asarray(pixels > 0)
    if pixels.dtype not in (np.uint8, np.uint16):
        convert(pixels, PixelFormat(1), str(path))  # refuses other types, and what lies outside [0, 1]
        return np.asarray(pixels > 0.5)
    half = np.iinfo(pixels.dtype).max // 2
    # Small values number the defects; in a JPEG file they are what compression left of black.
    numbered = pixels.max() <= half and file_format(data) != "JPEG"
    return np.asarray(pixels > (0 if numbered else half))


def _read_bytes(path: Path, most: int = -1) -> bytes:
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):  # noqa: PTH110, PTH112, PTH113
        raise ImageError(f"{path}: not a file to read, but a pipe or a device")  # which may have no end
    try:
        with Path(path).open("rb") as file:
            return file.read(most)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: is a folder, not an image file") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _decode(data: bytes, name: str) -> tuple[NDArray[Any], ImageHeader]:
    """Raw values and the header of a file: H×W, or H×W×C with red first, without alpha, turned upright."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    kind = file_format(data)
    if kind is None:
        raise ImageError(
            f"{name}: not an image: not PNG, JPEG, BMP, TIFF, WebP or a NumPy array (it starts with {data[:12]!r})"
        )
    if wrong := damage(data):
        raise ImageError(f"{name}: damaged {kind} file: {wrong}")
    header = read_header(data)
    if header and kind == "TIFF" and header.colour == "other":
        raise ImageError(
            f"{name}: a TIFF file with {header.channels} samples a pixel that are neither grey nor RGB is not "
            "understood: save its channels as pages, or as a NumPy array H×W×C"
        )
    raw = None if header is None else read_array(data) if kind == "NumPy" else _decode_picture(data, header)
    if header is None or raw is None or raw.size == 0:
        raise ImageError(f"{name}: cannot be decoded: the {kind} file is damaged, too large or of a rare kind")
    return raw, header


def _decode_picture(data: bytes, header: ImageHeader) -> NDArray[Any] | None:
    """Raw values as of `_decode`; none where OpenCV gives none, or not all channels of a stack."""
    _silence_opencv()
    # Not IMREAD_COLOR_RGB: OpenCV 5.0 returns wrong channels for 16-bit TIFF with it. Not IMREAD_UNCHANGED: it ignores
    # the orientation, but without it float TIFF with alpha is refused.
    unchanged = header.floating and header.alpha and header.orientation == 1
    flags = cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    encoded = np.frombuffer(with_plain_alpha(data), np.uint8)
    try:
        if header.stacked:
            _, pages = cv2.imdecodemulti(encoded, flags)
            fitting = [page for page in pages if page.shape == pages[0].shape and page.dtype == pages[0].dtype]
            return np.stack(fitting, axis=2) if len(fitting) == header.pages and fitting[0].ndim == 2 else None
        pixels = cv2.imdecode(encoded, flags)
    except (cv2.error, MemoryError):
        return None  # more pixels than OpenCV takes, or than there is memory for
    if pixels is None or pixels.ndim == 2:
        return pixels
    if header.colour == "grey":  # grey with alpha may come as colours
        return pixels[..., 0]
    return cv2.merge(cv2.split(pixels)[2::-1])  # of any depth; several times faster than a copy of turned channels


@cache
def _silence_opencv() -> None:
    """Damaged files are our errors, said once and with the file's name; OpenCV would print its own lines as well."""
    # OpenCV 4 has it at the top, OpenCV 5 in a module; 0 is silent in both.
    set_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    set_level(0)


# --------------------------------------------------------------------------------------------------------------- write


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an H×W×3 uint8 RGB or H×W grey image, whole or not at all, as the suffix says (JPEG and WebP: quality 95).

    Raises:
        DraemError: the suffix is none of WRITTEN_SUFFIXES, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise DraemError(f"{path}: cannot write {suffix or 'a file without suffix'}: use {', '.join(WRITTEN_SUFFIXES)}")
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_WEBP_QUALITY, 95]
    chosen = {".jpg": quality[:2], ".jpeg": quality[:2], ".webp": quality[2:]}.get(suffix, [])
    _encode(path, suffix, image if image.ndim == 2 else image[..., ::-1], chosen)


def write_map(path: Path, anomaly_map: NDArray[np.floating[Any]]) -> None:
    """Write an H×W anomaly map in [0, 1] as a 16-bit PNG (65535 is 1), whole or not at all.

    Raises:
        ValueError: a value is not in [0, 1].
        DraemError: the file cannot be written.
    """
    if not (anomaly_map.min() >= 0 and anomaly_map.max() <= 1):
        raise ValueError("an anomaly map lies in [0, 1]")
    _encode(path, ".png", np.rint(anomaly_map.astype(np.float64) * 65535).astype(np.uint16), [])


def _encode(path: Path, suffix: str, pixels: NDArray[Any], options: list[int]) -> None:
    try:
        done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels), options)
    except cv2.error as error:
        raise DraemError(f"{path}: cannot be written as {suffix}: {pixels.shape} does not fit the format") from error
    if not done:
        raise DraemError(f"{path}: cannot be written as {suffix}")
    atomic_write(Path(path), data.tobytes())


# ----------------------------------------------------------------------------------------------------------------- fit


@dataclass(frozen=True)
class Fit:
    """Where an image lies within the network's input: all of it (`resize`), or its middle (`letterbox`).

    `original` and `size` are (height, width) of the image and of the input; the image, scaled to `height` × `width`,
    starts at row `top` and column `left` of the input.
    """

    original: tuple[int, int]
    size: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the input that show the image; the rest is padding."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def plan_fit(original: tuple[int, int], size: tuple[int, int], fit: FitMode) -> Fit:
    """Geometry of fitting an image of (height, width) `original` into `size`; letterbox keeps the aspect ratio."""
    if fit == "resize":
        return Fit(original, size, 0, 0, *size)
    scale = min(size[0] / original[0], size[1] / original[1])
    # A very long image would vanish on its short side: one row or column always stays.
    height, width = (min(max(round(side * scale), 1), room) for side, room in zip(original, size, strict=True))
    return Fit(original, size, (size[0] - height) // 2, (size[1] - width) // 2, height, width)


def fit_image(
    image: NDArray[Kind], size: tuple[int, int], fit: FitMode, interpolation: Interpolation = "area"
) -> NDArray[Kind]:
    """Bring H×W×C pixels to `size` (height, width); a letterbox is centred, padded with the edge's colours."""
    plan = plan_fit((image.shape[0], image.shape[1]), size, fit)
    scaled = (plan.height, plan.width)
    return by_fours(image, lambda part: _pad(_resize(part, scaled, interpolation), plan, cv2.BORDER_REPLICATE))


def by_fours(image: NDArray[Kind], change: Callable[[NDArray[Kind]], NDArray[Any]]) -> NDArray[Kind]:
    """H×W×C pixels changed by what takes at most four channels at once, and drops the axis of a single one: OpenCV."""
    changed = [change(image[..., first : first + 4]) for first in range(0, image.shape[2], 4)]
    size = changed[0].shape[:2]
    return np.concatenate([part.reshape(*size, -1) for part in changed], axis=2).astype(image.dtype, copy=False)


def fit_mask(
    mask: NDArray[np.bool_], size: tuple[int, int], fit: FitMode, interpolation: Interpolation = "area"
) -> NDArray[np.bool_]:
    """Bring an H×W bool mask to `size` as `fit_image` does; True where at least half is covered, padding False."""
    plan = plan_fit((mask.shape[0], mask.shape[1]), size, fit)
    coverage = _resize(mask.astype(np.float32), (plan.height, plan.width), interpolation)
    # Float32 sums of exact halves may fall short of 0.5 by rounding.
    return np.asarray(_pad(coverage, plan, cv2.BORDER_CONSTANT) >= 0.5 - 1e-5)


def extend(pixels: NDArray[Kind], size: tuple[int, int]) -> NDArray[Kind]:
    """H×W×C pixels, made at least as large as `size` by repeating the last row and the last column."""
    below, right = (max(wanted - side, 0) for wanted, side in zip(size, pixels.shape, strict=False))
    return np.pad(pixels, ((0, below), (0, right), (0, 0)), "edge") if below or right else pixels


def unfit_map(
    anomaly_map: NDArray[np.float32], original: tuple[int, int], size: tuple[int, int], fit: FitMode
) -> NDArray[np.float32]:
    """Bring a map at input `size` back to the pixels of the `original` (height, width); padding is cut off.

    Bilinear where it grows; averaged over each pixel's area where it shrinks, so that no peak is stepped over.
    """
    if anomaly_map.shape != tuple(size):
        raise ValueError(f"a map of {size} is needed, not {anomaly_map.shape}")
    plan = plan_fit(original, size, fit)
    return np.asarray(_resize(np.ascontiguousarray(anomaly_map[plan.window]), original, "area"), np.float32)


def unfit_box(box: Box, original: tuple[int, int], size: tuple[int, int], fit: FitMode) -> Box:
    """Bring a box (left, top, right, bottom; right and bottom excluded) from input pixels to the original's pixels.

    The smallest box of whole pixels that covers it, cut at the image's border, at least one pixel large.
    """
    plan = plan_fit(original, size, fit)
    left, right = _unfit_span(box[0] - plan.left, box[2] - plan.left, plan.width, original[1])
    top, bottom = _unfit_span(box[1] - plan.top, box[3] - plan.top, plan.height, original[0])
    return left, top, right, bottom


def unfit_places(
    places: Iterable[tuple[float, float]], original: tuple[int, int], size: tuple[int, int], fit: FitMode
) -> tuple[tuple[float, float], ...]:
    """Bring places (x, y) from input pixels to the original's, cut at the image's border."""
    plan = plan_fit(original, size, fit)
    across, down = original[1] / plan.width, original[0] / plan.height
    return tuple(
        (
            min(max((x - plan.left) * across, 0.0), float(original[1])),
            min(max((y - plan.top) * down, 0.0), float(original[0])),
        )
        for x, y in places
    )


def _unfit_span(start: int, stop: int, scaled: int, original: int) -> tuple[int, int]:
    first = min(max(math.floor(start * original / scaled), 0), original - 1)
    return first, max(min(math.ceil(stop * original / scaled), original), first + 1)


def _resize(pixels: NDArray[Any], size: tuple[int, int], interpolation: Interpolation) -> NDArray[Any]:
    """Scale to (height, width): by area or linearly where it shrinks, linearly where it grows, each axis apart."""
    if interpolation == "area":
        # OpenCV averages areas only when no axis grows: so shrink first, then grow.
        smaller = (min(size[0], pixels.shape[0]), min(size[1], pixels.shape[1]))
        if smaller != pixels.shape[:2]:
            pixels = cv2.resize(pixels, smaller[::-1], interpolation=cv2.INTER_AREA)
    if size != pixels.shape[:2]:
        pixels = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
    return pixels


def _pad(pixels: NDArray[Any], plan: Fit, border: int) -> NDArray[Any]:
    """Surround the scaled image up to the input's size; always a new array."""
    below = plan.size[0] - plan.height - plan.top
    right = plan.size[1] - plan.width - plan.left
    return cv2.copyMakeBorder(pixels, plan.top, below, plan.left, right, border)
