"""Model files taken apart and put together again: what is wrong in them is then found by what it says."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from draem.errors import ModelFileError
from draem.inspection.detector import Detector
from draem.network.weights import load_model

Edit = Callable[[dict[str, Any]], None]


def parts_of(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    index: dict[str, Any] = json.loads(content[8 : 8 + length])
    return index, content[8 + length :]


def join_parts(path: Path, index: Any, data: bytes) -> Path:
    raw = index if isinstance(index, bytes) else json.dumps(index).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def with_header(model: Path, to: Path, edit: Edit) -> Path:
    """A copy of a model with its header changed, all else whole."""
    index, data = parts_of(model)
    header = json.loads(index["__metadata__"]["draem"])
    edit(header)
    index["__metadata__"]["draem"] = json.dumps(header)
    return join_parts(to, sealed(index), data)


def sealed(index: dict[str, Any]) -> dict[str, Any]:
    """The table with a sum of the header that fits: what is wrong is then found by what it says."""
    table = {name: entry for name, entry in index.items() if name != "__metadata__"}
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode())
    digest.update(index["__metadata__"]["draem"].encode("utf-8", "surrogatepass"))
    index["__metadata__"]["sha256"] = digest.hexdigest()
    return index


def setting(dotted: str, value: Any) -> Edit:
    def edit(header: dict[str, Any]) -> None:
        *parents, last = dotted.split(".")
        place = header
        for parent in parents:
            place = place[parent]
        place[last] = value

    return edit


def refuse_load(path: Path, *says: str) -> str:
    texts = []
    for read in (load_model, lambda path: Detector.load(path, "cpu")):
        with pytest.raises(ModelFileError) as caught:
            read(path)
        texts.append(str(caught.value))
    text = texts[0]
    assert "\n" not in text
    assert len(text) < len(str(path)) + 300
    assert text.startswith(str(path))
    for part in says:
        assert part in text
    return text
