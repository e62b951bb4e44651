"""A small network with a large one as its teacher, against the same one alone: same images seen, same seeds.

    python benchmarks/distill.py OUT SET… [--size 128] [--seeds 1 2 3] [--weights 0.5] [--images 1600]

A SET is a data set with labelled test images, or the name of a surface that is rendered. For each, a teacher is trained
(OUT/SET/teacher), and for each seed the student alone (alone-SEED) and taught, once for each weight
(taught-WEIGHT-SEED). What is there already is gone on with, or taken as it is: it may be stopped at any time.

Choose a weight by the validation figures (simulated defects on held-out good images), or by the test images of one set,
and believe only the test figures of the other sets. The teacher's split is that of seed 0: it was trained on
some images that the students hold out, so their validation figures favour the taught a little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import write_result

from draem import verbs
from draem.data.demo import SURFACES, render_demo
from draem.evaluation.evaluate import evaluate
from draem.inspection.detector import Detector
from draem.settings import parse_setting

MEASURES = ("val_pixel_ap", "pixel_ap", "image_auroc")


def find_set(name: str, out: Path) -> Path:
    """A data set's folder; a surface's is rendered where it is not there."""
    if name not in SURFACES:
        return Path(name)
    folder = out / "data" / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, then renamed: one that was broken off would be taken for the whole.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
            (rendered,) = render_demo(Path(beside), name)
            try:
                rendered.rename(folder)
            except OSError:
                # Another bench was faster; it has the same images.
                if not folder.exists():
                    raise
    return folder


def measure(detector: Detector, data: Path) -> dict[str, float | None]:
    """Pixel AP on simulated defects; image AUROC and pixel AP on the test images."""
    found, record = evaluate(detector, data).metrics, detector.header.training
    assert record is not None
    validation = record.validation.get("val_pixel_ap")
    return {"val_pixel_ap": validation, "pixel_ap": found.pixel_ap, "image_auroc": found.image_auroc}


def compare(data: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Teacher, and each arm's figures by seed."""
    settings = {
        "data.size": options.size,
        "training.validations": 1,
        **dict(parse_setting(text) for text in options.settings),
    }
    schooling = {**settings, "training.images": options.teacher_images, "training.seed": 0}
    teacher = _train(data, out / "teacher", options.teacher, schooling, None)
    arms: dict[str, list[dict[str, float | None]]] = {}
    for seed in options.seeds:
        chosen = {**settings, "training.images": options.images, "training.seed": seed}
        alone = _train(data, out / f"alone-{seed}", options.student, chosen, None)
        arms.setdefault("alone", []).append(measure(alone, data))
        for weight in options.weights:
            weighted = {**chosen, "training.distill_weight": weight}
            name = f"taught-{weight:g}"
            taught = _train(data, out / f"{name}-{seed}", options.student, weighted, out / "teacher/model.safetensors")
            arms.setdefault(name, []).append(measure(taught, data))
    return {"teacher": measure(teacher, data), "arms": arms}


def _train(data: Path, out: Path, preset: str, settings: dict[str, Any], teacher: Path | None) -> Detector:
    if (out / "model.safetensors").exists():
        return verbs.load(out / "model.safetensors")
    resume = out.exists()
    if teacher is None:
        return verbs.train(data, out, preset, settings=settings, resume=resume)
    return verbs.distill(teacher, data, out, preset, settings=settings, resume=resume)


def show(name: str, result: dict[str, Any]) -> None:
    """One set's table: means and standard deviations over the seeds, and of the differences at equal seeds."""
    print(f"{name:24} " + " ".join(f"{measure:>17}" for measure in MEASURES))
    print(f"  {'teacher':22} " + " ".join(f"{_figure([result['teacher'][measure]]):>17}" for measure in MEASURES))
    arms = result["arms"]
    for arm, runs in arms.items():
        print(f"  {arm:22} " + " ".join(f"{_figure([run[measure] for run in runs]):>17}" for measure in MEASURES))
        if arm != "alone":
            gains = [_gains(runs, arms["alone"], measure) for measure in MEASURES]
            print(f"  {'  less alone':22} " + " ".join(f"{_figure(gain):>17}" for gain in gains))


def _gains(runs: Sequence[dict[str, Any]], alone: Sequence[dict[str, Any]], measure: str) -> list[float | None]:
    pairs = [(run[measure], other[measure]) for run, other in zip(runs, alone, strict=True)]
    return [None if None in pair else pair[0] - pair[1] for pair in pairs]


def _figure(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    spread = f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.3f}{spread}"


def main() -> None:
    """Train what is missing, measure, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("sets", nargs="+", metavar="SET")
    parser.add_argument("--teacher", default="fast", help="preset")
    parser.add_argument("--student", default="edge", help="preset")
    parser.add_argument("--teacher-images", type=int, default=3200)
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.5])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--result", type=Path, default=None)
    options = parser.parse_args()
    results = {}
    for given in options.sets:
        data = find_set(given, options.out)
        results[data.name] = compare(data, options.out / data.name, options)
    for name, result in results.items():
        show(name, result)
    said = {key: value for key, value in vars(options).items() if key not in ("out", "result", "sets")}
    print(write_result("distill", {"settings": said, "sets": results}, options.result))


if __name__ == "__main__":
    main()
