"""draem: from a folder of good images to a deployed defect detector.

    detector = draem.train("parts/good", out="runs/bottle", preset="fast")
    detector = draem.load("runs/bottle/model.safetensors")
    result = detector.predict("part.png")
    scores = draem.evaluate(detector, "mvtec/bottle")

Names are loaded when they are first used, so that importing the package is quick and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from draem.config import Config
    from draem.deployment.export import export
    from draem.errors import DraemError
    from draem.evaluation.calibrate import Calibration, Rule, calibrate
    from draem.evaluation.categories import evaluate_all
    from draem.evaluation.compare import Comparison, compare
    from draem.evaluation.evaluate import Evaluation, evaluate
    from draem.evaluation.operating import Costs, Line
    from draem.evaluation.report.page import report
    from draem.inspection.detector import Detector
    from draem.inspection.execution import Execution
    from draem.inspection.prediction import Prediction
    from draem.inspection.scoring import Region
    from draem.verbs import distill, load, train, train_all

__version__ = "0.1.0"

_HOMES = {
    "Calibration": "draem.evaluation.calibrate",
    "Comparison": "draem.evaluation.compare",
    "Config": "draem.config",
    "Costs": "draem.evaluation.operating",
    "Detector": "draem.inspection.detector",
    "DraemError": "draem.errors",
    "Evaluation": "draem.evaluation.evaluate",
    "Execution": "draem.inspection.execution",
    "Line": "draem.evaluation.operating",
    "Prediction": "draem.inspection.prediction",
    "Region": "draem.inspection.scoring",
    "Rule": "draem.evaluation.calibrate",
    "calibrate": "draem.evaluation.calibrate",
    "compare": "draem.evaluation.compare",
    "distill": "draem.verbs",
    "evaluate": "draem.evaluation.evaluate",
    "evaluate_all": "draem.evaluation.categories",
    "export": "draem.deployment.export",
    "load": "draem.verbs",
    "report": "draem.evaluation.report.page",
    "train": "draem.verbs",
    "train_all": "draem.verbs",
}

__all__ = [
    "Calibration",
    "Comparison",
    "Config",
    "Costs",
    "Detector",
    "DraemError",
    "Evaluation",
    "Execution",
    "Line",
    "Prediction",
    "Region",
    "Rule",
    "__version__",
    "calibrate",
    "compare",
    "distill",
    "evaluate",
    "evaluate_all",
    "export",
    "load",
    "report",
    "train",
    "train_all",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'draem' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
