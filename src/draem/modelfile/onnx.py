"""The model file of ONNX: a header among the model's metadata, read and written without the package onnx.

An ONNX file is one protobuf message (ModelProto). Among its outermost fields are metadata_props (14), pairs of key (1)
and value (2): ours are read and written; all else stays byte by byte and is what the sum is taken of. What lies deeper
is only searched for what would make a runtime open other files.

Source: onnx.proto of ONNX IR.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from draem.errors import ModelFileError
from draem.files import atomic_path
from draem.modelfile.header import Header, as_written, parse_header
from draem.modelfile.protobuf import BYTES, VARINT, Field, encode, fields
from draem.modelfile.sealed import KEY, LARGEST_HEADER, SUM, Sealed, read_bytes, text_sum

_METADATA, _GRAPH = 14, 7
_LARGEST = 2**31
"""Bytes: no protobuf message is larger."""
_MOST_OUTERMOST, _MOST_FIELDS = 10_000, 200_000
"""Fields: our networks have about ten, and ten thousand in all."""
_DEEPEST = 32

_INNER: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Messages that may hold a tensor or a node, by the numbers of their fields."""
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_OPERATION = 4


def read_header(path: Path) -> Header:
    """The checked header of an ONNX file; its weights are passed over.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    return _parse(path, read_bytes(path, _LARGEST))[0]


def read_model(path: Path) -> Sealed:
    """The checked header and the whole file, with weights that match their sum and lie in no other file.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    content = read_bytes(path, _LARGEST)
    header, others = _parse(path, content)
    if _sum(content, others) != header.sha256:
        raise ModelFileError(f"{path}: the weights do not match their checksum; copy the file again")
    try:
        _refuse_other_files(content)
    except ValueError as error:
        raise ModelFileError(f"{path}: {error}") from None
    return Sealed(header, content)


def write_model(path: Path, header: Header, model: bytes) -> Header:
    """Write an ONNX model (with or without a header of ours) with a header, beside and renamed.

    Returns:
        The header as written, with the sum of the model.
    """
    others, _ = _split(path, model)
    sealed, text = as_written(header, _sum(model, others))
    _write(path, model, others, text)
    return sealed


def edit_header(path: Path, header: Header) -> None:
    """Give an ONNX file another header; all else stays as it is, byte by byte, and so does its sum.

    Raises:
        ModelFileError: the file is damaged.
    """
    content = read_bytes(path, _LARGEST)
    former, others = _parse(path, content)
    _write(path, content, others, as_written(header, former.sha256)[1])


def _write(path: Path, content: bytes, others: list[Field], text: str) -> None:
    ours = (encode(_METADATA, encode(1, key) + encode(2, value)) for key, value in _entries(text))
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for field in others:
            file.write(memoryview(content)[field.start : field.end])
        for part in ours:
            file.write(part)


def _entries(text: str) -> list[tuple[bytes, bytes]]:
    return [(KEY.encode(), text.encode()), (SUM.encode(), text_sum(text).encode())]


def _parse(path: Path, content: bytes) -> tuple[Header, list[Field]]:
    """The header, and the outermost fields that are not ours."""
    others, ours = _split(path, content)
    if KEY not in ours:
        raise ModelFileError(f"{path}: ONNX, but not a draem model (no header); draem export writes one")
    text = ours[KEY]
    return parse_header(path, text, intact=text_sum(text) == ours.get(SUM)), others


def _sum(content: bytes, others: list[Field]) -> str:
    digest = hashlib.sha256()
    for field in others:
        digest.update(memoryview(content)[field.start : field.end])
    return digest.hexdigest()


def _split(path: Path, content: bytes) -> tuple[list[Field], dict[str, str]]:
    """The outermost fields but for our two among the metadata, and these."""
    others: list[Field] = []
    ours: dict[str, str] = {}
    try:
        for field in fields(content, 0, len(content)):
            key, value = _pair(content, field) if field.number == _METADATA else ("", b"")
            if key not in (KEY, SUM):
                others.append(field)
            elif key in ours:
                raise ModelFileError(f"{path}: several headers; draem export writes one")
            else:
                ours[key] = value.decode()
            if len(others) > _MOST_OUTERMOST:
                raise ValueError
    except ValueError:
        raise ModelFileError(f"{path}: not an ONNX model (or cut short)") from None
    if not any(field.number == _GRAPH for field in others):
        raise ModelFileError(f"{path}: not an ONNX model (or cut short)")
    return others, ours


def _pair(content: bytes, field: Field) -> tuple[str, bytes]:
    """Key and value of one of the metadata."""
    if field.kind != BYTES or field.end - field.payload > LARGEST_HEADER:
        raise ValueError("no pair")
    parts = {1: b"", 2: b""}
    for part in fields(content, field.payload, field.end):
        if part.kind == BYTES:
            parts[part.number] = content[part.payload : part.end]
    return parts[1].decode(), parts[2]


def _refuse_other_files(content: bytes) -> None:
    """ValueError where a runtime would open another file for a tensor or a node: nothing of ours lies outside."""
    waiting = [("model", 0, len(content), 0)]
    seen = 0
    while waiting:
        message, start, end, depth = waiting.pop()
        for field in fields(content, start, end):
            seen += 1
            if seen > _MOST_FIELDS or depth > _DEEPEST:
                raise ValueError("larger or deeper than any network of draem")
            if message == "tensor" and _is_external(field):
                raise ValueError("some of its weights lie in another file; draem export keeps all in one")
            if message == "node" and field.number == _OPERATION and content[field.payload : field.end] == b"EPContext":
                raise ValueError("it names a compiled model in another file; draem export keeps all in one")
            inner = _INNER[message].get(field.number)
            if inner and field.kind == BYTES:
                waiting.append((inner, field.payload, field.end, depth + 1))


def _is_external(field: Field) -> bool:
    location = field.number == _DATA_LOCATION and (field.kind != VARINT or field.value != 0)
    return location or field.number == _EXTERNAL_DATA
