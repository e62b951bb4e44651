"""NumPy's array files (.npy) that hold an image or a stack of channels: H×W or H×W×C.

The header is matched, not evaluated, and the values are looked at where they lie: no pickle is ever read, and a shape
that the file does not hold takes no memory.

Source: the format's description in numpy.lib.format.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from draem.pixels import MOST_CHANNELS

ARRAY_START = b"\x93NUMPY"
_TYPE = re.compile(rb"'descr': *'([^']*)'")
_ORDER = re.compile(rb"'fortran_order': *(True|False)")
_SHAPE = re.compile(rb"'shape': *\(([0-9, ]{0,100})\)")
_TYPES = ("|u1", "<u2", ">u2", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8")


@dataclass(frozen=True)
class ArrayHeader:
    """What a file says of its array, and where the values start."""

    dtype: np.dtype[Any]
    shape: tuple[int, int, int]
    """Height, width, channels."""
    stored: tuple[int, ...]
    """The same as it is written: without the channels where there is one."""
    columns_first: bool
    start: int


def read_array_header(data: bytes) -> ArrayHeader:
    """The header of an array file.

    Raises:
        struct.error: it ends early.
        ValueError: saying what is not understood.
    """
    length, start = (
        (*struct.unpack_from("<H", data, 8), 10) if data[6] == 1 else (*struct.unpack_from("<I", data, 8), 12)
    )
    if data[6] > 3 or length > 10_000:
        raise ValueError("damaged header")
    text = data[start : start + length]
    if len(text) < length:
        raise struct.error
    kind, order, sides = _TYPE.search(text), _ORDER.search(text), _SHAPE.search(text)
    if not (kind and order and sides) or kind[1].decode("latin-1") not in _TYPES:
        raise ValueError("not an array of uint8, uint16 or floats")
    stored = tuple(int(side) for side in sides[1].split(b",") if side.strip())
    shape = (*stored, 1) if len(stored) == 2 else stored
    if len(shape) != 3 or min(shape) < 1 or shape[2] > MOST_CHANNELS:
        found = "×".join(str(side) for side in stored) or "a number"
        raise ValueError(f"holds {found}, not H×W or H×W×C with at most {MOST_CHANNELS} channels")
    height, width, channels = shape
    dtype = np.dtype(kind[1].decode("ascii"))
    return ArrayHeader(dtype, (height, width, channels), stored, order[1] == b"True", start + length)


def array_damage(data: bytes) -> str | None:
    """What is wrong with an array file, in a few words."""
    header = read_array_header(data)
    whole = header.start + math.prod(header.shape) * header.dtype.itemsize <= len(data)
    return None if whole else "the file ends early"


def read_array(data: bytes) -> NDArray[Any]:
    """The H×W×C values of a file without damage; they share its memory where their order of bytes is the machine's."""
    header = read_array_header(data)
    values = np.frombuffer(data, header.dtype, math.prod(header.shape), header.start)
    array = values.reshape(header.stored, order="F" if header.columns_first else "C").reshape(header.shape)
    return array.astype(header.dtype.newbyteorder("="), copy=False)
