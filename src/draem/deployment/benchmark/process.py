"""Runs a measuring process and brings back what it says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from draem.deployment.benchmark.job import Figures, Job
from draem.errors import DraemError

_MODULE = "draem.deployment.benchmark.measure"


def measure_apart(job: Job) -> Figures:
    """Measure in a process of its own, which never outlives this one.

    Raises:
        DraemError: why there are no figures: what the process says, or how it ended.
    """
    with TemporaryDirectory(prefix="draem-benchmark-") as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log.txt"
        with log.open("wb") as output:
            code = _run(json.dumps({"job": asdict(job), "answer": str(answer)}), output.fileno())
        if code != 0 or not answer.exists():
            raise DraemError(_ending(code, log.read_text(encoding="utf-8", errors="replace")))
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "reason" in found:
        raise DraemError(found["reason"])
    return Figures.of(found["figures"])


def _run(message: str, output: int) -> int:
    command = [sys.executable, "-m", _MODULE]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
    assert process.stdin is not None
    try:
        with suppress(BrokenPipeError):  # it ended before it read
            process.stdin.write(f"{message}\n".encode())
            process.stdin.flush()  # and left open: see measure.py
        return process.wait()
    finally:
        process.kill()
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()


def _ending(code: int, log: str) -> str:
    """In words, how a process ended that left no answer: its signal, or the last line that it wrote."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"the process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"the process ended with code {code}: {lines[-1][:200] if lines else 'without a word'}"
