"""Anomaly masks of every kind: held against slow references from the same drawn parameters, and against their word."""

from __future__ import annotations

import contextlib
import math

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from draem.config import MaskKind, SimulationConfig
from draem.simulation.draws import Stream, integers, sample_keys, uniform
from draem.simulation.fields import highest, smooth_noise
from draem.simulation.lines import CRACK_DRAWS, SCRATCH_DRAWS, TRUNK, TWIG, Lines, cracks, scratches
from draem.simulation.masks import MASKS, perlin_masks
from draem.simulation.perlin import perlin
from draem.simulation.placing import anchors, inside_of
from draem.simulation.plans import plan
from draem.simulation.rotation import rotate
from draem.simulation.shapes import Rectangles, rectangles, scars
from draem.simulation.simulator import Simulator
from draem.simulation.spans import capsule_spans, fill, rectangle_spans
from draem.simulation.spots import edge_of

CPU = torch.device("cpu")
KINDS: list[MaskKind] = list(MASKS)
SHARP: list[MaskKind] = ["rectangle", "scar", "scratch", "crack"]
SIZES = [(16, 16), (17, 41), (64, 48), (96, 96)]


def keys_of(count: int, step: int = 0) -> torch.Tensor:
    return sample_keys(29, step, torch.arange(count))


def draw(
    kind: MaskKind, samples: int, size: tuple[int, int], region: torch.Tensor | None = None, **changes: object
) -> NDArray[np.bool_]:
    """Masks as bool B×H×W."""
    config = SimulationConfig(**changes)  # type: ignore[arg-type]
    return np.asarray(MASKS[kind](keys_of(samples), size, config, CPU, region)[:, 0].numpy() > 0.5)


def disc(count: int, size: tuple[int, int], radius: float = 0.35) -> torch.Tensor:
    """A round region at another place for each sample."""
    y, x = (torch.arange(side) + 0.5 for side in size)
    middle = 0.35 + 0.3 * uniform(keys_of(count), 77, (2,))
    rows = (y - middle[:, :1] * size[0]).square()[:, :, None]
    columns = (x - middle[:, 1:] * size[1]).square()[:, None, :]
    return ((rows + columns).sqrt() < radius * min(size)).float()[:, None]


def centres(size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.indices(size).astype(np.float64)
    return np.asarray(y + 0.5), np.asarray(x + 0.5)


def pieces(mask: NDArray[np.bool_]) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1


def segment_distance(size: tuple[int, int], ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every pixel's centre to a segment, 2×2 rows and columns."""
    y, x = centres(size)
    (y0, x0), (dy, dx) = ends[0], ends[1] - ends[0]
    along = ((y - y0) * dy + (x - x0) * dx) / max(dy * dy + dx * dx, 1e-12)
    along = np.clip(along, 0.0, 1.0)
    return np.asarray(np.hypot(y - y0 - along * dy, x - x0 - along * dx))


def rectangle_excess(
    size: tuple[int, int], centre: NDArray[np.float64], half: NDArray[np.float64], angle: float
) -> NDArray[np.float64]:
    """How far outside of the nearest side every pixel's centre is; negative inside."""
    y, x = centres(size)
    y, x = y - centre[0], x - centre[1]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return np.asarray(np.maximum(np.abs(along) - half[0], np.abs(across) - half[1]))


def assert_covers(got: NDArray[np.bool_], excess: NDArray[np.float64]) -> None:
    """All pixels inside, none outside; those on the edge to a thousandth may be either."""
    clear = np.abs(excess) > 2e-3
    np.testing.assert_array_equal(got[clear], excess[clear] < 0)


# ------------------------------------------------------------------------------------------------------------- spans


def test_capsules_are_all_within_a_radius() -> None:
    size, random = (30, 41), np.random.default_rng(0)
    ends = random.uniform(-8, 45, (80, 2, 2))
    ends[0, 1] = ends[0, 0]  # a disc
    ends[1, 1, 0] = ends[1, 0, 0]  # lying
    ends[2, 1, 1] = ends[2, 0, 1]  # upright
    ends = np.sort(ends, axis=1) * [1, 0] + ends * [0, 1]  # the upper end first
    radius = random.uniform(0.5, 6.0, 80)
    upper, lower, radii = (torch.tensor(part, dtype=torch.float32) for part in (ends[:, 0], ends[:, 1], radius))
    masks = fill(*capsule_spans(upper, lower, radii, size[0]), torch.arange(80), 80, size[1])
    for got, some, reach in zip(masks[:, 0].numpy() > 0.5, ends, radius, strict=True):
        assert_covers(got, segment_distance(size, some) - reach)


def test_rectangles_are_two_strips() -> None:
    size, random = (33, 24), np.random.default_rng(1)
    centre, half = random.uniform(-5, 35, (80, 2)), random.uniform(0.5, 15, (80, 2))
    angle = np.concatenate(([0.0, math.pi / 2], random.uniform(0, 2 * math.pi, 78)))
    direction = np.stack((np.sin(angle), np.cos(angle)), axis=1)
    middles, sides, turns = (torch.tensor(part, dtype=torch.float32) for part in (centre, half, direction))
    masks = fill(*rectangle_spans(middles, sides, turns, size[0]), torch.arange(80), 80, size[1])
    for index in range(80):
        excess = rectangle_excess(size, centre[index], half[index], angle[index])
        assert_covers(masks[index, 0].numpy() > 0.5, excess)


def test_fill_unites_spans() -> None:
    left = torch.tensor([[1.4, 5.0], [3.0, -torch.inf], [2.0, torch.inf]])
    right = torch.tensor([[3.6, 4.0], [5.0, torch.inf], [4.0, -torch.inf]])
    masks = fill(left, right, torch.tensor([0, 0, 1]), 3, 6)[:, 0]
    rows = [[[0, 1, 1, 1, 1, 0], [1] * 6], [[0, 0, 1, 1, 0, 0], [0] * 6], [[0] * 6, [0] * 6]]
    assert masks.tolist() == rows


# ------------------------------------------------------------------------------------------------------------ fields


def test_smooth_noise_is_blended_heights_exactly() -> None:
    size, limit, keys = (19, 32), (5, 8), keys_of(3)
    cells = torch.tensor([[5.0, 8.0], [1.0, 2.5], [3.3, 7.7]])
    heights = (uniform(keys, Stream.MASK_GRADIENTS, (6, 9)) * 31).floor().double().numpy() / 16 - 15 / 16
    got = smooth_noise(keys, cells, limit, size)
    for sample in range(3):
        for row in range(size[0]):
            for column in range(size[1]):
                # Weights are rounded to 1/1024: nearest to the smooth step within that.
                y = (row + 0.5) * cells[sample, 0].item() / size[0]
                x = (column + 0.5) * cells[sample, 1].item() / size[1]
                total = 0.0
                for line_y in (int(y), int(y) + 1):
                    for line_x in (int(x), int(x) + 1):
                        t, u = abs(y - line_y), abs(x - line_x)
                        weight = (1 - t * t * (3 - 2 * t)) * (1 - u * u * (3 - 2 * u))
                        total += weight * heights[sample, min(line_y, 5), min(line_x, 8)]
                assert got[sample, row, column].item() == pytest.approx(total, abs=3e-3)
    scaled = got.double() * 2**24
    assert torch.equal(scaled, scaled.round())  # sums of exact products: the same in any order
    alone = torch.cat([smooth_noise(keys[i : i + 1], cells[i : i + 1], limit, size) for i in range(3)])
    assert torch.equal(got, alone)


@pytest.mark.parametrize("share", [0.0005, 0.1, 0.73, 1.0])
def test_highest_are_those_of_a_sort(share: float) -> None:
    field = uniform(keys_of(5), 60, (1, 37, 50)) * 8 - 6
    pixels = torch.full((5,), max(1.0, round(share * 37 * 50)))
    got = highest(field, pixels, None).flatten(1)
    for values, mask in zip(field.flatten(1), got, strict=True):
        threshold = values.sort(descending=True).values[int(pixels[0]) - 1]
        assert torch.equal(mask > 0.5, values >= threshold)
    inside = disc(5, (37, 50))
    within = highest(field, pixels, inside)
    assert torch.equal(within.sum((1, 2, 3)), torch.minimum(pixels, inside.sum((1, 2, 3))))
    assert (within <= inside).all()


def test_an_empty_region_is_everywhere() -> None:
    region = disc(3, (20, 24))
    region[1] = 0.0
    inside = inside_of(region)
    assert inside is not None
    assert torch.equal(inside[[0, 2]], region[[0, 2]])
    assert inside[1].all()


# --------------------------------------------------------------------------------------- kinds against slow references


@pytest.mark.parametrize("area", [None, (0.01, 0.1)])
@pytest.mark.parametrize("kind", ["rectangle", "scar"])
def test_rectangles_and_scars_are_as_drawn(kind: MaskKind, area: tuple[float, float] | None) -> None:
    size, config = (70, 96), SimulationConfig(count=(1, 4), area=area)
    keys = keys_of(20)
    drawn = plan(keys, config, 2 if kind == "rectangle" else 3)
    made: Rectangles = (rectangles if kind == "rectangle" else scars)(drawn, size)
    (length, width), (sine, cosine) = made.half.unbind(-1), made.direction.unbind(-1)
    reach = torch.stack(
        (length * sine + width * cosine.abs(), length * cosine.abs() + width * sine), dim=-1
    )  # the angles lie between 0 and 180°
    places = anchors(keys, torch.stack((-reach, reach), dim=-2), size, CPU, None).double().numpy()
    for index, got in enumerate(draw(kind, 20, size, count=(1, 4), area=area)):
        excess = np.full(size, np.inf)
        for slot in drawn.drawn[index].nonzero()[:, 0].tolist():
            angle = math.atan2(sine[index, slot], cosine[index, slot])
            excess = np.minimum(
                excess, rectangle_excess(size, places[index, slot], made.half[index, slot].numpy(), angle)
            )
        assert_covers(got, excess)


@pytest.mark.parametrize("area", [None, (0.01, 0.1)])
@pytest.mark.parametrize("kind", ["scratch", "crack"])
def test_scratches_and_cracks_are_as_drawn(kind: MaskKind, area: tuple[float, float] | None) -> None:
    size, config = (70, 96), SimulationConfig(count=(1, 3), area=area)
    keys = keys_of(12)
    drawn = plan(keys, config, SCRATCH_DRAWS if kind == "scratch" else CRACK_DRAWS)
    made: Lines = (scratches if kind == "scratch" else cracks)(drawn, size)
    points, thickest = made.ends.flatten(-3, -2), made.widths.amax(-1)[..., None] / 2
    box = torch.stack((points.amin(-2) - thickest, points.amax(-2) + thickest), dim=-2)
    places = anchors(keys, box, size, CPU, None).double().numpy()
    for index, got in enumerate(draw(kind, 12, size, count=(1, 3), area=area)):
        excess = np.full(size, np.inf)
        for slot, segment in made.drawn[index].nonzero().tolist():
            ends = made.ends[index, slot, segment].numpy() + places[index, slot]
            distance = segment_distance(size, ends) - made.widths[index, slot, segment].item() / 2
            excess = np.minimum(excess, distance)
        excess[
            tuple(places[index, 0].astype(int))
        ] = -1.0  # the anchor's pixel, however thin the line beside its centre
        assert_covers(got, excess)


def test_blobs_fall_off_from_their_centres() -> None:
    """Each mask's boundary is uneven by at most its noise: the nearest ellipse within, the farthest without."""
    size, config = (96, 80), SimulationConfig(area=(0.02, 0.1), count=(1, 3))
    keys = keys_of(30)
    drawn = plan(keys, config, 5)
    places = anchors(keys, torch.zeros(30, 3, 2, 2), size, CPU, None).floor().double().numpy() + 0.5
    y, x = centres(size)
    assert drawn.share is not None
    for index, got in enumerate(draw("blob", 30, size, area=(0.02, 0.1), count=(1, 3))):
        nearest = np.full(size, np.inf)
        for slot in drawn.drawn[index].nonzero()[:, 0].tolist():
            area = float(drawn.share[index] * drawn.weights[index, slot]) * size[0] * size[1]
            knobs = drawn.draws[index, slot].tolist()
            stretch, angle = 2.0 ** (knobs[1] / 2), knobs[2] * math.pi
            down, right = y - places[index, slot, 0], x - places[index, slot, 1]
            radius = math.sqrt(area / math.pi)
            along = (down * math.cos(angle) + right * math.sin(angle)) / (radius * stretch)
            across = (down * math.sin(angle) - right * math.cos(angle)) / (radius / stretch)
            nearest = np.minimum(nearest, np.hypot(along, across))
        rough = 0.6 * float(drawn.draws[index, 0, 4])
        assert nearest[got].max() - nearest[~got].min() <= 2 * rough + 1e-3


# ------------------------------------------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_masks_are_never_empty_and_within_the_region(kind: MaskKind, size: tuple[int, int]) -> None:
    settings: list[dict[str, object]] = [{}, {"area": (1e-4, 0.3), "count": (1, 5)}, {"mask_threshold": (0.3, 0.95)}]
    for changes in settings:
        for region in (None, disc(150, size), disc(150, size, 0.08)):
            masks = MASKS[kind](keys_of(150), size, SimulationConfig(**changes), CPU, region)  # type: ignore[arg-type]
            assert masks.shape == (150, 1, *size)
            assert masks.dtype == torch.float32
            assert ((masks == 0.0) | (masks == 1.0)).all()
            assert masks.sum((1, 2, 3)).min() >= 1
            assert region is None or (masks <= region).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pixel_as_region_is_the_mask(kind: MaskKind) -> None:
    region = torch.zeros(20, 1, 24, 32)
    region.view(20, -1)[torch.arange(20), integers(uniform(keys_of(20), 70, (1,))[:, 0], 0, 767)] = 1.0
    assert torch.equal(MASKS[kind](keys_of(20), (24, 32), SimulationConfig(), CPU, region), region)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("regional", [False, True])
def test_same_bits_alone_and_in_a_batch(kind: MaskKind, regional: bool) -> None:
    for changes in ({}, {"area": (0.01, 0.2), "count": (1, 6)}):
        config, size = SimulationConfig(**changes), (64, 80)  # type: ignore[arg-type]
        region = disc(24, size) if regional else None
        together = MASKS[kind](keys_of(24), size, config, CPU, region)
        for index in range(24):
            within = None if region is None else region[index : index + 1]
            alone = MASKS[kind](keys_of(24)[index : index + 1], size, config, CPU, within)
            # Perlin noise is a sum of inexact products, which a batch may take in another order.
            assert (alone != together[index : index + 1]).sum() <= (2 if kind == "perlin" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_area_is_what_is_asked_for(kind: MaskKind) -> None:
    size, (low, high) = (192, 160), (0.004, 0.04)
    config = SimulationConfig(area=(low, high))
    asked = plan(keys_of(200), config, 0).share
    assert asked is not None
    assert np.log(asked.numpy() / low).mean() / np.log(high / low) == pytest.approx(0.5, abs=0.1)
    got = draw(kind, 200, size, area=(low, high)).mean((1, 2))
    ratio = got / asked.numpy()
    boxes, lines = (0.9, 1.1), (0.65, 1.45)
    bounds = {"rectangle": boxes, "scar": boxes, "scratch": lines, "crack": lines}
    below, above = bounds.get(kind, (1.0, 1.0))
    pixel = 1.0 / got / (size[0] * size[1])
    assert (ratio + pixel >= below).all()
    assert (ratio - pixel <= above).all()
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_areas_from_tiny_to_huge(kind: MaskKind) -> None:
    for share in (0.0002, 0.3):
        got = draw(kind, 60, (128, 128), area=share).mean((1, 2)) / share
        if kind in SHARP:
            assert (got > 0.6).all()
            assert (got < 1.45 + 8 / (share * 128**2)).all()  # a line is not thinner than a pixel
        else:
            assert got == pytest.approx(np.ones(60), abs=1 / (share * 128**2))


@pytest.mark.parametrize("kind", ["rectangle", "scar", "blob"])
def test_count_is_the_number_of_shapes(kind: MaskKind) -> None:
    masks = draw(kind, 200, (256, 256), count=(2, 6), area=0.005)
    counts = integers(uniform(keys_of(200), Stream.SHAPE, (2,))[:, 0].double(), 2, 6).numpy()
    assert set(counts) == {2, 3, 4, 5, 6}
    found = np.array([pieces(mask) for mask in masks])
    assert (found <= counts).mean() >= (0.97 if kind == "blob" else 1.0)  # a lumpy blob may lose a crumb
    assert (found == counts).mean() > 0.6  # the others touch


def test_natural_sizes_grow_with_the_image() -> None:
    # Up to there, lines are no thinner than a pixel, and so larger.
    for kind in [*SHARP, "blob", "chip", "stain"]:
        small, large = (draw(kind, 40, (side, side)).mean((1, 2)) for side in (256, 384))
        assert np.median(small) == pytest.approx(np.median(large), rel=0.25), kind
        if kind != "stain":
            assert (large < 0.31).all()
            assert (large > 0.0001).all()


# ------------------------------------------------------------------------------------------------------- of each kind


def test_rectangles_are_upright_and_scars_are_long_and_turned() -> None:
    for got in draw("rectangle", 100, (96, 128)):
        rows, columns = got.any(1).nonzero()[0], got.any(0).nonzero()[0]
        assert got[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    turned = 0
    for got in draw("scar", 60, (512, 512)):
        points = np.argwhere(got).astype(np.float32)
        width, length = sorted(cv2.minAreaRect(points)[1])
        assert length >= 1.8 * width
        turned += len(points) < 0.9 * np.prod(np.ptp(points, axis=0) + 1)
    assert turned > 40


def test_scratches_are_thin_and_some_are_interrupted() -> None:
    masks = draw("scratch", 100, (256, 256))
    depth = [cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5).max() for mask in masks]
    assert max(depth) <= 3.0
    parts = np.array([pieces(mask) for mask in masks])
    assert 5 < (parts > 1).sum() < 60


def test_cracks_branch() -> None:
    size = (160, 160)
    drawn = plan(keys_of(60), SimulationConfig(), CRACK_DRAWS)
    made = cracks(drawn, size)
    ends, there = made.ends[:, 0].numpy(), made.drawn[:, 0].numpy()
    assert there[:, :TRUNK].all()
    branches = there[:, TRUNK:].reshape(60, -1, TWIG)
    assert set(branches[:, :, 0].sum(1)) == {2, 3, 4}
    starts = ends[:, TRUNK::TWIG, 0]
    for index in range(60):
        trunk = {tuple(point) for point in ends[index, :TRUNK, 0]}
        assert {tuple(point) for point in starts[index]} < trunk
        assert len({tuple(point) for point in starts[index]}) == 4
        # Jagged: no three segments in a line.
        steps = ends[index, :TRUNK, 1] - ends[index, :TRUNK, 0]
        turns = np.diff(np.unwrap(np.arctan2(steps[:, 0], steps[:, 1])))
        assert np.abs(turns).mean() > 0.2
    assert all(pieces(mask) == 1 for mask in draw("crack", 60, size))


def test_chips_bite_the_edge() -> None:
    size = (96, 112)
    region = disc(80, size)
    edge = edge_of(region)[:, 0].numpy() > 0.5
    reference = [
        (part[0].numpy() > 0) & (cv2.erode(part[0].numpy(), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)) == 0)
        for part in region
    ]
    np.testing.assert_array_equal(edge, reference)
    assert all((mask & line).any() for mask, line in zip(draw("chip", 80, size, region), edge, strict=True))
    everywhere = draw("chip", 80, size)
    sides = [everywhere[:, 0], everywhere[:, -1], everywhere[:, :, 0], everywhere[:, :, -1]]
    touched = np.stack([side.any(1) for side in sides])
    assert touched.any(0).all()
    assert (touched.sum(1) >= 10).all()  # every side is bitten


def test_stains_cover_half_of_the_region_or_all() -> None:
    region = disc(100, (64, 72))
    inside = region.sum((1, 2, 3)).numpy()
    share = draw("stain", 100, (64, 72), region).sum((1, 2)) / inside
    assert (share >= 0.5 - 1 / inside).all()
    assert 15 <= (share == 1.0).sum() <= 50
    assert (share < 0.8).sum() > 20


@pytest.mark.parametrize("octaves", [1, 3])
def test_perlin_masks_are_the_noise_above_the_threshold(octaves: int) -> None:
    keys, size = keys_of(40), (48, 64)
    config = SimulationConfig(octaves=octaves, allow_empty=True, lattice=(1, 3), mask_threshold=(0.2, 0.4))
    draws = uniform(keys, Stream.MASK, (5,))
    noise = perlin(keys, 2 ** integers(draws[:, :2], 1, 3), (8, 8), size, Stream.MASK_GRADIENTS, octaves)
    turned = rotate(noise[:, None], (draws[:, 2] * 2 - 1) * 90.0, "black")
    expected = turned > (0.2 + (0.4 - 0.2) * draws[:, 3])[:, None, None, None]
    assert torch.equal(perlin_masks(keys, size, config, CPU) > 0.5, expected)
    region = disc(40, size)
    assert torch.equal(perlin_masks(keys, size, config, CPU, region) > 0.5, expected & (region > 0.5))


# ------------------------------------------------------------------------------------------------------ the simulator


@pytest.mark.parametrize("kind", KINDS)
def test_regions_turn_with_their_images(kind: MaskKind) -> None:
    size, region = (64, 64), torch.zeros(30, 1, 64, 64)
    region[:, :, 8:24, 8:40] = 1.0
    weights = dict.fromkeys(KINDS, 0.0) | {kind: 1.0}
    config = SimulationConfig.model_validate({"masks": weights, "rotation": "full", "clean_share": 0.0})
    images = 0.25 + 0.5 * region.expand(-1, 3, -1, -1)  # the part is bright: the turned image shows where it is now
    got = Simulator(config, size, CPU)(images, keys_of(30), region)
    turned = uniform(keys_of(30), Stream.SAMPLE, (4,))[:, 1] < 0.5
    assert 5 < turned.sum() < 25
    # Beyond the image, the turned region is mirrored as the turned image is.
    assert ((got.normal[:, :1] > 0.49) >= (got.mask > 0.5)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("area", [None, 0.01])
def test_nothing_reads_from_the_device(kind: MaskKind, area: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    # The meta device has no data to read: whatever would wait for a GPU's answer raises there.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    config = SimulationConfig(count=(1, 3), area=area)  # type: ignore[arg-type]
    for region in (None, torch.empty(6, 1, 40, 48, device="meta")):
        masks = MASKS[kind](keys_of(6), (40, 48), config, torch.device("meta"), region)
        assert masks.shape == (6, 1, 40, 48)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("regional", [False, True])
def test_cuda_draws_what_the_cpu_draws_without_waiting(kind: MaskKind, regional: bool) -> None:
    size, config, device = (96, 80), SimulationConfig(count=(1, 3), area=(0.01, 0.2)), torch.device("cuda")
    region = disc(32, size) if regional else None
    there = None if region is None else region.cuda()
    expected = MASKS[kind](keys_of(32), size, config, CPU, region)
    MASKS[kind](keys_of(32), size, config, device, there)  # start-up may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = MASKS[kind](keys_of(32), size, config, device, there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (expected - got.cpu()).abs().mean() < 2e-3
