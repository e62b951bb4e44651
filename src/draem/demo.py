"""The whole way on rendered parts: render, train the smallest preset, calibrate, evaluate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from draem import verbs
from draem.data.demo import SURFACES, render_demo
from draem.evaluation.evaluate import Evaluation, evaluate
from draem.evaluation.metrics import Metrics, mean_metrics

SETTINGS: dict[str, Any] = {"training.validations": 2}
IMAGES = {"woven": 1600, "brushed_metal": 2400, "printed": 3600}
"""Budget in images for each surface: print needs most, since what is normal there is not one texture."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found: one evaluation a surface, their mean, and where to look."""

    evaluations: list[Evaluation]
    mean: Metrics
    pictures: list[Path]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        surfaces = {next(iter(result.by_category)): result.to_dict() for result in self.evaluations}
        return {"mean": self.mean.to_dict(), "surfaces": surfaces, "pictures": [str(path) for path in self.pictures]}


def run_demo(out: Path, seed: int, message: Callable[[str], None]) -> DemoResult:
    """Render each surface, train a detector on its good images, and evaluate it on its test images.

    Done before in `out`, it goes on where it stopped.
    """
    runs = {surface: out / "runs" / surface for surface in SURFACES}
    settings = {name: {**SETTINGS, "training.images": IMAGES[name], "training.seed": seed} for name in SURFACES}
    for surface, run in runs.items():  # before its images are written over, is it the same demo?
        verbs.resolve_config(run, "edge", None, settings[surface], resume=run.exists())
    message(f"rendering {', '.join(SURFACES)} into {out / 'data'}")
    roots = render_demo(out / "data", seed=seed)
    evaluations, pictures = [], []
    for root in roots:
        run = runs[root.name]
        detector = verbs.train(root, run, "edge", settings=settings[root.name], resume=run.exists())
        evaluation = evaluate(detector, root)
        evaluation.save(run / "evaluation")
        evaluations.append(evaluation)
        pictures.append(run / "evaluation" / "sheet.png")
    mean = mean_metrics([result.metrics for result in evaluations])
    return DemoResult(evaluations, mean, pictures)
