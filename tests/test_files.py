"""Atomic writing: the old file or the new one, nothing between, nothing left beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from draem.errors import DraemError
from draem.files import atomic_path, atomic_write


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "run.yaml"
    atomic_write(target, b"old")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    assert [path.name for path in target.parent.iterdir()] == ["run.yaml"]


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            assert temporary.suffix == ".onnx"
            assert temporary.parent == tmp_path
            temporary.write_bytes(b"half of the n")
            assert target.read_bytes() == b"old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("model.onnx", b"old")]


def test_writer_that_wrote_nothing(tmp_path: Path) -> None:
    with pytest.raises(DraemError, match=r"x\.bin: cannot be written"), atomic_path(tmp_path / "x.bin"):
        pass


@pytest.mark.parametrize("place", ["file/below.png", "folder", "n" * 300])
def test_os_errors_are_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(DraemError) as caught:
        atomic_write(tmp_path / place, b"x")
    assert str(tmp_path / place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
