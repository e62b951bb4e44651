"""Reading any file as the pixels that a network takes, against what was written; views; ranges of values."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from draem.errors import ImageError
from draem.imageheaders import read_header
from draem.images import decode_image, read_image, read_mask, read_pixels
from draem.pixels import Depth, PixelFormat, convert, unused_range, view
from tiffs import tiff

RNG = np.random.default_rng(0)
DEEP = np.asarray(cv2.resize(RNG.integers(0, 65536, (4, 5, 4), dtype=np.uint16), (23, 17)), np.uint16)
"""Red, green, blue, alpha."""
SHALLOW = (DEEP >> 8).astype(np.uint8)
LUMA = (0.299, 0.587, 0.114)


def _png(pixels: NDArray[Any], turn: int) -> bytes:
    """By OpenCV, which takes blue first, with an Exif block put in behind the header."""
    order = {1: [0], 2: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    data = cv2.imencode(".png", pixels[..., order])[1].tobytes()
    block = b"eXIfII*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, turn, 0, 0)
    return data[:33] + struct.pack(">I", len(block) - 4) + block + struct.pack(">I", zlib.crc32(block)) + data[33:]


def _by_pillow(pixels: NDArray[Any], kind: str, turn: int) -> bytes:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[pixels.shape[2]]
    image = Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    exif = image.getexif()
    exif[274] = turn
    data = io.BytesIO()
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    image.save(data, kind, **options, **({} if kind == "BMP" else {"exif": exif}))
    return data.getvalue()


def _by_hand(pixels: NDArray[Any], turn: int, order: str) -> bytes:
    colours, alpha = (1, pixels.shape[2] == 2) if pixels.shape[2] < 3 else (2, pixels.shape[2] == 4)
    return tiff(pixels, colours, (2,) * alpha, turn, order)


def _upright(pixels: NDArray[Any], turn: int) -> NDArray[Any]:
    quarters = {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}[turn]
    turned = np.rot90(pixels, quarters)
    return turned[:, ::-1] if turn in (2, 4, 5, 7) else turned


def _expected(stored: NDArray[Any], wanted: PixelFormat, turn: int) -> NDArray[Any]:
    """By the rules: alpha dropped, depth changed by one rounding, grey repeated, colours to luma, turned upright."""
    colours = stored[..., : 1 if stored.shape[2] < 3 else 3].astype(np.float64)
    most = np.iinfo(stored.dtype).max
    pixels = np.rint(colours / most * wanted.highest)
    if wanted.channels == 1 and pixels.shape[2] == 3:
        pixels = (pixels @ LUMA)[..., None]
    return _upright(np.broadcast_to(pixels, (*pixels.shape[:2], wanted.channels)), turn)


EIGHT = [*itertools.product(["PNG", "TIFF"], [1, 2, 3, 4]), ("WEBP", 3), ("WEBP", 4), ("BMP", 1), ("BMP", 3)]


def _check(data: bytes, stored: NDArray[Any], turn: int, path: Path) -> None:
    path.write_bytes(data)
    for channels, depth in itertools.product((1, 3), (8, 16)):
        wanted = PixelFormat(channels, depth)  # type: ignore[arg-type]
        pixels = read_pixels(path, wanted)
        expected = _expected(stored, wanted, turn)
        assert pixels.dtype == wanted.dtype
        assert pixels.shape == expected.shape
        # Halves of the luma may fall either way.
        slack = 0.51 if channels == 1 and stored.shape[2] > 2 else 0
        assert np.abs(pixels - expected).max() <= slack
    header = read_header(data)
    assert header is not None
    assert (header.height, header.width, header.orientation) == (*stored.shape[:2], turn)
    assert header.samples == (1 if stored.shape[2] < 3 else 3)


@pytest.mark.parametrize(("kind", "channels"), EIGHT)
@pytest.mark.parametrize("turn", [1, 6, 7])
def test_eight_bits(kind: str, channels: int, turn: int, tmp_path: Path) -> None:
    stored = SHALLOW[..., :channels] if channels != 2 else SHALLOW[..., [0, 3]]
    turn = 1 if kind == "BMP" else turn
    _check(_by_pillow(stored, kind, turn), stored, turn, tmp_path / "x")


@pytest.mark.parametrize("kind", ["PNG", "TIFF little endian", "TIFF big endian"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("turn", [1, 6, 7])
def test_sixteen_bits(kind: str, channels: int, turn: int, tmp_path: Path) -> None:
    stored = DEEP[..., :channels]
    data = _png(stored, turn) if kind == "PNG" else _by_hand(stored, turn, "<" if "little" in kind else ">")
    _check(data, stored, turn, tmp_path / "x")


def test_sixteen_bit_png_of_grey_with_alpha(tmp_path: Path) -> None:
    """Neither Pillow nor OpenCV writes it; OpenCV reads it as three channels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    stored = DEEP[..., [0, 3]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in stored)
    parts = (b"IHDR", struct.pack(">IIBBBBB", 23, 17, 16, 4, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    _check(data, stored, 1, tmp_path / "x")


@pytest.mark.parametrize(("kind", "channels"), EIGHT)
def test_palettes(kind: str, channels: int, tmp_path: Path) -> None:
    if kind == "WEBP" or channels != 3:
        return
    image = Image.fromarray(SHALLOW[..., :3]).quantize(16)
    data = io.BytesIO()
    image.save(data, kind)
    _check(data.getvalue(), np.asarray(image.convert("RGB")), 1, tmp_path / "x")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_keep_sixteen_bits(channels: int, dtype: type, tmp_path: Path) -> None:
    stored: NDArray[Any] = (DEEP[..., :channels] / 65535).astype(dtype)
    (tmp_path / "x.tif").write_bytes(_by_hand(stored, 1, "<"))
    colours = min(channels, 3)
    pixels = read_pixels(tmp_path / "x.tif", PixelFormat(colours, 16))
    np.testing.assert_array_equal(pixels, DEEP[..., :colours])


def test_sixteen_bits_that_the_decoder_halves_are_refused(tmp_path: Path) -> None:
    stored = DEEP[..., [0, 3]]
    (tmp_path / "x.tif").write_bytes(_by_hand(stored, 1, "<"))
    with pytest.raises(ImageError, match=r"x\.tif: only 8 of its 16 bits can be read"):
        read_pixels(tmp_path / "x.tif", PixelFormat(1, 16))
    assert read_pixels(tmp_path / "x.tif", PixelFormat(1, 8)).shape == (17, 23, 1)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_as_pillow_converts_it(kind: str, adobe: bool, tmp_path: Path) -> None:
    """Adobe's JPEG files hold it inverted; both kinds mean (255 − C)(255 − K) / 255."""
    inks = Image.frombytes("CMYK", (23, 17), np.ascontiguousarray(SHALLOW).tobytes())
    data = io.BytesIO()
    inks.save(data, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    content = data.getvalue()
    if kind == "JPEG" and not adobe:
        start = content.index(b"Adobe") - 4
        content = content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4], "big") :]
    (tmp_path / "x").write_bytes(content)
    opened = Image.open(io.BytesIO(content))
    assert opened.mode == "CMYK"
    expected = np.asarray(opened.convert("RGB")).astype(int)
    assert np.abs(read_pixels(tmp_path / "x", PixelFormat()) - expected).max() <= 2
    header = read_header(content)
    assert header is not None
    assert (header.colour, header.samples) == ("cmyk", 3)


def test_a_profile_changes_no_pixel(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(SHALLOW[..., :3]).save(data, "PNG", icc_profile=b"any" * 100)
    (tmp_path / "x").write_bytes(data.getvalue())
    np.testing.assert_array_equal(read_pixels(tmp_path / "x", PixelFormat()), SHALLOW[..., :3])


# -------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("depth", [8, 16])
def test_twelve_bits_in_sixteen(depth: Depth) -> None:
    raw = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    wanted = PixelFormat(1, depth, (0, 4095))
    expected = np.rint(np.minimum(raw, 4095) / 4095 * wanted.highest)
    np.testing.assert_array_equal(convert(raw, wanted, "x")[..., 0], expected)
    assert len(np.unique(convert(raw, wanted, "x"))) == (256 if depth == 8 else 4096)


def test_floats_of_any_range_are_cut() -> None:
    raw = np.array([[-3.0, -1.0, 0.5, 2.0, 9.0]])
    np.testing.assert_array_equal(convert(raw, PixelFormat(1, 8, (-1, 2)), "x")[..., 0], [[0, 0, 128, 255, 255]])
    with pytest.raises(ImageError, match="found nan"):
        convert(np.array([[np.nan, 0.5]]), PixelFormat(1, 8, (-1, 2)), "x")
    with pytest.raises(ImageError, match=r"found -3 to 9: .* data\.value_range"):
        convert(raw, PixelFormat(1, 8), "x")


def test_eight_bits_become_sixteen_and_come_back() -> None:
    raw = np.arange(256, dtype=np.uint8).reshape(16, 16)
    deep = convert(raw, PixelFormat(1, 16), "x")
    np.testing.assert_array_equal(deep[..., 0], raw.astype(np.uint16) * 257)
    np.testing.assert_array_equal(convert(deep, PixelFormat(1, 8), "x")[..., 0], raw)


@pytest.mark.parametrize(("found", "wanted"), [(1, 5), (3, 5), (5, 3), (5, 1), (2, 1), (4, 3)])
def test_channels_that_do_not_fit(found: int, wanted: int) -> None:
    with pytest.raises(ImageError, match=rf"^part: has {found} channels?, {wanted} expected$"):
        convert(np.zeros((4, 4, found), np.uint8), PixelFormat(wanted), "part")


def test_views() -> None:
    pixels = RNG.integers(0, 65536, (2, 6, 7, 5), dtype=np.uint16)
    shown = np.rint(pixels / 257).astype(np.uint8)
    np.testing.assert_array_equal(view(pixels), shown[..., :3])
    np.testing.assert_array_equal(view(shown[..., :3]), shown[..., :3])
    for channels in (1, 2):
        np.testing.assert_array_equal(view(pixels[..., :channels]), np.repeat(shown[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(view(np.array([[[-1.0, 0.5, 2.0]]])), [[[0, 128, 255]]])


# -------------------------------------------------------------------------------------------------------------- stacks


def _pages(pages: list[NDArray[Any]]) -> bytes:
    return cv2.imencodemulti(".tif", pages)[1].tobytes()


def _array(values: NDArray[Any], version: tuple[int, int] = (1, 0)) -> bytes:
    data = io.BytesIO()
    np.lib.format.write_array(data, values, version)
    return data.getvalue()


@pytest.mark.parametrize("count", [2, 3, 5, 11])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pages_are_channels(count: int, dtype: type, tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (17, 23, count)).astype(dtype) / (255 if dtype is np.float32 else 1)
    values = values.astype(dtype)
    (tmp_path / "x.tif").write_bytes(_pages([values[..., page] for page in range(count)]))
    (tmp_path / "x.npy").write_bytes(_array(values))
    depths: tuple[Depth, ...] = (8, 16)
    for depth in depths:
        wanted = PixelFormat(count, depth)
        pages, array = (read_pixels(tmp_path / name, wanted) for name in ("x.tif", "x.npy"))
        np.testing.assert_array_equal(pages, convert(values, wanted, "x"))
        np.testing.assert_array_equal(pages, array)
    header = read_header((tmp_path / "x.tif").read_bytes())
    assert header is not None
    assert header.samples == count
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), view(convert(values, PixelFormat(count), "x")))


def test_a_stack_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(_pages([SHALLOW[..., 0], SHALLOW[:9, :, 0]]))
    with pytest.raises(ImageError, match=r"x\.tif: cannot be decoded"):
        read_pixels(path, PixelFormat(2))
    path.write_bytes(_pages([SHALLOW[..., :3][..., ::-1]] * 4))  # pages in colour: the first is the image
    np.testing.assert_array_equal(read_pixels(path, PixelFormat()), SHALLOW[..., :3])
    for samples, photometric in ((2, 1), (4, 1), (5, 1), (5, 2)):  # OpenCV would give one channel, or none
        path.write_bytes(tiff(np.zeros((17, 23, samples), np.uint8), photometric))
        with pytest.raises(ImageError, match=f"{samples} samples a pixel .* as pages"):
            read_pixels(path, PixelFormat(samples))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("shape", [(17, 23), (17, 23, 1), (17, 23, 6)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_as_numpy_reads_them(version: tuple[int, int], dtype: str, shape: tuple[int, ...], order: str) -> None:
    values = np.asarray(RNG.random(shape) * (1 if "f" in dtype else 255), dtype, order=order)  # type: ignore[call-overload]
    data = _array(values, version)
    read = np.atleast_3d(np.load(io.BytesIO(data), allow_pickle=False))
    np.testing.assert_array_equal(decode_image(data, "x"), view(convert(read, PixelFormat(read.shape[2]), "x")))


def test_arrays_that_are_refused(tmp_path: Path) -> None:
    good = _array(np.zeros((16, 16, 5), np.uint8))
    hostile = {
        "pickled": _array(np.array([[print, 1], [2, 3]], object)),
        "structured": _array(np.zeros((4, 4), [("a", "u1"), ("b", "f4")])),
        "integers": _array(np.zeros((4, 4), np.int64)),
        "text": _array(np.array([["a", "b"]])),
        "flat": _array(np.zeros(16, np.uint8)),
        "deep": _array(np.zeros((4, 4, 4, 4), np.uint8)),
        "empty": _array(np.zeros((0, 4), np.uint8)),
        "channels first": _array(np.zeros((5, 8, 80), np.uint8)),
        "huge": good.replace(b"(16, 16, 5)", b"(999999999999, 999999999999, 5)"),
        "cut": good[:-1],
        "cut in the header": good[:40],
        "a header beyond any": good[:8] + b"\xff\xff" + good[10:],
        "a later version": good[:6] + b"\x09" + good[7:],
    }
    for name, data in hostile.items():
        path = tmp_path / f"{name}.npy"
        path.write_bytes(data)
        for read in (lambda: read_image(path), lambda: read_pixels(path, PixelFormat(5)), lambda: read_mask(path)):  # noqa: B023
            with pytest.raises(ImageError, match="damaged NumPy file") as caught:
                read()
            assert "\n" not in str(caught.value)


def test_mutated_arrays_raise_nothing_else() -> None:
    start = _array(RNG.integers(0, 255, (16, 16, 5), dtype=np.uint16))
    read = 0
    for turn in range(2000):
        data = bytearray(start)
        for place in RNG.integers(0, 128 if turn % 2 else len(data), RNG.integers(1, 5)):
            data[place] = RNG.integers(256)
        changed = bytes(data[: RNG.integers(1, len(data) + 1)] if turn % 4 == 0 else data)
        read_header(changed)
        try:
            decode_image(changed, "x")
        except ImageError:
            continue
        read += 1
    assert 0 < read < 2000


# --------------------------------------------------------------------------------------------------------------- masks


def test_masks_of_every_kind(tmp_path: Path) -> None:
    expected = SHALLOW[..., 0] > 127
    path = tmp_path / "mask.npy"
    for values in (SHALLOW[..., 0], expected.astype(np.uint8), SHALLOW[..., 0].astype(np.float32) / 255):
        path.write_bytes(_array(values))
        np.testing.assert_array_equal(read_mask(path), expected)
    path.write_bytes(_array(np.array([[0.5, 0.501]])))
    np.testing.assert_array_equal(read_mask(path), [[False, True]])


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(0, None), (200, 255), (1000, 1023), (4095, 4095), (4096, 8191), (32767, 32767), (32768, None), (65535, None)],
)
def test_the_range_that_few_bits_have(highest: int, expected: int | None) -> None:
    assert unused_range(highest) == (None if expected is None else (0, expected))
