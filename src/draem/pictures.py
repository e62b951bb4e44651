"""Pictures for people: heat map, overlay on the photograph, sheet of pictures. All H×W×3 uint8 RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_CONTOUR, _CONTOUR_EDGE = (0, 255, 255), (0, 0, 0)
_ROWS = 256
_INK, _GREY_INK, _PAPER = (20, 20, 20), (90, 90, 90), 255


def heat_map(anomaly_map: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Colour an H×W map in [0, 1] with the inferno scale: lightness grows evenly, so equal steps look equal.

    Values outside [0, 1] are cut. Source of the scale: matplotlib's inferno, as OpenCV ships it.
    """
    levels = np.rint(np.clip(anomaly_map, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1], np.uint8)


def overlay(
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.floating[Any]],
    mask: NDArray[np.bool_] | None = None,
    alpha: float = 0.5,
) -> NDArray[np.uint8]:
    """Lay an H×W anomaly map in [0, 1] over its H×W×3 image; `mask` is outlined.

    The heat's weight is `alpha` times the map: where the map is 0 the photograph is unchanged. The outline runs just
    outside the mask, cyan with a black edge, so it shows on any surface and hides no defect.
    """
    picture = np.empty_like(image, order="C")
    for top in range(0, len(image), _ROWS):  # at once, floats of a large image would take many times its memory
        rows = slice(top, top + _ROWS)
        weight = (alpha * np.clip(anomaly_map[rows], 0, 1)).astype(np.float32)[..., None]
        picture[rows] = np.rint(image[rows] * (1 - weight) + heat_map(anomaly_map[rows]) * weight)
    if mask is not None and mask.any():
        _outline(picture, mask)
    return picture


def _outline(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Draw around the mask, in place; the line grows with the picture so that it survives being shown small."""
    thickness = max(1, round(min(picture.shape[:2]) / 300))
    region = mask.astype(np.uint8)
    # Rings made by dilation are crisp and stay outside the mask; drawn contours would cover small regions.
    line = _dilated(region, thickness)
    edge = _dilated(line, max(1, thickness // 2))
    picture[edge > line] = _CONTOUR_EDGE
    picture[line > region] = _CONTOUR


def _dilated(region: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(region, shape), np.uint8)


def sheet(
    rows: Sequence[Sequence[NDArray[Any]]],
    titles: Sequence[str],
    captions: Sequence[str] | None = None,
    cell: tuple[int, int] = (256, 256),
) -> NDArray[np.uint8]:
    """Set pictures in rows and columns on white, with a title above each column and a caption below each row.

    Pictures are H×W×3 uint8 RGB, H×W uint8 grey, or H×W bool masks; each is scaled to fit the `cell` (height, width),
    its aspect ratio kept. Small ones grow in whole pixels, not blurred. Text too long for its place is made smaller,
    then cut; letters outside ASCII come out as question marks.

    Raises:
        ValueError: no rows, a row that has not one picture a title, or not one caption a row.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise ValueError("a sheet needs rows with one picture for each title")
    if captions is not None and len(captions) != len(rows):
        raise ValueError("a sheet needs one caption for each row")
    height, width = cell
    margin, line = max(8, min(cell) // 20), max(18, min(cell) // 10)
    step = height + margin + (line if captions else 0)
    total = (2 * margin + line + step * len(rows), margin + (width + margin) * len(titles))
    page = np.full((*total, 3), _PAPER, np.uint8)
    for column, title in enumerate(titles):
        _write(page, title, margin + column * (width + margin), margin // 2, (line, width), _INK, centred=True)
    for index, row in enumerate(rows):
        top = margin + line + index * step
        for column, picture in enumerate(row):
            left = margin + column * (width + margin)
            _place(page[top : top + height, left : left + width], picture)
        if captions:
            _write(page, captions[index], margin, top + height, (line, total[1] - 2 * margin), _GREY_INK)
    return page


def _place(room: NDArray[np.uint8], picture: NDArray[Any]) -> None:
    """Scale a picture into the middle of its cell, in place."""
    pixels = scaled(picture, (room.shape[0], room.shape[1]))
    height, width = pixels.shape[:2]
    top, left = (room.shape[0] - height) // 2, (room.shape[1] - width) // 2
    room[top : top + height, left : left + width] = pixels


def scaled(picture: NDArray[Any], cell: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture as large as it fits into a cell of a `sheet`, H×W×3 uint8 RGB."""
    pixels = picture.astype(np.uint8) * 255 if picture.dtype == np.bool_ else picture
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    scale = min(cell[0] / pixels.shape[0], cell[1] / pixels.shape[1])
    height, width = (max(1, min(round(side * scale), most)) for side, most in zip(pixels.shape, cell, strict=False))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)


def _write(
    page: NDArray[np.uint8],
    text: str,
    left: int,
    top: int,
    room: tuple[int, int],
    ink: tuple[int, int, int],
    centred: bool = False,
) -> None:
    """Write one line into the room (height, width), in place: smaller if it is too wide, cut below 60 %."""
    text = text.encode("ascii", "replace").decode()  # OpenCV crashes on what is no text
    scale = room[0] / 36
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, 1)
    shrink = min(1.0, room[1] / max(width, 1))
    if shrink < 0.6:
        kept = max(1, int(len(text) * shrink / 0.6) - 3)
        text, shrink = text[:kept] + "...", 0.6
    (width, height), _ = cv2.getTextSize(text, _FONT, scale * shrink, 1)
    start = left + max(0, (room[1] - width) // 2) if centred else left
    cv2.putText(page, text, (start, top + (room[0] + height) // 2), _FONT, scale * shrink, ink, 1, cv2.LINE_AA)
