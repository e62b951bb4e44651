"""Changes of a finished model's header: thresholds, region of interest, registration; the weights stay as they are."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from draem.errors import ConfigError
from draem.modelfile import edit_header, read_header
from draem.modelfile.header import (
    MOST_PROFILES,
    PROFILE_NAME,
    Artefact,
    Certificate,
    Header,
    RegionOfInterest,
    Registration,
)
from draem.modelfile.thresholds import Profile, Reference, Thresholds

STALE = "region or registration was set by hand since; for new figures set it on the trained model, and export that"

OTHER_SCENE = "promises nothing since region or registration was changed: calibrate again"


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


def with_thresholds(
    header: Header, thresholds: Thresholds | None, reference: Reference | None, profile: str | None = None
) -> Header:
    """The header with other thresholds, and other good scores to compare with; or a profile of it with such.

    Which verdicts an artefact changes is counted anew in its certificate, at the thresholds that no profile has. A
    profile of which nothing is left is gone.

    Raises:
        ConfigError: the profile's name is no name, or there are too many.
    """
    if profile is None:
        header = header.model_copy(update={"thresholds": thresholds, "reference": reference})
        return _recertified(header, lambda certificate: certificate.at(thresholds))
    profiles = {name: value for name, value in header.profiles.items() if name != profile}
    if thresholds is not None:
        if not re.fullmatch(PROFILE_NAME, profile):
            raise ConfigError(f"profile {profile[:80]!r}: a name has up to 64 letters, digits, and . _ - +")
        if len(profiles) == MOST_PROFILES:
            raise ConfigError(f"profile {profile}: the model has {MOST_PROFILES} already, the most there may be")
        profiles[profile] = Profile(thresholds=thresholds, reference=reference)
    return header.model_copy(update={"profiles": profiles})


def with_scene(header: Header, region: RegionOfInterest | None, registration: Registration | None) -> Header:
    """The header with another region of interest, or parts that are brought to lie elsewhere.

    Scores change with it, so an artefact's certificate is stale, and no threshold keeps its promise.
    """
    if (region, registration) == (header.region, header.registration):
        return header
    profiles = {
        name: Profile(thresholds=_without_promise(profile.thresholds)) for name, profile in header.profiles.items()
    }
    changes = {"region": region, "registration": registration, "profiles": profiles, "reference": None}
    header = header.model_copy(update={**changes, "thresholds": _without_promise(header.thresholds)})
    return _recertified(header, lambda certificate: certificate.model_copy(update={"stale": STALE}))


def _without_promise(thresholds: Thresholds | None) -> Thresholds | None:
    """The same thresholds; that they were chosen on other scores is said."""
    if thresholds is None or OTHER_SCENE in thresholds.chosen_on:
        return thresholds
    chosen_on = f"{thresholds.chosen_on}; {OTHER_SCENE}"
    return thresholds.model_copy(update={"chosen_on": chosen_on, "reject_promise": None, "review_promise": None})


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
