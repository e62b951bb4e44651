"""A folder of the user's own defects, cut out: pasted anywhere, turned, flipped and scaled, with their own masks."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import compress
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from draem.errors import DataError, ImageError
from draem.images import IMAGE_SUFFIXES, read_image, read_mask
from draem.simulation.channels import with_channels
from draem.simulation.draws import Stream, integers, to_device, uniform
from draem.simulation.placing import inside_of, points_in
from draem.simulation.warping import read_at, turned_places, turns_and_flips

_log = logging.getLogger(__name__)
_MASK = "_mask"


class Crops:
    """Defects cut out of photographs, at the scale of the network's input, decoded once and kept in RAM as uint8.

    folder: searched to any depth. Of each image, what its alpha channel or NAME_mask.png says is the defect, else all
    of it. size: (H, W) of the images to paste on; larger crops are scaled down into it. channels: of those images.
    Crops that cannot be read, or have an empty mask, are left out with a warning.
    Raises DataError if the folder does not exist or holds no crop that can be used.
    """

    def __init__(self, folder: Path, size: tuple[int, int], channels: int = 3) -> None:
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder of crops: give one in simulation.crops, or set sources.crops to 0"
            )
        images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        # Cameras and other systems write .PNG and _MASK.
        marked = [path.stem.lower().endswith(_MASK) for path in images]
        masks = {path.parent / path.stem[: -len(_MASK)]: path for path in compress(images, marked)}
        paths = [path for path, is_mask in zip(images, marked, strict=True) if not is_mask]
        with ThreadPoolExecutor() as pool:
            read = list(pool.map(lambda path: _crop(path, masks.get(path.with_suffix("")), size), paths))
        crops = [crop for crop in read if crop is not None]
        if not crops:
            raise DataError(
                f"{folder}: holds no usable crops: put PNG with alpha there, or NAME.png with NAME_mask.png"
            )
        height, width = (max(crop.shape[axis] for crop in crops) for axis in (0, 1))
        # Colours times opacity, then opacity: what lies beyond a crop is transparent, and does not colour its edge.
        store = np.zeros((len(crops), height, width, channels + 1), np.uint8)
        for place, crop in zip(store, crops, strict=True):
            colours = with_channels(crop[:, :, :3], channels) * (crop[:, :, 3:] / 255.0)
            place[: crop.shape[0], : crop.shape[1]] = np.concatenate((np.rint(colours), crop[:, :, 3:]), axis=2)
        self.pixels = torch.from_numpy(store).permute(0, 3, 1, 2).contiguous()  # T×(C+1)×h×w uint8
        self.anchors = torch.tensor([_anchor(crop[:, :, 3]) for crop in crops], dtype=torch.float32)  # T×2

    def draw(self, normal: Tensor, keys: Tensor, region: Tensor | None) -> tuple[Tensor, Tensor]:
        """Paste one crop on each image: masks (B×1×H×W float32, 1 or 0) and images (B×C×H×W float32 in [0, 1]).

        normal: B×C×H×W float32 in [0, 1]; keys: int64 B on the CPU; region: B×1×H×W on the device of the images, above
        0.5 where crops may lie; none, or an empty one: everywhere. No mask is empty.
        """
        device, size = normal.device, (normal.shape[2], normal.shape[3])
        drawn = uniform(keys, Stream.CROP, (7,))
        which = integers(drawn[:, 0], 0, len(self.pixels) - 1)
        draws, anchors = to_device(drawn, device), to_device(self.anchors[which], device)
        place = points_in(region, draws[:, None, 1:3], size)[:, 0].floor()
        flips = 1.0 - 2.0 * (draws[:, 3] < 0.5).to(draws.dtype)
        scale = 0.5 * 3.0 ** draws[:, 5]
        matrix = turns_and_flips(draws[:, 4], flips) / scale[:, None, None]
        crops = to_device(self.pixels.index_select(0, which), device).to(torch.float32).div_(255.0)
        pasted = read_at(crops, *turned_places(matrix, place, anchors, size), beyond="zeros")
        colours, opacity = pasted[:, :-1], pasted[:, -1:]
        light = (0.85 + 0.3 * draws[:, 6])[:, None, None, None]
        source = torch.minimum(colours * light, opacity).add_(normal * (1.0 - opacity))
        half = 0.5 * opacity.amax((2, 3), keepdim=True)
        mask = torch.gt(opacity, half, out=torch.empty_like(opacity))
        inside = inside_of(region)
        return mask if inside is None else mask * inside, source.clamp_(0.0, 1.0)


def _crop(path: Path, mask: Path | None, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """One crop, h×w×4 uint8 RGB and opacity, cut to what is to be seen; none if it cannot be used."""
    try:
        image, opacity = read_image(path), _opacity(path, mask)
    except ImageError as error:
        _log.warning("crop skipped: %s", error)
        return None
    if opacity is None:
        opacity = np.full(image.shape[:2], 255, np.uint8)
    if opacity.shape != image.shape[:2]:
        _log.warning("crop skipped: %s: its mask is of another size, %d×%d", path, *opacity.shape)
        return None
    if not opacity.any():
        _log.warning("crop skipped: %s: its mask is empty", path)
        return None
    rows, columns = np.nonzero(opacity.any(1))[0], np.nonzero(opacity.any(0))[0]
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return _fitted(np.dstack((image[box], opacity[box])), size)


def _opacity(path: Path, mask: Path | None) -> NDArray[np.uint8] | None:
    """What of a readable image is the defect, H×W uint8, by the mask beside it or its alpha; none: no word of it."""
    if mask is not None:
        return read_mask(mask).astype(np.uint8) * np.uint8(255)
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim < 3 or pixels.shape[2] < 4:
        return None
    full = {1: 255.0, 2: 65535.0}.get(pixels.dtype.itemsize, 1.0)  # 8 bits, 16 bits, floats
    return np.asarray(np.rint(pixels[:, :, 3] * (255.0 / full)), np.uint8)


def _fitted(crop: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The crop, scaled down where it is larger than the image; its opacity does not vanish."""
    scale = min(size[0] / crop.shape[0], size[1] / crop.shape[1], 1.0)
    if scale == 1.0:
        return crop
    height, width = (max(1, round(side * scale)) for side in crop.shape[:2])
    scaled = np.asarray(cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    scaled[:, :, 3] = np.maximum(scaled[:, :, 3], scaled[:, :, 3].max() == 0)
    return scaled


def _anchor(opacity: NDArray[np.uint8]) -> tuple[int, int]:
    """The pixel, of those nearly as opaque as any, that is nearest to their middle: it lies at the drawn place."""
    rows, columns = np.nonzero(opacity >= 0.75 * opacity.max())
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(rows[nearest]), int(columns[nearest])
