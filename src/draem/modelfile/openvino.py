"""The model file of OpenVINO: a pair NAME.xml and NAME.bin, with the header in the .xml's rt_info.

There any OpenVINO program reads it: `model.get_rt_info<std::string>("draem", "header")`. The sum is that of the .xml
without our entries, then the .bin; so either file of another model is noticed. Editing the header writes the .xml
alone: the .bin, which a running program may have mapped, is never touched.
"""

from __future__ import annotations

import hashlib
import re
from html import escape, unescape
from pathlib import Path

from draem.errors import ModelFileError
from draem.files import atomic_write
from draem.modelfile.header import Header, parse_header
from draem.modelfile.sealed import KEY, LARGEST_HEADER, SUM, Sealed, opened, text_sum

_OURS = re.compile(
    rb"\s*<" + KEY.encode() + rb'>\s*<header value="([^"<]*)" ?/>\s*<' + SUM.encode() + rb' value="([0-9a-f]{64})" ?/>'
    rb"\s*</" + KEY.encode() + rb">"
)
_END = re.compile(rb"(\s*</rt_info>)?\s*</net>\s*\Z")


def weights_file(path: Path) -> Path:
    """The .bin beside an .xml."""
    return path.with_suffix(".bin")


def read_header(path: Path) -> Header:
    """The checked header of an OpenVINO IR; its weights stay on the disk.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    return _parse(path, _read(path))


def read_model(path: Path) -> Sealed:
    """The checked header and both files, which match the header's sum.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    content = _read(path)
    header = _parse(path, content)
    weights = _read(weights_file(path))
    if _sum(content, weights) != header.sha256:
        raise ModelFileError(
            f"{path}: it and {weights_file(path).name} are not the pair that was exported (or damaged); copy both again"
        )
    return Sealed(header, content, weights)


def write_model(path: Path, header: Header, xml: bytes, weights: bytes) -> Header:
    """Write an IR (with or without a header of ours) with a header: first the .bin, then the .xml, each renamed.

    Returns:
        The header as written, with the sum of the pair.
    """
    sealed = header.model_copy(update={"sha256": _sum(xml, weights)})
    atomic_write(weights_file(path), weights)
    atomic_write(path, _with_header(xml, sealed))
    return sealed


def edit_header(path: Path, header: Header) -> None:
    """Give an IR another header: the .xml is written anew, the .bin stays.

    Raises:
        ModelFileError: the file cannot be read.
    """
    atomic_write(path, _with_header(_read(path), header))


def _read(path: Path) -> bytes:
    with opened(path) as file:
        return file.read()


def _parse(path: Path, content: bytes) -> Header:
    found = _OURS.findall(content)
    if len(found) != 1:
        what = "no header" if not found else "several headers"
        raise ModelFileError(f"{path}: not a draem model in OpenVINO IR ({what}); draem export writes one")
    value, seal = found[0]
    if len(value) > LARGEST_HEADER:
        raise ModelFileError(f"{path}: its header is larger than any")
    try:
        text = unescape(value.decode())
    except UnicodeDecodeError:
        raise ModelFileError(f"{path}: its header is damaged") from None
    return parse_header(path, text, intact=text_sum(text) == seal.decode())


def _sum(xml: bytes, weights: bytes) -> str:
    digest = hashlib.sha256(_bare(xml))
    digest.update(weights)
    return digest.hexdigest()


def _bare(xml: bytes) -> bytes:
    """The .xml without our entries."""
    return _OURS.sub(b"", xml)


def _with_header(xml: bytes, header: Header) -> bytes:
    text = header.model_dump_json()
    entries = (
        f'\n\t\t<{KEY}>\n\t\t\t<header value="{escape(text)}" />\n\t\t\t<{SUM} value="{text_sum(text)}" />'
        f"\n\t\t</{KEY}>"
    ).encode()
    bare = _bare(xml)
    end = _END.search(bare)
    if end is None:
        raise ValueError("not an OpenVINO IR: it does not end in </net>")
    if end[1]:
        return bare[: end.start()] + entries + bare[end.start() :]
    return bare[: end.start()] + b"\n\t<rt_info>" + entries + b"\n\t</rt_info>" + bare[end.start() :]
