"""Measures every way to run a model, in turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from draem.config import AnyLayout
from draem.deployment.benchmark.job import Accuracy, Figures, Job
from draem.deployment.benchmark.material import Material, of_dataset, rendered
from draem.deployment.benchmark.process import measure_apart
from draem.deployment.benchmark.result import Benchmark, Row, machine
from draem.deployment.benchmark.ways import Way, chosen, exported, ways_to_run
from draem.errors import DraemError
from draem.inspection.execution import Device, Execution
from draem.modelfile import Header, read_header

_ROUNDS = 3
"""Each way is measured so often, in a new process after all the others: a machine's moods hit all of them alike."""
_RUNS = 99


def benchmark(
    model: Path,
    data: Path | None = None,
    *,
    out: Path | None = None,
    only: str = "",
    images: int = 100,
    repeats: int | None = None,
    threads: int | None = None,
    device: Device = "auto",
    layout: AnyLayout = "auto",
    category: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    measure: Callable[[Job], Figures] = measure_apart,
) -> Benchmark:
    """Measure every way to run a model: size, load time, latency, throughput, memory, accuracy.

    Args:
        model: a trained model, of which exports are made, or an exported one.
        data: a data set to time with and, where it has labels, to evaluate on; none: rendered images, only to time.
        out: folder for the exports; those of this model that lie there are taken as they are. None: they are not kept.
        only: which ways, such as `openvino:int8,torch`; empty: all.
        images: the most test images to evaluate on; of each category and defect type some.
        repeats: times of each kind; none: up to 99, fewer where they take long.
        threads: of the CPU; none: all cores.
        device: as in `Execution`.
        layout: how the data set lies in its folders.
        category: which of several categories; `all` for all of them.
        progress: called with the steps done and their number.
        measure: what measures one way.

    Raises:
        DraemError: the model or the data cannot be read, or no way works; what goes wrong in one is its reason.
    """
    header = read_header(model)
    ways = chosen(ways_to_run(model, header), only)
    execution = Execution(device=device, threads=threads)
    found, rounds = machine(threads), _rounds(repeats)
    steps, total = count(), len(ways) * (1 + len(rounds))
    with TemporaryDirectory(prefix="draem-benchmark-") as folder:
        if data:
            material = of_dataset(data, layout, category, images)
        else:
            material = rendered(header.config.data, Path(folder) / "images")
        entries = []
        for way in ways:
            progress(next(steps), total)
            entries.append(_entry(way, model, header, out or Path(folder), material))
        for runs in rounds:
            job = Job("", {}, material.files, runs, exactly=repeats is not None)
            for entry in entries:
                progress(next(steps), total)
                entry.take(measure, job, execution, material.accuracy)
        if all(entry.reason for entry in entries):
            raise DraemError(f"{model}: cannot be run in any of these ways; {entries[0].way.name}: {entries[0].reason}")
        rows = [entry.row() for entry in entries]
    progress(total, total)
    return Benchmark(str(model), material.words, found, rows)


@dataclass
class _Entry:
    """A way to run the model, while it is measured."""

    way: Way
    path: Path
    reason: str = ""
    measured: list[Figures] = field(default_factory=list)

    def take(
        self, measure: Callable[[Job], Figures], job: Job, execution: Execution, accuracy: Accuracy | None
    ) -> None:
        """Measure once more, unless that failed before; throughput and accuracy only the first time."""
        if self.reason:
            return
        chosen = replace(execution, backend=self.way.backend, precision=self.way.arithmetic)
        job = replace(job, model=str(self.path), execution=vars(chosen))
        job = replace(job, throughput=False) if self.measured else replace(job, accuracy=accuracy)
        try:
            self.measured.append(measure(job))
        except DraemError as error:
            self.reason = str(error)

    def row(self) -> Row:
        """What was found, or why nothing was."""
        return Row(self.way, self.reason) if self.reason else Row.of(self.way, self.path, self.measured)


def _entry(way: Way, model: Path, header: Header, folder: Path, material: Material) -> _Entry:
    if way.artefact is None:
        return _Entry(way, model)
    try:
        return _Entry(way, exported(model, header, *way.artefact, folder, material))
    except DraemError as error:
        return _Entry(way, model, str(error))


def _rounds(repeats: int | None) -> list[int]:
    """How many runs each round takes."""
    total = _RUNS if repeats is None else repeats
    rounds = min(_ROUNDS, total)
    return [len(range(start, total, rounds)) for start in range(rounds)]
