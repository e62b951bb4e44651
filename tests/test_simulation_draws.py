"""Keyed random numbers: held against plain integer arithmetic and statistical tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from draem.simulation.draws import Stream, integers, mix32, sample_keys, uniform

MASK32, MASK64 = 2**32 - 1, 2**64 - 1


def slow_mix32(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK32
    return x ^ (x >> 16)


def slow_mix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def slow_uniform(key: int, stream: int, element: int) -> float:
    salt = ((stream + 1) * 0x9E3779B9) & MASK32
    first, second = slow_mix32((key & MASK32) ^ salt), slow_mix32(((key & MASK64) >> 32) ^ salt)
    return ((slow_mix32(slow_mix32(element) ^ first) ^ second) >> 8) / 2**24


def test_slow_reference_is_splitmix64() -> None:
    assert slow_mix64(0) == 0xE220A8397B1DCDAF  # the published generator's first output from seed 0


def test_mix32_equals_unsigned_arithmetic() -> None:
    words = [0, 1, -1, 2**31 - 1, -(2**31), 123456789, -987654321]
    got = mix32(torch.tensor(words, dtype=torch.int32)).tolist()
    assert [word & MASK32 for word in got] == [slow_mix32(word & MASK32) for word in words]


@pytest.mark.parametrize(("seed", "step"), [(0, 0), (7, 123_456), (-1, 2**40), (2**80 + 3, 1)])
def test_keys_equal_unsigned_arithmetic(seed: int, step: int) -> None:
    keys = sample_keys(seed, step, torch.tensor([0, 1, 2**33]))
    start = slow_mix64(slow_mix64(seed & MASK64) ^ step)
    assert [key & MASK64 for key in keys.tolist()] == [slow_mix64(start ^ index) for index in (0, 1, 2**33)]


def test_uniform_equals_unsigned_arithmetic() -> None:
    keys = sample_keys(3, 5, torch.arange(3))
    got = uniform(keys, Stream.MASK, (2, 4))
    expected = [[slow_uniform(key, Stream.MASK, element) for element in range(8)] for key in keys.tolist()]
    assert got.flatten(1).tolist() == expected


def test_a_batch_can_be_split() -> None:
    keys = sample_keys(0, 9, torch.arange(10))
    assert torch.equal(keys, torch.cat([sample_keys(0, 9, part) for part in torch.split(torch.arange(10), 3)]))
    whole = uniform(keys, Stream.GRAIN, (5, 7))
    assert torch.equal(whole, torch.cat([uniform(part, Stream.GRAIN, (5, 7)) for part in torch.split(keys, 4)]))


@pytest.mark.parametrize(
    ("count", "streams", "shape"),
    [(1, [2], (200, 200)), (40_000, [2], (1,)), (1, range(4_000), (9,)), (200, [8], (200,))],
    ids=["elements", "keys", "streams", "both"],
)
def test_uniform_is_uniform(count: int, streams: list[int], shape: tuple[int, ...]) -> None:
    keys = sample_keys(1, 0, torch.arange(count))
    drawn = torch.cat([uniform(keys, stream, shape).flatten() for stream in streams]).double().numpy()
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_keys_and_streams_are_independent() -> None:
    keys = sample_keys(2, 0, torch.arange(24))
    rows = torch.cat([uniform(keys, stream, (4096,)) for stream in (1, 2)]).numpy()
    correlations = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(correlations).max() < 5.0 / np.sqrt(4096)
    assert stats.kstest(correlations * np.sqrt(4096), "norm").pvalue > 1e-3


@pytest.mark.parametrize("lag", [1, 2, 256])
def test_neighbouring_elements_are_independent(lag: int) -> None:
    drawn = (uniform(sample_keys(4, 0, torch.arange(1)), 3, (65_536,))[0] * 16).long()
    pairs = torch.bincount(drawn[:-lag] * 16 + drawn[lag:], minlength=256).numpy()
    assert stats.chisquare(pairs).pvalue > 1e-3


def test_integers_cover_both_bounds_evenly() -> None:
    drawn = integers(uniform(sample_keys(5, 0, torch.arange(1)), 1, (60_000,)), -2, 3)
    counts = torch.bincount(drawn.flatten() + 2)
    assert len(counts) == 6
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    largest = torch.tensor([1.0 - 2.0**-24])
    assert integers(largest, 0, 5639).item() == 5639  # 0.99…·5640 rounds up to 5640 in float32
