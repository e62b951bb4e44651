"""The rendered data set: its layout, its masks against the same piece without the defect, its repeatability."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from draem.data.demo import DEFECTS, SURFACES, Rendering, render_demo, render_image
from draem.data.surfaces.optics import Canvas, around, bump, noise, strand
from draem.errors import ConfigError, DataError

KINDS = [(surface, defect) for surface in SURFACES for defect in DEFECTS[surface]]
REACH = 14
"""Pixels at size 256 beyond the mask where shadows, soft edges and pushed yarns may still show."""


def pair(surface: str, defect: str, index: int, size: int = 256) -> tuple[Rendering, Rendering]:
    return render_image(surface, defect, index=index, size=size), render_image(surface, index=index, size=size)


def grown(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc) > 0)


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.uint8)


def test_tree_holds_exactly_the_images_of_the_mvtec_layout(tmp_path: Path) -> None:
    trees = render_demo(tmp_path, size=64, train=3, test_good=2, test_defect=1)
    assert trees == [tmp_path / surface for surface in SURFACES]
    for tree in trees:
        found = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
        wanted = {f"train/good/{i:03d}.png" for i in range(3)} | {f"test/good/{i:03d}.png" for i in range(2)}
        for defect in DEFECTS[tree.name]:
            wanted |= {f"test/{defect}/000.png", f"ground_truth/{defect}/000_mask.png"}
        assert found == wanted


def test_files_hold_the_rendered_pixels_and_masks_of_0_and_255(tmp_path: Path) -> None:
    (tree,) = render_demo(tmp_path, "printed", size=96, train=1, test_good=1, test_defect=1, seed=5)
    good = read(tree / "train/good/000.png")
    assert np.array_equal(good[..., ::-1], render_image("printed", size=96, seed=5).image)
    for defect in DEFECTS["printed"]:
        image = read(tree / f"test/{defect}/000.png")
        mask = read(tree / f"ground_truth/{defect}/000_mask.png")
        assert image.shape == (96, 96, 3)
        assert mask.shape == (96, 96)
        assert set(np.unique(mask)) == {0, 255}


@pytest.mark.parametrize(("surface", "defect"), KINDS)
def test_picture_differs_from_the_good_piece_in_the_mask_and_nowhere_else(surface: str, defect: str) -> None:
    for index in range(4):
        flawed, good = pair(surface, defect, index)
        assert not good.mask.any()
        outside = ~grown(flawed.mask, REACH)
        assert np.array_equal(flawed.image[outside], good.image[outside])
        change = np.abs(flawed.image.astype(float) - good.image).max(axis=2)
        near = grown(flawed.mask, 3)
        assert change[near].sum() > 0.75 * change.sum(), "the mask misses what changed"
        assert change[flawed.mask].mean() > 12.0, "a person could not see it"
        assert 0.0008 < flawed.mask.mean() < 0.08


@pytest.mark.parametrize("surface", SURFACES)
def test_same_seed_same_picture_and_other_seed_or_index_another(surface: str) -> None:
    first = render_image(surface, size=128, seed=3, index=7).image
    render_image(surface, size=96, seed=1, index=2)
    assert np.array_equal(first, render_image(surface, size=128, seed=3, index=7).image)
    for other in (render_image(surface, size=128, seed=4, index=7), render_image(surface, size=128, seed=3, index=8)):
        # Far beyond the sensor's noise, which is about 3 grey levels.
        assert np.abs(first.astype(float) - other.image).mean() > 5.0


def test_good_images_of_a_tree_are_pieces_of_their_own_and_keep_when_others_change(tmp_path: Path) -> None:
    few = render_demo(tmp_path / "few", "brushed_metal", size=64, train=2, test_good=2, test_defect=0)[0]
    more = render_demo(tmp_path / "more", "brushed_metal", size=64, train=4, test_good=2, test_defect=1)[0]
    pictures = [path.read_bytes() for path in sorted(more.glob("*/good/*.png"))]
    assert len(set(pictures)) == 6
    for path in few.rglob("*.png"):
        assert path.read_bytes() == (more / path.relative_to(few)).read_bytes()


@pytest.mark.parametrize("surface", SURFACES)
def test_exposure_is_that_of_a_usable_photograph(surface: str) -> None:
    for index in range(3):
        grey = render_image(surface, index=index).image.mean(axis=2)
        assert 60 < grey.mean() < 200
        assert (grey >= 254).mean() < 0.01
        assert np.percentile(grey, 95) - np.percentile(grey, 5) > 40


def test_a_tree_is_written_over_but_never_mixed_with_other_images(tmp_path: Path) -> None:
    render = partial(render_demo, tmp_path, "woven", size=64, train=2, test_good=0, test_defect=0)
    (tree,) = render()
    before = (tree / "train/good/001.png").read_bytes()
    (tree / "train/good/001.png").write_bytes(b"")
    render()
    assert (tree / "train/good/001.png").read_bytes() == before
    (tree / "train/good/mine.png").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"mine\.png"):
        render()
    assert (tree / "train/good/mine.png").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        render_demo(tmp_path / "file", "woven", size=64, train=1, test_good=0, test_defect=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"surface": "wood"}, "no surface 'wood'"),
        ({"surface": "woven", "defect": "dent"}, "no defect 'dent'"),
        ({"surface": "woven", "size": 32}, "size is 32"),
        ({"surface": "woven", "seed": -1}, "seed is -1"),
        ({"surface": "woven", "index": -1}, "index is -1"),
    ],
)
def test_a_wrong_argument_is_a_config_error(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        render_image(**arguments)  # type: ignore[arg-type]


def test_render_demo_refuses_an_empty_training_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train is 0"):
        render_demo(tmp_path, train=0)
    assert not any(tmp_path.iterdir())


def test_strand_measures_the_distance_to_the_curve_and_the_way_along_it() -> None:
    canvas = Canvas.of_size(256)
    points = np.stack([np.linspace(60, 190, 40), np.full(40, 100.0)], axis=1).astype(np.float32)
    line = strand(canvas, points)
    beside = (canvas.x > 62) & (canvas.x < 188)
    error = np.abs(line.distance - np.abs(canvas.y - 100.0))[beside]
    assert error.max() < 1.0  # a line is a whole sample wide: two thirds of a unit
    assert np.abs(line.along - (canvas.x - 60) / 130)[beside & (np.abs(canvas.y - 100) < 5)].max() < 0.03


def test_bump_is_exactly_zero_from_its_reach_on() -> None:
    distance = np.array([0.0, 1.0, 2.0, 2.5], np.float32)
    assert bump(distance, 2.0).tolist() == [1.0, 0.5625, 0.0, 0.0]


def test_around_falls_from_one_inside_to_zero_at_its_reach() -> None:
    canvas = Canvas.of_size(256)
    field = around(canvas, canvas.x < 100.0, 6.0)
    assert (field[canvas.x < 100.0] == 1.0).all()
    assert (field[canvas.x > 106.0] == 0.0).all()
    assert np.abs(field[:, np.argmin(np.abs(canvas.x[0] - 103.0))] - 0.5).max() < 0.15


def test_noise_is_smooth_and_of_unit_scale() -> None:
    field = noise(np.random.default_rng(0), 512, 40)
    assert 0.6 < field.std() < 1.1
    assert np.abs(np.diff(field, axis=0)).max() < 0.6
