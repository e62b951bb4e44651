"""The model file of torch: a header in a safetensors file.

A file is refused with one line when it is damaged, hostile or of another kind. Nothing is unpickled, ever.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from draem.errors import ModelFileError
from draem.files import atomic_write
from draem.modelfile.header import Header, as_written, parse_header
from draem.modelfile.sealed import KEY, LARGEST_FILE, LARGEST_HEADER, SUM, Sealed, file_size, opened
from draem.modelfile.strictjson import parse_json

_LENGTH = struct.Struct("<Q")


def read_header(path: Path) -> Header:
    """The checked header of a model file; the weights stay on the disk.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    with opened(path) as file:
        metadata, index, _ = _index_in(file, path)
    return _parse(path, metadata, index)


def read_model(path: Path) -> Sealed:
    """The checked header and the whole file, with weights that match their sum.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    metadata, index, start, content = _read_whole(path)
    header = _parse(path, metadata, index)
    if hashlib.sha256(memoryview(content)[start:]).hexdigest() != header.sha256:
        raise ModelFileError(f"{path}: the weights do not match their checksum; copy the file again")
    return Sealed(header, content)


def edit_header(path: Path, header: Header) -> None:
    """Give a model file another header; its weights stay as they are, byte by byte, and so does their sum.

    Raises:
        ModelFileError: the file is damaged.
    """
    metadata, index, start, content = _read_whole(path)
    _, text = as_written(header, _parse(path, metadata, index).sha256)
    atomic_write(path, _join(index, {KEY: text, SUM: _sum(index, text)}, memoryview(content)[start:]))


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
    sealed, text = as_written(header, hashlib.sha256(data).hexdigest())
    atomic_write(path, _join(index, {KEY: text, SUM: _sum(index, text)}, data))
    return sealed


def write_record(path: Path, record: Mapping[str, Any], tensors: bytes) -> None:
    """Write safetensors with a JSON record in its metadata, beside and renamed: the form of a checkpoint."""
    index, data = _split(tensors)
    text = json.dumps(dict(record), allow_nan=False)
    atomic_write(path, _join(index, {"record": text, SUM: _sum(index, text, data)}, data))


def read_record(path: Path) -> tuple[dict[str, Any], bytes]:
    """What `write_record` wrote: the record, and the whole file's bytes (safetensors).

    Raises:
        ModelFileError: the file is damaged or of another kind.
    """
    metadata, index, start, content = _read_whole(path)
    text = metadata.get("record", "")
    if _sum(index, text, memoryview(content)[start:]) != metadata.get(SUM):
        raise ModelFileError(f"{path}: damaged: its record and tensors do not match their checksum")
    try:
        record = parse_json(text)
    except ValueError:
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


def _parse(path: Path, metadata: Mapping[str, str], index: Mapping[str, Any]) -> Header:
    if KEY not in metadata:
        raise ModelFileError(
            f"{path}: safetensors, but not a draem model (no header); the published weights come in by import-weights"
        )
    return parse_header(path, metadata[KEY], intact=_sum(index, metadata[KEY]) == metadata.get(SUM))


def _read_whole(path: Path) -> tuple[dict[str, str], dict[str, Any], int, bytes]:
    """Metadata, table, where the data start, and all bytes: of one open file, since another may take its place."""
    with opened(path) as file:
        metadata, index, start = _index_in(file, path)
        file.seek(0)
        return metadata, index, start, file.read(file_size(file))


def _index_in(file: BinaryIO, path: Path) -> tuple[dict[str, str], dict[str, Any], int]:
    """The metadata, the table and where the data start; sizes are checked against the file's."""
    size = file_size(file)
    head = file.read(_LENGTH.size)
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
    if not 2 <= length <= min(size - _LENGTH.size, LARGEST_HEADER):
        raise ModelFileError(f"{path}: not a model file (or cut short)")
    if size > LARGEST_FILE:
        raise ModelFileError(f"{path}: {size} bytes, larger than any model file ({LARGEST_FILE})")
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
        index = parse_json(raw)
    except ValueError:
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
