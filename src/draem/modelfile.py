"""The header that every model file carries, in safetensors files: without torch.

A file is refused with one line when it is damaged, hostile or of another kind. Nothing is unpickled, ever.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from draem.config import Config
from draem.errors import ModelFileError
from draem.files import atomic_write

FORMAT_VERSION = 1
_KEY, _SUM = "draem", "sha256"
_LENGTH = struct.Struct("<Q")
_LARGEST_HEADER = 64 * 2**20


class Thresholds(BaseModel):
    """Where an image score becomes a verdict, and what that was chosen on."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    reject: float
    """Scores above are rejected."""
    review: float | None = None
    """Scores above, up to `reject`, go to a person; none: no such zone."""
    chosen_on: str
    """In words: which images, how many, by which rule."""


class DataRecord(BaseModel):
    """Which data made the model: the fingerprint is that of all samples, the counts those of the good images."""

    model_config = ConfigDict(extra="forbid")

    name: str
    fingerprint: str
    train: int
    select: int
    calibrate: int


class TrainingRecord(BaseModel):
    """How the weights came about."""

    model_config = ConfigDict(extra="forbid")

    images_seen: int
    steps: int
    step_kept: int
    seconds: float
    device: str
    precision: str
    validation: dict[str, float | None] = {}


class Header(BaseModel):
    """All that inspection needs to know beside the weights."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["draem-model"] = "draem-model"
    format_version: int = FORMAT_VERSION
    config: Config
    channels: int = 3
    colour_order: Literal["RGB", "grey", "stack"] = "RGB"
    value_range: tuple[Literal[0], Literal[1]] = (0, 1)
    """Of what the network takes; those of files are `config.data.value_range`."""
    region: None = None
    """Region of interest: the whole image. A file that states another one is refused, since it would not be heeded."""
    thresholds: Thresholds | None = None
    data: DataRecord | None = None
    training: TrainingRecord | None = None
    origin: str = "trained"
    """trained, or what the weights were imported from."""
    versions: dict[str, str] = {}
    sha256: str = ""
    """Of the weights' bytes, as they stand in the file."""

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        wanted = self.config.data.pixel_format.channels
        if (self.channels, self.colour_order) != (wanted, colour_order(wanted)):
            raise ValueError(
                f"channels {self.channels} ({self.colour_order}), but its data.channels say {wanted} "
                f"({colour_order(wanted)})"
            )
        return self


def colour_order(channels: int) -> Literal["RGB", "grey", "stack"]:
    """What a number of channels means."""
    return "RGB" if channels == 3 else "grey" if channels == 1 else "stack"


def package_versions() -> dict[str, str]:
    """What made a model: versions of Python and of the packages that decide its numbers."""
    packages = ("draem", "torch", "numpy", "opencv-python-headless", "lightning-fabric")
    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


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
        raise ModelFileError(f"{path}: no such file; training writes RUN/model.safetensors")


def read_header(path: Path) -> Header:
    """The checked header of a model file; the weights stay on the disk.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    refuse_no_file(path)
    with _open(path) as file:
        metadata, index, _ = _index_in(file, path)
    return _parse_header(path, metadata, index)


def read_model(path: Path) -> tuple[Header, bytes]:
    """The checked header, and the whole file's bytes (safetensors) with weights that match their sum.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    metadata, index, start, content = _read_whole(path)
    header = _parse_header(path, metadata, index)
    if hashlib.sha256(memoryview(content)[start:]).hexdigest() != header.sha256:
        raise ModelFileError(f"{path}: the weights do not match their checksum; copy the file again")
    return header, content


def write_model(path: Path, header: Header, tensors: bytes) -> Header:
    """Write a model file, beside and renamed.

    Args:
        path: where to.
        header: its `sha256` is set here.
        tensors: the weights as safetensors without metadata.

    Returns:
        The header as written.
    """
    index, data = _split(tensors)
    sealed = header.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    text = sealed.model_dump_json()
    atomic_write(path, _join(index, {_KEY: text, _SUM: _sum(index, text)}, data))
    return sealed


def write_record(path: Path, record: Mapping[str, Any], tensors: bytes) -> None:
    """Write safetensors with a JSON record in its metadata, beside and renamed: the form of a checkpoint."""
    index, data = _split(tensors)
    text = json.dumps(dict(record), allow_nan=False)
    atomic_write(path, _join(index, {"record": text, _SUM: _sum(index, text, data)}, data))


def read_record(path: Path) -> tuple[dict[str, Any], bytes]:
    """What `write_record` wrote: the record, and the whole file's bytes (safetensors).

    Raises:
        ModelFileError: the file is damaged or of another kind.
    """
    metadata, index, start, content = _read_whole(path)
    text = metadata.get("record", "")
    if _sum(index, text, memoryview(content)[start:]) != metadata.get(_SUM):
        raise ModelFileError(f"{path}: damaged: its record and tensors do not match their checksum")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelFileError(f"{path}: it holds no record") from None
    if not isinstance(record, dict):
        raise ModelFileError(f"{path}: its record is not a mapping")
    return record, content


def _sum(index: Mapping[str, Any], text: str, data: memoryview | bytes = b"") -> str:
    """SHA-256 of the tensors' names and types, of a text, and of the tensors.

    A model's sum leaves the tensors out: they have their own in the header, which can then be read and changed alone.
    """
    digest = hashlib.sha256(json.dumps(dict(index), sort_keys=True).encode())
    digest.update(text.encode("utf-8", "surrogatepass"))
    digest.update(data)
    return digest.hexdigest()


def _parse_header(path: Path, metadata: Mapping[str, str], index: Mapping[str, Any]) -> Header:
    if _KEY not in metadata:
        raise ModelFileError(
            f"{path}: safetensors, but not a draem model (no header); the published weights come in by import-weights"
        )
    try:
        values = json.loads(metadata[_KEY])
    except (ValueError, RecursionError):
        raise ModelFileError(f"{path}: its header is not JSON") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: header version {str(version)[:20]}, this draem reads up to {FORMAT_VERSION}; update draem"
        )
    if _sum(index, metadata[_KEY]) != metadata.get(_SUM):
        raise ModelFileError(f"{path}: its header does not match its checksum; copy the file again")
    try:
        # From the text once more: pydantic's reader refuses what is JSON to Python but not Unicode.
        return Header.model_validate_json(metadata[_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelFileError(f"{path}: its header is wrong at {place[:80]!r} ({first['msg']})") from None


def _read_whole(path: Path) -> tuple[dict[str, str], dict[str, Any], int, bytes]:
    """Metadata, table, where the data start, and all bytes: of one open file, since another may take its place."""
    with _open(path) as file:
        metadata, index, start = _index_in(file, path)
        file.seek(0)
        return metadata, index, start, file.read()


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ModelFileError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _index_in(file: BinaryIO, path: Path) -> tuple[dict[str, str], dict[str, Any], int]:
    """The metadata, the table and where the data start; sizes are checked against the file's."""
    size = os.fstat(file.fileno()).st_size
    head = file.read(_LENGTH.size)
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
    if not 2 <= length <= min(size - _LENGTH.size, _LARGEST_HEADER):
        raise ModelFileError(f"{path}: not a model file (or cut short)")
    raw = file.read(length)
    start = _LENGTH.size + length
    index = _parse_index(path, raw)
    metadata = index.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFileError(f"{path}: its metadata are damaged")
    try:
        end = max((int(entry["data_offsets"][1]) for entry in index.values()), default=0)
    except (TypeError, KeyError, IndexError, ValueError, OverflowError):
        raise ModelFileError(f"{path}: its table of tensors is damaged") from None
    if start + end != size:
        raise ModelFileError(f"{path}: {size} bytes, {start + end} expected: cut short or damaged; copy it again")
    return metadata, index, start


def _parse_index(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        index = json.loads(raw)
    except (ValueError, RecursionError):
        raise ModelFileError(f"{path}: not a model file") from None
    if not isinstance(index, dict):
        raise ModelFileError(f"{path}: not a model file")
    return index


def _split(tensors: bytes) -> tuple[dict[str, Any], memoryview]:
    """The table and the data of safetensors bytes that we made ourselves, or checked."""
    (length,) = _LENGTH.unpack_from(tensors)
    start = _LENGTH.size + length
    index = json.loads(tensors[_LENGTH.size : start])
    index.pop("__metadata__", None)
    return index, memoryview(tensors)[start:]


def _join(index: Mapping[str, Any], metadata: Mapping[str, str], data: memoryview) -> bytes:
    raw = json.dumps({"__metadata__": dict(metadata), **index}, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # the format aligns its data
    return b"".join((_LENGTH.pack(len(raw)), raw, data))
