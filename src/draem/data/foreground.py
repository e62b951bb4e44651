"""The part in front of its background, found without a network: where simulated anomalies may lie.

The background is modelled on the image's border: a colour that may change smoothly over the image, and its roughness.
What differs from it is the part. A surface that fills the image has no background: the quality then is low.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

LEAST_QUALITY = 0.5
"""Below this, a found foreground is not used."""
_SIDE = 256
"""Longer side in pixels at which the part is looked for: finer detail than this is no matter of its outline."""
_RING, _KEPT = 0.03, 0.7
"""The border's width in sides, and the share of its pixels that are taken for background: parts may touch it."""
_LEAST_NOISE = 2.0 / 255
_BINS = 256


class Foreground(NamedTuple):
    """mask: H×W bool, True on the part. quality: in [0, 1], how clearly it stands out; near 0 on a mere surface."""

    mask: NDArray[np.bool_]
    quality: float


def find_foreground(image: NDArray[np.uint8 | np.uint16]) -> Foreground:
    """Find the part on an image, H×W×C uint8 or uint16 of any number of channels."""
    height, width = image.shape[:2]
    pixels = image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    shrink = min(1.0, _SIDE / max(height, width))
    small = (max(round(height * shrink), 4), max(round(width * shrink), 4))
    pixels = _resized(pixels, small)
    ring = _ring(small)
    distance = np.log1p(np.hypot(_colour_distance(pixels, ring), _texture_distance(pixels, ring)))
    threshold, separation = _otsu(distance)
    raw = distance > threshold
    mask = _cleaned(raw)
    quality = _quality(raw, mask, ring, distance, separation)
    whole = _resized(mask.astype(np.float32)[..., None], (height, width))[..., 0] >= 0.5
    return Foreground(whole, quality)


def _resized(pixels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """H×W×C at another size; smaller by areas, larger linearly."""
    if pixels.shape[:2] == size:
        return pixels
    how = cv2.INTER_AREA if size[0] * size[1] < pixels.shape[0] * pixels.shape[1] else cv2.INTER_LINEAR
    planes = [cv2.resize(pixels[..., channel], size[::-1], interpolation=how) for channel in range(pixels.shape[2])]
    return np.stack(planes, axis=-1).astype(np.float32)


def _ring(size: tuple[int, int]) -> NDArray[np.bool_]:
    """The image's border."""
    width = max(1, round(_RING * max(size)))
    ring = np.ones(size, np.bool_)
    ring[width:-width, width:-width] = False
    return ring


def _colour_distance(pixels: NDArray[np.float32], ring: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How far each pixel is from the background's colour, in standard deviations of the border."""
    # Medians smooth without making the part larger, as a blur would.
    smooth = np.stack([cv2.medianBlur(plane, 3) for plane in np.moveaxis(pixels, 2, 0).copy()], axis=-1)
    rows, columns = (np.indices(ring.shape) + 0.5) / np.reshape(ring.shape, (2, 1, 1)) - 0.5
    # Light falls off to one side, and with the distance from the middle.
    terms = np.stack((np.ones_like(rows), rows, columns, rows**2 + columns**2), axis=-1)
    colours, places = smooth[ring], terms[ring]
    residual = colours - np.median(colours, axis=0)
    for _ in range(4):  # least trimmed squares: what is far from the model is left out of the next one
        far = np.abs(residual).max(axis=1)
        kept = far <= np.quantile(far, _KEPT)
        model = np.linalg.lstsq(places[kept], colours[kept], rcond=None)[0]
        residual = colours - places @ model
    noise = np.maximum(residual[kept].std(axis=0), _LEAST_NOISE)
    return _norm((smooth - terms @ model) / noise)


def _texture_distance(pixels: NDArray[np.float32], ring: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How much rougher than the border it is around each pixel, in the border's own roughness."""
    size = (5, 5)
    grey = pixels.mean(axis=2)
    mean, square = cv2.blur(grey, size), cv2.blur(grey * grey, size)
    rough = np.sqrt(np.maximum(square - mean * mean, 0.0))
    # A bare edge is rough in a strip as wide as the window, which would make the part larger than it is.
    rough = cv2.erode(rough, np.ones(size, np.uint8))
    usual = float(np.median(rough[ring]))
    return np.asarray(np.maximum(rough - usual, 0.0) / max(usual, _LEAST_NOISE), np.float32)


def _norm(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(np.sqrt(np.mean(values**2, axis=-1)), np.float32)


def _otsu(values: NDArray[np.float32]) -> tuple[float, float]:
    """The threshold that parts values best into two classes, and the share of their variance that lies between these.

    Source: N. Otsu, A threshold selection method from gray-level histograms, 1979.
    """
    counts, edges = np.histogram(values, _BINS)
    centres = (edges[:-1] + edges[1:]) / 2
    weight = counts.cumsum() / counts.sum()
    mass = (counts * centres).cumsum() / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.nan_to_num((mass[-1] * weight - mass) ** 2 / (weight * (1.0 - weight)), posinf=0.0)
    best = int(between.argmax())
    variance = float((counts * (centres - mass[-1]) ** 2).sum() / counts.sum())
    return float(edges[best + 1]), float(between[best]) / max(variance, 1e-12)


def _cleaned(raw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Gaps closed, holes filled, crumbs left out."""
    reach = max(1, round(0.015 * max(raw.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    # Room around: what touches the border is not to be eaten from there.
    padded = np.pad(raw.astype(np.uint8), 2 * reach)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    mask = _filled(opened[2 * reach : -2 * reach, 2 * reach : -2 * reach])
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    large = areas >= 0.1 * max(areas[1:], default=0)
    large[0] = False
    return np.asarray(large[labels], np.bool_) if count > 1 else np.zeros(raw.shape, np.bool_)


def _filled(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """The mask with its holes: background that does not reach the image's border."""
    _, labels = cv2.connectedComponents(1 - mask, connectivity=4)
    outside = np.unique(np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1])))
    return np.asarray((mask > 0) | ~np.isin(labels, outside), np.uint8)


def _quality(
    raw: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    ring: NDArray[np.bool_],
    distance: NDArray[np.float32],
    separation: float,
) -> float:
    """How clearly the part stands out, as a product: any doubt counts."""
    area = float(mask.mean())
    if not 0.0 < area < 1.0:
        return 0.0
    apart = _ramp(separation, 0.6, 0.8)
    contrast = _ramp(float(np.median(distance[mask]) - np.median(distance[~mask])), 0.5, 1.5)
    border = _ramp(1.0 - float(mask[ring].mean()), 0.5, 0.85)
    plausible = min(_ramp(area, 0.002, 0.01), 1.0 - _ramp(area, 0.85, 0.95))
    agreement = _ramp(float((raw == mask).mean()), 0.7, 0.95)
    return apart * contrast * border * plausible * agreement


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high`, evenly between."""
    return min(max((value - low) / (high - low), 0.0), 1.0)
