"""Random numbers from keys: every draw is a pure function of (key of the sample, stream, element).

There is no generator state. A sample's key comes from the seed, the step and its index in the global batch, so a
resumed run draws what an unbroken one would, however many processes share the batch, and on every device alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

import torch
from torch import Tensor

_GOLDEN64 = 0x9E3779B97F4A7C15
_GOLDEN32 = 0x9E3779B9


class Stream(IntEnum):
    """What a draw is for: two draws of one sample with the same stream are the same numbers."""

    SAMPLE = 1
    MASK = 2
    MASK_GRADIENTS = 3
    TEXTURE = 4
    TEXTURE_GRADIENTS = 5
    TEXTURE_CELLS = 6
    PALETTE = 7
    GRAIN = 8
    AUGMENT_CHOICE = 9
    AUGMENT = 10
    KINDS = 11
    SHAPE = 12
    SHAPE_POINTS = 13
    STRUCTURE = 14
    CROP = 15
    REGION = 16
    TILE = 17
    SOFTNESS = 18
    LIGHTING = 19


def _signed(value: int, bits: int) -> int:
    """The two's complement of `value` modulo 2^bits: torch has no unsigned arithmetic."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _mix64(words: Tensor) -> Tensor:
    """Hash int64 words (the finaliser of SplitMix64; products wrap, shifts are made logical by a mask)."""
    words = words + _signed(_GOLDEN64, 64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ ((words >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor, 64)
    return words ^ ((words >> 31) & ((1 << 33) - 1))


def mix32(words: Tensor) -> Tensor:
    """Hash int32 words, any shape and device (`lowbias32`: C. Wellons, Prospecting for hash functions, 2018)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        words = _shifted(words, shift).bitwise_xor_(words).mul_(_signed(factor, 32))
    return _shifted(words, 16).bitwise_xor_(words)


def _shifted(words: Tensor, places: int) -> Tensor:
    """Shift int32 words right, filling with zeros: torch fills with the sign."""
    return (words >> places).bitwise_and_((1 << (32 - places)) - 1)


def sample_keys(seed: int, step: int, indices: Tensor) -> Tensor:
    """One key a sample: int64 B on the CPU, from the seed, the step and the samples' indices in the global batch."""
    key = _mix64(torch.tensor(_signed(seed, 64)))
    return _mix64(_mix64(key ^ _signed(step, 64)) ^ indices.to("cpu", torch.int64))


def stream_words(keys: Tensor, stream: int) -> tuple[Tensor, Tensor]:
    """Two int32 words a sample, each of shape B: what the two halves of `keys` become in this stream."""
    words = mix32(keys.contiguous().view(torch.int32).view(-1, 2) ^ _signed((stream + 1) * _GOLDEN32, 32))
    return words[:, 0], words[:, 1]


def unit(words: Tensor) -> Tensor:
    """Map int32 words to float32 in [0, 1): the upper 24 bits, so that every value is exact."""
    return _shifted(words, 8).to(torch.float32).mul_(2.0**-24)


@lru_cache(maxsize=64)
def _counters(count: int, device: torch.device) -> Tensor:
    """The hashes of 0, 1, 2 …, int32; kept, since a batch asks for the same few lengths again and again."""
    # Also when first asked for under inference_mode, they must serve outside of it.
    with torch.inference_mode(False):
        return mix32(torch.arange(count, dtype=torch.int32, device=device))


def uniform(keys: Tensor, stream: int, shape: tuple[int, ...]) -> Tensor:
    """Draw float32 in [0, 1), shape B×`shape`, on the device of `keys` (int64 B); the same bits on every device."""
    first, second = stream_words(keys, stream)
    words = mix32(_counters(math.prod(shape), keys.device) ^ first[:, None]).bitwise_xor_(second[:, None])
    return unit(words).view(len(keys), *shape)


def integers(values: Tensor, low: int, high: int) -> Tensor:
    """Turn uniform draws in [0, 1) into int64 from `low` to `high`, both included."""
    # Rounding may carry 0.99…·n up to n: the clamp keeps it in.
    return (low + (values * (high - low + 1)).long()).clamp_(max=high)


def choose(draws: Tensor, weights: Sequence[float]) -> Tensor:
    """Turn uniform draws (B) into int64 positions in `weights`, each as likely as its weight."""
    ends = torch.tensor(weights, dtype=torch.float64).cumsum(0)
    # What has no weight has no width: searched from the right, it is never met.
    return torch.searchsorted(ends, draws.double() * ends[-1], right=True).clamp_(max=len(weights) - 1)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor to the device without waiting for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
