"""A small, realistic data set in MVTec AD's layout, rendered without any download.

    OUT/woven/train/good/000.png …            OUT/woven/test/good/000.png …
    OUT/woven/test/hole/000.png …             OUT/woven/ground_truth/hole/000_mask.png …

Every image is a photograph of its own: another piece of cloth, another plate, another copy of the label, under its own
light. A defect is drawn from a second random stream, so that the same piece can also be had without it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.data.surfaces import brushed_metal, printed, woven
from draem.data.surfaces.optics import MARKED, Canvas, Scene, photograph
from draem.errors import ConfigError, DataError

SURFACES = ("woven", "brushed_metal", "printed")
DEFECTS = {"woven": woven.DEFECTS, "brushed_metal": brushed_metal.DEFECTS, "printed": printed.DEFECTS}
"""The defect types of each surface: the folders under `test/` beside `good`."""
SMALLEST, LARGEST = 64, 4096
"""Sides of a picture in pixels: below, threads and letters are no longer resolved; above, memory runs out."""
MOST = 100_000
"""Images of one kind; each kind of image draws its pieces from a range of its own of this length."""


class Rendering(NamedTuple):
    """One photograph (H×W×3 uint8 RGB) and where its defect is (H×W bool; all False on a good piece)."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def render_image(
    surface: str, defect: str | None = None, *, size: int = 256, seed: int = 0, index: int = 0
) -> Rendering:
    """Render one piece of a surface, good or with a defect.

    `seed` and `index` fix the piece, its light and the camera's noise whether or not it has a defect: more than 14/256
    of the image's width away from the mask, the two pictures are equal to the bit.

    Args:
        surface: one of `SURFACES`.
        defect: one of `DEFECTS[surface]`, or None for a good piece.
        size: height and width in pixels; the same piece at another size looks alike but is not a resampled copy.
        seed: of the data set; of the printed surface it also fixes the design.
        index: number of the piece.

    Raises:
        ConfigError: unknown surface or defect, or a number out of range.
    """
    _check(surface, size, seed)
    if defect is not None and defect not in DEFECTS[surface]:
        raise ConfigError(f"no defect {defect!r} on surface {surface!r}: choose one of {', '.join(DEFECTS[surface])}")
    if index < 0:
        raise ConfigError(f"index is {index}: must be 0 or more")
    canvas = _canvas(size)
    piece = [seed, SURFACES.index(surface), index]
    rng, flaw = np.random.default_rng([*piece, 0]), np.random.default_rng([*piece, 1])
    scene = _scene(surface, rng, canvas, defect, flaw, seed)
    image = photograph(rng, canvas, scene.radiance)
    visible = cv2.resize(scene.visibility, (size, size), interpolation=cv2.INTER_AREA)
    return Rendering(image, np.asarray(visible > MARKED, np.bool_))


def render_demo(
    out: Path,
    surface: str = "all",
    *,
    size: int = 256,
    train: int = 80,
    test_good: int = 20,
    test_defect: int = 8,
    seed: int = 0,
) -> list[Path]:
    """Write one MVTec AD tree a surface below `out`, and return the trees' folders in the order of `SURFACES`.

    The same arguments give the same pixels; fewer or more images of one kind leave the others as they are. A tree
    that is there already is written over.

    Args:
        out: folder to write into; it is made where missing.
        surface: one of `SURFACES`, or "all".
        size: height and width of the images in pixels.
        train: good images to train on.
        test_good: good images to test on.
        test_defect: images to test on of each defect type.
        seed: of the whole data set.

    Raises:
        ConfigError: unknown surface, or a number out of range.
        DataError: the folder cannot be written, or holds images of something else.
    """
    surfaces = SURFACES if surface == "all" else (surface,)
    for name, count, least in (("train", train, 1), ("test_good", test_good, 0), ("test_defect", test_defect, 0)):
        if not least <= count <= MOST:
            raise ConfigError(f"{name} is {count}: must be {least} to {MOST}")
    for name in surfaces:
        _check(name, size, seed)
    plans = {Path(out) / name: _plan(name, train, test_good, test_defect) for name in surfaces}
    for folder, plan in plans.items():
        _refuse_strangers(folder, plan)
    for folder, plan in plans.items():
        for picture in plan:
            _write(
                folder, picture, render_image(folder.name, picture.defect, size=size, seed=seed, index=picture.piece)
            )
    return list(plans)


class _Picture(NamedTuple):
    """One image to write: its defect type, the number of its piece, its place in the tree, its mask's place."""

    defect: str | None
    piece: int
    image: str
    mask: str | None


def _plan(surface: str, train: int, test_good: int, test_defect: int) -> list[_Picture]:
    """Every image of a surface's tree."""
    plan = [_Picture(None, i, f"train/good/{i:03d}.png", None) for i in range(train)]
    plan += [_Picture(None, MOST + i, f"test/good/{i:03d}.png", None) for i in range(test_good)]
    for kind, defect in enumerate(DEFECTS[surface], start=2):
        for i in range(test_defect):
            mask = f"ground_truth/{defect}/{i:03d}_mask.png"
            plan.append(_Picture(defect, kind * MOST + i, f"test/{defect}/{i:03d}.png", mask))
    return plan


def _check(surface: str, size: int, seed: int) -> None:
    """Raise ConfigError unless the surface is known and the numbers are in range."""
    if surface not in SURFACES:
        raise ConfigError(f"no surface {surface!r}: choose one of {', '.join(SURFACES)}, or all of them")
    if not SMALLEST <= size <= LARGEST:
        raise ConfigError(f"size is {size}: must be {SMALLEST} to {LARGEST} pixels")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: must be 0 or more")


@lru_cache(maxsize=1)
def _canvas(size: int) -> Canvas:
    return Canvas.of_size(size)


def _scene(
    surface: str, rng: np.random.Generator, canvas: Canvas, defect: str | None, flaw: np.random.Generator, seed: int
) -> Scene:
    """What lies before the camera."""
    if surface == "woven":
        return woven.render(rng, canvas, defect, flaw)
    if surface == "brushed_metal":
        return brushed_metal.render(rng, canvas, defect, flaw)
    return printed.render(rng, canvas, defect, flaw, style=seed)


def _refuse_strangers(folder: Path, plan: list[_Picture]) -> None:
    """Raise DataError if the tree holds PNG files that would not be written over: they would count as its images."""
    ours = {name for picture in plan for name in (picture.image, picture.mask) if name}
    for path in sorted(folder.rglob("*.png")):
        if path.relative_to(folder).as_posix() not in ours:
            raise DataError(f"{folder}: holds other images already ({path.name}): name another folder, or empty it")


def _write(folder: Path, picture: _Picture, rendering: Rendering) -> None:
    """Write the image and, of a defect, its mask (0 and 255)."""
    _write_png(folder / picture.image, np.ascontiguousarray(rendering.image[..., ::-1]))
    if picture.mask is not None:
        _write_png(folder / picture.mask, rendering.mask.astype(np.uint8) * np.uint8(255))


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Encode fast rather than small: sensor noise does not compress anyway."""
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
