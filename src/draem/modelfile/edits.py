"""Changes of a finished model's header: its thresholds and its region of interest; the weights stay as they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from draem.modelfile import edit_header, read_header
from draem.modelfile.header import Artefact, Certificate, Header, RegionOfInterest, Thresholds

STALE = "the region of interest was set by hand since; for new figures set it on the trained model, and export that"


def change_header(path: Path, change: Callable[[Header], Header]) -> tuple[Header, Header]:
    """Change a model file's header, whole or not at all; two processes that do so at once take turns.

    Args:
        path: a model file of any kind.
        change: gives the new header for the one in the file; what it raises leaves the file as it was.

    Returns:
        The header before and after.

    Raises:
        ModelFileError: the file is damaged.
        DraemError: it cannot be written.
    """
    read_header(path)  # what is no model is said by the name that was given
    target = path.resolve()  # a link stays a link
    with _taking_turns(target.parent):
        before = read_header(target)
        after = change(before)
        mode = target.stat().st_mode
        edit_header(target, after)
        target.chmod(mode)
    return before, read_header(path)


def with_thresholds(header: Header, thresholds: Thresholds | None) -> Header:
    """The header with other thresholds; which verdicts an artefact changes is counted anew in its certificate."""
    header = header.model_copy(update={"thresholds": thresholds})
    return _recertified(header, lambda certificate: certificate.at(thresholds))


def with_region(header: Header, region: RegionOfInterest | None) -> Header:
    """The header with another region of interest; scores change with it, so an artefact's certificate is stale."""
    if region == header.region:
        return header
    header = header.model_copy(update={"region": region})
    return _recertified(header, lambda certificate: certificate.model_copy(update={"stale": STALE}))


def _recertified(header: Header, change: Callable[[Certificate], Certificate]) -> Header:
    artefact: Artefact | None = header.artefact
    if artefact is None or artefact.certificate is None:
        return header
    changed = artefact.model_copy(update={"certificate": change(artefact.certificate)})
    return header.model_copy(update={"artefact": changed})


@contextmanager
def _taking_turns(folder: Path) -> Iterator[None]:
    """One process at a time edits the models of a folder, where the system can lock one."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):  # some network file systems lock no folders
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
