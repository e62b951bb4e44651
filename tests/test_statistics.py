"""BatchNorm's statistics over the parts of a batch, and the moving average of the weights: closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from draem.config import NetworkConfig
from draem.network.draem import Draem
from draem.training.average import MovingAverage
from draem.training.statistics import PartStatistics

SMALL = NetworkConfig(reconstructive_width=4, discriminative_width=4)


def parts(count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 5, 6, generator=generator) * (1 + part) + part for part in range(count)]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_statistics_end_at_the_mean_over_the_parts(count: int) -> None:
    """(1 − m)·start + m·mean over the parts of each part's mean and unbiased variance, step after step."""
    norm = nn.BatchNorm2d(3, momentum=0.1)
    statistics = PartStatistics(norm, count)
    mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for step in range(5):
        batch = parts(count, seed=step)
        statistics.begin_step()
        for part in batch:
            norm(part)
            statistics.end_part()
        statistics.end_step()
        means = torch.stack([part.double().mean(dim=(0, 2, 3)) for part in batch])
        variances = torch.stack([part.double().var(dim=(0, 2, 3)) for part in batch])
        mean, variance = 0.9 * mean + 0.1 * means.mean(0), 0.9 * variance + 0.1 * variances.mean(0)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=1e-6)


def test_the_order_of_the_parts_does_not_matter() -> None:
    """Plain BatchNorm would weigh the last part most."""
    found = []
    for batch in (parts(2, seed=1), parts(2, seed=1)[::-1]):
        norm = nn.BatchNorm2d(3, momentum=0.5)
        statistics = PartStatistics(norm, 2)
        statistics.begin_step()
        for part in batch:
            norm(part)
            statistics.end_part()
        statistics.end_step()
        found.append(norm.running_mean)
    torch.testing.assert_close(found[0], found[1])


def test_one_part_is_left_to_batch_norm() -> None:
    ours, plain = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    statistics = PartStatistics(ours, 1)
    for part in parts(3, seed=2):
        statistics.begin_step()
        ours(part)
        statistics.end_part()
        statistics.end_step()
        plain(part)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(plain.named_buffers()), rtol=0, atol=0)


def shift(network: nn.Module, value: float) -> None:
    """Every weight and statistic becomes `value`; counters its whole part."""
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            tensor.fill_(value)


@pytest.mark.parametrize("horizon", [1.0, 4.0, 1e6])
def test_moving_average_in_closed_form(horizon: float) -> None:
    """a₀ = w₀, then aₜ = aₜ₋₁ + max(1/horizon, 9/(10 + t))·(wₜ − aₜ₋₁), in float64 by hand."""
    network = Draem(SMALL)
    average = MovingAverage(network, horizon)
    expected = 0.0
    for step in range(30):
        value = float((step * 7919) % 31)
        shift(network, value)
        average.update(network, step)
        expected = value if step == 0 else expected + max(1 / horizon, 9 / (10 + step)) * (value - expected)
        for name, tensor in average.module.state_dict().items():
            wanted = value if name.endswith("num_batches_tracked") else expected
            assert torch.allclose(tensor.double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-5), (name, step)
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_moving_average_agrees_with_torchs() -> None:
    """torch's, given our weights of the average, on a network that changes at random."""
    generator = torch.Generator().manual_seed(0)

    def ema(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        return torch.lerp(averaged, current, max(1 / 5, 9 / (10 + float(count))))

    network = Draem(SMALL).channels_last()
    theirs = AveragedModel(network, avg_fn=ema)
    ours = MovingAverage(network, 5)
    for step in range(20):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        theirs.update_parameters(network)
        ours.update(network, step)
    expected = dict(theirs.module.named_parameters())
    for name, parameter in ours.module.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-5, atol=1e-5, check_stride=True, msg=name)
