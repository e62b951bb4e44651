"""How fast pixel metrics are counted and in how much memory; beside scikit-learn on a set small enough for it.

    python benchmarks/metrics.py [--images 954] [--size 1024] [--out benchmarks/results/metrics.json]

Counts about 1e9 pixels by default, half of the images with defects; the rows of a few maps are rolled for each image,
outside the time taken. Peak memory is the whole process's, read before scikit-learn is imported.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from record import write_result

from draem.evaluation.metrics import PixelCounts

Pair = tuple[NDArray[np.float32], NDArray[np.bool_]]


def make_pairs(size: int, number: int = 4) -> list[Pair]:
    """Smooth noisy maps with their masks; every second mask holds a disc, a scratch and a few specks."""
    rng = np.random.default_rng(0)
    pairs: list[Pair] = []
    for index in range(number):
        canvas = np.zeros((size, size), np.uint8)
        if index % 2:
            cv2.circle(canvas, (size // 3, size // 2), size // 12, 1, -1)
            cv2.line(canvas, (size // 2, size // 8), (size - 9, size // 3), 1, 3)
            for x, y in rng.integers(0, size, (8, 2)):
                canvas[y, x] = 1
        noise = rng.normal(0.2, 0.2, (size, size)).astype(np.float32) + 0.4 * canvas
        smooth = np.asarray(cv2.blur(noise, (5, 5)), dtype=np.float32)
        pairs.append((smooth.clip(0, 1), canvas > 0))
    return pairs


def count_images(images: int, size: int) -> dict[str, float | int | None]:
    """Time `images` updates and one reading of all metrics."""
    pairs, counts, seconds = make_pairs(size), PixelCounts(), []
    for index in range(images):
        anomaly_map, mask = pairs[index % len(pairs)]
        anomaly_map, mask = np.roll(anomaly_map, index, axis=0), np.roll(mask, index, axis=0)
        start = time.perf_counter()
        counts.update(anomaly_map, mask)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    values = (counts.auroc(), counts.ap(), counts.f1_max(), counts.aupro())
    reading = time.perf_counter() - start
    assert None not in values
    return {
        "images": images,
        "size": size,
        "pixels": images * size * size,
        "update_seconds": round(sum(seconds), 3),
        "update_median_ms": round(1e3 * float(np.median(seconds)), 3),
        "reading_ms": round(1e3 * reading, 3),
    }


def compare_with_sklearn(images: int, size: int) -> dict[str, float | int]:
    """AUROC, AP and F1-max of the same pixels both ways (scikit-learn has no AUPRO, ours counts it too)."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    pairs = (make_pairs(size) * images)[:images]
    start = time.perf_counter()
    counts = PixelCounts()
    for anomaly_map, mask in pairs:
        counts.update(anomaly_map, mask)
    ours = (counts.auroc(), counts.ap(), counts.f1_max())
    counts.aupro()
    own_seconds = time.perf_counter() - start

    start = time.perf_counter()
    scores = np.concatenate([anomaly_map.ravel() for anomaly_map, _ in pairs])
    labels = np.concatenate([mask.ravel() for _, mask in pairs])
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))
    theirs = (roc_auc_score(labels, scores), average_precision_score(labels, scores), f1)
    sklearn_seconds = time.perf_counter() - start
    return {
        "images": images,
        "size": size,
        "seconds": round(own_seconds, 4),
        "sklearn_seconds": round(sklearn_seconds, 4),
        "times_faster": round(sklearn_seconds / own_seconds, 1),
        "largest_difference": max(abs(float(a or 0) - float(b)) for a, b in zip(ours, theirs, strict=True)),
    }


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MB (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=954)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    cv2.setNumThreads(1)

    before = peak_rss_mb()
    small = count_images(200, 256)
    large = count_images(options.images, options.size)
    peak = peak_rss_mb()
    results = {
        "threads": 1,
        "peak_rss_mb": peak,
        "rss_after_imports_mb": before,
        "large": large,
        "small": small,
        "sklearn": compare_with_sklearn(16, 512),
    }
    print(json.dumps(results, indent=1))
    print(write_result("metrics", results, options.out))


if __name__ == "__main__":
    main()
