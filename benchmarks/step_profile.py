"""What a training step spends its time on, part by part, beside what the machine can do.

    python benchmarks/step_profile.py [--presets edge fast] [--threads 1] [--repeats 10] [--set network.fold=2]

The parts of one step of the trainer on smooth random images of the preset's size: light and simulation, the network's
forward pass, the losses, their gradient, the network's backward pass, the optimiser with clipping and average. Each is
timed by itself, `--repeats` times in turns; medians count. Beside them: FLOP of the network's convolutions a second, as
a share of what a large matrix product reaches here in the same precision, and the arithmetic intensity, FLOP for each
byte of the convolutions' inputs, outputs and weights: where it is below the machine's balance of FLOP to bytes, memory
is what limits.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from recipes import size_of
from record import write_result
from torch import Tensor, nn

from draem.config import Config
from draem.network.draem import Draem
from draem.settings import parse_setting
from draem.simulation.draws import sample_keys, uniform
from draem.simulation.lighting import relight
from draem.simulation.simulator import Simulator
from draem.training.average import MovingAverage
from draem.training.memory import keep_freed_memory
from draem.training.objective import recipe_losses
from draem.training.optimizer import make_optimizer

CHANNELS = 3


def best_seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """The shortest of some runs, after one to warm up."""
    run()
    return min(_timed(run) for _ in range(repeats))


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def machine_limits(dtype: torch.dtype) -> dict[str, float]:
    """TFLOP/s of a product of matrices of 2048², and GB/s of a copy of 256 MB (read and written bytes)."""
    side, count = 2048, 1 << 26
    left, right = torch.randn(side, side, dtype=dtype), torch.randn(side, side, dtype=dtype)
    source, target = torch.ones(count), torch.empty(count)
    return {
        "tflops": 2 * side**3 / best_seconds(lambda: left @ right) / 1e12,
        "gigabytes_per_second": 2 * 4 * count / best_seconds(lambda: target.copy_(source)) / 1e9,
    }


def moved_bytes(network: nn.Module, images: Tensor, bytes_each: int) -> int:
    """Bytes of the inputs, outputs and weights of all convolutions in one forward pass of a batch."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight: Any = layer.weight
        total += bytes_each * (inputs[0].numel() + output.numel() + weight.numel())

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return total


class Step:
    """One training step, in parts that are timed one after the other."""

    def __init__(self, config: Config) -> None:
        torch.manual_seed(0)
        recipe = config.training
        self.config, self.number = config, 0
        self.batch = recipe.batch_size
        self.network = Draem(config.network, CHANNELS).channels_last()
        self.optimizer = make_optimizer(self.network, recipe, torch.device("cpu"))
        self.average = MovingAverage(self.network, 100.0)
        self.simulator = Simulator(config.simulation, config.data.size, "cpu", CHANNELS)
        coarse = uniform(self._keys(), 100, (CHANNELS, 8, 8))
        size = config.data.size
        self.images = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
        self.seconds: dict[str, list[float]] = {}

    def _keys(self) -> Tensor:
        return sample_keys(0, self.number, torch.arange(self.batch))

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append((time.perf_counter() - start) / self.batch)

    def run(self, bf16: bool) -> None:
        """The whole step."""
        recipe, self.number = self.config.training, self.number + 1
        with self._part("simulation"):
            keys = self._keys()
            sample = self.simulator(relight(self.images, keys, self.config.simulation.lighting), keys)
        with self._part("forward"), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            image = sample.anomalous.contiguous(memory_format=torch.channels_last)
            reconstruction, logits = (tensor.float() for tensor in self.network(image))
        outputs = [tensor.detach().requires_grad_() for tensor in (reconstruction, logits)]
        with self._part("losses"):
            total = recipe_losses(self.config, outputs[0], outputs[1], sample, None).total
        with self._part("losses' gradient"):
            total.backward()  # type: ignore[no-untyped-call]
        with self._part("backward"):
            torch.autograd.backward([reconstruction, logits], [tensor.grad for tensor in outputs])
        with self._part("optimiser"):
            if recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update(self.network, self.number)

    def medians(self) -> dict[str, float]:
        """Seconds an image of each part."""
        return {name: statistics.median(values) for name, values in self.seconds.items()}


def profile(config: Config, limits: Mapping[str, float], bf16: bool, repeats: int) -> dict[str, Any]:
    """Milliseconds an image of each part, and how near the network comes to the machine's limits."""
    step = Step(config)
    step.run(bf16)
    step.seconds.clear()
    for _ in range(repeats):
        step.run(bf16)
    parts = step.medians()
    forward, parameters = size_of(config, CHANNELS)
    moved = moved_bytes(step.network, step.images, 2 if bf16 else 4) / step.batch
    attained = 3 * forward / (parts["forward"] + parts["backward"]) / 1e12
    return {
        "widths": config.network.widths,
        "parameters": parameters,
        "forward_gflop": round(forward / 1e9, 3),
        "milliseconds_per_image": {name: round(value * 1000, 2) for name, value in parts.items()},
        "sum": round(sum(parts.values()) * 1000, 2),
        "network_tflops": round(attained, 4),
        "share_of_the_product": round(attained / limits["tflops"], 3),
        "flop_per_byte": round(forward / moved, 1),
    }


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--presets", nargs="+", default=["edge", "fast"])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    limits = machine_limits(torch.bfloat16 if options.bf16 else torch.float32)
    tflops, gigabytes = limits["tflops"], limits["gigabytes_per_second"]
    print(
        f"{options.threads} threads: {tflops:.3f} TFLOP/s in a product of matrices, {gigabytes:.1f} GB/s copied: "
        f"{1000 * tflops / gigabytes:.1f} FLOP a byte"
    )
    results: dict[str, Any] = {"threads": options.threads, "bf16": options.bf16, "limits": limits, "presets": {}}
    for preset in options.presets:
        config = Config.resolve(preset, None, dict(map(parse_setting, options.set)))
        results["presets"][preset] = found = profile(config, limits, options.bf16, options.repeats)
        print(f"{preset}, {found['widths']}, {found['forward_gflop']} GFLOP: {found['sum']:.1f} ms an image")
        for name, value in found["milliseconds_per_image"].items():
            print(f"  {name:18} {value:7.2f} ms  {value / found['sum']:5.0%}")
        print(
            f"  network: {found['network_tflops']:.3f} TFLOP/s, {found['share_of_the_product']:.0%} of the product; "
            f"{found['flop_per_byte']} FLOP a byte"
        )
    print(write_result("step_profile", results, options.out))


if __name__ == "__main__":
    main()
