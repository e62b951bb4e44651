"""A big image through tiles: seconds, tiles a second, peak memory of the process; for each backend that is installed.

    python benchmarks/tiles.py [--model MODEL …] [--side 4096] [--repeats 3] [--tile 256] [--overlap 64] [--threads N]

Without --model, an untrained `edge` network is measured in torch, and exported in fp32 in ONNX Runtime and OpenVINO;
it computes what a trained one does. Models given, such as an int8 export, must have been trained with data.fit=tiles,
or get it here, in a copy. Each runs in a process of its own, which loads the model, makes the image (random pixels),
looks at a small image to warm up and then at the big one, from pixels in memory to score, map and verdict. Memory is
the most that the process ever held, after loading and after all.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from record import write_result

MEGABYTE = 1024 if sys.platform.startswith("linux") else 2**20
"""Of what the system counts memory in."""


def make_models(folder: Path, tile: int, overlap: int) -> list[Path]:
    """An untrained `edge` model, and its exports."""
    import torch

    from draem.config import Config
    from draem.deployment.export import export_model
    from draem.modelfile import Header, Thresholds
    from draem.network.draem import Draem
    from draem.network.weights import save_model

    config = Config.resolve("edge", None, {"data.size": tile, "data.fit": "tiles", "data.overlap": overlap})
    torch.manual_seed(0)
    paths = [folder / f"edge.{kind}" for kind in ("safetensors", "onnx", "xml")]
    header = Header(config=config, thresholds=Thresholds(reject=0.5, chosen_on="nothing: a benchmark's"))
    save_model(paths[0], Draem(config.network).state_dict(), header)
    export_model(paths[0], paths[1])
    export_model(paths[0], paths[2], to="openvino")
    return paths


def in_tiles(model: Path, folder: Path, overlap: int) -> Path:
    """A copy of a model that looks at tiles."""
    from draem.modelfile import edit_header, read_header

    copy = folder / model.name
    for path in {model, model.with_suffix(".bin")}:
        if path.exists():
            shutil.copy(path, folder / path.name)
    header = read_header(copy)
    data = header.config.data.model_copy(update={"fit": "tiles", "overlap": overlap})
    edit_header(copy, header.model_copy(update={"config": header.config.model_copy(update={"data": data})}))
    return copy


def measure(model: Path, side: int, repeats: int, threads: int | None) -> dict[str, Any]:
    """In this process: seconds of each look at one image."""
    from draem.inspection.detector import Detector
    from draem.inspection.tiling import Tiling

    detector = Detector.load(model, "cpu", threads=threads)
    data = detector.header.config.data
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    detector.predict(image[:600, :600])
    loaded = peak()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        detector.predict(image)
        seconds.append(time.perf_counter() - start)
    tiles = len(Tiling.of((side, side), data.size, data.overlap, detector.header.config.tile_step).corners)
    return {
        "execution": detector.backend.execution,
        "tile": data.size,
        "overlap": data.overlap,
        "tiles": tiles,
        "seconds": [round(value, 3) for value in seconds],
        "tiles_per_second": round(tiles / statistics.median(seconds), 1),
        "peak_mb_loaded": loaded,
        "peak_mb": peak(),
    }


def peak() -> int:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MEGABYTE


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--alone", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(options.alone, options.side, options.repeats, options.threads)))
        return
    results = {}
    with TemporaryDirectory() as folder:
        place = Path(folder)
        models = [in_tiles(model, place, options.overlap) for model in options.model]
        for model in models or make_models(place, options.tile, options.overlap):
            given = [f"--side={options.side}", f"--repeats={options.repeats}"]
            given += [f"--threads={options.threads}"] if options.threads else []
            command = [sys.executable, __file__, "--alone", str(model), *given]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[model.name] = found = json.loads(told.splitlines()[-1])
            print(
                f"{model.name:18} {statistics.median(found['seconds']):7.2f} s  {found['tiles_per_second']:6.1f} "
                f"tiles/s  {found['peak_mb']} MB ({found['peak_mb_loaded']} before)  {found['execution']}"
            )
    print(write_result("tiles", {"side": options.side, "models": results}, options.out))


if __name__ == "__main__":
    main()
