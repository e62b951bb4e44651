"""From images to a model: train, distill, import-weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from draem.cli.options import (
    Category,
    CheckpointEvery,
    ConfigFile,
    Data,
    Epochs,
    Images,
    Init,
    Json,
    Preset,
    Resume,
    Run,
    Seed,
    Settings,
    settings_of,
)
from draem.cli.speaking import finish, is_first_process, needing


def train(
    data: Data,
    out: Run,
    preset: Preset = "",
    config: ConfigFile = None,
    settings: Settings = None,
    images: Images = None,
    epochs: Epochs = None,
    seed: Seed = None,
    category: Category = None,
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = None,
    init: Init = None,
    as_json: Json = False,
) -> None:
    """Train on good images; RUN/model.safetensors is the model; of all categories, RUN/CATEGORY/model.safetensors."""
    from draem import verbs

    chosen = _training_settings(images, epochs, seed, checkpoint_every) | settings_of(settings)
    if category == "all":
        models = verbs.train_all(data, out, preset, config=config, settings=chosen, resume=resume, init=init)
        if is_first_process():
            for model in models.values():
                typer.echo(f"model: {model}")
            finish(as_json, {"models": {name: str(model) for name, model in models.items()}})
        return
    detector = verbs.train(
        data, out, preset, config=config, settings=chosen, category=category, resume=resume, init=init
    )
    _show_trained(out, detector.header, as_json)


def distill(
    teacher: Annotated[Path, typer.Argument(metavar="TEACHER", help="A large trained model: RUN/model.safetensors.")],
    data: Data,
    out: Run,
    preset: Annotated[str, typer.Option("--preset", help="The student's: edge unless told.")] = "",
    config: ConfigFile = None,
    settings: Settings = None,
    images: Images = None,
    epochs: Epochs = None,
    seed: Seed = None,
    category: Category = None,
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = None,
    init: Init = None,
    as_json: Json = False,
) -> None:
    """Train a small network with a large trained one as its teacher; RUN/model.safetensors is the model."""
    from draem import verbs

    chosen = _training_settings(images, epochs, seed, checkpoint_every) | settings_of(settings)
    detector = verbs.distill(
        teacher, data, out, preset, config=config, settings=chosen, category=category, resume=resume, init=init
    )
    _show_trained(out, detector.header, as_json)


def _training_settings(
    images: int | None, epochs: float | None, seed: int | None, checkpoint_every: float | None
) -> dict[str, Any]:
    flags = {"images": images, "epochs": epochs, "seed": seed, "checkpoint_every": checkpoint_every}
    return {f"training.{key}": value for key, value in flags.items() if value is not None}


def _show_trained(out: Path, header: Any, as_json: bool) -> None:
    if is_first_process():
        typer.echo(f"model: {out / 'model.safetensors'}")
        finish(as_json, {"model": str(out / "model.safetensors"), **_summary(header)})


def _summary(header: Any) -> dict[str, Any]:
    plain: dict[str, Any] = header.model_dump(mode="json", include={"thresholds", "training", "data"})
    return plain


def import_weights(
    reconstructive: Annotated[Path, typer.Argument(metavar="NAME.pckl", help="Reconstructive sub-network.")],
    discriminative: Annotated[Path, typer.Argument(metavar="NAME_seg.pckl", help="Discriminative sub-network.")],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL", help="The model file to write: …/model.safetensors.")],
) -> None:
    """Turn a pair of the published weights into a model file; BGR becomes RGB."""
    with needing("train"):
        from draem.network.weights import import_published
    header = import_published(reconstructive, discriminative, out)
    typer.echo(f"model: {out} ({header.config.network.widths}, no threshold yet)")
