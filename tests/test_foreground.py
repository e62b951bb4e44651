"""Where anomalies may lie: parts found on rendered objects with known outlines, surfaces without any, mask images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from draem.config import Config, DataConfig
from draem.data.bank import ImageBank
from draem.data.demo import SURFACES, render_image
from draem.data.foreground import LEAST_QUALITY, find_foreground
from draem.data.regions import Regions
from draem.errors import ConfigError
from draem.images import write_image
from draem.preview import write_preview
from draem.simulation.batch import load_regions
from draem.simulation.simulator import Simulated, Simulator
from draem.training.run import train_run
from tiny import TINY

SIDE = 160
CPU = torch.device("cpu")


def grain(seed: int, fineness: float, strength: float) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).normal(size=(SIDE, SIDE))
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), fineness) if fineness else noise, np.float64)
    return np.asarray(strength * smooth / smooth.std(), np.float64)


def outline(kind: str) -> NDArray[np.bool_]:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if kind == "ellipse":
        cv2.ellipse(mask, (70, 85), (52, 30), 35.0, 0.0, 360.0, 1, -1)
    elif kind == "box":
        mask[30:110, 60:140] = 1
    else:  # reaches into the image from below
        mask[50:, 65:100] = 1
    return mask > 0


BACKGROUNDS: dict[str, Callable[[], NDArray[np.float64]]] = {
    "flat": lambda: 0.4 + grain(1, 0.0, 0.01),
    "shaded": lambda: 0.25 + 0.3 * np.linspace(0, 1, SIDE) + grain(2, 0.0, 0.01),
    "vignette": lambda: 0.5 - 0.3 * ((np.indices((SIDE, SIDE)) / SIDE - 0.5) ** 2).sum(0) + grain(3, 0.0, 0.01),
}
PARTS: dict[str, Callable[[], NDArray[np.float64]]] = {
    "bright": lambda: 0.8 + grain(4, 2.0, 0.03),
    "rough": lambda: 0.45 + grain(5, 1.0, 0.12),
    "striped": lambda: np.where(np.indices((SIDE, SIDE))[1] % 24 < 12, 0.85, 0.1) + grain(6, 1.0, 0.02),
}


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("kind", ["ellipse", "box", "from below"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_parts_are_found(background: str, part: str, kind: str) -> None:
    truth = outline(kind)
    grey = np.clip(np.where(truth, PARTS[part](), BACKGROUNDS[background]()), 0, 1)
    for channels, dtype in ((1, np.uint16), (3, np.uint8), (5, np.uint16)):
        scale = np.linspace(1.0, 0.7, channels) * np.iinfo(dtype).max
        found = find_foreground((grey[..., None] * scale).astype(dtype))
        assert found.mask.shape == truth.shape
        assert overlap(found.mask, truth) >= 0.9
        assert 0.7 <= found.quality <= 1.0


def test_a_part_of_another_colour_alone_is_found() -> None:
    truth = outline("ellipse")
    image = np.where(truth[..., None], [90, 120, 150], [120, 120, 120]) + grain(7, 0.0, 3.0)[..., None]
    found = find_foreground(image.astype(np.uint8))
    assert overlap(found.mask, truth) >= 0.9
    assert found.quality >= 0.7


def test_size_does_not_matter() -> None:
    truth = outline("box")
    grey = np.where(truth, PARTS["bright"](), BACKGROUNDS["shaded"]())
    image = (np.clip(grey, 0, 1) * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    for size in ((48, 64), (700, 400)):
        large = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        expected = cv2.resize(truth.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
        assert overlap(find_foreground(np.asarray(large, np.uint8)).mask, expected) >= 0.9


@pytest.mark.parametrize("fineness", [0.0, 1.0, 3.0, 10.0, 40.0])
def test_surfaces_have_no_part(fineness: float) -> None:
    for seed in range(4):
        image = np.clip(0.5 + grain(seed, fineness, 0.1), 0, 1)[..., None] * 255
        assert find_foreground(image.astype(np.uint8)).quality < LEAST_QUALITY


def test_rendered_surfaces_have_no_part_and_labels_have_one() -> None:
    for surface in SURFACES:
        quality = np.median([find_foreground(render_image(surface, size=128, index=i).image).quality for i in range(4)])
        assert (quality >= LEAST_QUALITY) == (surface == "printed")  # a sheet of paper on a table


def test_plain_images_are_understood() -> None:
    for image in (np.full((64, 50, 3), 7, np.uint8), np.zeros((16, 16, 1), np.uint16)):
        assert find_foreground(image).quality == 0.0


# ------------------------------------------------------------------------------------------------------------ regions


def parts(folder: Path, count: int = 6) -> Path:
    """Images of a bright part at another place in each."""
    for index in range(count):
        pixels = np.full((64, 64, 3), 60, np.uint8) + np.random.default_rng(index).integers(0, 6, (64, 64, 3), np.uint8)
        pixels[10 : 30 + index, 6 + 4 * index : 36 + 4 * index] += 120
        write_image(folder / f"{index}.png", pixels)
    return folder


def bank_of(folder: Path, size: int = 64, **settings: Any) -> tuple[ImageBank, DataConfig]:
    config = DataConfig(size=(size, size), **settings)
    return ImageBank.load(sorted(folder.glob("*.png")), config), config


def painted(path: Path, size: tuple[int, int], rows: slice, columns: slice) -> Path:
    white = np.zeros((*size, 3), np.uint8)
    white[rows, columns] = 255
    write_image(path, white)
    return path


def whole(regions: Regions, places: Iterable[int]) -> np.ndarray:
    return np.stack([regions.whole(place) for place in places])


def test_each_image_has_its_own_region(tmp_path: Path) -> None:
    bank, config = bank_of(parts(tmp_path))
    regions = Regions.of(bank, "foreground", config)
    assert regions is not None
    assert regions.quality > 0.9
    assert "the part alone" in str(regions)
    order = torch.tensor([4, 0, 5])
    loaded = load_regions(regions, order, order, CPU)
    assert loaded is not None
    assert loaded.dtype == torch.float32
    for index, region in zip(order.tolist(), loaded[:, 0].numpy(), strict=True):
        truth = np.zeros((64, 64), np.bool_)
        truth[10 : 30 + index, 6 + 4 * index : 36 + 4 * index] = True
        assert overlap(region > 0.5, truth) >= 0.9


def test_a_doubtful_image_counts_whole(tmp_path: Path) -> None:
    parts(tmp_path)
    write_image(tmp_path / "6.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    speck = np.full((64, 64, 3), 60, np.uint8)
    speck[30:38, 30:38] = 200  # clear, but much smaller than the part usually is
    write_image(tmp_path / "7.png", speck)
    bank, config = bank_of(tmp_path)
    regions = Regions.of(bank, "foreground", config)
    assert regions is not None
    masks = whole(regions, range(8))
    assert masks.all((1, 2)).tolist() == [False] * 6 + [True] * 2
    assert "everywhere on 2 of 8 images" in str(regions)


def test_a_surface_is_used_everywhere(tmp_path: Path) -> None:
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), np.uint8)
        write_image(tmp_path / f"{index}.png", pixels)
    bank, config = bank_of(tmp_path)
    regions = Regions.of(bank, "foreground", config)
    assert regions is not None
    assert str(regions).startswith("anomalies everywhere: no part stands out")
    assert load_regions(regions, torch.arange(2), torch.arange(2), CPU) is None
    assert Regions.of(bank, "everywhere", config) is None
    assert load_regions(None, torch.arange(2), torch.arange(2), CPU) is None


def test_a_mask_image_is_fitted_as_the_images_are(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "0.png", np.zeros((40, 80, 3), np.uint8))
    mask = painted(tmp_path / "mask.png", (20, 40), slice(0, 10), slice(20, 40))
    for fit, rows in (("resize", slice(0, 16)), ("letterbox", slice(8, 16))):
        bank, config = bank_of(tmp_path / "images", 32, fit=fit)
        regions = Regions.of(bank, mask, config)
        assert regions is not None
        masks = whole(regions, range(len(bank)))
        expected = np.zeros((1, 32, 32), np.bool_)
        expected[0, rows, 16:] = True
        np.testing.assert_array_equal(masks, expected)


def test_regions_take_a_bit_a_pixel(tmp_path: Path) -> None:
    bank, config = bank_of(parts(tmp_path), 23)  # whose pixels do not fill the last byte
    regions = Regions.of(bank, "foreground", config)
    assert regions is not None
    assert regions.packed is not None
    assert sum(bits.nbytes for bits in regions.packed) == len(bank) * 23 * 3
    masks = whole(regions, (3, 1))
    for mask, place in zip(masks, (3, 1), strict=True):
        np.testing.assert_array_equal(mask, find_foreground(bank[place][0]).mask)
    every = whole(regions, range(len(bank)))
    assert f"{every.mean():.0%} of the image" in str(regions)


def test_mask_images_that_cannot_serve(tmp_path: Path) -> None:
    bank, config = bank_of(parts(tmp_path / "images", 1))
    (tmp_path / "broken.png").write_bytes(b"no image")
    black = painted(tmp_path / "black.png", (64, 64), slice(0), slice(0))
    wide = painted(tmp_path / "wide.png", (64, 96), slice(9), slice(9))
    for path, words in (
        (tmp_path / "gone.png", "no such file"),
        (tmp_path / "broken.png", "not an image"),
        (black, "nothing in it is white"),
        (wide, "96×64 pixels, the images are 64×64"),
    ):
        with pytest.raises(ConfigError, match=words) as raised:
            Regions.of(bank, path, config)
        assert "simulation.region" in str(raised.value)
        assert path.name in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_run_and_a_preview_keep_to_the_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Simulated] = []
    simulate = Simulator.__call__

    def recording(self: Simulator, *arguments: Any) -> Simulated:
        made.append(simulate(self, *arguments))
        return made[-1]

    monkeypatch.setattr(Simulator, "__call__", recording)
    images = parts(tmp_path / "images", 10)
    mask = painted(tmp_path / "mask.png", (64, 64), slice(20, 50), slice(5, 40))
    settings = TINY | {
        "simulation.region": str(mask),
        "training.images": 16,
        "training.batch_size": 4,
        "training.validations": 1,
        "training.accelerator": "cpu",
        "simulation.clean_share": 0.0,
    }
    config = Config.resolve("edge", settings=settings)
    train_run(images, tmp_path / "run", config)
    assert "anomalies on the part alone" in capsys.readouterr().err
    assert len(made) > 4  # the steps and the validation
    preview = write_preview(images, tmp_path / "sheet.png", config, 4, 0)
    assert preview.region == "anomalies on the part alone, 26% of the image: quality 1.00 (median)"
    for batch in made:
        assert batch.mask[:, :, 20:50, 5:40].sum() == batch.mask.sum() > 0
