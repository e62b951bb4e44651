"""Training on tiles: which tile is seen is a pure function of seed, step and sample; regions follow; runs resume."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from conftest import Outcome
from draem import verbs
from draem.config import Config, DataConfig
from draem.data.bank import ImageBank, view_corners
from draem.data.demo import render_demo
from draem.data.regions import Regions
from draem.images import read_image, write_image
from draem.inspection.detector import Detector
from draem.modelfile import read_header
from draem.preview import write_preview
from draem.simulation.batch import load_batch, load_normal, load_regions
from draem.simulation.draws import sample_keys
from draem.training import trainer
from test_resume import SETTINGS, assert_equal_runs, break_off, train
from tiny import write_tiny_model

CPU = torch.device("cpu")
TILES = {"data.size": 64, "data.fit": "tiles", "data.overlap": 32}
CONFIG = DataConfig(size=(64, 64), fit="tiles", overlap=32)
SIZES = [(100, 150), (64, 64), (90, 300), (40, 200), (50, 30), (128, 96)]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of different sizes, two of them smaller than a tile; no two pixels near each other are alike."""
    folder = tmp_path_factory.mktemp("parts")
    for index in range(12):
        height, width = SIZES[index % len(SIZES)]
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        write_image(folder / f"{index:02d}.png", pixels)
    return folder


def bank_of(parts: Path, **changed: Any) -> ImageBank:
    return ImageBank.load(sorted(parts.glob("*.png")), CONFIG.model_copy(update=changed))


def find_tile(tile: NDArray[np.uint8], image: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Where in an image a tile was cut, by looking at every place; beyond the image its border is repeated."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, max(64 - height, 0)), (0, max(64 - width, 0)), (0, 0)), "edge")
    places = np.lib.stride_tricks.sliding_window_view(padded, (64, 64, 3))[:, :, 0]
    return [(int(top), int(left)) for top, left in np.argwhere((places == tile).all((2, 3, 4)))]


# --------------------------------------------------------------------------------------------------------------- bank


def test_a_tile_is_a_part_of_its_image(parts: Path) -> None:
    bank, places = bank_of(parts), np.arange(12)
    draws = np.random.default_rng(0).random((12, 2), np.float32)
    corners = view_corners(bank.shapes, (64, 64), draws)
    assert bank.size == (64, 64)
    assert [tuple(shape) for shape in bank.shapes] == SIZES * 2
    for tile, path, corner in zip(bank.views(places, draws), bank.paths, corners, strict=True):
        assert find_tile(tile, read_image(path)) == [tuple(corner)]


def test_every_place_is_as_likely() -> None:
    draws = np.random.default_rng(0).random((20_000, 2), np.float32)
    corners = view_corners(np.array([[66, 67]] * 20_000), (64, 64), draws)
    rows, columns = np.bincount(corners[:, 0]), np.bincount(corners[:, 1])
    assert (len(rows), len(columns)) == (3, 4)
    np.testing.assert_allclose(rows / 20_000, 1 / 3, atol=0.02)
    np.testing.assert_allclose(columns / 20_000, 1 / 4, atol=0.02)
    highest = np.full((1, 2), np.nextafter(np.float32(1), np.float32(0)))
    assert view_corners(np.array([[20_000, 64]]), (64, 64), highest).tolist() == [[20_000 - 64, 0]]


def test_files_hold_what_memory_holds(parts: Path, tmp_path: Path) -> None:
    """One megabyte is enough for some of the images."""
    big = tmp_path / "big"
    for index in range(3):
        image = np.random.default_rng(index).integers(0, 256, (400, 500 + index, 3), dtype=np.uint8)
        write_image(big / f"{index}.png", image)
    config, draws = CONFIG.model_copy(update={"memory_limit_mb": 1}), np.array([[0.3, 0.9]] * 3, np.float32)
    with ImageBank.load(sorted(big.iterdir()), config, tmp_path / "cache") as mapped:
        assert not mapped.in_memory
        ram = ImageBank.load(sorted(big.iterdir()), CONFIG)
        assert ram.in_memory
        np.testing.assert_array_equal(mapped.views(np.arange(3), draws), ram.views(np.arange(3), draws))
        assert mapped.highest == ram.highest == 255
    assert list((tmp_path / "cache").iterdir()) == []


def test_many_images_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may have about a thousand files open; data sets have more images."""
    made: list[str] = []
    mkstemp = tempfile.mkstemp

    def counted(**given: Any) -> tuple[int, str]:
        found = mkstemp(**given)
        made.append(found[1])
        return found

    monkeypatch.setattr(tempfile, "mkstemp", counted)
    for index in range(40):
        write_image(tmp_path / f"{index:02d}.png", np.full((100, 200 + index, 3), index, np.uint8))
    with bank_of(tmp_path, memory_limit_mb=1) as bank:
        assert len(made) == 2, "2.5 MB, of which one is in RAM"
        assert [int(bank[place].mean()) for place in range(40)] == list(range(40))


def test_tiles_do_not_depend_on_how_a_batch_is_divided(parts: Path) -> None:
    bank, indices = bank_of(parts), torch.tensor([0, 2, 5, 0, 3])
    keys = sample_keys(7, 3, torch.arange(5))
    whole = load_batch(bank, indices, keys, CPU)
    divided = [load_batch(bank, indices[some], keys[some], CPU) for some in (slice(0, 2), slice(2, 5))]
    assert torch.equal(whole, torch.cat(divided))
    assert not torch.equal(whole[0], whole[3])  # the same image, another sample
    assert torch.equal(whole, load_batch(bank, indices, sample_keys(7, 3, torch.arange(5)), CPU))
    assert not torch.equal(whole, load_batch(bank, indices, sample_keys(7, 4, torch.arange(5)), CPU))


def test_regions_follow_their_tiles(tmp_path: Path) -> None:
    """Images that are white on the part alone, with the same picture as the mask."""
    for index, (height, width) in enumerate([(100, 150), (200, 300), (40, 60)]):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[height // 4 : height // 2, width // 5 : width // 2] = 255
        write_image(tmp_path / f"{index}.png", pixels)
    bank, indices = bank_of(tmp_path), torch.tensor([0, 1, 2, 0, 1, 1])
    regions = Regions.of(bank, tmp_path / "1.png", CONFIG)
    assert regions is not None
    keys = sample_keys(0, 0, torch.arange(6))
    loaded = load_regions(regions, indices, keys, CPU)
    assert loaded is not None
    assert 0 < loaded.mean() < 1
    assert torch.equal(loaded, load_batch(bank, indices, keys, CPU)[:, :1])
    np.testing.assert_array_equal(regions.whole(1), bank[1][0, ..., 0] == 255)


# --------------------------------------------------------------------------------------------------------------- runs


def test_broken_and_resumed_equals_unbroken(parts: Path, tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def recording(*args: Any) -> tuple[Tensor, Tensor | None]:
        images, counted = load_normal(*args)
        seen.append(images)
        return images, counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "load_normal", recording)
        train(parts, tmp_path / "unbroken", TILES)
    assert {tuple(batch.shape[1:]) for batch in seen} == {(3, 64, 64)}
    break_off(parts, tmp_path / "broken", TILES, step=4)
    train(parts, tmp_path / "broken", TILES | {"training.checkpoint_every": 0}, resume=True)
    assert_equal_runs(tmp_path / "broken", tmp_path / "unbroken")


def test_the_threshold_is_taken_on_whole_images(parts: Path, tmp_path: Path) -> None:
    """In tiles, as they will be inspected."""
    data = {"data.calibrate_share": 0.25, "training.images": 8}
    detector = verbs.train(parts, tmp_path / "run", "edge", settings=SETTINGS | TILES | data)
    header = read_header(tmp_path / "run" / "model.safetensors")
    assert header.config.data.fit == "tiles"
    assert header.thresholds is not None
    names = json.loads((tmp_path / "run" / "split.json").read_text())["calibrate"]
    scores = [detector.predict(parts / name).score for name in names]
    assert header.thresholds.reject == max(scores)
    assert Detector.load(tmp_path / "run" / "model.safetensors").predict(parts / "02.png").input_map.shape == (90, 300)


def test_the_command_line_evaluates_in_tiles(woven_tree: Path, tmp_path: Path, run_cli: Callable[..., Outcome]) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors", data__fit="tiles", data__overlap=32)
    ended = run_cli("evaluate", model, woven_tree, "--out", tmp_path / "evaluation")
    assert ended.code == 0, ended.err
    assert "metrics at the images' own size" in ended.out


def test_what_is_simulated_is_shown(tmp_path: Path) -> None:
    """Tiles on the sheet, whole images with their region, real defects as they are seen within a tile."""
    (tree,) = render_demo(tmp_path, "woven", size=160, train=4, test_good=1, test_defect=1)
    config = Config.resolve("edge", None, TILES | {"simulation.region": "foreground", "network.fold": 1})
    preview = write_preview(tree, tmp_path / "grid.png", config, 3, 0, comparing=True)
    assert preview.coverage is not None
    assert all(box[2] <= 160 and box[3] <= 160 for box in (one.defect.box for one in preview.coverage.real))
    assert any(box[2] > 64 or box[3] > 64 for box in (one.defect.box for one in preview.coverage.real))
    assert all(path.exists() for path in preview.pictures)
