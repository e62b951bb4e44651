"""What a benchmark found: a row of figures for every way to run the model, and the machine that they hold for."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from draem.deployment.benchmark.job import Figures, Rate
from draem.deployment.benchmark.stopwatch import Latency
from draem.deployment.benchmark.ways import Way, size_of
from draem.files import atomic_write
from draem.inspection.processor import processor_name, usable_cores
from draem.modelfile import read_header

_PACKAGES = ("draem", "numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch")


@dataclass(frozen=True)
class Row:
    """One way to run the model, and what was measured.

    Attributes:
        way: which one.
        reason: why nothing was measured; empty: it was.
        forced: whether the file's answers are further from the model's than its export's tolerance.
        file: name of the file that is run.
        bytes: its size, of a pair that of both.
        execution: what ran it, in the backend's words.
        load_seconds: from a Python with nothing imported to a detector that is ready; median.
        decision: latency from an image file to its verdict, batch 1.
        network: latency of the network alone, batch 1.
        memory: the most bytes of RAM that the process held at batch 1, everything in it counted; median.
        rates: throughput of the network alone, by batch and streams.
        files: throughput from image files to verdicts, at the batch and streams that were best for the network.
        metrics: on `evaluated` images; none where there are no labels.
    """

    way: Way
    reason: str = ""
    forced: bool = False
    file: str = ""
    bytes: int | None = None
    execution: str = ""
    load_seconds: float | None = None
    decision: Latency | None = None
    network: Latency | None = None
    memory: int | None = None
    rates: list[Rate] = field(default_factory=list)
    files: Rate | None = None
    metrics: dict[str, float | None] | None = None
    evaluated: int = 0

    @classmethod
    def of(cls, way: Way, path: Path, measured: Sequence[Figures]) -> Row:
        """The row of a way that was measured in some processes; throughput and accuracy are of the first."""
        first = measured[0]
        artefact = read_header(path).artefact
        known = [one.memory for one in measured if one.memory is not None]
        return cls(
            way,
            forced=artefact is not None and artefact.certificate is not None and artefact.certificate.forced,
            file=path.name,
            bytes=size_of(path),
            execution=first.execution,
            load_seconds=median(one.load_seconds for one in measured),
            decision=Latency.of([time for one in measured for time in one.decision]),
            network=Latency.of([time for one in measured for time in one.network]),
            memory=round(median(known)) if known else None,
            rates=first.rates,
            files=first.files,
            metrics=first.metrics,
            evaluated=first.evaluated,
        )

    @property
    def best(self) -> Rate | None:
        """The highest throughput of the network alone."""
        return max(self.rates, key=lambda one: one.images_per_second, default=None)

    def metric(self, name: str) -> float | None:
        """A metric by its key; none where it is not known."""
        return (self.metrics or {}).get(name)

    def to_dict(self) -> dict[str, Any]:
        """The row, ready for JSON."""
        values = asdict(self)
        del values["way"]
        named = {"name": self.way.name, "backend": self.way.backend, "precision": self.way.precision}
        return named | values | {"best": asdict(self.best) if self.best else None}


@dataclass(frozen=True)
class Benchmark:
    """Every way to run a model, measured on one machine.

    Attributes:
        model: the file that was given.
        measured_on: in words, which images.
        machine: see `machine`.
        rows: in the order of `ways_to_run`.
    """

    model: str
    measured_on: str
    machine: dict[str, Any]
    rows: list[Row]

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON; times in milliseconds where they are not named seconds."""
        return {
            "model": self.model,
            "measured_on": self.measured_on,
            "machine": self.machine,
            "rows": [row.to_dict() for row in self.rows],
        }

    def save(self, out: Path) -> Path:
        """Write benchmark.json into a folder."""
        path = out / "benchmark.json"
        atomic_write(path, json.dumps(self.to_dict(), indent=1, allow_nan=False).encode())
        return path


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


def machine_in_words(found: dict[str, Any]) -> str:
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
