"""Which pixels a data set has: `auto` channels and depth, resolved from the headers of its files."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from draem.config import DataConfig
from draem.errors import DataError, ImageError
from draem.imageheaders import ImageHeader
from draem.images import read_file_header
from draem.pixels import MOST_CHANNELS


def resolve_format(config: DataConfig, paths: Iterable[Path]) -> tuple[DataConfig, list[str]]:
    """The configuration with numbers for `auto` channels and depth, and what a person should know of it, in lines.

    Channels: 1 if all images are grey, the number of a stack's channels if all are such stacks, else 3. Depth: 16 if
    any image has more than 8 bits. Files without a header that can be read have no say; the bank names them.

    Raises:
        DataError: stacks among images with another number of channels.
    """
    if "auto" not in (config.channels, config.depth):
        return config, []
    headers = _headers(paths)
    chosen: dict[str, int] = {}
    said = []
    if config.channels == "auto":
        chosen["channels"] = channels = _common_channels(headers)
        if channels != 3:
            kind = "grey images: a one" if channels == 1 else f"stacks of {channels} channels: a {channels}"
            said.append(f"{kind}-channel network")
    if config.depth == "auto":
        deepest = max((header.bits for header in headers.values()), default=8)
        chosen["depth"] = 16 if deepest > 8 else 8
        if deepest > 8:
            said.append(f"images of {deepest} bits: kept with 16")
    return config.model_copy(update=chosen), said


def _headers(paths: Iterable[Path]) -> dict[Path, ImageHeader]:
    def read(path: Path) -> ImageHeader | None:
        try:
            return read_file_header(path)
        except ImageError:
            return None

    kept = list(paths)
    with ThreadPoolExecutor() as pool:
        found = zip(kept, pool.map(read, kept), strict=True)
        return {path: header for path, header in found if header is not None}


def _common_channels(headers: dict[Path, ImageHeader]) -> int:
    first = {header.samples: path for path, header in reversed(headers.items())}
    if first.keys() <= {1, 3}:
        return 1 if first.keys() == {1} else 3
    most = max(first)
    if most > MOST_CHANNELS:
        raise DataError(f"{first[most]}: has {most} channels, a network takes at most {MOST_CHANNELS}")
    if len(first) > 1:
        raise DataError(
            f"images of {', '.join(str(count) for count in sorted(first))} channels (such as {first[min(first)]} and "
            f"{first[most]}): keep one kind, or set data.channels to leave out the others"
        )
    return most
