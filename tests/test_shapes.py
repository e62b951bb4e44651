"""Outlines: polygons against a slow point-in-polygon test, COCO's runs against its coding, character by character."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from draem.data.shapes import LARGEST, Shapes
from draem.data.truth import Truth
from draem.errors import ImageError
from trees import corners, put_mask, runs, spot

Mask = NDArray[np.bool_]


def _mask(rng: np.random.Generator, height: int, width: int) -> Mask:
    """Blocks, so that runs of many lengths come."""
    coarse = rng.random((-(-height // 3), -(-width // 2))) < rng.uniform(0.1, 0.9)
    return np.kron(coarse, np.ones((3, 2))).astype(bool)[:height, :width]


def _coded(counts: list[int]) -> str:
    """COCO's text of runs: five bits at a time, low ones first, with sign; from the fourth on as differences."""
    letters = []
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        while True:
            part, rest = rest & 31, rest >> 5
            # The number ends when all that is left is the sign, and the last part's highest bit says which.
            more = rest != (-1 if part & 16 else 0)
            letters.append(chr(48 + part + (32 if more else 0)))
            if not more:
                break
    return "".join(letters)


def test_the_reference_writes_what_pycocotools_does() -> None:
    """Known texts: 3×3 of nothing, a run longer than a character holds, falling and rising differences."""
    assert _coded([9]) == "9"
    assert _coded([0, 16]) == "0`0"
    assert _coded([5, 3, 1, 2]) == "531O"
    assert _coded([1000]) == "Xo0"


@pytest.mark.parametrize("seed", range(12))
def test_runs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 70, 2))
    mask = _mask(rng, height, width) if seed else np.zeros((height, width), bool)
    counts = runs(mask)
    for run in (tuple(counts), _coded(counts)):
        drawn = Shapes("a.json", (height, width), runs=(run,)).draw()
        assert drawn.dtype == np.bool_
        np.testing.assert_array_equal(drawn, mask)


def test_runs_of_a_large_image() -> None:
    mask = np.zeros((3000, 2000), bool)
    mask[100:2900, 3] = mask[7, 1000:] = True
    np.testing.assert_array_equal(Shapes("a.json", mask.shape, runs=(_coded(runs(mask)),)).draw(), mask)


@pytest.mark.parametrize(
    "run",
    [
        (5, 2),
        (50, 2),
        (-1, 49),
        _coded([47]),
        _coded([49, 3]),
        _coded([1000])[:-1],
        "",
        "\x00",
        "é",
        "oooooooo0",
        _coded([10**10]),
        _coded([20, 40, -12]),
    ],
)
def test_runs_that_are_not_the_images(run: str | tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"^a\.json: annotations\[3\]: .*") as caught:
        Shapes("a.json: annotations[3]", (6, 8), runs=(run,)).draw()
    assert "\n" not in str(caught.value)


def _inside(x: float, y: float, polygon: NDArray[np.float64]) -> bool:
    """Whether a ray to the right crosses an odd number of edges."""
    found = False
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            found = not found
    return found


@pytest.mark.parametrize("seed", range(12))
def test_polygons(seed: int) -> None:
    """Any corners, so that edges cross one another, some outside of the image."""
    rng = np.random.default_rng(seed)
    polygon = rng.uniform(-4, 24, (int(rng.integers(3, 12)), 2))
    expected = [[_inside(column + 0.5, row + 0.5, polygon) for column in range(20)] for row in range(16)]
    np.testing.assert_array_equal(Shapes("a", (16, 20), (tuple(polygon.ravel()),)).draw(), np.array(expected))


def test_whole_pixels_are_filled_and_no_more() -> None:
    for seed in range(12):
        np.testing.assert_array_equal(Shapes("a", (6, 8), (tuple(corners(spot(seed))),)).draw(), spot(seed))
    whole = (0.0, 0.0, 8.0, 0.0, 8.0, 6.0, 0.0, 6.0)
    assert Shapes("a", (6, 8), (whole,)).draw().all()
    assert Shapes("a", (6, 8), ((-9.0, -9.0, 1e30, -9.0, 1e30, 1e30, -9.0, 1e30),)).draw().all()


def test_shapes_are_united() -> None:
    shapes = Shapes("a", (6, 8), (tuple(corners(spot(0))), tuple(corners(spot(1)))), (tuple(runs(spot(4))),))
    np.testing.assert_array_equal(shapes.draw(), spot(0) | spot(1) | spot(4))


@pytest.mark.parametrize("place", [(20, 1), (-20, 1), (1, 20), (1, -20), (8, 0), (0, 6), (-3, 0)])
def test_a_polygon_outside(place: tuple[int, int]) -> None:
    x, y = place
    with pytest.raises(ImageError, match=r"b\.json: images\[0\]: an outline lies outside of the image of 6×8 pixels"):
        Shapes("b.json: images[0]", (6, 8), ((x, y, x + 3, y, x + 3, y + 3),)).draw()


def test_hostile_outlines_are_refused_before_they_are_drawn() -> None:
    side = int(LARGEST**0.5)
    zigzag = tuple(float(v) for index in range(100_000) for v in (index % 7, (index % 2) * side))
    for shapes in (
        Shapes("a", (side, side), (zigzag,)),
        Shapes("a", (side, side), runs=((LARGEST,),) * 100),
        Shapes("a", (side, side), ((0.0, 0.0, side, 0.0, side, side),) * 100),
    ):
        with pytest.raises(ImageError, match="more outlines than can be drawn"):
            shapes.draw()


def test_truth_of_files_and_shapes(tmp_path: Path) -> None:
    put_mask(tmp_path / "m.png", spot(0))
    shapes = Shapes("a.json: images[0]", (6, 8), (tuple(corners(spot(3))),))
    both = Truth((tmp_path / "m.png",), shapes=shapes)
    np.testing.assert_array_equal(both.read(), spot(0) | spot(3))
    assert both.place == str(tmp_path / "m.png")
    assert Truth(shapes=shapes).place == "a.json: images[0]"
    np.testing.assert_array_equal(Truth(shapes=shapes).read(), spot(3))
    other = Truth((tmp_path / "m.png",), shapes=Shapes("a.json: images[0]", (12, 16), shapes.polygons))
    with pytest.raises(ImageError, match=r"a\.json: images\[0\]: 12×16 pixels; .*m\.png has 6×8"):
        other.read()
