"""Crops: what is read from a folder, and where and how it is pasted, against per-image references."""

from __future__ import annotations

import contextlib
import logging
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from draem.config import SimulationConfig, SourceWeights
from draem.errors import DataError
from draem.simulation.crops import Crops
from draem.simulation.draws import Stream, sample_keys, uniform
from draem.simulation.simulator import Simulator
from planted import smooth_images

SIZE = (48, 56)
ONLY_CROPS = SourceWeights(procedural=0.0, crops=1.0)


def keys_of(count: int) -> torch.Tensor:
    return sample_keys(71, 0, torch.arange(count))


def colours(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth RGB pixels."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (2, 2, 0))
    return np.asarray(np.rint(60 + 150 * (noise - noise.min()) / np.ptp(noise)), np.uint8)


def write(path: Path, rgb: NDArray[np.uint8], alpha: NDArray[np.uint8] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = rgb[:, :, ::-1]
    assert cv2.imwrite(str(path), bgr if alpha is None else np.dstack((bgr, alpha)))


def disc(height: int, width: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - height / 2 + 0.5) / (height / 2 - 2)) ** 2 + ((columns - width / 2 + 0.5) / (width / 2 - 2)) ** 2
    return np.asarray((inside <= 1) * 255, np.uint8)


# ------------------------------------------------------------------------------------------------------------- reading


def test_alpha_of_8_and_16_bits_is_read(tmp_path: Path) -> None:
    rgb, alpha = colours(12, 17), np.random.default_rng(0).integers(1, 256, (12, 17), dtype=np.uint8)
    write(tmp_path / "a.png", rgb, alpha)
    cv2.imwrite(str(tmp_path / "b.png"), np.dstack((rgb[:, :, ::-1], alpha)).astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "c.png"), rgb[:, :, 0])
    eight, sixteen, grey = Crops(tmp_path, SIZE).pixels.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(eight[:, :, 3], alpha)
    np.testing.assert_allclose(eight[:, :, :3], rgb * (alpha[:, :, None] / 255.0), atol=0.51)
    np.testing.assert_array_equal(sixteen, eight)
    np.testing.assert_array_equal(grey, np.dstack((*[rgb[:, :, 0]] * 3, np.full((12, 17), 255))))


def test_three_ways_to_say_what_the_defect_is(tmp_path: Path) -> None:
    rgb = colours(20, 24)
    write(tmp_path / "a.png", rgb, disc(20, 24))
    write(tmp_path / "sub" / "b.png", rgb)
    cv2.imwrite(str(tmp_path / "sub" / "b_mask.png"), disc(20, 24))
    write(tmp_path / "c.bmp", rgb)
    crops = Crops(tmp_path, SIZE)
    assert crops.pixels.shape == (3, 4, 20, 24)
    by_alpha, whole, by_mask = crops.pixels.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(by_alpha, by_mask)
    np.testing.assert_array_equal(whole, np.dstack((rgb, np.full((20, 24), 255))))
    box = disc(20, 24)[2:18, 2:22]  # cut to what is to be seen
    np.testing.assert_array_equal(by_alpha[:16, :20, 3], box)
    np.testing.assert_array_equal(by_alpha[:16, :20, :3], rgb[2:18, 2:22] * (box[:, :, None] > 0))
    assert not by_alpha[16:].any()


@pytest.mark.parametrize("name", ["a_mask.PNG", "a_MASK.png", "a_Mask.BMP"])
def test_a_masks_name_in_any_case(name: str, tmp_path: Path) -> None:
    write(tmp_path / "a.png", colours(20, 24))
    encoded, mask = cv2.imencode(Path(name).suffix.lower(), disc(20, 24))
    (tmp_path / name).write_bytes(mask.tobytes())
    crops = Crops(tmp_path, SIZE)
    assert encoded
    np.testing.assert_array_equal(crops.pixels[:, 3].numpy(), [disc(20, 24)[2:18, 2:22]])


def test_what_cannot_be_used_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "good.png", colours(10, 10))
    write(tmp_path / "empty.png", colours(10, 10), np.zeros((10, 10), np.uint8))
    write(tmp_path / "other.png", colours(10, 10))
    cv2.imwrite(str(tmp_path / "other_mask.png"), disc(12, 10))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with caplog.at_level(logging.WARNING):
        crops = Crops(tmp_path, SIZE)
    assert len(crops.pixels) == 1
    assert len(caplog.records) == 3
    for name, reason in (("empty", "mask is empty"), ("other", "another size, 12×10"), ("broken", "early")):
        assert any(f"{name}.png" in message and reason in message for message in caplog.messages)


@pytest.mark.parametrize("content", [None, "nothing", "damaged", "masks"])
def test_useless_folder_is_named(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "crops"
    if content:
        folder.mkdir()
    if content == "damaged":
        (folder / "a.png").write_bytes(b"nothing")
    if content == "masks":
        cv2.imwrite(str(folder / "a_mask.png"), disc(12, 12))
    with pytest.raises(DataError) as caught:
        Simulator(SimulationConfig(crops=folder, sources=ONLY_CROPS), SIZE, "cpu")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_large_crops_are_scaled_down(tmp_path: Path) -> None:
    write(tmp_path / "a.png", colours(96, 28))
    thin = np.zeros((300, 300), np.uint8)
    thin[150] = 255
    write(tmp_path / "b.png", colours(300, 300), thin)
    crops = Crops(tmp_path, SIZE)
    assert crops.pixels.shape[2:] == (48, 56)
    blocks = colours(96, 28).reshape(48, 2, 14, 2, 3).mean((1, 3))
    np.testing.assert_allclose(crops.pixels[0, :3, :, :14].permute(1, 2, 0), blocks, atol=0.51)
    assert crops.pixels[1, 3].any()


# ------------------------------------------------------------------------------------------------------------- pasting


def test_pasted_pixels_are_the_crops_at_the_drawn_place(tmp_path: Path) -> None:
    images = [(colours(21, 17, 1), disc(21, 17)), (colours(15, 33, 2), np.full((15, 33), 255, np.uint8))]
    for name, (rgb, alpha) in zip("ab", images, strict=True):
        write(tmp_path / f"{name}.png", rgb, alpha)
    keys, normal = keys_of(16), smooth_images(16, 3, SIZE)
    mask, source = Crops(tmp_path, SIZE).draw(normal, keys, None)
    draws = uniform(keys, Stream.CROP, (7,)).double().numpy()
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for index, numbers in enumerate(draws):
        rgb, alpha = images[int(numbers[0] * 2)]
        opacity = alpha / 255.0
        place = np.floor(numbers[1:3] * SIZE)
        angle, scale = 2 * math.pi * numbers[4], 0.5 * 3 ** numbers[5]
        down, right = (rows - place[0]) / scale, (columns - place[1]) * (-1 if numbers[3] < 0.5 else 1) / scale
        middle = (alpha.shape[0] - 1) / 2, (alpha.shape[1] - 1) / 2
        where = (
            math.cos(angle) * down - math.sin(angle) * right + middle[0],
            math.sin(angle) * down + math.cos(angle) * right + middle[1],
        )
        read = [
            ndimage.map_coordinates(plane, where, order=1, mode="grid-constant")
            for plane in (*np.moveaxis(rgb / 255.0 * opacity[:, :, None], 2, 0), opacity)
        ]
        lit = np.minimum(np.stack(read[:3]) * (0.85 + 0.3 * numbers[6]), read[3])
        expected = lit + normal[index].double().numpy() * (1 - read[3])
        np.testing.assert_allclose(source[index], expected, atol=5e-3)
        clear = np.abs(read[3] - 0.5) > 1e-3
        np.testing.assert_array_equal(mask[index, 0].numpy()[clear], (read[3] > 0.5)[clear])


def test_crops_lie_in_the_region_and_are_never_empty(tmp_path: Path) -> None:
    thin = np.zeros((31, 31), np.uint8)
    thin[4] = thin[:, 9] = 255
    ring = disc(31, 31) - np.pad(disc(27, 27), 2)
    write(tmp_path / "thin.png", colours(31, 31), thin)
    write(tmp_path / "ring.png", colours(31, 31), ring)
    write(tmp_path / "dot.png", colours(1, 1))
    write(tmp_path / "faint.png", colours(9, 9), np.full((9, 9), 40, np.uint8))
    keys, normal = keys_of(400), smooth_images(1, 3, SIZE).expand(400, -1, -1, -1)
    region = torch.zeros(400, 1, *SIZE)
    region[:, :, 30:34, 5:9] = 1.0
    region[::4] = 0.0  # none known there: everywhere
    crops = Crops(tmp_path, SIZE)
    for where in (None, region):
        mask, source = crops.draw(normal, keys, where)
        assert mask.sum((1, 2, 3)).min() >= 1.0
        assert torch.equal(mask, mask.round())
        assert mask.max() == 1.0
        assert source.min() >= 0.0
        assert source.max() <= 1.0
    empty = region.amax((1, 2, 3)) == 0.0
    assert (mask[~empty] * (1.0 - region[~empty])).sum() == 0.0
    assert mask[empty][:, :, :, 20:].sum() > 0.0


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_crops_of_any_number_of_channels(tmp_path: Path, channels: int) -> None:
    rgb = colours(12, 15)
    write(tmp_path / "a.png", rgb)
    stored = Crops(tmp_path, SIZE, channels).pixels[0, :-1].numpy()
    if channels == 1:
        np.testing.assert_allclose(stored[0], rgb @ np.array([0.299, 0.587, 0.114]), atol=0.501)
    else:
        for channel in range(channels):
            np.testing.assert_array_equal(stored[channel], rgb[:, :, channel % 3])
    config = SimulationConfig(clean_share=0.0, crops=tmp_path, sources=ONLY_CROPS)
    batch = Simulator(config, SIZE, "cpu", channels)(smooth_images(4, channels, SIZE), keys_of(4))
    assert batch.anomalous.shape == (4, channels, *SIZE)


# ------------------------------------------------------------------------------------------------------- the simulator


def test_simulated_crops_are_seen_within_their_masks(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.full((12, 12, 3), (255, 0, 0), np.uint8), disc(12, 12))
    normal = torch.zeros(20, 3, *SIZE)
    config = SimulationConfig(clean_share=0.0, crops=tmp_path, sources=ONLY_CROPS)
    batch = Simulator(config, SIZE, "cpu")(normal, keys_of(20))
    red = batch.anomalous[:, :1] > 0.4
    assert torch.equal(red, batch.mask > 0)
    assert (batch.mask.sum((1, 2, 3)) > 0).all()


def test_a_crop_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    write(tmp_path / "a.png", colours(12, 15), disc(12, 15))
    crops, keys, normal = Crops(tmp_path, SIZE), keys_of(9), smooth_images(9, 3, SIZE)
    mask, source = crops.draw(normal, keys, None)
    for index in range(9):
        part = slice(index, index + 1)
        one_mask, one_source = crops.draw(normal[part], keys[part], None)
        assert torch.equal(one_mask, mask[part])
        torch.testing.assert_close(one_source, source[part], atol=1e-6, rtol=0)


def test_nothing_waits_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The meta device has no data to read: whatever would wait for a GPU's answer raises there.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    write(tmp_path / "a.png", colours(12, 15))
    config = SimulationConfig(clean_share=0.0, crops=tmp_path, sources=SourceWeights(crops=1.0), gradient_share=0.5)
    normal, region = torch.empty(16, 3, *SIZE, device="meta"), torch.empty(16, 1, *SIZE, device="meta")
    batch = Simulator(config, SIZE, "meta")(normal, keys_of(16), region)
    assert batch.anomalous.shape == (16, 3, *SIZE)
