"""The three losses of DRAEM, in float32 on any device, without a host sync; and two more of the segmentation.

L = λ · (1 − SSIM) + l2 + focal  (Zavrtanik, Kristan, Skočaj, ICCV 2021, equations 1 to 4); of ours, + weight · l1 and
+ weight · dice, and SSIM at several scales.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from draem.config import Parts

WINDOW = 11
SIGMA = 1.5
_SHARE = 1 << 18
"""Pixels that a thread blurs at the least: handing over fewer takes longer."""


@dataclass(frozen=True)
class Losses:
    """Scalars, means over all pixels of the batch; `total` is what is minimised."""

    total: Tensor
    ssim: Tensor
    l2: Tensor
    focal: Tensor


def draem_losses(
    reconstruction: Tensor,
    logits: Tensor,
    normal: Tensor,
    mask: Tensor,
    ssim_weight: float,
    focal_gamma: float,
    parts: Parts = "both",
    l1_weight: float = 0.0,
    dice_weight: float = 0.0,
    inspected: Tensor | None = None,
    ssim_scales: int = 1,
) -> Losses:
    """The paper's loss, and what the two last weights add; of a sub-network alone, the other's terms are zero.

    Args:
        reconstruction: B×C×H×W, what the reconstructive sub-network made of the simulated anomaly.
        logits: B×2×H×W, normal and anomalous.
        normal: B×C×H×W in [0,1], the image before the anomaly.
        mask: B×1×H×W, 1 where anomalous, else 0.
        ssim_weight: λ of the reconstruction loss.
        focal_gamma: γ of the focal loss.
        parts: which sub-networks there are.
        l1_weight: of the mean difference between probability and mask.
        dice_weight: of the share of anomalous area that is not shared; see `dice_loss`.
        inspected: B×1×H×W, 1 where anomalies count, else 0: means are taken there alone; none: over all pixels.
        ssim_scales: of the SSIM; see `ssim_loss`.
    """
    # Under autocast the products of SSIM's window would be bfloat16, and its variances rounding errors.
    with torch.autocast(logits.device.type, enabled=False):
        reconstruction, logits = reconstruction.float(), logits.float()
        none = logits.new_zeros(())
        restores, segments = parts != "discriminative", parts != "reconstructive"
        ssim = ssim_loss(reconstruction, normal, inspected, ssim_scales) if restores else none
        l2 = _mean((reconstruction - normal).square(), inspected) if restores else none
        focal = focal_loss(logits, mask, focal_gamma, inspected) if segments else none
        total = ssim_weight * ssim + l2 + focal
        if segments and (l1_weight or dice_weight):
            found = torch.sigmoid(logits[:, 1:] - logits[:, :1])
            l1 = _mean((found - mask).abs(), inspected)
            seen = found if inspected is None else found * inspected
            total = total + l1_weight * l1 + dice_weight * dice_loss(seen, mask)
    return Losses(total, ssim, l2, focal)


def _mean(values: Tensor, inspected: Tensor | None) -> Tensor:
    """Over all of B×C×H×W, or over the inspected pixels, B×1×H×W in [0,1]; zero where there are none of these."""
    if inspected is None:
        return values.mean()
    return (values * inspected).sum() / (inspected.sum() * values.shape[1]).clamp_min(1e-6)


def ssim_loss(a: Tensor, b: Tensor, inspected: Tensor | None = None, scales: int = 1) -> Tensor:
    """Mean over (inspected) pixels and channels of 1 − SSIM, and over scales; see `ssim_map`.

    A large area that is wrong as a whole has little structure within 11 pixels, beyond its rim. Each scale after the
    first halves the images by means over 2×2 pixels: the window sees twice as far.

    Args:
        a: B×C×H×W in [0,1].
        b: like `a`.
        inspected: B×1×H×W, 1 where anomalies count; a pixel of a coarser scale counts as far as its area does.
        scales: how many; sides of 2^(scales − 1) pixels at least. Halving leaves out the last of an odd number.
    """
    loss = _mean(1.0 - ssim_map(a, b), inspected)
    for _ in range(scales - 1):
        a, b = functional.avg_pool2d(a, 2), functional.avg_pool2d(b, 2)
        inspected = None if inspected is None else functional.avg_pool2d(inspected, 2)
        loss = loss + _mean(1.0 - ssim_map(a, b), inspected)
    return loss / scales


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pixel and channel, B×C×H×W in [−1, 1].

    11×11 Gaussian window, σ = 1.5, zero padding as published; the value range is fixed at 1, whereas the published
    code guesses it from the data.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 2004.
    """
    # What is restored and what it is compared with in passes of their own: the second needs no gradient in training.
    mean_a, aa, ab = _blur(torch.cat((a, a * a, a * b), dim=1)).chunk(3, dim=1)
    mean_b, bb = _blur(torch.cat((b, b * b), dim=1)).chunk(2, dim=1)
    c1, c2 = 0.01**2, 0.03**2
    mean_ab = mean_a * mean_b
    mean_squares = mean_a.square() + mean_b.square()
    covariance = ab - mean_ab
    variances = aa + bb - mean_squares
    similarity: Tensor = ((2 * mean_ab + c1) * (2 * covariance + c2)) / ((mean_squares + c1) * (variances + c2))
    return similarity


def focal_loss(logits: Tensor, mask: Tensor, gamma: float, inspected: Tensor | None = None) -> Tensor:
    """Mean over (inspected) pixels of −(1 − p)^γ · log p, p the probability of the pixel's true class, no class weight.

    Args:
        logits: B×2×H×W, normal and anomalous.
        mask: B×1×H×W, 1 where anomalous, else 0.
        gamma: focusing exponent.

    Source: Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 4.
    """
    # With two classes the log-odds of the true class decide all: log p = −softplus(−margin).
    margin = (logits[:, 1:] - logits[:, :1]) * (2.0 * mask - 1.0)
    log_p = -functional.softplus(-margin)
    # (1 − p)^γ from its logarithm: the power's gradient at 1 − p = 0 is infinite for γ below 1.
    weight = torch.exp(-gamma * functional.softplus(margin))
    return _mean(weight * -log_p, inspected)


def dice_loss(found: Tensor, mask: Tensor) -> Tensor:
    """1 − 2 · Σ p·m / (Σ p + Σ m) over all pixels of the batch, probability p and mask m of one shape; 0 of no area.

    It does not weigh normal pixels, however many there are: a small anomaly counts as much as a large one.

    Source: Milletari et al., "V-Net", 3DV 2016.
    """
    shared = 2.0 * (found * mask).sum() + 1.0
    return 1.0 - shared / (found.sum() + mask.sum() + 1.0)


def taught_loss(logits: Tensor, taught: Tensor, gamma: float, inspected: Tensor | None = None) -> Tensor:
    """The focal loss with a teacher's probabilities in the place of the mask: mean of |q − p|^γ · H(q, p), float32.

    p and q are the student's and the teacher's probability of the anomalous class, H their cross-entropy. Where the
    teacher is certain it is the focal loss.

    Args:
        logits: B×2×H×W, the student's.
        taught: B×2×H×W, the teacher's.
        gamma: focusing exponent.
        inspected: B×1×H×W, 1 where anomalies count; none: everywhere.

    Source: Li et al., "Generalized focal loss", NeurIPS 2020, equation 5 (quality focal loss).
    """
    with torch.autocast(logits.device.type, enabled=False):
        margin = logits[:, 1].float() - logits[:, 0].float()
        target = torch.sigmoid(taught[:, 1].float() - taught[:, 0].float())
        entropy = functional.binary_cross_entropy_with_logits(margin, target, reduction="none")
        # The power's gradient at 0 is infinite for γ below 1.
        distance = (target - torch.sigmoid(margin)).abs().clamp_min(1e-6)
        return _mean((distance.pow(gamma) * entropy)[:, None], inspected)


def gaussian_window(device: torch.device | None = None) -> Tensor:
    """The one-dimensional Gaussian window, 11 values that sum to 1."""
    x = torch.arange(WINDOW, dtype=torch.float32, device=device) - WINDOW // 2
    window = torch.exp(-x.square() / (2 * SIGMA**2))
    return window / window.sum()


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean around each pixel, zeros beyond the border; B×C×H×W."""
    out: Tensor = _Blur.apply(x)  # type: ignore[no-untyped-call]
    return out


class _Blur(torch.autograd.Function):
    """OpenCV's on a CPU, products with banded matrices elsewhere: a convolution of one channel takes torch longer."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return _blurred_on_cpu(x) if x.device.type == "cpu" else _blurred_by_products(x)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        # The window is symmetric: the blur is its own adjoint.
        return _blur(gradient)


def _blurred_on_cpu(x: Tensor) -> Tensor:
    """Planes shared out to torch's number of threads, one share to the caller; what they give does not depend on it."""
    out = torch.empty(x.shape, dtype=x.dtype)
    planes, blurred = (each.view(-1, *x.shape[-2:]).numpy() for each in (x.contiguous(), out))
    shares = max(1, min(torch.get_num_threads(), len(planes), x.numel() // _SHARE))
    others = [
        _workers(os.getpid(), shares).submit(_blur_planes, planes[share::shares], blurred[share::shares])
        for share in range(1, shares)
    ]
    _blur_planes(planes[::shares], blurred[::shares])
    for other in others:
        other.result()
    return out


def _blur_planes(planes: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    for plane, blurred in zip(planes, out, strict=True):
        cv2.GaussianBlur(plane, (WINDOW, WINDOW), SIGMA, dst=blurred, borderType=cv2.BORDER_CONSTANT)


@lru_cache(maxsize=1)
def _workers(process: int, threads: int) -> ThreadPoolExecutor:
    """Each process has its own: threads do not live on in a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="draem-blur")


def _blurred_by_products(x: Tensor) -> Tensor:
    return _band(x.shape[-2], x.device) @ x @ _band(x.shape[-1], x.device)


@lru_cache(maxsize=8)
def _band(side: int, device: torch.device) -> Tensor:
    """Symmetric side×side matrix whose row i is the window centred on pixel i, cut at the border."""
    # It is kept: made while somebody only infers, it must still serve training.
    with torch.inference_mode(False):
        offset = torch.arange(side, device=device)
        distance = (offset[:, None] - offset[None, :]) + WINDOW // 2
        window = gaussian_window(device)
        inside = (distance >= 0) & (distance < WINDOW)
        return torch.where(inside, window[distance.clamp(0, WINDOW - 1)], torch.zeros((), device=device))
