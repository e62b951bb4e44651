"""The optimiser that a recipe names."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from draem.config import TrainingConfig
from draem.training.muon import Muon, hidden_weights


def make_optimizer(network: nn.Module, recipe: TrainingConfig, device: torch.device) -> Optimizer:
    """The recipe's optimiser, in its fastest form that goes with clipping."""
    # A fused optimiser would unscale fp16 gradients itself, after they were to be clipped.
    fused = device.type in ("cpu", "cuda") and recipe.precision != "fp16"
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "muon":
        hidden = hidden_weights(network)
        others = [parameter for parameter in network.parameters() if all(parameter is not one for one in hidden)]
        return Muon(hidden, others, lr=rate, weight_decay=decay, fused=fused)
    optimizer_type = AdamW if recipe.optimizer == "adamw" else Adam
    return optimizer_type(network.parameters(), lr=rate, weight_decay=decay, fused=fused)
