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
    stopped = threading.Event()
    # Of the batches under way one is in the feeder's hand, which waits for a place.
    waiting: Queue[Future[Batch[S, R, E]] | _Ended] = Queue(maxsize=in_flight)
    loaders = ThreadPoolExecutor(thread_name_prefix="draem-load")
    inspectors = ThreadPoolExecutor(in_flight + 1, thread_name_prefix="draem-inspect")

    def work(parts: list[tuple[S, Future[L]]]) -> Batch[S, R, E]:
        loaded: list[L] = []
        unloadable: list[tuple[S, E]] = []
        for thing, loading in parts:
            try:
                loaded.append(loading.result())
            except forgivable as error:
                unloadable.append((thing, error))
        return Batch(inspect(loaded) if loaded else [], unloadable)

    def hand_over(parts: list[tuple[S, Future[L]]]) -> None:
        if parts:
            waiting.put(inspectors.submit(work, parts))

    def feed() -> None:
        ended = _Ended()
        parts: list[tuple[S, Future[L]]] = []
        try:
            for thing in supply:
                if stopped.is_set():
                    return
                parts.append((thing, loaders.submit(load, thing)))
                if len(parts) == batch_size:
                    hand_over(parts)
                    parts = []
        except BaseException as error:  # the caller is told, in its own thread
            ended = _Ended(error)
        with suppress(RuntimeError):  # the caller has gone, and the pools with it
            hand_over(parts)
        if not stopped.is_set():
            waiting.put(ended)

    feeder = threading.Thread(target=feed, name="draem-feed", daemon=True)
    feeder.start()
    try:
        while not isinstance(item := waiting.get(), _Ended):
            yield item.result()
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        _empty(waiting)  # a feeder that waits for a place finds one
        inspectors.shutdown(wait=False, cancel_futures=True)
        loaders.shutdown(wait=False, cancel_futures=True)
        feeder.join(_PATIENCE)
        inspectors.shutdown()
        loaders.shutdown()


def _empty(waiting: Queue[Future[Batch[S, R, E]] | _Ended]) -> None:
    try:
        while True:
            waiting.get_nowait()
    except Empty:
        return
