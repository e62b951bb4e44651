"""How long the package takes to start, beside Python alone and beside torch: medians of whole processes.

python benchmarks/startup.py [--repeats 11] [--model edge.onnx --model edge.xml]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import write_result

SIDES = {
    "python": [sys.executable, "-c", "pass"],
    "import draem": [sys.executable, "-c", "import draem"],
    "draem --help": [sys.executable, "-m", "draem", "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def load_command(model: Path) -> list[str]:
    """A process that loads a model, and is ready to inspect."""
    return [sys.executable, "-c", f"import draem; draem.load({str(model)!r})"]


def seconds_of(command: list[str], repeats: int) -> float:
    """Median wall time of a process."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def loads_torch(command: list[str]) -> bool:
    """Whether the process imports torch."""
    options = [command[0], "-X", "importtime", *command[1:]]
    done = subprocess.run(options, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in done.stderr.splitlines())


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--model", type=Path, action="append", default=[], help="to import draem and load it")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    sides = SIDES | {f"load {path.name}": load_command(path) for path in options.model}
    for command in sides.values():
        seconds_of(command, 1)  # fills the file cache, and the choice of the backend
    seconds = {name: round(seconds_of(command, options.repeats), 3) for name, command in sides.items()}
    torch_loaded = {name: loads_torch(command) for name, command in sides.items()}
    for name, median in seconds.items():
        print(f"{name:14} {median:7.3f} s  {'loads torch' if torch_loaded[name] else 'without torch'}")
    print(write_result("startup", {"median_seconds": seconds, "loads_torch": torch_loaded}, options.out))


if __name__ == "__main__":
    main()
