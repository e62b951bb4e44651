"""The detector: what goes in comes out once, in order, in the image's own pixels, whatever batches and threads do."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import draem
from draem.config import Config
from draem.errors import ConfigError, DataError, DraemError, ImageError, MemoryLimitError
from draem.images import fit_image, plan_fit, read_image, write_image
from draem.inspection.backends import Backend
from draem.inspection.detector import Detector, Source
from draem.inspection.memory import out_of_memory
from draem.inspection.prediction import Prediction
from draem.inspection.scoring import image_score
from draem.inspection.torch_backend import TorchBackend, choose_device
from draem.modelfile import Artefact, Header, Thresholds, colour_order
from draem.network.draem import Draem
from draem.network.weights import load_model
from draem.pixels import Images

Image = NDArray[np.uint8]


class Brightness:
    """A backend whose anomaly map is the image's brightness; it keeps the sizes of its batches."""

    name = execution = "brightness"
    in_flight = 1

    def __init__(self, most: int = 1000, everywhere: float | None = None) -> None:
        self.most, self.everywhere = most, everywhere
        self.batches: list[int] = []

    def run(self, images: Images) -> tuple[Images, Images]:
        assert images.dtype == np.float32
        assert images.flags["C_CONTIGUOUS"]
        assert images.min() >= 0
        assert images.max() <= 1
        if len(images) > self.most:
            raise MemoryLimitError(f"{len(images)} images")
        self.batches.append(len(images))
        maps = images.mean(1) if self.everywhere is None else np.full_like(images[:, 0], self.everywhere)
        return maps, images


def _detector(backend: Backend | None = None, reject: float | None = 0.5, **settings: object) -> Detector:
    wanted = {"data.size": 64, "score.map": "segmentation", "score.filter_size": 1}
    wanted |= {k.replace("__", "."): v for k, v in settings.items()}
    thresholds = None if reject is None else Thresholds(reject=reject, chosen_on="a test's")
    return Detector(backend or Brightness(), Header(config=Config.resolve("fast", None, wanted), thresholds=thresholds))


def _noise(seed: int, height: int = 50, width: int = 70) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _grey(level: int, height: int = 40, width: int = 30) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def _same(one: Prediction, other: Prediction, tolerance: float = 0.0) -> None:
    assert one.score == pytest.approx(other.score, abs=tolerance)
    np.testing.assert_allclose(one.input_map, other.input_map, atol=tolerance)
    np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, atol=max(tolerance, 1e-7))
    np.testing.assert_array_equal(one.image, other.image)
    if not tolerance:
        assert one.regions == other.regions


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index:02d}.png" for index in range(11)]
    for index, path in enumerate(paths):
        write_image(path, _grey(20 * index))
    return paths


# -------------------------------------------------------------------------------------------------------------- inputs


def test_path_string_and_array_are_the_same(tiny_detector: Detector, tmp_path: Path) -> None:
    image = _noise(0)
    write_image(tmp_path / "x.png", image)
    by_path = tiny_detector.predict(tmp_path / "x.png")
    assert by_path.path == tmp_path / "x.png"
    for source in (str(tmp_path / "x.png"), image):
        _same(tiny_detector.predict(cast(Any, source)), by_path)
    assert tiny_detector.predict(image).path is None


def test_grey_arrays_are_repeated(tiny_detector: Detector) -> None:
    grey = _noise(1)[..., 0]
    expected = tiny_detector.predict(np.repeat(grey[..., None], 3, 2))
    _same(tiny_detector.predict(grey), expected)
    _same(tiny_detector.predict(grey[..., None]), expected)


def test_views_are_what_they_show(tiny_detector: Detector) -> None:
    bgr = _noise(2)
    expected = tiny_detector.predict(np.ascontiguousarray(bgr[::-1, ::2, ::-1]))
    view = bgr[::-1, ::2, ::-1]
    _same(tiny_detector.predict(view), expected)
    assert expected.overlay().shape == view.shape
    assert tiny_detector.predict(view).overlay().shape == view.shape


def test_the_network_sees_what_the_data_settings_say(tiny_model: Path) -> None:
    # The same by hand: fit, divide, run, softmax.
    network, header = load_model(tiny_model)
    image = _noise(3, 90, 55)
    fitted = fit_image(image, (64, 64), "resize", "area")
    batch = torch.from_numpy(fitted).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        reconstruction, logits = network(batch)
    found = Detector.load(tiny_model, "cpu").predict(image)
    np.testing.assert_allclose(found.input_map, torch.softmax(logits, 1)[0, 1].numpy(), atol=1e-5)
    expected = (reconstruction[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(found.reconstruction.astype(float) - expected).max() <= 1
    assert found.score == image_score(found.input_map, header.config.score.filter_size)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((8, 0, 3), np.uint8),
        np.zeros((8, 8, 0), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.full((8, 8, 3), 1.5, np.float32),
        np.full((8, 8, 3), np.nan, np.float32),
        np.zeros((8, 8, 3), np.int16),
        np.zeros((8, 8, 3), np.uint32),
        np.zeros((8, 8, 3), bool),
        5,
        None,
        b"x.png",
        ("x.png",),
    ],
)
def test_what_is_no_image(array: Any) -> None:
    detector = _detector()
    for ask in (lambda: detector.predict(array), lambda: detector.predict([array])):
        with pytest.raises(DataError) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    for path in (tmp_path / "bad.png", tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError, match=path.name):
            _detector().predict(path)


def test_tiny_and_long_images(tiny_detector: Detector) -> None:
    for shape in ((1, 1), (1, 500), (500, 1), (2, 3)):
        found = tiny_detector.predict(_noise(4, *shape))
        assert found.anomaly_map.shape == found.anomaly_mask.shape == shape
        assert found.overlay().shape == (*shape, 3)


# -------------------------------------------------------------------------------------------------------------- stream


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_stream_is_predict_in_order(files: list[Path], batch_size: int) -> None:
    backend = Brightness()
    found = list(_detector(backend).stream(files, batch_size))
    assert [prediction.path for prediction in found] == files
    assert [prediction.score for prediction in found] == pytest.approx([20 * i / 255 for i in range(11)])
    full, rest = divmod(11, batch_size)
    assert sorted(backend.batches, reverse=True) == [batch_size] * full + [rest] * (rest > 0)


def test_stream_equals_predict_with_a_network(tiny_detector: Detector) -> None:
    images = [_noise(seed, 30 + seed, 60 - seed) for seed in range(7)]
    together = list(tiny_detector.stream(images, 4))
    for image, found, listed in zip(images, together, tiny_detector.predict(images), strict=True):
        _same(found, tiny_detector.predict(image), 1e-5)
        _same(found, listed, 1e-5)


def test_nothing_in_nothing_out() -> None:
    assert _detector().predict([]) == []
    assert list(_detector().stream(iter(()))) == []


def test_batch_size_of_none() -> None:
    with pytest.raises(DataError, match="batch_size"):
        list(_detector().stream([_grey(1)], 0))


def test_endless_sources_are_read_a_bounded_way_ahead() -> None:
    taken = 0

    def camera() -> Iterator[Source]:
        nonlocal taken
        for taken in count(1):
            yield _grey(taken % 256)

    before = threading.active_count()
    stream = _detector().stream(camera(), batch_size=4)
    for number, found in enumerate(islice(stream, 50), start=1):
        assert found.score == pytest.approx(number % 256 / 255)
        assert taken <= number + 3 * 4
    stream.close()
    assert threading.active_count() == before


def test_a_camera_may_fill_one_array_again_and_again() -> None:
    buffer = _grey(0)

    def camera() -> Iterator[Source]:
        for level in range(20):
            buffer[:] = level
            yield buffer

    found = list(_detector().stream(camera(), batch_size=3))
    assert [prediction.score for prediction in found] == pytest.approx([level / 255 for level in range(20)])
    assert [int(prediction.image[0, 0, 0]) for prediction in found] == list(range(20))


def test_unreadable_files_are_named_and_passed_over(files: list[Path]) -> None:
    for index in (0, 4, 10):
        files[index].write_bytes(b"damaged")
    said: list[tuple[Source, str]] = []
    kept = list(_detector().stream(files, 4, on_unreadable=lambda source, error: said.append((source, str(error)))))
    assert [prediction.path for prediction in kept] == [path for i, path in enumerate(files) if i not in (0, 4, 10)]
    assert [source for source, _ in said] == [files[0], files[4], files[10]]
    assert all(str(source) in text for source, text in said)


def test_unreadable_files_raise_without_a_taker(files: list[Path]) -> None:
    files[6].write_bytes(b"damaged")
    stream = _detector().stream(files, 4)
    assert [found.path for found in islice(stream, 4)] == files[:4]
    with pytest.raises(ImageError, match=files[6].name):
        list(stream)


TWELVE_BITS = {"data.depth": 16, "data.value_range": [0, 4095]}


@pytest.mark.parametrize(
    ("settings", "image", "says"),
    [
        ({}, np.full((40, 30), 4095, np.uint16), "no pixel is brighter than 4095 of 65535: nearly black"),
        ({}, np.full((40, 30), 60000, np.uint16), ""),
        ({}, np.zeros((40, 30, 3), np.uint8), ""),
        ({"data.depth": 16}, np.full((40, 30), 1023, np.uint16), ""),
        ({"data.channels": 1, "data.depth": 16}, np.full((40, 30, 3), 99, np.uint8), ""),
        (TWELVE_BITS, np.full((40, 30), 200, np.uint8), "from 0 to 4095, here 255 is the highest: nearly black"),
        (TWELVE_BITS, np.full((40, 30), 0.9, np.float32), "from 0 to 4095, here 0.9 is the highest: nearly black"),
        (TWELVE_BITS, np.full((40, 30), 40000, np.uint16), "from 0 to 4095, here most are higher: nearly white"),
        (TWELVE_BITS, np.full((40, 30), 100, np.uint16), ""),
        ({"data.value_range": [0, 1]}, np.full((40, 30), 100, np.uint8), "here most are higher: nearly white"),
    ],
)
def test_images_of_another_kind_are_said_once(
    settings: dict[str, Any], image: NDArray[Any], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config.resolve(
        "fast", None, {"data.size": 64, "score.map": "segmentation", "score.filter_size": 1} | settings
    )
    channels = config.data.pixel_format.channels
    header = Header(config=config, channels=channels, colour_order=colour_order(channels))
    found = Detector(Brightness(), header).predict([image, image, image])
    assert len(caplog.records) == bool(says)
    assert says in caplog.text
    dark, white = found[0].score < 0.13, found[0].score > 0.99
    assert not says or (dark and "black" in says) or (white and "white" in says)


def test_images_that_are_loaded_at_once_are_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)

    def slow(raw: NDArray[Any], wanted: object) -> str:
        together.wait(10.0)
        return "nearly black"

    monkeypatch.setattr("draem.inspection.detector.unlike", slow)
    _detector().predict([_grey(1), _grey(2)])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_frame_that_is_no_image_is_told_by_its_number(batch_size: int) -> None:
    frames = [_grey(1), _grey(2), _grey(3), _grey(4)[..., :2], _grey(5)]
    stream = _detector().stream(frames, batch_size)
    with pytest.raises(DataError, match=r"^frame 3 \(counted from 0\): the array: has 2 channels, 3 expected$"):
        list(stream)


def test_an_error_of_the_source_comes_through() -> None:
    def broken() -> Iterator[Source]:
        yield _grey(1)
        raise ValueError("the camera is gone")

    with pytest.raises(ValueError, match="the camera is gone"):
        list(_detector().stream(broken()))


# -------------------------------------------------------------------------------------------------------------- memory


def test_a_batch_that_does_not_fit_is_halved() -> None:
    backend = Brightness(most=3)
    found = list(_detector(backend).stream([_grey(level) for level in range(21)], batch_size=10))
    assert [prediction.score for prediction in found] == pytest.approx([level / 255 for level in range(21)])
    assert max(backend.batches) <= 3
    assert sum(backend.batches) == 21


def test_one_image_that_does_not_fit() -> None:
    with pytest.raises(MemoryLimitError, match="single image of 64×64"):
        _detector(Brightness(most=0)).predict([_grey(1), _grey(2), _grey(3)])


@pytest.mark.parametrize(("batch", "says"), [(4, "with 4 images of 64×64 pixels; export with"), (1, "a single image")])
def test_a_fixed_batch_that_does_not_fit(batch: int, says: str) -> None:
    """It always runs as many images: it is not tried with fewer."""

    class Full(Brightness):
        def run(self, images: Images) -> tuple[Images, Images]:
            self.batches.append(len(images))
            raise MemoryLimitError("full")

    backend = Full()
    artefact = Artefact(format="onnx", precision="fp32", batch=batch, source_sha256="")
    detector = Detector(backend, _detector().header.model_copy(update={"artefact": artefact}))
    with pytest.raises(MemoryLimitError, match=says):
        detector.predict([_grey(level) for level in range(8)])
    assert backend.batches == [8]


def test_the_failed_batch_is_let_go_before_its_half_runs() -> None:
    class Hoarder(Brightness):
        held: weakref.ref[Any] | None = None

        def run(self, images: Images) -> tuple[Images, Images]:
            assert self.held is None or self.held() is None, "the failed run still holds its memory"
            activations = np.zeros(10)
            if len(images) > 1:
                self.held = weakref.ref(activations)
            return super().run(images)

    assert len(_detector(Hoarder(most=1)).predict([_grey(level) for level in range(8)])) == 8


class _Failing(torch.nn.Module):
    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def channels_last(self) -> _Failing:
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError(self.words)


def test_torch_says_out_of_memory_in_many_words() -> None:
    images = np.zeros((2, 3, 32, 32), np.float32)
    for words in ("CUDA out of memory. Tried to allocate 2 GiB", "DefaultCPUAllocator: can't allocate memory: you"):
        with pytest.raises(MemoryLimitError, match="2 images"):
            TorchBackend(cast(Draem, _Failing(words))).run(images)
        assert out_of_memory(RuntimeError(words))
    with pytest.raises(RuntimeError, match="weights on another device"):
        TorchBackend(cast(Draem, _Failing("weights on another device"))).run(images)
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("shape mismatch"))


# ------------------------------------------------------------------------------------------------------------- threads


def test_eight_threads_get_what_one_gets(tiny_detector: Detector) -> None:
    images = [_noise(seed, 40 + seed, 90 - seed) for seed in range(24)]
    expected = [tiny_detector.predict(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(tiny_detector.predict, images))
        streams = list(pool.map(lambda _: list(tiny_detector.stream(images[:6], 2)), range(8)))
    for one, other in zip(found, expected, strict=True):
        _same(one, other)
    for stream in streams:
        for one, other in zip(stream, expected[:6], strict=True):
            _same(one, other, 1e-5)


# -------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("fit", ["resize", "letterbox"])
@pytest.mark.parametrize("shape", [(64, 64), (120, 50), (50, 120), (400, 300)])
def test_maps_and_boxes_are_in_the_images_own_pixels(fit: str, shape: tuple[int, int]) -> None:
    height, width = shape
    image = np.zeros((*shape, 3), np.uint8)
    top, bottom, left, right = height // 4, height // 2, width // 2, width * 3 // 4
    image[top:bottom, left:right] = 255
    found = _detector(data__fit=fit).predict(image)
    assert found.anomaly_map.shape == found.anomaly_mask.shape == shape
    assert found.anomaly_map.dtype == np.float32
    assert found.verdict == "reject"
    (region,) = found.regions
    # One input pixel is this large in the image.
    pixel = max(height, width) / 64 if fit == "letterbox" else np.array([width, height, width, height]) / 64
    assert (np.abs(np.subtract(region.box, (left, top, right, bottom))) <= np.maximum(pixel, 1) + 1).all()
    area = (bottom - top) * (right - left)
    assert region.area == pytest.approx(area, rel=0.25)
    assert found.anomaly_mask.sum() == pytest.approx(area, rel=0.25)
    inside = found.anomaly_map[top + 3 : bottom - 3, left + 3 : right - 3]
    assert inside.min() > 0.9
    outside = np.ones(shape, bool)
    outside[max(top - 8, 0) : bottom + 8, max(left - 8, 0) : right + 8] = False
    assert found.anomaly_map[outside].max(initial=0) < 0.1


@pytest.mark.parametrize("shape", [(20, 80), (80, 20), (64, 64)])
def test_a_letterboxs_padding_never_scores(shape: tuple[int, int]) -> None:
    size = (64, 64)
    backend = Brightness(everywhere=1.0)
    found = _detector(backend, data__fit="letterbox", score__filter_size=5).predict(_noise(0, *shape))
    window = np.zeros(size, bool)
    window[plan_fit(shape, size, "letterbox").window] = True
    assert (found.input_map[window] == 1).all()
    assert not found.input_map[~window].any()
    assert (found.anomaly_map == 1).all()
    for region in found.regions:
        assert 0 <= region.box[0] < region.box[2] <= shape[1]
        assert 0 <= region.box[1] < region.box[3] <= shape[0]


def test_only_the_padding_is_anomalous() -> None:
    class Padding(Brightness):
        def run(self, images: Images) -> tuple[Images, Images]:
            maps = np.ones_like(images[:, 0])
            maps[(slice(None), *plan_fit((20, 80), (64, 64), "letterbox").window)] = 0
            return maps, images

    found = _detector(Padding(), data__fit="letterbox", score__filter_size=21).predict(_noise(0, 20, 80))
    assert (found.score, found.verdict, found.regions) == (0.0, "accept", [])
    assert not found.anomaly_mask.any()


def test_without_a_threshold_there_is_no_verdict() -> None:
    found = _detector(reject=None).predict(_grey(255))
    assert (found.score, found.verdict, found.threshold, found.regions) == (1.0, None, None, [])
    assert not found.anomaly_mask.any()
    assert found.to_dict()["verdict"] is None


def test_review_lies_between() -> None:
    detector = _detector()
    thresholds = Thresholds(reject=0.8, review=0.4, chosen_on="a test's")
    detector = Detector(detector.backend, detector.header.model_copy(update={"thresholds": thresholds}))
    verdicts = [prediction.verdict for prediction in detector.predict([_grey(50), _grey(150), _grey(250)])]
    assert verdicts == ["accept", "review", "reject"]
    assert [bool(found.regions) for found in detector.predict([_grey(50), _grey(150)])] == [False, True]


def test_small_scores_are_not_rounded_away() -> None:
    found = _detector(Brightness(everywhere=3e-7), reject=2.9e-7).predict(_grey(0))
    row = found.to_dict()
    assert row["verdict"] == "reject"
    assert row["score"] > row["threshold"]
    assert row["regions"][0]["peak"] == row["score"]


def test_save_writes_the_overlay(tmp_path: Path) -> None:
    image = _noise(0)
    found = _detector().predict(image)
    found.save(tmp_path / "deep" / "overlay.png")
    np.testing.assert_array_equal(read_image(tmp_path / "deep" / "overlay.png"), found.overlay())
    assert not np.array_equal(found.overlay(), image)
    found.save(str(tmp_path / "overlay.jpg"))
    assert cv2.imread(str(tmp_path / "overlay.jpg")) is not None
    with pytest.raises(DraemError, match="suffix"):
        found.save(tmp_path / "overlay")


# ------------------------------------------------------------------------------------------------------------- loading


def test_load_by_string_and_path(tiny_model: Path) -> None:
    one, other = draem.load(str(tiny_model), "cpu"), draem.load(tiny_model)
    _same(one.predict(_noise(0)), other.predict(_noise(0)), 1e-5)


@pytest.mark.parametrize("device", ["gpu", "cuda:0", "", "CPU"])
def test_devices_that_are_none(tiny_model: Path, device: Any) -> None:
    with pytest.raises(ConfigError, match="device"):
        draem.load(tiny_model, device)


def test_a_device_that_is_not_here() -> None:
    assert choose_device("cpu") == "cpu"
    for device, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if not there:
            with pytest.raises(ConfigError, match="not available"):
                choose_device(cast(Any, device))


def test_regions_at_another_threshold_of_size_and_place() -> None:
    """Two spots in an image twice as large as the input: places, areas and contours are in its own pixels."""
    image = np.full((128, 128, 3), 10, np.uint8)
    image[8:32, 8:32], image[64:112, 56:120] = 200, 120
    found = _detector(Brightness(), score__filter_size=1).predict(image)
    both = found.regions_above(0.2)
    strong, large = both
    assert strong.peak > large.peak
    assert all(8 <= value < 32 for value in strong.place)
    assert 56 <= large.place[0] < 120
    assert 64 <= large.place[1] < 112
    assert large.area == pytest.approx(48 * 64, rel=0.1)
    for region in both:
        left, top, right, bottom = region.box
        assert all(left <= x <= right and top <= y <= bottom for x, y in region.contour)
        assert region.mean <= region.peak
    assert found.regions_above(0.2, least_area=1000) == [large]
    assert found.regions_above(0.2, within=(0, 0, 40, 40)) == [strong]
    assert found.regions_above(0.2, within=(40, 0, 128, 40)) == []
    assert found.regions_above(0.6) == [strong]
