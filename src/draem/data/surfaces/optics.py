"""What the rendered surfaces share: noise, outlines, strands, light and the camera.

Lengths are in units of 1/256 of the image's width, so that a picture looks the same at every size. Fields are square
float32 arrays at the working resolution, `SUPERSAMPLE` times the picture's; the camera averages them down. Colour is
planar, 3×n×n, so that a field times a colour picture is one plain product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""A float32 array; NumPy's stubs lose its width in products with numbers, so the type does not hold them to it."""
Generator = np.random.Generator
Colour = tuple[float, float, float]

SUPERSAMPLE = 1.5
FRAME = 256.0
"""Width and height of the picture in units."""
MARKED = 0.25
"""Opacity of a defect from which an annotator would mark it."""


@dataclass(frozen=True)
class Canvas:
    """Coordinates of a working picture: `n` samples a side, `k` samples a unit, `x` and `y` in units (n×n)."""

    n: int
    k: float
    x: Field
    y: Field

    @classmethod
    def of_size(cls, size: int) -> Canvas:
        """The canvas behind a picture of `size`×`size` pixels."""
        n = round(size * SUPERSAMPLE)
        axis = ((np.arange(n, dtype=np.float32) + 0.5) * (FRAME / n)).astype(np.float32)
        x, y = np.meshgrid(axis, axis)
        return cls(n, n / FRAME, x, y)

    def zeros(self) -> Field:
        """An empty field."""
        return np.zeros((self.n, self.n), np.float32)


@dataclass(frozen=True)
class Scene:
    """Light that reaches the camera (3×n×n, linear, about [0, 1]) and how visible the defect is (n×n in [0, 1])."""

    radiance: Field
    visibility: Field


def clip(value: Field, low: float | None, high: float | None) -> Field:
    """The field held between `low` and `high`."""
    return np.asarray(np.clip(value, low, high), np.float32)


def step(low: float, high: float, value: Field) -> Field:
    """Hermite step from 0 below `low` to 1 above `high`."""
    t = clip((value - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump(distance: Field, reach: float) -> Field:
    """1 at distance 0, exactly 0 from `reach` on, smooth between."""
    ratio = distance * np.float32(1.0 / reach)
    inside = clip(1.0 - ratio * ratio, 0.0, None)
    return inside * inside


def around(canvas: Canvas, inside: NDArray[np.bool_], reach: float) -> Field:
    """1 inside, falling smoothly to exactly 0 at `reach` units from the nearest sample inside."""
    away = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5)
    return step(-reach, 0.0, -np.asarray(away, np.float32) / np.float32(canvas.k))


def noise(rng: Generator, n: int, rows: int, columns: int | None = None) -> Field:
    """Smooth noise of unit variance at the nodes: `rows`×`columns` normal draws, made n×n by cubic interpolation."""
    columns = columns or rows
    field = rng.standard_normal((max(rows, 2), max(columns, 2)), dtype=np.float32)
    if 8 * max(rows, columns) <= n:
        # Already smooth at a quarter of the size: straight lines do for the rest, and are cheaper.
        field = cv2.resize(field, (n // 4, n // 4), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
        return np.asarray(cv2.resize(field, (n, n), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.asarray(cv2.resize(field, (n, n), interpolation=cv2.INTER_CUBIC), np.float32)


def blur(field: Field, sigma: float) -> Field:
    """Gaussian blur, sigma in samples; its reach is cut at 3 sigma so that what it spreads stays local."""
    side = 2 * max(1, int(np.ceil(3.0 * sigma))) + 1
    return np.asarray(cv2.GaussianBlur(field, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101), np.float32)


def shift(field: Field, dx: float, dy: float) -> Field:
    """The field moved by (dx, dy) samples; zeros come in."""
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return np.asarray(cv2.warpAffine(field, matrix, field.shape[1::-1], flags=cv2.INTER_LINEAR), np.float32)


def slope(field: Field) -> tuple[Field, Field]:
    """Central differences along x and y, per two samples."""
    kernel = np.array([[-1, 0, 1]], np.float32)
    dx = cv2.filter2D(field, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101)
    dy = cv2.filter2D(field, cv2.CV_32F, kernel.T, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(dx, np.float32), np.asarray(dy, np.float32)


def rgb(colour: Colour) -> Field:
    """A linear RGB colour as 3×1×1, to multiply fields with."""
    return np.array(colour, np.float32)[:, None, None]


def mix(below: Field, above: Field | Colour, opacity: Field) -> Field:
    """`above` (3×n×n or one colour) laid over `below` (3×n×n) with `opacity` (n×n)."""
    mixed = ((rgb(above) if isinstance(above, tuple) else above) - below) * opacity
    mixed += below
    return mixed


def irregular_depth(rng: Generator, canvas: Canvas, centre: tuple[float, float], radius: float, rough: float) -> Field:
    """Units inside an irregular closed outline: positive inside, negative outside.

    `rough` is the outline's relative deviation; a slow wander gives the shape, fine noise the ragged edge.
    """
    dx, dy = canvas.x - np.float32(centre[0]), canvas.y - np.float32(centre[1])
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.0 + 1.5 * rough)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    across, along = (cos * dx + sin * dy) * np.float32(stretch), (cos * dy - sin * dx) / np.float32(stretch)
    distance = np.sqrt(across * across + along * along)
    cells = int(FRAME / max(radius, 2.0) * 1.6)
    wander = noise(rng, canvas.n, cells) + 0.45 * noise(rng, canvas.n, 3 * cells)
    wander = np.clip(wander, -1.6, 1.6)
    return (radius - distance + np.float32(rough * radius * 0.6) * wander).astype(np.float32)


def wandering_line(
    rng: Generator, start: tuple[float, float], length: float, heading: float, bend: float, points: int = 48
) -> NDArray[np.float32]:
    """A smooth curve of `length` units as points×2 (x, y); `bend` is the heading's total drift in radians."""
    knots = np.cumsum(rng.normal(0.0, 1.0, 6))
    drift = np.interp(np.linspace(0, 5, points), np.arange(6), knots - knots[0])
    drift = np.convolve(np.pad(drift, 6, mode="edge"), np.full(13, 1 / 13), mode="valid")
    angle = heading + bend * (rng.uniform(-0.5, 0.5) * np.linspace(0, 1, points) + 0.35 * drift)
    pace = length / (points - 1)
    track = np.cumsum(np.stack([np.cos(angle), np.sin(angle)], axis=1) * pace, axis=0)
    return np.asarray(track - track[0] + np.asarray(start), np.float32)


@dataclass(frozen=True)
class Strand:
    """Fields about a curve: distance to it in units, position along it in [0, 1], both n×n."""

    distance: Field
    along: Field


def strand(canvas: Canvas, points: NDArray[np.float32]) -> Strand:
    """Distance to the curve and position along it, for lines that change on their way."""
    free = np.full((canvas.n, canvas.n), 255, np.uint8)
    place = canvas.zeros()
    samples = np.round(points * canvas.k * 16 - 8).astype(np.int32)
    count = len(points) - 1
    for i in range(count):
        first, last = samples[i].tolist(), samples[i + 1].tolist()
        cv2.line(free, first, last, 0, 1, cv2.LINE_8, 4)
        cv2.line(place, first, last, (i + 0.5) / count, 1, cv2.LINE_8, 4)
    distance, labels = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    on_line = free == 0
    along = np.zeros(int(labels.max()) + 1, np.float32)
    along[labels[on_line]] = place[on_line]
    return Strand(np.asarray(distance, np.float32) / np.float32(canvas.k), along[labels])


def lighting(rng: Generator, canvas: Canvas, gradient: float, vignette: float) -> Field:
    """Uneven light: a linear fall-off in a random direction (relative, edge to centre) and darker corners."""
    heading, amount = rng.uniform(0, 2 * np.pi), gradient * rng.uniform(0.35, 1.0)
    x, y = canvas.x * (2 / FRAME) - 1, canvas.y * (2 / FRAME) - 1
    dim = vignette * rng.uniform(0.6, 1.0)
    slant = np.float32(amount * np.cos(heading)) * x + np.float32(amount * np.sin(heading)) * y
    return (1.0 + slant - np.float32(dim / 2) * (x * x + y * y)).astype(np.float32)


def photograph(rng: Generator, canvas: Canvas, radiance: Field) -> NDArray[np.uint8]:
    """What a colour camera records: lens blur, exposure, white balance, shot and read noise, gamma; H×W×3 uint8."""
    size = round(canvas.n / SUPERSAMPLE)
    planes = [cv2.resize(plane, (size, size), interpolation=cv2.INTER_AREA) for plane in radiance]
    light = blur(np.stack(planes, axis=2).astype(np.float32, copy=False), rng.uniform(0.45, 0.7))
    gain = rng.uniform(0.93, 1.07) * (1.0 + rng.normal(0.0, 0.008, 3))
    light = np.clip(light * gain.astype(np.float32), 0.0, 1.2)
    grain = rng.standard_normal((size, size, 3), dtype=np.float32)
    luma = rng.standard_normal((size, size, 1), dtype=np.float32)
    sigma = np.sqrt(1.6e-4 * light + 6e-6)
    light = np.clip(light + sigma * (0.6 * grain + 0.8 * luma), 0.0, None)
    # A square root with a straight foot: close to sRGB, and cheaper than a power.
    shown = np.sqrt(light + 0.0016) - 0.04
    return np.asarray(np.clip(np.round(shown * 255.0), 0, 255), np.uint8)
