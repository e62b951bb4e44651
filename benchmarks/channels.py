"""A one-channel network beside a three-channel one: a training step, and inference.

    python benchmarks/channels.py [--batch 8] [--repeats 10]

Both in one process, a run of one after a run of the other, at 256², widths 32/16 and 16/8, on the same grey images: the
three-channel network gets them repeated. A step is what the trainer does: simulator, forward, losses, backward,
optimiser; the forward pass in bfloat16. Inference is the detector's backend, in float32. Counted are the processor's
seconds of the cheapest run, in one thread: whatever else a machine does touches them least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import write_result
from torch import Tensor

from draem.config import NetworkConfig, SimulationConfig
from draem.inspection.torch_backend import TorchBackend
from draem.network.draem import Draem
from draem.network.losses import draem_losses
from draem.simulation.draws import sample_keys, uniform
from draem.simulation.simulator import Simulator
from draem.training.memory import keep_freed_memory

SIZE = (256, 256)


def grey_images(count: int) -> Tensor:
    """Smooth random images, count×1×256×256."""
    coarse = uniform(sample_keys(0, 0, torch.arange(count)), 100, (1, 8, 8))
    return torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)


def make_step(widths: tuple[int, int], channels: int, batch: int) -> Callable[[], None]:
    """A training step as the trainer does it."""
    torch.manual_seed(0)
    config = NetworkConfig(reconstructive_width=widths[0], discriminative_width=widths[1])
    network = Draem(config, channels).channels_last()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    simulator = Simulator(SimulationConfig(), SIZE, "cpu", channels)
    images, keys = grey_images(batch).expand(-1, channels, -1, -1), sample_keys(0, 1, torch.arange(batch))

    def step() -> None:
        sample = simulator(images, keys)
        with torch.autocast("cpu", torch.bfloat16):
            reconstruction, logits = network(sample.anomalous.contiguous(memory_format=torch.channels_last))
        losses = draem_losses(reconstruction, logits, sample.normal, sample.mask, 1.0, 2.0)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def make_inference(widths: tuple[int, int], channels: int, batch: int) -> Callable[[], None]:
    """One run of the backend."""
    torch.manual_seed(0)
    config = NetworkConfig(reconstructive_width=widths[0], discriminative_width=widths[1])
    backend = TorchBackend(Draem(config, channels))
    images = grey_images(batch).expand(-1, channels, -1, -1).contiguous().numpy()

    def run() -> None:
        backend.run(images)

    return run


def compare(make: Callable[[int], Callable[[], None]], batch: int, repeats: int) -> dict[str, Any]:
    """Processor seconds an image with one and with three channels, by turns, each after a run to warm up."""
    runs = {channels: make(channels) for channels in (1, 3)}
    seconds: dict[int, list[float]] = {1: [], 3: []}
    for repeat in range(repeats + 1):
        for channels, run in runs.items():
            start = time.process_time()
            run()
            if repeat:
                seconds[channels].append((time.process_time() - start) / batch)
    one, three = min(seconds[1]), min(seconds[3])
    return {
        "processor_seconds_per_image": {
            str(count): [round(value, 5) for value in values] for count, values in seconds.items()
        },
        "cheapest": {"1": round(one, 5), "3": round(three, 5)},
        "three_over_one": round(three / one, 3),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "batch": options.batch, "size": SIZE}
    for widths in ((32, 16), (16, 8)):
        for what, make in (("training_step", make_step), ("inference", make_inference)):
            found = compare(lambda channels: make(widths, channels, options.batch), options.batch, options.repeats)  # noqa: B023
            results[f"{what}_{widths[0]}_{widths[1]}"] = found
            print(f"{what} {widths[0]}/{widths[1]}: {found['cheapest']} s an image, {found['three_over_one']} times")
    print(write_result("channels", results, options.out))


if __name__ == "__main__":
    main()
