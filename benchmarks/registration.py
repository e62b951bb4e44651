"""Parts that lie elsewhere: how exactly registration finds them, how long it takes, and what it mends.

    python benchmarks/registration.py runs/toothbrush/model.safetensors toothbrush

The test images and their masks are turned and shifted at random, edges repeated. The model is evaluated on them as they
were, moved, and moved with a registration onto the first good training image. Errors of placements are against what was
drawn, on top of how the part lay before.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from record import write_result

from draem.data.layouts import read_layout
from draem.data.registration import Placement, Registrar, read_registration
from draem.data.samples import Dataset
from draem.evaluation.evaluate import Evaluation, evaluate
from draem.images import read_image, read_pixels, write_image
from draem.inspection.detector import Detector
from draem.modelfile import Registration, edit_header, read_header
from draem.modelfile.edits import with_scene
from draem.pixels import PixelFormat


def moved(image: NDArray[np.uint8], place: Placement, flags: int = cv2.INTER_LINEAR) -> NDArray[np.uint8]:
    """The image of a part that lies so."""
    size = (image.shape[0], image.shape[1])
    found = cv2.warpAffine(image, place.matrix(size), size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.uint8)


def draw(dataset: Dataset, turn: float, shift: float, seed: int, out: Path) -> list[Placement]:
    """Write a data set of moved test images; returns how each was moved."""
    random, drawn = np.random.default_rng(seed), []
    for number, sample in enumerate(dataset.test):
        place = Placement(random.uniform(-turn, turn), *random.uniform(-shift, shift, 2).tolist())
        drawn.append(place)
        kind = sample.defect if sample.label == "anomalous" else "good"
        write_image(out / "test" / kind / f"{number:04}.png", moved(read_image(sample.path), place))
        if sample.truth is not None and sample.label == "anomalous":
            mask = np.where(sample.truth.read(), np.uint8(255), np.uint8(0))
            write_image(out / "ground_truth" / kind / f"{number:04}_mask.png", moved(mask, place, cv2.INTER_NEAREST))
    (out / "train" / "good").mkdir(parents=True)
    shutil.copy(dataset.train_good[0].path, out / "train" / "good")
    return drawn


def placements(registration: Registration, dataset: Dataset, drawn: list[Placement]) -> dict[str, Any]:
    """Errors in degrees and in thousandths of the image, and milliseconds."""
    registrar, turns, shifts, times, lost = Registrar(registration, None), [], [], [], 0
    for sample, place in zip(dataset.test, drawn, strict=True):
        image = read_pixels(sample.path, PixelFormat())
        before = registrar.place(image)
        other = moved(np.asarray(image, np.uint8), place)
        start = time.perf_counter()
        found = registrar.place(other)
        times.append(1000.0 * (time.perf_counter() - start))
        if not (found.found and before.found):
            lost += 1
            continue
        turns.append(abs(found.angle - place.angle - before.angle))
        # As the matrices say it: the part's own shift is turned along.
        size = (image.shape[0], image.shape[1])
        wanted = np.vstack((place.matrix(size), (0, 0, 1))) @ np.vstack((before.matrix(size), (0, 0, 1)))
        middle = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2, 1.0])
        error = (found.matrix(size) - wanted[:2]) @ middle / np.array(size[::-1])
        shifts.append(1000.0 * float(np.hypot(*error)))
    return {
        "images": len(drawn),
        "lost": lost,
        "degrees": {"median": statistics.median(turns), "most": max(turns)},
        "thousandths": {"median": statistics.median(shifts), "most": max(shifts)},
        "milliseconds": statistics.median(times),
    }


def told(name: str, found: Evaluation) -> dict[str, Any]:
    """Print and keep the metrics of one way."""
    metrics = found.metrics.to_dict()
    keys = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")
    print(f"{name:24}" + "".join(f"  {key} {metrics[key]:.4f}" for key in keys if metrics[key] is not None), flush=True)
    return {"way": name, "unplaced": found.unplaced, **metrics}


def main() -> None:
    """Print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--turn", type=float, default=8.0, help="degrees, at most")
    parser.add_argument("--shift", type=float, default=0.06, help="of the image, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    dataset = read_layout(given.data)
    with tempfile.TemporaryDirectory() as folder:
        model, data = Path(folder) / "model.safetensors", Path(folder) / "moved"
        shutil.copy(given.model, model)
        drawn = draw(dataset, given.turn, given.shift, given.seed, data)
        header = read_header(model)
        config = header.config.data
        reference = dataset.train_good[0].path
        registration = read_registration(reference, config, given.shift + 0.04, given.turn + 4 if given.turn else 0.0)
        ways = [
            told("as they lay", evaluate(Detector.load(model), given.data)),
            told("moved", evaluate(Detector.load(model), data)),
        ]
        edit_header(model, with_scene(header, header.region, registration))
        ways.append(told("moved, registered", evaluate(Detector.load(model), data)))
        ways.append(told("as they lay, registered", evaluate(Detector.load(model), given.data)))
        found = placements(registration, dataset, drawn)
    print(found)
    asked = {"data": dataset.name, "turn": given.turn, "shift": given.shift, "seed": given.seed}
    print(f"result: {write_result('registration', {**asked, 'ways': ways, 'placements': found}, given.out)}")


if __name__ == "__main__":
    main()
