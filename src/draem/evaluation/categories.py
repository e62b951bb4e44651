"""A folder of runs, one for each category of a data set: each category is scored by its own model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from draem.config import AnyLayout
from draem.data.layouts import ALL, read_layout
from draem.errors import DataError
from draem.evaluation.evaluate import Evaluation, evaluate_dataset, samples_to_test
from draem.evaluation.metrics import Metrics, mean_metrics
from draem.evaluation.operating import Line
from draem.files import atomic_write
from draem.inspection.detector import Detector
from draem.inspection.execution import Execution

MODEL = "model.safetensors"


@dataclass(frozen=True)
class CategoryEvaluations:
    """One evaluation for each category, by its name."""

    evaluations: dict[str, Evaluation]

    @property
    def mean(self) -> Metrics:
        """Each metric's average over the categories where it is known, as the literature gives it."""
        return mean_metrics(evaluation.metrics for evaluation in self.evaluations.values())

    def to_dict(self) -> dict[str, Any]:
        """The mean and each category's metrics, ready for JSON."""
        by_category = {name: evaluation.metrics.to_dict() for name, evaluation in self.evaluations.items()}
        return {"mean": self.mean.to_dict(), "by_category": by_category}

    def save(self, out: str | Path) -> None:
        """Write metrics.json with the mean into a folder, and each category's figures and pictures into one below."""
        for name, evaluation in self.evaluations.items():
            evaluation.save(Path(out) / name)
        atomic_write(Path(out) / "metrics.json", json.dumps(self.to_dict(), indent=1, allow_nan=False).encode())


def evaluate_all(
    run: str | Path,
    data: str | Path,
    *,
    layout: AnyLayout = "auto",
    category: str = ALL,
    execution: Execution = Execution(),  # noqa: B008 (frozen)
    line: Line | None = None,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CategoryEvaluations:
    """Score the models of a run with one for each category, as `draem.train_all` makes them: RUN/<category>.

    Args:
        run: the folder of the runs.
        data: a data set whose layout is understood.
        layout: how the data set lies in its folders; found by itself unless told.
        category: one category, or all that the data set has.
        execution: how the models are run.
        line: where such parts are made, the same for each category.
        batch_size: images in one run of a network.
        progress: called with the images done and their number.

    Raises:
        DataError: a category has no model, no test images, or none of them can be read.
    """
    dataset = read_layout(Path(data), layout, category)
    models = {name: Path(run) / name / MODEL for name in dataset.categories}
    if missing := [name for name, model in models.items() if not model.is_file()]:
        there = ", ".join(sorted(path.parent.name for path in Path(run).glob(f"*/{MODEL}"))[:8]) or "none"
        raise DataError(
            f"{run}: no model of {missing[0]} ({MODEL} in a folder of that name; there are {there}): train it, or "
            "choose with --category"
        )
    parts = {name: dataset.of(name) for name in models}
    total = sum(len(samples_to_test(part)) for part in parts.values())
    done, evaluations = 0, {}
    for name, model in models.items():
        before, detector = done, Detector.open(model, execution)
        move = lambda now, _, before=before: progress(before + now, total)  # noqa: E731
        found = evaluate_dataset(detector, parts[name], batch_size=batch_size, progress=move)
        evaluations[name] = replace(found, line=line)
        done += len(samples_to_test(parts[name]))
    return CategoryEvaluations(evaluations)
