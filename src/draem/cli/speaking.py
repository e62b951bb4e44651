"""How the command line speaks: messages on stderr, results on stdout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from draem.errors import DraemError, MissingExtraError


def message(text: str) -> None:
    """A line on stderr."""
    typer.echo(" ".join(text.split()) if text.startswith("draem:") else text, err=True)


def finish(as_json: bool, result: dict[str, Any]) -> None:
    """With `--json`, the last line of stdout."""
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))


def is_first_process() -> bool:
    """Of several that share a run: the one that speaks."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Importing in this block needs an extra; says which one if a package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "a package", extra) from None


def refuse_file(out: Path) -> None:
    """Said before the work, not after it."""
    if out.exists() and not out.is_dir():
        raise DraemError(f"{out}: is a file; --out is a folder")
