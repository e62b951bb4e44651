"""Recipes to compare, and one run: a recipe on a data set with a seed, trained, evaluated and kept in a folder.

    common: {data.size: 128, training.images: 8000}
    recipes:
      base: {preset: fast}
      slow: {preset: fast, settings: {training.learning_rate: 5.0e-4}}

As a script it carries out one run, told as JSON; `accuracy.py` starts it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from accuracy_table import read_result
from record import commit, machine, versions

from draem import verbs
from draem.config import Config, parse_config
from draem.data.layouts import read_layout
from draem.data.samples import fingerprint
from draem.errors import ConfigError, DataError, DraemError
from draem.evaluation.evaluate import Evaluation, evaluate
from draem.files import atomic_write
from draem.inspection.detector import Detector
from draem.settings import flat, nested, read_yaml

_MAY_CHANGE = ("training.threads", "training.checkpoint_every", "training.log_every")
"""Not what is trained: a run goes on with the threads that it began with, since its sums depend on them."""
_NAME = re.compile(r"[A-Za-z0-9][\w.+=-]*")


@dataclass(frozen=True)
class Recipe:
    """A name for a preset and settings over it, keyed as in `draem train --set`."""

    name: str
    preset: str
    settings: dict[str, Any]

    def config(self, seed: int) -> Config:
        """All settings, resolved.

        Raises:
            ConfigError: one of them is wrong.
        """
        try:
            return Config.resolve(self.preset, None, {**self.settings, "training.seed": seed})
        except ConfigError as error:
            raise ConfigError(f"recipe {self.name}: {error}") from None


def read_recipes(path: Path, only: Sequence[str] = ()) -> list[Recipe]:
    """The recipes of a YAML file whose names match one of the patterns, in its order.

    Raises:
        ConfigError: naming the recipe and what is wrong with it; or none is left.
    """
    content = read_yaml(path)
    _known(content, ("common", "recipes"), str(path))
    common = _settings(content.get("common"), f"{path}: common")
    recipes = []
    for name, given in _mapping(content.get("recipes"), f"{path}: recipes").items():
        where = f"{path}: recipe {name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"{where}: is a folder's name too: use letters, digits and . _ + = -")
        known = _mapping(given, where)
        _known(known, ("preset", "settings"), where)
        settings = {**common, **_settings(known.get("settings"), f"{where}: settings")}
        if "training.seed" in settings:
            raise ConfigError(f"{where}: training.seed is what --seeds gives; leave it away")
        recipe = Recipe(name, str(known.get("preset", "")), settings)
        recipe.config(0)
        recipes.append(recipe)
    chosen = [recipe for recipe in recipes if not only or any(fnmatchcase(recipe.name, one) for one in only)]
    if not chosen:
        raise ConfigError(f"{path}: no recipe {' or '.join(only)}; there are: {', '.join(r.name for r in recipes)}")
    return chosen


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict | None):
        raise ConfigError(f"{where}: a mapping is expected, not {str(value)[:60]!r}")
    return value or {}


def _settings(value: Any, where: str) -> dict[str, Any]:
    """Keyed with dots, however they were written: a section in a recipe does not put out the common one."""
    return flat(nested({str(key): given for key, given in _mapping(value, where).items()}))


def _known(given: dict[str, Any], known: Sequence[str], where: str) -> None:
    if unknown := [str(key) for key in given if key not in known]:
        raise ConfigError(f"{where}: {unknown[0]} is not known here; known: {', '.join(known)}")


@dataclass(frozen=True)
class Run:
    """A recipe on a data set with a seed; its folder is OUT/SET/RECIPE/seed-N."""

    recipe: Recipe
    data: Path
    seed: int
    out: Path

    @property
    def name(self) -> str:
        """As it is spoken of: SET/RECIPE/seed-N."""
        return f"{self.data.name}/{self.recipe.name}/seed-{self.seed}"

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        return self.out / self.name

    @property
    def log(self) -> Path:
        """What it says while it runs."""
        return self.out / f"{self.name}.log"

    @property
    def result(self) -> Path:
        """Its figures, there when it is finished."""
        return self.folder / "result.json"

    def begun(self) -> Config | None:
        """The settings that the run in the folder began with; none: there is no run."""
        stored = self.folder / "config.yaml"
        return parse_config(read_yaml(stored), str(stored)) if stored.exists() else None

    def refuse_changed(self) -> None:
        """Compare the recipe with what the run in the folder began with.

        Raises:
            ConfigError: naming the recipe and a setting that differs.
        """
        before, wanted = self.begun(), self.recipe.config(self.seed)
        if before is None:
            return
        asked, there = (flat(config.model_dump(mode="json")) for config in (wanted, before))
        # `auto` asks for what the run found when it began.
        changed = [key for key in before.differences(wanted) if key not in _MAY_CHANGE and asked[key] != "auto"]
        if changed:
            key = next((key for key in changed if key != "preset"), changed[0])
            raise ConfigError(
                f"recipe {self.recipe.name} has changed: {key} is {asked[key]}, the run in {self.folder} has "
                f"{there[key]}; give the recipe another name"
            )

    def refuse_other_images(self) -> None:
        """Compare the set with what a finished run saw: results are kept by the set's name alone.

        Raises:
            DataError: naming the set and the run.
        """
        if not self.result.exists():
            return
        images = fingerprint(read_layout(self.data, self.recipe.config(self.seed).data.layout).samples)
        if read_result(self.result)["data_fingerprint"] != images:
            raise DataError(
                f"{self.data}: its images are not those that the run in {self.folder} saw; use another --out"
            )

    def carry_out(self, threads: int, jobs: int = 1) -> dict[str, Any]:
        """Train, or go on, evaluate, and write the result beside the model; returns it.

        Raises:
            DraemError: of the kind that fits; see `draem.errors`.
        """
        detector = self._trained(threads)
        found = evaluate(detector, self.data)
        found.save(self.folder / "evaluation")
        result = {"set": self.data.name, "seed": self.seed, **asdict(self.recipe), "recipe": self.recipe.name}
        del result["name"]
        result |= {**accuracy(found, detector), **cost(detector), "jobs": jobs}
        result |= {"machine": machine(), "versions": versions(), "commit": commit()}
        atomic_write(self.result, json.dumps(result, indent=1, allow_nan=False).encode())
        return result

    def _trained(self, threads: int) -> Detector:
        import cv2
        import torch

        cv2.setNumThreads(threads)
        torch.set_num_threads(threads)
        if (self.folder / "model.safetensors").exists():
            return verbs.load(self.folder / "model.safetensors")
        self.refuse_changed()
        before = self.begun()
        settings = {"training.threads": threads, **self.recipe.settings, "training.seed": self.seed}
        if before is not None:
            settings["training.threads"] = before.training.threads
        return verbs.train(self.data, self.folder, self.recipe.preset, settings=settings, resume=before is not None)


def accuracy(found: Evaluation, detector: Detector) -> dict[str, Any]:
    """Metrics on the test images, by defect type too; those on simulated defects; shares rejected at the threshold."""
    record, data = detector.header.training, detector.header.data
    assert record is not None
    assert data is not None
    return {
        "metrics": found.metrics.to_dict(),
        "validation": record.validation,
        "false_rejects": _rejected(found, "good"),
        "defects": [
            {
                "defect": defect,
                "images": found.count(category, defect),
                "recall": _rejected(found, defect),
                "pixel_ap": metrics.pixel_ap,
                "pixel_aupro": metrics.pixel_aupro,
                "image_auroc": metrics.image_auroc,
            }
            for (category, defect), metrics in found.by_defect.items()
        ],
        "test_images": found.count(),
        "data_fingerprint": data.fingerprint,
    }


def _rejected(found: Evaluation, defect: str) -> float | None:
    """Share of the images of a type; none where there is no threshold."""
    verdicts = [image.verdict for image in found.images if image.defect == defect]
    return verdicts.count("reject") / len(verdicts) if verdicts and None not in verdicts else None


def cost(detector: Detector) -> dict[str, Any]:
    """What the training took, and what it was: images, FLOP, seconds, device; the network's size."""
    header = detector.header
    record = header.training
    assert record is not None
    forward, parameters = size_of(header.config, header.channels)
    return {
        "images_seen": record.images_seen,
        "forward_flop": forward,
        "training_flop": 3 * forward * record.images_seen,
        "parameters": parameters,
        "seconds": record.seconds,
        "device": _device(record.device),
        "precision": record.precision,
        "threads": header.config.training.threads,
        "config_sha256": hashlib.sha256(header.config.to_yaml().encode()).hexdigest(),
    }


def size_of(config: Config, channels: int) -> tuple[int, int]:
    """FLOP of the forward pass of one image, a multiply-add counted as two, and the number of parameters."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from draem.network.draem import Draem

    with torch.device("meta"):
        network, image = Draem(config.network, channels).eval(), torch.empty(1, channels, *config.data.size)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(image)
    return int(counted.get_total_flops()), sum(parameter.numel() for parameter in network.parameters())


def _device(name: str) -> str:
    """A graphics processor by what it is."""
    import torch

    return torch.cuda.get_device_name(name) if name.startswith("cuda") and torch.cuda.is_available() else name


def main(told: str) -> None:
    """Carry out the run that the JSON tells of."""
    given = json.loads(told)
    run = Run(Recipe(**given["recipe"]), Path(given["data"]), given["seed"], Path(given["out"]))
    try:
        run.carry_out(given["threads"], given["jobs"])
    except DraemError as error:
        sys.exit(f"draem: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
