"""Tiles: they cover any image, their weights add up to 1, and with enough around them they are the whole image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from draem.config import Config, DataConfig, NetworkConfig, Parts
from draem.errors import ConfigError
from draem.evaluation.evaluate import evaluate
from draem.evaluation.metrics import PixelCounts
from draem.images import read_mask, write_image
from draem.inspection.detector import Detector
from draem.inspection.scoring import find_regions, smooth
from draem.inspection.tiling import RAMP, Span, Tiling, in_order
from draem.inspection.torch_backend import TorchBackend
from draem.modelfile import Header, Thresholds
from draem.network.draem import Draem, anomaly_map
from draem.network.reach import reach
from draem.pictures import heat_map, overlay
from tiny import TINY, lively_, write_tiny_model

PLANS = [(4096, 256, 64), (300, 256, 64), (100, 256, 64), (1000, 96, 64), (777, 160, 96), (513, 256, 0), (33, 32, 0)]


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth enough for maps to differ from place to place."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, channels))
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


def tiled_detector(
    size: int, overlap: int, threshold: float | None = None, *, aligned: bool = False, **network: Any
) -> Detector:
    """A tiny network with lively weights that looks at tiles."""
    settings = {"data.size": size, "data.fit": "tiles", "data.overlap": overlap, "network.aligned_corners": aligned}
    settings |= {f"network.{key}": value for key, value in network.items()}
    config = Config.resolve("fast", None, TINY | settings)
    lively = Draem(config.network)
    lively_(lively)
    thresholds = None if threshold is None else Thresholds(reject=threshold, chosen_on="nothing: a test's")
    return Detector(TorchBackend(lively), Header(config=config, thresholds=thresholds))


def whole_map(detector: Detector, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The map of the network run on the whole image."""
    network = Draem(detector.header.config.network)
    lively_(network)
    with torch.inference_mode():
        batch = torch.from_numpy(image.astype(np.float32) / np.float32(255)).permute(2, 0, 1)[None]
        return anomaly_map(network.eval()(batch)[1])[0].numpy()


# -------------------------------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize("stride", [1, 32, 64, 128])
@pytest.mark.parametrize(("length", "side", "overlap"), PLANS)
def test_tiles_cover_share_enough_and_lie_in_step(length: int, side: int, overlap: int, stride: int) -> None:
    side, overlap = side * stride // 32, overlap * stride // 32
    span = Span.of(length, side, overlap, stride)
    covered = np.zeros(span.starts[-1] + side, int)
    for start in span.starts:
        covered[start : start + side] += 1
    assert covered.all()
    assert len(covered) == max(side, -(-length // stride) * stride)
    assert all(start % stride == 0 for start in span.starts)
    assert all(after - before <= side - overlap for before, after in itertools.pairwise(span.starts))
    fewer = len(span.starts) - 1
    assert side + (fewer - 1) * (side - overlap) < len(covered)  # one less would not do


@pytest.mark.parametrize(("fold", "levels", "stride"), [(1, 6, 32), (2, 6, 64), (4, 6, 128), (2, 5, 32), (4, 4, 32)])
def test_the_stride_is_one_pixel_of_the_innermost_layer(fold: Literal[1, 2, 4], levels: int, stride: int) -> None:
    config = NetworkConfig(reconstructive_width=1, discriminative_width=1, fold=fold, levels=levels)
    assert config.stride == stride
    network, shapes = Draem(config).eval(), []
    innermost = network.discriminative.encoder_segment[f"block{levels}"]
    innermost.register_forward_hook(lambda module, given, answer: shapes.append(tuple(answer.shape[2:])))
    network(torch.zeros(1, 3, config.stride, 3 * config.stride))
    assert shapes == [(1, 3)]


@pytest.mark.parametrize(("length", "side", "overlap"), PLANS)
def test_weights_add_up_to_one_and_fade(length: int, side: int, overlap: int) -> None:
    span = Span.of(length, side, overlap, 32)
    total = np.zeros(span.starts[-1] + side)
    for tile, start in enumerate(span.starts):
        weights, (first, last) = span.weights(tile), span.trusted(tile)
        total[start : start + side] += weights
        inside = weights[first - start : last - start]
        assert inside.min() > 0 or not overlap
        assert not weights[: first - start].any()
        assert not weights[last - start : length - start].any()
        assert np.abs(np.diff(inside)).max(initial=0) <= np.pi / 2 / min(overlap or 1, RAMP)
    np.testing.assert_allclose(total, 1.0, atol=1e-5)


def test_a_border_is_not_trusted_and_the_middle_is_the_mean() -> None:
    """Two tiles of 96 that share 64: 16 pixels of each are left out, and half-way both count alike."""
    first, second = (Span.of(128, 96, 64, 32).weights(tile) for tile in (0, 1))
    assert (first[:48] == 1).all()
    assert not first[80:].any()
    assert not second[:16].any()
    fade = (1 - np.cos(np.pi * (np.arange(32) + 0.5) / 32)) / 2
    np.testing.assert_allclose(second[16:48], fade, atol=1e-5)
    np.testing.assert_allclose(first[48:80], 1 - fade, atol=1e-5)


@pytest.mark.parametrize("size", [(777, 531), (96, 300), (40, 50), (161, 160)])
def test_cut_and_blended_is_the_image(size: tuple[int, int]) -> None:
    image = noise(*size)
    tiling = Tiling.of(size, (160, 96), 32, 32)
    tiles = list(tiling.cut(image))
    assert {tile.shape for tile in tiles} == {(160, 96, 3)}
    bands = list(tiling.blend(tile.transpose(2, 0, 1).astype(np.float32) for tile in tiles))
    assert [rows.start for rows, _ in bands] == [0, *(rows.stop for rows, _ in bands[:-1])]
    np.testing.assert_allclose(np.concatenate([band for _, band in bands], axis=1).transpose(1, 2, 0), image, atol=1e-4)


def test_small_images_are_extended_by_their_border() -> None:
    (tile,) = Tiling.of((40, 50), (64, 64), 32, 32).cut(noise(40, 50))
    np.testing.assert_array_equal(tile, np.pad(noise(40, 50), ((0, 24), (0, 14), (0, 0)), "edge"))


def test_work_comes_back_in_order_and_is_fetched_as_it_goes() -> None:
    fetched: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            fetched.append(number)
            yield number

    results = in_order(lambda number: number * number, items(), 3)
    assert next(results) == 0
    assert len(fetched) <= 5
    assert list(results) == [number * number for number in range(1, 20)]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"data.size": 100}, "multiples of 32"),
        ({"data.size": 128, "data.overlap": 48}, "overlap=48 .*a multiple of 32"),
        ({"data.size": 64}, "overlap=64 .*at most 32"),
        (
            {"data.size": 96, "network.fold": 2, "network.levels": 6},
            "=96,96 .* of 64 with network.fold=2, network.levels=6",
        ),
        ({"data.size": 192, "network.fold": 4, "network.levels": 6}, "=192,192 .* of 128 with network.fold=4"),
        ({"data.size": 128, "data.overlap": 128, "network.fold": 4}, "overlap=128 .*at most 96"),
    ],
)
def test_sizes_that_do_not_go(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Config.resolve("edge", None, {"data.fit": "tiles", "network.fold": 1} | settings)
    Config.resolve("edge", None, settings)


@pytest.mark.parametrize(
    ("fold", "overlap", "step"), [(1, 64, 32), (2, 64, 64), (2, 96, 32), (4, 64, 64), (4, 128, 128), (4, 0, 128)]
)
def test_tiles_lie_at_the_stride_where_the_overlap_does(fold: int, overlap: int, step: int) -> None:
    settings = {"data.fit": "tiles", "network.fold": fold, "network.levels": 6, "data.overlap": overlap}
    assert Config.resolve("edge", None, settings | {"network.levels": "auto"}).tile_step == 32
    assert Config.resolve("edge", None, settings).tile_step == step


# ----------------------------------------------------------------------------------------------------------- equality


@pytest.mark.parametrize(
    ("parts", "fold", "levels", "pixels"),
    [
        ("reconstructive", 1, 6, 138),
        ("discriminative", 1, 6, 282),
        ("both", 1, 6, 410),
        ("reconstructive", 2, 6, 277),
        ("both", 2, 6, 821),
        ("both", 2, 5, 405),
        ("both", 4, 4, 379),
    ],
)
def test_reach_is_where_a_pixel_arrives(parts: Parts, fold: Literal[1, 2, 4], levels: int, pixels: int) -> None:
    """One bright pixel in black, through a network that only adds: all that it can change is above 0."""
    config = NetworkConfig(parts=parts, reconstructive_width=1, discriminative_width=1, fold=fold, levels=levels)
    network = Draem(config, channels=1).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0 / module.in_channels)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    farthest = 0
    for place in range(480 * fold, 480 * fold + config.stride):
        image = torch.zeros(1, 1, config.stride, 992 * fold, dtype=torch.float64)
        image[..., place] = 1.0
        with torch.no_grad():
            reconstruction, logits = network(image)
        changed = (reconstruction if parts == "reconstructive" else logits)[0, 0].amax(0).nonzero()[:, 0]
        farthest = max(farthest, place - int(changed.min()), int(changed.max()) - place)
    assert farthest == reach(parts, fold, levels) == pixels


@pytest.mark.parametrize(
    ("parts", "fold", "levels", "rounding"),
    [("both", 1, 6, 1e-5), ("discriminative", 2, 6, 1e-5), ("both", 4, 4, 2e-4)],
)
def test_tiles_with_the_margin_are_the_whole_image(parts: Parts, fold: int, levels: int, rounding: float) -> None:
    """Also at the image's own borders, and where its sides are no multiples of 32."""
    margin, stride = reach(parts, fold, levels), fold * 2 ** (levels - 1)
    overlap = -(-(2 * margin + RAMP) // stride) * stride
    side = overlap + 2 * stride
    detector = tiled_detector(side, overlap, parts=parts, fold=fold, levels=levels)
    image = noise(side + 45, side + 10)
    result, expected = detector.predict(image), whole_map(detector, image)
    assert len(Tiling.of(image.shape[:2], (side, side), overlap, stride).corners) == 4
    assert expected.std() > 0.005
    assert np.abs(result.input_map - expected).max() <= rounding


def test_aligned_corners_are_never_equal() -> None:
    """As in `official`: the test above can fail."""
    overlap = 864
    detector = tiled_detector(overlap + 64, overlap, aligned=True)
    image = noise(overlap + 109, overlap + 74)
    assert np.abs(detector.predict(image).input_map - whole_map(detector, image)).max() > 1e-3


def test_a_single_tile_is_a_plain_run() -> None:
    detector, image = tiled_detector(128, 64), noise(128, 128)
    np.testing.assert_allclose(detector.predict(image).input_map, whole_map(detector, image), atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- inspection


def test_everything_is_in_the_images_pixels() -> None:
    plain = tiled_detector(96, 32)
    image = noise(200, 333)
    threshold = float(np.quantile(smooth(plain.predict(image).input_map, 5), 0.98))
    result = tiled_detector(96, 32, threshold).predict(image)
    assert result.input_map.shape == result.anomaly_map.shape == result.anomaly_mask.shape == (200, 333)
    assert result.reconstruction.shape == result.overlay().shape == (200, 333, 3)
    smoothed = smooth(result.input_map, 5)
    assert result.score == smoothed.max() > threshold
    np.testing.assert_array_equal(result.anomaly_mask, smoothed > threshold)
    assert result.regions == find_regions(smoothed, threshold)
    assert sum(region.area for region in result.regions) == result.anomaly_mask.sum()


@pytest.mark.parametrize(("side", "overlap", "fold", "step"), [(96, 32, 1, 32), (128, 64, 4, 64)])
def test_map_and_reconstruction_by_the_slow_way(side: int, overlap: int, fold: int, step: int) -> None:
    """Every tile on its own, weighted by outer products and added up over the whole image."""
    detector, image = tiled_detector(side, overlap, fold=fold, levels=6), noise(150, 200)
    tiling = Tiling.of((150, 200), (side, side), overlap, step)
    total = np.zeros((4, 256, 256))
    beyond = np.pad(image, ((0, 106), (0, 56), (0, 0)), "edge")
    for (row, top), (column, left) in itertools.product(
        enumerate(tiling.rows.starts), enumerate(tiling.columns.starts)
    ):
        tile = beyond[top : top + side, left : left + side]
        batch = np.ascontiguousarray(tile.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        found, reconstruction = detector.backend.run(batch)
        weight = np.outer(tiling.rows.weights(row), tiling.columns.weights(column))
        total[:, top : top + side, left : left + side] += np.concatenate((found, reconstruction[0])) * weight
    result = detector.predict(image)
    np.testing.assert_allclose(result.input_map, total[0, :150, :200], atol=1e-5)
    shown = np.clip(total[1:, :150, :200], 0, 1).transpose(1, 2, 0) * 255
    assert np.abs(result.reconstruction - shown).max() < 0.51


def test_a_stream_of_sizes_and_channels(tmp_path: Path) -> None:
    """Images of any size, one after the other, give what each gives alone."""
    detector = tiled_detector(64, 32)
    sizes = [(40, 50), (64, 64), (130, 70), (65, 190)]
    for number, size in enumerate(sizes):
        write_image(tmp_path / f"{number}.png", noise(*size, seed=number))
    paths = sorted(tmp_path.iterdir())
    for path, size, found in zip(paths, sizes, detector.stream(paths, batch_size=8), strict=True):
        assert found.input_map.shape == size
        np.testing.assert_array_equal(found.input_map, detector.predict(path).input_map)


def test_maps_of_residuals_are_blended_too(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model.safetensors", data__fit="tiles", data__overlap=32, score__map="ssim")
    found = Detector.load(model, "cpu").predict(noise(100, 140)).input_map
    assert found.shape == (100, 140)
    assert found.std() > 0


def test_metrics_are_taken_at_the_images_size(woven_tree: Path) -> None:
    """On 64×64 images in tiles of 64 nothing is resized: the counts are those of the masks as they are."""
    detector = tiled_detector(64, 32)
    counts = PixelCounts()
    for path in sorted((woven_tree / "test").rglob("*.png")):
        truth = woven_tree / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        counts.update(detector.predict(path).input_map, read_mask(truth) if truth.exists() else None)
    found = evaluate(detector, woven_tree)
    assert found.metrics.pixel_ap == pytest.approx(counts.ap())
    assert found.metrics.pixel_aupro == pytest.approx(counts.aupro())
    assert found.input_size is None
    assert found.to_dict()["mask_rule"].startswith("resized to the image's size")
    assert found.picture is not None


def test_a_frame_is_what_the_fit_says() -> None:
    assert DataConfig(fit="tiles").frame((900, 700)) == ((900, 700), "resize")
    assert DataConfig(fit="letterbox").frame((900, 700)) == ((256, 256), "letterbox")


def test_an_overlay_in_bands_is_the_overlay_at_once() -> None:
    image, found = noise(700, 90), np.random.default_rng(0).random((700, 90), np.float32)
    weight = 0.5 * found[..., None]
    expected = np.rint(image * (1 - weight) + heat_map(found) * weight)
    assert np.abs(overlay(image, found) - expected).max() <= 1
