"""Inspect with an ONNX model where only what `pip install draem` brings is there; prints what was found.

python check.py MODEL.onnx DATA OUT [--backend openvino]

Run by `tests/test_without_torch.py`, and by `make light` in an environment of its own.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

import draem
from draem.cli import main


def run(*arguments: object) -> int:
    """The command line, in this process: its exit code."""
    sys.argv = ["draem", *map(str, arguments)]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


model, data, out, *options = sys.argv[1:]
model, data, out = Path(model), Path(data), Path(out)
assert importlib.util.find_spec("torch") is None, "torch is installed here"

assert run("--version") == 0
assert run("info", model) == 0
assert run("check", data) in (0, 1)
assert run("predict", model, data / "test", "--out", out / "results", *options) == 0
assert run("evaluate", model, data, "--out", out / "figures", "--threads", 1, *options) == 0

rows = [json.loads(line) for line in (out / "results" / "results.jsonl").read_text(encoding="utf-8").splitlines()]
detector = draem.load(model, **({"backend": options[1]} if options else {}))
for row, found in zip(rows, detector.stream([row["path"] for row in rows], batch_size=3), strict=True):
    assert abs(row["score"] - found.score) < 1e-5
    assert row["verdict"] == found.verdict
    assert abs(found.score - detector.predict(row["path"]).score) < 1e-5
assert detector.predict(np.zeros((50, 70, 3), np.uint8)).anomaly_map.shape == (50, 70)
figures = draem.evaluate(detector, data)
written = json.loads((out / "figures" / "metrics.json").read_text(encoding="utf-8"))
assert abs(figures.metrics.image_auroc - written["metrics"]["image_auroc"]) < 1e-6
assert "torch" not in sys.modules or sys.modules["torch"] is None
print(json.dumps({"images": len(rows), "backend": detector.backend.execution}))
