"""A threshold from few good images: the recipe trained anew on parts of them, scored on what each has not seen."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from draem.config import Config
from draem.data.layouts import read_layout
from draem.data.samples import fingerprint
from draem.errors import ConfigError, ModelFileError, TrainingError
from draem.evaluation.calibrate import Rule
from draem.inspection.calibration import ON_AVERAGE, good_threshold
from draem.inspection.detector import Detector
from draem.modelfile import Header, Thresholds, read_header
from draem.modelfile.edits import change_header, with_thresholds
from draem.training.record import SPLIT, Scene
from draem.training.run import MODEL, train_run


def fold_thresholds(
    model: Path,
    data: Path,
    runs: Path,
    folds: int,
    false_reject: float,
    *,
    review: float | None = None,
    profile: str | None = None,
    category: str | None = None,
) -> tuple[Thresholds, Header]:
    """Estimate thresholds by K trainings of a model's recipe, and write them into its header.

    The scores are those of other models, trained on fewer images, so nothing is promised.

    Args:
        model: a model trained here, or an export of one: its header has the recipe.
        data: a folder of good images, or a data set: its good images to train with.
        runs: RUNS/fold-K-OF; finished ones are taken as they are, stopped ones go on.
        folds: how many trainings.
        false_reject: share of good parts that is rejected, as estimated.
        review: share that goes to review or is rejected.
        profile: for which camera or product.
        category: which of several categories; `all` for all of them.

    Raises:
        ConfigError: fewer than two folds.
        DataError: too few images for the rate, or for the folds. The model stays as it was.
        TrainingError: a finished fold there is of another recipe or other images.
        ModelFileError: the model's header has no recipe to train by.
    """
    Rule(false_reject=false_reject, review=review)  # refuses what makes no sense
    if folds < 2:
        raise ConfigError(f"folds is {folds}; give 2 or more")
    header = read_header(model)
    if header.training is None:
        raise ModelFileError(f"{model}: was not trained here ({header.origin}): it has no recipe to train folds by")
    good = read_layout(data, header.config.data.layout, category).train_good
    good_threshold([0.0] * len(good), false_reject, ON_AVERAGE)  # too few are told before hours of training
    parts = [_scores(header, data, runs, (fold, folds), category) for fold in range(folds)]
    scores = [score for part in parts for score in part]
    middles = sorted(statistics.median(part) for part in parts if part)
    reject, _ = good_threshold(scores, false_reject, ON_AVERAGE)
    lower = None if review is None else good_threshold(scores, review, ON_AVERAGE)[0]
    words = (
        f"{len(scores)} good images, each scored by one of {folds} models trained without it: an estimate of "
        f"{false_reject:.3g} false rejects, no promise; the models' median scores are {middles[0]:.3g} to "
        f"{middles[-1]:.3g}"
    )
    thresholds = Thresholds(
        reject=reject, review=lower if lower is not None and lower < reject else None, chosen_on=words
    )
    _, changed = change_header(model, lambda before: with_thresholds(before, thresholds, None, profile))
    return thresholds, changed


def _scores(header: Header, data: Path, runs: Path, fold: tuple[int, int], category: str | None) -> list[float]:
    """Of the images of one fold, by the model that was trained without them, in the region that the model has now."""
    run = runs / f"fold-{fold[0]}-of-{fold[1]}"
    config = header.config.model_copy(update={"data": header.config.data.model_copy(update={"fold": fold})})
    dataset = read_layout(data, config.data.layout, category)
    if (run / MODEL).exists():
        trained = Detector.load(run / MODEL, config.training.accelerator)
        _refuse_other(trained.header, config, fingerprint(dataset.samples), run)
    else:
        # From the model, whose files may be gone; what was set of it by hand since its training did not see.
        given = config.data.region is not None or config.data.ignore is not None
        scene = Scene(
            region=header.region if given else None,
            registration=header.registration if config.data.registration is not None else None,
        )
        trained = train_run(data, run, config, category=category, resume=run.exists(), scene=scene)
    now = {"region": header.region, "registration": header.registration}
    detector = Detector(trained.backend, trained.header.model_copy(update=now))
    held_out = set(json.loads((run / SPLIT).read_text(encoding="utf-8"))["calibrate"])
    paths = [sample.path for sample in dataset.train_good if sample.name in held_out]
    return [found.score for found in detector.stream(paths, on_unreadable=lambda source, error: None)]


def _refuse_other(trained: Header, config: Config, data: str, run: Path) -> None:
    """A finished fold of another recipe or other images does not stand for this model."""

    def recipe(of: Config) -> dict[str, Any]:
        told = of.model_dump(mode="json")
        for name in ("threads", "checkpoint_every", "log_every", "accelerator", "precision"):
            del told["training"][name]
        return told

    same_data = trained.data is not None and trained.data.fingerprint == data
    if not same_data or recipe(trained.config) != recipe(config):
        what = "other images" if not same_data else "another recipe"
        raise TrainingError(f"{run}: a finished fold of {what}; give another --runs")
