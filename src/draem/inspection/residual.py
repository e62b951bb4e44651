"""Anomaly maps from the difference between an image and its reconstruction, alone or beside the segmentation.

SSIM and MSGMS are for networks without a segmentation: the paper's ablation scores its reconstructive sub-network so.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.config import ScoreMap

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_SCALES = 4
_C = 0.0026
"""Keeps the similarity of flat surroundings at 1; for values in [0, 1]."""
_JOINT_WINDOW = 5
_JOINT_SHARE = 0.2
"""The residual's exponent; the segmentation's is the rest."""
_JOINT_LEAST = 0.001
"""Added to the residual: a quarter of one of 255 levels, so that rounding errors of it stay small in the joint map."""
_PREWITT = np.array([[1.0, 0.0, -1.0]] * 3, np.float32) / 3.0


def scored_maps(
    kind: ScoreMap,
    segmented: NDArray[np.float32],
    images: NDArray[np.float32],
    reconstructions: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The maps that are scored, B×H×W float32 in [0, 1]: those of the segmentation, `joint_map` or `residual_map`."""
    if kind == "segmentation":
        return segmented
    if kind == "joint":
        return np.stack([joint_map(*three) for three in zip(segmented, images, reconstructions, strict=True)])
    return np.stack([residual_map(kind, *pair) for pair in zip(images, reconstructions, strict=True)])


def joint_map(
    segmented: NDArray[np.float32], image: NDArray[np.float32], reconstruction: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Segmentation p (H×W in [0, 1]) where image and reconstruction (C×H×W) differ, too: p^0.8 · (r + 0.001)^0.2.

    r is their mean absolute difference over the channels and over 5×5 pixels, with zeros beyond the border. Returns
    H×W float32 in [0, 1].
    """
    difference = np.abs(image - reconstruction).mean(axis=0)
    residual = cv2.blur(difference, (_JOINT_WINDOW, _JOINT_WINDOW), borderType=cv2.BORDER_CONSTANT)
    joint = cv2.pow(segmented, 1.0 - _JOINT_SHARE) * cv2.pow(residual + np.float32(_JOINT_LEAST), _JOINT_SHARE)
    return np.asarray(np.clip(joint, 0.0, 1.0), np.float32)


def residual_map(
    kind: Literal["ssim", "msgms"], image: NDArray[np.float32], reconstruction: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How unlike an image (C×H×W in [0, 1]) and its reconstruction are at each pixel: H×W float32 in [0, 1]."""
    compare = _ssim if kind == "ssim" else _multi_scale_gradients
    first, second = (np.ascontiguousarray(pixels.transpose(1, 2, 0)) for pixels in (image, reconstruction))
    return np.clip(compare(first, second), 0.0, 1.0).astype(np.float32)


def _ssim(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """(1 − SSIM) / 2, mean over the channels of H×W×C; as in the loss, with zeros beyond the border.

    Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 2004.
    """
    mean_a, mean_b, aa, bb, ab = (_blur(moment) for moment in (a, b, a * a, b * b, a * b))
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * (ab - mean_a * mean_b) + _C2) / (aa + bb - mean_a**2 - mean_b**2 + _C2)
    return np.asarray((1.0 - luminance * structure).mean(axis=2) / 2.0, np.float32)


def _blur(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    blurred = cv2.GaussianBlur(pixels, (_WINDOW, _WINDOW), _SIGMA, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred, np.float32).reshape(pixels.shape)


def _multi_scale_gradients(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """One less the gradient magnitude similarity, mean over four scales; H×W×C, taken on the channels' mean.

    Source: Zavrtanik, Kristan, Skočaj, "Reconstruction by inpainting for visual anomaly detection", Pattern
    Recognition 2021, equations 4 to 6.
    """
    height, width = a.shape[:2]
    first, second = a.mean(axis=2), b.mean(axis=2)
    unlike = np.zeros((height, width), np.float32)
    for _ in range(_SCALES):
        unlike += cv2.resize(_gradient_difference(first, second), (width, height), interpolation=cv2.INTER_LINEAR)
        smaller = (max(first.shape[1] // 2, 1), max(first.shape[0] // 2, 1))
        first, second = (cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA) for pixels in (first, second))
    return np.asarray(unlike / _SCALES, np.float32)


def _gradient_difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    size_a, size_b = _gradient(a), _gradient(b)
    return np.asarray(1.0 - (2.0 * size_a * size_b + _C) / (size_a**2 + size_b**2 + _C), np.float32)


def _gradient(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitude of the gradient, by Prewitt's filters; the border's pixels are repeated beyond it."""
    across, down = (
        cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REPLICATE) for kernel in (_PREWITT, _PREWITT.T)
    )
    return np.asarray(np.hypot(across, down), np.float32)
