"""One training step, ours beside plain torch; what each measure pays; whether the faster precision learns the same.

    python benchmarks/training_step.py [--batch 4] [--repeats 3] [--curve-steps 50]

All sides run in one process, one after the other, on the same simulated anomalies at 256², with the same networks and
losses. Plain: contiguous, float32, eager, Adam as it comes. Ours: what the trainer does on a CPU that multiplies
bfloat16 (channels last, fused Adam, freed memory kept). A step is forward, losses, backward and optimiser; medians
count. At widths 128/64 these two; at 32/16 (`--no-small` leaves it out) also each measure alone, and torch.compile. The
curve trains widths 32/16 twice from the same weights on the same samples, in float32 and in bfloat16.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import write_result
from torch import Tensor

from draem.config import NetworkConfig, SimulationConfig
from draem.network.draem import Draem
from draem.network.losses import draem_losses
from draem.simulation.draws import sample_keys, uniform
from draem.simulation.simulator import Simulated, Simulator
from draem.training.memory import keep_freed_memory

SIZE = (256, 256)


def simulate(batch: int, step: int) -> Simulated:
    """A batch of simulated anomalies on smooth random images."""
    keys = sample_keys(0, step, torch.arange(batch))
    coarse = uniform(keys, 100, (3, 8, 8))
    images = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)
    return Simulator(SimulationConfig(), SIZE, "cpu")(images, keys)


@dataclass(frozen=True)
class Variant:
    """How a step is computed."""

    channels_last: bool = False
    bf16: bool = False
    fused: bool = False
    compiled: bool = False
    keeps_memory: bool = False


PLAIN, OURS = Variant(), Variant(channels_last=True, bf16=True, fused=True, keeps_memory=True)
MAIN = {"plain": PLAIN, "ours": OURS}
ALL = {
    **MAIN,
    "channels last": Variant(channels_last=True),
    "bfloat16": Variant(bf16=True),
    "fused Adam": Variant(fused=True),
    "ours, compiled": Variant(channels_last=True, bf16=True, fused=True, compiled=True, keeps_memory=True),
}


def make_step(widths: tuple[int, int], variant: Variant, rate: float = 1e-4) -> Callable[[Simulated], float]:
    """A training step from the seed's weights; returns the loss."""
    torch.manual_seed(0)
    network = Draem(NetworkConfig(reconstructive_width=widths[0], discriminative_width=widths[1]))
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    if variant.channels_last:
        network.channels_last()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=variant.fused)
    forward: Any = torch.compile(network) if variant.compiled else network

    def step(sample: Simulated) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=variant.bf16):
            reconstruction, logits = forward(sample.anomalous.contiguous(memory_format=layout))
        losses = draem_losses(reconstruction, logits, sample.normal, sample.mask, 1.0, 2.0)
        optimizer.zero_grad(set_to_none=True)
        total: Tensor = losses.total
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(total.detach())

    return step


def time_steps(widths: tuple[int, int], variants: Mapping[str, Variant], batch: int, repeats: int) -> dict[str, Any]:
    """Seconds an image of all variants, one after the other, each after a step to warm up.

    Ours keep freed memory, as the trainer does, which cannot be undone: they come last.
    """
    sample = simulate(batch, 0)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for name, variant in sorted(variants.items(), key=lambda item: item[1].keeps_memory):
        if variant.keeps_memory:
            keep_freed_memory()
        step = make_step(widths, variant)
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            step(sample)
            if repeat:
                seconds[name].append((time.perf_counter() - start) / batch)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"widths {widths[0]}/{widths[1]}, batch {batch}, seconds an image (times faster than plain):")
    for name, median in medians.items():
        print(f"  {name:16} {median:8.3f}  ({medians['plain'] / median:.2f})")
    return {
        "widths": widths,
        "batch": batch,
        "seconds_per_image": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "median": {name: round(value, 4) for name, value in medians.items()},
        "times_faster_than_plain": {name: round(medians["plain"] / value, 2) for name, value in medians.items()},
    }


def compare_curves(widths: tuple[int, int], steps: int, batch: int) -> dict[str, Any]:
    """Losses of the same training in float32 and bfloat16."""
    full = make_step(widths, Variant(channels_last=True, fused=True), rate=1e-3)
    half = make_step(widths, OURS, rate=1e-3)
    pairs = [(full(sample), half(sample)) for sample in (simulate(batch, step) for step in range(steps))]
    differences = [abs(a - b) / a for a, b in pairs]
    return {
        "widths": widths,
        "steps": steps,
        "batch": batch,
        "float32": [round(a, 5) for a, _ in pairs],
        "bfloat16": [round(b, 5) for _, b in pairs],
        "median_relative_difference": round(statistics.median(differences), 5),
        "largest_relative_difference": round(max(differences), 5),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--curve-steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    results["published"] = time_steps((128, 64), MAIN, options.batch, options.repeats)
    if options.small:
        results["small"] = time_steps((32, 16), ALL, 8, 2 * options.repeats)
    if options.curve_steps:
        results["curve"] = curve = compare_curves((32, 16), options.curve_steps, 4)
        print(
            f"float32 against bfloat16 over {curve['steps']} steps: median difference "
            f"{curve['median_relative_difference']:.2%}, largest {curve['largest_relative_difference']:.2%}"
        )
    print(write_result("training_step", results, options.out))


if __name__ == "__main__":
    main()
