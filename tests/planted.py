"""Images and masks of known make, and the membrane as a sparse system of equations solves it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor


def smooth_images(count: int, channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Blurred noise between 0.1 and 0.9, B×C×H×W float32."""
    noise = np.random.default_rng(seed).normal(size=(count, channels, *size))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 3, 3), mode="wrap")
    low, high = smooth.min((2, 3), keepdims=True), smooth.max((2, 3), keepdims=True)
    return torch.from_numpy(0.1 + 0.8 * (smooth - low) / (high - low)).float()


def disc_masks(count: int, size: tuple[int, int], radius: float | None = None, seed: int = 0) -> Tensor:
    """One disc each, B×1×H×W float32: the first in the middle, others anywhere within."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    places = np.random.default_rng(seed).uniform(0.3, 0.7, (count, 2)) * size
    places[0] = (size[0] - 1) / 2, (size[1] - 1) / 2
    reach = radius or min(size) / 5
    discs = [np.hypot(rows - place[0], columns - place[1]) <= reach for place in places]
    return torch.from_numpy(np.stack(discs)[:, None]).float()


def membrane_by_solving(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Solve Laplace's equation for values, C×H×W, where they are not known (H×W); borders of the image are free."""
    height, width = known.shape
    free = np.argwhere(~known)
    number = np.full(known.shape, -1)
    number[~known] = np.arange(len(free))
    entries, right = [], np.zeros((len(free), len(values)))
    for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        other = free + step
        inside = ((other >= 0) & (other < (height, width))).all(1)
        here, there = np.flatnonzero(inside), other[inside]
        entries.append((here, here, np.ones(len(here))))
        to_known = known[there[:, 0], there[:, 1]]
        unknown = number[there[~to_known, 0], there[~to_known, 1]]
        entries.append((here[~to_known], unknown, -np.ones(len(unknown))))
        right[here[to_known]] += values[:, there[to_known, 0], there[to_known, 1]].T
    rows, columns, weights = (np.concatenate(part) for part in zip(*entries, strict=True))
    solved = values.copy()
    solved[:, ~known] = spsolve(coo_matrix((weights, (rows, columns))).tocsc(), right).reshape(len(free), -1).T
    return solved
