"""Anomaly sources from the image itself, against per-image references: SciPy, sparse solves, closed forms."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from draem.config import SimulationConfig, SourceWeights
from draem.simulation.draws import Stream, choose, sample_keys, uniform
from draem.simulation.membrane import membrane
from draem.simulation.outlines import dilated, inner_border, outer_border, shape_of, window_sums
from draem.simulation.simulator import Simulator, _visible
from draem.simulation.structural import (
    STRUCTURAL,
    _moves,
    dent,
    edge_colour,
    gaussian,
    noise_level,
    patch,
    patch_places,
    slope,
)
from draem.simulation.warping import pixel_places, read_at
from planted import disc_masks, membrane_by_solving, smooth_images

COUNT, SIZE = 12, (40, 53)
KEYS = sample_keys(61, 0, torch.arange(COUNT))
IMAGES = smooth_images(COUNT, 3, SIZE)
MASKS = disc_masks(COUNT, SIZE)
NUMBERS = torch.arange(64)
EVERY_SOURCE = {"procedural": 1.0, "flat": 1.0, "patch": 1.0, "deform": 1.0, "blur": 1.0, "missing": 1.0}


# ------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("kind", sorted(STRUCTURAL))
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(16, 16), (17, 45)])
def test_any_size_and_channels(kind: str, channels: int, size: tuple[int, int]) -> None:
    images, masks = smooth_images(4, channels, size), disc_masks(4, size)
    before = images.clone()
    got = STRUCTURAL[kind](images, masks, KEYS[:4])  # type: ignore[index]
    assert got.shape == images.shape
    assert got.dtype == torch.float32
    assert got.min() >= 0.0
    assert got.max() <= 1.0
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", sorted(STRUCTURAL))
def test_a_sample_does_not_depend_on_the_batch(kind: str) -> None:
    whole = STRUCTURAL[kind](IMAGES, MASKS, KEYS)  # type: ignore[index]
    for index in range(COUNT):
        part = slice(index, index + 1)
        alone = STRUCTURAL[kind](IMAGES[part], MASKS[part], KEYS[part])  # type: ignore[index]
        torch.testing.assert_close(whole[part], alone, atol=1e-6, rtol=0)
    others = STRUCTURAL[kind](IMAGES, MASKS, sample_keys(61, 1, torch.arange(COUNT)))  # type: ignore[index]
    assert not torch.equal(whole, others)


@pytest.mark.parametrize("kind", sorted(STRUCTURAL))
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_are_borne(kind: str, value: float) -> None:
    got = STRUCTURAL[kind](IMAGES[:2], torch.full((2, 1, *SIZE), value), KEYS[:2])  # type: ignore[index]
    assert got.isfinite().all()


# ------------------------------------------------------------------------------------------------------------- shapes


def test_shape_of_a_rectangle_is_its_closed_form() -> None:
    mask = torch.zeros(1, 1, 30, 40)
    mask[:, :, 5:15, 12:32] = 1.0  # 10 × 20: area 200, border 60
    shape = shape_of(mask)
    assert shape.centre.tolist() == [[9.5, 21.5]]
    assert shape.low.tolist() == [[5.0, 12.0]]
    assert shape.high.tolist() == [[14.0, 31.0]]
    assert shape.radius.item() == pytest.approx(2.5 * 200 / 60)


def test_borders_equal_scipys() -> None:
    square, wide = np.ones((3, 3)), np.ones((5, 5))
    for mask in (np.random.default_rng(0).random((20, 31)) > 0.7, MASKS[0, 0].numpy() > 0):
        given = torch.from_numpy(mask).float()[None, None]
        for got, expected in (
            (dilated(given, 2), ndimage.binary_dilation(mask, wide)),
            (outer_border(given), ndimage.binary_dilation(mask, square) & ~mask),
            (inner_border(given), mask & ~ndimage.binary_erosion(mask, square, border_value=1)),
            (window_sums(given, 2), ndimage.convolve(mask.astype(int), wide.astype(int), mode="constant")),
        ):
            np.testing.assert_array_equal(got[0, 0].numpy(), expected)


# -------------------------------------------------------------------------------------------------------------- patch


def test_patch_is_the_image_at_the_drawn_place() -> None:
    draws = uniform(KEYS, Stream.STRUCTURE, (24,)).double().numpy()
    got = patch(IMAGES, MASKS, KEYS).numpy()
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    ways = set()
    for index, numbers in enumerate(draws):
        box = np.argwhere(MASKS[index, 0].numpy() > 0)
        centre = np.round((box.min(0) + box.max(0)) / 2)
        candidates = np.floor(numbers[8:].reshape(8, 2) * SIZE)
        apart = (np.abs(candidates - centre) / (np.ptp(box, axis=0) + 1)).max(1)
        origin = candidates[int(np.argmax(apart >= 1)) if (apart >= 1).any() else int(apart.argmax())]
        way = int(numbers[0] * 3)
        ways.add(way)
        angle = 2 * math.pi * (0.0, math.floor(numbers[1] * 4) / 4, (40 * numbers[1] - 20) / 360)[way]
        down, right = rows - centre[0], (columns - centre[1]) * (-1 if numbers[2] < 0.5 else 1)
        places = (
            math.cos(angle) * down - math.sin(angle) * right + origin[0],
            math.sin(angle) * down + math.cos(angle) * right + origin[1],
        )
        image = IMAGES[index].double().numpy()
        read = np.stack([ndimage.map_coordinates(channel, places, order=1, mode="reflect") for channel in image])
        contrast, brightness, saturation = 0.85 + 0.3 * numbers[3], -0.08 + 0.16 * numbers[4], 0.8 + 0.4 * numbers[5]
        grey = read.mean(0)
        lit = (grey + saturation * (read - grey)) * contrast + brightness + 0.5 * (1 - contrast)
        np.testing.assert_allclose(got[index], np.clip(lit, 0, 1), atol=2e-4)
    assert ways == {0, 1, 2}


def test_patch_comes_from_elsewhere() -> None:
    keys = sample_keys(62, 0, torch.arange(300))
    mask = torch.zeros(300, 1, 64, 64)
    mask[:, :, 20:36, 30:40] = 1.0
    _, centre, origin = patch_places(mask, uniform(keys, Stream.STRUCTURE, (24,)))
    away = (origin - centre).abs()
    assert ((away[:, 0] >= 16) | (away[:, 1] >= 10)).all()
    assert (origin >= 0).all()
    assert (origin < 64).all()


def test_patch_keeps_grey_grey() -> None:
    grey = IMAGES.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    got = patch(grey, MASKS, KEYS)
    assert (got.amax(1) - got.amin(1)).max() < 1e-6


# ------------------------------------------------------------------------------------------------------------- deform


def test_read_at_equals_scipy_and_its_own_pixels() -> None:
    rows, columns = pixel_places(SIZE, torch.device("cpu"))
    same = read_at(IMAGES, (rows + 0.0 * columns).expand(COUNT, -1, -1), (columns + 0.0 * rows).expand(COUNT, -1, -1))
    torch.testing.assert_close(same, IMAGES, atol=2e-5, rtol=0)
    places = uniform(KEYS, 7, (2, *SIZE)) * 90.0 - 20.0
    got = read_at(IMAGES, places[:, 0], places[:, 1])
    for index in range(COUNT):
        where = places[index].double().numpy()
        expected = [ndimage.map_coordinates(channel, where, order=1, mode="reflect") for channel in IMAGES[index]]
        np.testing.assert_allclose(got[index], np.stack(expected), atol=2e-4)


@pytest.mark.parametrize("kind", ["push", "pinch", "swirl"])
def test_moves_are_their_closed_forms(kind: str) -> None:
    number = ("push", "pinch", "swirl").index(kind)
    draws = torch.tensor([[(number + 0.5) / 3, 0.9, 0.5, 0.125, 0.0, 0.0]])  # strength +0.8, an eighth of a turn
    down, right = torch.linspace(-5, 5, 11)[None, :, None], torch.linspace(-6, 6, 13)[None, None, :]
    got = torch.stack(_moves(down, right, torch.tensor([6.0]), draws)).double().numpy()[:, 0]
    y, x = np.mgrid[-5:6, -6:7].astype(float)
    if kind == "push":
        expected = np.stack([np.full_like(y, 4.8 * math.sqrt(0.5)), np.full_like(y, 4.8 * math.sqrt(0.5))])
    elif kind == "pinch":
        expected = np.stack([0.8 * y, 0.8 * x])
    else:
        cos, sin = math.cos(1.2), math.sin(1.2)
        expected = np.stack([cos * y + sin * x - y, cos * x - sin * y - x])
    length = np.hypot(*expected)
    expected *= np.minimum(1.0, 9.0 / np.maximum(length, 1e-9))  # never more than one and a half radii
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_deformation_stays_within_the_mask_and_is_seen() -> None:
    got = STRUCTURAL["deform"](IMAGES, MASKS, KEYS)
    change = (got - IMAGES).abs().amax(1, keepdim=True)
    assert (change * (1.0 - dilated(MASKS))).max() < 1e-4
    assert (change.amax((1, 2, 3)) > 0.05).float().mean() > 0.9


def test_dent_is_level_at_the_border_and_one_in_the_middle() -> None:
    mask = disc_masks(1, (65, 65), radius=20.0)
    depth = dent(mask, torch.tensor([8.0]))
    assert depth.max().item() == pytest.approx(1.0, abs=1e-6)
    assert (depth * outer_border(mask)).max() < 0.02
    steepest = slope(depth, torch.tensor([0.0]))
    assert steepest.abs().max() < 3.0 / 20.0


def test_slope_of_a_plane_is_its_closed_form() -> None:
    plane = (0.03 * torch.arange(9.0)[:, None] + 0.04 * torch.arange(7.0))[None, None].expand(3, 1, 9, 7)
    got = slope(plane, torch.tensor([0.0, 0.25, math.atan2(0.03, 0.04) / (2 * math.pi)]))[:, 0, 1:, 1:]
    expected = torch.tensor([0.04, 0.03, 0.05])[:, None, None].expand(3, 8, 6)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


# --------------------------------------------------------------------------------------------------------------- blur


def test_gaussian_equals_scipy() -> None:
    noise = uniform(KEYS, 8, (2, *SIZE))
    down, across = torch.linspace(0.2, 6.0, COUNT), torch.linspace(4.0, 1.0, COUNT)
    got = gaussian(noise, down, across)
    for index in range(COUNT):
        sigma = (0.0, down[index].item(), across[index].item())
        expected = ndimage.gaussian_filter(noise[index].double().numpy(), sigma, mode="reflect", truncate=10.0)
        np.testing.assert_allclose(got[index], expected, atol=1e-5)


def test_blur_is_out_of_focus_or_a_smear() -> None:
    point = torch.zeros(200, 1, 129, 129)
    point[:, :, 64, 64] = 1.0
    got = STRUCTURAL["blur"](point, point, sample_keys(63, 0, torch.arange(200)))[:, 0]
    torch.testing.assert_close(got.sum((1, 2)), torch.ones(200), atol=1e-4, rtol=0)
    square = (torch.arange(129.0) - 64).square()
    down, across = (got.sum(2) @ square).sqrt(), (got.sum(1) @ square).sqrt()
    focus = (down - across).abs() < 0.01
    assert 0.35 < focus.float().mean() < 0.65
    assert (torch.maximum(down, across) / torch.minimum(down, across))[~focus].min() > 5.0
    assert down[focus].min() > 0.95
    assert down[focus].max() < 129 * 0.04 * 1.01


def test_a_white_image_stays_within_white() -> None:
    white = torch.ones(40, 1, 64, 256)
    assert STRUCTURAL["blur"](white, white, sample_keys(1, 2, torch.arange(40))).max() == 1.0


# ------------------------------------------------------------------------------------------------- missing, membranes


def ring_masks() -> Tensor:
    """Blobs, a rectangle, an L, thin lines."""
    masks = disc_masks(4, (48, 61), radius=14.0)
    masks[1], masks[2], masks[3] = 0.0, 0.0, 0.0
    masks[1, :, 10:38, 6:50] = 1.0
    masks[2, :, 4:40, 10:20] = masks[2, :, 30:40, 10:55] = 1.0
    masks[3, :, 20:23, :50] = masks[3, :, :40, 30:32] = 1.0
    return masks


def test_membrane_nearly_solves_laplace() -> None:
    masks = ring_masks()
    known = outer_border(masks)
    values = smooth_images(4, 2, (48, 61))
    got = membrane(values, known)
    errors = []
    for index in range(4):
        expected = membrane_by_solving(values[index].double().numpy(), known[index, 0].numpy() > 0)
        inside = masks[index, 0].numpy() > 0
        errors.append(np.abs(got[index].numpy() - expected)[:, inside])
    span = (values.amax((2, 3)) - values.amin((2, 3))).max().item()
    assert max(error.max() for error in errors) < 0.05 * span
    assert max(error.mean() for error in errors) < 0.015 * span
    torch.testing.assert_close(got * known, values * known)


def test_membrane_continues_a_ramp() -> None:
    masks = ring_masks()
    ramp = (torch.arange(48.0)[:, None] / 96 + torch.arange(61.0) / 122)[None, None].expand(4, 1, -1, -1)
    error = (membrane(ramp, outer_border(masks)) - ramp).abs() * masks
    assert error.max() < 0.03
    assert (error.sum((1, 2, 3)) / masks.sum((1, 2, 3))).max() < 0.006


def test_membrane_of_one_value_is_flat_and_of_nothing_zero() -> None:
    known = torch.zeros(2, 1, 20, 31)
    known[0, :, 7, 9] = 1.0
    got = membrane(torch.full((2, 1, 20, 31), 0.7), known)
    torch.testing.assert_close(got[0], torch.full((1, 20, 31), 0.7))
    assert got[1].abs().max() == 0.0


def test_edge_colour_is_the_median_along_the_edge() -> None:
    noise = uniform(KEYS, 9, (3, *SIZE))
    got = edge_colour(noise)[:, :, 0, 0].numpy()
    for index, image in enumerate(noise.numpy()):
        sides = np.concatenate((image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]), axis=1)
        np.testing.assert_allclose(got[index], np.median(sides, axis=1), atol=0.02)


def test_noise_level_is_the_noises_own_and_edges_hardly_count() -> None:
    sigma = np.array([0.0, 0.005, 0.02, 0.05])
    noise = np.random.default_rng(1).normal(size=(4, 1, 96, 96)) * sigma[:, None, None, None]
    image = torch.from_numpy(0.5 + noise).float().expand(-1, 3, -1, -1).clone()
    np.testing.assert_allclose(noise_level(image).numpy(), sigma, rtol=0.03, atol=1e-6)
    image[:, :, 40:60, 30:70] += 0.4
    np.testing.assert_allclose(noise_level(image).numpy(), sigma, rtol=0.15, atol=2e-3)


def test_missing_is_the_surroundings_or_the_edges_colour() -> None:
    ramp = (0.2 + 0.6 * torch.arange(SIZE[1]) / SIZE[1]).expand(COUNT, 3, *SIZE).clone()
    stamped = torch.where(MASKS > 0, 0.9, ramp)
    got = STRUCTURAL["missing"](stamped, MASKS, KEYS)
    by_edge = uniform(KEYS, Stream.STRUCTURE, (1,))[:, 0] < 0.5
    assert 0 < by_edge.sum() < COUNT
    expected = torch.where(by_edge[:, None, None, None], edge_colour(stamped), ramp)
    error = ((got - expected).abs() * MASKS).amax((1, 2, 3))
    assert error.max() < 0.06  # a membrane's error, and a little noise


def test_missing_is_as_noisy_as_the_image() -> None:
    noise = torch.from_numpy(np.random.default_rng(2).normal(0.5, 0.03, (COUNT, 1, 64, 64))).float()
    keys, full = KEYS, torch.zeros(COUNT, 1, 64, 64)
    got = STRUCTURAL["missing"](noise.expand(-1, 3, -1, -1), full, keys)
    by_edge = uniform(keys, Stream.STRUCTURE, (1,))[:, 0] < 0.5
    torch.testing.assert_close(got[by_edge].std((2, 3)).mean(), torch.tensor(0.03), atol=2e-3, rtol=0)


# ------------------------------------------------------------------------------------------------------ the simulator


def test_visible_drops_what_is_hardly_changed() -> None:
    mask, change = torch.zeros(1, 1, 40, 40), torch.full((1, 1, 40, 40), 0.01)
    mask[:, :, 5:35, 5:35] = 1.0
    change[:, :, :, :20] = 0.1
    change[:, :, 10, 30] = 0.2  # one pixel's noise
    got = _visible(mask, change, torch.tensor([0.02]))[0, 0]
    assert (got[5:35, 5:20] == 1.0).all()
    assert got[:, 25:].sum() == 0.0
    assert got[:5].sum() == 0.0
    assert torch.equal(_visible(mask, 0.0 * change, torch.tensor([-1.0])), mask)  # of foreign sources all is kept
    assert _visible(mask, 0.0 * change, torch.tensor([0.02])).sum() == 0.0


def test_outside_of_the_mask_16_bits_stay() -> None:
    levels = (uniform(KEYS, 10, (3, 32, 32)) * 65535).round() / 65535
    config = SimulationConfig(clean_share=0.0, sources=EVERY_SOURCE, gradient_share=0.5)  # type: ignore[arg-type]
    batch = Simulator(config, (32, 32), "cpu")(levels, KEYS)
    outside = (batch.mask == 0).expand_as(levels)
    assert torch.equal(batch.normal, levels)
    assert torch.equal(batch.anomalous[outside], levels[outside])
    assert outside.float().mean() < 0.99


def test_a_mixed_batch_holds_what_each_kind_makes() -> None:
    keys = sample_keys(64, 0, torch.arange(60))
    images = smooth_images(60, 3, (32, 32))
    config = SimulationConfig(clean_share=0.0, sources=EVERY_SOURCE, visible=0.0)  # type: ignore[arg-type]
    mixed = Simulator(config, (32, 32), "cpu")(images, keys)
    weights = list(config.source_weights.values())
    kinds = choose(uniform(keys, Stream.KINDS, (3,))[:, 1], weights)
    seen = set()
    for number, kind in enumerate(config.source_weights):
        members = kinds == number
        if not members.any():
            continue
        seen.add(kind)
        alone = config.model_copy(update={"sources": SourceWeights(**{"procedural": 0.0, kind: 1.0})})
        expected = Simulator(alone, (32, 32), "cpu")(images[members], keys[members])
        assert (mixed.source[members] - expected.source).abs().mean() < 1e-4
        assert (mixed.anomalous[members] - expected.anomalous).abs().mean() < 1e-4
    assert seen == set(EVERY_SOURCE)


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # The meta device has no data to read: whatever would wait for a GPU's answer raises there.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    config = SimulationConfig(clean_share=0.0, sources=EVERY_SOURCE, gradient_share=0.5)  # type: ignore[arg-type]
    batch = Simulator(config, (32, 33), "meta")(torch.empty(64, 3, 32, 33, device="meta"), sample_keys(1, 0, NUMBERS))
    assert batch.anomalous.shape == (64, 3, 32, 33)
