"""How long a run is, and its learning rate at each step: pure functions, so a resumed run needs no state for them."""

from __future__ import annotations

import math

from draem.config import TrainingConfig

_START = 1 / 25
_END = 1e-4


def count_steps(config: TrainingConfig, train_images: int, processes: int = 1) -> int:
    """Optimiser steps in the budget, rounded up; at least one."""
    images = config.images or math.ceil((config.epochs or 0) * train_images)
    return max(1, math.ceil(images / (config.batch_size * config.accumulate * processes)))


def learning_rate(config: TrainingConfig, step: int, steps: int) -> float:
    """The rate of step `step` of `steps`, counted from 0.

    `one_cycle` rises from a 25th of the rate and falls to a 10,000th, both as a cosine (Smith and Topin, "Super-
    convergence", 2018, in the form that fast.ai gave it). `hold` rises alike, stays, and falls as far along a line at
    last: such a run can be ended earlier by letting it fall earlier (Hägele et al., "Scaling laws and compute-optimal
    training beyond fixed training durations", NeurIPS 2024).
    """
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "steps":
        passed = sum(step >= math.floor(share * steps) for share in config.milestones)
        return config.learning_rate * config.factor**passed
    peak = config.warmup * steps - 1
    if step < peak:
        return _cosine(_START, 1.0, step / peak) * config.learning_rate
    if config.schedule == "hold":
        share = min(1.0, (steps - 1 - step) / max(config.cooldown * steps, 1.0))
        return (_END + (1.0 - _END) * share) * config.learning_rate
    return _cosine(1.0, _END, (step - peak) / max(steps - 1 - peak, 1e-9)) * config.learning_rate


def earliest_end(config: TrainingConfig, step: int, steps: int) -> int:
    """How many steps of `steps` a run has that is to end as soon as it can after `step` of them: `hold` falls first."""
    if config.schedule != "hold":
        return steps
    return min(steps, math.ceil(step / (1.0 - config.cooldown)))


def validates(config: TrainingConfig, step: int, steps: int) -> bool:
    """Whether one of the validations, evenly spread and the last one at the end, falls on step `step` of `steps`."""
    return step * config.validations // steps > (step - 1) * config.validations // steps


def can_settle(config: TrainingConfig, counted_from: float, steps: int) -> bool:
    """Whether a run ends early if no validation after step `counted_from` but the first of them brings a gain."""
    counted = [step for step in range(1, steps + 1) if step > counted_from and validates(config, step, steps)]
    return len(counted) > config.patience and earliest_end(config, counted[config.patience], steps) < steps


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
