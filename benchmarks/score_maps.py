"""Trained networks under the segmentation's map and the joint one: accuracy on test images, time of the joint map.

    python benchmarks/score_maps.py runs/bottle/model.safetensors=mvtec/bottle…

Both maps come from the same network and the same score filter. Times are of one image of the network's size, by one
thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from record import write_result

from draem.evaluation.evaluate import evaluate
from draem.inspection.detector import Detector
from draem.inspection.residual import joint_map

_KEYS = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")


def scored(model: Path, data: Path, map_: str) -> dict[str, Any]:
    """The metrics under a map."""
    detector = Detector.load(model)
    config = detector.header.config
    score = config.score.model_copy(update={"map": map_})
    detector.header = detector.header.model_copy(update={"config": config.model_copy(update={"score": score})})
    metrics = evaluate(detector, data).metrics.to_dict()
    print(f"{model} {map_:14}" + "".join(f"  {key} {metrics[key]:.4f}" for key in _KEYS), flush=True)
    return metrics


def milliseconds(size: tuple[int, int], channels: int, repeats: int = 100) -> float:
    """Median time of the joint map of an image."""
    random, times = np.random.default_rng(0), []
    segmented, (image, restored) = random.random(size, np.float32), random.random((2, channels, *size), np.float32)
    for _ in range(repeats):
        start = time.perf_counter()
        joint_map(segmented, image, restored)
        times.append(1000.0 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    """Print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL=DATA")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    for pair in given.models:
        model, _, data = pair.partition("=")
        header = Detector.load(model).header
        found = {map_: scored(Path(model), Path(data), map_) for map_ in ("segmentation", "joint")}
        rows.append(
            {
                "data": Path(data).name,
                "preset": header.config.preset,
                "filter_size": header.config.score.filter_size,
                "milliseconds": milliseconds(header.config.data.size, header.channels),
                **found,
            }
        )
    print(f"result: {write_result('score_maps', {'rows': rows}, given.out)}")


if __name__ == "__main__":
    main()
