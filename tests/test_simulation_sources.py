"""Anomaly source textures: procedural ones against slow references, folders against their own files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from draem.config import SimulationConfig
from draem.errors import DataError
from draem.simulation import textures
from draem.simulation.draws import Stream, sample_keys, uniform
from draem.simulation.sources import FolderTextures, ProceduralTextures, open_sources

CPU = torch.device("cpu")


def keys_of(count: int) -> torch.Tensor:
    return sample_keys(21, 0, torch.arange(count))


@pytest.mark.parametrize("size", [(64, 64), (40, 67)])
def test_procedural_textures_are_images(size: tuple[int, int]) -> None:
    keys = keys_of(60)
    drawn = ProceduralTextures(size).draw(keys, CPU)
    assert drawn.shape == (60, 3, *size)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0
    assert torch.equal(drawn, ProceduralTextures(size).draw(keys, CPU))


def test_procedural_textures_do_not_depend_on_the_batch() -> None:
    source, keys = ProceduralTextures((48, 48)), keys_of(30)
    parts = torch.cat([source.draw(part, CPU) for part in torch.split(keys, 7)])
    # A rounding may move a pixel across a palette's step.
    assert (source.draw(keys, CPU) - parts).abs().mean() < 1e-4


def test_procedural_textures_vary() -> None:
    drawn = ProceduralTextures((64, 64)).draw(keys_of(200), CPU)
    means = drawn.mean((2, 3))  # B×3
    assert means.std(0).min() > 0.15  # colours fill the cube …
    assert means.amin() < 0.15
    assert means.amax() > 0.85
    greyness = (drawn.amax(1) - drawn.amin(1)).mean((1, 2))
    assert (greyness < 0.05).float().mean() > 0.1  # … with grey ones …
    assert (greyness > 0.4).float().mean() > 0.1  # … and saturated ones
    contrast = drawn.mean(1).std((1, 2))
    assert contrast.quantile(0.1) < 0.08
    assert contrast.quantile(0.9) > 0.15
    # Fine and coarse: how alike pixels at a distance of 8 are.
    grey = drawn.mean(1) - drawn.mean((1, 2, 3))[:, None, None]
    likeness = (grey[:, :, 8:] * grey[:, :, :-8]).mean((1, 2)) / grey.square().mean((1, 2)).clamp(min=1e-8)
    assert likeness.quantile(0.1) < 0.0
    assert likeness.quantile(0.9) > 0.4
    distances = torch.cdist(drawn.flatten(1), drawn.flatten(1)) + torch.eye(200) * 1e3
    assert distances.min() > 1.0


@pytest.mark.parametrize("kind", textures.KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_makes_a_finite_varied_field(kind: textures.Field) -> None:
    keys = keys_of(16)
    field = kind(keys, uniform(keys, 99, (8,)), (40, 56))
    assert field.shape == (16, 40, 56)
    assert field.isfinite().all()
    assert (field.flatten(1).amax(1) - field.flatten(1).amin(1)).min() > 0.05
    assert (field[0] - field[1]).abs().max() > 0.05


def test_straight_grating_is_its_closed_form() -> None:
    keys, draws = keys_of(1), torch.tensor([[0.125, 0.5, 0.0, 0, 0, 0, 0, 0]])
    field = textures.grating(keys, draws, (32, 32))[0].numpy()
    y, x = (np.mgrid[0:32, 0:32] - 16) / 32
    expected = 10.0 * (x + y) / np.sqrt(2.0)  # an eighth of a turn; 10 is the geometric middle of 2 and 50
    np.testing.assert_allclose(field, expected, atol=1e-5)


def test_palette_equals_piecewise_interpolation() -> None:
    keys = keys_of(40)
    got = textures.palettes(keys).numpy()
    draws = uniform(keys, Stream.PALETTE, (27,)).double().numpy()
    for palette, numbers in zip(got, draws, strict=True):
        spread, sharp, muted = numbers[:3]
        stops = numbers[3:].reshape(6, 4)
        colours = stops[0, :3] + min(1.0, 0.15 + 1.2 * spread) * (stops[:, :3] - stops[0, :3])
        colours = colours[:, :1] + max(0.0, 1.25 * muted - 0.25) * (colours - colours[:, :1])
        colours = np.clip(1.3 * colours - 0.15, 0.0, 1.0)
        ends = np.cumsum(0.1 + stops[:, 3]) / np.sum(0.1 + stops[:, 3])
        hardness = 2.0 ** max(0.0, 12.0 * sharp - 4.0)
        for step in range(256):
            position = (step + 0.5) / 256
            segment = int(np.searchsorted(ends, position, side="right"))
            start = ends[segment - 1] if segment else 0.0
            local = (position - start) / (ends[segment] - start)
            blend = min(1.0, max(0.0, (local - 0.5) * hardness + 0.5))
            expected = (1 - blend) * colours[segment] + blend * colours[(segment + 1) % 6]
            np.testing.assert_allclose(palette[:, step], expected, atol=2e-3)


def test_colour_wraps_round_the_palette() -> None:
    palette = uniform(keys_of(2), 1, (3, 256))
    field = uniform(keys_of(2), 2, (9, 5)) * 8.0 - 4.0
    field[0, 0, 0], field[0, 0, 1] = -1e-9, 1.0
    got = textures.colour(field, palette)
    steps = np.floor(field.numpy() * np.float32(256.0)).astype(int) % 256
    expected = np.stack([palette[sample].numpy()[:, steps[sample]] for sample in range(2)])
    np.testing.assert_array_equal(got.numpy(), expected)


def test_pebbles_find_the_nearest_point() -> None:
    keys, size = keys_of(1), (48, 48)
    draws = torch.tensor([[0.0, 0.1, 1.0, 1.0, 0.0, 0, 0, 0]])  # straight, square cells; the distance alone
    radius = textures._worley(keys, draws, size)[0].numpy() / 0.9
    scale = 5.0 * 8.0**0.1
    cells = np.arange(-5, 6)
    row, column = (torch.from_numpy(grid).float()[None] for grid in np.meshgrid(cells, cells, indexing="ij"))
    words = textures._cell_hash(keys, row, column)[0]
    point_y, point_x = (words & 0x3FF) / 1024, ((words >> 10) & 0x3FF) / 1024
    points = torch.stack((row[0] + 0.1 + 0.8 * point_y, column[0] + 0.1 + 0.8 * point_x), -1).view(-1, 2).numpy()
    pixels = np.moveaxis(np.mgrid[0:48, 0:48], 0, -1).reshape(-1, 1, 2) / 48 * scale - scale / 2
    nearest = np.sqrt(((pixels - points) ** 2).sum(-1).min(1)).reshape(size)
    wrong = np.abs(radius - nearest) > 0.01
    assert wrong.mean() < 0.02  # four cells nearly always hold the nearest


def test_relief_lights_a_slope() -> None:
    ramp = torch.arange(8.0)[None, None, :].expand(2, 8, 8) * 0.01
    light = textures.relief(ramp, torch.tensor([0.4, 0.75]))
    assert light[0].abs().max() == 0.0  # half of the samples have none
    torch.testing.assert_close(light[1, 1:, 1:], torch.full((7, 7), 0.02))


def test_grain_is_uniform_noise_or_none() -> None:
    noise = textures.grain(keys_of(2), torch.tensor([0.5, 1.0]), (64, 64))
    assert noise[0].abs().max() == 0.0
    assert noise[1].std().item() == pytest.approx(0.3 / np.sqrt(12), rel=0.05)


def write(path: Path, height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Write random pixels losslessly; returns them as RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cv2.imwrite(str(path), image[:, :, ::-1])
    return image


def test_folder_reads_any_depth_and_kind_and_skips_damage(tmp_path: Path) -> None:
    exact = [write(tmp_path / name, 24, 32, seed) for seed, name in enumerate(["a.png", "b/c/d.BMP", "e/f.tiff"])]
    write(tmp_path / "x/g.jpg", 24, 32, 3)
    write(tmp_path / "x/h.webp", 24, 32, 4)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a texture")
    source = FolderTextures(tmp_path, (24, 32))
    assert source.images.shape == (5, 24, 32, 3)
    assert source.images.dtype == torch.uint8
    keys = keys_of(100)
    drawn = (source.draw(keys, CPU) * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for image in exact:
        share = np.mean([np.array_equal(image, texture) for texture in drawn])
        assert 0.05 < share < 0.4  # each is drawn about a fifth of the time
    assert torch.equal(source.draw(keys[:9], CPU), source.draw(keys, CPU)[:9])


def test_small_images_are_mirrored_on_and_large_ones_shrunk(tmp_path: Path) -> None:
    small = write(tmp_path / "a_small.png", 10, 13, 0)
    large = write(tmp_path / "b_large.png", 96, 64, 1)
    small_got, large_got = FolderTextures(tmp_path, (32, 32)).images.numpy()
    for row in range(32):
        for column in range(32):
            y, x = row % 20, column % 26
            np.testing.assert_array_equal(small_got[row, column], small[min(y, 19 - y), min(x, 25 - x)])
    blocks = large.reshape(32, 3, 32, 2, 3).mean((1, 3))
    np.testing.assert_allclose(large_got, blocks, atol=0.51)


@pytest.mark.parametrize("content", [None, "empty", "damaged"])
def test_useless_folder_is_named(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "textures"
    if content:
        folder.mkdir()
    if content == "damaged":
        (folder / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        open_sources(SimulationConfig(textures=folder), (32, 32))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder_means_procedural() -> None:
    (source,) = open_sources(SimulationConfig(), (32, 32)).values()
    assert isinstance(source, ProceduralTextures)
