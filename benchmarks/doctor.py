"""How fast the doctor is: N images of 512² with noise and texture, as PNG files, and a defect with its mask on a tenth.

    python benchmarks/doctor.py [--images 10000] [--workers 2] [--folder FOLDER] [--out results.json]

The files are made from 50 rendered photographs, shifted around, lit differently and with noise of their own, so that
decoding and comparing cost what they cost on real ones. Making them is not timed; they stay in the folder if one is
given, and are used again. Prints seconds, images a second and the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from record import write_result

from draem.data.demo import render_image
from draem.data.doctor.examine import check_dataset
from draem.data.layouts import read_layout

PHOTOGRAPHS, SIDE = 50, 512


def make(folder: Path, images: int) -> None:
    """Write the images that are not there yet: 8 of 10 to train, one good and one anomalous to test."""
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(make_from, folder, images), range(PHOTOGRAPHS)))


def make_from(folder: Path, images: int, piece: int) -> None:
    """Write the images that come from one rendered photograph."""
    defect = render_image("woven", "hole", size=SIDE, index=piece)
    good = render_image("woven", size=SIDE, index=piece)
    for number in range(piece, images, PHOTOGRAPHS):
        job = (number // PHOTOGRAPHS) % 10
        place = "train/good" if job < 8 else "test/good" if job == 8 else "test/hole"
        path = folder / place / f"{number:06d}.png"
        if path.exists():
            continue
        rng = np.random.default_rng(number)
        shift = tuple(int(by) for by in rng.integers(0, SIDE, 2))
        source = defect if job == 9 else good
        noise = rng.standard_normal((SIDE, SIDE, 3), np.float32) * 3
        image = np.roll(source.image, shift, (0, 1)) * rng.uniform(0.95, 1.05) + noise
        write(path, np.clip(image, 0, 255).astype(np.uint8))
        if job == 9:
            mask = folder / "ground_truth" / "hole" / f"{number:06d}_mask.png"
            write(mask, np.roll(source.mask, shift, (0, 1)).astype(np.uint8) * 255)


def write(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def measure(folder: Path, workers: int) -> dict[str, object]:
    """Examine the folder once."""
    cv2.setNumThreads(1)
    start = time.perf_counter()
    dataset = read_layout(folder)
    gathered = []

    def progress(done: int, total: int) -> None:
        if done == total:
            gathered.append(time.perf_counter() - start)

    report = check_dataset(dataset, progress, workers)
    seconds = time.perf_counter() - start
    images = len(dataset.samples)
    return {
        "images": images,
        "side": SIDE,
        "workers": workers,
        "seconds": round(seconds, 1),
        "seconds_reading": round(gathered[0], 1),
        "images_per_second": round(images / seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "findings": report.tally(),
    }


def main() -> None:
    """Make the images, measure, write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        make(folder, options.images)
        result = measure(folder, options.workers)
    for name, value in result.items():
        print(f"{name:18} {value}")
    print(f"written: {write_result('doctor', result, options.out)}")


if __name__ == "__main__":
    main()
