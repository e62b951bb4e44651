"""Figures of speed and memory: times of single runs, their percentiles, runs a second, the most memory held."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Clock = Callable[[], float]


@dataclass(frozen=True)
class Latency:
    """Percentiles, in milliseconds, of the times of so many runs; between two times they are interpolated."""

    p50: float
    p95: float
    p99: float
    runs: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Latency:
        """The percentiles of at least one time."""
        p50, p95, p99 = np.percentile(np.asarray(milliseconds, np.float64), (50, 95, 99))
        return cls(float(p50), float(p95), float(p99), len(milliseconds))


def timed(
    action: Callable[[], object],
    runs: int,
    seconds: float = math.inf,
    least: int = 1,
    clock: Clock = time.perf_counter,
) -> list[float]:
    """Milliseconds of each of up to `runs` runs; once `seconds` have passed, `least` runs are enough."""
    times: list[float] = []
    began = clock()
    while len(times) < runs and (len(times) < least or clock() - began < seconds):
        start = clock()
        action()
        times.append((clock() - start) * 1000)
    return times


def rate(
    action: Callable[[], object],
    amount: float,
    in_flight: int = 1,
    seconds: float = 0.5,
    clock: Clock = time.perf_counter,
) -> float:
    """How much a second, where one run does `amount` and `in_flight` of them run at the same time.

    Counted over about `seconds`, but over at least one run of each thread; one more, before, is the warm-up.
    """
    with ThreadPoolExecutor(in_flight, thread_name_prefix="draem-rate") as pool:

        def wall(rounds: int) -> float:
            start = clock()
            for done in [pool.submit(action) for _ in range(rounds * in_flight)]:
                done.result()
            return clock() - start

        wall(1)
        once = wall(1)
        rounds = int(seconds / once)
        return amount * in_flight / once if rounds < 2 else amount * in_flight * rounds / wall(rounds)


def peak_memory() -> int | None:
    """The most bytes of RAM that this process has held so far: Python, libraries, weights and all; none if not known.

    Linux tells it as VmHWM. `ru_maxrss` is no substitute there: a process inherits its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
    if sys.platform == "win32":
        return None
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
