"""One training step, ours beside plain torch; and whether the faster precision learns the same.

    python benchmarks/training_step.py [--widths 128 64] [--batch 4] [--repeats 3] [--curve-steps 50]

Both sides run in one process, in turns, on the same simulated anomalies at 256²: the published network with the same
losses. Plain: contiguous, float32, eager, Adam as it comes. Ours: what the trainer does on this machine (channels last,
bfloat16 where the processor multiplies it, fused Adam). A step is forward, losses, backward and optimiser; the medians
count. The curve trains widths 32/16 twice from the same weights on the same samples, in float32 and in bfloat16.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
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

SIZE = (256, 256)


def simulate(batch: int, step: int) -> Simulated:
    """A batch of simulated anomalies on smooth random images."""
    keys = sample_keys(0, step, torch.arange(batch))
    coarse = uniform(keys, 100, (3, 8, 8))
    images = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)
    return Simulator(SimulationConfig(), SIZE, "cpu")(images, keys)


def make_step(widths: tuple[int, int], *, fast: bool, bf16: bool, rate: float = 1e-4) -> Callable[[Simulated], float]:
    """A training step from the seed's weights; returns the loss."""
    torch.manual_seed(0)
    network = Draem(NetworkConfig(reconstructive_width=widths[0], discriminative_width=widths[1]))
    layout = torch.channels_last if fast else torch.contiguous_format
    if fast:
        network.channels_last()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=fast)

    def step(sample: Simulated) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            reconstruction, logits = network(sample.anomalous.contiguous(memory_format=layout))
        losses = draem_losses(reconstruction, logits, sample.normal, sample.mask, 1.0, 2.0)
        optimizer.zero_grad(set_to_none=True)
        total: Tensor = losses.total
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(total.detach())

    return step


def time_steps(widths: tuple[int, int], batch: int, repeats: int) -> dict[str, Any]:
    """Seconds an image of both sides, in turns after one step each to warm up."""
    plain, ours = make_step(widths, fast=False, bf16=False), make_step(widths, fast=True, bf16=True)
    sample = simulate(batch, 0)
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    for repeat in range(repeats + 1):
        for name, step in (("plain", plain), ("ours", ours)):
            start = time.perf_counter()
            step(sample)
            if repeat:
                seconds[name].append((time.perf_counter() - start) / batch)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "widths": widths,
        "batch": batch,
        "plain_seconds_per_image": [round(value, 3) for value in seconds["plain"]],
        "ours_seconds_per_image": [round(value, 3) for value in seconds["ours"]],
        "plain_median": round(medians["plain"], 3),
        "ours_median": round(medians["ours"], 3),
        "times_faster": round(medians["plain"] / medians["ours"], 2),
    }


def compare_curves(widths: tuple[int, int], steps: int, batch: int) -> dict[str, Any]:
    """Losses of the same training in float32 and bfloat16."""
    full = make_step(widths, fast=True, bf16=False, rate=1e-3)
    half = make_step(widths, fast=True, bf16=True, rate=1e-3)
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
    parser.add_argument("--widths", type=int, nargs=2, default=(128, 64))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--curve-steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    results["step"] = step = time_steps(tuple(options.widths), options.batch, options.repeats)
    print(
        f"widths {step['widths']}, batch {step['batch']}: plain {step['plain_median']} s an image, ours "
        f"{step['ours_median']} s: {step['times_faster']} times faster"
    )
    if options.curve_steps:
        results["curve"] = curve = compare_curves((32, 16), options.curve_steps, 4)
        print(
            f"float32 against bfloat16 over {curve['steps']} steps: median difference "
            f"{curve['median_relative_difference']:.2%}, largest {curve['largest_relative_difference']:.2%}"
        )
    print(write_result("training_step", results, options.out))


if __name__ == "__main__":
    main()
