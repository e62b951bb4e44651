"""The region of interest: read from a mask image or polygons, drawn at any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from draem.config import DataConfig
from draem.data.shapes import Shapes
from draem.errors import ConfigError, ImageError, ModelFileError
from draem.images import read_mask
from draem.modelfile import RegionOfInterest
from draem.modelfile.header import MOST_CORNERS, MOST_POLYGONS, Polygon
from draem.modelfile.sealed import LARGEST_HEADER, read_bytes
from draem.modelfile.strictjson import parse_json

_DIGITS = 6
_FINEST = 0.5
"""Pixels of the mask image by which an outline may be simplified."""


def interest_of(config: DataConfig) -> RegionOfInterest | None:
    """What `data.region` and `data.ignore` say; none: the whole image.

    Raises:
        ConfigError: a file cannot be read, or nothing is left to inspect.
    """
    if config.region is None and config.ignore is None:
        return None
    given = {
        key: read_interest(key, str(path))
        for key, path in (("region", config.region), ("ignore", config.ignore))
        if path is not None
    }
    return merged(None, given, config.size)


def merged(
    former: RegionOfInterest | None, given: dict[str, RegionOfInterest | None], size: tuple[int, int]
) -> RegionOfInterest | None:
    """A region with the parts that are given, each in `inspect`: `region`, `ignore`; none where nothing of one is left.

    Raises:
        ConfigError: nothing of an image of this size is left to inspect.
    """
    region = given.get("region", former) or RegionOfInterest()
    if "ignore" in given:
        ignored = given["ignore"] or RegionOfInterest()
        region = _checked("ignore", {"inspect": region.inspect, "ignore": ignored.inspect})
    if not draw_region(region, size).any():
        raise ConfigError("region and ignore: together they leave nothing to inspect")
    return region if region.inspect or region.ignore else None


def read_interest(key: str, text: str) -> RegionOfInterest | None:
    """What a file says is inspected, or with the key `ignore` is not: both stand in `inspect`; none of the word none.

    Raises:
        ConfigError: it cannot be read, or nothing in it is white.
    """
    if text.lower() == "none":
        return None
    path = Path(text)
    if path.suffix.lower() == ".json" and key == "region":
        return _read_polygons(path)
    try:
        mask = read_mask(path)
        if not mask.any():
            raise ConfigError(f"{key}: {path}: nothing in it is white")
        whole = key == "region" and mask.all()
        polygons: list[Polygon] = [] if whole else outline(mask)
    except ImageError as error:
        raise ConfigError(f"{key}: {error}") from None
    return _checked(key, {"inspect": polygons})


def _read_polygons(path: Path) -> RegionOfInterest:
    try:
        values = parse_json(read_bytes(path, LARGEST_HEADER))
    except ValueError:
        raise ConfigError(f"region: {path}: not JSON, or it says something twice") from None
    return _checked(f"region: {path}", values)


def _checked(place: str, values: Any) -> RegionOfInterest:
    try:
        return RegionOfInterest.model_validate(values)
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{place}: wrong at {where[:60]!r} ({first['msg']}); polygons are lists of corners [x, y] from 0 to 1 in "
            '{"inspect": […], "ignore": […]}'
        ) from None


def draw_region(region: RegionOfInterest, size: tuple[int, int]) -> NDArray[np.bool_]:
    """H×W bool for an image of this height and width: True where a pixel's centre is inspected.

    Raises:
        ModelFileError: the outlines are too many to be drawn.
    """
    inside = _even_odd(region.inspect, size) if region.inspect else np.ones(size, bool)
    return inside & ~_even_odd(region.ignore, size)


def _even_odd(polygons: Sequence[Polygon], size: tuple[int, int]) -> NDArray[np.bool_]:
    """True where a pixel's centre lies in an odd number of polygons."""
    inside = np.zeros(size, bool)
    for polygon in polygons:
        corners = np.array(polygon) * size[::-1]
        if np.ptp(corners, axis=0).min() == 0:
            continue  # a line holds no pixel
        try:
            inside ^= Shapes("region", size, (tuple(corners.ravel().tolist()),)).draw()
        except ImageError as error:
            raise ModelFileError(str(error)) from None
    return inside


def outline(mask: NDArray[np.bool_]) -> list[Polygon]:
    """Polygons, by the even-odd rule, around the True pixels of an H×W mask; they follow its edges within a pixel.

    Raises:
        ImageError: the mask has more spots than a region may have polygons.
    """
    # Points at the pixels' middles, edges and corners: OpenCV goes through the outermost, which are the edges here.
    points = np.zeros((2 * mask.shape[0] + 1, 2 * mask.shape[1] + 1), np.uint8)
    points[1::2, 1::2] = mask
    closed = cv2.dilate(points, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) > MOST_POLYGONS:
        raise ImageError(f"{len(contours)} spots and holes: a region has at most {MOST_POLYGONS}; draw it coarser")
    tolerance = _FINEST
    while True:
        simple = [_simplified(contour, 2 * tolerance) for contour in contours]
        if sum(map(len, simple)) <= MOST_CORNERS:
            return [_as_fractions(contour, (mask.shape[0], mask.shape[1])) for contour in simple]
        tolerance *= 2


def _simplified(contour: NDArray[Any], tolerance: float) -> NDArray[np.int32]:
    simple = cv2.approxPolyDP(contour, tolerance, closed=True)
    return np.asarray((simple if len(simple) >= 3 else contour)[:, 0], np.int32)


def _as_fractions(corners: NDArray[np.int32], size: tuple[int, int]) -> Polygon:
    """Corners in halves of pixels as fractions of the image."""
    places = corners / (2 * np.array(size[::-1]))
    return [(round(float(x), _DIGITS), round(float(y), _DIGITS)) for x, y in places]
