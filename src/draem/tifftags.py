"""The tags of a TIFF file's pages, and of the Exif block that other formats carry: little and big endian, BigTIFF.

Nothing here trusts the file: a place beyond its end raises struct.error, a table longer than any real one ValueError.

Source: TIFF 6.0 section 2; the BigTIFF design of libtiff.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LETTERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MOST_ENTRIES = 1 << 17


class Entry(NamedTuple):
    """Where a tag's values are: how many `values` of the type `kind` from byte `place` on."""

    kind: int
    values: int
    place: int


@dataclass(frozen=True)
class Page:
    """One image directory: its entries by tag."""

    data: bytes
    order: str
    """Of bytes, as `struct` writes it."""
    entries: dict[int, Entry]

    def integers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Values of a tag of unsigned integers; the default where it is missing or of another type.

        Raises:
            struct.error: they lie beyond the end.
        """
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _LETTERS:
            return default
        if entry.place + _WIDTHS[entry.kind] * entry.values > len(self.data):
            raise struct.error  # before a hostile count makes a tuple of four billion
        return struct.unpack_from(f"{self.order}{entry.values}{_LETTERS[entry.kind]}", self.data, entry.place)

    def integer(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return (self.integers(tag) or (default,))[0]

    def bytes_of(self, tag: int) -> bytes:
        """The bytes of a tag; none where it is missing."""
        entry = self.entries.get(tag)
        return b"" if entry is None else self.data[entry.place : entry.place + entry.values * _WIDTHS[entry.kind]]


def read_pages(data: bytes) -> Iterator[Page]:
    """The pages of a TIFF file, one after the other, each once; nothing if it is none.

    Raises:
        struct.error: a page lies beyond the end.
        ValueError: more entries than any real file has.
    """
    if not data.startswith(TIFF_STARTS):
        return
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[2:4]
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    seen: set[int] = set()
    entries = 0
    while place and place not in seen:
        seen.add(place)
        page, place = _page(data, order, big, place)
        entries += len(page.entries) + 1
        if entries > _MOST_ENTRIES:
            raise ValueError("too many pages")
        yield page


def _page(data: bytes, order: str, big: bool, place: int) -> tuple[Page, int]:
    """The page at `place`, and where the next one is (0: there is none)."""
    count_letter, letter, width = ("Q", "Q", 20) if big else ("H", "I", 12)
    (count,) = struct.unpack_from(order + count_letter, data, place)
    first = place + struct.calcsize(count_letter)
    end = first + count * width
    if count > _MOST_ENTRIES or end > len(data):
        raise struct.error
    entries = {}
    for at in range(first, end, width):
        tag, kind, values = struct.unpack_from(f"{order}HH{letter}", data, at)
        if kind in _WIDTHS:
            inside = at + 4 + struct.calcsize(letter)
            fits = values * _WIDTHS[kind] <= struct.calcsize(letter)
            entries[tag] = Entry(kind, values, inside if fits else struct.unpack_from(order + letter, data, inside)[0])
    (following,) = struct.unpack_from(order + letter, data, end)
    return Page(data, order, entries), following
