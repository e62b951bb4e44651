"""Whether a run failed for want of memory: each runtime says it in its own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from draem.errors import MemoryLimitError
from draem.pixels import Images

_WORDS = (
    "out of memory",
    "out_of_memory",
    "can't allocate memory",
    "cannot allocate memory",
    "could not allocate",
    "not enough memory",
    "failed to allocate",
    "bad_alloc",
    "bad allocation",
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of a runtime or the system says that memory ran out."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in _WORDS)


@contextmanager
def within_memory(images: Images) -> Iterator[None]:
    """Raises MemoryLimitError where a run in this block fails for want of memory, and other errors as they are."""
    try:
        yield
    except Exception as error:  # the runtimes' errors share no base but this
        if not out_of_memory(error):
            raise
        shape = "×".join(str(side) for side in images.shape[2:])
        raise MemoryLimitError(f"out of memory with {len(images)} images of {shape} pixels at once") from None
