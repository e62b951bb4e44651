"""Int8 against plain eager fp32 torch: milliseconds of one image, and what the answers lose on labelled images.

The first model is the one whose torch run all ratios are taken against: the 128/64 network. All runs take turns.

    python benchmarks/int8.py wide.safetensors fast.safetensors edge.safetensors --data bottle
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write_result

from draem.data.layouts import read_layout
from draem.data.samples import Dataset
from draem.deployment.formats import Int8Format, OnnxFormat, OpenvinoFormat, Run
from draem.deployment.graph import onnx_graph
from draem.deployment.quantise import BUDGET, Damage, Quantised, quantise
from draem.evaluation.evaluate import Evaluation, evaluate_dataset
from draem.inspection.detector import Detector
from draem.inspection.onnx_backend import int8_entries
from draem.inspection.openvino_backend import import_openvino, int8_options
from draem.modelfile import Header
from draem.network.draem import Draem, anomaly_map
from draem.network.weights import load_model
from draem.pixels import Images

_SETTLE = 0.2
"""Seconds between two runs: a runtime's threads go on spinning for a while, at the cost of the next one's."""
_NO_LIMIT = Damage(math.inf, math.inf, math.inf, 2**31)


@dataclass
class Row:
    """One way to run one model."""

    model: str
    way: str
    run: Run
    seconds: list[float]
    kept: int = 0
    metrics: dict[str, Any] | None = None

    @property
    def milliseconds(self) -> float:
        """Median of the repeats."""
        return statistics.median(self.seconds) * 1000


class _Runs:
    """A way to run as a detector's backend."""

    name, execution, in_flight = "benchmark", "benchmark", 1

    def __init__(self, run: Run) -> None:
        self.run = run


def ways(path: Path, dataset: Dataset, chosen: list[str]) -> tuple[list[Row], Header]:
    """The ways to run a model, at batch 1: all, or those whose names are chosen."""
    network, header = load_model(path)
    graph = onnx_graph(network, header.channels, header.config.data.size, 1)
    onnx, openvino = OnnxFormat(graph), OpenvinoFormat(graph)
    rows = [Row(path.stem, "torch fp32 eager", _eager(network), [])]
    for hint, name in (("f32", "fp32"), ("bf16", "bf16"), ("f16", "fp16")):
        rows.append(Row(path.stem, f"OpenVINO {name}", _openvino(openvino.float_model(), hint, {}), []))
    rows.append(Row(path.stem, "ONNX Runtime fp32", onnx.runner(onnx.float_model()), []))
    for words, budget in (("int8", BUDGET), ("int8 throughout", _NO_LIMIT)):
        if not chosen or f"OpenVINO {words}" in chosen:
            made = next(quantise(network, header, "openvino", 1, dataset, budget=budget))
            core = import_openvino()
            model = core.Core().read_model(made.content, core.Tensor(np.frombuffer(made.weights, np.uint8)))
            for hint in ("f32", "bf16") if made.kept else ("f32",):
                rest = f", rest {hint}" if made.kept else ""
                how = ", emulated" if int8_options() else ""
                run = _openvino(model, hint, int8_options())
                rows.append(Row(path.stem, f"OpenVINO {words}{rest}{how}", run, [], len(made.kept)))
        if not chosen or f"ONNX Runtime {words}" in chosen:
            rows.append(
                _onnx_row(path.stem, words, onnx, next(quantise(network, header, "onnx", 1, dataset, budget=budget)))
            )
    return [row for row in rows if not chosen or row.way.split(",")[0] in chosen], header


def _onnx_row(name: str, words: str, form: Int8Format, made: Quantised) -> Row:
    from onnx import load_from_string

    how = ", emulated" if int8_entries() else ""
    return Row(name, f"ONNX Runtime {words}{how}", form.runner(load_from_string(made.content)), [], len(made.kept))


def _eager(network: Draem) -> Run:
    def run(images: Images) -> tuple[Images, Images]:
        with torch.inference_mode():
            reconstruction, logits = network(torch.from_numpy(images))
            return anomaly_map(logits).numpy(), reconstruction.numpy()

    return run


def _openvino(model: Any, hint: str, options: Mapping[str, str]) -> Run:
    told = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", **options}
    compiled = import_openvino().Core().compile_model(model, "CPU", told)
    request = compiled.create_infer_request()

    def run(images: Images) -> tuple[Images, Images]:
        found = request.infer({0: images})
        return np.array(found[0]), np.array(found[1])

    return run


def measure(rows: list[Row], shape: tuple[int, ...], repeats: int) -> None:
    """Time all ways in turn, each once before the clock runs."""
    images = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    for repeat in range(repeats + 1):
        for row in rows:
            time.sleep(_SETTLE)
            start = time.perf_counter()
            row.run(images)
            if repeat:
                row.seconds.append(time.perf_counter() - start)


def judge(rows: list[Row], header: Header, dataset: Dataset, say: Callable[[str], None]) -> None:
    """Metrics on the test images, and how many verdicts differ from the first row's."""
    before: Evaluation | None = None
    for row in rows:
        say(f"{row.model}: {row.way}")
        found = evaluate_dataset(Detector(_Runs(row.run), header), dataset, batch_size=1)
        before = before or found
        flips = sum(a.verdict != b.verdict for a, b in zip(before.images, found.images, strict=True))
        score = max(abs(a.score - b.score) for a, b in zip(before.images, found.images, strict=True))
        row.metrics = found.metrics.to_dict() | {"flips": flips, "score_difference": score}


def main() -> None:
    """Print the table and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True, help="good images to calibrate on; labelled ones to judge")
    parser.add_argument("--only", nargs="+", default=[], metavar="WAY", help="such as 'torch fp32 eager'")
    parser.add_argument("--judge", nargs="*", metavar="WAY", help="ways whose answers are judged; all unless told")
    parser.add_argument("--base", type=Path, help="another model, run in eager torch alone, for the ratios")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    dataset = read_layout(given.data, "auto", None)
    rows: list[Row] = []
    if given.base:
        network, header = load_model(given.base)
        rows.append(Row(given.base.stem, "torch fp32 eager", _eager(network), []))
        measure(rows, (header.channels, *header.config.data.size), given.repeats)
    for path in given.models:
        some, header = ways(path, dataset, given.only)
        measure(some, (header.channels, *header.config.data.size), given.repeats)
        judged = [row for row in some if given.judge is None or row.way.split(",")[0] in given.judge]
        judge(judged, header, dataset, lambda line: print(f"… {line}", flush=True))
        rows += some
    base = rows[0].milliseconds
    for row in rows:
        found = row.metrics or {}
        keys = ("image_auroc", "pixel_ap", "score_difference", "flips")
        told = "  ".join(f"{key} {found[key]:.4g}" for key in keys if key in found)
        ratio = base / row.milliseconds
        print(f"{row.model:20} {row.way:30} {row.milliseconds:8.1f} ms {ratio:6.1f}×  kept {row.kept:2}  {told}")
    results = [
        {key: value for key, value in asdict(row).items() if key not in ("run", "seconds")}
        | {"milliseconds": row.milliseconds, "ratio": base / row.milliseconds}
        for row in rows
    ]
    print(f"result: {write_result('int8', {'repeats': given.repeats, 'ways': results}, given.out)}")


if __name__ == "__main__":
    main()
