"""The measuring process, `python -m draem.deployment.benchmark.measure`: one way to run one model file.

A process of its own, so that load time and memory are of one runtime alone, and a crash ends nothing else. The job
comes as a line of JSON on stdin, which stays open: when it closes, whoever asked is gone, and so goes this process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from draem.deployment.benchmark.job import Accuracy, Figures, Job
from draem.errors import DraemError


def measure(job: Job) -> Figures:
    """Load the model and measure it.

    Raises:
        DraemError: it cannot be loaded or run here, or no image can be read.
    """
    started = time.perf_counter()
    # Inside, as this is part of what is measured.
    from draem.inspection.detector import Detector
    from draem.inspection.execution import Execution

    execution = Execution(**job.execution)
    detector = Detector.load(job.model, **vars(execution))
    load_seconds = time.perf_counter() - started

    from draem.deployment.benchmark.figures import figures_of

    return figures_of(detector, execution, job, load_seconds)


def main() -> None:
    """Read the job, measure, write the answer to the file that it names: figures, or why there are none."""
    message = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_the_other_side, daemon=True).start()
    accuracy = message["job"].pop("accuracy")
    try:
        figures = measure(Job(**message["job"], accuracy=Accuracy(**accuracy) if accuracy else None))
        answer: dict[str, Any] = {"figures": asdict(figures)}
    except DraemError as error:
        answer = {"reason": str(error)}
    Path(message["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def _leave_with_the_other_side() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when Python ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
