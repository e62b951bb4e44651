"""What every benchmark keeps beside its figures: machine, versions, commit; and where it keeps them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from draem.files import atomic_write

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("draem", "numpy", "opencv-python-headless", "torch")


def write_result(name: str, results: Mapping[str, Any], out: Path | None = None) -> Path:
    """Write benchmarks/results/NAME.json, or to `out`."""
    record = {"benchmark": name, "machine": machine(), "versions": versions(), "commit": commit(), **results}
    path = out or RESULTS / f"{name}.json"
    atomic_write(path, (json.dumps(record, indent=1) + "\n").encode())
    return path


def commit() -> str:
    """The checkout's commit, with a + where files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def machine() -> dict[str, Any]:
    """Processor, cores and system."""
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()}


def versions() -> dict[str, str]:
    """Python and the packages that decide the figures."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
