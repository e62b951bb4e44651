"""Model files: safetensors for torch, ONNX, OpenVINO IR, each with the same header; read and edited without torch."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from draem.errors import ModelFileError
from draem.modelfile import onnx, openvino, tensors
from draem.modelfile.header import (
    FORMAT_VERSION,
    Artefact,
    ArtefactFormat,
    Certificate,
    DataRecord,
    Header,
    ImageParity,
    RegionOfInterest,
    Registration,
    TeacherRecord,
    TrainingRecord,
    WeightPrecision,
    colour_order,
    package_versions,
)
from draem.modelfile.sealed import Sealed
from draem.modelfile.thresholds import Profile, Promise, Reference, Thresholds, Verdict

__all__ = [
    "FORMAT_VERSION",
    "Artefact",
    "ArtefactFormat",
    "Certificate",
    "DataRecord",
    "Header",
    "ImageParity",
    "Profile",
    "Promise",
    "Reference",
    "RegionOfInterest",
    "Registration",
    "Sealed",
    "TeacherRecord",
    "Thresholds",
    "TrainingRecord",
    "Verdict",
    "WeightPrecision",
    "colour_order",
    "edit_header",
    "package_versions",
    "read_header",
    "read_model",
    "refuse_no_file",
]

_CONTAINERS: dict[str, ModuleType] = {".safetensors": tensors, ".onnx": onnx, ".xml": openvino}


def read_header(path: Path) -> Header:
    """The checked header of a model file of any kind; the weights are not looked at.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    header: Header = _container(path).read_header(path)
    return header


def read_model(path: Path) -> Sealed:
    """A model file of any kind, whole and checked: header, shapes of the file, and sum of the weights.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    sealed: Sealed = _container(path).read_model(path)
    return sealed


def edit_header(path: Path, header: Header) -> None:
    """Put another header into a model file, atomically; its weights stay byte by byte.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    _container(path).edit_header(path, header)


def refuse_no_file(path: Path) -> None:
    """Say what a person may have meant who names something that is no file.

    Raises:
        ModelFileError: there is no such file, or it is a folder.
    """
    there = os.path.exists(path)  # noqa: PTH110 (Path's own raises for names too long)
    if there and path.is_dir():
        raise ModelFileError(f"{path}: is a folder; a run's model is {path / 'model.safetensors'}")
    if not there and os.path.exists(path.parent / "checkpoint.safetensors"):  # noqa: PTH110
        raise ModelFileError(f"{path}: no such file: the run in {path.parent} is not finished; train with --resume")
    if not there:
        writes = (
            "draem export writes them" if path.suffix in (".onnx", ".xml") else "training writes RUN/model.safetensors"
        )
        raise ModelFileError(f"{path}: no such file; {writes}")


def _container(path: Path) -> ModuleType:
    refuse_no_file(path)
    kind = path.suffix.lower()
    if kind == ".bin":
        raise ModelFileError(f"{path}: the weights of an OpenVINO IR; name {path.with_suffix('.xml').name} beside it")
    if kind not in _CONTAINERS:
        raise ModelFileError(
            f"{path}: not a model file: one ends in .safetensors, .onnx or .xml; "
            "published weights come in by import-weights"
        )
    return _CONTAINERS[kind]
