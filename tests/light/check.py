"""Inspect with an ONNX model where only what `pip install draem` brings is there; prints what was found.

python check.py MODEL DATA OUT

Run by `tests/test_without_torch.py`, and by `tests/light/install.py` in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path

started = time.perf_counter()
import draem  # noqa: E402 (its time counts)

model, data, out = (Path(argument) for argument in sys.argv[1:])
detector = draem.load(model)
seconds = time.perf_counter() - started

import numpy as np  # noqa: E402

from draem.cli import main  # noqa: E402


def run(*arguments: object) -> int:
    """The command line, in this process: its exit code."""
    sys.argv = ["draem", *map(str, arguments)]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


assert importlib.util.find_spec("torch") is None, "torch is installed here"

assert run("--version") == 0
assert run("info", model) == 0
assert run("check", data) in (0, 1)
assert run("predict", model, data / "test", "--out", out / "results") == 0
assert run("evaluate", model, data, "--out", out / "figures", "--threads", 1) == 0

rows = [json.loads(line) for line in (out / "results" / "results.jsonl").read_text(encoding="utf-8").splitlines()]
for row, found in zip(rows, detector.stream([row["path"] for row in rows], batch_size=3), strict=True):
    assert abs(row["score"] - found.score) < 1e-5
    assert row["verdict"] == found.verdict
    assert abs(found.score - detector.predict(row["path"]).score) < 1e-5
assert detector.predict(np.zeros((50, 70, 3), np.uint8)).anomaly_map.shape == (50, 70)
figures = draem.evaluate(detector, data).metrics.to_dict()
written = json.loads((out / "figures" / "metrics.json").read_text(encoding="utf-8"))["metrics"]
for name, value in written.items():
    assert value is None or abs(figures[name] - value) < 1e-6
assert sys.modules.get("torch") is None
print(json.dumps({"images": len(rows), "backend": detector.backend.execution, "load_seconds": round(seconds, 2)}))
