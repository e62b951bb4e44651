"""What a file says of its pixels before they are decoded: size, channels, depth, colour, orientation, profile, pages.

Decoders are silent about most of it: OpenCV turns CMYK to RGB, drops profiles and expands palettes without a word.

Sources: PNG (ISO/IEC 15948), JPEG (ITU-T T.81), Exif 2.32, TIFF 6.0, WebP (RFC 9649), ICC.1:2022, the BMP headers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from draem.imagefiles import file_format
from draem.tifftags import Page, read_pages

Colour = Literal["grey", "rgb", "palette", "cmyk", "other"]
_ORIENTATION = 274
_LARGEST_PROFILE = 1 << 22


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its pixels; sizes in pixels, as stored: before the orientation is applied."""

    format: str
    """PNG, JPEG, BMP, TIFF or WebP."""
    height: int
    width: int
    channels: int
    """Colour channels without alpha: 1 grey, 3 RGB or palette, 4 CMYK, n for n samples a pixel."""
    bits: int
    """Of one channel; of a palette those of its colours."""
    floating: bool
    colour: Colour
    alpha: bool
    """There is an alpha channel, or transparent colours."""
    orientation: int = 1
    """Exif's 1 to 8; 1 where nothing is said."""
    profile: str | None = None
    """Description of the embedded colour profile, "embedded" if it has none; none where there is no profile."""
    pages: int = 1
    """Pages of a TIFF file, reduced ones not counted; frames of an animation."""


def read_header(data: bytes) -> ImageHeader | None:
    """Read the header of an image file from its bytes, or from the first of them.

    None if it is none of the formats, or ends before all that tells size, channels and depth.
    """
    readers = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff, "WebP": _webp, "BMP": _bmp}
    reader = readers.get(file_format(data) or "")
    try:
        header = reader(data) if reader else None
    except (struct.error, IndexError, ValueError):
        return None
    return header if header and min(header.height, header.width, header.channels, header.bits) > 0 else None


# ----------------------------------------------------------------------------------------------------------------- PNG


def _png(data: bytes) -> ImageHeader | None:
    colours: dict[int, tuple[Colour, int, bool]] = {
        0: ("grey", 1, False),
        2: ("rgb", 3, False),
        3: ("palette", 3, False),
        4: ("grey", 1, True),
        6: ("rgb", 3, True),
    }
    if data[12:16] != b"IHDR":
        return None
    width, height, bits, kind = struct.unpack_from(">IIBB", data, 16)
    if kind not in colours:
        return None
    colour, channels, alpha = colours[kind]
    orientation, profile, pages, pixels = 1, None, 1, False
    for name, start, length in _png_chunks(data):
        alpha |= name == b"tRNS"
        pixels |= name == b"IDAT"
        if name == b"eXIf":
            orientation = _exif_orientation(data[start : start + length])
        elif name == b"iCCP":
            profile = _png_profile(data[start : start + length])
        elif name == b"acTL":
            (pages,) = struct.unpack_from(">I", data, start)
    if not pixels:
        return None
    depth = 8 if colour == "palette" else bits
    return ImageHeader("PNG", height, width, channels, depth, False, colour, alpha, orientation, profile, pages)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk, as far as the data go."""
    place = 8
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        yield name, place + 8, length
        place += 12 + length


def _png_profile(chunk: bytes) -> str:
    name, _, packed = chunk.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(packed[1:], _LARGEST_PROFILE)
    except zlib.error:
        profile = b""
    described = _profile_name(profile)
    return described if described != "embedded" else name.decode("latin-1") or "embedded"


# ---------------------------------------------------------------------------------------------------------------- JPEG


def _jpeg(data: bytes) -> ImageHeader | None:
    frame: tuple[int, int, int, int] | None = None
    orientation, profile = 1, b""
    for marker, start, end in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = struct.unpack_from(">BHHB", data, start)
        elif marker == 0xE1 and data.startswith(b"Exif\0\0", start):
            orientation = _exif_orientation(data[start:end])
        elif marker == 0xE2 and data.startswith(b"ICC_PROFILE\0", start):
            profile += data[start + 14 : end]  # behind its own number and how many there are
    if frame is None:
        return None
    bits, height, width, channels = frame
    colours: dict[int, Colour] = {1: "grey", 3: "rgb", 4: "cmyk"}
    colour = colours.get(channels, "other")
    name = _profile_name(profile) if profile else None
    return ImageHeader("JPEG", height, width, channels, bits, False, colour, False, orientation, name)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment before the first scan."""
    place = 2
    while True:
        if data[place] != 0xFF:
            raise ValueError("not a segment")
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        (length,) = struct.unpack_from(">H", data, place + 2)
        yield marker, place + 4, place + 2 + length
        place += 2 + length


# ---------------------------------------------------------------------------------------------------------------- TIFF


def _tiff(data: bytes) -> ImageHeader | None:
    pages = [page for page in read_pages(data) if not page.integer(254, 0) & 1]
    if not pages:
        return None
    page = pages[0]
    samples = page.integer(277, 1)
    colour, alpha = _tiff_colour(page, samples)
    profile = page.bytes_of(34675)
    return ImageHeader(
        format="TIFF",
        height=page.integer(257, 0),
        width=page.integer(256, 0),
        channels=3 if colour == "palette" else samples - alpha,
        bits=8 if colour == "palette" else page.integer(258, 1),
        floating=page.integer(339, 1) == 3,
        colour=colour,
        alpha=alpha > 0,
        orientation=_orientation(page),
        profile=_profile_name(profile) if profile else None,
        pages=len(pages),
    )


def _tiff_colour(page: Page, samples: int) -> tuple[Colour, int]:
    """What the samples of a pixel are, and how many of them are alpha.

    A fourth sample of an RGB image is alpha even where nobody says so: OpenCV writes them in this way.
    """
    photometric, extra = page.integer(262, 1), page.integers(338)
    alpha = sum(kind in (1, 2) for kind in extra) if samples > 1 else 0
    if photometric in (0, 1) and samples - alpha == 1:
        return "grey", alpha
    if photometric in (2, 6) and samples in (3, 4):
        return "rgb", samples - 3
    if photometric == 3 and samples == 1:
        return "palette", 0
    if photometric == 5 and samples - alpha == 4:
        return "cmyk", alpha
    return "other", alpha


# ---------------------------------------------------------------------------------------------------------------- WebP


def _webp(data: bytes) -> ImageHeader | None:
    size: tuple[int, int] | None = None
    alpha, orientation, profile, frames = False, 1, None, 0
    for name, start, length in _webp_chunks(data):
        if name == b"VP8X":
            flags, width, height = data[start], data[start + 4 : start + 7], data[start + 7 : start + 10]
            if len(height) < 3:
                return None
            size = int.from_bytes(height, "little") + 1, int.from_bytes(width, "little") + 1
            alpha = bool(flags & 0x10)
        elif name == b"VP8 " and size is None:
            across, down = struct.unpack_from("<HH", data, start + 6)
            size = down & 0x3FFF, across & 0x3FFF
        elif name == b"VP8L" and size is None:
            (packed,) = struct.unpack_from("<I", data, start + 1)
            size, alpha = ((packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1), bool(packed >> 28 & 1)
        elif name == b"EXIF":
            orientation = _exif_orientation(data[start : start + length])
        elif name == b"ICCP":
            profile = _profile_name(data[start : start + length])
        frames += name == b"ANMF"
    if size is None:
        return None
    return ImageHeader("WebP", *size, 3, 8, False, "rgb", alpha, orientation, profile, max(frames, 1))


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk, as far as the data go."""
    place = 12
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        yield name, place + 8, length
        place += 8 + length + length % 2


# ----------------------------------------------------------------------------------------------------------------- BMP


def _bmp(data: bytes) -> ImageHeader | None:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = used = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (used,) = struct.unpack_from("<I", data, 46)
    if bits <= 8:
        grey = _bmp_greys(data, 14 + size, used or 1 << bits, 3 if size == 12 else 4)
        colour: tuple[int, int, bool, Colour] = (1, bits, False, "grey") if grey else (3, 8, False, "palette")
        return ImageHeader("BMP", abs(height), width, *colour, alpha=False)
    masks = compression in (3, 6) and bits in (16, 32)
    alpha = masks and (size >= 56 or compression == 6) and struct.unpack_from("<I", data, 66) != (0,)
    return ImageHeader("BMP", abs(height), width, 3, 8, False, "rgb", alpha)


def _bmp_greys(data: bytes, start: int, colours: int, width: int) -> bool:
    """Whether a palette has greys only: the format has no other way to say that an image is grey."""
    table = data[start : start + min(colours, 256) * width]
    if len(table) < min(colours, 256) * width:
        raise struct.error
    return table[0::width] == table[1::width] == table[2::width]


# ----------------------------------------------------------------------------------------------------- what they share


def _exif_orientation(block: bytes) -> int:
    """Orientation of an Exif block; 1 where it says nothing that can be read."""
    try:
        return next((_orientation(page) for page in read_pages(block.removeprefix(b"Exif\0\0"))), 1)
    except (struct.error, ValueError):
        return 1


def _orientation(page: Page) -> int:
    value = page.integer(_ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def _profile_name(profile: bytes) -> str:
    """The description in an ICC profile, or "embedded" where there is none that can be read."""
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        for at in range(132, 132 + 12 * min(count, 100), 12):
            name, start, length = struct.unpack_from(">4sII", profile, at)
            if name == b"desc":
                return _profile_text(profile[start : start + length]) or "embedded"
    except struct.error:
        pass
    return "embedded"


def _profile_text(tag: bytes) -> str:
    """One line of text: ASCII in version 2 of the format, the first of several languages in version 4."""
    if tag[:4] == b"mluc":
        length, start = struct.unpack_from(">II", tag, 20)
        text = tag[start : start + length].decode("utf-16-be", "ignore")
    else:
        (length,) = struct.unpack_from(">I", tag, 8)
        text = tag[12 : 12 + length].decode("ascii", "ignore")
    return " ".join("".join(letter for letter in text if letter.isprintable()).split())[:80]
