"""What a layout is to the package: a name, how it is recognised, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from draem.config import Layout
from draem.data.layouts.files import Listing
from draem.data.samples import Sample


class Reader(NamedTuple):
    """One layout: its name and tree in words, how it is recognised, and how it is read."""

    layout: Layout
    title: str
    tree: str
    claims: Callable[[Path, Listing], bool]
    read: Callable[[Path, Listing], list[Sample]]
    of_files: bool = False
    """Whether the place may be a file that describes the images."""
