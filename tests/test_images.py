"""Image files in and out, against Pillow and NumPy; damaged files."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from draem.errors import DraemError, ImageError
from draem.imagefiles import damage
from draem.images import decode_image, read_image, read_mask, write_image, write_map

RNG = np.random.default_rng(0)
SMOOTH = np.asarray(cv2.resize(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8), (81, 60)), np.uint8)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


KINDS = {
    "png": _saved(Image.fromarray(SMOOTH), "PNG"),
    "png palette": _saved(Image.fromarray(SMOOTH).quantize(64), "PNG"),
    "jpeg": _saved(Image.fromarray(SMOOTH), "JPEG", quality=90),
    "jpeg progressive": _saved(Image.fromarray(SMOOTH), "JPEG", progressive=True),
    "jpeg thumbnail": _saved(
        Image.fromarray(SMOOTH), "JPEG", exif=b"Exif\0\0" + _saved(Image.fromarray(SMOOTH), "JPEG")
    ),
    "bmp": _saved(Image.fromarray(SMOOTH), "BMP"),
    "tiff": _saved(Image.fromarray(SMOOTH), "TIFF"),
    "tiff lzw": _saved(Image.fromarray(SMOOTH), "TIFF", compression="tiff_lzw"),
    "tiff deflate": _saved(Image.fromarray(SMOOTH), "TIFF", compression="tiff_adobe_deflate"),
    "webp": _saved(Image.fromarray(SMOOTH), "WEBP", quality=90),
    "webp lossless": _saved(Image.fromarray(SMOOTH), "WEBP", lossless=True),
}


# ---------------------------------------------------------------------------------------------------------------- read


@pytest.mark.parametrize("kind", KINDS)
def test_reads_what_pillow_reads(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"  # the content decides, not the suffix
    path.write_bytes(KINDS[kind])
    image = read_image(path)
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    # Lossy decoders may round differently; swapped channels or a shifted row would be far off.
    assert np.abs(image.astype(int) - expected).max() <= (4 if "jpeg" in kind else 2 if kind == "webp" else 0)


@pytest.mark.parametrize(("mode", "kind"), [*itertools.product(["L", "1", "LA", "RGBA", "P"], ["PNG", "TIFF"])])
def test_modes_become_rgb(mode: str, kind: str) -> None:
    image = Image.fromarray(SMOOTH).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(SMOOTH[..., 1] | 1))
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_image(_saved(image, kind), "x"), expected)


def test_cmyk_jpeg_as_pillow_converts_it() -> None:
    data = _saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode_image(data, "x") - expected).max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded_not_cut(suffix: str, channels: int) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = np.dstack([ramp, ramp[::-1], ramp.T, ramp])[..., :channels].squeeze()
    data = cv2.imencode(suffix, pixels)[1].tobytes()  # OpenCV takes blue first
    colours = np.repeat(ramp[..., None], 3, axis=2) if channels == 1 else pixels[..., 2::-1]
    np.testing.assert_array_equal(decode_image(data, "x"), np.floor(colours / 257 + 0.5).astype(np.uint8))


def test_float_tiff_in_unit_range() -> None:
    for pixels in (RNG.random((9, 7, 3)).astype(np.float32), RNG.random((9, 7))):
        image = decode_image(cv2.imencode(".tif", pixels)[1].tobytes(), "x")
        expected = np.rint(np.atleast_3d(pixels)[..., ::-1] * 255)
        np.testing.assert_array_equal(image, np.broadcast_to(expected, (9, 7, 3)))


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.full((4, 4), 1.5, np.float32), r"found 1\.5 to 1\.5"),
        (np.full((4, 4), -0.1, np.float32), "found -0.1"),
        (np.full((4, 4), np.nan, np.float32), "found nan"),
        (np.full((4, 4), 7, np.int16), "int16 pixels are not understood"),
    ],
)
def test_other_ranges_are_an_error(pixels: np.ndarray, says: str) -> None:
    with pytest.raises(ImageError, match=f"^part.tif: .*{says}"):
        decode_image(cv2.imencode(".tif", pixels)[1].tobytes(), "part.tif")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation(kind: str, turn: int) -> None:
    image = Image.fromarray(SMOOTH)
    exif = image.getexif()
    exif[0x0112] = turn
    plain, turned = _saved(image, kind, quality=95), _saved(image, kind, quality=95, exif=exif)
    quarter = {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}[turn]
    expected = np.rot90(decode_image(plain, "x"), quarter)
    expected = expected[:, ::-1] if turn in (2, 4, 5, 7) else expected
    np.testing.assert_array_equal(decode_image(turned, "x"), expected)


# ------------------------------------------------------------------------------------------------------------- damaged


@pytest.mark.parametrize("kind", KINDS)
def test_cut_files_are_found_out_in_silence(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, path = KINDS[kind], tmp_path / "part 7.png"
    points = {*range(0, 64, 7), *range(64, len(data), max(1, len(data) // 60)), *range(len(data) - 5, len(data))}
    for point in sorted(points):
        path.write_bytes(data[:point])
        with pytest.raises(ImageError) as caught:
            read_image(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_cuts_show_before_decoding(kind: str) -> None:
    """Whether a decoder returns part of a cut file depends on its version; the marks in the file do not."""
    data = KINDS[kind]
    assert damage(data) is None
    for share in (0.3, 0.6, 0.9):
        assert damage(data[: int(len(data) * share)]) == "the file ends early"
    # The last byte of Pillow's TIFF files belongs to a value that is not looked at.
    assert "tiff" in kind or damage(data[:-1]) == "the file ends early"


def test_tiff_strip_beyond_the_end() -> None:
    """OpenCV's own files have the directory last, so a strip can only lie outside if the file was mended badly."""
    data = bytearray(cv2.imencode(".tif", SMOOTH[:8])[1].tobytes())
    assert damage(bytes(data)) is None
    entry = data.index((273).to_bytes(2, "little") + (4).to_bytes(2, "little"), int.from_bytes(data[4:8], "little"))
    assert int.from_bytes(data[entry + 4 : entry + 8], "little") == 1  # one strip: its offset stands in the entry
    data[entry + 8 : entry + 12] = (len(data) - 10).to_bytes(4, "little")
    assert damage(bytes(data)) == "the file ends early"


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_after_the_end_do_no_harm(kind: str) -> None:
    np.testing.assert_array_equal(decode_image(KINDS[kind] + bytes(64), "x"), decode_image(KINDS[kind], "x"))


@pytest.mark.parametrize("kind", ["png", "png palette", "jpeg", "jpeg progressive", "tiff lzw", "tiff deflate"])
def test_zeros_at_the_end_are_found_out(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What a power cut leaves of a file: its full length, zeros from some place on."""
    for share in (0.3, 0.6, 0.9):
        kept = int(len(KINDS[kind]) * share)
        with pytest.raises(ImageError, match="x: "):
            decode_image(KINDS[kind][:kept] + bytes(len(KINDS[kind]) - kept), "x")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["png", "tiff deflate"])
def test_flipped_bits_are_found_out_where_there_are_checksums(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    for place in range(len(KINDS[kind]) // 4, len(KINDS[kind]) * 3 // 4, 97):
        data = bytearray(KINDS[kind])
        data[place] ^= 16
        with pytest.raises(ImageError, match=r"damaged (PNG|TIFF) file"):
            decode_image(bytes(data), "x")
    assert capfd.readouterr() == ("", "")


def test_noise_behind_every_magic_number_is_one_clear_line() -> None:
    starts = [data[:place] for data in KINDS.values() for place in (4, 16, 40)]
    for start in starts:
        data = start + RNG.integers(0, 256, 300, dtype=np.uint8).tobytes()
        with pytest.raises(ImageError) as caught:
            decode_image(data, "x")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "the file is empty"), (b"hello world\nand more", "not an image"), (b"BM and so on, a text", "not an image")],
)
def test_no_image(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ImageError, match=rf"x\.png: {says}") as caught:
        read_image(tmp_path / "x.png")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_mask(Path("nul\0l.png"))


@pytest.mark.skipif(os.name != "posix", reason="devices are files on POSIX alone")
def test_what_is_no_plain_file_is_refused_unread(tmp_path: Path) -> None:
    """A device may have no end, and a pipe nobody who writes to it."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (Path("/dev/zero"), tmp_path / "pipe.png"):
        for read in (read_mask, read_image):
            with pytest.raises(ImageError, match="not a file to read, but a pipe or a device"):
                read(path)


# --------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0, 127, 128, 255]], np.uint8), [0, 0, 1, 1]),
        (np.array([[0, 1, 1, 0]], np.uint8), [0, 1, 1, 0]),
        (np.array([[0, 1, 2, 255]], np.uint8), [0, 0, 0, 1]),
        (np.array([[0, 1, 2, 9]], np.uint8), [0, 1, 1, 1]),
        (np.array([[0, 0, 0, 0]], np.uint8), [0, 0, 0, 0]),
        (np.array([[0, 32767, 32768, 65535]], np.uint16), [0, 0, 1, 1]),
        (np.array([[[0, 0, 0], [0, 0, 200], [100, 100, 100], [255, 255, 255]]], np.uint8), [0, 1, 0, 1]),
    ],
)
def test_masks(pixels: np.ndarray, expected: list[int], tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    mask = read_mask(path)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, np.array([expected], bool))


# --------------------------------------------------------------------------------------------------------------- write


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".TIF", ".tiff"])
def test_written_images_come_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"x{suffix}"
    write_image(path, SMOOTH)
    np.testing.assert_array_equal(read_image(path), SMOOTH)
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("RGB")), SMOOTH)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_images_come_back_nearly(suffix: str, tmp_path: Path) -> None:
    write_image(tmp_path / f"x{suffix}", SMOOTH)
    assert np.abs(read_image(tmp_path / f"x{suffix}").astype(int) - SMOOTH).mean() < 6


def test_written_map_comes_back(tmp_path: Path) -> None:
    anomaly_map = RNG.random((30, 40)).astype(np.float32)
    anomaly_map[0, :2] = 0, 1
    write_map(tmp_path / "map.png", anomaly_map)
    pixels = np.asarray(Image.open(tmp_path / "map.png"))
    assert pixels.max() == 65535
    assert np.abs(pixels / 65535 - anomaly_map).max() <= 0.5 / 65535 + 1e-9
    for wrong in (1.01, -0.01, np.nan):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            write_map(tmp_path / "map.png", np.full((2, 2), wrong, np.float32))


def test_write_errors(tmp_path: Path) -> None:
    with pytest.raises(DraemError, match=r"x\.gif: cannot write \.gif: use"):
        write_image(tmp_path / "x.gif", SMOOTH)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DraemError, match="cannot be written"):
        write_image(tmp_path / "file" / "x.png", SMOOTH)
    with pytest.raises(DraemError, match=r"cannot be written as \.webp"):  # its sides end at 16383
        write_image(tmp_path / "x.webp", np.zeros((2, 17000, 3), np.uint8))
