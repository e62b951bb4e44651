"""The loop: batch → simulator → network → losses → step; checkpoints, validation, history.

Device, precision and processes are Lightning Fabric's. Every draw is keyed by (seed, step, global sample index), so a
run that was killed goes on as if it had not been, and the draws do not depend on how many processes share the batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from draem.config import Config
from draem.data.bank import ImageBank
from draem.data.regions import Regions
from draem.errors import ModelFileError, TrainingError
from draem.files import remove_unfinished
from draem.modelfile import RegionOfInterest
from draem.network.draem import Draem
from draem.network.losses import taught_loss
from draem.simulation.batch import load_normal, load_regions
from draem.simulation.draws import sample_keys
from draem.simulation.simulator import Simulator
from draem.training.average import MovingAverage
from draem.training.checkpoint import RunState, load_weights, save_weights
from draem.training.distillation import Teacher, refuse_other_teacher, sum_of
from draem.training.interrupt import Interrupt
from draem.training.objective import recipe_losses
from draem.training.optimizer import make_optimizer
from draem.training.order import image_indices
from draem.training.progress import RunLog, duration
from draem.training.schedule import can_settle, count_steps, earliest_end, learning_rate, validates
from draem.training.settling import LEAST_STEPS, Settling
from draem.training.statistics import PartStatistics
from draem.training.threads import use_threads
from draem.training.validation import Validation, validate

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
_TIMED = (1, 3)
"""After this step of a start, to that one, a run is timed to say how long it will take; the first step is slow."""
_TERMS = ("loss", "ssim", "l2", "focal")


@dataclass(frozen=True)
class Trained:
    """What a run ends with: the weights that were kept, and how they came about."""

    state: dict[str, Tensor]
    step_kept: int
    steps: int
    images_seen: int
    seconds: float
    validation: dict[str, float | None]


class Trainer:
    """Trains one network on one bank of normal images."""

    def __init__(
        self,
        config: Config,
        out: Path,
        fabric: Fabric,
        train: ImageBank,
        select: ImageBank | None,
        log: RunLog,
        teacher: Teacher | None = None,
        interest: RegionOfInterest | None = None,
    ) -> None:
        recipe, channels = config.training, config.data.pixel_format.channels
        self.config, self.recipe, self.out, self.log = config, recipe, out, log
        self.fabric, self.device = fabric, fabric.device
        self.train_bank, self.select_bank = train, select if select is not None and len(select) else None
        self.interest = interest
        self.train_regions, self.select_regions = self._regions(train), self._regions(self.select_bank)
        self.inspected = Regions.inspected(train, interest, config.data)
        self.planned = self.steps = count_steps(recipe, len(train), fabric.world_size)
        self.settling = Settling()
        self.images_per_step = recipe.batch_size * recipe.accumulate * fabric.world_size
        self.simulator = Simulator(config.simulation, config.data.size, self.device, channels)
        torch.manual_seed(recipe.seed)
        self.network = Draem(config.network, channels)
        if recipe.channels_last:
            self.network.channels_last()
        if fabric.world_size > 1 and self.device.type == "cuda":
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        self.teacher = teacher
        if teacher is not None:
            teacher.move_to(self.device, channels_last=recipe.channels_last)
        self.terms = _TERMS if teacher is None else (*_TERMS, "taught")
        self.step = 0
        self.seconds = 0.0
        self.best: dict[str, Any] = {}
        self._logged = (0.0, 0)
        self._clock = 0.0

    def fit(self, *, resume: bool = False, start_from: Mapping[str, Tensor] | None = None) -> Trained:
        """Run to the end of the budget.

        Args:
            resume: go on from the checkpoint in the run's folder, if there is one.
            start_from: trained weights to start from, instead of random ones.

        Raises:
            TrainingError: the loss is not a number any more; the last good state is kept.
        """
        self._prepare(start_from)
        self._resume(resume)
        self.log.start(self.step, self.step * self.images_per_step, self.steps * self.images_per_step)
        started, saved = time.perf_counter() - self.seconds, time.perf_counter()
        self._logged = (time.perf_counter(), self.step)
        first = self.step
        self._tell_patience()
        with Interrupt(self.log.message) as interrupt:
            while self.step < self.steps:
                rate = self._one_step()
                self.seconds = time.perf_counter() - started
                if self.step - first in _TIMED:
                    self._tell_time(first)
                self._report(rate)
                if time.perf_counter() - saved >= self.recipe.checkpoint_every or self.step == self.steps:
                    self._save()
                    saved = time.perf_counter()
                if self.step < self.steps and self._stops(interrupt):
                    self._save()
                    self.fabric.barrier()
                    raise self._end(f"stopped at step {self.step} of {self.steps}; go on with --resume ({self.out})")
        return self._result()

    def _regions(self, bank: ImageBank | None) -> Regions | None:
        """Where simulated anomalies lie on the images of a bank."""
        if bank is None:
            return None
        with self.log.counted("look for the part") as progress:
            return Regions.of_anomalies(bank, self.config.simulation.region, self.interest, self.config.data, progress)

    def _report(self, rate: float) -> None:
        """At the steps for it: losses, validation, a row of the history."""
        row: dict[str, float | int | None] = {}
        images = self.step * self.images_per_step
        validating = self.select_bank is not None and validates(self.recipe, self.step, self.steps)
        if (validating or self._logs()) and not self.state.finite():
            raise self._diverged()
        if self._logs():
            since, first = self._logged
            speed = (self.step - first) * self.images_per_step / max(time.perf_counter() - since, 1e-9)
            row = {**self._losses(), "learning_rate": rate, "images_per_second": speed}
        if validating and self.fabric.is_global_zero:
            row |= self._validate()
        if row:
            self.log.row({"step": self.step, "images": images, **row})
            self._logged = (time.perf_counter(), self.step)
        if validating and self.recipe.patience and self.step > self._counted_from():
            self._end_where_settled(row.get("val_pixel_ap"))

    def _counted_from(self) -> float:
        """The step after which validations count for `patience`."""
        return max(self.recipe.warmup * self.planned, LEAST_STEPS)

    def _tell_patience(self) -> None:
        """One line where it is asked for and cannot end the run."""
        goes_on, first = "patience: this run goes on to the end of its budget", self._counted_from()
        if self.recipe.patience and self.select_bank is None:
            self.log.message(f"{goes_on}: too few good images to hold any out")
        elif self.recipe.patience and not can_settle(self.recipe, first, self.planned):
            self.log.message(
                f"{goes_on}: validations count after {first:.0f} of {self.planned} steps: too late to fall"
            )

    def _end_where_settled(self, figure: float | None) -> None:
        """Let the run fall to its end once validation has settled; all processes follow the first."""
        self.settling.add(figure)
        steps = self.steps
        if self.steps == self.planned and self.settling.without_gain >= self.recipe.patience:
            steps = earliest_end(self.recipe, self.step, self.steps)
        steps = int(self.fabric.broadcast(steps))
        if steps < self.steps:
            self.steps = steps
            self.log.shorten(steps * self.images_per_step)
            self.log.message(
                f"settled: pixel AP on simulated defects stays near {self.settling.best or 0:.3f}; the rate falls now, "
                f"and the run ends after {steps} of {self.planned} steps"
            )

    def _tell_time(self, first: int) -> None:
        """How long what is left will take, once two steps after the first one are done."""
        self.window.sum().item()  # waits for the device
        now, began = time.perf_counter(), self._clock
        self._clock = now
        if self.step - first == _TIMED[1]:
            speed = (_TIMED[1] - _TIMED[0]) * self.images_per_step / (now - began)
            left = (self.steps - self.step) * self.images_per_step
            self.log.message(f"about {duration(left / speed)} to go: {left} images at {speed:.2g} a second")

    def _logs(self) -> bool:
        """Whether this step has a row of losses: only here does a run wait for the device or for other processes."""
        return self.step % self.recipe.log_every == 0 or self.step == self.steps

    def _stops(self, interrupt: Interrupt) -> bool:
        """Whether a person ended the run. Several processes agree on it, so that none waits for one that has left."""
        if self.fabric.world_size == 1:
            return interrupt.requested
        if not self._logs():
            return False
        asked = torch.tensor(float(interrupt.requested), device=self.device)
        return bool(self.fabric.all_reduce(asked, reduce_op="sum"))

    def _prepare(self, start_from: Mapping[str, Tensor] | None) -> None:
        """Set up network, average, optimiser and the accounts of a step."""
        recipe = self.recipe
        if start_from is not None:
            self.network.load_state_dict(dict(start_from))
        optimizer = make_optimizer(self.network, recipe, self.device)
        forward: Any = torch.compile(self.network) if recipe.compile else self.network
        self.model, self.optimizer = self.fabric.setup(forward, optimizer)
        horizon = max(recipe.ema * self.planned, 1.0)
        self.average = MovingAverage(self.network, horizon) if recipe.ema else None
        self.state = RunState(self.network, self.average.module if self.average else None, self.optimizer.optimizer)
        self.statistics = PartStatistics(self.network, recipe.accumulate, self.fabric.world_size)
        self.window = torch.zeros(len(self.terms) + 1, device=self.device)

    def _one_step(self) -> float:
        """All parts of one batch, then the optimiser; returns the learning rate. Never waits for the device."""
        recipe = self.recipe
        rate = learning_rate(recipe, self.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.statistics.begin_step()
        for part in range(recipe.accumulate):
            last = part == recipe.accumulate - 1
            with self.fabric.no_backward_sync(self.model, enabled=not last):
                self._one_part(part)
            self.statistics.end_part()
        self.statistics.end_step()
        if recipe.clip_norm is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.network, self.step)
        self.step += 1
        self.log.advance(self.images_per_step)
        return rate

    def _one_part(self, part: int) -> None:
        """Forward and backward of one part: its samples have the same global indices in any division of the batch."""
        recipe = self.recipe
        first = (part * self.fabric.world_size + self.fabric.global_rank) * recipe.batch_size
        samples = torch.arange(first, first + recipe.batch_size)
        positions = self.step * self.images_per_step + samples
        indices = image_indices(positions, len(self.train_bank), recipe.seed, recipe.sampling)
        keys = sample_keys(recipe.seed, self.step, samples)
        images, inspected = load_normal(self.train_bank, indices, keys, self.device, self.config, self.inspected)
        region = load_regions(self.train_regions, indices, keys, self.device)
        simulated = self.simulator(images, keys, region)
        anomalous = simulated.anomalous
        if recipe.channels_last:
            anomalous = anomalous.contiguous(memory_format=torch.channels_last)
        reconstruction, logits = self.model(anomalous)
        losses = recipe_losses(self.config, reconstruction, logits, simulated, inspected)
        total, taught = losses.total, []
        if self.teacher is not None:
            with self.fabric.autocast():
                answer = self.teacher.logits(anomalous)
            taught = [taught_loss(logits, answer, recipe.focal_gamma, inspected)]
            total = total + recipe.distill_weight * (taught[0] - losses.focal)
        self.fabric.backward(total / recipe.accumulate)
        terms = torch.stack((total, losses.ssim, losses.l2, losses.focal, *taught)).detach()
        self.window += torch.cat((terms, torch.ones(1, device=self.device)))

    def _losses(self) -> dict[str, float]:
        """Means since the last row, over all processes; here a run notices that it went wrong."""
        total: Any = self.fabric.all_reduce(self.window, reduce_op="sum")
        *sums, count = total.tolist()
        self.window.zero_()
        means = {name: value / max(count, 1) for name, value in zip(self.terms, sums, strict=True)}
        if not all(math.isfinite(value) for value in means.values()):
            raise self._diverged()
        return means

    def _end(self, reason: str) -> BaseException:
        """How a run ends early: all processes at the same step, and without an error on any but the first, whom the
        launcher would otherwise kill while it reports."""
        return TrainingError(reason) if self.fabric.is_global_zero else SystemExit(0)

    def _diverged(self) -> BaseException:
        kept = (
            "the last good state is in " + CHECKPOINT if (self.out / CHECKPOINT).exists() else "no state was saved yet"
        )
        return self._end(
            f"{self.out}: the loss is not a number at step {self.step}; {kept}; lower training.learning_rate "
            f"(now {self.recipe.learning_rate:g}), set training.clip_norm, or use fp32"
        )

    def _validate(self) -> dict[str, float | int | None]:
        assert self.select_bank is not None
        network = self._kept_network()
        with self.fabric.autocast():
            where = self.select_regions, self.interest
            found = validate(network, self.simulator, self.select_bank, self.config, self.device, *where)
        metrics = found.metrics
        values = {
            "val_pixel_ap": metrics.pixel_ap,
            "val_pixel_auroc": metrics.pixel_auroc,
            "val_image_auroc": metrics.image_auroc,
            "val_loss": found.loss,
        }
        self.log.picture(self.step, "validation", found.picture)
        self._keep_best(network, found, values)
        return dict(values)

    def _keep_best(self, network: nn.Module, found: Validation, values: dict[str, float | None]) -> None:
        """Best is the highest pixel AP on simulated defects."""
        score = found.metrics.pixel_ap
        previous = self.best.get("val_pixel_ap")
        if self.recipe.keep == "best" and score is not None and (previous is None or score > previous):
            self.best = {"step": self.step, **values}
            save_weights(self.out / BEST, network, self.best)
        elif self.recipe.keep == "last":
            self.best = {"step": self.step, **values}

    def _kept_network(self) -> Draem:
        """The network that would become the model: the moving average where there is one."""
        return self.network if self.average is None else self.average.module

    def _save(self) -> None:
        """Write the checkpoint; the last good one stays where the run went wrong, which the next row then says."""
        good = self.fabric.is_global_zero and self.state.finite() and bool(self.window.isfinite().all())
        if not good:
            return
        record = {
            "step": self.step,
            "steps": self.steps,
            "planned": self.planned,
            "settling": self.settling.record(),
            "seconds": self.seconds,
            "threads": torch.get_num_threads(),
            "window": self.window.tolist(),
            "best": self.best,
            "scaler": self._scaler_state(),
            "teacher": sum_of(self.teacher),
        }
        self.state.save(self.out / CHECKPOINT, record)

    def _resume(self, resume: bool) -> None:
        path = self.out / CHECKPOINT
        if self.fabric.is_global_zero:
            remove_unfinished(path)
            remove_unfinished(self.out / BEST)
        if not resume or not path.exists():
            if resume:
                self.log.message(f"nothing to resume in {self.out}: starting from the beginning")
            return
        record = self.state.load(path)
        refuse_other_teacher(self.out, record.get("teacher"), self.teacher)
        try:
            self.step, self.seconds = int(record["step"]), float(record["seconds"])
            # The first process's sums alone: a row that a kill cut in two lacks the others' share of its first part.
            if self.fabric.is_global_zero:
                self.window = torch.tensor(record["window"], device=self.device)
            self.best = dict(record["best"])
            self._load_scaler(record["scaler"])
            use_threads(int(record["threads"]))
            planned, self.steps = int(record.get("planned", record["steps"])), int(record["steps"])
            self.settling = Settling.of(record.get("settling", {}))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path}: its record is damaged ({error})") from None
        if planned != self.planned:
            raise TrainingError(
                f"{path}: its run has {planned} steps, this one {self.planned}; resume with the settings of "
                f"{self.out / 'config.yaml'}"
            )
        self.log.message(f"resumed at step {self.step} of {self.steps}")

    def _result(self) -> Trained:
        state = {name: value.detach().cpu() for name, value in self._kept_network().state_dict().items()}
        step_kept = self.steps
        best = self.out / BEST
        if self.recipe.keep == "best" and self.best and best.exists():
            (state, _), step_kept = load_weights(best), int(self.best["step"])
        values = {name: value for name, value in self.best.items() if name != "step"}
        images = self.steps * self.images_per_step
        return Trained(state, step_kept, self.steps, images, self.seconds, values)

    def _scaler_state(self) -> dict[str, Any] | None:
        scaler = getattr(self.fabric._precision, "scaler", None)
        return scaler.state_dict() if scaler is not None else None

    def _load_scaler(self, state: Mapping[str, Any] | None) -> None:
        scaler = getattr(self.fabric._precision, "scaler", None)
        if scaler is not None and state:
            scaler.load_state_dict(dict(state))
