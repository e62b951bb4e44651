"""Protocol Buffers' encoding, as far as it takes to find the fields of a message in a file.

Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_LARGEST_TAG = 2**32
_LONGEST_VARINT = 10


class Field(NamedTuple):
    """A field of a message: its number and kind, its value (of a varint), where it, its payload and its end lie."""

    number: int
    kind: int
    value: int
    start: int
    payload: int
    end: int


def fields(content: bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message that lies between two places; ValueError where none does."""
    place = start
    while place < end:
        tag, payload = _varint(content, place, end)
        number, kind = tag >> 3, tag & 7
        value = 0
        if kind == BYTES:
            length, payload = _varint(content, payload, end)
            stop = payload + length
        elif kind == VARINT:
            value, stop = _varint(content, payload, end)
        elif kind in _FIXED:
            stop = payload + _FIXED[kind]
        else:
            raise ValueError("a kind of field that there is not")
        if stop > end or number == 0 or tag >= _LARGEST_TAG:
            raise ValueError("a field that is larger than its message")
        yield Field(number, kind, value, place, payload, stop)
        place = stop


def encode(number: int, payload: bytes) -> bytes:
    """A field of bytes."""
    return _as_varint(number << 3 | BYTES) + _as_varint(len(payload)) + payload


def _varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for index in range(min(_LONGEST_VARINT, end - place)):
        byte = content[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("a number without end")


def _as_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
