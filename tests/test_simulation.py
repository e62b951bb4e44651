"""The simulator as a whole: the formula, the shares, repeatability, and never a wait for the device."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
import torch

from draem.config import ROTATIONS, RotationConfig, SimulationConfig
from draem.config.simulation import SourceWeights
from draem.simulation.draws import Stream, sample_keys, uniform
from draem.simulation.rotation import rotate
from draem.simulation.simulator import Simulated, Simulator, contact_sheet

FIELDS = ("normal", "anomalous", "mask", "source")


def images_of(count: int, size: tuple[int, int] = (48, 48)) -> torch.Tensor:
    return uniform(sample_keys(41, 1, torch.arange(count)), 50, (3, *size))


def keys_of(count: int, step: int = 0) -> torch.Tensor:
    return sample_keys(41, step, torch.arange(count))


def simulate(count: int, size: tuple[int, int] = (48, 48), **changes: object) -> Simulated:
    simulator = Simulator(SimulationConfig(**changes), size, "cpu")  # type: ignore[arg-type]
    return simulator(images_of(count, size), keys_of(count))


def test_anomalous_image_is_the_formula() -> None:
    batch = simulate(40, clean_share=0.0, beta=(0.1, 0.7))
    beta = 0.1 + 0.6 * uniform(keys_of(40), Stream.SAMPLE, (4,))[:, 3].double().numpy()[:, None, None, None]
    normal, anomalous, mask, source = (getattr(batch, field).double().numpy() for field in FIELDS)
    expected = (1 - mask) * normal + (1 - beta) * mask * source + beta * mask * normal
    np.testing.assert_allclose(anomalous, expected, atol=1e-6)
    outside = np.broadcast_to(mask == 0, normal.shape)
    np.testing.assert_array_equal(anomalous[outside], normal[outside])


def test_opacity_bounds() -> None:
    batch = simulate(20, clean_share=0.0, beta=(0.0, 0.0))
    torch.testing.assert_close(batch.anomalous, torch.where(batch.mask > 0, batch.source, batch.normal))
    batch = simulate(20, clean_share=0.0, beta=(1.0, 1.0))
    assert torch.equal(batch.anomalous, batch.normal)


def test_clean_share() -> None:
    batch = simulate(400, (16, 16), clean_share=0.3)
    clean = batch.mask.sum((1, 2, 3)) == 0
    assert clean.float().mean().item() == pytest.approx(0.3, abs=0.09)  # four standard errors
    assert torch.equal(batch.anomalous[clean], batch.normal[clean])
    assert batch.source[clean].abs().max() == 0.0
    assert ((batch.anomalous != batch.normal).flatten(1).any(1) == ~clean).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_extreme_clean_shares(share: float) -> None:
    batch = simulate(50, (16, 16), clean_share=share)
    assert ((batch.mask.sum((1, 2, 3)) == 0) == bool(share)).all()


def test_clean_and_mixed_batches_hold_the_same_anomalies() -> None:
    everything, half = simulate(12, clean_share=0.0), simulate(12, clean_share=0.5)
    kept = half.mask.sum((1, 2, 3)) > 0
    assert 0 < kept.sum() < 12
    for field in FIELDS:
        difference = (getattr(everything, field)[kept] - getattr(half, field)[kept]).abs().mean()
        assert difference < 1e-4


def test_rotation_is_drawn_for_its_share() -> None:
    rotation = RotationConfig(degrees=90.0, probability=0.4, corners="black")
    count, images = 60, images_of(60)
    batch = simulate(count, rotation=rotation)
    draws = uniform(keys_of(count), Stream.SAMPLE, (4,))
    turned = draws[:, 1] < 0.4
    assert 10 < turned.sum() < 40
    assert torch.equal(batch.normal[~turned], images[~turned])
    expected = rotate(images[turned], (draws[turned, 2] * 2 - 1) * 90.0, "black")
    torch.testing.assert_close(batch.normal[turned], expected)


@pytest.mark.parametrize(("corners", "black"), [("black", True), ("reflect", False)])
def test_rotation_corners(corners: str, black: bool) -> None:
    rotation = RotationConfig(degrees=45.0, probability=1.0, corners=corners)  # type: ignore[arg-type]
    simulator = Simulator(SimulationConfig(rotation=rotation, clean_share=1.0), (32, 32), "cpu")
    normal = simulator(torch.ones(8, 3, 32, 32), keys_of(8)).normal
    assert bool((normal[:, :, 0, 0] < 0.5).any()) is black


@pytest.mark.parametrize("size", [(17, 16), (45, 83)])
@pytest.mark.parametrize("count", [1, 5])
def test_odd_sizes_and_small_batches(size: tuple[int, int], count: int) -> None:
    batch = simulate(count, size, clean_share=0.0, rotation="full")
    for field in FIELDS:
        value = getattr(batch, field)
        assert value.shape == (count, 1 if field == "mask" else 3, *size)
        assert value.dtype == torch.float32
        assert value.min() >= 0.0
        assert value.max() <= 1.0


def test_same_keys_same_bits() -> None:
    first, second = simulate(20, rotation="full"), simulate(20, rotation="full")
    assert all(torch.equal(getattr(first, field), getattr(second, field)) for field in FIELDS)
    simulator = Simulator(SimulationConfig(), (48, 48), "cpu")
    other = simulator(images_of(20), keys_of(20, step=1))
    assert not torch.equal(first.mask, other.mask)


def test_processes_share_a_batch_without_changing_it() -> None:
    simulator, images, keys = (
        Simulator(SimulationConfig(rotation=ROTATIONS["full"]), (48, 48), "cpu"),
        images_of(20),
        keys_of(20),
    )
    whole = simulator(images, keys)
    for rank in range(4):
        part = simulator(images[rank::4], keys[rank::4])
        for field in FIELDS:
            assert (getattr(whole, field)[rank::4] - getattr(part, field)).abs().mean() < 1e-4


def test_modes_do_not_matter_and_images_stay() -> None:
    plain, images = simulate(10), images_of(10)
    simulator = Simulator(SimulationConfig(), (48, 48), "cpu")
    for context in (torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.enable_grad()):
        with context:
            batch = simulator(images, keys_of(10))
            assert all(torch.equal(getattr(plain, field), getattr(batch, field)) for field in FIELDS)
            assert not batch.anomalous.requires_grad
    assert torch.equal(images, images_of(10))


def test_nothing_reads_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # The meta device has no data to read: whatever would wait for a GPU's answer raises there.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    simulator = Simulator(SimulationConfig(rotation=ROTATIONS["full"]), (48, 48), "meta")
    batch = simulator(torch.empty(64, 3, 48, 48, device="meta"), keys_of(64))
    assert batch.anomalous.shape == (64, 3, 48, 48)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_makes_what_the_cpu_makes_without_waiting() -> None:
    config = SimulationConfig(clean_share=0.2, rotation=ROTATIONS["full"])
    expected = Simulator(config, (64, 64), "cpu")(images_of(64, (64, 64)), keys_of(64))
    simulator, images = Simulator(config, (64, 64), "cuda"), images_of(64, (64, 64)).cuda()
    simulator(images, keys_of(64))  # start-up may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = simulator(images, keys_of(64))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for field in FIELDS:
        assert (getattr(expected, field) - getattr(got, field).cpu()).abs().mean() < 2e-3


def test_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match="4×3×48×48"):
        Simulator(SimulationConfig(), (48, 48), "cpu")(images_of(4, (32, 48)), keys_of(4))


def test_grey_images_get_grey_anomalies() -> None:
    grey = images_of(4, (32, 32)).mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    mixed = torch.cat((grey, images_of(4, (32, 32))))
    got = Simulator(SimulationConfig(clean_share=0.0), (32, 32), "cpu")(mixed, keys_of(8))
    published = Simulator(SimulationConfig(clean_share=0.0, source_colour="rgb"), (32, 32), "cpu")(mixed, keys_of(8))
    chroma = (got.anomalous.amax(1) - got.anomalous.amin(1)).amax((1, 2))
    assert (chroma[:4] < 1e-6).all()
    luma = (published.source[:4] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    torch.testing.assert_close(got.source[:4], luma[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(got.source[4:], published.source[4:])  # coloured images keep coloured textures


def test_contact_sheet_holds_every_image() -> None:
    batch = simulate(3, (64, 64), clean_share=0.0)
    picture = contact_sheet(batch)
    assert picture.dtype == np.uint8
    rows = (batch.normal, batch.mask.expand(-1, 3, -1, -1), batch.source, batch.anomalous)
    for index in range(3):
        for part in rows:
            # Cells grow by whole pixels: every fourth one is the image's own.
            tile = (part[index] * 255).round().permute(1, 2, 0).to(torch.uint8).numpy()
            assert np.isin(tile.reshape(-1, 3), picture.reshape(-1, 3)).all()
    assert picture.shape[0] > 3 * 256
    assert picture.shape[1] > 4 * 256


def test_soft_edges_are_the_masks_blurred_by_opencv() -> None:
    """Flat sources on black images show the opacity; the mask stays as sharp as without."""
    config = SimulationConfig(
        clean_share=0.0, sources=SourceWeights(procedural=0.0, flat=1.0), beta=(0.0, 0.0), softness=(1.5, 1.5)
    )
    keys = sample_keys(3, 0, torch.arange(6))
    images = torch.zeros(6, 3, 64, 64)
    soft = Simulator(config, (64, 64), "cpu")(images, keys)
    sharp = Simulator(config.model_copy(update={"softness": (0.0, 0.0)}), (64, 64), "cpu")(images, keys)
    torch.testing.assert_close(soft.mask, sharp.mask)
    torch.testing.assert_close(soft.source, sharp.source)
    for mask, source, found in zip(soft.mask, soft.source, soft.anomalous, strict=True):
        blurred = cv2.GaussianBlur(mask[0].numpy(), (25, 25), 1.5, borderType=cv2.BORDER_REFLECT)
        np.testing.assert_allclose(found.numpy(), blurred * source.numpy(), atol=1e-4)


def test_softness_near_zero_is_none() -> None:
    keys = sample_keys(3, 0, torch.arange(4))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sharp, soft = (
        Simulator(SimulationConfig(clean_share=0.0, softness=(0.0, high)), (32, 32), "cpu")(images, keys).anomalous
        for high in (0.0, 0.01)
    )
    torch.testing.assert_close(soft, sharp, rtol=0, atol=1e-6)
