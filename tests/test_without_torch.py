"""With nothing but what `pip install draem` brings: ONNX models are inspected, and what is missing is one line.

Here the packages of this environment are hidden; `tests/light/check.py` does it in an environment without them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest

from draem.images import write_image

LIGHT = Path(__file__).parent / "light" / "check.py"


def _closure(*wanted: str) -> set[str]:
    """Distributions that a plain install of these brings, by their normalised names."""
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            needed = requires(name) or []
        except PackageNotFoundError:  # for another system or Python
            continue
        found.add(name)
        waiting += [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needed if "extra ==" not in need]
    return found


BASE = _closure("draem")
HIDDEN = sorted(
    module
    for module, homes in packages_distributions().items()
    if not any(re.sub(r"[-_.]+", "-", home).lower() in BASE for home in homes) and module.isidentifier()
)
HIDE = f"import sys\nfor name in {HIDDEN!r}:\n    sys.modules[name] = None\n"


def _light(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code where only the packages of the plain install can be imported."""
    command = [sys.executable, "-c", HIDE + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _draem(*arguments: object) -> subprocess.CompletedProcess[str]:
    return _light("from draem.cli import main\nmain()", *arguments)


def test_what_is_hidden() -> None:
    assert {"torch", "safetensors", "lightning_fabric", "openvino", "matplotlib", "jinja2", "onnx", "scipy"} <= set(
        HIDDEN
    )
    assert not {"numpy", "cv2", "onnxruntime", "pydantic", "yaml", "typer", "rich", "draem"} & set(HIDDEN)
    assert _light("import torch").returncode != 0


def test_the_whole_way(tiny_onnx: Path, woven_tree: Path, tmp_path: Path) -> None:
    """The script that CI runs in a clean environment."""
    done = _light(f"import runpy; runpy.run_path({str(LIGHT)!r})", tiny_onnx, woven_tree, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["images"] == len(list(woven_tree.glob("test/*/*.png")))
    assert found["backend"].startswith("onnxruntime")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("predict MODEL IMAGE --out OUT", "is not installed: run pip install 'draem[train]'"),
        ("predict IR IMAGE --out OUT", "openvino is not installed: run pip install 'draem[openvino]'"),
        ("predict ONNX IMAGE --out OUT --backend openvino", "pip install 'draem[openvino]'"),
        ("train FOLDER --out OUT --preset edge", "pip install 'draem[train]'"),
        ("check FOLDER --html OUT.html", "pip install 'draem[report]'"),
    ],
)
def test_what_is_missing_is_one_line(
    tiny_model: Path, tiny_onnx: Path, tiny_ir: Path, tmp_path: Path, arguments: str, says: str
) -> None:
    for number in range(3):
        write_image(tmp_path / "folder" / f"{number}.png", np.full((8, 8, 3), 100 + number, np.uint8))
    words = {
        "MODEL": tiny_model,
        "ONNX": tiny_onnx,
        "IR": tiny_ir,
        "OUT": tmp_path / "out",
        "OUT.html": tmp_path / "out.html",
        "FOLDER": tmp_path / "folder",
        "IMAGE": tmp_path / "folder" / "0.png",
    }
    done = _draem(*(words.get(word, word) for word in arguments.split()))
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
