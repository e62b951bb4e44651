"""Kinds of faults of a data set, and how each is planted in a copy of one in MVTec AD's layout with masks."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.images import read_image, read_mask

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Tree:
    """A copy of a data set to plant faults in, and the random numbers that choose where."""

    root: Path
    rng: np.random.Generator

    def images(self, place: str) -> list[Path]:
        """The image files of `train/good`, `test/good` and so on; of `test/*` the anomalous ones."""
        if place != "test/*":
            return sorted(path for path in (self.root / place).iterdir() if path.is_file())
        return sorted(path for path in self.root.glob("test/*/*") if path.parent.name != "good")

    def good(self) -> Path:
        """Any good image to train on."""
        return Path(self.rng.choice(np.array(self.images("train/good"), object)))

    def mask(self, image: Path) -> Path:
        """The mask of an anomalous image."""
        return self.root / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"

    def clearest(self) -> Path:
        """The anomalous image whose small defect stands out most from what surrounds it."""
        return max(self.images("test/*"), key=self._clearness)

    def _clearness(self, image: Path) -> float:
        grey, mask = cv2.cvtColor(read_image(image), cv2.COLOR_RGB2GRAY).astype(np.float32), read_mask(self.mask(image))
        around = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool) & ~mask
        if not 0.002 < mask.mean() < 0.15 or not around.any():
            return 0.0
        return float(abs(grey[mask].mean() - grey[around].mean()) / (grey[around].std() + 2))


@dataclass(frozen=True)
class Fault:
    """A kind of fault: which check is meant to find it, and how it is planted; that returns the names it touched."""

    name: str
    check: str
    plant: Callable[[Tree], list[Path]]


# --------------------------------------------------------------------------------------------------------------- files


def put(path: Path, data: bytes) -> None:
    """Replace a file; what it was linked to stays as it is."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def encoded(image: NDArray[np.uint8] | NDArray[np.uint16], suffix: str, quality: int = 95) -> bytes:
    """The bytes of an image file; RGB, grey, or RGB with alpha."""
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(image.shape[2] if image.ndim == 3 else 1)
    pixels = image[..., order] if order else image
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels), options)
    assert done
    return bytes(data.tobytes())


def changed(change: Callable[[Image], Image]) -> Callable[[Tree], list[Path]]:
    """Plant by changing the pixels of one good image, which keeps its format; grey ones stay grey."""

    def plant(tree: Tree) -> list[Path]:
        path = tree.good()
        before = read_image(path)
        after = change(before)
        plain = all((image == image[..., :1]).all() for image in (before, after))
        put(path, encoded(np.asarray(after[..., 0] if plain else after, np.uint8), path.suffix.lower()))
        return [path]

    return plant


def replaced(content: Callable[[Image], bytes], suffix: str = "") -> Callable[[Tree], list[Path]]:
    """Plant by giving one good image's file other bytes, and another suffix if told."""

    def plant(tree: Tree) -> list[Path]:
        path = tree.good()
        image = read_image(path)
        path.unlink()
        path = path.with_suffix(suffix or path.suffix)
        put(path, content(image))
        return [path]

    return plant


def masked(change: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]) -> Callable[[Tree], list[Path]]:
    """Plant by changing the mask of the clearest anomalous image."""

    def plant(tree: Tree) -> list[Path]:
        path = tree.clearest()
        write_mask(tree.mask(path), change(read_mask(tree.mask(path))))
        return [path]

    return plant


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write 0 and 255."""
    put(path, encoded(mask.astype(np.uint8) * np.uint8(255), ".png"))


# -------------------------------------------------------------------------------------------------------------- pixels


def lit(gain: float, offset: float = 0.0) -> Callable[[Image], Image]:
    """Other light."""
    return lambda image: np.clip(image * gain + offset, 0, 255).astype(np.uint8)


def overexposed(image: Image) -> Image:
    """Lit until the brighter half burns out."""
    return lit(255 / max(float(np.median(image)), 40.0), 10)(image)


def hazy(image: Image) -> Image:
    """A quarter of the contrast."""
    return np.asarray(np.clip(image.mean() + (image - image.mean()) / 4, 0, 255), np.uint8)


def blurred(image: Image) -> Image:
    """Out of focus, by a hundredth of the picture."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(1.5, max(image.shape) / 100)), np.uint8)


def reddish(image: Image) -> Image:
    """A cast from red light."""
    return np.asarray(np.clip(image * np.array([1.15, 1.0, 0.8]) + np.array([10, 0, -10]), 0, 255), np.uint8)


def stained(image: Image) -> Image:
    """A dark stain with a bright edge, a tenth of the picture wide."""
    height, width = image.shape[:2]
    place, radius = (width * 3 // 5, height * 2 // 5), max(3, min(height, width) // 16)
    marked = cv2.circle(np.ascontiguousarray(image), place, radius + max(1, radius // 3), (250, 250, 250), -1)
    return np.asarray(cv2.circle(marked, place, radius, (5, 5, 5), -1), np.uint8)


def shrunk(image: Image, height: float, width: float) -> Image:
    """Another size."""
    size = round(image.shape[1] * width), round(image.shape[0] * height)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def with_alpha(image: Image) -> Image:
    """With an alpha channel."""
    return np.dstack([image, np.full(image.shape[:2], 200, np.uint8)])


def other_channels(image: Image) -> Image:
    """Colour as grey, grey as colour."""
    if (image == image[..., :1]).all():
        return np.asarray(np.clip(image + np.array([6, 0, -6]), 0, 255), np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


# ------------------------------------------------------------------------------------------------------------- planting


def link_to_nowhere(tree: Tree) -> list[Path]:
    """A file that was moved away."""
    path = tree.good()
    path.unlink()
    path.symlink_to("moved-away.png")
    return [path]


def damaged_png(image: Image) -> bytes:
    """A byte in the middle of the pixels is another."""
    data = bytearray(encoded(image, ".png"))
    data[len(data) // 2] ^= 0x55
    return bytes(data)


def turned_by_tag(image: Image) -> bytes:
    """A JPEG file whose Exif data say that it is to be turned by 90°."""
    data = encoded(image, ".jpg")
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def with_profile(image: Image) -> bytes:
    """A JPEG file with a colour profile."""
    data = encoded(image, ".jpg")
    body = b"ICC_PROFILE\0\1\1" + struct.pack(">I", 132) + bytes(128)
    return data[:2] + b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body + data[2:]


def two_pages(image: Image) -> bytes:
    """A TIFF file with two pages."""
    done, data = cv2.imencodemulti(".tiff", [image[..., ::-1], image[..., ::-1]])
    assert done
    return bytes(data.tobytes())


def without_mask(tree: Tree) -> list[Path]:
    """A mask that is gone."""
    path = tree.clearest()
    tree.mask(path).unlink()
    return [path]


def cut_mask(tree: Tree) -> list[Path]:
    """A mask that ends early."""
    path = tree.clearest()
    data = tree.mask(path).read_bytes()
    put(tree.mask(path), data[: len(data) * 2 // 3])
    return [path]


def shifted(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Moved by a third of the picture both ways, to where there is more room."""
    moved = mask
    for axis in (0, 1):
        side = mask.shape[axis]
        middle = float(np.argwhere(mask)[:, axis].mean())
        moved = np.roll(moved, side // 3 if middle < side / 2 else -(side // 3), axis)
    return moved


def mirrored_masks(tree: Tree) -> list[Path]:
    """All masks mirrored, as after a slip in an export."""
    images = tree.images("test/*")
    for path in images:
        write_mask(tree.mask(path), read_mask(tree.mask(path))[:, ::-1])
    return images


def mask_on_good(tree: Tree) -> list[Path]:
    """A good image with a mask."""
    path = tree.images("test/good")[0]
    mask = np.zeros(read_image(path).shape[:2], np.bool_)
    mask[: len(mask) // 4, : len(mask) // 4] = True
    write_mask(tree.mask(path), mask)
    return [path]


def mask_left_over(tree: Tree) -> list[Path]:
    """A mask whose image is gone."""
    path = tree.clearest()
    path.unlink()
    return [tree.mask(path)]


def copied(to: str, content: Callable[[Image], bytes] | None = None, suffix: str = "") -> Callable[[Tree], list[Path]]:
    """Plant a copy of a good image, with its own bytes or others, in the first folder that fits `to`."""

    def plant(tree: Tree) -> list[Path]:
        path = tree.good()
        folder = tree.images(to)[0].parent
        copy = folder / f"copy-of-{path.stem}{suffix or path.suffix}"
        put(copy, content(read_image(path)) if content else path.read_bytes())
        if to == "test/*":
            size = read_image(path).shape[:2]
            write_mask(tree.mask(copy), np.arange(size[0] * size[1]).reshape(size) < size[1] * size[0] // 20)
        return [copy]

    return plant


def bad_part(tree: Tree) -> list[Path]:
    """The anomalous image whose defect is largest, among the good ones."""
    path = max(tree.images("test/*"), key=lambda image: float(read_mask(tree.mask(image)).mean()))
    copy = tree.root / "train" / "good" / f"bad-{path.name}"
    path.rename(copy)
    tree.mask(path).unlink()
    return [copy]


def few(tree: Tree) -> list[Path]:
    """Four good images to train on."""
    for path in tree.images("train/good")[4:]:
        path.unlink()
    return []


def brighter(place: str, least: float) -> Callable[[Tree], list[Path]]:
    """Plant by brightening all images of one place, beyond what the set varies by itself."""

    def plant(tree: Tree) -> list[Path]:
        spread = float(np.std([read_image(path).mean() for path in tree.images("train/good")]))
        for path in tree.images(place):
            image = lit(1.0, max(least, 3 * spread))(read_image(path))
            put(path, encoded(image[..., 0] if (image == image[..., :1]).all() else image, path.suffix.lower()))
        return []

    return plant


FAULTS = (
    Fault("empty file", "unreadable", replaced(lambda image: b"")),
    Fault("file moved away", "unreadable", link_to_nowhere),
    Fault("text named as an image", "unreadable", replaced(lambda image: b"<html>not found</html>")),
    Fault("file cut off", "damaged", replaced(lambda image: encoded(image, ".png")[:-2000], ".png")),
    Fault("file with a wrong byte", "damaged", replaced(damaged_png, ".png")),
    Fault("one plain colour", "blank", changed(lambda image: np.full_like(image, 128))),
    Fault("WebP named .bmp", "extension", replaced(lambda image: encoded(image, ".webp"), ".bmp")),
    Fault("mask removed", "mask missing", without_mask),
    Fault("mask cut off", "mask unreadable", cut_mask),
    Fault("mask of another shape", "mask shape", masked(lambda mask: mask[: len(mask) // 2])),
    Fault("mask empty", "mask empty", masked(np.zeros_like)),
    Fault("mask inverted", "mask inverted", masked(np.logical_not)),
    Fault("mask on a good image", "mask on good", mask_on_good),
    Fault("mask shifted", "mask misaligned", masked(shifted)),
    Fault("all masks mirrored", "mask misaligned", mirrored_masks),
    Fault("mask without its image", "unused", mask_left_over),
    Fault("another size", "size", changed(lambda image: shrunk(image, 0.75, 0.75))),
    Fault("another aspect ratio", "size", changed(lambda image: shrunk(image, 0.7, 1.0))),
    Fault(
        "16 bits", "depth", replaced(lambda image: encoded(image.astype(np.uint16) * np.uint16(257), ".png"), ".png")
    ),
    Fault(
        "grey for colour, or colour for grey",
        "channels",
        replaced(lambda i: encoded(other_channels(i), ".png"), ".png"),
    ),
    Fault("alpha channel", "channels", replaced(lambda image: encoded(with_alpha(image), ".png"), ".png")),
    Fault("colour profile", "profile", replaced(with_profile, ".jpg")),
    Fault("stored turned", "orientation tag", replaced(turned_by_tag, ".jpg")),
    Fault("two pages", "pages", replaced(two_pages, ".tiff")),
    Fault("copy in train", "exact duplicate", copied("train/good")),
    Fault("copy in test, as BMP", "exact leak", copied("test/good", lambda image: encoded(image, ".bmp"), ".bmp")),
    Fault("good copy among the anomalous", "label conflict", copied("test/*")),
    Fault(
        "copy brighter and compressed",
        "near duplicate",
        copied("train/good", lambda i: encoded(lit(1.08)(i), ".jpg", 60), ".jpg"),
    ),
    Fault(
        "copy smaller, in test",
        "near leak",
        copied("test/good", lambda i: encoded(shrunk(i, 0.8, 0.8), ".png"), ".png"),
    ),
    Fault(
        "copy shifted, in test",
        "near leak",
        copied("test/good", lambda i: encoded(np.roll(i, len(i) // 64, 0), ".png"), ".png"),
    ),
    Fault("underexposed", "exposure", changed(lit(0.12))),
    Fault("overexposed", "exposure", changed(overexposed)),
    Fault("flat", "exposure", changed(hazy)),
    Fault("out of focus", "focus", changed(blurred)),
    Fault("colour cast", "colour", changed(reddish)),
    Fault("turned by 90°", "orientation", changed(lambda image: np.rot90(image))),
    Fault("turned by 180°", "orientation", changed(lambda image: np.rot90(image, 2))),
    Fault("mirrored", "orientation", changed(lambda image: image[:, ::-1])),
    Fault("stain on a good image", "suspect", changed(stained)),
    Fault("bad part among the good", "suspect", bad_part),
    Fault("few images", "few images", few),
    Fault("good test images brighter", "split shift", brighter("test/good", 25)),
    Fault("anomalous images brighter", "trivial", brighter("test/*", 60)),
)
