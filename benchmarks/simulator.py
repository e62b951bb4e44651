"""How fast simulated anomalies are made: milliseconds an image at 256², of the default configuration and of each kind.

    python benchmarks/simulator.py [--repeats 30] [--out benchmarks/results/simulator.json]

One thread on the CPU, batches of 8 and 32, with every sample anomalous and at the default share of clean samples; on
CUDA, where there is one, a batch of 256. Then every kind of mask alone, with flat colours, and every kind of source
alone, in rectangles: one thread, batches of 8, every sample anomalous. The first calls warm up and do not count; the
median of the rest does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from record import write_result

from draem.config import Config, MaskKind, SimulationConfig, SourceKind
from draem.images import write_image
from draem.simulation.draws import sample_keys, uniform
from draem.simulation.simulator import Simulator
from draem.training.memory import keep_freed_memory

SIZE = (256, 256)
STUDIO = Path(__file__).parent.parent / "configs" / "studio.yaml"
WARM_UP = 3


def seconds_a_batch(simulator: Simulator, batch_size: int, repeats: int) -> list[float]:
    """Time `repeats` batches, each of other keys."""
    device, indices = simulator.device, torch.arange(batch_size)
    images = uniform(sample_keys(0, 0, indices).to(device), 100, (3, *SIZE))
    times = []
    for step in range(WARM_UP + repeats):
        keys = sample_keys(0, step, indices)
        start = time.perf_counter()
        simulator(images, keys)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return times[WARM_UP:]


def measure(device: str, batch_size: int, clean_share: float, repeats: int) -> dict[str, object]:
    """One row of the results."""
    simulator = Simulator(SimulationConfig(clean_share=clean_share), SIZE, device)
    times = seconds_a_batch(simulator, batch_size, repeats)
    median = statistics.median(times) / batch_size
    return {
        "device": device,
        "batch_size": batch_size,
        "clean_share": clean_share,
        "repeats": repeats,
        "ms_per_image": round(median * 1e3, 3),
        "ms_per_image_fastest": round(min(times) / batch_size * 1e3, 3),
        "images_per_second": round(1.0 / median, 1),
    }


def components(folder: Path) -> Iterator[tuple[str, SimulationConfig]]:
    """A configuration for each kind of mask, each kind of source, and the default mixture; every sample anomalous."""
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        write_image(folder / "textures" / f"{number}.png", pixels)
        write_image(folder / "crops" / f"{number}.png", pixels[:40, :60])
        write_image(folder / "crops" / f"{number}_mask.png", np.full((40, 60, 3), 255, np.uint8))
    folders = {"textures": folder / "textures", "crops": folder / "crops"}
    no_mask, no_source = (dict.fromkeys(get_args(kinds), 0.0) for kinds in (MaskKind, SourceKind))
    mixtures = [(f"mask {kind}", {kind: 1.0}, {"flat": 1.0}) for kind in no_mask]
    mixtures += [(f"source {kind}", {"rectangle": 1.0}, {kind: 1.0}) for kind in no_source]
    for name, masks, sources in mixtures:
        weights = {"masks": no_mask | masks, "sources": no_source | sources}
        yield name, SimulationConfig.model_validate({"clean_share": 0.0, **folders, **weights})
    blended = {"masks": no_mask | {"rectangle": 1.0}, "sources": no_source | {"patch": 1.0}, "gradient_share": 1.0}
    yield "patch, blended", SimulationConfig.model_validate({"clean_share": 0.0, **blended})
    yield "default, none clean", SimulationConfig(clean_share=0.0)
    yield "studio, none clean", Config.resolve("fast", STUDIO).simulation.model_copy(update={"clean_share": 0.0})


def measure_components(repeats: int) -> list[dict[str, object]]:
    """Milliseconds an image of each component on the CPU."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, config in components(Path(folder)):
            times = seconds_a_batch(Simulator(config, SIZE, "cpu"), 8, repeats)
            ms, fastest = (round(seconds / 8 * 1e3, 3) for seconds in (statistics.median(times), min(times)))
            rows.append({"component": name, "ms_per_image": ms, "ms_per_image_fastest": fastest})
            print(f"{name:18}  {ms:8}  {fastest:9}")
    return rows


def main() -> None:
    """Measure, print a table, write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the trainer does
    default = SimulationConfig().clean_share
    cases = [("cpu", batch_size, share) for share in (0.0, default) for batch_size in (8, 32)]
    if torch.cuda.is_available():
        cases += [("cuda", 256, share) for share in (0.0, default)]
    print("device  batch  clean share  ms/image  (fastest)  images/s")
    rows = []
    for device, batch_size, share in cases:
        row = measure(device, batch_size, share, options.repeats)
        rows.append(row)
        print(
            f"{device:6}  {batch_size:5}  {share:11}  {row['ms_per_image']:8}  {row['ms_per_image_fastest']:9}"
            f"  {row['images_per_second']:8}"
        )
    print("component           ms/image  (fastest)")
    parts = measure_components(options.repeats)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(
        write_result(
            "simulator", {"size": SIZE, "threads": 1, "gpu": gpu, "results": rows, "components": parts}, options.out
        )
    )


if __name__ == "__main__":
    main()
