"""The integrator's programs and snippet of docs/deploy.md: compiled as printed there, they decide as draem does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html import escape, unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from draem.config import Config
from draem.deployment.export import export
from draem.images import fit_image, write_image
from draem.inspection.detector import Detector
from draem.inspection.openvino_backend import import_openvino
from draem.inspection.scoring import image_score, verdict
from draem.modelfile import (
    Artefact,
    Header,
    RegionOfInterest,
    Thresholds,
    colour_order,
    edit_header,
    openvino,
    read_header,
)
from draem.modelfile.sealed import text_sum
from draem.pixels import convert
from tiny import TINY

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")

Run = Callable[..., subprocess.CompletedProcess[str]]
Raw = NDArray[Any]
"""Of uint8 or uint16, as files hold them."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def lines_for(program: str) -> str:
    """What the page says to type to compile a program."""
    (block,) = (block for block in blocks("bash") if f"{program}.cpp" in block)
    return "\n".join(line for line in block.splitlines() if not line.startswith("./"))


def built(program: str, folder: Path, **environment: str) -> Run:
    """Compiles a program as the page says, without optimising, which takes longer than all the images."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the examples with")
    (folder / "examples").symlink_to(ROOT / "examples")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    commands = lines_for(program).replace("-O2", "-O0 -Wall -Wextra -Werror")
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([folder / program, *map(str, arguments)], capture_output=True, text=True)

    return run


@pytest.fixture(scope="module")
def inspect(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the OpenVINO program."""
    spec = find_spec("openvino")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders or not (Path(folders[0]) / "include" / "openvino" / "openvino.hpp").exists():
        pytest.skip("the installed openvino has no C++ headers")
    return built("inspect_openvino", tmp_path_factory.mktemp("openvino"))


def write_pam(path: Path, raw: Raw) -> Path:
    """H×W or H×W×C as PGM, PPM or, for stacks, PAM."""
    height, width, channels = np.atleast_3d(raw).shape
    most = np.iinfo(raw.dtype).max
    head = f"P5\n# a comment\n{width} {height}\n{most}\n" if channels == 1 else f"P6 {width} {height} {most}\n"
    if channels not in (1, 3):
        head = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL {most}\nTUPLTYPE STACK\nENDHDR\n"
    path.write_bytes(head.encode() + raw.astype(raw.dtype.newbyteorder(">")).tobytes())
    return path


def picture(height: int, width: int, channels: int = 3, depth: int = 8, seed: int = 0) -> Raw:
    """Blurred noise over the whole range of values; H×W where there is one channel."""
    noise = np.random.default_rng([seed, height, width]).random((height, width, channels), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5).reshape(noise.shape)
    unit = (smooth - smooth.min()) / np.ptp(smooth)
    pixels: Raw = np.rint(unit * (2**depth - 1)).astype(np.uint8 if depth == 8 else np.uint16)
    return pixels[..., 0] if channels == 1 else pixels


SIZES = [(64, 64), (128, 128), (192, 256), (100, 77), (30, 47), (20, 150), (150, 20), (65, 64), (300, 16)]

PREPROCESS = """
#include "draem.hpp"
int main(int, char** argv) try {
    const std::string text = draem::read_file(argv[1]);
    const draem::Header header = draem::read_header(text, draem::sha256(text));
    std::vector<float> input(header.values());
    for (argv += 2; *argv; ++argv) {
        draem::preprocess(draem::Netpbm::read(*argv), header, input.data());
        std::fwrite(input.data(), sizeof(float), input.size(), stdout);
    }
} catch (const std::exception& error) { std::fprintf(stderr, "%s", error.what()); return 1; }
"""


@pytest.fixture(scope="module")
def preprocess(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that writes what the examples give to the network; needs no runtime."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the examples with")
    folder = tmp_path_factory.mktemp("preprocess")
    (folder / "main.cpp").write_text(PREPROCESS, encoding="utf-8")
    command = ["g++", "-std=c++17", "-O1", "-I", str(ROOT / "examples" / "cpp"), "main.cpp", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "main"


@pytest.mark.parametrize("interpolation", ["area", "linear"])
@pytest.mark.parametrize("fit", ["resize", "letterbox"])
@pytest.mark.parametrize(
    ("settings", "channels", "depth"),
    [
        ({"channels": 3}, 3, 8),
        ({"channels": 1}, 3, 8),
        ({"channels": 3}, 1, 8),
        ({"channels": 1, "depth": 16}, 1, 16),
        ({"channels": 3, "depth": 16}, 3, 8),
        ({"channels": 3, "depth": 8, "value_range": [100, 40000.5]}, 3, 16),
        ({"channels": 5, "depth": 16, "size": [48, 80]}, 5, 16),
    ],
)
def test_preprocessing_is_draems(
    preprocess: Path, tmp_path: Path, settings: dict[str, Any], channels: int, depth: int, fit: str, interpolation: str
) -> None:
    given = {"size": 64, "depth": 8, "fit": fit, "interpolation": interpolation, **settings}
    config = Config.resolve("fast", None, {f"data.{key}": value for key, value in given.items()})
    data, wanted = config.data, config.data.pixel_format
    header = Header(config=config, channels=wanted.channels, colour_order=colour_order(wanted.channels))
    (tmp_path / "header.json").write_text(header.model_dump_json(), encoding="utf-8")
    images = [picture(*size, channels, depth) for size in SIZES]
    paths = [write_pam(tmp_path / f"{index}.pam", image) for index, image in enumerate(images)]
    done = subprocess.run([preprocess, tmp_path / "header.json", *paths], capture_output=True)
    assert done.returncode == 0, done.stderr
    found = np.frombuffer(done.stdout, np.float32).reshape(len(images), wanted.channels, *data.size)
    for image, values, size in zip(images, found, SIZES, strict=True):
        expected = fit_image(convert(image, wanted, "it"), *data.frame(size), data.interpolation).transpose(2, 0, 1)
        levels = values.astype(np.float64) * wanted.highest
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-2)
        # Sums may be rounded in another way on other processors, and halves by OpenCV's other ways for 16 bits.
        off = np.abs(np.rint(levels) - expected)
        assert off.max() <= 1, size
        assert np.mean(off > 0) <= (0.01 if wanted.depth == 8 else 0.2), size


def lowered(model: Path, to: Path, **changes: Any) -> Path:
    """A copy of an IR with another header: `data` and `score` update those sections, all else the header."""
    shutil.copy(model, to)
    shutil.copy(openvino.weights_file(model), openvino.weights_file(to))
    header = read_header(to)
    sections: dict[str, Any] = {
        name: getattr(header.config, name).model_copy(update=changes.pop(name))
        for name in ("data", "score")
        if name in changes
    }
    edit_header(to, header.model_copy(update={"config": header.config.model_copy(update=sections), **changes}))
    return to


def graph_model(path: Path, channels: int, batch: int | None = None, spoilt: bool = False, **data: Any) -> Path:
    """An IR that needs no export: how far each pixel is from a darker or lighter place beside it, over the channels."""
    ov = import_openvino()
    from openvino import opset13 as ops

    settings = {**TINY, "data.channels": channels, **{f"data.{key}": value for key, value in data.items()}}
    config = Config.resolve("fast", None, settings)
    image = ops.parameter([batch or -1, channels, *config.data.size], np.float32, name="image")
    image.output(0).set_names({"image"})
    kernel = np.random.default_rng(0).normal(0, 1, (1, channels, 5, 5)).astype(np.float32)
    seen = ops.convolution(image, ops.constant(kernel), [1, 1], [2, 2], [2, 2], [1, 1])
    maps = ops.squeeze(ops.sigmoid(seen), ops.constant([1]))
    maps = ops.log(ops.negative(maps)) if spoilt else maps
    maps.output(0).set_names({"anomaly_map"})
    same = ops.relu(image)
    same.output(0).set_names({"reconstruction"})
    ov.save_model(ov.Model([maps, same], [image]), path, compress_to_fp16=False)
    header = Header(
        config=config,
        channels=channels,
        colour_order=colour_order(channels),
        artefact=Artefact(format="openvino", precision="fp32", batch=batch, source_sha256="0" * 64),
    )
    openvino.write_model(path, header, path.read_bytes(), openvino.weights_file(path).read_bytes())
    return path


def agree(run: Run, model: Path, images: list[Raw], folder: Path) -> list[str]:
    """The verdicts of a program, at thresholds between draem's scores; asserts that scores and verdicts are draem's."""
    paths = [write_pam(folder / f"{index}.ppm", image) for index, image in enumerate(images)]
    detector = Detector.load(model)
    expected = [detector.predict(image).score for image in images]
    scores = sorted(expected)
    low, high = (float(np.mean(scores[place - 1 : place + 1])) for place in (len(scores) // 3, 2 * len(scores) // 3))
    thresholds = Thresholds(reject=high, review=low, chosen_on='nothing: <a test\'s> "own"')
    edit_header(model, read_header(model).model_copy(update={"thresholds": thresholds}))
    done = run(model, *paths)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    for row, score in zip(rows, expected, strict=True):
        assert row["score"] == pytest.approx(score, abs=1e-4)
        assert row["verdict"] == verdict(score, thresholds)
    return [row["verdict"] for row in rows]


@pytest.mark.parametrize(
    "data",
    [{}, {"interpolation": "linear"}, {"value_range": (40.0, 200.0), "fit": "letterbox"}, {"outside": "blank"}],
)
@pytest.mark.parametrize("map_", ["segmentation", "joint"])
def test_openvino_program_decides_as_draem(
    inspect: Run, tiny_ir: Path, tmp_path: Path, data: dict[str, Any], map_: str
) -> None:
    model = lowered(tiny_ir, tmp_path / "model.xml", data=data, score={"map": map_})
    if data.get("outside") == "blank":
        half = RegionOfInterest(inspect=[[(0.1, 0.0), (0.6, 0.0), (0.6, 1.0), (0.1, 1.0)]])
        edit_header(model, read_header(model).model_copy(update={"region": half}))
    images = [picture(*size) for size in SIZES] + [picture(90, 70, 1), picture(90, 70, 3, 16)]
    assert set(agree(inspect, model, images, tmp_path)) == {"accept", "review", "reject"}


def test_openvino_program_runs_int8(inspect: Run, tiny_model: Path, tmp_path: Path) -> None:
    for index, size in enumerate(SIZES):
        write_image(tmp_path / "good" / f"{index}.png", picture(*size))
    model = tmp_path / "int8.xml"
    export(tiny_model, model, tmp_path / "good", precision="int8", force=True, batch=1)
    assert agree(inspect, model, [picture(*size) for size in SIZES[:6]], tmp_path)


def test_openvino_program_reads_onnx(inspect: Run, tiny_onnx: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(tiny_onnx, tmp_path / "model.onnx"))
    verdicts = agree(inspect, model, [picture(*size) for size in SIZES[:6]], tmp_path)
    assert set(verdicts) == {"accept", "review", "reject"}


@pytest.mark.parametrize(
    ("channels", "settings"),
    [(1, {"depth": 16}), (5, {"depth": 8}), (3, {"batch": 2}), (1, {"batch": 4, "fit": "letterbox", "size": [32, 80]})],
)
def test_other_channels_depths_and_batches(
    inspect: Run, tmp_path: Path, channels: int, settings: dict[str, Any]
) -> None:
    model = graph_model(tmp_path / "model.xml", channels, **settings)
    images = [picture(*size, channels, settings.get("depth", 8)) for size in SIZES[:7]]
    if settings.get("batch"):
        # draem itself may not fill up a fixed batch; a model of any batch has the same scores.
        free = graph_model(tmp_path / "free.xml", channels, **{**settings, "batch": None})
        paths = [write_pam(tmp_path / f"{index}.ppm", image) for index, image in enumerate(images)]
        fixed, single = inspect(model, *paths), inspect(free, *paths)
        assert (fixed.returncode, fixed.stdout.count("\n")) == (0, 7)
        for one, other in zip(fixed.stdout.splitlines(), single.stdout.splitlines(), strict=True):
            assert json.loads(one)["score"] == pytest.approx(json.loads(other)["score"], abs=1e-6)
        model = free
    assert set(agree(inspect, model, images, tmp_path)) == {"accept", "review", "reject"}


def test_without_thresholds_there_is_no_verdict(inspect: Run, tmp_path: Path) -> None:
    model = graph_model(tmp_path / "model.xml", 3)
    done = inspect(model, write_pam(tmp_path / 'with "quotes".ppm', picture(64, 64)))
    assert json.loads(done.stdout)["verdict"] is None
    assert json.loads(done.stdout)["path"] == str(tmp_path / 'with "quotes".ppm')


TRIANGLES = [[(0.05, 0.1), (0.95, 0.2), (0.4, 0.93)], [(0.2, 0.2), (0.6, 0.25), (0.35, 0.6)]]
BAND = [[(0.0, 0.45), (1.0, 0.5), (1.0, 0.55), (0.0, 0.6)]]


def inside(polygons: list[list[tuple[float, float]]], height: int, width: int) -> NDArray[np.bool_]:
    """Even-odd, pixel by pixel and edge by edge."""
    found = np.zeros((height, width), bool)
    for row, column in np.ndindex(height, width):
        for polygon in polygons:
            for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                y = (row + 0.5) / height
                if (y1 <= y) != (y2 <= y) and (column + 0.5) / width >= x1 + (y - y1) * (x2 - x1) / (y2 - y1):
                    found[row, column] ^= True
    return found


@pytest.mark.parametrize("fit", ["resize", "letterbox"])
@pytest.mark.parametrize(
    "region",
    [
        RegionOfInterest(inspect=TRIANGLES),
        RegionOfInterest(ignore=TRIANGLES),
        RegionOfInterest(inspect=TRIANGLES, ignore=BAND),
    ],
)
def test_region_of_interest(inspect: Run, tmp_path: Path, region: RegionOfInterest, fit: str) -> None:
    model = graph_model(tmp_path / "model.xml", 3, fit=fit)
    side = read_header(model).config.score.filter_size
    height, width = (64, 64) if fit == "resize" else (27, 64)
    top = (64 - height) // 2
    keep = np.zeros((64, 64), bool)
    keep[top : top + height] = inside(region.inspect, height, width) if region.inspect else True
    keep[top : top + height] &= ~inside(region.ignore, height, width)
    images = [picture(50, 120, seed=seed) for seed in range(6)]
    maps = [prediction.input_map for prediction in Detector.load(model).predict(list(images))]
    expected = [image_score(np.where(keep, found, np.float32(0)), side) for found in maps]
    assert any(score < image_score(found, side) for score, found in zip(expected, maps, strict=True))
    edit_header(model, read_header(model).model_copy(update={"region": region}))
    done = inspect(model, *(write_pam(tmp_path / f"{index}.ppm", image) for index, image in enumerate(images)))
    scores = [json.loads(line)["score"] for line in done.stdout.splitlines()]
    assert scores == pytest.approx(expected, abs=1e-6)


def test_onnxruntime_program_decides_as_draem(tiny_onnx: Path, tmp_path: Path) -> None:
    place = os.environ.get("ORT", "")
    if not (Path(place) / "include" / "onnxruntime_cxx_api.h").exists():
        pytest.skip("no C++ headers of ONNX Runtime; ORT=FOLDER names its unpacked release")
    run = built("inspect_onnxruntime", tmp_path, ORT=place)
    model = Path(shutil.copy(tiny_onnx, tmp_path / "model.onnx"))
    header = read_header(model)
    score = header.config.score.model_copy(update={"map": "joint"})
    edit_header(model, header.model_copy(update={"config": header.config.model_copy(update={"score": score})}))
    assert set(agree(run, model, [picture(*size) for size in SIZES], tmp_path)) == {"accept", "review", "reject"}


# ------------------------------------------------------------------------------------------------------ what is refused


def with_text(model: Path, change: Callable[[str], str], seal: bool = True) -> None:
    """Put another text in place of an IR's header, with a sum that fits, or the former one."""
    xml = model.read_text(encoding="utf-8")
    match = re.search(r'<header value="([^"]*)" ?/>\s*<sha256 value="(\w+)"', xml)
    assert match
    text = change(unescape(match[1]))
    new = match[0].replace(match[1], escape(text))
    new = new.replace(match[2], text_sum(text)) if seal else new
    model.write_text(xml.replace(match[0], new), encoding="utf-8")


def without_header(model: Path) -> None:
    model.write_text(re.sub(r"<draem>.*</draem>", "", model.read_text(encoding="utf-8"), flags=re.DOTALL), "utf-8")


def flipped_weight(model: Path) -> None:
    weights = openvino.weights_file(model)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no header": (without_header, "not a draem model"),
    "no JSON": (lambda model: with_text(model, lambda text: text[:-1]), "not JSON at byte"),
    "deep JSON": (lambda model: with_text(model, lambda text: "[" * 100_000), "not JSON at byte"),
    "wrong sum": (lambda model: with_text(model, lambda text: text + " ", seal=False), "does not match its checksum"),
    "version": (
        lambda model: with_text(model, lambda text: text.replace('"format_version":4', '"format_version":9')),
        "header version 9",
    ),
    "tiles": (
        lambda model: with_text(model, lambda text: text.replace('"fit":"resize"', '"fit":"tiles"')),
        "does not do data.fit=tiles",
    ),
    "map": (
        lambda model: with_text(model, lambda text: text.replace('"map":"segmentation"', '"map":"ssim"')),
        "does not do score.map=ssim",
    ),
    "registration": (
        lambda model: with_text(model, lambda text: text.replace('"registration":null', '"registration":{"angle":1}')),
        "does not do registration",
    ),
    "size": (lambda model: with_text(model, lambda text: text.replace('"size":[64,64]', '"size":[64]')), "too short"),
    "huge": (
        lambda model: with_text(model, lambda text: text.replace('"size":[64,64]', '"size":[64,6400000]')),
        "values that cannot be",
    ),
    "other size": (
        lambda model: with_text(model, lambda text: text.replace('"size":[64,64]', '"size":[96,64]')),
        "not of the size",
    ),
    "weights": (flipped_weight, "weights do not match"),
    "no weights": (lambda model: openvino.weights_file(model).unlink(), "model.xml: "),
    "cut short": (lambda model: model.write_bytes(model.read_bytes()[:2000]), "model.xml: "),
    "empty": (lambda model: model.write_bytes(b""), "model.xml: "),
    "gone": (lambda model: model.unlink(), "no such file"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_models_are_refused_in_one_line(inspect: Run, tmp_path: Path, name: str) -> None:
    model = graph_model(tmp_path / "model.xml", 3)
    image = write_pam(tmp_path / "it.ppm", picture(64, 64))
    assert inspect(model, image).returncode == 0
    damage, told = DAMAGE[name]
    damage(model)
    done = inspect(model, image)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


def test_maps_that_are_not_numbers_are_refused(inspect: Run, tmp_path: Path) -> None:
    model = graph_model(tmp_path / "model.xml", 3, spoilt=True)
    done = inspect(model, write_pam(tmp_path / "it.ppm", picture(64, 64)))
    assert (done.returncode, done.stdout) == (1, "")
    assert "not numbers" in done.stderr


def test_damaged_onnx_is_refused(inspect: Run, tiny_onnx: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    image = write_pam(tmp_path / "it.ppm", picture(64, 64))
    content = tiny_onnx.read_bytes()
    place = len(content) // 2  # among the weights: a runtime takes any
    changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    for damaged, told in ((changed, "weights do not match"), (content[:5000], "model.onnx: ")):
        model.write_bytes(damaged)
        done = inspect(model, image)
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr.splitlines()[-1]


IMAGES = {
    "cut short": (b"P6 64 64 255\n" + bytes(64 * 64 * 3 - 1), "cut short"),
    "cut short in 16 bits": (b"P5 64 64 65535\n" + bytes(64 * 64 * 2 - 1), "cut short"),
    "no samples": (b"P5 64 64", "cut short"),
    "endless": (b"P6 20000 20000 255\n", "cut short"),
    "empty": (b"", "cut short"),
    "text": (b"P3 1 1 255\n1 2 3", "not a binary"),
    "PNG": (b"\x89PNG\r\n\x1a\n", "not a binary"),
    "no number": (b"P6 64 sixty 255\n", "damaged"),
    "too wide": (b"P6 99999 64 255\n", "from 1 to 20000"),
    "a stack": (b"P7 WIDTH 8 HEIGHT 8 DEPTH 2 MAXVAL 255 ENDHDR\n" + bytes(128), "2 channels, 3 expected"),
    "alpha": (b"P7 WIDTH 8 HEIGHT 8 DEPTH 4 MAXVAL 255 TUPLTYPE RGB_ALPHA ENDHDR\n" + bytes(256), "TUPLTYPE"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_damaged_images_are_refused_in_one_line(inspect: Run, tmp_path: Path, name: str) -> None:
    model = graph_model(tmp_path / "model.xml", 3)
    good, bad = write_pam(tmp_path / "good.ppm", picture(64, 64)), tmp_path / "bad.ppm"
    content, told = IMAGES[name]
    bad.write_bytes(content)
    done = inspect(model, good, bad, good)
    assert done.returncode == 1
    assert [json.loads(line)["path"] for line in done.stdout.splitlines()] == [str(good)]
    assert done.stderr.startswith(f"{bad}: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


def test_missing_images_and_usage(inspect: Run, tmp_path: Path) -> None:
    model = graph_model(tmp_path / "model.xml", 3)
    done = inspect(model, tmp_path / "none.ppm")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no such file" in done.stderr
    assert inspect(tmp_path, model).returncode == 1
    assert (inspect().returncode, inspect(model).returncode) == (2, 2)


# ------------------------------------------------------------------------------------------------------- what is told


def test_snippet_scores_as_draem(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    model = Path(shutil.copy(tiny_onnx, "model.onnx"))
    image = picture(150, 90)
    assert image.dtype == np.uint8
    write_image(Path("part.png"), image)
    cv2.imwrite("deep.png", picture(150, 90, 1, 16))
    header = read_header(model)
    ways: list[tuple[dict[str, Any], str]] = [
        ({"fit": "resize"}, "segmentation"),
        ({"fit": "letterbox"}, "joint"),
        ({"fit": "resize", "outside": "blank"}, "joint"),
        ({"fit": "letterbox", "value_range": (30.0, 220.0)}, "segmentation"),
    ]
    for data, map_ in ways:
        updates: dict[str, Any] = {"data": header.config.data.model_copy(update=data)}
        updates |= {"score": header.config.score.model_copy(update={"map": map_})}
        config = header.config.model_copy(update=updates)
        region = RegionOfInterest(inspect=TRIANGLES) if data.get("outside") else None
        edit_header(model, header.model_copy(update={"config": config, "region": region}))
        names: dict[str, Any] = {}
        exec(compile(snippet, "deploy.md", "exec"), names)  # the page is our own
        score, found = capsys.readouterr().out.split()
        detector = Detector.load(model)
        expected = detector.predict("part.png")
        assert float(score) == pytest.approx(expected.score, abs=1e-6)
        assert found == expected.verdict
        assert names["inspect"]("deep.png")[0] == pytest.approx(detector.predict("deep.png").score, abs=1e-6)
        np.testing.assert_array_equal(names["inside"](TRIANGLES, 50, 70), inside(TRIANGLES, 50, 70))


def test_fields_that_the_page_names_exist(tiny_onnx: Path) -> None:
    (table,) = re.findall(r"\| field \| means \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE)
    fields = re.findall(r"^\| `([\w.]+)` \|", table, re.MULTILINE)
    assert len(fields) >= 13
    values = json.loads(read_header(tiny_onnx).model_dump_json())
    for field in fields:
        place = values
        for part in field.split("."):
            assert part in place, field
            place = place[part]
