"""The whole configuration of a run: its sections, in layers over a preset; YAML in and out."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError, model_validator

from draem.config.sections import LEVELS, DataConfig, NetworkConfig, ScoreConfig, Section, TrainingConfig
from draem.config.simulation import SimulationConfig
from draem.errors import ConfigError
from draem.presets import PRESETS
from draem.settings import flat, nearest, nested, read_yaml, stack


class Config(Section):
    """A whole run, resolved."""

    preset: str
    data: DataConfig = DataConfig()
    simulation: SimulationConfig = SimulationConfig()
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig
    score: ScoreConfig = ScoreConfig()

    @model_validator(mode="before")
    @classmethod
    def _shape_of_the_size(cls, values: Any) -> Any:
        """`auto` of `network.fold` and `network.levels` in figures.

        The fold is the largest that leaves both sub-networks 64 pixels a side. It takes the place of outer levels: the
        innermost pixel keeps the published size, so that BatchNorm has more than one there from 64 pixels a side on.
        """
        network = values.get("network") if isinstance(values, dict) else None
        if not isinstance(network, dict):
            return values
        fold = network.get("fold", 1)
        if fold == "auto":
            fold = next((fold for fold in (4, 2) if _shortest_side(values) >= 64 * fold), 1)
            network = {**network, "fold": fold}
        if network.get("levels") == "auto":
            known = fold if fold in [*LEVELS] else 1  # what is wrong with another is said elsewhere
            network = {**network, "levels": LEVELS[known]}
        return {**values, "network": network}

    @property
    def tile_step(self) -> int:
        """Tiles lie at multiples of this: of the network's stride where the overlap is one of its multiples, too.

        Only then do the network's halvings of a tile meet those of the whole image.
        """
        return gcd(self.network.stride, self.data.overlap)

    @model_validator(mode="after")
    def _something_to_score(self) -> Self:
        makes = {"reconstructive": ("ssim", "msgms"), "discriminative": ("segmentation",)}.get(self.network.parts)
        if makes is not None and self.score.map not in makes:
            raise ValueError(
                f"score.map={self.score.map} does not go with network.parts={self.network.parts}: "
                "reconstructive needs ssim or msgms, discriminative needs segmentation"
            )
        return self

    @model_validator(mode="after")
    def _tiles_in_step(self) -> Self:
        if self.data.fit != "tiles":
            return self
        stride, (height, width), overlap = self.network.stride, self.data.size, self.data.overlap
        if height % stride or width % stride:
            raise ValueError(
                f"data.fit=tiles: data.size={height},{width} is to be multiples of {stride}"
                + (
                    f" with network.fold={self.network.fold}, network.levels={self.network.levels}"
                    if stride != 32
                    else ""
                )
            )
        if overlap % 32 or overlap > min(height, width) - 32:
            raise ValueError(
                f"data.fit=tiles: data.overlap={overlap} is to be a multiple of 32, at most {min(height, width) - 32}"
            )
        return self

    @model_validator(mode="after")
    def _something_to_teach(self) -> Self:
        if self.training.teacher is not None and self.network.parts == "reconstructive":
            raise ValueError("training.teacher teaches the discriminative sub-network, which network.parts leaves out")
        return self

    @model_validator(mode="after")
    def _something_to_settle(self) -> Self:
        if self.training.patience and not self.data.select_share:
            raise ValueError("training.patience needs validations, and so data.select_share above 0")
        return self

    def to_yaml(self) -> str:
        """The configuration as YAML that `Config.resolve(file=…)` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)

    @classmethod
    def resolve(
        cls, preset: str, file: Path | None = None, settings: Mapping[str, Any] | None = None, default: str = ""
    ) -> Config:
        """Layer a YAML file over a preset, and settings over both.

        Args:
            preset: a name of `PRESETS`; a `preset` in the settings goes before it, where it is empty the file's counts.
            file: YAML with any part of the configuration.
            settings: dotted keys to values, such as ``{"training.seed": 3}``.
            default: preset where neither names one.

        Raises:
            ConfigError: naming the key, the value and what would be allowed.
        """
        layers = _layers(file, settings)
        name = layers[-1].get("preset") or preset or layers[0].get("preset") or default
        if not isinstance(name, str) or name not in PRESETS:
            raise ConfigError(f"preset {name!r} is unknown: use one of {', '.join(PRESETS)}")
        return parse_config({**stack(PRESETS[name], layers), "preset": name}, where=str(file or "settings"))

    def override(self, file: Path | None = None, settings: Mapping[str, Any] | None = None) -> Config:
        """This configuration with a YAML file and settings over it; see `resolve`."""
        merged = stack(self.model_dump(mode="json"), _layers(file, settings))
        return parse_config({**merged, "preset": self.preset}, where=str(file or "settings"))

    def differences(self, other: Config) -> list[str]:
        """Dotted keys whose values differ."""
        ours, theirs = flat(self.model_dump(mode="json")), flat(other.model_dump(mode="json"))
        return [key for key, value in ours.items() if theirs[key] != value]


def _shortest_side(values: dict[str, Any]) -> int:
    """Of the images that the network is to see; of values that are no sizes 256: what is wrong is said elsewhere."""
    data = values.get("data")
    size = data.get("size", 256) if isinstance(data, dict) else 256
    return min(
        [side for side in (size if isinstance(size, list | tuple) else [size]) if isinstance(side, int)] or [256]
    )


def parse_config(values: Mapping[str, Any], where: str) -> Config:
    """Check plain values against the models; `where` names their origin in the error."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_explain(item) for item in error.errors()[:3])}") from None


def _layers(file: Path | None, settings: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    layers = {str(file): read_yaml(file)} if file else {}
    layers["settings"] = nested(settings or {})
    for where, layer in layers.items():
        for key in Config.model_fields.keys() - {"preset"}:
            if not isinstance(layer.get(key, {}), dict):
                raise ConfigError(f"{where}: {key}: a section of settings is expected, not {str(layer[key])[:60]!r}")
    return list(layers.values())


def _explain(item: Any) -> str:
    """One pydantic finding as `section.key: what is wrong (got …)`, with the nearest known key for an unknown one."""
    place = [str(part) for part in item["loc"]]
    key = ".".join(place) or "configuration"
    if item["type"] == "extra_forbidden":
        model: Any = Config
        for part in place[:-1]:
            field = model.model_fields.get(part)
            model = field.annotation if field else model
        known = list(getattr(model, "model_fields", {}))
        near = nearest(place[-1], known)
        hint = f"did you mean {'.'.join([*place[:-1], near])}?" if near else f"known here: {', '.join(known)}"
        return f"{key} is not a setting ({hint})"
    if item["type"] == "missing":
        return f"{key} is missing"
    message = item["msg"].removeprefix("Value error, ")
    if isinstance(item["input"], dict):
        return f"{key}: {message}"
    return f"{key}: {message} (got {repr(item['input'])[:60]})"
