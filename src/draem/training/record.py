"""What a run writes of itself beside its model, and goes on with: settings, split, where parts lie and what counts."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from draem.config import Config, DataConfig
from draem.data.interest import interest_of
from draem.data.registration import Registrar, registrar_of, registration_of
from draem.data.samples import Dataset, Split, fingerprint, split_good
from draem.errors import DataError
from draem.files import atomic_write
from draem.modelfile import RegionOfInterest, Registration
from draem.modelfile.part import Part

CONFIG, SPLIT, SCENE = "config.yaml", "split.json", "scene.json"
_JOBS = ("train", "select", "calibrate")


class Scene(Part):
    """What `draem.modelfile.Header` has by the same names."""

    region: RegionOfInterest | None
    registration: Registration | None

    @property
    def registrar(self) -> Registrar | None:
        """What finds the part; none where images are taken as they lie."""
        return registrar_of(self.registration, self.region)


def split_of(dataset: Dataset, config: Config, out: Path, resume: bool) -> Split:
    """The good images by job; a resumed run keeps the jobs it gave.

    Raises:
        DataError: there are none, or not those that the run began with.
    """
    good = dataset.train_good
    if not good:
        raise DataError(f"{dataset.root}: no good images to train on")
    if not (resume and (out / SPLIT).exists()):
        data = config.data
        return split_good(good, data.select_share, data.calibrate_share, config.training.seed, data.fold)
    by_name = {sample.name: sample for sample in good}
    try:
        record = json.loads((out / SPLIT).read_text(encoding="utf-8"))
        names, began_with = {job: [str(name) for name in record[job]] for job in _JOBS}, record["fingerprint"]
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{out / SPLIT}: damaged; start a new run in another --out") from None
    wanted = [name for job in _JOBS for name in names[job]]
    gone = [name for name in wanted if name not in by_name]
    if gone:
        raise DataError(
            f"{dataset.root}: {gone[0]} is gone, {len(gone)} of the {len(wanted)} images that the run in {out} began "
            "with; resume with its folder as it was"
        )
    jobs = {job: tuple(by_name[name] for name in names[job]) for job in _JOBS}
    if fingerprint([sample for job in _JOBS for sample in jobs[job]]) != began_with:
        raise DataError(f"{dataset.root}: not the images that the run in {out} began with; resume with those")
    return Split(**jobs)


def kept_scene(config: DataConfig, out: Path, resume: bool) -> Scene:
    """Where parts lie and what of them counts; a resumed run keeps what it began with, whatever became of its files.

    Raises:
        ConfigError: a file that the settings name cannot be read, or the reference does not serve.
        DataError: what the run kept is damaged.
    """
    kept = out / SCENE
    if not (resume and kept.exists()):
        scene = Scene(region=interest_of(config), registration=registration_of(config))
        if scene.registrar is not None:
            scene.registrar.check()
        return scene
    try:
        return Scene.model_validate_json(kept.read_bytes())
    except ValidationError:
        raise DataError(f"{kept}: damaged; start a new run in another --out") from None


def write_record(out: Path, config: Config, split: Split, scene: Scene) -> None:
    """Write all of it, each file whole or not at all."""
    atomic_write(out / SCENE, scene.model_dump_json().encode())
    names = {job: [sample.name for sample in getattr(split, job)] for job in _JOBS}
    images = fingerprint([*split.train, *split.select, *split.calibrate])
    atomic_write(out / SPLIT, json.dumps({**names, "fingerprint": images}, indent=1).encode())
    atomic_write(out / CONFIG, config.to_yaml().encode())
