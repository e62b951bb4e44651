"""Write docs/demo.png from what `make demo` left behind.

python docs/make_picture.py [DEMO]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from draem import load
from draem.images import fit_image, fit_mask, read_image, read_mask, write_image
from draem.pictures import heat_map, overlay, sheet

PICTURE = Path(__file__).parent / "demo.png"
SHOWN = (
    ("woven", "hole/001"),
    ("woven", "stain/000"),
    ("brushed_metal", "rust/002"),
    ("brushed_metal", "dent/001"),
    ("printed", "missing_print/001"),
    ("printed", "smear/002"),
    ("printed", "good/000"),
)
TITLES = ("image", "truth", "reconstruction", "anomaly map", "overlay")


def main(demo: Path) -> None:
    """Inspect the images again and set them in rows."""
    rows, captions = [], []
    for surface, name in SHOWN:
        root = demo / "data" / surface
        detector = load(demo / "runs" / surface / "model.safetensors", "cpu")
        found = detector.predict(root / "test" / f"{name}.png")
        size = found.input_map.shape
        truth = np.zeros(size, bool)
        path = root / "ground_truth" / f"{name}_mask.png"
        if path.exists():
            truth = fit_mask(read_mask(path), size, "resize")
        small = fit_image(read_image(root / "test" / f"{name}.png"), size, "resize")
        laid = overlay(found.image, found.anomaly_map, found.anomaly_mask)
        rows.append([small, truth, found.reconstruction, heat_map(found.input_map), laid])
        captions.append(f"{surface}, {name}: score {found.score:.3f}, {found.verdict}")
    write_image(PICTURE, sheet(rows, TITLES, captions, cell=(160, 160)))
    print(PICTURE)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
