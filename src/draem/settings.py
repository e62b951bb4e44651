"""Settings before they are checked: from YAML and ``key=value``, in layers."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from draem.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    try:
        values = _parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())[:120]})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of settings is expected, such as  training: {{batch_size: 4}}")
    return values


def parse_setting(text: str) -> tuple[str, Any]:
    """``key=value`` of the command line; the value is read as YAML.

    Raises:
        ConfigError: there is no ``=``, the value is not YAML, or a number in it has underscores.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: write key=value, such as training.batch_size=4")
    try:
        parsed = _parse_yaml(value)
    except ValueError:
        raise ConfigError(f"--set {text}: {value!r} is not a value") from None
    odd = [word for word in re.split(r"[][{},\s]+", value) if _UNDERSCORED.fullmatch(word)]
    if odd:  # YAML 1.1 reads 0_1 as 1
        raise ConfigError(f"--set {text}: write {odd[0]} without underscores")
    return key, parsed


def parse_number(text: str) -> float:
    """A number from 0 on, in decimal digits, such as 0.25, 3 or 1e-3.

    Raises:
        ValueError: it is none, or spelt in another way that Python takes too, such as 0_1 or -0.
    """
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is not a number from 0 on")
    return float(text)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of the known words that was probably meant; none where nothing is alike."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


_NUMBER = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_UNDERSCORED = re.compile(r"[-+]?[0-9.][0-9._]*_[0-9._]*([eE][-+]?[0-9_]+)?")


class _NumberLoader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text; people mean the number."""


_NumberLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parse_yaml(text: str) -> Any:
    """What the text holds; ValueError where it is not YAML."""
    try:
        return yaml.load(text, Loader=_NumberLoader)
    except (yaml.YAMLError, AttributeError, LookupError, RecursionError) as error:
        # PyYAML lets a wrong date, number, tag or nesting escape as what Python made of it.
        raise ValueError(str(error)) from None


def stack(base: Mapping[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Layers over a base, later ones on top."""
    merged = dict(base)
    for layer in layers:
        _override_budget(merged, layer)
        merged = _merge(merged, layer)
    return merged


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` → ``{"a.b": 1}``; a rotation's settings count as one value."""
    values: dict[str, Any] = {}
    for key, value in section.items():
        inner = isinstance(value, dict) and not prefix
        values |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return values


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` → ``{"a": {"b": 1}}``."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, last = key.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {parent} is a value, not a section")
        place[last] = copy.deepcopy(value)
    return tree


def _merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Sections are merged, values replaced."""
    merged = dict(base)
    for key, value in layer.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _override_budget(merged: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """A budget in images replaces the preset's epochs, and the other way round."""
    training = layer.get("training")
    if isinstance(training, dict) and ("images" in training) != ("epochs" in training):
        dropped = "epochs" if "images" in training else "images"
        merged["training"] = {key: value for key, value in merged["training"].items() if key != dropped}
