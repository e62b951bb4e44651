"""The verbs of the Python interface that are not a module's own: train, train_all, distill and load."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from draem.config import Config, DataConfig, parse_config
from draem.data.layouts import ALL, read_layout
from draem.errors import ConfigError, MissingExtraError
from draem.files import atomic_write
from draem.inspection.detector import Detector
from draem.inspection.execution import BackendName, Device, Precision
from draem.modelfile import read_header
from draem.settings import flat, nested, read_yaml

_log = logging.getLogger(__name__)
_MAY_CHANGE = {"checkpoint_every", "log_every", "teacher"}
"""How a run reports; and where its teacher lies, whose weights its checkpoint knows."""


def load(
    path: str | Path,
    device: Device = "auto",
    *,
    backend: BackendName = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    streams: int = 1,
    profile: str | None = None,
) -> Detector:
    """Read a model file; how it is run is told in `draem.inspection.execution.Execution`.

    `profile` is the camera or product whose thresholds are taken; none: the model's own.

    Raises:
        ModelFileError: it is damaged or not a model, or has no such profile.
        MissingExtraError: what runs it is not installed.
    """
    return Detector.load(
        path, device, backend=backend, precision=precision, threads=threads, streams=streams, profile=profile
    )


def train(
    data: str | Path,
    out: str | Path,
    preset: str = "",
    *,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    category: str | None = None,
    resume: bool = False,
    init: str | Path | None = None,
) -> Detector:
    """Train on good images.

    Args:
        data: a folder of good images, or a data set whose layout is understood.
        out: the run's folder; its `model.safetensors` is the model.
        preset: where the settings start from; empty: `standard` where there is an accelerator, else `fast`.
        config: a YAML file of settings over the preset's.
        settings: dotted keys to values, over both: ``{"training.images": 4000, "training.seed": 1}``.
        category: which of several categories; `train_all` trains a model for each.
        resume: go on with the run in `out`, with its settings; with nothing there, start from the beginning.
        init: a trained model to start from.

    Returns:
        The trained detector, with a first threshold.

    Raises:
        DraemError: of the kind that fits; see `draem.errors`.
    """
    if category == ALL:
        raise ConfigError("category all: draem.train_all trains a model for each category; draem.train trains one")
    settings = {**(settings or {}), **({"training.init": str(init)} if init else {})}
    # Before torch, which takes seconds to load: a wrong setting is told at once.
    resolved = resolve_config(Path(out), preset, Path(config) if config else None, settings, resume)
    return _train(Path(data), Path(out), resolved, category, resume)


def distill(
    teacher: str | Path,
    data: str | Path,
    out: str | Path,
    preset: str = "",
    *,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    category: str | None = None,
    resume: bool = False,
    init: str | Path | None = None,
) -> Detector:
    """Train a small network on good images, with a large trained one as its teacher.

    Beside the masks of simulated anomalies, the teacher's map on them is a target: `training.distill_weight` is its
    share. All else is as in training.

    Args:
        teacher: a trained model of any widths. How images come to the network, in size, channels, depth, value range,
            fit and overlap, is the teacher's where neither `config` nor `settings` says otherwise, which is refused.
        data: a folder of good images, or a data set whose layout is understood; best the teacher's own.
        out: the run's folder; its `model.safetensors` is the model.
        preset: where the student's settings start from; empty: `edge`.
        config: as in `train`.
        settings: as in `train`.
        category: which of several categories.
        resume: go on with the run in `out`, which must have had the same teacher.
        init: a trained model of the student's own widths to start from.

    Returns:
        The trained student, with a first threshold of its own.

    Raises:
        DraemError: of the kind that fits; see `draem.errors`.
    """
    if category == ALL:
        raise ConfigError("category all: a teacher teaches one category; name it")
    taught_by = read_header(Path(teacher))  # before torch: what is no model is told at once
    settings = {
        **(settings or {}),
        **({"training.init": str(init)} if init else {}),
        "training.teacher": str(teacher),
    }
    file = Path(config) if config else None
    if not (resume and (Path(out) / "config.yaml").exists()):
        settings = _seeing_as(taught_by.config.data, file, settings)
    resolved = resolve_config(Path(out), preset, file, settings, resume, otherwise="edge")
    return _train(Path(data), Path(out), resolved, category, resume)


def _seeing_as(teacher: DataConfig, file: Path | None, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a student; what they and the file leave open of how images come is the teacher's."""
    tree = nested(settings)
    ours, in_file = tree.get("data", {}), read_yaml(file).get("data", {}) if file else {}
    if not (isinstance(ours, dict) and isinstance(in_file, dict)):
        return settings  # which are refused as what they are
    pixels = teacher.pixel_format
    theirs = {"channels": pixels.channels, "depth": pixels.depth}
    theirs |= teacher.model_dump(mode="json", include={"size", "value_range", "fit", "overlap"})
    return {**tree, "data": {key: value for key, value in theirs.items() if key not in in_file} | ours}


def _train(data: Path, out: Path, config: Config, category: str | None, resume: bool) -> Detector:
    with _needing_torch():
        from draem.training.run import train_run
    return train_run(data, out, config, category=category, resume=resume)


def train_all(
    data: str | Path,
    out: str | Path,
    preset: str = "",
    *,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    init: str | Path | None = None,
) -> dict[str, Path]:
    """Train a model for each category of a data set, one after the other, in OUT/<category>.

    The arguments are those of `train`; resuming passes over categories that are done. OUT/config.yaml holds the
    settings of all.

    Returns:
        The model files by category.

    Raises:
        DraemError: of the kind that fits; see `draem.errors`. Nothing is trained if a category has a run already.
    """
    with _needing_torch():
        from draem.training.record import CONFIG
        from draem.training.run import MODEL, refuse_overwriting, train_run
    out = Path(out)
    settings = {**(settings or {}), **({"training.init": str(init)} if init else {})}
    file = Path(config) if config else None
    common = resolve_config(out, preset, file, settings, resume)
    refuse_overwriting(out, resume=False)  # a run of one model
    categories = read_layout(Path(data), common.data.layout, ALL).categories
    models = {name: out / name / MODEL for name in categories}
    for model in models.values():
        refuse_overwriting(model.parent, resume)
    atomic_write(out / CONFIG, common.to_yaml().encode())
    # Before the first: of several processes that share a run, all must pass over the same.
    done = {name for name, model in models.items() if model.exists()}
    for name in models:
        if name in done:
            _log.info("%s: trained already", name)
            continue
        begun = resume and (out / name / CONFIG).exists()
        resolved = resolve_config(out / name, preset, file, settings, resume) if begun else common
        train_run(Path(data), out / name, resolved, category=name, resume=resume)
    return models


@contextmanager
def _needing_torch() -> Iterator[None]:
    """Importing in this block needs the extra `train`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train") from None


def resolve_config(
    out: Path,
    preset: str,
    file: Path | None,
    settings: Mapping[str, Any],
    resume: bool,
    otherwise: str = "",
) -> Config:
    """The settings of a run; a resumed one has those it began with, and may change only how it reports.

    A new run has the preset `otherwise` where none is named; where that is empty too, `default_preset`.

    Raises:
        ConfigError: a setting is wrong, or differs from the run that is to be resumed.
    """
    stored = out / "config.yaml"
    named = settings.get("preset") or preset or (read_yaml(file).get("preset", "") if file else "")
    if not (resume and stored.exists()):
        return Config.resolve(named or otherwise or default_preset(), file, settings)
    before = parse_config(read_yaml(stored), str(stored))  # what a preset has meanwhile is not the run's
    if named and named != before.preset:
        raise ConfigError(f"preset {named}: the run in {out} has preset {before.preset}; leave it away to resume")
    wanted = before.override(file, settings)
    known = flat(before.model_dump(mode="json"))
    # `auto` asks for what the run found when it began.
    found = {key: known[key] for key in before.differences(wanted) if flat(wanted.model_dump())[key] == "auto"}
    wanted = wanted.override(None, found)
    changed = [key for key in before.differences(wanted) if key.rpartition(".")[2] not in _MAY_CHANGE]
    if changed:
        raise ConfigError(
            f"{changed[0]}: differs from the run in {out}; resume with its settings, or use another --out"
        )
    return wanted


def default_preset() -> str:
    """`standard` where there is an accelerator, else `fast`; the log says so."""
    with _needing_torch():
        import torch

    there = torch.cuda.is_available() or torch.backends.mps.is_available()
    preset, why = ("standard", "an accelerator") if there else ("fast", "no accelerator")
    _log.info("no --preset: %s, as there is %s", preset, why)
    return preset
