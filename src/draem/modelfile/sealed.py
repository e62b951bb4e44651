"""What the three kinds of model file have in common: how they are opened, and what is found in them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from draem.errors import ModelFileError
from draem.modelfile.header import Header

KEY, SUM = "draem", "sha256"
"""Names, in a file's metadata, of the header and of its checksum."""
LARGEST_HEADER = 64 * 2**20


@dataclass(frozen=True)
class Sealed:
    """A model file that was read whole: its weights match the sum in its header.

    `content` is the file (of OpenVINO IR the .xml), `weights` the .bin of OpenVINO IR.
    """

    header: Header
    content: bytes
    weights: bytes = b""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read, of which any failure is one line that names it."""
    try:
        with path.open("rb") as file:
            yield file
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ModelFileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def file_size(file: BinaryIO) -> int:
    """Bytes in an open file."""
    return os.fstat(file.fileno()).st_size


def text_sum(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
