"""Muon: hidden convolutions step by their momentum, orthogonalised; everything else as AdamW steps.

Sources: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; for the scale, with which
learning rates and weight decays of AdamW hold, Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, 2025.
Not torch's own, which takes no convolutions, is not in every version we go with, and rounds to bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

MOMENTUM = 0.95
ROUNDS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x, x³ and x⁵, which every round applies to the singular values: Jordan's, steep at 0 rather than exact at 1."""
RMS = 0.2
"""Of an update at a learning rate of 1: what AdamW's was found to be."""


def hidden_weights(network: nn.Module) -> list[Tensor]:
    """The weights of the convolutions between the first and the last of each sub-network."""
    inner: list[Tensor] = []
    for part in network.children():
        inner += [layer.weight for layer in part.modules() if isinstance(layer, nn.Conv2d)][1:-1]
    return inner


def orthogonalise(matrix: Tensor) -> Tensor:
    """M×N float32 = U S Vᵀ → nearly U Vᵀ: singular values between about 0.7 and 1.2, the smallest less; zero for zero.

    Newton–Schulz rounds, X ← P X with P = a + b X Xᵀ + c (X Xᵀ)², here on the Gram matrix X Xᵀ, which is smaller; they
    need float32 in full: rounded to TF32 or bfloat16 it gets negative eigenvalues, which grow.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalise(matrix.T).T
    a, b, c = COEFFICIENTS
    matrix = matrix / matrix.norm().clamp(min=1e-7)
    gram = matrix @ matrix.T
    product = torch.eye(len(matrix), device=matrix.device)
    for _ in range(ROUNDS):
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        product = polynomial @ product
        gram = polynomial @ gram @ polynomial
    return product @ matrix


class Muon(Optimizer):
    """Two groups of parameters: `hidden` weights O×I×k×k, taken as matrices O×(I·k·k), and `others`, AdamW's."""

    def __init__(
        self,
        hidden: Iterable[Tensor],
        others: Iterable[Tensor],
        lr: float,
        weight_decay: float,
        *,
        fused: bool,
    ) -> None:
        groups = [{"params": list(hidden)}, {"params": list(others)}]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "fused": fused})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hidden, others = self.param_groups
        for weight in hidden["params"]:
            if weight.grad is not None:
                self._step_hidden(weight, hidden["lr"], hidden["weight_decay"])
        self._step_others([one for one in others["params"] if one.grad is not None], others)
        return loss

    def _step_hidden(self, weight: Tensor, rate: float, weight_decay: float) -> None:
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        update = orthogonalise(gradient.lerp(momentum, MOMENTUM).flatten(1))
        # The mean square of an orthogonal matrix is one by its longer side.
        scale = RMS * math.sqrt(max(update.shape))
        weight.mul_(1 - rate * weight_decay).add_(update.reshape(weight.shape), alpha=-rate * scale)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                step = torch.zeros((), device=parameter.device if group["fused"] else "cpu")
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": step, **moments}
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )
