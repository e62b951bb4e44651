"""A printed type plate: two inks on coated paper, stuck on a moulded plastic housing."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.data.surfaces.optics import (
    FRAME,
    Canvas,
    Field,
    Generator,
    Scene,
    blur,
    bump,
    clip,
    irregular_depth,
    lighting,
    mix,
    noise,
    rgb,
    shift,
    slope,
    step,
    strand,
    wandering_line,
)

DEFECTS = ("ink_spot", "missing_print", "scratch", "smear")

PAPER = (0.70, 0.695, 0.66)
HOUSING = (0.046, 0.049, 0.054)
BLACK = (0.030, 0.030, 0.034)
"""What ink of full strength lets through."""
HUES = ((0.055, 0.24, 0.36), (0.62, 0.17, 0.035), (0.10, 0.30, 0.14))
LABEL = (15.0, 24.0, 241.0, 232.0)
"""Left, top, right, bottom of the label in units."""

Plate = NDArray[np.uint8]


def render(rng: Generator, canvas: Canvas, defect: str | None, flaw: Generator, *, style: int = 0) -> Scene:
    """One photograph's light; `rng` makes the copy, `flaw` the defect alone, `style` the seed of the design."""
    hue, inks = _print(rng, canvas, style)
    visibility = canvas.zeros()
    if defect == "missing_print":
        inks, visibility = _miss(flaw, canvas, inks)
    elif defect == "smear":
        inks, visibility = _smear(flaw, canvas, inks)
    elif defect == "ink_spot":
        inks, visibility = _spill(flaw, canvas, inks)
    grain = 1.0 + 0.012 * noise(rng, canvas.n, canvas.n // 3) + 0.012 * noise(rng, canvas.n, 70)
    paper = rgb(PAPER) * grain
    # Inks are filters: what two let through is the product.
    clear = 1.0 - clip(inks[0], 0, 1) * (1.0 - rgb(hue))
    dark = 1.0 - clip(inks[1], 0, 1) * (1.0 - rgb(BLACK))
    label: Field = paper * clear * dark
    if defect == "scratch":
        label, visibility = _scratch(flaw, canvas, label, inks)
    radiance, inside = _stick(rng, canvas, label)
    light = lighting(rng, canvas, gradient=0.12, vignette=0.16)
    gloss = 0.03 * bump(canvas.x - np.float32(rng.uniform(-20, 270)) + 0.5 * canvas.y - 60.0, 90.0)
    return Scene(radiance * light + gloss, visibility * inside)


@lru_cache(maxsize=4)
def _design(n: int, style: int) -> tuple[tuple[float, float, float], Field, Field]:
    """The artwork of a seed: hue, and coverage of the coloured and of the black ink (n×n in [0, 1])."""
    rng = np.random.default_rng([style, 4])
    colour, black = np.zeros((2 * n, 2 * n), np.uint8), np.zeros((2 * n, 2 * n), np.uint8)
    k = 2 * n / FRAME

    def text(plate: Plate, words: str, x: float, y: float, width: float, weight: float, level: int = 255) -> None:
        # Fitted to its width: OpenCV 4 and 5 draw the same font name with different letters.
        bold = max(1, round(weight * k))
        (reach, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 10.0, bold)
        place, scale = (round(x * k), round(y * k)), 10.0 * width * k / reach
        cv2.putText(plate, words, place, cv2.FONT_HERSHEY_SIMPLEX, scale, level, bold, cv2.LINE_AA)

    def box(plate: Plate, x: float, y: float, width: float, height: float) -> None:
        corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
        cv2.fillPoly(plate, [np.round(corners * k * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)

    # The band runs over the label's rim, as bleed, so that no white line shows where the cut is off.
    box(colour, 5, 14, 246, 56)
    _logo(colour, k, 44, 48)
    brand = ("SERVO", "MOTOR", "VALVE", "RELAY")[int(rng.integers(4))]
    text(colour, brand, 70, 57, 98, 2.0, 0)
    text(colour, "SERIES", 180, 57, 43, 0.8, 0)
    model = f"{'ABDEKM'[int(rng.integers(6))]}{rng.integers(100, 990)}-{rng.integers(2, 9)}"
    text(black, model, 26, 96, 70, 1.6)
    rows = (("UB", "24 V DC"), ("IN", "1.5 A  50 Hz"), ("PN", f"{rng.integers(20, 99)} W  IP 65"))
    for i, (sign, value) in enumerate(rows):
        text(black, sign, 26, 114.5 + 14 * i, 11, 0.6)
        text(black, value, 46, 114.5 + 14 * i, 5.3 * len(value), 0.6)
        box(black, 26, 118.2 + 14 * i, 112, 0.5)
    box(colour, 26, 154, 112, 3.0)
    x = 26.0
    while x < 130:
        bar, gap = 1.15 * rng.integers(1, 4), 1.15 * rng.integers(1, 4)
        box(black, x, 166, bar, 36)
        x += float(bar + gap)
    text(black, " ".join(str(rng.integers(1000, 9999)) for _ in range(3)), 28, 214, 100, 0.6)
    modules = rng.random((16, 16)) < 0.5
    modules[:, 0], modules[-1, :], modules[0, :] = True, True, np.arange(16) % 2 == 0
    for i, j in np.argwhere(modules):
        box(black, 164 + 3.9 * float(j), 88 + 3.9 * float(i), 3.95, 3.95)
    _warning(colour, black, k, 179, 184)
    text(black, "T2A", 201, 197, 27, 1.0)
    text(black, f"LOT {rng.integers(10, 99)}", 164, 217, 38, 0.6)

    def halve(plate: Plate) -> Field:
        return np.asarray(cv2.resize(plate, (n, n), interpolation=cv2.INTER_AREA), np.float32) / np.float32(255)

    return HUES[int(rng.integers(len(HUES)))], halve(colour), halve(black)


def _logo(plate: Plate, k: float, x: float, y: float) -> None:
    """A knocked-out mark: a ring that a rising wave cuts."""
    centre = (round(x * k), round(y * k))
    cv2.circle(plate, centre, round(16 * k), 0, -1, cv2.LINE_AA)
    cv2.circle(plate, centre, round(12.5 * k), 255, -1, cv2.LINE_AA)
    t = np.linspace(-1, 1, 40)
    wave = np.stack([x + 15 * t, y - 6.5 * np.sin(2.6 * t)], axis=1)
    cv2.polylines(plate, [np.round(wave * k * 16).astype(np.int32)], False, 0, round(4.2 * k), cv2.LINE_AA, 4)


def _warning(colour: Plate, black: Plate, k: float, x: float, y: float) -> None:
    """The triangle that warns of voltage: coloured field, black rim and bolt."""
    corners = np.array([[x - 15, y + 15], [x + 15, y + 15], [x, y - 11]])
    scaled = np.round(corners * k * 16).astype(np.int32)
    cv2.fillPoly(colour, [scaled], 150, cv2.LINE_AA, 4)
    cv2.polylines(black, [scaled], True, 255, round(2.2 * k), cv2.LINE_AA, 4)
    bolt = np.array([[1.5, -5], [-3.5, 5], [0, 4.2], [-1.2, 11.5], [3.8, 2.2], [0.5, 2.6]])
    cv2.fillPoly(black, [np.round((bolt + np.array([x, y])) * k * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)


def _print(rng: Generator, canvas: Canvas, style: int) -> tuple[tuple[float, float, float], list[Field]]:
    """The inks of one copy: its place, the inks' registration, their mottle and squeezed edges."""
    hue, colour, black = _design(canvas.n, style)
    degrees, scale = rng.normal(0.0, 0.45), rng.normal(1.0, 0.005)
    place = rng.normal(0.0, 1.3, 2)
    inks: list[Field] = []
    for plate in (colour, black):
        matrix = np.array(cv2.getRotationMatrix2D((canvas.n / 2, canvas.n / 2), degrees, scale), np.float64)
        matrix[:, 2] += (place + rng.normal(0.0, 0.35, 2)) * canvas.k
        moved = np.asarray(cv2.warpAffine(plate, matrix, (canvas.n, canvas.n), flags=cv2.INTER_LINEAR), np.float32)
        # Paper is rough: an ink's edge wanders by its fibres, and its film is uneven.
        rough = noise(rng, canvas.n, canvas.n // 2)
        film = 0.965 + 0.012 * noise(rng, canvas.n, 90) + 0.010 * noise(rng, canvas.n, 8)
        spread = blur(moved, 0.35 * canvas.k) + 0.07 * rough * (blur(moved, 0.9 * canvas.k) - 0.5 * moved)
        inks.append(clip(spread, 0.0, 1.0) * clip(film - 0.02 * np.abs(rough), 0.0, 1.0))
    return hue, inks


def _stick(rng: Generator, canvas: Canvas, label: Field) -> tuple[Field, Field]:
    """The label on its housing, with rounded corners, a lit edge and a shadow; and where the label is."""
    left, top, right, bottom = LABEL
    play = rng.normal(0.0, 0.9, 2)
    dx = np.abs(canvas.x - np.float32((left + right) / 2 + play[0])) - np.float32((right - left) / 2 - 8.0)
    dy = np.abs(canvas.y - np.float32((top + bottom) / 2 + play[1])) - np.float32((bottom - top) / 2 - 8.0)
    beyond = np.sqrt(np.square(clip(dx, 0, None)) + np.square(clip(dy, 0, None)))
    outside = beyond + np.minimum(np.maximum(dx, dy), 0.0) - 8.0
    inside = step(-0.5, 0.5, -outside)
    texture = blur(rng.standard_normal((canvas.n, canvas.n), dtype=np.float32), 0.55 * canvas.k)
    moulded = rgb(HOUSING) * (1.0 + 0.35 * texture + 0.06 * noise(rng, canvas.n, 6))
    shadow = shift(step(-5.0, 1.5, -outside), 1.4 * canvas.k, 2.0 * canvas.k)
    edge = 1.0 + 0.10 * step(0.2, 1.2, 1.6 + outside) * inside
    return mix(moulded * (1.0 - 0.65 * shadow), label * edge, inside), inside


def _on_ink(flaw: Generator, canvas: Canvas, cover: Field, margin: float) -> tuple[float, float]:
    """A place where the print is dense, at least `margin` units from the frame."""
    dense = cv2.boxFilter(cover, cv2.CV_32F, (2 * int(5 * canvas.k) + 1,) * 2)[:: canvas.n // 64, :: canvas.n // 64]
    unit = FRAME / dense.shape[0]
    rows, columns = np.nonzero(dense > 0.35)
    clear = (np.minimum(rows, columns) * unit > margin) & (np.maximum(rows, columns) * unit < FRAME - margin)
    pick = int(flaw.integers(int(clear.sum())))
    return float((columns[clear][pick] + 0.5) * unit), float((rows[clear][pick] + 0.5) * unit)


def _miss(flaw: Generator, canvas: Canvas, inks: list[Field]) -> tuple[list[Field], Field]:
    """Ink that did not take: a ragged void with a thin rest of ink in it."""
    cover = np.maximum(inks[0], inks[1])
    depth = irregular_depth(flaw, canvas, _on_ink(flaw, canvas, cover, 30.0), flaw.uniform(8.0, 18.0), 0.5)
    fine = clip(noise(flaw, canvas.n, 110), -2, 2)
    void = step(-1.0, 1.4, depth + 0.9 * fine) * clip(0.97 - 0.10 * np.abs(fine), 0, 1)
    # Marked is what is missing, with the narrow gaps between strokes.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(1.2 * canvas.k) + 1,) * 2)
    near = np.asarray(cv2.dilate(cover, disc), np.float32)
    return [ink * (1.0 - void) for ink in inks], void * step(0.15, 0.5, near)


def _smear(flaw: Generator, canvas: Canvas, inks: list[Field]) -> tuple[list[Field], Field]:
    """Wet ink dragged by a finger or a roller: streaks that fade away from the print."""
    x, y = _on_ink(flaw, canvas, inks[1], 45.0)
    radius, reach = flaw.uniform(14, 22), flaw.uniform(20, 34)
    # Not along the text: a smear along bars and lines would hide in them.
    heading = flaw.choice([-1.0, 1.0]) * flaw.uniform(0.3, 1.2) + np.pi * flaw.integers(2)
    dx, dy = canvas.x - np.float32(x), canvas.y - np.float32(y)
    depth = irregular_depth(flaw, canvas, (x, y), radius, 0.3)
    wet = inks[1] * step(-2.0, 2.0, depth)
    steps = int(reach * canvas.k / 2)
    dragged = canvas.zeros()
    for i in range(1, steps + 1):
        way = i / steps
        moved = shift(wet, reach * way * np.cos(heading) * canvas.k, reach * way * np.sin(heading) * canvas.k)
        dragged = np.maximum(dragged, moved * np.float32(0.95 * (1.0 - way) ** 0.7))
    across = np.float32(np.cos(heading)) * dy - np.float32(np.sin(heading)) * dx
    ridges = np.interp(across, np.linspace(-60, 60, 150), flaw.uniform(0.45, 1.0, 150)).astype(np.float32)
    dragged = blur(dragged * ridges, 0.5 * canvas.k)
    taken = 1.0 - 0.25 * step(-2.0, 2.0, depth) * ridges
    black = np.maximum(inks[1] * taken, dragged)
    # Marked is the changed region as a whole, with the strokes it crosses.
    changed = blur(np.abs(black - inks[1]), 0.8 * canvas.k)
    side = 2 * round(2.5 * canvas.k) + 1
    closed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return [inks[0], black], step(0.02, 0.16, np.asarray(closed, np.float32))


def _spill(flaw: Generator, canvas: Canvas, inks: list[Field]) -> tuple[list[Field], Field]:
    """Ink where none belongs: a drop with a darker rim and its splashes."""
    left, _, right, bottom = LABEL
    x, y = flaw.uniform(left + 28, right - 28), flaw.uniform(78, bottom - 28)
    radius = flaw.uniform(5.0, 10.5)
    splashes = np.zeros((canvas.n, canvas.n), np.uint8)
    for _ in range(int(flaw.integers(3, 9))):
        away, angle = flaw.uniform(1.4, 2.6) * radius, flaw.uniform(0, 2 * np.pi)
        size = radius * flaw.uniform(0.08, 0.24)
        centre = np.round(np.array([x + away * np.cos(angle), y + away * np.sin(angle)]) * canvas.k * 16)
        axes = np.round(np.array([size * flaw.uniform(1.0, 1.8), size]) * canvas.k * 16)
        # A splash is drawn out along its flight.
        place, reach = centre.astype(int).tolist(), axes.astype(int).tolist()
        cv2.ellipse(splashes, place, reach, float(np.rad2deg(angle)), 0, 360, 255, -1, cv2.LINE_AA, 4)
    depth = irregular_depth(flaw, canvas, (x, y), radius, 0.22)
    # The film is thinner in the middle: ink dries from its rim.
    drop = step(-0.8, 0.8, depth) * (1.0 - 0.05 * step(0.6, 2.4, depth))
    drop = np.maximum(drop, blur(splashes.astype(np.float32) / np.float32(255), 0.3 * canvas.k))
    drop *= clip(0.98 + 0.012 * noise(flaw, canvas.n, 60), 0, 1)
    free = 1.0 - np.maximum(inks[1], 0.0)
    return [inks[0], np.maximum(inks[1], drop)], drop * step(0.02, 0.3, blur(free, 1.2 * canvas.k))


def _scratch(flaw: Generator, canvas: Canvas, label: Field, inks: list[Field]) -> tuple[Field, Field]:
    """A scratch through ink and coating down to the paper's fibres."""
    x, y = _on_ink(flaw, canvas, np.maximum(inks[0], inks[1]), 40.0)
    length, heading = flaw.uniform(45, 100), flaw.uniform(0, np.pi)
    shown = canvas.zeros()
    for i in range(int(flaw.integers(1, 4))):
        reach = length if i == 0 else length * flaw.uniform(0.25, 0.6)
        aside = flaw.normal(0, 4.0, 2) if i else (0.0, 0.0)
        start = (x - 0.5 * reach * np.cos(heading) + aside[0], y - 0.5 * reach * np.sin(heading) + aside[1])
        line = strand(canvas, wandering_line(flaw, start, reach, heading, 0.3))
        force = np.interp(line.along, np.linspace(0, 1, 20), flaw.uniform(0.5, 1.0, 20)).astype(np.float32)
        force *= clip(np.minimum(line.along, 1.0 - line.along) * 8.0 + 0.1, 0.0, 1.0)
        half = np.float32(2.4 if i == 0 else 1.2) * (0.4 + 0.75 * force)
        ragged = 0.35 * clip(noise(flaw, canvas.n, 150), -2, 2)
        groove = step(-0.4, 0.4, half + ragged - line.distance) * clip(1.6 * force, 0.0, 1.0)
        shown = np.maximum(shown, groove)
    dx, dy = slope(blur(shown, 0.35 * canvas.k))
    relief = clip(1.0 - 0.75 * (dx + dy), 0.45, 1.5)
    fibres = rgb((0.36, 0.33, 0.29)) * (1.0 + 0.10 * noise(flaw, canvas.n, 180))
    scratched = mix(label, fibres.astype(np.float32), 0.92 * shown) * relief
    return scratched.astype(np.float32), shown
