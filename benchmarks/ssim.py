"""The SSIM loss with its gradient: its blur by OpenCV, by banded matrices in blocks and whole, by convolutions.

    python benchmarks/ssim.py [--threads 1 2] [--batch 8] [--side 256] [--repeats 9]

All sides run in one process, in turns; medians, milliseconds an image. Autograd goes back through whole matrices and
convolutions; the others are their own adjoint. And ours at three scales, as `edge` has it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from record import write_result
from torch import Tensor
from torch.nn import functional

from draem.network.losses import WINDOW, _band, gaussian_window, ssim_loss
from draem.training.memory import keep_freed_memory
from draem.training.threads import use_threads

Blur = Callable[[Tensor], Tensor]
_BLOCK = 32


class _Blocks(torch.autograd.Function):
    """Products with the banded matrices, block by block along the band: what lies outside it is zero."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows, columns = _band(height, x.device), _band(width, x.device)
        images = x.reshape(-1, height, width)
        across, out = torch.empty_like(images), torch.empty_like(images)
        for block, seen in _slices(height):
            band = rows[block, seen].expand(len(images), -1, -1)
            across[:, block] = torch.bmm(band, images[:, seen])
        for block, seen in _slices(width):
            out[..., block] = across[..., seen] @ columns[seen, block]
        return out.view(x.shape)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return blocks(gradient)


def _slices(side: int) -> list[tuple[slice, slice]]:
    """Blocks of a side, and the pixels whose windows reach into them."""
    reach = WINDOW // 2
    return [
        (slice(first, min(first + _BLOCK, side)), slice(max(first - reach, 0), min(first + _BLOCK + reach, side)))
        for first in range(0, side, _BLOCK)
    ]


def blocks(x: Tensor) -> Tensor:
    """Products with parts of the banded matrices."""
    out: Tensor = _Blocks.apply(x)  # type: ignore[no-untyped-call]
    return out


def whole(x: Tensor) -> Tensor:
    """Products with the banded matrices of both sides."""
    return _band(x.shape[-2], x.device) @ x @ _band(x.shape[-1], x.device)


def convolved(x: Tensor) -> Tensor:
    """Convolutions of one channel, along rows and columns."""
    window, images = gaussian_window(), x.flatten(0, 1)[:, None]
    across = functional.conv2d(images, window.view(1, 1, -1, 1), padding=(5, 0))
    return functional.conv2d(across, window.view(1, 1, 1, -1), padding=(0, 5)).view(x.shape)


def loss_by(blur: Blur) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss by a blur, in which the moments of `b` need no gradient."""

    def loss(a: Tensor, b: Tensor) -> Tensor:
        mean_a, aa, ab = blur(torch.cat((a, a * a, a * b), dim=1)).chunk(3, dim=1)
        mean_b, bb = blur(torch.cat((b, b * b), dim=1)).chunk(2, dim=1)
        c1, c2, product, squares = 0.01**2, 0.03**2, mean_a * mean_b, mean_a.square() + mean_b.square()
        similarity = (2 * product + c1) * (2 * (ab - product) + c2) / ((squares + c1) * (aa + bb - squares + c2))
        return 1.0 - similarity.mean()

    return loss


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "OpenCV (ours)": ssim_loss,
    "at three scales": partial(ssim_loss, scales=3),
    "blocks": loss_by(blocks),
    "whole matrices": loss_by(whole),
    "convolutions": loss_by(convolved),
}


def measure(threads: int, batch: int, side: int, repeats: int) -> dict[str, float]:
    """Milliseconds an image of each way."""
    use_threads(threads)
    torch.manual_seed(0)
    a, b = torch.rand(batch, 3, side, side, requires_grad=True), torch.rand(batch, 3, side, side)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for repeat in range(repeats + 1):
        for name, loss in WAYS.items():
            start = time.perf_counter()
            torch.autograd.grad(loss(a, b), a)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    found = {name: statistics.median(times) * 1000 / batch for name, times in seconds.items()}
    print(f"{threads} threads, milliseconds an image (ours times faster):")
    for name, value in found.items():
        print(f"  {name:16} {value:7.2f}  ({value / found['OpenCV (ours)']:.2f})")
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    keep_freed_memory()  # as training does
    found = {str(each): measure(each, options.batch, options.side, options.repeats) for each in options.threads}
    said = {"batch": options.batch, "side": options.side, "repeats": options.repeats}
    print(write_result("ssim", said | {"milliseconds_an_image_by_threads": found}, options.out))


if __name__ == "__main__":
    main()
