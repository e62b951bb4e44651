"""Small scratches on large images: scaled to the network's input, and in tiles of that size.

    python benchmarks/small_defects.py [--side 1024] [--size 256] [--images 8000] [--surface brushed_metal] [--good 40]
        [--test 16]

Renders good images and ones with a faint scratch, 6 pixels wide and 30 to 60 long, trains `edge` twice with the same
budget, and prints image AUROC and pixel AP of both. Pixel metrics are at the size of the maps, which differ: image
metrics compare fairly. RUNS/SURFACE-SIDE-tiles-SIZE-IMAGES/evaluation/sheet.png shows them, and that of -resize.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from record import write_result

from draem import verbs
from draem.data.demo import render_image
from draem.evaluation.evaluate import evaluate
from draem.images import write_image


def scratched(image: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The image with one scratch, and where it is."""
    side = image.shape[0]
    angle, middle = rng.uniform(0, np.pi), rng.uniform(60, side - 60, 2)
    half = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(15, 30)
    first, last = (np.rint((middle + way * half) * 16).astype(int).tolist() for way in (-1, 1))
    drawn = cv2.line(np.zeros((side, side), np.float32), first, last, 1.0, 6, cv2.LINE_AA, 4)
    change = rng.choice((-1, 1)) * rng.uniform(25, 40) * cv2.GaussianBlur(drawn, (0, 0), 0.8)
    return np.rint(np.clip(image + change[..., None], 0, 255)).astype(np.uint8), drawn > 0.5


def render(folder: Path, surface: str, side: int, good: int, test: int) -> None:
    """An MVTec AD tree with so many good images, good test images and as many scratched ones; what is there is kept."""
    plan = [("train/good", good, 0), ("test/good", test, 1000), ("test/scratch", test, 2000)]
    for place, count, _ in plan:
        if len(list((folder / place).glob("*.png"))) > count:
            sys.exit(f"small_defects: {folder / place}: holds more than {count} images; give another --runs")
    for place, count, first in plan:
        for index in range(count):
            if (folder / place / f"{index:03d}.png").exists():
                continue
            image = render_image(surface, size=side, index=first + index).image
            if place == "test/scratch":
                image, mask = scratched(image, np.random.default_rng(index))
                shown = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * np.uint8(255)
                write_image(folder / "ground_truth" / "scratch" / f"{index:03d}_mask.png", shown)
            write_image(folder / place / f"{index:03d}.png", image)


def main() -> None:
    """Render, train, evaluate, print, keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--surface", default="brushed_metal")
    parser.add_argument("--good", type=int, default=40, help="images to train on")
    parser.add_argument("--test", type=int, default=16, help="good images to test on, and as many scratched ones")
    parser.add_argument("--runs", type=Path, default=Path("runs/small_defects"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    data = options.runs / f"{options.surface}-{options.side}"
    render(data, options.surface, options.side, options.good, options.test)
    results: dict[str, Any] = {}
    for fit in ("resize", "tiles"):
        settings = {"data.fit": fit, "data.size": options.size, "data.overlap": max(options.size // 256, 1) * 64}
        settings["training.images"] = options.images
        out = options.runs / f"{data.name}-{fit}-{options.size}-{options.images}"
        found = evaluate(verbs.train(data, out, "edge", settings=settings), data)
        found.save(out / "evaluation")
        results[fit] = found.metrics.to_dict()
        print(fit, {name: None if value is None else round(value, 4) for name, value in results[fit].items()})
    given = {"surface": options.surface, "side": options.side, "size": options.size, "images": options.images}
    given |= {"good": options.good, "test": options.test}
    print(write_result("small_defects", given | results, options.out))


if __name__ == "__main__":
    main()
