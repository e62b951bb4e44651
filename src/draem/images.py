"""The package's border to image files: files of 8 or 16 bits ↔ H×W×3 uint8 RGB arrays, and their fit to the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.errors import DraemError, ImageError
from draem.files import atomic_write
from draem.imagefiles import damage, file_format, with_plain_alpha

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Suffixes of the files taken as images, in lower case."""

FitMode = Literal["resize", "letterbox"]
Interpolation = Literal["area", "linear"]
Box = tuple[int, int, int, int]


# ---------------------------------------------------------------------------------------------------------------- read


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file of 8 or 16 bits, grey or colour, as H×W×3 uint8 RGB; grey is repeated, alpha dropped.

    16 bits are divided by 257 and rounded; float TIFF must lie in [0, 1]. Exif orientation is honoured.

    Raises:
        ImageError: no such file, a folder, empty, not an image, damaged, or of a kind that is not understood.
    """
    return decode_image(_read_bytes(path), str(path))


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the bytes of an image file as `read_image` does; `name` says in errors which image it was."""
    pixels = _decode(data, name)
    if pixels.dtype == np.uint16:
        # (v + 128) // 257 is v / 257 rounded to nearest: 257 is odd, so there are no ties.
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        pixels = np.rint(_unit_range(pixels, name) * 255).astype(np.uint8)
    if pixels.ndim == 2:
        return np.ascontiguousarray(np.repeat(pixels[..., None], 3, axis=2), np.uint8)
    return np.ascontiguousarray(pixels[..., 2::-1], np.uint8)


def read_mask(path: Path, rule: Literal["half", "nonzero"] = "half") -> NDArray[np.bool_]:
    """Read an anomaly mask as H×W bool: True above half of the file's range (127.5, 32767.5, or 0.5 for float).

    A mask that stays below half of its range numbers its defects, 0/1 masks among them: all but 0 is True. So it is
    with the rule `nonzero`, for masks whose numbers go higher. In colour masks the brightest channel counts.

    Raises:
        ImageError: as `read_image`.
    """
    pixels = _decode(_read_bytes(path), str(path))
    if pixels.ndim == 3:
        pixels = pixels[..., :3].max(axis=2)
    if rule == "nonzero":
        return np.asarray(pixels > 0)
    if pixels.dtype not in (np.uint8, np.uint16):
        return np.asarray(_unit_range(pixels, str(path)) > 0.5)
    half = np.iinfo(pixels.dtype).max // 2
    return np.asarray(pixels > (half if pixels.max() > half else 0))


def _read_bytes(path: Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: is a folder, not an image file") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _decode(data: bytes, name: str) -> NDArray[Any]:
    """Pixels as the file holds them: H×W, or H×W×C in OpenCV's order (blue first), Exif orientation applied."""
    if not data:
        raise ImageError(f"{name}: the file is empty")
    kind = file_format(data)
    if kind is None:
        raise ImageError(f"{name}: not an image: not PNG, JPEG, BMP, TIFF or WebP (it starts with {data[:12]!r})")
    if wrong := damage(data):
        raise ImageError(f"{name}: damaged {kind} file: {wrong}")
    _silence_opencv()
    try:
        # Not IMREAD_COLOR_RGB: OpenCV 5.0 returns wrong channels for 16-bit TIFF with it. Not IMREAD_UNCHANGED: it
        # ignores the orientation.
        pixels = cv2.imdecode(
            np.frombuffer(with_plain_alpha(data), np.uint8), cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
        )
    except (cv2.error, MemoryError):
        pixels = None  # more pixels than OpenCV takes, or than there is memory for
    if pixels is None or pixels.size == 0:
        raise ImageError(f"{name}: cannot be decoded: the {kind} file is damaged, too large or of a rare kind")
    return pixels


def _unit_range(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    """Float pixels, checked to lie in [0, 1]."""
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ImageError(f"{name}: {pixels.dtype} pixels are not understood: save it with 8 or 16 bits, unsigned")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise ImageError(
            f"{name}: float pixels must lie in [0, 1], found {low:g} to {high:g}: rescale or save as 16 bit"
        )
    return pixels


@cache
def _silence_opencv() -> None:
    """Damaged files are our errors, said once and with the file's name; OpenCV would print its own lines as well."""
    # OpenCV 4 has it at the top, OpenCV 5 in a module; 0 is silent in both.
    set_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    set_level(0)


# --------------------------------------------------------------------------------------------------------------- write


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an H×W×3 uint8 RGB image, whole or not at all, in the format of the suffix (JPEG and WebP: quality 95).

    Raises:
        DraemError: the suffix is none of IMAGE_SUFFIXES, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise DraemError(f"{path}: cannot write {suffix or 'a file without suffix'}: use {', '.join(IMAGE_SUFFIXES)}")
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_WEBP_QUALITY, 95]
    chosen = {".jpg": quality[:2], ".jpeg": quality[:2], ".webp": quality[2:]}.get(suffix, [])
    _encode(path, suffix, image[..., ::-1], chosen)


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
    image: NDArray[np.uint8], size: tuple[int, int], fit: FitMode, interpolation: Interpolation = "area"
) -> NDArray[np.uint8]:
    """Bring an H×W×3 uint8 image to `size` (height, width); a letterbox is centred, padded with the edge's colours."""
    plan = plan_fit(image.shape[:2], size, fit)
    scaled = _resize(image, (plan.height, plan.width), interpolation)
    return np.asarray(_pad(scaled, plan, cv2.BORDER_REPLICATE), np.uint8)


def fit_mask(
    mask: NDArray[np.bool_], size: tuple[int, int], fit: FitMode, interpolation: Interpolation = "area"
) -> NDArray[np.bool_]:
    """Bring an H×W bool mask to `size` as `fit_image` does; True where at least half is covered, padding False."""
    plan = plan_fit((mask.shape[0], mask.shape[1]), size, fit)
    coverage = _resize(mask.astype(np.float32), (plan.height, plan.width), interpolation)
    # Float32 sums of exact halves may fall short of 0.5 by rounding.
    return np.asarray(_pad(coverage, plan, cv2.BORDER_CONSTANT) >= 0.5 - 1e-5)


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
