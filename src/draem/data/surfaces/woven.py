"""A plain-woven cloth: yarns over and under each other, uneven, fuzzy, slightly out of true."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from draem.data.surfaces.optics import (
    FRAME,
    MARKED,
    Canvas,
    Colour,
    Field,
    Generator,
    Scene,
    around,
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

DEFECTS = ("broken_thread", "foreign_fibre", "hole", "stain")

PITCH = 8.5
"""Units from yarn to yarn."""
YARNS = 64
"""Length of the tables of per-yarn properties: more than the frame can show."""
WARP_COLOUR = (0.135, 0.190, 0.250)
WEFT_COLOUR = (0.385, 0.415, 0.425)
TABLE_COLOUR = (0.012, 0.011, 0.010)
"""What shows through where both yarns are gone."""


@dataclass(frozen=True)
class Loose:
    """A thread that lies on the cloth: its curve in units, its width in units, its colour."""

    points: Field
    width: float
    colour: Colour


@dataclass
class Cloth:
    """Position in yarn numbers (n×n), and where warp and weft are cut away (0 whole, 1 gone)."""

    u: Field
    v: Field
    warp_cut: Field
    weft_cut: Field
    loose: list[Loose] = field(default_factory=list)


def render(rng: Generator, canvas: Canvas, defect: str | None, flaw: Generator) -> Scene:
    """One photograph's light; `rng` makes the cloth, `flaw` the defect alone."""
    cloth = _lay_out(rng, canvas)
    visibility = canvas.zeros()
    if defect == "hole":
        visibility = _tear(flaw, canvas, cloth)
    elif defect == "broken_thread":
        visibility = _break(flaw, canvas, cloth)
    elif defect == "foreign_fibre":
        cloth.loose.append(_foreign_fibre(flaw))
    radiance, height = _weave(rng, canvas, cloth)
    if defect == "stain":
        radiance, visibility = _soak(flaw, canvas, radiance, height)
    for thread in cloth.loose:
        radiance, cover = _lay_on(flaw, canvas, radiance, thread)
        visibility = np.maximum(visibility, cover)
    light = lighting(rng, canvas, gradient=0.16, vignette=0.18)
    return Scene(radiance * light, visibility)


def _lay_out(rng: Generator, canvas: Canvas) -> Cloth:
    """The cloth as it happens to lie: shifted, turned, scaled, drawn slightly out of true."""
    turn, scale = np.deg2rad(rng.normal(0.0, 1.1)), rng.normal(1.0, 0.012)
    x = canvas.x - FRAME / 2 + 1.2 * noise(rng, canvas.n, 4) + 0.5 * noise(rng, canvas.n, 10)
    y = canvas.y - FRAME / 2 + 1.2 * noise(rng, canvas.n, 4) + 0.5 * noise(rng, canvas.n, 10)
    cos, sin = np.float32(np.cos(turn) * scale / PITCH), np.float32(np.sin(turn) * scale / PITCH)
    offset = rng.uniform(0, 2, 2).astype(np.float32) + YARNS // 2
    return Cloth(cos * x + sin * y + offset[0], cos * y - sin * x + offset[1], canvas.zeros(), canvas.zeros())


@dataclass(frozen=True)
class Yarns:
    """One set of parallel yarns as seen everywhere: height, tone, and the fraction across the yarn in [-1, 1]."""

    height: Field
    tone: Field


def _yarns(rng: Generator, across: Field, along: Field, over: float, cut: Field) -> Yarns:
    """Height and tone of the yarns that are numbered by `across` and run with `along`.

    `over` is +1 or -1: which of the two sets lies on top where both numbers are even.
    """
    sway = np.broadcast_to(rng.normal(0.0, 0.055, (YARNS, 1)), (YARNS, YARNS))
    girth = np.clip(rng.normal(0.98, 0.05, (YARNS, 1)) + rng.normal(0.0, 0.065, (YARNS, YARNS)), 0.8, 1.12)
    shade = np.clip(rng.normal(1.0, 0.08, (YARNS, 1)) + rng.normal(0.0, 0.065, (YARNS, YARNS)), 0.7, 1.3)
    number = np.floor(across)
    # A knot of the tables every 1.5 crossings: slubs are longer than a crossing.
    place = np.mod(along * np.float32(1 / 1.5), YARNS - 1).astype(np.float32)
    girths, shades, sways = (
        cv2.remap(table.astype(np.float32), place, number, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for table in (girth, shade, sway)
    )
    fraction = (across - number - np.float32(0.5) - sways) / (0.5 * girths)
    round_top = np.sqrt(clip(1.0 - fraction * fraction, 0.0, 1.0))
    crimp = np.float32(over) * np.cos(np.float32(np.pi) * (along - np.float32(0.5) - number))
    # Where the crossing yarns are cut away the yarn straightens; where it is cut itself it is gone.
    height = 0.62 * round_top + 0.5 * crimp - np.float32(2.0) * (np.abs(fraction) >= 1.0) - 3.0 * cut
    return Yarns(height.astype(np.float32), shades * (0.72 + 0.28 * round_top))


def _weave(rng: Generator, canvas: Canvas, cloth: Cloth) -> tuple[Field, Field]:
    """Colour under flat light (3×n×n) and height of the woven surface."""
    warp = _yarns(rng, cloth.u, cloth.v, 1.0, cloth.warp_cut)
    weft = _yarns(rng, cloth.v, cloth.u, -1.0, cloth.weft_cut)
    on_top = warp.height > weft.height
    height = np.maximum(np.maximum(warp.height, weft.height), np.float32(-0.75))
    through = step(0.45, 0.74, -height)
    soft = blur(height, 0.55 * canvas.k)
    dx, dy = slope(soft)
    heading = rng.normal(-2.2, 0.12)
    tilt = np.float32(0.55 * canvas.k * np.cos(heading)) * dx + np.float32(0.55 * canvas.k * np.sin(heading)) * dy
    shading = clip(0.80 - tilt, 0.25, 1.5) * (0.42 + 0.58 * step(-0.55, 0.75, soft))
    # A yarn that nothing crosses any more lies deep between its neighbours.
    shading = shading * (1.0 - 0.42 * np.maximum(cloth.warp_cut, cloth.weft_cut))
    # Twisted fibres: the same grain drawn out steeply along the warp and flatly along the weft.
    grain = rng.standard_normal((canvas.n, canvas.n), dtype=np.float32)
    warp_fibre, weft_fibre = _draw_out(grain, canvas.k, 68.0), _draw_out(grain, canvas.k, 22.0)
    tone = np.where(on_top, warp.tone * (1.0 + 0.20 * warp_fibre), weft.tone * (1.0 + 0.15 * weft_fibre))
    blotch = 1.0 + 0.03 * noise(rng, canvas.n, 5) + 0.02 * noise(rng, canvas.n, 30)
    colour = np.where(on_top, rgb(WARP_COLOUR), rgb(WEFT_COLOUR)) * (tone * shading * blotch)
    colour = mix(colour, TABLE_COLOUR, through)
    fuzz = _fuzz(rng, canvas)
    fuzz = fuzz * (1.0 - np.maximum(cloth.warp_cut, cloth.weft_cut))
    return mix(colour, (0.50, 0.52, 0.53), fuzz), soft


def _draw_out(grain: Field, k: float, degrees: float) -> Field:
    """Noise averaged along a line of 5 units: fibres; unit variance."""
    side = 2 * int(2.5 * k) + 1
    kernel = np.zeros((side, side), np.float32)
    reach = (side // 2) * np.array([np.cos(np.deg2rad(degrees)), -np.sin(np.deg2rad(degrees))])
    middle = np.array([side // 2, side // 2])
    cv2.line(kernel, np.round(middle - reach).astype(int).tolist(), np.round(middle + reach).astype(int).tolist(), 1.0)
    kernel /= np.sqrt(float(np.square(kernel).sum()))
    return np.asarray(cv2.filter2D(grain, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101), np.float32)


def _fuzz(rng: Generator, canvas: Canvas) -> Field:
    """Opacity of the fine hairs that stand off the yarns."""
    count = 260
    start = rng.uniform(0, FRAME, (count, 1, 2))
    angle = rng.uniform(0, 2 * np.pi, (count, 1)) + np.cumsum(rng.normal(0, 0.45, (count, 7)), axis=1)
    pace = rng.uniform(0.5, 1.5, (count, 1, 1))
    track = start + np.cumsum(pace * np.stack([np.cos(angle), np.sin(angle)], axis=2), axis=1)
    hairs = np.zeros((canvas.n, canvas.n), np.uint8)
    cv2.polylines(hairs, list(np.round(track * canvas.k * 16).astype(np.int32)), False, 255, 1, cv2.LINE_AA, 4)
    return blur(hairs.astype(np.float32) * np.float32(0.32 / 255), 0.3 * canvas.k)


def _tear(flaw: Generator, canvas: Canvas, cloth: Cloth) -> Field:
    """A hole: yarns end at uneven lengths, some bridge the gap, ends hang loose."""
    centre = (flaw.uniform(55, FRAME - 55), flaw.uniform(55, FRAME - 55))
    radius = flaw.uniform(11.0, 21.0)
    depth = irregular_depth(flaw, canvas, centre, radius, 0.35)
    # The yarns about a hole are pushed outward, so that they crowd at its rim.
    dx, dy = canvas.x - np.float32(centre[0]), canvas.y - np.float32(centre[1])
    push = around(canvas, depth > 0, 6.5) * np.float32(0.16 / PITCH)
    cloth.u, cloth.v = cloth.u - push * dx, cloth.v - push * dy
    ends = flaw.normal(0.0, 0.16 * radius, (2, YARNS)).astype(np.float32)
    warp_depth = depth + ends[0][np.floor(cloth.u).astype(np.int32) & (YARNS - 1)]
    weft_depth = depth + ends[1][np.floor(cloth.v).astype(np.int32) & (YARNS - 1)]
    cloth.warp_cut, cloth.weft_cut = step(-0.4, 0.6, warp_depth), step(-0.4, 0.6, weft_depth)
    for _ in range(int(flaw.integers(2, 6))):
        angle = flaw.uniform(0, 2 * np.pi)
        rim = (centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle))
        inward = angle + np.pi + flaw.normal(0, 0.7)
        points = wandering_line(flaw, rim, flaw.uniform(0.6, 1.2) * radius, inward, 1.3)
        colour = WARP_COLOUR if flaw.random() < 0.5 else WEFT_COLOUR
        cloth.loose.append(Loose(points, flaw.uniform(1.2, 2.4), colour))
    gone = np.maximum(cloth.warp_cut, cloth.weft_cut)
    return np.maximum(gone, step(-1.5, 0.5, depth))


def _break(flaw: Generator, canvas: Canvas, cloth: Cloth) -> Field:
    """A broken weft yarn: a run of it is missing, its neighbours part, its ends lie curled on the cloth."""
    x, y = flaw.uniform(70, FRAME - 70), flaw.uniform(45, FRAME - 45)
    column, line = int(canvas.k * x), int(canvas.k * y)
    pick = np.floor(cloth.v[line, column])
    middle, half = float(cloth.u[line, column]), flaw.uniform(3.0, 6.5)
    along = cloth.u - np.float32(middle)
    aside = cloth.v - np.float32(pick + 0.5)
    inside = step(-0.25, 0.25, half - np.abs(along))
    spread = bump(along, half + 0.9) * bump(aside, 1.9)
    cloth.v = cloth.v - np.float32(0.34) * spread * np.tanh(2.5 * aside)
    cloth.weft_cut = inside * step(-0.02, 0.02, 0.5 - np.abs(cloth.v - np.float32(pick + 0.5)))
    gap = inside * step(-0.3, 0.1, 0.5 + 0.34 * spread - np.abs(aside))
    for end in (-1.0, 1.0):
        start = (x + end * half * PITCH, y + flaw.normal(0, 1.0))
        heading = flaw.choice([-1.0, 1.0]) * flaw.uniform(0.5, 1.3) + (0.0 if end < 0 else np.pi)
        points = wandering_line(flaw, start, flaw.uniform(20, 40), heading, 2.6)
        cloth.loose.append(Loose(points, flaw.uniform(2.2, 3.2), WEFT_COLOUR))
    return gap


def _foreign_fibre(flaw: Generator) -> Loose:
    """A hair or a thread of another colour, fallen on the cloth or woven in."""
    colours: tuple[Colour, ...] = ((0.42, 0.03, 0.03), (0.02, 0.018, 0.016), (0.52, 0.36, 0.06), (0.62, 0.62, 0.60))
    colour = colours[int(flaw.integers(len(colours)))]
    length = flaw.uniform(65, 130)
    heading = flaw.uniform(0, 2 * np.pi)
    start = (
        FRAME / 2 + flaw.uniform(-50, 50) - 0.5 * length * float(np.cos(heading)),
        FRAME / 2 + flaw.uniform(-50, 50) - 0.5 * length * float(np.sin(heading)),
    )
    return Loose(wandering_line(flaw, start, length, heading, 3.0, 72), flaw.uniform(2.0, 3.4), colour)


def _lay_on(flaw: Generator, canvas: Canvas, radiance: Field, thread: Loose) -> tuple[Field, Field]:
    """The cloth with a thread on it, and how visible the thread is."""
    line = strand(canvas, thread.points)
    knots = flaw.normal(1.0, 0.10, 24).astype(np.float32)
    taper = clip(np.minimum(line.along, 1.0 - line.along) * 14.0 + 0.45, 0.0, 1.0)
    half = np.float32(0.5 * thread.width) * taper * np.interp(line.along, np.linspace(0, 1, 24), knots)
    half = half.astype(np.float32)
    cover = step(-0.35, 0.35, half - line.distance)
    shadow = blur(shift(step(-0.6, 0.6, half - line.distance), 1.1 * canvas.k, 1.4 * canvas.k), 0.8 * canvas.k)
    dx, dy = slope(np.minimum(line.distance, 6.0))
    fraction = clip(line.distance / np.maximum(half, 0.3), 0.0, 1.0)
    lit = 1.0 - 0.75 * canvas.k * 0.5 * (0.59 * dx + 0.81 * dy) * fraction
    twist = 1.0 + 0.16 * np.sin(line.along * np.float32(2.2 * len(thread.points)) + 2.0 * fraction)
    body = rgb(thread.colour) * (clip(lit, 0.3, 1.7) * twist * (1.05 - 0.4 * fraction**2)).astype(np.float32)
    shaded = radiance * (1.0 - 0.5 * shadow)
    return mix(shaded, body, cover), cover


def _soak(flaw: Generator, canvas: Canvas, radiance: Field, height: Field) -> tuple[Field, Field]:
    """A liquid that has dried: darker, tinted, with a rim, and deeper in the low parts of the weave."""
    centre = (flaw.uniform(50, FRAME - 50), flaw.uniform(50, FRAME - 50))
    radius = flaw.uniform(13.0, 27.0)
    depth = irregular_depth(flaw, canvas, centre, radius, 0.42)
    # Liquid wicks along the yarns, further on the raised ones.
    depth = depth + 1.3 * clip(height, -1.0, 1.0)
    body = step(-3.8, 3.4, depth + 0.8 * clip(noise(flaw, canvas.n, 60), -2, 2))
    body = body * around(canvas, body > MARKED, 7.0)
    rim = step(-1.5, 1.0, depth) * step(-5.5, -1.0, -depth)
    mottled = 1.0 + 0.12 * clip(noise(flaw, canvas.n, 22), -2, 2)
    strength = clip(body * (0.72 * mottled + 0.24 * rim) * flaw.uniform(0.85, 1.1), 0.0, 1.0)
    tints = ((0.42, 0.24, 0.09), (0.16, 0.15, 0.14), (0.50, 0.20, 0.10))
    tint = tints[int(flaw.integers(len(tints)))]
    stained = radiance * (1.0 - strength.astype(np.float32) * (1.0 - rgb(tint)))
    return stained.astype(np.float32), body
