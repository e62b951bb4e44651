"""The image bank against reading each image directly; RAM against file; damaged images skipped or stopped at."""

from __future__ import annotations

import gc
import shutil
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest

from draem.config import DataConfig
from draem.data.bank import ImageBank
from draem.data.truth import Truth, load_truth
from draem.errors import DataError, ImageError
from draem.images import FitMode, Interpolation, fit_image, fit_mask, read_image, write_image

CONFIG = DataConfig(size=(48, 64))
BIG = DataConfig(size=(512, 512), memory_limit_mb=1)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten images of different shapes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    found = []
    for index in range(10):
        found.append(folder / f"{index}.png")
        write_image(found[-1], rng.integers(0, 256, (30 + 9 * index, 90 - 7 * index, 3), dtype=np.uint8))
    return found


@pytest.fixture
def damaged(paths: list[Path], tmp_path: Path) -> list[Path]:
    """The ten, the fourth cut short and the eighth missing."""
    copies = [Path(shutil.copy(path, tmp_path)) for path in paths]
    copies[3].write_bytes(copies[3].read_bytes()[:-40])
    copies[7].unlink()
    return copies


def _direct(paths: list[Path], config: DataConfig) -> np.ndarray:
    return np.stack([fit_image(read_image(path), *config.frame(config.size), config.interpolation) for path in paths])


@pytest.mark.parametrize("fit", ["resize", "letterbox"])
@pytest.mark.parametrize("interpolation", ["area", "linear"])
@pytest.mark.parametrize("workers", [1, 7])
def test_bank_holds_what_reading_gives(
    paths: list[Path], fit: FitMode, interpolation: Interpolation, workers: int
) -> None:
    config = DataConfig(size=(48, 64), fit=fit, interpolation=interpolation)
    bank = ImageBank.load(iter(paths), config, workers=workers)
    assert (len(bank), bank.size, bank.paths, bank.skipped, bank.in_memory) == (10, (48, 64), tuple(paths), (), True)
    np.testing.assert_array_equal(bank[:], _direct(paths, config))


def test_ways_to_index(paths: list[Path]) -> None:
    bank, expected = ImageBank.load(paths, CONFIG), _direct(paths, CONFIG)
    for indices in ([3, 3, 0], np.array([9, -1]), slice(2, 8, 3), [], np.arange(10) % 2 == 0):
        chosen = np.asarray(indices, int) if isinstance(indices, list) else indices
        np.testing.assert_array_equal(bank[chosen], expected[chosen])
    np.testing.assert_array_equal(bank[4], expected[4:5])
    with pytest.raises(IndexError):
        bank[[10]]


def test_batches_are_copies(paths: list[Path]) -> None:
    bank = ImageBank.load(paths, CONFIG)
    bank[:][:] = 0
    bank[2][:] = 0
    np.testing.assert_array_equal(bank[:], _direct(paths, CONFIG))


def test_file_holds_what_memory_holds(paths: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    with ImageBank.load(paths, BIG, cache) as mapped:
        assert not mapped.in_memory
        ram = ImageBank.load(paths, BIG.model_copy(update={"memory_limit_mb": 100}))
        assert ram.in_memory
        np.testing.assert_array_equal(mapped[:], ram[:])
        batch = mapped[[1, 2]]
        assert type(batch) is np.ndarray
    np.testing.assert_array_equal(batch, ram[[1, 2]])  # a batch outlives its bank
    gc.collect()
    assert list(cache.iterdir()) == []
    with pytest.raises(ValueError, match="closed"):
        mapped[:]


def test_limit_is_where_it_says(paths: list[Path], tmp_path: Path) -> None:
    """Four images of 512×512×3 are 3 MB exactly: within 3, beyond 2."""
    for limit, in_memory in ((3, True), (2, False)):
        config = BIG.model_copy(update={"memory_limit_mb": limit})
        assert ImageBank.load(paths[:4], config, tmp_path).in_memory is in_memory


def test_skip_goes_on_without_the_damaged(damaged: list[Path]) -> None:
    bank = ImageBank.load(damaged, CONFIG)
    kept = [path for index, path in enumerate(damaged) if index not in (3, 7)]
    assert bank.paths == tuple(kept)
    assert len(bank) == 8
    np.testing.assert_array_equal(bank[:], _direct(kept, CONFIG))
    assert [path for path, _ in bank.skipped] == [damaged[3], damaged[7]]
    assert "damaged PNG file" in bank.skipped[0][1]
    assert "no such file" in bank.skipped[1][1]


@pytest.mark.parametrize("workers", [1, 4])
def test_stop_names_the_first_damaged(damaged: list[Path], workers: int, tmp_path: Path) -> None:
    config = BIG.model_copy(update={"on_corrupt": "stop"})
    with pytest.raises(ImageError, match=r"3\.png: damaged PNG file"):
        ImageBank.load(damaged, config, tmp_path / "cache", workers=workers)
    assert list((tmp_path / "cache").iterdir()) == []


def test_nothing_to_load(damaged: list[Path]) -> None:
    with pytest.raises(DataError, match="no images to load"):
        ImageBank.load([], CONFIG)
    with pytest.raises(DataError, match=r"none of 2 images can be read; the first: .*3\.png: damaged"):
        ImageBank.load([damaged[3], damaged[7]], CONFIG)


def test_progress_counts_every_image_once(damaged: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    ImageBank.load(damaged, CONFIG, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(count, 10) for count in range(1, 11)]


def test_disc_full(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 7 * 2**20))
    with pytest.raises(DataError, match=r"need 8 MB of disc, 7 MB are free: raise data\.memory_limit_mb"):
        ImageBank.load([*paths, paths[0]], BIG, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cache_that_is_no_folder(paths: list[Path]) -> None:
    with pytest.raises(DataError, match=r"0\.png: no temporary file for the images"):
        ImageBank.load(paths, BIG, paths[0])


@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_mask_is_fitted_as_its_image(fit: FitMode, tmp_path: Path) -> None:
    mask = np.zeros((90, 200), bool)
    mask[30:70, 120:180] = True
    cv2.imwrite(str(tmp_path / "mask.png"), mask.astype(np.uint8) * 255)
    write_image(tmp_path / "image.png", np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255)
    config = DataConfig(size=(48, 64), fit=fit)
    fitted = load_truth(Truth((tmp_path / "mask.png",)), mask.shape, config)
    np.testing.assert_array_equal(fitted, fit_mask(mask, (48, 64), fit))
    np.testing.assert_array_equal(fitted, ImageBank.load([tmp_path / "image.png"], config)[0][0, ..., 0] >= 128)
