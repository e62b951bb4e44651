"""The doctor on deep images, arrays and stacks: what lies below 8 bits or beyond three channels counts too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import Outcome
from draem.data.doctor.examine import check_dataset
from draem.data.doctor.facts import examine
from draem.data.doctor.measures import extent
from draem.data.layouts import read_layout

SIZE = (40, 50)


def write(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def found(folder: Path) -> list[str]:
    return [finding.check for finding in check_dataset(read_layout(folder)).findings]


@pytest.mark.parametrize("kind", ["stack", "twelve bits", "below eight bits", "floats"])
def test_sound_sets_of_other_pixels(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    same = rng.integers(0, 255, (*SIZE, 3), np.uint8)
    for index in range(20):
        if kind == "stack":  # only what people are not shown differs
            write(tmp_path / f"{index}.npy", np.dstack([rng.integers(0, 255, (*SIZE, 4), np.uint8), same[..., :1]]))
        elif kind == "floats":
            write(tmp_path / f"{index}.npy", rng.random(SIZE, np.float32))
        else:
            highest = 4096 if kind == "twelve bits" else 200
            write(tmp_path / f"{index}.png", rng.integers(0, highest, SIZE).astype(np.uint16))
    nearly_black = kind in ("twelve bits", "below eight bits")
    assert found(tmp_path) == ["depth"] * nearly_black
    if nearly_black:
        (finding,) = check_dataset(read_layout(tmp_path)).findings
        highest = 4095 if kind == "twelve bits" else 255
        assert f"data.value_range=[0,{highest}]" in finding.advice
        assert check_dataset(read_layout(tmp_path), value_range=(0, highest)).findings == ()


def test_a_range_of_values_as_in_training(tmp_path: Path, run_cli: Callable[..., Outcome]) -> None:
    rng = np.random.default_rng(0)
    for index in range(20):
        write(tmp_path / f"{index}.npy", rng.uniform(-40, 40, SIZE).astype(np.float32))
    assert set(found(tmp_path)) == {"unreadable", "few images"}
    assert check_dataset(read_layout(tmp_path), value_range=(-40, 40)).findings == ()
    done = run_cli("check", str(tmp_path), "--set", "data.value_range=[-40, 40]")
    assert done.code == 0, done.err


def test_copies_are_told_by_all_that_is_stored(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, SIZE, np.uint8)
    deep = grey.astype(np.uint16) * 257
    write(tmp_path / "a.png", grey)
    write(tmp_path / "b.png", deep)
    write(tmp_path / "c.png", deep + (grey < 99))
    write(tmp_path / "d.npy", np.repeat(grey[..., None], 3, axis=2))
    write(tmp_path / "e.npy", np.repeat(grey[..., None], 4, axis=2))
    write(tmp_path / "f.npy", np.dstack([np.repeat(grey[..., None], 3, axis=2), grey // 2]))
    copies: dict[bytes, list[str]] = {}
    for sample in read_layout(tmp_path).samples:
        copies.setdefault(examine(sample).pixels, []).append(sample.name[0])
    assert sorted(copies.values()) == [["a", "b", "d"], ["c"], ["e"], ["f"]]


def test_a_stack_of_pages_is_one_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(20):
        pages = list(rng.integers(100, 140, (4, *SIZE), np.uint8))
        (tmp_path / f"{index:02}.tiff").write_bytes(cv2.imencodemulti(".tiff", pages)[1].tobytes())
    assert found(tmp_path) == []
    write(tmp_path / "00.tiff", rng.integers(100, 140, SIZE, np.uint8))
    assert found(tmp_path) == ["channels"]


def test_one_plain_colour_in_any_depth() -> None:
    colour = np.full((5, 6, 3), (9, 80, 3), np.uint8)
    assert extent(colour) == extent(colour.astype(np.uint16) * 257) == extent(colour / np.float32(255)) == 0
    colour[2, 2] += 7
    assert extent(colour) == 7
    assert extent(np.array([[2, 0]], np.uint16)) == 0
    assert extent(np.array([[100, 200]], np.uint16)) == 128, "dark, but a picture"
    assert extent(np.array([[0.5, 1.0]])) == 128


def test_nothing_readable_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert found(tmp_path) == ["unreadable", "few images"]
    assert all(finding.severity == "error" for finding in check_dataset(read_layout(tmp_path)).findings)
