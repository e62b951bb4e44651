"""TIFF files of any kind, made by hand: Pillow and OpenCV write few."""

from __future__ import annotations

import struct
from typing import Any

from numpy.typing import NDArray


def tiff(
    pixels: NDArray[Any], photometric: int, extra: tuple[int, ...] = (), orientation: int = 1, order: str = "<"
) -> bytes:
    """An uncompressed TIFF file of one page and one strip, H×W×C; `extra` says what the samples beyond colour are."""
    height, width, samples = pixels.shape
    strip = pixels.astype(pixels.dtype.newbyteorder("<" if order == "<" else ">")).tobytes()
    strip += b"\0" * (len(strip) % 2)
    tags: dict[int, tuple[str, tuple[int, ...]]] = {
        256: ("I", (width,)),
        257: ("I", (height,)),
        258: ("H", (8 * pixels.itemsize,) * samples),
        259: ("H", (1,)),
        262: ("H", (photometric,)),
        273: ("I", (8,)),
        274: ("H", (orientation,)),
        277: ("H", (samples,)),
        278: ("I", (height,)),
        279: ("I", (pixels.nbytes,)),
        284: ("H", (1,)),
        **({338: ("H", extra)} if extra else {}),
        339: ("H", (3 if pixels.dtype.kind == "f" else 1,) * samples),
    }
    directory = 8 + len(strip)
    beyond, entries = b"", b""
    for tag, (letter, values) in tags.items():
        raw = struct.pack(f"{order}{len(values)}{letter}", *values)
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[letter], len(values))
        if len(raw) <= 4:
            entries += raw.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", directory + 6 + 12 * len(tags) + len(beyond))
            beyond += raw
    start = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, directory)
    return start + strip + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0) + beyond
