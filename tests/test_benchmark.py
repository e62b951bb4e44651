"""The benchmark: its figures against closed forms and against `evaluate`; ways that fail are told; what it writes."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import draem
from conftest import Outcome
from draem.config import Config
from draem.data.layouts import read_layout
from draem.data.samples import Sample, stratified
from draem.deployment import graph
from draem.deployment.benchmark import process, ways
from draem.deployment.benchmark.figures import figures_of
from draem.deployment.benchmark.job import Accuracy, Figures, Job, Rate
from draem.deployment.benchmark.material import TIMED_IMAGES, Material, of_dataset, rendered
from draem.deployment.benchmark.measure import measure
from draem.deployment.benchmark.plot import latency_plot
from draem.deployment.benchmark.process import measure_apart
from draem.deployment.benchmark.result import Benchmark, Row, machine, machine_in_words
from draem.deployment.benchmark.run import benchmark
from draem.deployment.benchmark.stopwatch import Latency, peak_memory, rate, timed
from draem.deployment.benchmark.ways import Way, chosen, ways_to_run
from draem.deployment.export import Export, export
from draem.errors import ConfigError, DraemError
from draem.inspection.detector import Detector
from draem.inspection.execution import Execution
from draem.modelfile import Artefact, edit_header, read_header
from draem.pixels import Images
from draem.tables.models import benchmark_table
from tiny import write_tiny_model

Run = Callable[..., Outcome]
TRAINED = [
    *("torch:fp32", "torch:bf16", "onnxruntime:fp32", "onnxruntime:fp16", "onnxruntime:int8"),
    *("openvino:fp32", "openvino:fp16", "openvino:bf16", "openvino:int8"),
]


class FakeClock:
    """A clock that only actions move on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *seconds: float) -> Callable[[], None]:
        """An action that takes each of these times in turn, the last one for ever."""
        left = list(seconds)

        def action() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return action


def fake_figures(**changes: Any) -> Figures:
    rates = [Rate(100.0, 1, 1), Rate(150.0, 4, 2), Rate(140.0, 8, 1)]
    metrics: dict[str, float | None] = {"image_auroc": 0.9, "pixel_ap": 0.5}
    figures = Figures("fake in fp32", 0.5, [4.0, 5.0], [3.0, 3.5], 10**8, rates, Rate(90.0, 4, 2), metrics, 5)
    return replace(figures, **changes)


# ------------------------------------------------------------------------------------------------------------ figures


def test_times_and_their_percentiles() -> None:
    clock = FakeClock()
    times = timed(clock.taking(*(n / 1000 for n in range(1, 102))), 101, clock=clock)
    np.testing.assert_allclose(times, np.arange(1, 102))
    found = Latency.of(times)
    np.testing.assert_allclose((found.p50, found.p95, found.p99), (51, 96, 100))
    assert found.runs == 101


@pytest.mark.parametrize(("runs", "seconds", "least", "taken"), [(9, 3.0, 2, 3), (9, 0.5, 4, 4), (2, 9.0, 1, 2)])
def test_times_end_with_the_runs_or_the_seconds(runs: int, seconds: float, least: int, taken: int) -> None:
    clock = FakeClock()
    assert len(timed(clock.taking(1.0), runs, seconds, least, clock)) == taken


def test_rate_counts_what_is_done_and_not_the_warm_up() -> None:
    clock = FakeClock()
    assert rate(clock.taking(60.0, 0.25), 4, seconds=2, clock=clock) == pytest.approx(16)
    assert rate(clock.taking(3.0), 8, seconds=0.5, clock=clock) == pytest.approx(8 / 3)


def test_rate_keeps_as_many_runs_in_flight_as_asked_for() -> None:
    running, most = [0], [0]

    def action() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02)
        running[0] -= 1

    rate(action, 1, in_flight=3, seconds=0.05)
    assert most[0] == 3


def test_peak_memory_sees_what_was_held_and_let_go() -> None:
    code = (
        "from draem.deployment.benchmark.stopwatch import peak_memory\n"
        "before = peak_memory(); held = b'1' * 10**8; del held\nprint(before, peak_memory())"
    )
    if peak_memory() is None:
        pytest.skip("this system does not tell")
    ballast = b"1" * 3 * 10**8  # of the parent: none of the child's
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < len(ballast)
    assert 0.9e8 < after - before < 1.3e8


class FakeBackend:
    """Maps that are the mean of the channels."""

    name, execution, in_flight = "fake", "fake on cpu in fp32", 1

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(self, images: Images) -> tuple[Images, Images]:
        self.sizes.append(len(images))
        return images.mean(axis=1), images


def job_of(tree: Path, model: Path, **changes: Any) -> Job:
    files = [str(path) for path in sorted((tree / "test" / "hole").glob("*.png"))]
    job = Job(str(model), vars(Execution("torch", "cpu", threads=1)), files, runs=4, exactly=True)
    return replace(job, **changes)


def test_figures_of_a_fake_backend(tiny_model: Path, woven_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend()
    asked: list[int] = []
    figures_module = sys.modules[figures_of.__module__]

    def fake_rate(action: Callable[[], object], amount: float, in_flight: int) -> float:
        action()
        asked.append(backend.sizes[-1])
        return 10.0 + amount if amount < 8 else 1.0

    monkeypatch.setattr(
        figures_module, "rate", lambda action, amount, in_flight=1: fake_rate(action, amount, in_flight)
    )
    detector = Detector(backend, read_header(tiny_model))
    job = job_of(woven_tree, tiny_model, accuracy=Accuracy(str(woven_tree), "auto", None, 100))
    found = figures_of(detector, Execution(threads=1), job, 0.25)
    assert found.rates == [Rate(11, 1, 1), Rate(12, 2, 1), Rate(14, 4, 1), Rate(1, 8, 1)]
    assert asked[:4] == [1, 2, 4, 8]
    assert found.files is not None
    assert (found.files.batch, found.files.streams) == (4, 1)
    assert (len(found.decision), len(found.network), found.load_seconds) == (4, 4, 0.25)
    expected = draem.evaluate(Detector(FakeBackend(), detector.header), woven_tree)
    assert found.metrics == expected.metrics.to_dict()
    assert found.evaluated == expected.count()


def test_a_fixed_batch_is_the_only_one_tried(tiny_model: Path, woven_tree: Path) -> None:
    artefact = Artefact(format="onnx", precision="fp32", batch=1, source_sha256="")
    detector = Detector(FakeBackend(), read_header(tiny_model).model_copy(update={"artefact": artefact}))
    found = figures_of(detector, Execution(threads=1), job_of(woven_tree, tiny_model), 0.0)
    assert [one.batch for one in found.rates] == [1]


def test_another_precision_than_asked_for_is_refused(tiny_model: Path, woven_tree: Path) -> None:
    detector = Detector(FakeBackend(), read_header(tiny_model))
    with pytest.raises(ConfigError, match="bf16 was asked for, but this is fake on cpu in fp32"):
        figures_of(detector, Execution(precision="bf16"), job_of(woven_tree, tiny_model), 0.0)


def test_unreadable_images_are_passed_over(tiny_model: Path, woven_tree: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    job = job_of(woven_tree, tiny_model, throughput=False)
    assert len(measure(replace(job, images=[str(bad), *job.images])).decision) == 4
    with pytest.raises(DraemError, match=r"none of 1 images to measure with can be read; first: .*bad\.png"):
        measure(replace(job, images=[str(bad)]))


def test_stratified_takes_some_of_every_kind(woven_tree: Path) -> None:
    samples = read_layout(woven_tree).test
    kinds = {sample.defect for sample in samples}
    few = stratified(samples, len(kinds))
    assert {sample.defect for sample in few} == kinds
    assert list(few) == [sample for sample in samples if sample in few]
    assert stratified(samples, 1000) == samples
    many = [Sample(Path(f"{n}"), f"{n:03}", "test", "c", "good", "good", None) for n in range(90)]
    rare = [Sample(Path(f"x{n}"), f"x{n}", "test", "c", "anomalous", "hole", None) for n in range(10)]
    few = stratified(many + rare, 16)
    assert [sample.name for sample in few if sample.defect == "hole"] == [f"x{n}" for n in (0, 1, 2, 3, 5, 6, 7, 8)]
    assert [sample.name for sample in few if sample.defect == "good"] == [f"{n * 90 // 8:03}" for n in range(8)]
    assert stratified(rare + many, 16) == few


# --------------------------------------------------------------------------------------------------------------- ways


def test_ways_of_a_trained_and_of_exported_models(tiny_model: Path) -> None:
    header = read_header(tiny_model)
    assert [way.name for way in ways_to_run(tiny_model, header)] == TRAINED

    def of(name: str, precision: str) -> list[str]:
        artefact = Artefact.model_validate({"format": "onnx", "precision": precision, "source_sha256": ""})
        return [way.name for way in ways_to_run(Path(name), header.model_copy(update={"artefact": artefact}))]

    assert of("m.onnx", "fp32") == ["onnxruntime:fp32", "openvino:fp32", "openvino:bf16"]
    assert of("m.xml", "int8") == ["openvino:int8"]


def test_some_ways_in_their_own_order(tiny_model: Path) -> None:
    found = ways_to_run(tiny_model, read_header(tiny_model))
    assert [way.name for way in chosen(found, "openvino:int8, torch")] == ["torch:fp32", "torch:bf16", "openvino:int8"]
    with pytest.raises(ConfigError, match=r"--only cuda: this model is run by torch:fp32, .*openvino:int8$"):
        chosen(found, "torch,cuda")


# ---------------------------------------------------------------------------------------------------------- the whole


def test_every_round_measures_all_ways_in_turn(tiny_model: Path, tiny_onnx: Path, woven_tree: Path) -> None:
    seen: list[tuple[str, bool, bool, int]] = []

    def fake(job: Job) -> Figures:
        assert job.exactly
        seen.append((job.execution["backend"], job.throughput, job.accuracy is not None, job.runs))
        times = [float(len(seen))] * job.runs
        return fake_figures(decision=times, network=times, load_seconds=len(seen), memory=len(seen))

    found = benchmark(tiny_onnx, woven_tree, repeats=7, only="onnxruntime,openvino:fp32", measure=fake)
    assert seen == [
        *(("onnxruntime", True, True, 3), ("openvino", True, True, 3)),
        *(("onnxruntime", False, False, 2), ("openvino", False, False, 2)),
        *(("onnxruntime", False, False, 2), ("openvino", False, False, 2)),
    ]
    first = found.rows[0]
    assert first.decision == Latency.of([1.0] * 3 + [3.0] * 2 + [5.0] * 2)
    assert (first.load_seconds, first.memory) == (3, 3)
    assert first.best == Rate(150.0, 4, 2)
    assert first.bytes == tiny_onnx.stat().st_size
    assert f"{TIMED_IMAGES} images of {woven_tree}" in found.measured_on


def test_a_way_that_fails_is_told_and_the_others_go_on(
    tiny_model: Path, woven_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_export(model: Path, out: Path, to: str, precision: str, material: object) -> None:
        if precision == "int8":
            raise RuntimeError("no such\n  operation")
        raise ModuleNotFoundError("gone", name="onnxscript")

    def fake(job: Job) -> Figures:
        if job.execution["precision"] == "bf16":
            raise DraemError("no bf16 here")
        return fake_figures(metrics=None)

    monkeypatch.setattr(ways, "_export", fake_export)
    found = benchmark(tiny_model, woven_tree, out=tmp_path, measure=fake)
    reasons = {row.way.name: row.reason for row in found.rows}
    assert list(reasons) == TRAINED
    assert reasons["torch:fp32"] == ""
    assert reasons["torch:bf16"] == "no bf16 here"
    assert reasons["onnxruntime:fp32"] == "onnxscript is not installed: run pip install 'draem[export]'"
    assert reasons["openvino:int8"] == "cannot be exported to openvino in int8: no such operation"
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(benchmark_table(found))
    text = console.export_text()
    assert "torch:bf16: no bf16 here" in text
    assert len([line for line in text.splitlines() if line.count("–") == 9]) == len(TRAINED) - 1


def test_exports_are_made_once_and_taken_again(
    tiny_model: Path, tiny_onnx: Path, tiny_ir: Path, woven_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the model has another threshold, or the data are others, which int8 takes its ranges from."""
    monkeypatch.setattr(graph, "onnx_graph", lambda *arguments: tiny_onnx.read_bytes())
    model = tmp_path / "model.safetensors"
    shutil.copy(tiny_model, model)
    made: list[Path] = []

    def spy(model: Path, out: Path, data: Path, **settings: Any) -> Export:
        made.append(out)
        return export(model, out, data, **settings)

    monkeypatch.setattr(ways, "export", spy)

    def ask(material: Material) -> None:
        ways.exported(model, read_header(model), "onnx", "fp32", tmp_path, material)

    labelled, other = of_dataset(woven_tree, "auto", None, 1), rendered(read_header(model).config.data, tmp_path / "i")
    ask(labelled)
    ask(labelled)
    assert len(made) == 1
    ask(other)
    ask(other)
    assert len(made) == 2
    edit_header(model, read_header(model).model_copy(update={"thresholds": None}))
    ask(other)
    assert len(made) == 3
    assert ways.size_of(tiny_ir) == tiny_ir.stat().st_size + tiny_ir.with_suffix(".bin").stat().st_size


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_rendered_images_fit_any_model(tmp_path: Path, channels: int) -> None:
    config = Config.resolve("edge", None, {"data.size": 64, "data.channels": channels}).data
    material = rendered(config, tmp_path / "images")
    model = write_tiny_model(tmp_path / "model.safetensors", data__channels=channels)
    detector = Detector.load(model, "cpu")
    assert len({detector.predict(path).score for path in material.files}) == TIMED_IMAGES
    assert len(read_layout(material.data, material.layout).train_good) == TIMED_IMAGES


def test_a_real_process_measures_what_evaluate_finds(
    run_cli: Run, tiny_onnx: Path, woven_tree: Path, tmp_path: Path
) -> None:
    done = run_cli(
        *("benchmark", tiny_onnx, "--data", woven_tree, "--out", tmp_path / "out", "--only", "onnxruntime"),
        *("--repeats", 2, "--threads", 1, "--json"),
    )
    assert done.code == 0, done.err
    found = json.loads(done.out.splitlines()[-1])
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text(encoding="utf-8")) == found
    assert (tmp_path / "out" / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    (row,) = found["rows"]
    assert row["reason"] == ""
    assert row["execution"].startswith("onnxruntime")
    for latency in (row["decision"], row["network"]):
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
        assert latency["runs"] == 2
    assert row["load_seconds"] > 0
    assert row["memory"] is None or row["memory"] > 10**7
    assert {one["batch"] for one in row["rates"]} == {1, 2, 4, 8}
    assert row["best"]["images_per_second"] == max(one["images_per_second"] for one in row["rates"])
    assert row["files"]["images_per_second"] > 0
    expected = draem.evaluate(Detector.load(tiny_onnx, backend="onnxruntime", threads=1), woven_tree)
    assert row["metrics"] == pytest.approx(expected.metrics.to_dict(), rel=1e-5)
    assert row["evaluated"] == expected.count()
    assert {"processor", "cores", "threads", "load_average", "versions"} <= found["machine"].keys()


def test_mistakes_are_one_line(run_cli: Run, tiny_model: Path, tmp_path: Path) -> None:
    for more, says in (
        (["--only", "cuda"], "--only cuda"),
        (["--data", tmp_path / "none"], "no such folder"),
        (["--out", tiny_model], "is a file"),
    ):
        done = run_cli("benchmark", tiny_model, *more)
        assert (done.code, done.out) == (1, "")
        assert done.err.count("\n") == 1
        assert says in done.err


# ------------------------------------------------------------------------------------------------------------ process


def test_the_end_of_a_process_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = Job(str(tmp_path / "none.onnx"), vars(Execution("onnxruntime")), [], 1)
    with pytest.raises(DraemError, match=r"none\.onnx: no such file"):
        measure_apart(job)
    for code, log, said in (
        (-signal.SIGSEGV, "", "the process was ended by SIGSEGV"),
        (-9, "", "the process was ended by SIGKILL (out of memory?)"),
        (3, "Traceback\n  x\nOSError: spoilt\n", "the process ended with code 3: OSError: spoilt"),
        (0, "", "the process ended with code 0: without a word"),
    ):

        def fake(message: str, output: int, code: int = code, log: str = log) -> int:
            os.write(output, log.encode())
            return code

        monkeypatch.setattr(process, "_run", fake)
        with pytest.raises(DraemError) as told:
            measure_apart(job)
        assert str(told.value) == said


def test_a_measuring_process_leaves_with_the_one_that_asked(tiny_model: Path, tmp_path: Path) -> None:
    """Whose own end closes the pipe, whatever ended it."""
    job = {"model": str(tiny_model), "execution": {}, "images": [], "runs": 1, "accuracy": None}
    code = (
        "import sys, time; from draem.deployment.benchmark import measure\n"
        "measure.measure = lambda job: time.sleep(600)\nmeasure.main()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(json.dumps({"job": job, "answer": str(tmp_path / "answer.json")}).encode() + b"\n")
    child.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    child.stdin.close()
    assert child.wait(60) == 1
    assert not (tmp_path / "answer.json").exists()


# ------------------------------------------------------------------------------------------------------------- output


def result_of(rows: list[Row]) -> Benchmark:
    return Benchmark("model.safetensors", "8 images", machine(), rows)


def test_plot_needs_both_accuracy_and_latency() -> None:
    row = Row(Way("torch", "fp32"), decision=Latency(9.0, 10.0, 11.0, 5), metrics={"pixel_ap": 0.5})
    drawn = latency_plot(result_of([row, Row(Way("torch", "bf16"), "failed")]))
    assert drawn is not None
    assert drawn.startswith(b"\x89PNG")
    assert latency_plot(result_of([replace(row, metrics=None), replace(row, decision=None)])) is None


def test_without_matplotlib_there_is_no_plot_and_the_rest(
    run_cli: Run, tiny_onnx: Path, woven_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run_module = sys.modules["draem.deployment.benchmark.run"]
    real = run_module.benchmark
    monkeypatch.setattr(run_module, "benchmark", lambda *a, **k: real(*a, **k, measure=lambda job: fake_figures()))
    done = run_cli("benchmark", tiny_onnx, "--data", woven_tree, "--out", tmp_path)
    assert done.code == 0, done.err
    assert "no plot: matplotlib is not installed" in done.err
    assert (tmp_path / "benchmark.json").exists()
    assert not (tmp_path / "benchmark.png").exists()


def test_a_busy_machine_is_told() -> None:
    found = machine(threads=1) | {"cores": 2}
    assert "a busy machine" in machine_in_words(found | {"load_average": 1.5})
    assert "a busy machine" not in machine_in_words(found | {"load_average": 0.1})
    assert machine_in_words(found | {"load_average": None}).endswith("threads: 1")
