"""The model file of OpenVINO: a pair NAME.xml and NAME.bin, with the header in the .xml's rt_info.

There any OpenVINO program reads it: `model.get_rt_info<std::string>("draem", "header")`. The sum is that of the .xml
without our entries, then the .bin; so either file of another model is noticed. Editing the header writes the .xml
alone: the .bin, which a running program may have mapped, is never touched. No XML parser sees the file here.
"""

from __future__ import annotations

import hashlib
import re
from html import escape, unescape
from pathlib import Path
from typing import NamedTuple

from draem.errors import ModelFileError
from draem.files import atomic_write
from draem.modelfile.header import Header, as_written, parse_header
from draem.modelfile.sealed import KEY, LARGEST_HEADER, SUM, Sealed, read_bytes, text_sum

_LARGEST_XML = 2**26
_START, _STOP = f"<{KEY}>".encode(), f"</{KEY}>".encode()
_ENTRIES = re.compile(
    rb'\s{,16}<header value="([^"<]*)" ?/>\s{,16}<' + SUM.encode() + rb' value="([0-9a-f]{64})" ?/>\s{,16}'
)
_NET, _RT_INFO = b"</net>", b"</rt_info>"


class _Parts(NamedTuple):
    """An .xml: what stands before and behind our entries, and these, each empty where there are none."""

    before: bytes
    value: bytes
    seal: bytes
    behind: bytes

    @property
    def bare(self) -> bytes:
        return self.before + self.behind


def weights_file(path: Path) -> Path:
    """The .bin beside an .xml."""
    return path.with_suffix(".bin")


def read_header(path: Path) -> Header:
    """The checked header of an OpenVINO IR; its weights stay on the disk.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    return _parse(path, _split(path, read_bytes(path, _LARGEST_XML)))


def read_model(path: Path) -> Sealed:
    """The checked header and both files, which match the header's sum.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    content = read_bytes(path, _LARGEST_XML)
    parts = _split(path, content)
    header = _parse(path, parts)
    binary = weights_file(path)
    if not binary.exists():
        raise ModelFileError(f"{path}: {binary.name} is not beside it, which holds its weights; copy both")
    weights = read_bytes(binary)
    if _sum(parts.bare, weights) != header.sha256:
        raise ModelFileError(
            f"{path}: it and {binary.name} are not the pair that was exported (or damaged); copy both again"
        )
    return Sealed(header, content, weights)


def write_model(path: Path, header: Header, xml: bytes, weights: bytes) -> Header:
    """Write an IR (with or without a header of ours) with a header: first the .bin, then the .xml, each renamed.

    Returns:
        The header as written, with the sum of the pair.
    """
    parts = _split(path, xml)
    sealed, text = as_written(header, _sum(parts.bare, weights))
    atomic_write(weights_file(path), weights)
    atomic_write(path, _joined(parts, text))
    return sealed


def edit_header(path: Path, header: Header) -> None:
    """Give an IR another header: the .xml is written anew, the .bin stays, and so does the sum of both.

    Raises:
        ModelFileError: the file is damaged.
    """
    parts = _split(path, read_bytes(path, _LARGEST_XML))
    atomic_write(path, _joined(parts, as_written(header, _parse(path, parts).sha256)[1]))


def _parse(path: Path, parts: _Parts) -> Header:
    if not parts.seal:
        raise ModelFileError(f"{path}: OpenVINO IR, but not a draem model (no header); draem export writes one")
    if len(parts.value) > LARGEST_HEADER:
        raise ModelFileError(f"{path}: its header is larger than any")
    try:
        text = unescape(parts.value.decode())
    except UnicodeDecodeError:
        raise ModelFileError(f"{path}: its header is damaged") from None
    return parse_header(path, text, intact=text_sum(text) == parts.seal.decode())


def _sum(bare: bytes, weights: bytes) -> str:
    digest = hashlib.sha256(bare)
    digest.update(weights)
    return digest.hexdigest()


def _split(path: Path, xml: bytes) -> _Parts:
    """The parts of an .xml; one that has no entries of ours is parted where they belong."""
    end = xml.rstrip()
    if not xml.startswith((b"<?xml ", b"<net ")) or not end.endswith(_NET):
        raise ModelFileError(f"{path}: not an OpenVINO IR (or cut short)")
    if b"<!" in xml:
        raise ModelFileError(f"{path}: an XML file with a DOCTYPE or comments, which no OpenVINO IR has")
    if xml.count(_START) > 1:
        raise ModelFileError(f"{path}: several headers; draem export writes one")
    start = xml.find(_START)
    if start < 0:
        return _without_header(xml, end)
    found = _ENTRIES.match(xml, start + len(_START))
    if found is None or not xml.startswith(_STOP, found.end()):
        raise ModelFileError(f"{path}: its header is damaged; copy the file again")
    return _Parts(xml[:start].rstrip(), found[1], found[2], xml[found.end() + len(_STOP) :])


def _without_header(xml: bytes, end: bytes) -> _Parts:
    inner = end.removesuffix(_NET).rstrip()
    if inner.endswith(_RT_INFO):
        before = inner.removesuffix(_RT_INFO).rstrip()
        return _Parts(before, b"", b"", xml[len(before) :])
    return _Parts(inner + b"\n\t<rt_info>", b"", b"", b"\n\t</rt_info>" + xml[len(inner) :])


def _joined(parts: _Parts, text: str) -> bytes:
    entries = (
        f'\n\t\t<{KEY}>\n\t\t\t<header value="{escape(text)}" />\n\t\t\t<{SUM} value="{text_sum(text)}" />'
        f"\n\t\t</{KEY}>"
    )
    return parts.before + entries.encode() + parts.behind
