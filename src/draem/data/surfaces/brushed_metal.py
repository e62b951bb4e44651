"""A brushed steel plate: fine streaks, a highlight across them, a countersunk hole, a bevelled edge."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from draem.data.surfaces.optics import (
    FRAME,
    MARKED,
    Canvas,
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
    slope,
    step,
    strand,
    wandering_line,
)

DEFECTS = ("chip", "dent", "rust", "scratch")

HOLE = (181.0, 88.0)
HOLE_RADIUS, CHAMFER_RADIUS = 17.0, 24.0
EDGE, BEVEL = 224.0, 5.0
"""Where the plate ends towards the bottom of the picture, and how wide its bevel is, in units."""


@dataclass(frozen=True)
class Pose:
    """Where the plate lies: position in the plate's own units (n×n), and the turn in degrees."""

    x: Field
    y: Field
    degrees: float


def render(rng: Generator, canvas: Canvas, defect: str | None, flaw: Generator) -> Scene:
    """One photograph's light; `rng` makes the plate, `flaw` the defect alone."""
    pose = _place(rng, canvas)
    streaks = _brush(rng, canvas, pose.degrees)
    visibility, relief, shade = canvas.zeros(), canvas.zeros(), canvas.zeros()
    missing = None
    if defect == "dent":
        relief, visibility = _dent(flaw, canvas)
    elif defect == "scratch":
        shade, visibility = _scratch(flaw, canvas)
    elif defect == "chip":
        missing, visibility = _chip(flaw, canvas, pose)
    plate = _shine(rng, canvas, pose, streaks, relief, shade)
    if defect == "rust":
        plate, visibility = _rust(flaw, canvas, plate, pose)
    radiance = _cut_out(rng, canvas, pose, plate, missing)
    return Scene(radiance, visibility)


def _place(rng: Generator, canvas: Canvas) -> Pose:
    """The plate in its fixture: a little play in position, turn and distance."""
    degrees, scale = float(rng.normal(0.0, 0.5)), float(rng.normal(1.0, 0.006))
    cos, sin = np.float32(np.cos(np.deg2rad(degrees)) * scale), np.float32(np.sin(np.deg2rad(degrees)) * scale)
    x, y = canvas.x - FRAME / 2, canvas.y - FRAME / 2
    play = rng.normal(0.0, 1.6, 2).astype(np.float32) + FRAME / 2
    return Pose(cos * x + sin * y + play[0], cos * y - sin * x + play[1], degrees)


def _brush(rng: Generator, canvas: Canvas, degrees: float) -> Field:
    """The streaks that the brush left: strokes of many lengths along x, some of them deep; about unit variance."""
    n, total = canvas.n, canvas.zeros()
    for length, strength in ((6, 0.35), (40, 0.75), (160, 0.6)):
        nodes = rng.standard_normal((n, max(2, int(FRAME / length) + 1)), dtype=np.float32)
        total += np.float32(strength) * cv2.resize(nodes, (n, n), interpolation=cv2.INTER_CUBIC)
    wide = rng.standard_normal((n // 6, 5), dtype=np.float32)
    total += np.float32(0.35) * cv2.resize(wide, (n, n), interpolation=cv2.INTER_CUBIC)
    # The few deep strokes: the cube makes the tails heavy.
    total += 0.10 * total * total * total / (1.0 + 0.12 * total * total)
    matrix = cv2.getRotationMatrix2D((n / 2, n / 2), -degrees, 1.0)
    return np.asarray(
        cv2.warpAffine(total, matrix, (n, n), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.float32
    )


def _shine(rng: Generator, canvas: Canvas, pose: Pose, streaks: Field, relief: Field, shade: Field) -> Field:
    """Light off the plate's face (3×n×n): a broad highlight that each streak and each bump shifts."""
    centre, width = rng.uniform(70, 170), rng.uniform(38, 52)
    lean = rng.normal(0.0, 0.12)
    # Which way a streak leans has nothing to do with how bright it is: other streaks shift the highlight.
    leaning = np.roll(streaks, canvas.n // 3, axis=0)
    dx, dy = slope(relief)
    dx, dy = dx * np.float32(canvas.k / 2), dy * np.float32(canvas.k / 2)
    place = pose.x - np.float32(centre) + np.float32(lean) * (pose.y - np.float32(FRAME / 2))
    shifted = (place + 8.0 * leaning + 120.0 * dx) * np.float32(1.0 / width)
    highlight = np.exp(-0.5 * shifted * shifted)
    face = 0.17 + 0.30 * highlight - np.float32(0.24) * (0.45 * dx + 0.89 * dy)
    face = clip(face * (1.0 + 0.085 * streaks) * (1.0 + shade), 0.01, 1.2)
    face = face * lighting(rng, canvas, gradient=0.12, vignette=0.14)
    # The room is mirrored, out of focus: bluish from one side, warmer from the other.
    room = clip(0.5 + 0.3 * noise(rng, canvas.n, 2, 3), 0.0, 1.0)
    tint = rgb((1.03, 1.0, 0.96)) + room * rgb((-0.065, 0.0, 0.09))
    return np.asarray(face * tint, np.float32)


def _cut_out(rng: Generator, canvas: Canvas, pose: Pose, plate: Field, missing: Field | None) -> Field:
    """The plate with its hole and its edge, over the dark fixture."""
    dx, dy = pose.x - np.float32(HOLE[0]), pose.y - np.float32(HOLE[1])
    radius = np.sqrt(dx * dx + dy * dy)
    lamp = rng.normal(-2.2, 0.15)
    facing = (dx * np.float32(np.cos(lamp)) + dy * np.float32(np.sin(lamp))) / np.maximum(radius, np.float32(1e-3))
    near, far = np.square(clip(facing, 0.0, 1.0)), np.square(clip(-facing, 0.0, 1.0))
    turned = 1.0 + 0.10 * np.interp(radius, np.linspace(0, 40, 160), rng.normal(0, 1, 160)).astype(np.float32)
    chamfer = (0.07 + 0.40 * near * near * near + 0.62 * far * far) * turned
    wall = 0.010 + 0.10 * step(HOLE_RADIUS - 5.5, HOLE_RADIUS, radius) * far
    picture = mix(plate, _grey(chamfer), step(-0.5, 0.5, CHAMFER_RADIUS - radius))
    picture = mix(picture, _grey(wall), step(-0.4, 0.4, HOLE_RADIUS - radius))
    bevel = 0.34 * (1.0 + 0.05 * noise(rng, canvas.n, 3, 40)) * (plate[1] * 2.0 + 0.3)
    into = pose.y - np.float32(EDGE) + 0.10 * noise(rng, canvas.n, 2, 90)
    fixture = 0.020 + 0.010 * step(EDGE, EDGE + 40.0, pose.y) + 0.002 * noise(rng, canvas.n, 60)
    picture = mix(picture, _grey(bevel), step(-BEVEL - 0.4, -BEVEL + 0.5, into))
    picture = mix(picture, _grey(fixture), step(-0.5, 0.5, into))
    if missing is None:
        return picture
    return _break_out(canvas, picture, fixture, missing, into)


def _grey(level: Field) -> Field:
    """A neutral, slightly cool metal of the given brightness, as 3×n×n."""
    return level * rgb((0.98, 1.0, 1.03))


def _dent(flaw: Generator, canvas: Canvas) -> tuple[Field, Field]:
    """A blow: relief of a smooth hollow, and where it shows."""
    centre, radius = _spot(flaw, 26.0), flaw.uniform(10.0, 20.0)
    dx, dy = canvas.x - np.float32(centre[0]), canvas.y - np.float32(centre[1])
    turn, stretch = flaw.uniform(0, np.pi), flaw.uniform(1.0, 1.35)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    across, along = (cos * dx + sin * dy) * stretch, (cos * dy - sin * dx) / stretch
    wobble = 1.0 + 0.07 * clip(noise(flaw, canvas.n, int(FRAME / radius)), -2, 2)
    distance = np.sqrt(across * across + along * along) * wobble
    hollow = -np.float32(0.40 * radius) * bump(distance, radius)
    # The displaced metal stands up in a low wall about the hollow.
    wall = np.float32(0.05 * radius) * bump(distance - np.float32(0.95 * radius), 0.4 * radius)
    return (hollow + wall).astype(np.float32), step(-3.0, 0.5, radius - distance)


def _scratch(flaw: Generator, canvas: Canvas) -> tuple[Field, Field]:
    """A scratch across the brushing: relative brightness of groove and burr, and where it shows."""
    shade, shown = canvas.zeros(), canvas.zeros()
    length = flaw.uniform(55, 120)
    heading = flaw.choice([-1.0, 1.0]) * flaw.uniform(0.35, 1.5)
    start = np.array(_spot(flaw, 50.0)) - 0.5 * length * np.array([np.cos(heading), np.sin(heading)])
    for i in range(int(flaw.integers(1, 4))):
        aside = flaw.normal(0, 5.0, 2) if i else np.zeros(2)
        reach = length * (flaw.uniform(0.3, 0.7) if i else 1.0)
        points = wandering_line(flaw, (start[0] + aside[0], start[1] + aside[1]), reach, heading, 0.35)
        line = strand(canvas, points)
        force = np.interp(line.along, np.linspace(0, 1, 16), flaw.uniform(0.45, 1.0, 16)).astype(np.float32)
        force *= clip(np.minimum(line.along * 6.0, (1.0 - line.along) * 3.0) + 0.15, 0.0, 1.0)
        half = np.float32((1.35 if i == 0 else 0.8) * flaw.uniform(0.9, 1.3)) * (0.5 + 0.5 * force)
        dx, dy = slope(np.minimum(line.distance, 5.0))
        side = clip((0.45 * dx + 0.89 * dy) * np.float32(canvas.k), -1.0, 1.0)
        groove = step(-0.35, 0.35, half - line.distance)
        burr = step(-0.5, 0.3, half + 0.9 - line.distance) - groove
        shade += force * (groove * (1.45 - 0.6 * side) - 0.55 * burr * (1.0 + 0.4 * side))
        shown = np.maximum(shown, step(-0.4, 0.4, half + 0.4 - line.distance) * np.minimum(force * 2.0, 1.0))
    return clip(shade, -0.8, 1.9), shown


def _rust(flaw: Generator, canvas: Canvas, plate: Field, pose: Pose) -> tuple[Field, Field]:
    """Corrosion: a crusty orange-brown patch with dark pits, a thin yellow bloom, and specks about it."""
    centre, radius = _spot(flaw, 36.0), flaw.uniform(9.0, 20.0)
    depth = irregular_depth(flaw, canvas, centre, radius, 0.5)
    fine = noise(flaw, canvas.n, 120) * 0.6 + noise(flaw, canvas.n, 48) * 0.7
    fine = clip(fine, -2.2, 2.2)
    crust = step(-1.6, 2.2, depth - 1.8 + 2.2 * fine)
    bloom = step(-6.0, 3.5, depth + 1.6 * fine)
    # Specks too small to be marked are left out.
    local = around(canvas, blur(np.maximum(crust, 0.7 * bloom), 1.2 * canvas.k) > MARKED, 7.0)
    crust, bloom = crust * local, bloom * local
    pits = step(0.7, 1.5, fine - 0.02 * depth) * crust
    age = clip(0.5 + 0.4 * noise(flaw, canvas.n, 18), 0.0, 1.0)
    ochre = mix(rgb((0.30, 0.115, 0.028)), (0.115, 0.042, 0.016), age) * clip(1.0 + 0.3 * fine, 0.35, 1.7)
    stained = mix(plate, plate * rgb((0.86, 0.62, 0.38)), bloom * 0.9)
    stained = mix(stained, ochre.astype(np.float32), crust * 0.88)
    stained = mix(stained, (0.045, 0.018, 0.008), pits * 0.8)
    return stained.astype(np.float32), np.maximum(crust, bloom * 0.7)


def _chip(flaw: Generator, canvas: Canvas, pose: Pose) -> tuple[Field, Field]:
    """A piece broken out of the plate's edge: depth inside the break in units, negative outside; where it shows."""
    column = flaw.uniform(40, FRAME - 40)
    radius = flaw.uniform(11.0, 20.0)
    i = int(column * canvas.k)
    row = int(np.argmin(np.abs(pose.y[:, i] - np.float32(EDGE))))
    centre = (column, float(canvas.y[row, i]) - 0.1 * radius)
    depth = irregular_depth(flaw, canvas, centre, radius, 0.24)
    inside = step(-0.5, 0.5, np.float32(EDGE) - pose.y)
    # A break widens towards the edge: below the edge there is nothing left to break.
    depth = depth + np.float32(0.35) * clip(pose.y - np.float32(EDGE - 0.6 * radius), 0.0, None)
    return depth, step(-0.6, 0.4, depth) * inside


def _break_out(canvas: Canvas, picture: Field, fixture: Field, depth: Field, into: Field) -> Field:
    """The broken edge: a rough bright fracture face, then nothing but the fixture below."""
    grit = blur(picture[1] - blur(picture[1], 3.0), 0.5)
    facets = step(0.0, 6.5, depth + 60.0 * grit)
    dx, dy = slope(blur(clip(depth, -8.0, 8.0), 1.0 * canvas.k))
    light = 0.26 - np.float32(0.22 * canvas.k / 2) * (0.5 * dx + 0.86 * dy)
    face = clip(light * (1.25 - 0.7 * facets) * (1.0 + 14.0 * grit), 0.02, 0.75)
    picture = mix(picture, _grey(face.astype(np.float32)), step(-0.4, 0.4, depth) * step(-0.5, 0.5, -into))
    return mix(picture, _grey(fixture), step(4.6, 5.8, depth))


def _spot(flaw: Generator, margin: float) -> tuple[float, float]:
    """A place on the plate's face, clear of the hole, the edge and the frame by about `margin` units."""
    while True:
        x, y = float(flaw.uniform(margin, FRAME - margin)), float(flaw.uniform(margin, EDGE - BEVEL - margin))
        if np.hypot(x - HOLE[0], y - HOLE[1]) > CHAMFER_RADIUS + min(margin, 24.0):
            return x, y
