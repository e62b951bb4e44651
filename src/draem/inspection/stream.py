"""Work on an endless supply in three stages at once: loading, inspecting in batches, and what the caller does.

    supply → feeder (1 thread) → loaders (a pool) → inspectors (in_flight + 1 threads) → the caller, in order

Of the supply, no more than `in_flight + 1` batches beyond the caller's are taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Queue
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S")
L = TypeVar("L")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)

_PATIENCE = 1.0
"""Seconds to wait for a supply that gives nothing, as a camera without a trigger, when the caller goes."""


class Batch(NamedTuple, Generic[S, R, E]):
    """Some of the supply, and its results; what could not be loaded has an error and no result."""

    results: list[R]
    unloadable: list[tuple[S, E]]


class _Ended(NamedTuple):
    """The supply has no more; `error` is what it raised instead."""

    error: BaseException | None = None


def overlapped(
    supply: Iterable[S],
    load: Callable[[S], L],
    inspect: Callable[[list[L]], list[R]],
    batch_size: int,
    in_flight: int,
    forgivable: type[E],
) -> Iterator[Batch[S, R, E]]:
    """The results of `inspect(list of load(thing))`, in the supply's order.

    Args:
        supply: taken from in a thread of its own, so that what is ready is given while the next is awaited.
        load: called for each thing, several at once.
        inspect: called for each batch, `in_flight` + 1 at once: of one, what is before and after the network is done
            during the network of another.
        batch_size: things in one call of `inspect`; the last batch may be smaller, and those with errors.
        in_flight: runs of the network at the same time.
        forgivable: errors of `load` that are given with the batch; all others are raised here, after the results of
            the batches before.
    """
    line = _Line(load, inspect, in_flight, forgivable)
    feeder = threading.Thread(target=line.feed, args=(supply, batch_size), name="draem-feed", daemon=True)
    feeder.start()
    try:
        yield from line.results()
    finally:
        line.stop()
        feeder.join(_PATIENCE)
        line.join()


class _Line(Generic[S, L, R, E]):
    """The threads between a supply and the caller, and the batches that wait there."""

    def __init__(
        self, load: Callable[[S], L], inspect: Callable[[list[L]], list[R]], in_flight: int, forgivable: type[E]
    ) -> None:
        self._load, self._inspect, self._forgivable = load, inspect, forgivable
        self._stopped = threading.Event()
        # Of the batches under way one is in the feeder's hand, which waits for a place.
        self._waiting: Queue[Future[Batch[S, R, E]] | _Ended] = Queue(maxsize=in_flight)
        self._loaders = ThreadPoolExecutor(thread_name_prefix="draem-load")
        self._inspectors = ThreadPoolExecutor(in_flight + 1, thread_name_prefix="draem-inspect")

    def feed(self, supply: Iterable[S], batch_size: int) -> None:
        """Hand the supply on in batches, until it ends or nobody wants more; the feeder's work."""
        ended = _Ended()
        parts: list[tuple[S, Future[L]]] = []
        try:
            for thing in supply:
                if self._stopped.is_set():
                    return
                parts.append((thing, self._loaders.submit(self._load, thing)))
                if len(parts) == batch_size:
                    self._hand_over(parts)
                    parts = []
        except BaseException as error:  # the caller is told, in its own thread
            ended = _Ended(error)
        with suppress(RuntimeError):  # the caller has gone, and the pools with it
            self._hand_over(parts)
        if not self._stopped.is_set():
            self._waiting.put(ended)

    def results(self) -> Iterator[Batch[S, R, E]]:
        """The batches in order; raises in the end what the supply raised."""
        while not isinstance(item := self._waiting.get(), _Ended):
            yield item.result()
        if item.error is not None:
            raise item.error

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped.set()
        with suppress(Empty):  # a feeder that waits for a place finds one
            while True:
                self._waiting.get_nowait()
        self._inspectors.shutdown(wait=False, cancel_futures=True)
        self._loaders.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for what has begun."""
        self._inspectors.shutdown()
        self._loaders.shutdown()

    def _hand_over(self, parts: list[tuple[S, Future[L]]]) -> None:
        if parts:
            self._waiting.put(self._inspectors.submit(self._work, parts))

    def _work(self, parts: list[tuple[S, Future[L]]]) -> Batch[S, R, E]:
        loaded: list[L] = []
        unloadable: list[tuple[S, E]] = []
        for thing, loading in parts:
            try:
                loaded.append(loading.result())
            except self._forgivable as error:
                unloadable.append((thing, error))
        return Batch(self._inspect(loaded) if loaded else [], unloadable)
