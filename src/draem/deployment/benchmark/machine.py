"""What a figure of speed holds for: the machine, how busy it was, and the versions that ran."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from draem.inspection.processor import processor_name, usable_cores

_PACKAGES = ("draem", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch")


def machine(threads: int | None = None) -> dict[str, Any]:
    """Processor, cores, threads asked for, load average (processes that wanted to run, of the last minute), versions.

    Take it before the work, which is a load itself.
    """
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def in_words(found: dict[str, Any]) -> str:
    """One line for below a table; says so where others were at work too."""
    threads = f"threads: {found['threads']}" if found["threads"] else "all of them used"
    words = f"{found['processor']}, {found['cores']} cores, {threads}"
    load = found["load_average"]
    if load is None:
        return words
    busy = load > 0.25 * found["cores"]
    return f"{words}, load average before {load:g}{': a busy machine, figures are too slow' if busy else ''}"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
