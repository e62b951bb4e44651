"""What the three kinds of model file have in common: how they are opened, and what is found in them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from draem.errors import ModelFileError
from draem.modelfile.header import Header

KEY, SUM = "draem", "sha256"
"""Names, in a file's metadata, of the header and of its checksum."""
LARGEST_HEADER = 16 * 2**20
"""Bytes: ten thousand images in a certificate take a tenth of it."""
LARGEST_FILE = 2**33
"""Bytes of one file, all of which are read: more than the widest network has."""


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
    """A file to read, of which any failure is one line that names it; what is no plain file is refused unread."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelFileError(f"{path}: not a file to read, but a folder, a pipe or a device")
            yield file
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ModelFileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except MemoryError:
        raise ModelFileError(f"{path}: cannot be read: larger than this machine's memory") from None


def _without_waiting(name: str, flags: int) -> int:
    """A pipe that nobody writes to would be waited for without end."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def read_bytes(path: Path, most: int = LARGEST_FILE) -> bytes:
    """The whole file.

    Raises:
        ModelFileError: it cannot be read, or is larger than `most` bytes.
    """
    with opened(path) as file:
        size = file_size(file)
        if size > most:
            raise ModelFileError(f"{path}: {size} bytes, larger than any such model file ({most})")
        return file.read(size)


def file_size(file: BinaryIO) -> int:
    """Bytes in an open file."""
    return os.fstat(file.fileno()).st_size


def text_sum(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
