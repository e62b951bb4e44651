"""The picture sheet of an evaluation: the first images of each kind, with their truth and what was found."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.samples import Sample
from draem.images import fit_image
from draem.inspection.prediction import Prediction
from draem.pictures import heat_map, overlay, scaled, sheet

PICTURED_EACH = 4
"""Images of each defect type on the sheet."""
_CELL = (192, 192)


class SheetRows:
    """Collects the first images of each kind."""

    _TITLES = ("image", "truth", "reconstruction", "anomaly map", "map, truth outlined")

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[tuple[list[NDArray[Any]], str]]] = {}

    def add(self, sample: Sample, prediction: Prediction, mask: NDArray[np.bool_] | None, config: DataConfig) -> None:
        """Take an image, what was predicted of it, and its mask at the map's size where that is known."""
        rows = self._rows.setdefault((sample.category, sample.defect), [])
        if len(rows) >= PICTURED_EACH:
            return
        found = prediction.input_map
        image = fit_image(prediction.image, *config.frame((found.shape[0], found.shape[1])), config.interpolation)
        truth = mask if mask is not None else _unknown(found.shape, known=sample.label == "good")
        pictures = image, truth, prediction.reconstruction, heat_map(found), overlay(image, found, mask)
        row = [scaled(picture, _CELL) for picture in pictures]
        said = f" · {prediction.verdict}" if prediction.verdict else ""
        rows.append((row, f"{sample.name} · score {prediction.score:.4f}{said}".replace("·", "|")))

    def picture(self) -> NDArray[np.uint8] | None:
        """All of them, a row each; none without any."""
        if not self._rows:
            return None
        rows = [entry for key in sorted(self._rows) for entry in self._rows[key]]
        return sheet([row for row, _ in rows], self._TITLES, [caption for _, caption in rows], cell=_CELL)


def _unknown(size: tuple[int, ...], *, known: bool) -> NDArray[np.uint8]:
    """Black where a good image has no anomaly, grey where the truth is not known."""
    return np.full(size, 0 if known else 128, np.uint8)
