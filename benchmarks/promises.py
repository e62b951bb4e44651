"""Whether promised false-reject rates hold on good test images, which no choice has seen: the set's own other split.

    python benchmarks/promises.py runs/bottle/model.safetensors=bottle runs/tile/model.safetensors=tile

For each model a threshold is chosen on the good images that its training held out for it, by each promise that so many
images allow, and counted on the good test images. How many of these lie above is beta-binomial if both come about
alike, whatever the scores are: the chance of as many or more is printed. Then both are mixed, and drawn apart again at
random many times: there they come about alike by construction, and what is seen must be what is computed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import write_result
from scipy import stats

from draem.data.layouts import read_layout
from draem.inspection.calibration import CONFIDENT, ON_AVERAGE, Assurance, good_threshold
from draem.inspection.detector import Detector

Floats = NDArray[np.float64]


def good_scores(model: Path, data: Path) -> tuple[Floats, Floats]:
    """Of the images held out for the threshold, and of the good test images."""
    dataset, detector = read_layout(data), Detector.load(model)
    names = json.loads((model.parent / "split.json").read_text(encoding="utf-8"))["calibrate"]
    by_name = {sample.name: sample.path for sample in dataset.train_good}
    tests = [sample.path for sample in dataset.test if sample.label == "good"]
    parts = [[found.score for found in detector.stream(paths)] for paths in ([by_name[name] for name in names], tests)]
    return np.array(parts[0]), np.array(parts[1])


def held(calibrate: Floats, test: Floats, rate: float, assurance: Assurance) -> dict[str, Any]:
    """One threshold, and how likely as many rejects as there are would be."""
    threshold, promise = good_threshold(calibrate.tolist(), rate, assurance)
    rejected, beyond = int((test > threshold).sum()), assurance.beyond(len(calibrate), rate)
    rejects = stats.betabinom(len(test), beyond + 1, len(calibrate) - beyond)
    return {
        "promise": promise.in_words(),
        "rejected": rejected,
        "of": len(test),
        "expected": float(rejects.mean()),
        "chance_of_as_many": float(rejects.sf(rejected - 1)),
    }


def shuffled(scores: Floats, count: int, rate: float, assurance: Assurance, draws: int) -> dict[str, float]:
    """Of random divisions: the mean share rejected, and how often more than the rate, beside what is computed."""
    random, beyond, rest = np.random.default_rng(0), assurance.beyond(count, rate), len(scores) - count
    found = []
    for _ in range(draws):
        order = random.permutation(scores)
        found.append(float(np.mean(order[count:] > good_threshold(order[:count].tolist(), rate, assurance)[0])))
    rejects = stats.betabinom(rest, beyond + 1, count - beyond)
    return {
        "mean": float(np.mean(found)),
        "mean_computed": (beyond + 1) / (count + 1),
        "more_than_promised": float(np.mean(np.array(found) > rate)),
        "more_than_promised_computed": float(rejects.sf(np.floor(rate * rest + 1e-9))),
    }


def main() -> None:
    """Print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="MODEL=DATA")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--result", type=Path)
    given = parser.parse_args()
    rows = []
    for pair in given.pairs:
        model, _, data = pair.partition("=")
        calibrate, test = good_scores(Path(model), Path(data))
        for assurance in (CONFIDENT, ON_AVERAGE):
            rate = max(0.05, assurance.best_rate(len(calibrate)) + 1e-9)
            one = held(calibrate, test, rate, assurance)
            both = np.concatenate((calibrate, test))
            drawn = shuffled(both, len(calibrate), rate, assurance, given.draws)
            rows.append({"set": Path(data).name, "model": model, "images": len(calibrate), **one, "shuffled": drawn})
            print(f"{Path(data).name}: {one['promise']}: {one['rejected']} of {one['of']} rejected, ", end="")
            print(
                f"expected {one['expected']:.1f} (as many or more: {one['chance_of_as_many']:.3f}); shuffled: ", end=""
            )
            print(f"mean {drawn['mean']:.4f} ({drawn['mean_computed']:.4f} computed), ", end="")
            print(f"broken {drawn['more_than_promised']:.4f} ({drawn['more_than_promised_computed']:.4f} computed)")
    rows = [{**row, "model": Path(row["model"]).parent.name} for row in rows]
    print(write_result("promises", {"draws": given.draws, "rows": rows}, given.result))


if __name__ == "__main__":
    main()
