"""What the bytes of an image file say before they are decoded: which format, and whether the file is whole.

Decoders forgive too much: OpenCV returns a grey remainder for some cut JPEG files and garbage for damaged TIFF strips,
and its libpng prints past every log level. So the cheap marks of a whole file are checked first: end markers, sizes in
headers, checksums where the format has them. Damage inside compressed JPEG, WebP and LZW data has no such mark.

Sources: PNG (ISO/IEC 15948) 5, JPEG (ITU-T T.81) annex B, TIFF 6.0 section 2, the RIFF and BMP file headers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from draem.tifftags import TIFF_STARTS, read_pages

_ENDS_EARLY = "the file ends early"


def file_format(data: bytes) -> str | None:
    """Name of the image format by the first bytes, not by the file's suffix: PNG, JPEG, BMP, TIFF, WebP, or None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(TIFF_STARTS):
        return "TIFF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    # Two letters are a weak sign (a text may start with them): the size of the BMP info header must be a known one.
    if data.startswith(b"BM") and data[14:18] in [struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124)]:
        return "BMP"
    return None


def damage(data: bytes) -> str | None:
    """What is wrong with an image file's bytes, in a few words, or None when every mark of a whole file is there."""
    checks = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff, "WebP": _webp, "BMP": _bmp}
    check = checks.get(file_format(data) or "")
    try:
        return check(data) if check else None
    except (struct.error, IndexError):
        return _ENDS_EARLY
    except ValueError as error:
        return str(error)


def _png(data: bytes) -> str | None:
    """Walk the chunks up to IEND; the checksums of the critical ones (capital first letter) must hold."""
    view, place = memoryview(data), 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, place)
        (expected,) = struct.unpack_from(">I", data, place + 8 + length)
        if not kind[0] & 0x20 and zlib.crc32(view[place + 4 : place + 8 + length]) != expected:
            return f"wrong checksum in its {kind.decode('ascii', 'replace')} chunk"
        if kind == b"IEND":
            return None
        place += 12 + length


def _jpeg(data: bytes) -> str | None:
    """Walk the segments up to the scan, then look for the end marker, which cannot occur inside a scan.

    Looking only behind the scan's start matters: a thumbnail in the Exif segment has an end marker of its own.
    """
    place = 2
    while True:
        if data[place] != 0xFF:
            return "damaged header"
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        place += 2 + length
        if marker == 0xDA:
            return None if data.find(b"\xff\xd9", place) >= 0 else _ENDS_EARLY


def _webp(data: bytes) -> str | None:
    (size,) = struct.unpack_from("<I", data, 4)
    return None if size + 8 <= len(data) else _ENDS_EARLY


def _bmp(data: bytes) -> str | None:
    # Some writers leave the size 0; the decoder then finds a missing end by itself.
    (size,) = struct.unpack_from("<I", data, 2)
    return None if size <= len(data) else _ENDS_EARLY


def _tiff(data: bytes) -> str | None:
    """Every strip or tile of every page lies within the file; deflated ones pass their checksum."""
    for page in read_pages(data):
        offsets, counts = (page.integers(strips) or page.integers(tiles) for strips, tiles in ((273, 324), (279, 325)))
        deflated = page.integer(259, 1) in (8, 32946)
        for offset, count in zip(offsets, counts, strict=False):
            if offset + count > len(data):
                return _ENDS_EARLY
            if deflated and not _inflates(data[offset : offset + count]):
                return "damaged pixel data"
    return None


def with_plain_alpha(data: bytes) -> bytes:
    """A TIFF file with its alpha channel, if any, declared as multiplied in already; other bytes as they are.

    OpenCV multiplies colours by a separate alpha and so darkens them; told that this is done, it leaves them alone.
    """
    for page in read_pages(data):
        if page.integers(338) == (2,) and page.entries[338].kind == 3:
            place = page.entries[338].place
            data = data[:place] + struct.pack(page.order + "H", 1) + data[place + 2 :]
    return data


def _inflates(strip: bytes) -> bool:
    """Whether a zlib stream is whole; unpacked piece by piece, so that a hostile strip cannot fill the memory."""
    try:
        return all(_pieces(strip))
    except zlib.error:
        return False


def _pieces(strip: bytes) -> Iterator[bool]:
    stream = zlib.decompressobj()
    rest = strip
    while not stream.eof:
        piece = stream.decompress(rest, 1 << 20)
        rest = stream.unconsumed_tail
        yield bool(piece) or stream.eof
        if not piece and not stream.eof:
            return
