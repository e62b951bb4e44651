"""The stream: three stages at once, in order, in bounded memory, and nothing left running when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from draem.config import Config
from draem.errors import DraemError
from draem.images import write_image
from draem.inspection.detector import Detector
from draem.inspection.folder import predict_files
from draem.inspection.stream import overlapped
from draem.modelfile import Header
from draem.pixels import Images


class Backend:
    """Gives the images' brightness; counts how many runs are under way at the same time."""

    name = execution = "brightness"

    def __init__(self, in_flight: int = 1, seconds: float = 0.0, fails_at: int = -1) -> None:
        self.in_flight, self.seconds, self.fails_at = in_flight, seconds, fails_at
        self.under_way, self.most, self.runs = 0, 0, 0
        self._lock = threading.Lock()

    def run(self, images: Images) -> tuple[Images, Images]:
        with self._lock:
            self.under_way += 1
            self.runs += 1
            self.most = max(self.most, self.under_way)
            fails = self.runs == self.fails_at
        time.sleep(self.seconds)
        with self._lock:
            self.under_way -= 1
        if fails:
            raise RuntimeError("the device is gone")
        return images.mean(1), images


def _detector(backend: Backend) -> Detector:
    settings = {"data.size": 32, "score.map": "segmentation", "score.filter_size": 1}
    return Detector(backend, Header(config=Config.resolve("fast", None, settings)))


class Camera:
    """Endless frames of changing brightness; counts those taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        for number in count():
            self.taken = number + 1
            yield np.full((8, 8, 3), number % 256, np.uint8)


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_endless_camera_and_a_slow_reader(in_flight: int, batch_size: int) -> None:
    camera, backend = Camera(), Backend(in_flight)
    stream = _detector(backend).stream(camera, batch_size)
    ahead = 0
    for number, found in enumerate(islice(stream, 300)):
        assert found.score == pytest.approx(number % 256 / 255, abs=1e-6)
        if number % 50 == 0:
            time.sleep(0.05)  # long enough for all that may be taken to be taken
        ahead = max(ahead, camera.taken - number)
    # The reader's own batch, and those under way.
    assert ahead <= batch_size * (in_flight + 2)
    assert ahead > batch_size, "nothing was done ahead"
    stream.close()
    taken = camera.taken
    time.sleep(0.02)
    assert camera.taken == taken
    assert backend.most <= in_flight


def test_as_many_runs_at_once_as_the_backend_has_streams() -> None:
    backend = Backend(in_flight=3, seconds=0.02)
    list(_detector(backend).stream(islice(Camera(), 30), 1))
    assert backend.most == 3


def test_also_predictions_from_many_threads_keep_to_it() -> None:
    backend = Backend(in_flight=2, seconds=0.005)
    detector = _detector(backend)
    frames = list(islice(Camera(), 20))
    workers = [threading.Thread(target=lambda: [detector.predict(frame) for frame in frames]) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert backend.most == 2


def test_what_is_ready_is_given_while_the_next_is_awaited() -> None:
    shown = threading.Event()

    def camera() -> Iterator[Any]:
        yield np.zeros((8, 8, 3), np.uint8)
        assert shown.wait(10), "the first result came only after the second frame"
        yield np.zeros((8, 8, 3), np.uint8)

    stream = _detector(Backend()).stream(camera(), 1)
    next(stream)
    shown.set()
    assert len(list(stream)) == 1


def test_the_network_runs_while_the_caller_works() -> None:
    backend = Backend()
    stream = _detector(backend).stream(Camera(), 2)
    next(stream)
    deadline = time.monotonic() + 10
    while backend.runs < 3 and time.monotonic() < deadline:
        time.sleep(0.005)  # the caller's work
    assert backend.runs == 3
    stream.close()


def test_times_leave_out_waiting_for_other_runs() -> None:
    detector, found = _detector(Backend()), list[Any]()
    worker = threading.Thread(target=lambda: found.append(detector.predict(np.zeros((8, 8, 3), np.uint8))))
    with detector._turns:  # as another run would
        started = time.perf_counter()
        worker.start()
        time.sleep(0.5)
    worker.join()
    waited = (time.perf_counter() - started) * 1000 - found[0].milliseconds
    assert waited > 100


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closed_early(taken: int) -> None:
    stream = _detector(Backend(seconds=0.01)).stream(Camera(), 2)
    list(islice(stream, taken))
    stream.close()
    assert list(stream) == []


def test_forgotten_early() -> None:
    stream = _detector(Backend()).stream(Camera(), 2)
    next(stream)
    del stream


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_error_of_the_network_stops_all(batch_size: int) -> None:
    camera = Camera()
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(_detector(Backend(fails_at=4)).stream(camera, batch_size))
    assert camera.taken < 10 * batch_size


def test_an_error_of_the_camera_comes_after_what_was_before_it() -> None:
    def broken() -> Iterator[Any]:
        yield from islice(Camera(), 5)
        raise ValueError("the cable")

    stream = _detector(Backend()).stream(broken(), 2)
    assert len(list(islice(stream, 5))) == 5
    with pytest.raises(ValueError, match="the cable"):
        next(stream)


def test_an_error_of_the_caller_stops_all() -> None:
    def work() -> None:
        for _ in _detector(Backend()).stream(Camera(), 2):
            raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        work()


def test_a_camera_that_gives_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("draem.inspection.stream._PATIENCE", 0.01)
    released, running = threading.Event(), threading.Event()

    def camera() -> Iterator[Any]:
        yield from islice(Camera(), 2)
        running.set()
        released.wait(10)

    stream = _detector(Backend()).stream(camera(), 1)
    next(stream)
    running.wait(10)
    stream.close()
    released.set()
    for thread in threading.enumerate():
        if thread.name == "draem-feed":
            thread.join(10)


def test_order_whatever_takes_how_long() -> None:
    rng = np.random.default_rng(0)
    delays = rng.random(60) * 0.01

    def load(index: int) -> int:
        time.sleep(delays[index])
        if index % 7 == 3:
            raise OSError(index)
        return index

    def inspect(batch: list[int]) -> list[int]:
        time.sleep(delays[batch[0]])
        return [10 * index for index in batch]

    batches = list(overlapped(range(60), load, inspect, 4, 3, OSError))
    results = [result for batch in batches for result in batch.results]
    assert results == [10 * index for index in range(60) if index % 7 != 3]
    unloadable = [thing for batch in batches for thing, _ in batch.unloadable]
    assert unloadable == [index for index in range(60) if index % 7 == 3]
    assert len(batches) == 15


def test_a_batch_of_which_nothing_can_be_loaded() -> None:
    def load(index: int) -> int:
        raise OSError(index)

    def inspect(batch: list[int]) -> list[int]:
        raise AssertionError("there is nothing to inspect")

    (batch,) = overlapped(range(3), load, inspect, 4, 1, OSError)
    assert (batch.results, len(batch.unloadable)) == ([], 3)


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to one process there")
def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    code = (
        "import signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_stream import Backend, Camera, _detector\n"
        # Which a suite started by a shell in the background inherits as ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n"
        "    for number, _ in enumerate(_detector(Backend(seconds=0.01)).stream(Camera(), 2)):\n"
        "        if number == 5: print('going', flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert (out, process.returncode) == ("stopped\n", 0)


# -------------------------------------------------------------------------------------------------------------- folder


def _photos(folder: Path, number: int) -> list[Path]:
    paths = [folder / f"{index:02d}.png" for index in range(number)]
    for index, path in enumerate(paths):
        write_image(path, np.full((8, 8, 3), 5 * index, np.uint8))
    return paths


def test_pictures_are_written_beside_and_rows_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers: set[str] = set()
    usual: Callable[..., None] = write_image

    def slow(path: Path, image: Any) -> None:
        writers.add(threading.current_thread().name)
        time.sleep(0.01 if path.stem.endswith("0") else 0)
        usual(path, image)

    monkeypatch.setattr("draem.inspection.folder.write_image", slow)
    paths, moves = _photos(tmp_path / "in", 25), list[int]()
    summary = predict_files(_detector(Backend()), paths, tmp_path / "out", 4, lambda done, total: moves.append(done))
    assert summary.images == 25
    assert moves == list(range(1, 26))
    assert all(name.startswith("draem-write") for name in writers)
    rows = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert [f'"{path}"' in row for path, row in zip(paths, rows, strict=True)] == [True] * 25
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 25


def test_pictures_of_earlier_runs_stay_and_are_counted(tmp_path: Path) -> None:
    paths, out = _photos(tmp_path / "in", 5), tmp_path / "out"
    detector, quiet = _detector(Backend()), lambda done, total: None
    assert predict_files(detector, paths[:3], out, 4, quiet).older_pictures == 0
    assert predict_files(detector, paths[:3], out, 4, quiet).older_pictures == 0
    paths[1].write_bytes(b"no image any more")
    summary = predict_files(detector, [paths[1], paths[4]], out, 4, quiet)
    assert (summary.images, summary.older_pictures) == (1, 6)
    assert len(list((out / "maps").iterdir())) == 4


def test_a_picture_that_cannot_be_written_stops_all(tmp_path: Path) -> None:
    paths = _photos(tmp_path / "in", 30)
    (tmp_path / "out" / "maps").mkdir(parents=True)
    (tmp_path / "out" / "overlays").write_text("a file where the folder would be")
    backend = Backend()
    with pytest.raises(DraemError, match="overlays"):
        predict_files(_detector(backend), paths, tmp_path / "out", 1, lambda done, total: None)
    assert backend.runs < 30
    assert not (tmp_path / "out" / "results.jsonl").exists()
