"""What headers say, against Pillow and OpenCV over what both of them write; mutated files."""

from __future__ import annotations

import io
import itertools
from contextlib import suppress
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from draem.errors import ImageError
from draem.imagefiles import damage
from draem.imageheaders import Colour, ImageHeader, read_header
from draem.images import decode_image

RNG = np.random.default_rng(0)
COLOURS = np.asarray(cv2.resize(RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8), (23, 17)), np.uint8)
PICTURE = Image.fromarray(COLOURS)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB_NAME = "sRGB built-in"

BY_MODE: dict[str, tuple[int, int, Colour, bool]] = {
    "1": (1, 1, "grey", False),
    "L": (1, 8, "grey", False),
    "LA": (1, 8, "grey", True),
    "I;16": (1, 16, "grey", False),
    "P": (3, 8, "palette", False),
    "RGB": (3, 8, "rgb", False),
    "RGBA": (3, 8, "rgb", True),
    "CMYK": (4, 8, "cmyk", False),
    "F": (1, 32, "grey", False),
}
"""Channels, bits, colour and alpha of Pillow's modes."""
MODES = {
    "PNG": ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
    "TIFF": ("1", "L", "LA", "I;16", "P", "RGB", "RGBA", "CMYK", "F"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
}
NAMES = {"WEBP": "WebP"}


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def _in_mode(mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257)
    image = PICTURE.convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(COLOURS[..., 1]))
    return image


def _header(data: bytes) -> ImageHeader:
    header = read_header(data)
    assert header is not None
    return header


MATRIX = [(kind, mode) for kind, modes in MODES.items() for mode in modes]
FILES = {f"{kind} {mode}": _saved(_in_mode(mode), kind) for kind, mode in MATRIX}


@pytest.mark.parametrize(("kind", "mode"), MATRIX)
def test_modes_that_pillow_writes(kind: str, mode: str) -> None:
    data = FILES[f"{kind} {mode}"]
    opened = Image.open(io.BytesIO(data))
    channels, bits, colour, alpha = BY_MODE[opened.mode]
    assert (opened.height, opened.width) == (17, 23)
    expected = ImageHeader(NAMES.get(kind, kind), 17, 23, channels, bits, mode == "F", colour, alpha)
    assert read_header(data) == expected
    assert opened.mode == mode


@pytest.mark.parametrize(
    ("suffix", "channels", "dtype"),
    [
        *itertools.product([".png", ".tif"], [1, 3, 4], [np.uint8, np.uint16]),
        *itertools.product([".tif"], [1, 3], [np.float32, np.float64]),
        *itertools.product([".jpg", ".bmp"], [1, 3], [np.uint8]),
        *itertools.product([".webp"], [3, 4], [np.uint8]),
    ],
)
def test_what_opencv_writes(suffix: str, channels: int, dtype: type) -> None:
    pixels: np.ndarray = np.repeat(COLOURS[..., :1], channels, axis=2).squeeze().astype(dtype)
    if channels == 4:
        pixels[..., 3] = COLOURS[..., 1]
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    names = {".png": "PNG", ".tif": "TIFF", ".jpg": "JPEG", ".bmp": "BMP", ".webp": "WebP"}
    floating = np.issubdtype(dtype, np.floating)
    colour: Colour = "grey" if channels == 1 else "rgb"
    expected = ImageHeader(
        names[suffix], 17, 23, min(channels, 3), 8 * pixels.itemsize, bool(floating), colour, channels == 4
    )
    assert read_header(data) == expected


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8, 0, 9])
def test_orientation(kind: str, turn: int) -> None:
    exif = PICTURE.getexif()
    exif[0x0112] = turn
    header = _header(_saved(PICTURE, kind, exif=exif))
    assert header.orientation == (turn if 1 <= turn <= 8 else 1)
    assert (header.height, header.width) == (17, 23)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_in_either_byte_order(order: str) -> None:
    letters = b"II*\0" if order == "<" else b"MM\0*"
    number = {"<": "little", ">": "big"}[order]
    parts = [(8, 4), (1, 2), (0x0112, 2), (3, 2), (1, 4), (6, 2), (0, 2), (0, 4)]
    block = letters + b"".join(value.to_bytes(width, number) for value, width in parts)  # type: ignore[arg-type]
    assert _header(_saved(PICTURE, "JPEG", exif=b"Exif\0\0" + block)).orientation == 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_profile(kind: str) -> None:
    assert _header(_saved(PICTURE, kind, icc_profile=SRGB)).profile == SRGB_NAME
    # Several segments of a JPEG file, and a profile that is none.
    assert _header(_saved(PICTURE, kind, icc_profile=SRGB + RNG.bytes(90_000))).profile == SRGB_NAME
    assert _header(_saved(PICTURE, kind, icc_profile=b"nothing")).profile in ("embedded", "ICC Profile")


def test_pages_and_byte_orders() -> None:
    grey = PICTURE.convert("L")
    data = _saved(grey, "TIFF", save_all=True, append_images=[grey] * 4)
    assert _header(data).pages == Image.open(io.BytesIO(data)).n_frames == 5  # type: ignore[attr-defined]
    sixteen = Image.frombytes("I;16B", (23, 17), (COLOURS[..., 0].astype(">u2") * 257).tobytes())
    data = _saved(sixteen, "TIFF")
    assert data.startswith(b"MM")
    assert read_header(data) == ImageHeader("TIFF", 17, 23, 1, 16, False, "grey", False)
    big = _saved(PICTURE, "TIFF", big_tiff=True)
    assert big[2] == 43
    assert read_header(big) == ImageHeader("TIFF", 17, 23, 3, 8, False, "rgb", False)
    frames = _saved(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.rotate(90), PICTURE.rotate(180)])
    assert _header(frames).pages == Image.open(io.BytesIO(frames)).n_frames == 3  # type: ignore[attr-defined]


def test_transparency_and_lossy_alpha() -> None:
    assert _header(_saved(PICTURE, "PNG", transparency=(1, 2, 3))).alpha
    assert _header(_saved(PICTURE.quantize(8), "PNG", transparency=0)).alpha
    assert _header(_saved(_in_mode("RGBA"), "WEBP", quality=50)).alpha
    assert not _header(_saved(_in_mode("RGB"), "WEBP", lossless=True)).alpha


@pytest.mark.parametrize("name", FILES)
def test_the_first_bytes_are_enough_or_say_nothing(name: str) -> None:
    """A header that is read from a part of a file agrees with the whole's; what lies behind the pixels may miss."""
    whole = _header(FILES[name])
    for length in range(len(FILES[name])):
        part = read_header(FILES[name][:length])
        assert part is None or replace(part, pages=1) == replace(whole, pages=1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_mutated_files_raise_nothing_else(kind: str) -> None:
    rng = np.random.default_rng(0)
    exif = PICTURE.getexif()
    exif[0x0112] = 6
    extras = {} if kind == "BMP" else {"exif": exif, "icc_profile": SRGB}
    starts = [*(FILES[f"{kind} {mode}"] for mode in MODES[kind]), _saved(PICTURE, kind, **extras)]
    decoded = 0
    for turn in range(2000):
        data = bytearray(starts[turn % len(starts)])
        for place in rng.integers(0, min(len(data), 200 if turn % 3 else len(data)), rng.integers(1, 6)):
            data[place] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))])
        changed = bytes(data[: rng.integers(1, len(data) + 1)] if turn % 4 == 0 else data)
        assert isinstance(read_header(changed), ImageHeader | None)
        assert isinstance(damage(changed), str | None)
        if turn % 5 == 0:
            with suppress(ImageError):
                decode_image(changed, "x")
                decoded += 1
    assert 0 < decoded < 400


def test_hostile_tables_end_soon() -> None:
    """A chain of pages that goes in a circle; a count of values beyond any memory."""
    entry = b"\0\1\3\0\1\0\0\0\x11\0\0\0" + b"\1\1\3\0\xff\xff\xff\xff\x08\0\0\0"
    circle = b"II*\0\x08\0\0\0" + b"\2\0" + entry + b"\x08\0\0\0"
    assert read_header(circle) is None
    chain = b"II*\0\x08\0\0\0" + b"".join(b"\0\0" + (14 + 6 * i).to_bytes(4, "little") for i in range(140_000))
    assert read_header(chain) is None
    assert damage(chain) == "too many pages"
