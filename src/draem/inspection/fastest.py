"""The fastest of several backends: measured once on this machine, then remembered.

What is remembered lies in the user's cache folder, under a key of all that the times depend on. A cache that cannot be
read or written is as good as none: it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from draem.errors import DraemError
from draem.files import atomic_write
from draem.inspection.execution import Backend, Execution
from draem.inspection.processor import processor_name, usable_cores
from draem.modelfile import Header
from draem.pixels import Images

_SECONDS = 0.1
"""How long each backend is measured, at least."""
_RUNS = 2
"""How many runs of it, at least."""
_REMEMBERED = 200


def open_fastest(openers: Mapping[str, Callable[[], Backend]], header: Header, execution: Execution) -> Backend:
    """Open the backend that runs one image of the model's size soonest; of a single one, nothing is measured.

    Args:
        openers: by name; one that raises is none of the candidates.
        header: of the model.
        execution: what all of them are opened with.

    Raises:
        DraemError: none can be opened; of the first.
    """
    if len(openers) == 1:
        return next(iter(openers.values()))()
    key = _key(openers, header, execution)
    remembered = _read().get(key)
    if isinstance(remembered, str) and remembered in openers:
        with suppress(DraemError):
            return openers[remembered]()
    opened, refused = _opened(openers.values())
    if not opened:
        raise refused[0]
    if len(opened) == 1:
        return opened[0]
    images = np.random.default_rng(0).random((1, header.channels, *header.config.data.size), np.float32)
    times = [_seconds(backend, images) for backend in opened]
    best = opened[times.index(min(times))]
    if math.isinf(min(times)):
        return best  # none runs it: what it says to the first image is said then
    _remember(key, best.name)
    return best


def cache_file() -> Path:
    """Where the choices are remembered, by the customs of the system."""
    home = Path.home()
    places = {
        "win32": os.environ.get("LOCALAPPDATA") or str(home / "AppData" / "Local"),
        "darwin": str(home / "Library" / "Caches"),
    }
    usual = os.environ.get("XDG_CACHE_HOME") or str(home / ".cache")
    return Path(places.get(sys.platform, usual)) / "draem" / "backends.json"


def _opened(openers: Iterable[Callable[[], Backend]]) -> tuple[list[Backend], list[DraemError]]:
    opened: list[Backend] = []
    refused: list[DraemError] = []
    for opener in openers:
        try:
            opened.append(opener())
        except DraemError as error:
            refused.append(error)
    return opened, refused


def _seconds(backend: Backend, images: Images) -> float:
    """The shortest of some runs, after one that is not counted: what else the machine does only ever adds to it.

    Of one that fails at it, without end: another may do.
    """
    times: list[float] = []
    try:
        backend.run(images)
        while len(times) < _RUNS or sum(times) < _SECONDS:
            started = time.perf_counter()
            backend.run(images)
            times.append(time.perf_counter() - started)
    except Exception:  # the runtimes' errors share no base but this
        return math.inf
    return min(times)


def _key(names: Iterable[str], header: Header, execution: Execution) -> str:
    """Of all that decides which backend is the fastest."""
    facts = {
        "weights": header.sha256,
        "runtimes": {name: _version(name) for name in sorted(names)},
        "processor": processor_name(),
        "cores": usable_cores(),
        "execution": vars(execution),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # ONNX Runtime comes in packages of several names
        return ""


def _read() -> dict[str, object]:
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, RuntimeError):  # RuntimeError: there is no home
        return {}
    return found if isinstance(found, dict) else {}


def _remember(key: str, name: str) -> None:
    known = _read()
    known.pop(key, None)
    latest = [*known.items(), (key, name)][-_REMEMBERED:]
    with suppress(DraemError, OSError, RuntimeError):
        atomic_write(cache_file(), (json.dumps(dict(latest), indent=1) + "\n").encode())
