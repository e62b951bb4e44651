"""Every kind of mask and every kind of source side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from draem.config import MaskWeights, SimulationConfig, SourceKind, SourceWeights
from draem.pictures import sheet
from draem.pixels import view
from draem.simulation.masks import MASKS
from draem.simulation.structural import STRUCTURAL
from draem.simulation.survey import Stage

_SAMPLES = 2
_LOOKED_THROUGH = 16
_TELLING = 0.1
"""Share of the image that a mask has where a sheet is to show what is inside it."""
_CELL = (144, 144)


def component_sheet(config: SimulationConfig, stage: Stage) -> NDArray[np.uint8]:
    """Set every kind of mask beside the others, filled with one texture, and below every kind of source in one mask.

    All are opaque and shown whatever their weights; folders of textures and crops only where they are given. H×W×3
    uint8 RGB.
    """
    opaque = config.model_copy(update={"beta": (0.0, 0.0), "structural_beta": (0.0, 0.0)})
    samples = _telling(opaque, stage)
    masks = {kind: _only(opaque, "procedural", kind) for kind in MASKS}
    sources = {kind: _only(opaque, kind) for kind in _shown_sources(config)}
    parts = [_columns(masks, "mask", stage, samples), _columns(sources, "source", stage, samples)]
    width = max(part.shape[1] for part in parts)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in parts]
    )


def _shown_sources(config: SimulationConfig) -> list[SourceKind]:
    given: list[SourceKind] = ["procedural", "flat", *STRUCTURAL]
    return given + (["folder"] if config.textures else []) + (["crops"] if config.crops else [])


def _only(config: SimulationConfig, source: SourceKind, mask: str = "") -> SimulationConfig:
    """The configuration with one kind of source, and with one kind of mask unless it stays as it is."""
    changed: dict[str, Any] = {
        "sources": SourceWeights(**{**dict.fromkeys(SourceWeights.model_fields, 0.0), source: 1})
    }
    if mask:
        changed["masks"] = MaskWeights(**{**dict.fromkeys(MaskWeights.model_fields, 0.0), mask: 1.0})
    return config.model_copy(update=changed)


def _telling(config: SimulationConfig, stage: Stage) -> Tensor:
    """Of the first samples, those whose masks come closest to a tenth of the image."""
    samples = torch.arange(_LOOKED_THROUGH)
    masks = stage.simulate(stage.simulator(config), samples).mask
    return samples[(masks.mean((1, 2, 3)) - _TELLING).abs().argsort(stable=True)[:_SAMPLES]]


def _columns(configs: dict[Any, SimulationConfig], part: str, stage: Stage, samples: Tensor) -> NDArray[np.uint8]:
    """A column for each configuration; for each sample a row with this part of it, and one with the image."""
    columns = [stage.simulate(stage.simulator(config), samples) for config in configs.values()]
    rows, captions = [], []
    for index in range(len(samples)):
        for name in (part, "anomalous"):
            shown = [getattr(column, name)[index : index + 1] for column in columns]
            rows.append([view(image[0].permute(1, 2, 0).numpy()) for image in shown])
            captions.append("augmented" if name == "anomalous" else part)
    return sheet(rows, list(configs), captions, cell=_CELL)
