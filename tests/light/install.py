"""Install what a line PC has, without torch, into an environment of its own, and inspect there.

python tests/light/install.py

First `pip install draem`, then `draem[openvino]`; prints what each weighs and how long it takes to load a model, and
fails where one of them is too large or finds anything else than it should.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from draem.data.demo import render_demo  # noqa: E402
from draem.modelfile import Thresholds  # noqa: E402
from tiny import write_tiny_ir, write_tiny_model, write_tiny_onnx  # noqa: E402

LARGEST = {"draem": 400, "draem[openvino]": 600}
"""Megabytes on the disk, with all that it needs."""


def megabytes(python: Path) -> float:
    """What is installed for a Python, but for pip itself."""
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    files = (path for path in packages.rglob("*") if path.is_file() and not path.is_symlink())
    ours = (path for path in files if path.relative_to(packages).parts[0].split("-")[0] not in ("pip", "setuptools"))
    return sum(path.stat().st_size for path in ours) / 1e6


def main() -> None:
    """Make the models, install, inspect."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        thresholds = Thresholds(reject=0.555, chosen_on="nothing: a test's")
        onnx = write_tiny_onnx(write_tiny_model(folder / "m.safetensors", thresholds), folder / "m.onnx")
        models = {"draem": onnx, "draem[openvino]": write_tiny_ir(onnx, folder / "ir.xml")}
        (data,) = render_demo(folder / "data", "woven", size=64, train=4, test_good=3, test_defect=2)
        environment = folder / "environment"
        venv.create(environment, with_pip=True)
        python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        for extra, model in models.items():
            wanted = extra.replace("draem", str(ROOT))
            install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt")
            subprocess.run([python, *install, wanted], check=True)
            check = [python, ROOT / "tests" / "light" / "check.py", model, data, folder / model.stem]
            done = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{extra}: {done.stderr}")
            weight = megabytes(python)
            print(f"{extra}: {weight:.0f} MB installed, {done.stdout.splitlines()[-1]}")
            if weight > LARGEST[extra]:
                sys.exit(f"{extra}: {weight:.0f} MB installed, at most {LARGEST[extra]} wanted")


if __name__ == "__main__":
    main()
