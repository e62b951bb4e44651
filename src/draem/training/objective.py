"""The loss of a recipe: what a step minimises, and what a validation tells."""

from __future__ import annotations

from torch import Tensor

from draem.config import Config
from draem.network.losses import Losses, draem_losses
from draem.simulation.simulator import Simulated


def recipe_losses(
    config: Config, reconstruction: Tensor, logits: Tensor, simulated: Simulated, inspected: Tensor | None
) -> Losses:
    """`draem_losses` of a network's answer to simulated anomalies, with the weights of the recipe."""
    recipe = config.training
    return draem_losses(
        reconstruction,
        logits,
        simulated.normal,
        simulated.mask,
        recipe.ssim_weight,
        recipe.focal_gamma,
        config.network.parts,
        recipe.l1_weight,
        recipe.dice_weight,
        inspected,
        recipe.ssim_scales,
    )
