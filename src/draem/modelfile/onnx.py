"""The model file of ONNX: a header among the model's metadata, read and written without the package onnx.

An ONNX file is one protobuf message (ModelProto). Only its outermost fields are looked at: metadata_props (14), pairs
of key (1) and value (2), are ours to read and write; all else stays byte by byte and is what the sum is taken of.

Source: onnx.proto of ONNX IR; Protocol Buffers' encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from draem.errors import ModelFileError
from draem.files import atomic_path
from draem.modelfile.header import Header, parse_header
from draem.modelfile.sealed import KEY, LARGEST_HEADER, SUM, Sealed, opened, text_sum

_METADATA, _GRAPH = 14, 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    """A field of a message: its number, where its tag starts, where its payload starts and ends."""

    number: int
    start: int
    payload: int
    end: int


def read_header(path: Path) -> Header:
    """The checked header of an ONNX file; its weights are passed over.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    return _parse(path, _read(path))


def read_model(path: Path) -> Sealed:
    """The checked header and the whole file, with weights that match their sum.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    content = _read(path)
    header = _parse(path, content)
    if _weights_sum(path, content) != header.sha256:
        raise ModelFileError(f"{path}: the weights do not match their checksum; copy the file again")
    return Sealed(header, content)


def write_model(path: Path, header: Header, model: bytes) -> Header:
    """Write an ONNX model (with or without a header of ours) with a header, beside and renamed.

    Returns:
        The header as written, with the sum of the model.
    """
    kept = [model[field.start : field.end] for field in _others(path, model)]
    digest = hashlib.sha256()
    for part in kept:
        digest.update(part)
    sealed = header.model_copy(update={"sha256": digest.hexdigest()})
    text = sealed.model_dump_json()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for part in (*kept, _property(KEY, text), _property(SUM, text_sum(text))):
            file.write(part)
    return sealed


def edit_header(path: Path, header: Header) -> None:
    """Give an ONNX file another header; all else stays as it is, byte by byte.

    Raises:
        ModelFileError: the file is damaged.
    """
    write_model(path, header, _read(path))


def _read(path: Path) -> bytes:
    with opened(path) as file:
        return file.read()


def _parse(path: Path, content: bytes) -> Header:
    properties = _properties(path, content)
    if KEY not in properties:
        raise ModelFileError(f"{path}: ONNX, but not a draem model (no header); draem export writes one")
    text = properties[KEY]
    return parse_header(path, text, intact=text_sum(text) == properties.get(SUM))


def _weights_sum(path: Path, content: bytes) -> str:
    digest = hashlib.sha256()
    for field in _others(path, content):
        digest.update(memoryview(content)[field.start : field.end])
    return digest.hexdigest()


def _others(path: Path, content: bytes) -> list[_Field]:
    """The outermost fields that are not our properties."""
    return [
        field
        for field in _fields(path, content, 0, len(content))
        if field.number != _METADATA or _pair(path, content, field)[0] not in (KEY, SUM)
    ]


def _properties(path: Path, content: bytes) -> dict[str, str]:
    fields = list(_fields(path, content, 0, len(content)))
    if not any(field.number == _GRAPH for field in fields):
        raise ModelFileError(f"{path}: not an ONNX model (or cut short)")
    return dict(_pair(path, content, field) for field in fields if field.number == _METADATA)


def _pair(path: Path, content: bytes, field: _Field) -> tuple[str, str]:
    """Key and value of one of the metadata."""
    if field.end - field.payload > LARGEST_HEADER:
        raise ModelFileError(f"{path}: its metadata are larger than any header")
    parts = {1: "", 2: ""}
    for part in _fields(path, content, field.payload, field.end):
        try:
            parts[part.number] = content[part.payload : part.end].decode()
        except UnicodeDecodeError:
            raise ModelFileError(f"{path}: its metadata are damaged") from None
    return parts[1], parts[2]


def _fields(path: Path, content: bytes, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message that lies between two places."""
    place = start
    while place < end:
        tag, payload = _varint(path, content, place, end)
        number, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            length, payload = _varint(path, content, payload, end)
            stop = payload + length
        elif kind == _VARINT:
            _, stop = _varint(path, content, payload, end)
        elif kind in (_FIXED32, _FIXED64):
            stop = payload + (4 if kind == _FIXED32 else 8)
        else:
            stop = end + 1
        if stop > end or number == 0:
            raise ModelFileError(f"{path}: not an ONNX model (or cut short)")
        yield _Field(number, place, payload, stop)
        place = stop


def _varint(path: Path, content: bytes, place: int, end: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ModelFileError(f"{path}: not an ONNX model (or cut short)")


def _property(key: str, value: str) -> bytes:
    pair = b"".join(_bytes_field(number, text.encode()) for number, text in ((1, key), (2, value)))
    return _bytes_field(_METADATA, pair)


def _bytes_field(number: int, payload: bytes) -> bytes:
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(payload)) + payload


def _as_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
