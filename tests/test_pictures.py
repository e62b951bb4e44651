"""Heat map, overlay and sheet: pixels that must and must not change."""

from __future__ import annotations

import numpy as np
import pytest

from draem.pictures import heat_map, overlay, sheet


def test_heat_map_grows_lighter_all_the_way() -> None:
    colours = heat_map(np.linspace(0, 1, 256, dtype=np.float32)[None])[0].astype(float)
    luminance = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) >= -0.5).all()
    assert luminance[0] < 5
    assert luminance[-1] > 240
    # Inferno is red before it is blue: channels are RGB, not BGR.
    assert (colours[100:, 0] > colours[100:, 2]).all()


def test_heat_map_cuts_at_the_ends() -> None:
    np.testing.assert_array_equal(heat_map(np.array([[-1.0, 2.0]])), heat_map(np.array([[0.0, 1.0]])))


def test_overlay_leaves_normal_regions_alone() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    anomaly_map = np.zeros((40, 50), np.float32)
    anomaly_map[10:20, 10:20] = 0.8
    picture = overlay(image, anomaly_map, alpha=0.5)
    hot = anomaly_map > 0
    np.testing.assert_array_equal(picture[~hot], image[~hot])
    expected = image[hot] * 0.6 + heat_map(anomaly_map)[hot] * 0.4
    assert np.abs(picture[hot] - expected).max() <= 0.51


@pytest.mark.parametrize("shape", [(40, 50), (600, 900)])
def test_outline_runs_around_the_mask_and_hides_nothing(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 120, np.uint8)
    mask = np.zeros(shape, bool)
    mask[15:25, 20:30] = True
    mask[5, 5] = True
    picture = overlay(image, np.zeros(shape, np.float32), mask)
    changed = (picture != image).any(axis=2)
    assert not (changed & mask).any()
    for row, column in ((14, 25), (25, 25), (20, 19), (20, 30), (4, 5), (5, 6)):
        assert tuple(picture[row, column]) == (0, 255, 255)
    rings = {tuple(pixel) for pixel in picture[changed]}
    assert rings == {(0, 255, 255), (0, 0, 0)}
    across = [tuple(pixel) for pixel in picture[20, 30:36]]
    assert (0, 255, 255) not in across[across.index((0, 0, 0)) :]  # the black edge is outermost
    assert not changed[shape[0] // 2 + 20 :].any()
    np.testing.assert_array_equal(overlay(image, np.zeros(shape, np.float32), mask & False), image)


def test_sheet_shows_every_picture_whole_and_apart() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    shapes = [(20, 20), (10, 40), (300, 100), (7, 7)]
    pictures = [np.full((*shape, 3), colour, np.uint8) for shape, colour in zip(shapes, colours, strict=True)]
    page = sheet([pictures[:2], pictures[2:]], ["one", "two"], captions=["first", "second"], cell=(80, 80))
    boxes = []
    for colour, (height, width) in zip(colours, shapes, strict=True):
        rows, columns = np.nonzero((page == colour).all(axis=2))
        boxes.append((rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))
        tall, wide = boxes[-1][1] - boxes[-1][0], boxes[-1][3] - boxes[-1][2]
        assert max(tall, wide) == 80
        assert tall == pytest.approx(wide * height / width, abs=1)
        assert len(rows) == tall * wide
    assert boxes[0][3] < boxes[1][2]
    assert boxes[0][1] < boxes[2][0]
    assert (page[0] == 255).all()
    assert (page[-1] == 255).all()


def test_sheet_writes_titles_and_captions() -> None:
    blank = np.full((50, 50, 3), 255, np.uint8)
    assert (sheet([[blank]], [""], [""]) == 255).all()
    titled, captioned = sheet([[blank]], ["title"], [""]), sheet([[blank]], [""], ["caption"])
    assert titled[: len(titled) // 5].min() < 60
    assert (titled[len(titled) // 5 :] == 255).all()
    assert captioned[-len(captioned) // 5 :].min() < 120
    assert (captioned[: -len(captioned) // 5] == 255).all()


def test_long_text_stays_on_its_cell() -> None:
    blank = np.full((50, 50, 3), 255, np.uint8)
    page = sheet([[blank, blank]], ["a very long title " * 9, ""], cell=(100, 100))
    assert page[:, 60:110].min() < 200
    assert (page[:, 112:] == 255).all()


def test_masks_and_grey_pictures() -> None:
    mask = np.eye(4, dtype=bool)
    grey = mask.astype(np.uint8) * 255
    page = sheet([[mask, grey, np.repeat(grey[..., None], 3, axis=2)]], ["", "", ""], cell=(64, 64))
    first, second, third = (page[:, 8 + step : 72 + step] for step in (0, 72, 144))
    assert first.min() == 0
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


@pytest.mark.parametrize(
    ("rows", "titles", "captions"),
    [([], ["a"], None), ([[np.zeros((4, 4), bool)]], ["a", "b"], None), ([[np.zeros((4, 4), bool)]], ["a"], [])],
)
def test_sheet_that_does_not_add_up(
    rows: list[list[np.ndarray]], titles: list[str], captions: list[str] | None
) -> None:
    with pytest.raises(ValueError, match="a sheet needs"):
        sheet(rows, titles, captions)
