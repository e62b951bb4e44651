"""What a measuring process is asked and what it answers; imports next to nothing, as imports are what it measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Accuracy:
    """What to evaluate on: a data set, and how many of its test images."""

    data: str
    layout: Any
    category: str | None
    images: int


@dataclass(frozen=True)
class Job:
    """One way to run one model file.

    Attributes:
        model: the model file.
        execution: arguments of `draem.inspection.execution.Execution`.
        images: files to time with.
        runs: how many times are taken of each kind.
        exactly: take so many, however long they take; otherwise a few seconds are enough.
        throughput: measure that too.
        accuracy: what to evaluate on; none: nothing.
    """

    model: str
    execution: dict[str, Any]
    images: list[str]
    runs: int
    exactly: bool = False
    throughput: bool = True
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Rate:
    """Images a second, with so many in one run of the network and so many runs at the same time."""

    images_per_second: float
    batch: int
    streams: int


@dataclass(frozen=True)
class Figures:
    """What one process measured.

    Attributes:
        execution: what ran, in the backend's words.
        load_seconds: from a Python with nothing imported to a detector that is ready.
        decision: milliseconds from an image file to its verdict, each image on its own.
        network: milliseconds of the network alone on one image that is ready.
        memory: the most bytes of RAM that the process held for these two; none where the system does not tell.
        rates: of the network alone.
        files: from image files to verdicts, by `Detector.stream`, as was best for the network alone.
        metrics: as `draem.evaluate` gives them, on `evaluated` images.
    """

    execution: str
    load_seconds: float
    decision: list[float]
    network: list[float]
    memory: int | None
    rates: list[Rate] = field(default_factory=list)
    files: Rate | None = None
    metrics: dict[str, float | None] | None = None
    evaluated: int = 0

    @classmethod
    def of(cls, values: dict[str, Any]) -> Figures:
        """From what `dataclasses.asdict` made of them."""
        rates = [Rate(**one) for one in values["rates"]]
        files = Rate(**values["files"]) if values["files"] else None
        return cls(**{**values, "rates": rates, "files": files})
