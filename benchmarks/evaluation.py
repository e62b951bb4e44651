"""Time and memory of `draem evaluate` on very many large images: python benchmarks/evaluation.py MODEL

Renders a hundred images of 1024², good ones and ones with a defect and its mask, and lays them out ten thousand times
by hard links, which are files of their own to whoever reads them. Memory is the highest of the process (ru_maxrss), all
that is loaded included; what it had before the images is told as well.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from record import write_result

from draem.data.demo import render_demo
from draem.evaluation.evaluate import evaluate
from draem.images import read_image, read_mask, write_image
from draem.inspection.detector import Detector

SIDE = 1024


def lay_out(root: Path, count: int) -> Path:
    """A data set in MVTec's layout with so many test images, half of them anomalous."""
    (tree,) = render_demo(root / "rendered", "woven", size=256, train=1, test_good=50, test_defect=13)
    out = root / "many"
    good = [_large(path, root / "large" / f"good-{path.stem}.jpg") for path in sorted((tree / "test/good").iterdir())]
    bad = []
    for mask in sorted((tree / "ground_truth").glob("*/*_mask.png"))[:50]:
        kind, stem = mask.parent.name, mask.stem.removesuffix("_mask")
        image = _large(tree / "test" / kind / f"{stem}.png", root / "large" / f"{kind}-{stem}.jpg")
        scaled = cv2.resize(read_mask(mask).astype(np.uint8) * 255, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
        write_image(root / "large" / f"{kind}-{stem}_mask.png", np.asarray(scaled, np.uint8))
        bad.append((kind, image, root / "large" / f"{kind}-{stem}_mask.png"))
    for number in range(count // 2):
        kind, image, mask = bad[number % len(bad)]
        _link(good[number % len(good)], out / "test" / "good" / f"{number:05d}.jpg")
        _link(image, out / "test" / kind / f"{number:05d}.jpg")
        _link(mask, out / "ground_truth" / kind / f"{number:05d}_mask.png")
    _link(good[0], out / "train" / "good" / "0.jpg")
    return out


def _large(path: Path, out: Path) -> Path:
    large = cv2.resize(read_image(path), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    write_image(out, np.asarray(large, np.uint8))
    return out


def _link(path: Path, name: Path) -> None:
    name.parent.mkdir(parents=True, exist_ok=True)
    os.link(path, name)


def megabytes() -> float:
    """The most that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--result", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = lay_out(Path(folder), given.images)
        detector = Detector.load(given.model, "cpu", threads=given.threads)
        before, start = megabytes(), time.perf_counter()
        found = evaluate(detector, data)
        seconds, after = time.perf_counter() - start, megabytes()
        found.save(Path(folder) / "out")
    results = {
        "images": len(found.images),
        "side": SIDE,
        "input_size": found.input_size,
        "execution": detector.backend.execution,
        "seconds": seconds,
        "images_per_second": len(found.images) / seconds,
        "megabytes_before": before,
        "megabytes_most": after,
        "intervals": found.intervals,
    }
    for name, value in results.items():
        print(f"{name:20} {value}")
    print(write_result("evaluation", results, given.result))


if __name__ == "__main__":
    main()
