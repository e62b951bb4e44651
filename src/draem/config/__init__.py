"""The one description of a run: data, simulation, network, training, scoring; presets; YAML in and out.

Every flag of the command line sets a field of these models, and the resolved configuration is saved with the model.
"""

from draem.config.sections import (
    AnyLayout,
    DataConfig,
    Layout,
    NetworkConfig,
    Parts,
    ScoreConfig,
    ScoreMap,
    Section,
    TrainingConfig,
    widths_in_words,
)
from draem.config.simulation import (
    AUGMENTATIONS,
    ROTATIONS,
    Augmentation,
    MaskKind,
    MaskWeights,
    RotationConfig,
    SimulationConfig,
    SourceKind,
    SourceWeights,
)
from draem.config.whole import Config, parse_config

__all__ = [
    "AUGMENTATIONS",
    "ROTATIONS",
    "AnyLayout",
    "Augmentation",
    "Config",
    "DataConfig",
    "Layout",
    "MaskKind",
    "MaskWeights",
    "NetworkConfig",
    "Parts",
    "RotationConfig",
    "ScoreConfig",
    "ScoreMap",
    "Section",
    "SimulationConfig",
    "SourceKind",
    "SourceWeights",
    "TrainingConfig",
    "parse_config",
    "widths_in_words",
]
