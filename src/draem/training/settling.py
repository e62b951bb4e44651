"""Whether validation has settled: the best figure has not risen by what counts for some time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

GAIN = 0.005
"""Of pixel AP; less is within what one validation differs from the next."""
LEAST_STEPS = 400
"""What validations give before does not count: a network so young hardly finds anything yet, and its figure wanders."""


@dataclass
class Settling:
    """What validations have given so far; part of a run's checkpoint.

    best: the highest figure that counted as a gain. without_gain: validations since.
    """

    best: float | None = None
    without_gain: int = 0

    def add(self, figure: float | None) -> None:
        """Count one validation; without a figure (no defect was simulated) it says nothing."""
        if figure is None:
            return
        if self.best is None or figure >= self.best + GAIN:
            self.best, self.without_gain = figure, 0
        else:
            self.without_gain += 1

    def record(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self)

    @staticmethod
    def of(record: Mapping[str, Any]) -> Settling:
        """From a checkpoint; one of an older version has none.

        Raises:
            TypeError, ValueError: it is damaged.
        """
        best = record.get("best")
        return Settling(None if best is None else float(best), int(record.get("without_gain", 0)))
