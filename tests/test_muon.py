"""Muon: orthogonalised steps against singular values, a plain reference, and torch's AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from draem.config import Config, NetworkConfig
from draem.network.draem import Draem
from draem.training.muon import COEFFICIENTS, MOMENTUM, ROUNDS, Muon, hidden_weights, orthogonalise
from draem.training.optimizer import make_optimizer

RATES = (1e-3, 3e-2, 1e-2)
DECAY = 0.1


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_singular_values(rows: int, columns: int, values: Tensor) -> Tensor:
    """A float64 matrix of random directions."""
    left, _, right = torch.linalg.svd(random(rows, columns, dtype=torch.float64), full_matrices=False)
    matrix: Tensor = (left * values) @ right
    return matrix


def by_svd(matrix: Tensor) -> Tensor:
    """What Newton–Schulz does, on the singular values alone, in float64."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(ROUNDS):
        values = sum(c * values**power for c, power in zip(COEFFICIENTS, (1, 3, 5), strict=True))
    answer: Tensor = (left * values) @ right
    return answer


@pytest.mark.parametrize(("rows", "columns"), [(16, 144), (128, 200), (48, 48), (40, 9), (1, 5)])
@pytest.mark.parametrize("decades", [0, 2, 6])
def test_orthogonalised_as_its_singular_values_say(rows: int, columns: int, decades: int) -> None:
    values = torch.logspace(0, -decades, min(rows, columns), dtype=torch.float64)
    matrix = with_singular_values(rows, columns, values)
    expected = by_svd(matrix)
    for scale in (1e-5, 1.0, 1e5):
        ours = orthogonalise((scale * matrix).float())
        assert ours.dtype == torch.float32
        assert (ours - expected).norm() < 2e-3 * expected.norm()


@pytest.mark.parametrize(("rows", "columns"), [(16, 144), (48, 48), (40, 9)])
def test_singular_values_come_near_one(rows: int, columns: int) -> None:
    """U and V stay, S is within the band of Jordan's coefficients, down to a hundredth of the matrix's norm."""
    values = torch.logspace(0, -1, min(rows, columns), dtype=torch.float64)
    matrix = with_singular_values(rows, columns, values)
    left, found, right = torch.linalg.svd(matrix, full_matrices=False)
    assert (found / found.norm()).min() > 0.01
    within = left.T @ orthogonalise(matrix.float()).double() @ right.T
    assert (within - torch.diag(within.diagonal())).abs().max() < 1e-3
    assert within.diagonal().min() > 0.67
    assert within.diagonal().max() < 1.22


def test_nothing_stays_nothing_and_few_directions_stay_few() -> None:
    assert torch.equal(orthogonalise(torch.zeros(4, 9)), torch.zeros(4, 9))
    thin = random(32, 2, dtype=torch.float64) @ random(2, 90, seed=1, dtype=torch.float64)
    ours, expected = orthogonalise(thin.float()), by_svd(thin)
    assert torch.linalg.matrix_rank(ours, rtol=1e-2) == 2
    assert (ours - expected).norm() < 2e-3 * expected.norm()


def gradients(shape: torch.Size, steps: int) -> list[Tensor]:
    return [random(*shape, seed=step) for step in range(steps)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (40, 2, 3, 3)])
def test_hidden_steps_match_a_plain_reference(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    """Jordan's momentum, a sum where ours is a mean, which orthogonalising cannot tell apart; Liu's scale and decay."""
    weight = nn.Parameter((0.1 * random(*shape, seed=9)).contiguous(memory_format=layout))
    optimizer = Muon([weight], [], lr=1.0, weight_decay=DECAY, fused=True)
    expected, summed = weight.detach().double(), torch.zeros(shape, dtype=torch.float64)
    for rate, gradient in zip(RATES, gradients(weight.shape, len(RATES)), strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = gradient.contiguous(memory_format=layout)
        optimizer.step()
        summed = MOMENTUM * summed + gradient
        update = by_svd((gradient + MOMENTUM * summed).reshape(shape[0], -1)).reshape(shape)
        longer = max(shape[0], shape[1] * shape[2] * shape[3])
        expected = expected - rate * DECAY * expected - rate * 0.2 * longer**0.5 * update
        torch.testing.assert_close(weight.detach().double(), expected, rtol=0, atol=1e-3 * rate)
    assert weight.is_contiguous(memory_format=layout)


def test_an_update_is_as_large_as_one_of_adamw() -> None:
    """RMS 0.2 · rate at any shape, by singular values between 0.67 and 1.22."""
    for shape in ((8, 4, 3, 3), (128, 128, 3, 3), (64, 2, 1, 1)):
        weight = nn.Parameter(torch.zeros(shape))
        optimizer = Muon([weight], [], lr=0.5, weight_decay=DECAY, fused=True)
        weight.grad = random(*shape)
        optimizer.step()
        assert 0.67 * 0.1 < weight.square().mean().sqrt() < 1.22 * 0.1


def small_network() -> Draem:
    torch.manual_seed(0)
    return Draem(NetworkConfig(reconstructive_width=2, discriminative_width=2)).channels_last()


def test_hidden_are_the_convolutions_between_the_first_and_the_last() -> None:
    network = small_network()
    hidden = hidden_weights(network)
    names = {name for name, one in network.named_parameters() if any(one is other for other in hidden)}
    convolutions = {name for name, one in network.named_parameters() if one.dim() == 4}
    assert convolutions - names == {
        "reconstructive.encoder.block1.0.weight",
        "reconstructive.decoder.fin_out.0.weight",
        "discriminative.encoder_segment.block1.0.weight",
        "discriminative.decoder_segment.fin_out.0.weight",
    }
    assert names < convolutions
    assert len(hidden) == len(names)


@pytest.mark.parametrize("precision", ["fp32", "fp16"], ids=["fused", "not fused"])
def test_the_others_step_exactly_as_by_adamw(precision: str) -> None:
    chosen = {"training.optimizer": "muon", "training.precision": precision, "training.weight_decay": DECAY}
    recipe = Config.resolve("edge", None, chosen).training
    ours, theirs = small_network(), small_network()
    muon = make_optimizer(ours, recipe, torch.device("cpu"))
    adamw = torch.optim.AdamW(theirs.parameters(), weight_decay=DECAY, fused=precision == "fp32")
    for step, rate in enumerate(RATES):
        for optimizer, network in ((muon, ours), (adamw, theirs)):
            for group in optimizer.param_groups:
                group["lr"] = rate
            for index, parameter in enumerate(network.parameters()):
                parameter.grad = random(*parameter.shape, seed=1000 * step + index)
            optimizer.step()
    hidden = hidden_weights(ours)
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other) != any(one is weight for weight in hidden), name


def test_what_has_no_gradient_stays() -> None:
    hidden, other = nn.Parameter(random(4, 2, 3, 3)), nn.Parameter(random(4))
    before = [hidden.detach().clone(), other.detach().clone()]
    optimizer = Muon([hidden], [other], lr=1.0, weight_decay=DECAY, fused=True)
    optimizer.step()
    assert torch.equal(hidden, before[0])
    assert torch.equal(other, before[1])
    assert not optimizer.state


def test_gradients_scaled_for_fp16_make_the_same_step() -> None:
    """And a step whose gradients overflowed is left out."""
    stepped = []
    for enabled in (False, True):
        weights = [nn.Parameter(random(4, 2, 3, 3)), nn.Parameter(random(4))]
        optimizer = Muon(weights[:1], weights[1:], lr=0.1, weight_decay=DECAY, fused=False)
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        for factor in (1.0, float("inf")) if enabled else (1.0,):
            loss = torch.stack([(weight**2).sum() for weight in weights]).sum()
            scaler.scale(loss * factor).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        stepped.append(weights)
    for plain, scaled in zip(*stepped, strict=True):
        assert torch.equal(plain, scaled)
