"""The region of interest: drawn right at the network's input, found in a mask image, heeded on every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from draem.data.interest import draw_region, outline
from draem.errors import ImageError
from draem.evaluation.evaluate import evaluate
from draem.images import fit_image, write_image
from draem.inspection.detector import Detector
from draem.inspection.region import InspectedPixels
from draem.modelfile import RegionOfInterest, Thresholds, edit_header, read_header
from draem.modelfile.header import Polygon
from draem.pixels import Images
from graphs import SIZE, brightness_header, write_brightness

LEFT: Polygon = [(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]
STAR: Polygon = [(0.5, 0.05), (0.8, 0.95), (0.05, 0.4), (0.95, 0.4), (0.2, 0.95)]
THRESHOLDS = Thresholds(reject=0.3, chosen_on="a test's")


def _inside(polygons: list[Polygon], x: float, y: float) -> bool:
    """Even-odd rule, edge by edge."""
    crossings = 0
    for polygon in polygons:
        for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
                crossings += 1
    return crossings % 2 == 1


# ------------------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize("size", [(32, 32), (17, 41), (1, 1)])
def test_drawn_as_pixel_by_pixel(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    hole: Polygon = [(0.4, 0.45), (0.6, 0.45), (0.6, 0.55), (0.4, 0.55)]
    wild: Polygon = [(float(x), float(y)) for x, y in rng.random((40, 2))]
    region = RegionOfInterest(inspect=[STAR, hole, LEFT], ignore=[wild])
    height, width = size
    expected = [
        [
            _inside(region.inspect, (x + 0.5) / width, (y + 0.5) / height)
            and not _inside(region.ignore, (x + 0.5) / width, (y + 0.5) / height)
            for x in range(width)
        ]
        for y in range(height)
    ]
    np.testing.assert_array_equal(draw_region(region, size), expected)


def test_no_polygon_to_inspect_is_everywhere() -> None:
    assert draw_region(RegionOfInterest(), (4, 6)).all()
    np.testing.assert_array_equal(draw_region(RegionOfInterest(ignore=[LEFT]), (1, 4))[0], [False, False, True, True])


def test_lines_hold_no_pixel() -> None:
    for line in ([(0.0, 0.0), (0.0, 0.5), (0.0, 1.0)], [(1.0, 0.0), (1.0, 0.5), (1.0, 1.0)]):
        assert not draw_region(RegionOfInterest(inspect=[line]), (8, 8)).any()


@pytest.mark.parametrize("original", [(50, 100), (100, 50), (64, 64), (40, 90)])
def test_a_letterbox_moves_the_region_with_the_image(original: tuple[int, int]) -> None:
    """White pixels of an image and the region of the same outline end at the same places of the input."""
    data = brightness_header(data__fit="letterbox", data__size=[40, 64]).config.data
    region = RegionOfInterest(inspect=[[(0.25, 0.0), (1.0, 0.0), (1.0, 0.5), (0.25, 0.5)]])
    height, width = original
    image = np.zeros((height, width, 1), np.uint8)
    image[: round(height / 2), round(width / 4) :] = 255
    kept = InspectedPixels(region, data).mask(original)
    assert kept is not None
    whole = InspectedPixels(None, data).mask(original)
    assert whole is not None
    shown = fit_image(image, data.size, "letterbox")[..., 0]
    sure = whole & ((shown == 0) | (shown == 255))
    np.testing.assert_array_equal(kept[sure], shown[sure] == 255)
    assert not kept[~whole].any(), "padding is no part of the image"
    assert sure.sum() > 0.8 * whole.sum()


def test_drawn_once_for_each_size_of_image() -> None:
    inspected = InspectedPixels(RegionOfInterest(inspect=[LEFT]), brightness_header(data__fit="letterbox").config.data)
    assert inspected.mask((10, 20)) is inspected.mask((10, 20))
    resized = InspectedPixels(RegionOfInterest(inspect=[LEFT]), brightness_header().config.data)
    assert resized.mask((10, 20)) is resized.mask((99, 7)), "a resized image fills the input, whatever its shape"
    assert InspectedPixels(None, brightness_header().config.data).mask((10, 20)) is None


# ---------------------------------------------------------------------------------------------------------- mask images


def _blobs(seed: int, size: tuple[int, int], threshold: float = 0.0) -> NDArray[np.bool_]:
    noise = np.random.default_rng(seed).normal(size=size)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 5) > threshold)


@pytest.mark.parametrize("seed", range(4))
def test_a_mask_comes_back_within_a_pixel(seed: int) -> None:
    mask = _blobs(seed, (120, 150))
    polygons = outline(mask)
    again = draw_region(RegionOfInterest(inspect=polygons), (120, 150))
    around = np.ones((3, 3), np.uint8)
    least = cv2.erode(mask.astype(np.uint8), around, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    sure = (least > 0) | (cv2.dilate(mask.astype(np.uint8), around) == 0)
    np.testing.assert_array_equal(again[sure], mask[sure])
    assert (again != mask).mean() < 0.02
    edges = (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()
    assert 10 < sum(map(len, polygons)) < edges / 2, "outlines, not pixels"


@pytest.mark.parametrize(
    "drawn",
    [
        [".....", ".###.", ".#.#.", ".###.", "....."],
        ["#####", "#...#", "#.#.#", "#...#", "#####"],
        ["#....", ".#...", "..#..", "...#.", "....#"],
        ["#...#", ".....", "..#..", ".....", "#...#"],
        ["##.##", "##.##", ".....", "##.##", "##.##"],
    ],
    ids=["ring", "spot in a ring", "diagonal", "single pixels", "four corners"],
)
def test_small_masks_come_back_exactly(drawn: list[str]) -> None:
    """Holes, spots in holes, single pixels and touching corners; each pixel is twenty of the mask image."""
    mask = np.array([[letter == "#" for letter in row] for row in drawn])
    large = mask.repeat(20, axis=0).repeat(20, axis=1)
    np.testing.assert_array_equal(draw_region(RegionOfInterest(inspect=outline(large)), large.shape), large)
    np.testing.assert_array_equal(draw_region(RegionOfInterest(inspect=outline(large)), mask.shape), mask)
    single = draw_region(RegionOfInterest(inspect=outline(mask)), mask.shape)
    assert single[mask].all() or (single != mask).mean() <= 0.2


def test_outlines_reach_the_border() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:, 5:] = True
    drawn = draw_region(RegionOfInterest(inspect=outline(mask)), (400, 400))
    assert drawn[:, -1].all()
    assert drawn[0, 210:].all()
    assert not drawn[:, :200].any()


def test_a_mask_of_dust_is_refused() -> None:
    mask = np.zeros((200, 200), bool)
    mask[::4, ::4] = True
    with pytest.raises(ImageError, match="2500 spots"):
        outline(mask)


def test_long_outlines_are_simplified_until_they_fit() -> None:
    rng = np.random.default_rng(0)
    heights = rng.integers(10, 190, 12_000)
    mask = np.arange(200)[:, None] < heights
    region = RegionOfInterest(inspect=outline(mask))
    assert 1000 < sum(map(len, region.inspect)) <= 20_000


# ----------------------------------------------------------------------------------------------------------- inspecting


def _spot(left: bool) -> NDArray[np.uint8]:
    """A dark image with a bright spot in its left or its right half."""
    image = np.full((40, 60, 3), 20, np.uint8)
    column = 12 if left else 42
    image[16:28, column : column + 9] = 250
    return image


@pytest.mark.parametrize(("suffix", "backend"), [(".onnx", "onnxruntime"), (".onnx", "openvino"), (".xml", "openvino")])
@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_a_defect_outside_changes_no_figure(tmp_path: Path, suffix: str, backend: Any, fit: str) -> None:
    path = write_brightness(tmp_path / f"x{suffix}", brightness_header(THRESHOLDS, data__fit=fit))
    everywhere = Detector.load(path, backend=backend)
    assert [everywhere.predict(_spot(left)).verdict for left in (True, False)] == ["reject", "reject"]
    edit_header(path, read_header(path).model_copy(update={"region": RegionOfInterest(inspect=[LEFT])}))
    detector = Detector.load(path, backend=backend)
    inside, outside, good = detector.predict([_spot(True), _spot(False), np.full((40, 60, 3), 20, np.uint8)])
    assert inside.verdict == "reject"
    assert inside.score == pytest.approx(everywhere.predict(_spot(True)).score)
    assert inside.regions[0].box[2] <= 33
    assert (outside.verdict, outside.score, outside.regions) == ("accept", good.score, [])
    np.testing.assert_array_equal(outside.input_map, good.input_map)
    np.testing.assert_array_equal(outside.anomaly_map, good.anomaly_map)
    assert not outside.anomaly_mask.any()
    assert not outside.anomaly_map[:, 34:].any()


class _Brightness:
    """A backend whose anomaly map is the image's brightness."""

    name = execution = "brightness"
    in_flight = 1

    def run(self, images: Images) -> tuple[Images, Images]:
        return images.mean(1), images


def test_pixel_metrics_are_those_of_the_inspected_half(tmp_path: Path) -> None:
    """As if the data set were of the left half alone; what lies right neither helps nor hurts."""
    rng = np.random.default_rng(3)
    for number in range(6):
        image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        kind = "good" if number < 3 else "spot"
        write_image(tmp_path / "whole" / "test" / kind / f"{number}.png", image)
        left = image.copy()
        left[:, SIZE // 2 :] = 0
        write_image(tmp_path / "half" / "test" / kind / f"{number}.png", left)
        if kind == "spot":
            mask = np.zeros((SIZE, SIZE, 3), np.uint8)
            mask[4:9, 3:13] = 255
            write_image(tmp_path / "whole" / "ground_truth" / kind / f"{number}_mask.png", mask)
            mask[:, SIZE // 2 :] = 0
            write_image(tmp_path / "half" / "ground_truth" / kind / f"{number}_mask.png", mask)
    for name in ("whole", "half"):
        write_image(tmp_path / name / "train" / "good" / "0.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    header = brightness_header().model_copy(update={"region": RegionOfInterest(inspect=[LEFT])})
    inspected, half = (
        evaluate(Detector(_Brightness(), header), tmp_path / name, layout="mvtec").metrics for name in ("whole", "half")
    )
    assert inspected == half
    everywhere = evaluate(Detector(_Brightness(), brightness_header()), tmp_path / "whole", layout="mvtec").metrics
    assert everywhere.pixel_ap != inspected.pixel_ap
