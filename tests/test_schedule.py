"""The length of a run and its learning rate, against torch's own schedulers and by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from draem.config import Config, TrainingConfig
from draem.training.schedule import can_settle, count_steps, earliest_end, learning_rate
from draem.training.settling import LEAST_STEPS, Settling

PEAK = 2e-3


def recipe(**settings: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"images": 1, "learning_rate": PEAK, **settings})


def rates(config: TrainingConfig, steps: int) -> list[float]:
    return [learning_rate(config, step, steps) for step in range(steps)]


def rates_of(scheduler: LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(float(scheduler.get_last_lr()[0]))
        scheduler.optimizer.step()
        if len(found) < steps:
            scheduler.step()
    return found


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.77])
@pytest.mark.parametrize("steps", [7, 23, 64, 301])
def test_one_cycle_is_torchs(steps: int, warmup: float) -> None:
    theirs = OneCycleLR(
        optimizer(),
        PEAK,
        total_steps=steps,
        pct_start=warmup,
        anneal_strategy="cos",
        cycle_momentum=False,
        div_factor=25,
        final_div_factor=1e4 / 25,
    )
    assert rates(recipe(schedule="one_cycle", warmup=warmup), steps) == pytest.approx(
        rates_of(theirs, steps), rel=1e-6, abs=1e-12
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 20])
@pytest.mark.parametrize("warmup", [0.1, 0.5, 0.99])
def test_one_cycle_of_few_steps_stays_within_its_bounds(steps: int, warmup: float) -> None:
    """torch divides by zero where the warm-up is one step long."""
    found = rates(recipe(schedule="one_cycle", warmup=warmup), steps)
    assert all(PEAK * 1e-4 * (1 - 1e-9) <= rate <= PEAK * (1 + 1e-9) for rate in found)


def test_one_cycle_with_a_warm_up_of_one_step_starts_at_the_peak() -> None:
    found = rates(recipe(schedule="one_cycle", warmup=0.1), 10)
    assert found[0] == pytest.approx(PEAK)
    assert found[-1] == pytest.approx(PEAK * 1e-4)


@pytest.mark.parametrize(("preset", "milestones", "factor"), [("official", (4, 5), 0.2), ("paper", (4, 6), 0.1)])
@pytest.mark.parametrize("epochs", [700, 33, 7, 15])
def test_steps_are_torchs_also_when_epochs_are_no_multiple_of_ten(
    preset: str, milestones: tuple[int, int], factor: float, epochs: int
) -> None:
    """The published drops are at float epochs, and so never happen unless the epochs divide by ten."""
    config = Config.resolve(preset, settings={"training.learning_rate": PEAK}).training
    denominator = 5 if preset == "official" else 7
    shares = (0.8, 0.9) if preset == "official" else tuple(part / denominator for part in milestones)
    theirs = MultiStepLR(optimizer(), [math.floor(share * epochs + 1e-9) for share in shares], gamma=factor)
    found = rates(config, epochs)
    assert found == pytest.approx(rates_of(theirs, epochs), rel=1e-12)
    assert len(set(found)) == 3


def test_the_published_run_drops_at_epochs_560_and_630() -> None:
    """209 images in batches of 8 are 26.125 steps an epoch."""
    config = Config.resolve("official").training
    steps = count_steps(config, 209)
    found = rates(config, steps)
    drops = [step for step in range(1, steps) if found[step] != found[step - 1]]
    assert drops == [int(560 * 209 / 8), math.floor(0.9 * steps)]
    assert found[-1] == pytest.approx(1e-4 * 0.2**2)


def test_hold_rises_stays_and_falls_along_a_line() -> None:
    config = recipe(schedule="hold", warmup=0.1, cooldown=0.25)
    found = rates(config, 200)
    assert found[:20] == pytest.approx(rates(recipe(schedule="one_cycle", warmup=0.1), 200)[:20])
    assert found[20:150] == pytest.approx([PEAK] * 130)
    falling = [PEAK * (1e-4 + (1 - 1e-4) * (199 - step) / 50) for step in range(150, 200)]
    assert found[150:] == pytest.approx(falling)


@pytest.mark.parametrize("step", [20, 33, 90, 149])
def test_hold_can_end_early_without_a_jump(step: int) -> None:
    """Until it is told to end, it has had the rates of the longer run; then it falls at once, as slowly."""
    config = recipe(schedule="hold", warmup=0.1, cooldown=0.25)
    steps = earliest_end(config, step, 200)
    shorter = rates(config, steps)
    assert steps == math.ceil(step / 0.75) <= 200
    assert shorter[step - 1] == rates(config, 200)[step - 1] == pytest.approx(PEAK)
    assert all(later < earlier for earlier, later in pairwise(shorter[step:]))
    assert shorter[-1] == pytest.approx(PEAK * 1e-4)


def test_what_cannot_end_early() -> None:
    assert earliest_end(recipe(schedule="hold", cooldown=0.25), 190, 200) == 200, "falling already"
    assert earliest_end(recipe(schedule="one_cycle"), 50, 200) == 200


@pytest.mark.parametrize(
    ("patience", "validations", "cooldown", "steps"),
    [(4, 20, 0.3, 1000), (4, 20, 0.5, 1000), (4, 20, 0.5, 3000), (1, 10, 0.3, 1000), (2, 10, 0.3, 1000)],
)
def test_can_settle_is_what_a_run_without_any_gain_does(
    patience: int, validations: int, cooldown: float, steps: int
) -> None:
    config = recipe(schedule="hold", patience=patience, validations=validations, cooldown=cooldown)
    settling, end = Settling(), steps
    for k in range(1, validations + 1):
        step = math.ceil(k * steps / validations)
        if step > LEAST_STEPS:
            settling.add(0.5)
            if settling.without_gain >= patience:
                end = min(end, earliest_end(config, step, steps))
    assert can_settle(config, LEAST_STEPS, steps) == (end < steps)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"patience": 3, "schedule": "one_cycle"}, "only a run of schedule=hold can end early, not one_cycle"),
        ({"schedule": "hold", "warmup": 0.5, "cooldown": 0.5}, "nothing is left to hold"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        recipe(**settings)


def test_constant() -> None:
    assert set(rates(recipe(schedule="constant"), 50)) == {PEAK}


@pytest.mark.parametrize(
    ("settings", "train_images", "processes", "steps"),
    [
        ({"images": 80, "batch_size": 8}, 1000, 1, 10),
        ({"images": 81, "batch_size": 8}, 1000, 1, 11),
        ({"images": 80, "batch_size": 8, "accumulate": 2}, 1000, 1, 5),
        ({"images": 80, "batch_size": 8, "accumulate": 2}, 1000, 4, 2),
        ({"images": 1, "batch_size": 64}, 3, 8, 1),
        ({"epochs": 700, "batch_size": 8, "images": None}, 209, 1, 18_288),
        ({"epochs": 700, "batch_size": 4, "images": None}, 209, 2, 18_288),
        ({"epochs": 0.5, "batch_size": 2, "images": None}, 9, 1, 3),
        ({"epochs": 0.001, "batch_size": 2, "images": None}, 9, 1, 1),
        ({"epochs": 3, "batch_size": 7, "images": None}, 7, 1, 3),
    ],
)
def test_count_steps(settings: dict[str, object], train_images: int, processes: int, steps: int) -> None:
    assert count_steps(recipe(**settings), train_images, processes) == steps
