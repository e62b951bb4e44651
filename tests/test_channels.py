"""One, three and n channels, 8 and 16 bits, through bank, training, model file and inspection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from draem import verbs
from draem.config import Config, DataConfig
from draem.data.bank import ImageBank
from draem.data.formats import resolve_format
from draem.errors import ConfigError, DataError, ImageError
from draem.evaluation.evaluate import evaluate
from draem.images import fit_image, plan_fit, read_pixels
from draem.inspection.detector import Detector
from draem.modelfile import read_header
from draem.network.weights import load_model
from draem.pixels import PixelFormat, convert, view
from draem.simulation.batch import load_batch
from draem.simulation.draws import sample_keys
from draem.simulation.simulator import Simulator, contact_sheet
from draem.tables.models import header_table
from tiny import write_tiny_model

RNG = np.random.default_rng(0)
RUN = {
    "data.size": 32,
    "network.reconstructive_width": 2,
    "network.fold": 1,
    "network.levels": 3,
    "network.discriminative_width": 2,
    "training.images": 8,
    "training.batch_size": 4,
    "training.validations": 1,
    "training.threads": 1,
    "training.accelerator": "cpu",
    "data.select_share": 0.2,
    "data.calibrate_share": 0.2,
}
Outcome = Callable[..., Any]


def _write(path: Path, pixels: NDArray[Any]) -> Path:
    """As .npy, or by OpenCV, which takes blue first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        path.write_bytes(cv2.imencode(path.suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes())
    return path


def _folder(folder: Path, kind: str, count: int = 8) -> Path:
    """Good images of a kind, 40×36 pixels."""
    for index in range(count):
        rng = np.random.default_rng([7, index])
        deep = rng.integers(20_000, 50_000, (40, 36, 5), dtype=np.uint16)
        kinds: dict[str, tuple[NDArray[Any], str]] = {
            "grey": ((deep[..., 0] >> 8).astype(np.uint8), ".png"),
            "grey 16": (deep[..., 0], ".png"),
            "rgb": ((deep[..., :3] >> 8).astype(np.uint8), ".png"),
            "stack": ((deep >> 8).astype(np.uint8), ".npy"),
            "stack float": ((deep / 65535).astype(np.float32), ".npy"),
        }
        pixels, suffix = kinds[kind]
        _write(folder / f"{index:02d}{suffix}", pixels)
    return folder


# ---------------------------------------------------------------------------------------------------------- end to end


@pytest.mark.parametrize(
    ("kind", "channels", "depth", "order", "says"),
    [
        ("grey", 1, 8, "grey", "grey images: a one-channel network"),
        ("grey 16", 1, 16, "grey", "images of 16 bits: kept with 16"),
        ("rgb", 3, 8, "RGB", ""),
        ("stack", 5, 8, "stack", "stacks of 5 channels: a 5-channel network"),
        ("stack float", 5, 16, "stack", "images of 32 bits: kept with 16"),
    ],
)
def test_train_load_predict(
    kind: str, channels: int, depth: int, order: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = _folder(tmp_path / "good", kind), tmp_path / "run"
    trained = verbs.train(data, out, "edge", settings=RUN)
    assert says in capsys.readouterr().err
    written = Config.resolve("", out / "config.yaml").data
    assert (written.channels, written.depth) == (channels, depth)
    header = read_header(out / "model.safetensors")
    assert (header.channels, header.colour_order, header.config.data.depth) == (channels, order, depth)
    network, _ = load_model(out / "model.safetensors")
    assert network.reconstructive.encoder.block1[0].in_channels == channels
    assert header.thresholds is not None

    detector = Detector.load(out / "model.safetensors", "cpu")
    path = sorted(data.iterdir())[0]
    found = detector.predict(path)
    raw = read_pixels(path, PixelFormat(channels, 16 if depth == 16 else 8))
    assert found.score == detector.predict(raw).score == trained.predict(path).score
    np.testing.assert_array_equal(found.image, view(raw))
    assert found.image.shape == (40, 36, 3)
    assert found.anomaly_map.shape == (40, 36)
    assert found.reconstruction.shape == (32, 32, 3)
    assert found.overlay().shape == (40, 36, 3)
    # What the detector feeds its network is what the bank holds.
    fitted = ImageBank.load([path], header.config.data)[0][0]
    inputs = torch.from_numpy(fitted.astype(np.float32) / (255 if depth == 8 else 65535)).permute(2, 0, 1)[None]
    with torch.no_grad():
        restored, _ = network(inputs)
    np.testing.assert_array_equal(found.reconstruction, view(restored[0].permute(1, 2, 0).numpy()))
    result = evaluate(detector, data)
    assert result.picture is not None
    assert result.count() == 8


def test_a_resumed_run_keeps_what_it_resolved(tmp_path: Path) -> None:
    data, out = _folder(tmp_path / "good", "grey"), tmp_path / "run"
    verbs.train(data, out, "edge", settings=RUN)
    resumed = verbs.resolve_config(out, "", None, {}, resume=True)
    assert (resumed.data.channels, resumed.data.depth) == (1, 8)
    with pytest.raises(ConfigError, match=r"data\.channels: differs from the run"):
        verbs.resolve_config(out, "", None, {"data.channels": 3}, resume=True)
    same = {"data.channels": "auto", "data.depth": "auto", "training.precision": "auto", "training.accelerator": "auto"}
    assert verbs.resolve_config(out, "", None, same, resume=True) == resumed


def test_a_run_of_an_older_version_goes_on_in_rgb(tmp_path: Path) -> None:
    """Its configuration does not speak of channels, and its checkpoint has three."""
    data, out = _folder(tmp_path / "good", "grey 16"), tmp_path / "run"
    verbs.train(data, out, "edge", settings={**RUN, "data.channels": 3, "data.depth": 8})
    (out / "model.safetensors").unlink()
    lines = (out / "config.yaml").read_text().splitlines()
    kept = [line for line in lines if line.strip() not in ("channels: 3", "depth: 8", "value_range: null")]
    (out / "config.yaml").write_text("\n".join(kept))
    assert Config.resolve("", out / "config.yaml").data.channels == "auto"
    header = verbs.train(data, out, resume=True).header
    assert (header.channels, header.config.data.depth) == (3, 8)


def test_published_presets_stay_rgb(tmp_path: Path) -> None:
    grey = [*_folder(tmp_path, "grey 16", 2).iterdir()]
    for preset in ("official", "paper"):
        data, said = resolve_format(Config.resolve(preset).data, grey)
        assert (data.pixel_format, said) == (PixelFormat(3, 8), [])


def test_init_from_a_model_of_other_channels(tmp_path: Path) -> None:
    init = write_tiny_model(
        tmp_path / "rgb.safetensors", network__reconstructive_width=2, network__discriminative_width=2
    )
    with pytest.raises(ConfigError, match=r"images of 3 channels, this run's of 1; set data\.channels=3") as caught:
        verbs.train(_folder(tmp_path / "good", "grey"), tmp_path / "run", "edge", settings=RUN, init=init)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- resolve


def test_what_auto_becomes(tmp_path: Path) -> None:
    kinds = {kind: [*_folder(tmp_path / kind, kind, 2).iterdir()] for kind in ("grey", "grey 16", "rgb", "stack")}
    (tmp_path / "no.png").write_bytes(b"no image")
    cases: list[tuple[list[Path], int, int]] = [
        (kinds["grey"], 1, 8),
        (kinds["grey"] + kinds["grey 16"], 1, 16),
        (kinds["grey"] + kinds["rgb"], 3, 8),
        (kinds["rgb"] + kinds["grey 16"], 3, 16),
        (kinds["stack"], 5, 8),
        ([*kinds["grey"], tmp_path / "no.png", tmp_path / "gone.png"], 1, 8),
        ([tmp_path / "no.png"], 3, 8),
    ]
    for paths, channels, depth in cases:
        found, _ = resolve_format(DataConfig(), paths)
        assert (found.channels, found.depth) == (channels, depth)
    found, said = resolve_format(DataConfig(channels=3), kinds["grey 16"])
    assert (found.channels, found.depth, said) == (3, 16, ["images of 16 bits: kept with 16"])


def test_stacks_among_others_are_an_error(tmp_path: Path) -> None:
    paths = [*_folder(tmp_path / "a", "grey", 2).iterdir(), *_folder(tmp_path / "b", "stack", 2).iterdir()]
    with pytest.raises(
        DataError, match=r"images of 1, 5 channels \(such as .*png and .*npy\): keep one kind"
    ) as caught:
        resolve_format(DataConfig(), paths)
    assert "\n" not in str(caught.value)
    bank = ImageBank.load(paths, DataConfig(channels=5, size=(16, 16)))
    assert len(bank) == 2
    assert "has 1 channel, 5 expected" in bank.skipped[0][1]
    many = cv2.imencodemulti(".tif", [np.zeros((16, 16), np.uint8)] * 70)[1].tobytes()
    (tmp_path / "many.tif").write_bytes(many)
    with pytest.raises(DataError, match="has 70 channels, a network takes at most 64"):
        resolve_format(DataConfig(), [tmp_path / "many.tif"])


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("data.channels", 0, "auto, or a number from 1 to 64"),
        ("data.channels", True, "auto, or a number from 1 to 64"),
        ("data.channels", "RGB", "auto, or a number from 1 to 64"),
        ("data.depth", 12, "data.depth"),
        ("data.value_range", [5, 5], "the lower value comes first"),
    ],
)
def test_settings_that_are_wrong(key: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Config.resolve("fast", None, {key: value})
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- bank


def test_the_bank_keeps_sixteen_bits(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (3, 32, 40), dtype=np.uint16)
    paths = [_write(tmp_path / f"{index}.png", image) for index, image in enumerate(deep)]
    for limit in (4096, 1):
        config = DataConfig(size=(32, 40), channels=1, depth=16, memory_limit_mb=limit)
        bank = ImageBank.load(paths * (1 if limit > 1 else 200), config, cache=tmp_path / "cache")
        assert bank.in_memory == (limit > 1)
        np.testing.assert_array_equal(bank[[2, 0, 1]][..., 0], deep[[2, 0, 1]])
        batch = load_batch(bank, torch.tensor([1]), torch.tensor([0]), torch.device("cpu"))
        np.testing.assert_array_equal(batch[0, 0].numpy(), deep[1].astype(np.float32) / np.float32(65535))


def test_a_signal_that_eight_bits_would_lose(tmp_path: Path) -> None:
    """Two levels less than 1/255 apart, the same in 8 bits; and 12 bits in 16, which hold only 16 of 8 bits' levels."""
    faint = np.where(np.arange(32) % 2, 30_000, 30_100).astype(np.uint16) * np.ones((32, 1), np.uint16)
    path = _write(tmp_path / "faint.png", faint)
    banks = {depth: ImageBank.load([path], DataConfig(size=(32, 32), channels=1, depth=depth))[:] for depth in (8, 16)}
    assert [len(np.unique(pixels)) for pixels in banks.values()] == [1, 2]
    assert load_batch_spread(path, None) == pytest.approx(100 / 65535, rel=1e-3)
    twelve = _write(tmp_path / "twelve.png", faint // 16)
    assert load_batch_spread(twelve, (0, 4095)) == pytest.approx(6 / 4095, rel=1e-2)


def load_batch_spread(path: Path, value_range: tuple[float, float] | None) -> float:
    """Highest less lowest value of what a network is given."""
    bank = ImageBank.load([path], DataConfig(size=(32, 32), channels=1, depth=16, value_range=value_range))
    batch = load_batch(bank, torch.tensor([0]), torch.tensor([0]), torch.device("cpu"))
    return float(batch.max() - batch.min())


def test_the_error_of_a_full_disc_counts_both_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "x.npy", np.zeros((16, 16, 5), np.uint16))
    config = DataConfig(size=(512, 512), channels=5, depth=16, memory_limit_mb=1)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    with pytest.raises(DataError, match=r"1 images need 2 MB of disc, .* set data\.depth=8"):
        ImageBank.load([path], config)


# ----------------------------------------------------------------------------------------------------------- detection


def test_arrays_of_every_kind(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    rgb = Detector.load(write_tiny_model(tmp_path / "rgb.safetensors"), "cpu")
    grey = Detector.load(write_tiny_model(tmp_path / "grey.safetensors", data__channels=1, data__depth=16), "cpu")
    for detector, wanted in ((rgb, PixelFormat()), (grey, PixelFormat(1, 16))):
        for array in (deep, deep[..., 0], deep[..., :1], (deep >> 8).astype(np.uint8), (deep / 65535).astype("f4")):
            assert detector.predict(array).score == detector.predict(convert(array, wanted, "x")).score
        with pytest.raises(DataError, match=f"the array: has 5 channels, {wanted.channels} expected") as caught:
            detector.predict(np.zeros((20, 30, 5), np.uint8))
        assert not isinstance(caught.value, ImageError)
    np.testing.assert_array_equal(grey.predict(deep[..., 0]).image[..., 2], np.rint(deep[..., 0] / 257))
    camera = Detector.load(
        write_tiny_model(tmp_path / "c.safetensors", data__channels=1, data__depth=16, data__value_range=[0, 4095]),
        "cpu",
    )
    twelve = deep[..., 0] >> 4
    np.testing.assert_array_equal(camera.predict(twelve).image[..., 0], np.rint(np.rint(twelve / 4095 * 65535) / 257))


def test_info_says_channels_and_depth(tmp_path: Path, run_cli: Outcome) -> None:
    model = write_tiny_model(tmp_path / "m.safetensors", data__channels=5, data__depth=16, data__value_range=[0, 4095])
    shown = run_cli("info", model)
    assert "64×64 stack of 5 channels, 16 bit, raw values 0 to 4095, resize" in shown.out
    assert header_table(read_header(write_tiny_model(tmp_path / "rgb.safetensors"))).row_count > 3
    assert "64×64 RGB, 8 bit" in run_cli("info", tmp_path / "rgb.safetensors").out


def test_evaluate_and_pictures_of_a_stack(tmp_path: Path) -> None:
    detector = Detector.load(write_tiny_model(tmp_path / "m.safetensors", data__channels=5), "cpu")
    (tmp_path / "ground_truth" / "cut").mkdir(parents=True)
    for name in ("train/good/0", "test/good/0", "test/cut/0"):
        _write(tmp_path / f"{name}.npy", RNG.integers(0, 256, (40, 30, 5), dtype=np.uint8))
    np.save(tmp_path / "ground_truth/cut/0.npy", (np.indices((40, 30))[0] < 9).astype(np.uint8))
    result = evaluate(detector, tmp_path)
    assert result.count() == 2
    assert result.without_mask == 0
    assert result.metrics.pixel_auroc is not None


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_simulated_anomalies_of_any_channels(channels: int) -> None:
    config = Config.resolve("fast", None, {"simulation.clean_share": 0.0}).simulation
    images = torch.rand(3, channels, 32, 48)
    simulated = Simulator(config, (32, 48), "cpu", channels)(images, sample_keys(0, 0, torch.arange(3)))
    assert simulated.anomalous.shape == simulated.source.shape == (3, channels, 32, 48)
    outside = (simulated.mask == 0).expand(-1, channels, -1, -1)
    assert torch.equal(simulated.anomalous[outside], images[outside])
    assert not torch.equal(simulated.anomalous, images)
    assert contact_sheet(simulated).ndim == 3


# --------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("shape", [(16, 16), (20_000, 16), (16, 20_000), (20_000, 1_000)])
@pytest.mark.parametrize("fit", ["resize", "letterbox"])
def test_sizes_and_aspect_ratios(shape: tuple[int, int], fit: Any, tmp_path: Path) -> None:
    """A column of white, or a row, keeps its share of the area wherever the image is not squeezed to a line."""
    pixels = np.zeros(shape, np.uint8)
    pixels[:, : shape[1] // 2] = 255
    path = _write(tmp_path / "x.png", pixels)
    read = read_pixels(path, PixelFormat(1))
    np.testing.assert_array_equal(read[..., 0], pixels)
    fitted = fit_image(read, (64, 64), fit)
    plan = plan_fit(shape, (64, 64), fit)
    assert fitted.shape == (64, 64, 1)
    if plan.width > 1:
        assert fitted[plan.window].mean() == pytest.approx(127.5, abs=6)
    model = write_tiny_model(tmp_path / "m.safetensors", data__channels=1, data__fit=fit)
    found = Detector.load(model, "cpu").predict(path)
    assert found.anomaly_map.shape == shape
    assert np.isfinite(found.score)


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 64])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_fitting_many_channels_is_fitting_each(channels: int, dtype: type) -> None:
    pixels: NDArray[Any] = RNG.integers(0, np.iinfo(dtype).max, (37, 53, channels)).astype(dtype)
    for size, fit in (((20, 30), "resize"), ((64, 64), "letterbox"), ((24, 80), "letterbox")):
        fitted = fit_image(pixels, size, fit)  # type: ignore[arg-type]
        each = [fit_image(pixels[..., [channel]], size, fit) for channel in range(channels)]  # type: ignore[arg-type]
        assert fitted.dtype == dtype
        # OpenCV's sums run otherwise for some numbers of channels: by the last bit.
        assert np.abs(fitted.astype(int) - np.concatenate(each, axis=2)).max() <= 1
