"""Perlin noise, rotation and masks: held against textbook loops, SciPy and the published code's statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from draem.config import SimulationConfig
from draem.simulation.draws import sample_keys, uniform
from draem.simulation.masks import perlin_masks
from draem.simulation.perlin import perlin
from draem.simulation.rotation import rotate

CPU = torch.device("cpu")
PUBLISHED = SimulationConfig(allow_empty=True)


def keys_of(count: int, step: int = 0) -> torch.Tensor:
    return sample_keys(11, step, torch.arange(count))


def textbook_perlin(angles: NDArray[np.float64], cells: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float64]:
    """Perlin noise pixel by pixel: dot products with four gradients, blended by the fade curve."""
    noise = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = row * cells[0] / size[0], column * cells[1] / size[1]
            top, left = math.floor(y), math.floor(x)
            fade_y, fade_x = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (y - top, x - left))
            dots = [
                [math.sin(angles[j, i]) * (y - j) + math.cos(angles[j, i]) * (x - i) for i in (left, left + 1)]
                for j in (top, top + 1)
            ]
            upper, lower = (near + fade_x * (far - near) for near, far in dots)
            noise[row, column] = math.sqrt(2) * (upper + fade_y * (lower - upper))
    return noise


@pytest.mark.parametrize("size", [(32, 32), (20, 33), (37, 16)])
def test_perlin_equals_textbook(size: tuple[int, int]) -> None:
    keys, lattice = keys_of(4), torch.tensor([[1, 1], [8, 2], [4, 8], [5, 3]])
    noise = perlin(keys, lattice, (8, 8), size, stream=3)
    angles = 2 * np.pi * uniform(keys, 3, (9, 9)).double().numpy()
    for got, some_angles, cells in zip(noise.numpy(), angles, lattice.tolist(), strict=True):
        np.testing.assert_allclose(got, textbook_perlin(some_angles, tuple(cells), size), atol=2e-6)


def test_octaves_are_a_sum_of_textbook_noise() -> None:
    keys, size = keys_of(1), (24, 24)
    noise = perlin(keys, torch.tensor([[2, 4]]), (2, 4), size, stream=3, octaves=3)
    rows, columns = (2, 4, 8), (4, 8, 12)  # the last is held at two pixels a cell
    angles = 2 * np.pi * uniform(keys, 3, (3 + 5 + 9, 5 + 9 + 13))[0].double().numpy()
    expected, corner = np.zeros(size), (0, 0)
    for octave, cells in enumerate(zip(rows, columns, strict=True)):
        some = angles[corner[0] : corner[0] + cells[0] + 1, corner[1] : corner[1] + cells[1] + 1]
        expected += 0.5**octave * textbook_perlin(some, cells, size)
        corner = (corner[0] + cells[0] + 1, corner[1] + cells[1] + 1)
    np.testing.assert_allclose(noise[0].numpy(), expected, atol=2e-6)


def test_perlin_does_not_depend_on_the_rest_of_the_batch() -> None:
    keys, lattice = keys_of(6), torch.tensor([[1, 1], [32, 2], [4, 8], [5, 3], [32, 32], [1, 16]])
    whole = perlin(keys, lattice, (32, 32), (48, 40), stream=3)
    alone = torch.cat([perlin(keys[i : i + 1], lattice[i : i + 1], (32, 32), (48, 40), stream=3) for i in range(6)])
    torch.testing.assert_close(whole, alone, atol=1e-6, rtol=0)


def test_perlin_stays_within_one() -> None:
    noise = perlin(keys_of(64), torch.full((64, 2), 8), (8, 8), (64, 64), stream=3)
    assert 0.8 < noise.abs().max() <= 1.0


def scipy_rotate(image: NDArray[np.float32], degrees: float, mode: str) -> NDArray[np.float32]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.array([[cos, sin], [-sin, cos]])  # from output (y, x) to input (y, x), counter-clockwise, y down
    centre = (np.array(image.shape) - 1) / 2
    turned: NDArray[np.float32] = ndimage.affine_transform(image, matrix, centre - matrix @ centre, order=1, mode=mode)
    return turned


@pytest.mark.parametrize(("corners", "mode"), [("black", "grid-constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("size", [(32, 32), (21, 48)])
def test_rotate_equals_scipy(corners: str, mode: str, size: tuple[int, int]) -> None:
    images = uniform(keys_of(4), 5, (2, *size))
    degrees = torch.tensor([17.0, -80.0, 133.0, 0.0])
    got = rotate(images, degrees, corners)  # type: ignore[arg-type]
    expected = [
        [scipy_rotate(channel, angle, mode) for channel in image]
        for image, angle in zip(images.double().numpy(), degrees.tolist(), strict=True)
    ]
    np.testing.assert_allclose(got.numpy(), np.array(expected), atol=2e-4)


def test_rotate_by_a_right_angle_is_counter_clockwise() -> None:
    images = uniform(keys_of(2), 5, (3, 16, 16))
    torch.testing.assert_close(rotate(images, torch.full((2,), 90.0), "black"), images.rot90(1, (2, 3)))


def areas(config: SimulationConfig, count: int = 640) -> NDArray[np.float64]:
    parts = [perlin_masks(keys_of(128, step), (256, 256), config, CPU).mean((1, 2, 3)) for step in range(count // 128)]
    return torch.cat(parts).double().numpy()


def test_areas_are_those_of_the_published_noise() -> None:
    # The figures are of the noise before it is turned; bounds: four standard errors of 640 samples.
    share = areas(PUBLISHED.model_copy(update={"mask_rotation": 0.0}))
    assert 0.015 < (share == 0.0).mean() < 0.085
    assert np.median(share) == pytest.approx(0.053, abs=0.005)
    assert np.quantile(share, 0.95) == pytest.approx(0.10, abs=0.02)
    assert 0.15 < share.max() < 0.65


def test_turning_loses_what_leaves_the_image() -> None:
    # What share of a square stays, over all angles, is measured on an image of ones.
    angles = torch.arange(-90.0, 90.0, 5.0)
    kept = rotate(torch.ones(len(angles), 1, 64, 64), angles, "black").mean().item()
    plain, turned = areas(PUBLISHED.model_copy(update={"mask_rotation": 0.0})), areas(PUBLISHED)
    assert turned.mean() / plain.mean() == pytest.approx(kept, abs=0.05)


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((256, 256), {}),
        ((64, 64), {"lattice": (0, 0)}),
        ((64, 96), {"mask_threshold": (0.2, 0.99)}),
        ((16, 16), {"lattice": (8, 8)}),
        ((200, 333), {"mask_rotation": 180.0}),
        ((17, 16), {"mask_threshold": (0.9, 0.9)}),
    ],
)
def test_masks_are_never_empty(size: tuple[int, int], changes: dict[str, object]) -> None:
    masks = perlin_masks(keys_of(200), size, SimulationConfig(**changes), CPU)  # type: ignore[arg-type]
    assert masks.shape == (200, 1, *size)
    assert ((masks == 0.0) | (masks == 1.0)).all()
    filled = masks.sum((1, 2, 3))
    assert filled.min() >= 1
    assert (filled < size[0] * size[1]).all()


def test_only_empty_masks_are_mended() -> None:
    keys = keys_of(300)
    as_published, mended = (perlin_masks(keys, (64, 64), config, CPU) for config in (PUBLISHED, SimulationConfig()))
    empty = as_published.sum((1, 2, 3)) == 0
    assert 3 <= empty.sum() <= 60
    assert torch.equal(as_published[~empty], mended[~empty])


def test_threshold_is_drawn_for_each_sample() -> None:
    low, high, drawn = (
        areas(SimulationConfig(allow_empty=True, mask_threshold=bounds), 256)
        for bounds in ((0.2, 0.2), (0.6, 0.6), (0.2, 0.6))
    )
    assert (high <= drawn).all()
    assert (drawn <= low).all()
    assert high.mean() < drawn.mean() < low.mean()
