"""Measures a detector: latency, memory, throughput, accuracy."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from draem.data.layouts import read_layout
from draem.data.samples import stratified
from draem.deployment.benchmark.job import Accuracy, Figures, Job, Rate
from draem.deployment.benchmark.stopwatch import peak_memory, rate, timed
from draem.errors import ConfigError, DataError, DraemError, ImageError, MemoryLimitError
from draem.evaluation.evaluate import evaluate_dataset, samples_to_test
from draem.images import read_pixels
from draem.inspection.backends import Backend
from draem.inspection.detector import Detector
from draem.inspection.execution import Execution
from draem.pixels import Images

BATCHES = (1, 2, 4, 8)
"""Images in one run of the network that throughput is tried with."""
_WARM_UP = 3
_PREPARED = 2
"""Images that the network alone is run on; what is on them makes no difference to its speed."""
_STREAMED = 100
_SECONDS, _LEAST = 2.0, 3
"""Where the number of runs is not exact: so long for the times of one kind, but at least so many."""


def figures_of(detector: Detector, execution: Execution, job: Job, load_seconds: float) -> Figures:
    """Measure a detector that was just loaded, with nothing else in the process.

    Raises:
        DraemError: it cannot be run as asked, or no image can be read.
    """
    _refuse_another(detector.backend, execution)
    images = _readable(job.images, detector)
    ready = [_prepared(path, detector) for path in images[:_PREPARED]]
    decision, network = _latencies(job, detector, images, ready[0])
    memory = peak_memory()
    rates: list[Rate] = []
    files = None
    if job.throughput:
        runners = [detector, *_streamed(job.model, execution)]
        rates = [one for runner in runners for one in _rates(runner, ready)]
        best = max(rates, key=lambda one: one.images_per_second)
        runner = next(runner for runner in runners if runner.backend.in_flight == best.streams)
        files = _rate_of_files(runner, images, best)
    metrics, evaluated = (None, 0) if job.accuracy is None else _metrics(detector, job.accuracy)
    return Figures(
        detector.backend.execution, load_seconds, decision, network, memory, rates, files, metrics, evaluated
    )


def _refuse_another(backend: Backend, execution: Execution) -> None:
    """What runs in another precision than asked for would be measured under a wrong name."""
    if execution.precision != "fp32" and execution.precision not in backend.execution:
        raise ConfigError(f"{execution.precision} was asked for, but this is {backend.execution}")


def _readable(paths: list[str], detector: Detector) -> list[Path]:
    found, problems = [], []
    for path in map(Path, paths):
        try:
            read_pixels(path, detector.header.config.data.pixel_format)
            found.append(path)
        except ImageError as error:
            problems.append(str(error))
    if not found:
        raise DataError(f"none of {len(paths)} images to measure with can be read; first: {problems[0]}")
    return found


class _Recorder:
    """A backend that keeps what it is given to run."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.execution, self.in_flight = backend.name, backend.execution, backend.in_flight
        self.batches: list[Images] = []
        self._backend = backend

    def run(self, images: Images) -> tuple[Images, Images]:
        self.batches.append(images)
        return self._backend.run(images)


def _prepared(path: Path, detector: Detector) -> list[Images]:
    """What the detector has the network run on for one image; several batches where it has many tiles."""
    recorder = _Recorder(detector.backend)
    Detector(recorder, detector.header).predict(path)
    return recorder.batches


def _latencies(
    job: Job, detector: Detector, images: list[Path], ready: list[Images]
) -> tuple[list[float], list[float]]:
    """Times from file to decision, over the images in turn, and times of the network alone on one of them."""
    paths = cycle(images)

    def decide() -> None:
        detector.predict(next(paths))

    def run() -> None:
        for batch in ready:
            detector.backend.run(batch)

    limits: dict[str, Any] = {} if job.exactly else {"seconds": _SECONDS, "least": _LEAST}
    found = []
    for action in (decide, run):
        timed(action, _WARM_UP, **limits)
        found.append(timed(action, job.runs, **limits))
    return found[0], found[1]


def _rates(detector: Detector, ready: list[list[Images]]) -> list[Rate]:
    """The network's throughput for every size of batch that it takes and that fits into memory."""
    inputs = np.concatenate([batch for batches in ready for batch in batches])
    each = len(inputs) / len(ready)
    artefact, backend = detector.header.artefact, detector.backend
    found: list[Rate] = []
    for size in (artefact.batch,) if artefact and artefact.batch else BATCHES:
        batch = np.ascontiguousarray(np.take(inputs, range(size), axis=0, mode="wrap"))
        try:
            speed = rate(lambda batch=batch: backend.run(batch), size / each, backend.in_flight)  # type: ignore[misc]
        except MemoryLimitError:
            if not found:
                raise
            break
        found.append(Rate(speed, size, backend.in_flight))
    return found


def _streamed(model: str, execution: Execution) -> list[Detector]:
    """The same model run on several images at the same time, by a backend that can."""
    streams = execution.threads or os.cpu_count() or 1
    if streams == 1:
        return []
    try:
        detector = Detector.load(model, **vars(replace(execution, streams=streams)))
    except DraemError:
        return []
    return [detector] if detector.backend.in_flight > 1 else []


def _rate_of_files(detector: Detector, images: list[Path], best: Rate) -> Rate:
    count = max(best.batch * best.streams, min(int(best.images_per_second / 2), _STREAMED))

    def inspect() -> None:
        deque(detector.stream(list(islice(cycle(images), count)), best.batch), maxlen=0)

    return replace(best, images_per_second=rate(inspect, count))


def _metrics(detector: Detector, wanted: Accuracy) -> tuple[dict[str, float | None], int]:
    dataset = read_layout(Path(wanted.data), wanted.layout, wanted.category)
    chosen = stratified(samples_to_test(dataset), wanted.images)
    evaluation = evaluate_dataset(detector, replace(dataset, samples=chosen))
    return evaluation.metrics.to_dict(), evaluation.count()
