"""Write docs/studio.png and docs/coverage.png: the components, and real defects among simulated ones.

python docs/make_studio.py DATA    (DATA: a data set with marked defects, for the coverage plot)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from draem.config import Config
from draem.data.demo import render_demo
from draem.preview import write_preview

DOCS = Path(__file__).parent
DEFAULT = Config.resolve("fast")
MIXED = Config.resolve("fast", DOCS.parent / "configs" / "studio.yaml")


def main(data: Path) -> None:
    """Every kind of mask and source on a rendered plate; real defects among the simulated ones."""
    with tempfile.TemporaryDirectory() as folder:
        (plates,) = render_demo(Path(folder), "brushed_metal", train=20, test_good=0, test_defect=0)
        write_preview(plates, Path(folder) / "plates.png", MIXED, count=1, seed=0)
        shutil.copy(Path(folder) / "plates-components.png", DOCS / "studio.png")
        write_preview(data, Path(folder) / "real.png", DEFAULT, count=1, seed=0, comparing=True)
        shutil.copy(Path(folder) / "real-coverage.png", DOCS / "coverage.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
