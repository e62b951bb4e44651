"""SSIM, l2 and focal loss against slow float64 references, and at the edges where losses break."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from draem.config import Config
from draem.network import losses
from draem.network.losses import dice_loss, draem_losses, focal_loss, gaussian_window, ssim_loss, ssim_map
from draem.simulation.simulator import Simulated
from draem.training.objective import recipe_losses

Array = NDArray[np.float64]


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _mask(*shape: int, share: float = 0.3, seed: int = 9) -> Tensor:
    return (_random(*shape, seed=seed) < share).float()


def slow_ssim(a: Array, b: Array) -> Array:
    """SSIM of two H×W images: an 11×11 window of weights around each pixel, zeros beyond the border."""
    axis = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2
    ahead = [np.pad(image, 5) for image in (a, b)]
    out = np.empty_like(a)
    for row, column in np.ndindex(*a.shape):
        x, y = (image[row : row + 11, column : column + 11] for image in ahead)
        mean_x, mean_y = (window * x).sum(), (window * y).sum()
        var_x, var_y = (window * x * x).sum() - mean_x**2, (window * y * y).sum() - mean_y**2
        covariance = (window * x * y).sum() - mean_x * mean_y
        out[row, column] = ((2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)) / (
            (mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)
        )
    return out


def slow_focal(logits: Array, mask: Array, gamma: float) -> float:
    terms: list[float] = []
    for image, row, column in np.ndindex(mask.shape[0], *mask.shape[2:]):
        normal, anomalous = (float(value) for value in logits[image, :, row, column])
        p_anomalous = 1 / (1 + math.exp(normal - anomalous))
        p = p_anomalous if mask[image, 0, row, column] else 1 - p_anomalous
        terms.append(-((1 - p) ** gamma) * math.log(p))
    return sum(terms) / len(terms)


def _double(x: Tensor) -> Array:
    return np.asarray(x.detach().numpy(), np.float64)


# ---------------------------------------------------------------------------------------------------------------- ssim


@pytest.mark.parametrize("size", [(13, 17), (32, 24), (5, 40), (1, 1)])
def test_ssim_against_a_loop_over_pixels(size: tuple[int, int]) -> None:
    a = _random(2, 3, *size)
    b = (a + 0.2 * _random(2, 3, *size, seed=1)).clamp(0, 1)
    found = ssim_map(a, b)
    for image in range(2):
        for channel in range(3):
            expected = slow_ssim(_double(a[image, channel]), _double(b[image, channel]))
            np.testing.assert_allclose(_double(found[image, channel]), expected, atol=2e-4)
    assert float(ssim_loss(a, b)) == pytest.approx(1 - float(found.double().mean()), abs=1e-6)


def slow_halves(image: Array) -> Array:
    rows, columns = (side // 2 for side in image.shape)
    blocks = [
        [image[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] for column in range(columns)] for row in range(rows)
    ]
    return np.array([[block.mean() for block in line] for line in blocks])


@pytest.mark.parametrize(
    ("size", "scales", "share"), [((24, 40), 3, 0.6), ((13, 18), 2, 0.6), ((16, 16), 5, 0.6), ((16, 16), 5, 0.02)]
)
def test_ssim_at_scales_against_a_loop_over_pixels(size: tuple[int, int], scales: int, share: float) -> None:
    a = _random(2, 1, *size)
    b = (a + 0.2 * _random(2, 1, *size, seed=1)).clamp(0, 1)
    seen = _mask(2, 1, *size, share=share, seed=2)
    images = [(_double(a[image, 0]), _double(b[image, 0]), _double(seen[image, 0])) for image in range(2)]
    whole, inspected = [], []
    for _ in range(scales):
        lost = [(1 - slow_ssim(x, y), weight) for x, y, weight in images]
        whole.append(np.mean([map_ for map_, _ in lost]))
        inspected.append(sum((map_ * weight).sum() for map_, weight in lost) / sum(weight.sum() for _, weight in lost))
        images = [(slow_halves(x), slow_halves(y), slow_halves(weight)) for x, y, weight in images]
    assert float(ssim_loss(a, b, scales=scales)) == pytest.approx(np.mean(whole), abs=1e-4)
    assert float(ssim_loss(a, b, seen, scales)) == pytest.approx(np.mean(inspected), abs=1e-4)
    losses_ = draem_losses(a, _random(2, 2, *size), b, seen, 0.5, 2.0, ssim_scales=scales)
    assert float(losses_.ssim) == pytest.approx(np.mean(whole), abs=1e-4)
    rest = float(losses_.l2 + losses_.focal)
    assert float(losses_.total) == pytest.approx(0.5 * np.mean(whole) + rest, abs=1e-4)


def test_window_against_scipy() -> None:
    impulse = np.zeros(21)
    impulse[10] = 1
    expected = ndimage.gaussian_filter1d(impulse, 1.5, truncate=5 / 1.5)[5:16]
    np.testing.assert_allclose(_double(gaussian_window()), expected, atol=1e-7)


@pytest.mark.parametrize("size", [(5, 7), (33, 70), (96, 32)])
def test_blur_and_its_gradient_against_a_convolution(size: tuple[int, int]) -> None:
    x = _random(2, 3, *size).requires_grad_()
    kernel = torch.outer(gaussian_window(), gaussian_window())[None, None]
    expected = torch.nn.functional.conv2d(x.flatten(0, 1)[:, None], kernel, padding=5).view(x.shape)
    weights = _random(2, 3, *size, seed=1)
    found = losses._blur(x)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    gradients = [torch.autograd.grad((blurred * weights).sum(), x)[0] for blurred in (found, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(losses._blurred_by_products(x), expected, atol=1e-6, rtol=1e-5)


def test_blur_is_the_same_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_SHARE", 40 * 30)
    x, threads = _random(2, 3, 40, 30).transpose(-1, -2), torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found.append(losses._blur(x))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(found[0], losses._blur(x.contiguous()), atol=0, rtol=0)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=0, rtol=0)
    assert losses._workers(1, 2) is not losses._workers(2, 2), "a forked process must not wait for its parent's threads"


def test_ssim_at_its_ends() -> None:
    a = _random(1, 3, 32, 32)
    assert float(ssim_loss(a, a)) == pytest.approx(0.0, abs=1e-6)
    assert float(ssim_loss(a, 1 - a)) > 1.0, "structure turned round: below zero similarity"
    black, white = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    assert float(ssim_loss(black, white)) == pytest.approx(1.0, abs=0.01)
    assert bool((ssim_map(a, _random(1, 3, 32, 32, seed=3)).abs() <= 1).all())


def test_ssim_has_a_fixed_value_range() -> None:
    # The published code reads the range off the data; so scaling both images would change nothing there.
    a, b = _random(1, 3, 32, 32), _random(1, 3, 32, 32, seed=1)
    assert abs(float(ssim_loss(a, b)) - float(ssim_loss(a * 0.05, b * 0.05))) > 0.05


def test_what_inference_leaves_behind_can_be_trained_with() -> None:
    losses._band.cache_clear()
    a = _random(1, 3, 19, 19)
    with torch.inference_mode():
        ssim_loss(a, a)
    b = _random(1, 3, 19, 19, seed=1).requires_grad_()
    ssim_loss(b, a).backward()  # type: ignore[no-untyped-call]
    assert b.grad is not None


@pytest.mark.parametrize(
    "changed",
    [{"ssim_weight": 2.0}, {"ssim_scales": 3}, {"focal_gamma": 1.0}, {"l1_weight": 1.0}, {"dice_weight": 1.0}],
)
def test_every_weight_of_a_recipe_counts(changed: dict[str, Any]) -> None:
    reconstruction, logits, normal = _random(2, 3, 32, 32), _random(2, 2, 32, 32, seed=1), _random(2, 3, 32, 32, seed=2)
    simulated = Simulated(normal, anomalous=normal, mask=_mask(2, 1, 32, 32), source=normal)
    told = {"ssim_weight": 1.0, "ssim_scales": 1, "focal_gamma": 2.0, "l1_weight": 0.0, "dice_weight": 0.0} | changed
    recipe = Config.resolve("official", settings={f"training.{name}": value for name, value in changed.items()})
    found = recipe_losses(recipe, reconstruction, logits, simulated, None)
    torch.testing.assert_close(found.total, draem_losses(reconstruction, logits, normal, simulated.mask, **told).total)
    published = recipe_losses(Config.resolve("official"), reconstruction, logits, simulated, None)
    assert not torch.isclose(found.total, published.total)


# --------------------------------------------------------------------------------------------------------------- focal


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_against_a_loop_over_pixels(gamma: float) -> None:
    logits = (_random(2, 2, 7, 9) - 0.5) * 12
    mask = _mask(2, 1, 7, 9)
    expected = slow_focal(_double(logits), _double(mask), gamma)
    assert float(focal_loss(logits, mask, gamma)) == pytest.approx(expected, rel=1e-5)


def test_focal_with_gamma_0_is_the_cross_entropy() -> None:
    logits, mask = torch.randn(2, 2, 8, 8), _mask(2, 1, 8, 8)
    expected = torch.nn.functional.cross_entropy(logits, mask[:, 0].long())
    torch.testing.assert_close(focal_loss(logits, mask, 0.0), expected)


def test_all_normal_predicted_anomalous_costs_much() -> None:
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 1] = 5.0
    assert float(focal_loss(logits, torch.zeros(1, 1, 8, 8), 2.0)) > 1.0
    assert float(focal_loss(logits, torch.ones(1, 1, 8, 8), 2.0)) < 1e-6
    # Both classes weigh the same.
    missed = focal_loss(logits.flip(1), torch.ones(1, 1, 8, 8), 2.0)
    torch.testing.assert_close(missed, focal_loss(logits, torch.zeros(1, 1, 8, 8), 2.0))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("scale", [1e-4, 30.0, 200.0, 1e4])
def test_focal_and_its_gradient_are_finite_for_extreme_logits(gamma: float, scale: float) -> None:
    logits = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])[:, :, None, None].expand(2, 2, 4, 4) * scale
    logits = logits.clone().requires_grad_()
    loss = focal_loss(logits, _mask(2, 1, 4, 4, share=0.5), gamma)
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(float(loss.detach()))
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_focal_gradient_against_differences() -> None:
    logits = (_random(1, 2, 3, 3) - 0.5) * 6
    mask = _mask(1, 1, 3, 3, share=0.5)
    leaf = logits.clone().requires_grad_()
    focal_loss(leaf, mask, 2.0).backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    for index in np.ndindex(1, 2, 3, 3):
        step = np.zeros((1, 2, 3, 3))
        step[index] = 1e-5
        up, down = (slow_focal(_double(logits) + sign * step, _double(mask), 2.0) for sign in (1, -1))
        assert float(leaf.grad[index]) == pytest.approx((up - down) / 2e-5, abs=1e-6)


# --------------------------------------------------------------------------------------------------------------- total


def _inputs(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    return {
        "reconstruction": _random(2, 3, 24, 24, seed=1).to(dtype),
        "logits": ((_random(2, 2, 24, 24, seed=2) - 0.5) * 6).to(dtype),
        "normal": _random(2, 3, 24, 24, seed=3),
        "mask": _mask(2, 1, 24, 24),
    }


@pytest.mark.parametrize(("weight", "gamma"), [(1.0, 2.0), (0.0, 2.0), (2.5, 1.0)])
def test_the_total_is_the_papers_sum(weight: float, gamma: float) -> None:
    inputs = _inputs()
    found = draem_losses(**inputs, ssim_weight=weight, focal_gamma=gamma)
    pairs = zip(inputs["reconstruction"].flatten(0, 1), inputs["normal"].flatten(0, 1), strict=True)
    ssim = 1 - float(np.mean([slow_ssim(_double(a), _double(b)) for a, b in pairs]))
    l2 = float(np.mean((_double(inputs["reconstruction"]) - _double(inputs["normal"])) ** 2))
    focal = slow_focal(_double(inputs["logits"]), _double(inputs["mask"]), gamma)
    assert float(found.ssim) == pytest.approx(ssim, abs=1e-5)
    assert float(found.l2) == pytest.approx(l2, rel=1e-5)
    assert float(found.focal) == pytest.approx(focal, rel=1e-5)
    assert float(found.total) == pytest.approx(weight * ssim + l2 + focal, rel=1e-5)


def test_losses_are_float32_whatever_comes_in() -> None:
    inputs = _inputs(torch.bfloat16)
    rounded = {name: value.float() for name, value in inputs.items()}
    expected = draem_losses(**rounded, ssim_weight=1.0, focal_gamma=2.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = draem_losses(**inputs, ssim_weight=1.0, focal_gamma=2.0)
    for name in ("total", "ssim", "l2", "focal"):
        assert getattr(found, name).dtype == torch.float32
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("value", [0.0, 1.0, 100.0, -50.0])
def test_gradients_are_finite_for_flat_images(value: float) -> None:
    inputs = _inputs()
    reconstruction = torch.full((2, 3, 24, 24), value, requires_grad=True)
    logits = inputs["logits"].clone().requires_grad_()
    flat = inputs | {"reconstruction": reconstruction, "logits": logits, "normal": torch.zeros(2, 3, 24, 24)}
    draem_losses(**flat, ssim_weight=1.0, focal_gamma=2.0).total.backward()  # type: ignore[no-untyped-call]
    for leaf in (reconstruction, logits):
        assert leaf.grad is not None
        assert bool(leaf.grad.isfinite().all())


def test_l1_and_dice_are_added_by_their_weights() -> None:
    """Against the definitions, with numbers small enough to be counted: two of four pixels are anomalous."""
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2)
    found = torch.tensor([0.8, 0.4, 0.3, 0.1]).view(1, 1, 2, 2)
    logits = torch.cat((torch.zeros_like(found), torch.logit(found)), dim=1)
    image = torch.full((1, 3, 2, 2), 0.5)
    plain = draem_losses(image, logits, image, mask, 1.0, 2.0)
    both = draem_losses(image, logits, image, mask, 1.0, 2.0, l1_weight=3.0, dice_weight=0.5)
    l1 = (0.2 + 0.6 + 0.3 + 0.1) / 4
    dice = 1 - (2 * 1.2 + 1) / (1.6 + 2 + 1)
    assert float(both.total - plain.total) == pytest.approx(3.0 * l1 + 0.5 * dice, abs=1e-6)
    assert float(both.focal) == float(plain.focal)


def test_dice_of_the_truth_and_of_nothing_is_zero() -> None:
    mask = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    assert float(dice_loss(mask, mask)) == pytest.approx(0.0, abs=1e-6)
    assert float(dice_loss(torch.zeros_like(mask), torch.zeros_like(mask))) == 0.0
    assert float(dice_loss(1 - mask, mask)) > 0.95
