"""What a graph takes and gives: an image, and an anomaly map and a reconstruction of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from draem.errors import ModelFileError
from draem.modelfile import Header

IMAGE, MAP, RECONSTRUCTION = "image", "anomaly_map", "reconstruction"


def refuse_other_ports(
    path: Path, header: Header, takes: Mapping[str, Sequence[int | str | None]], gives: Sequence[str]
) -> None:
    """Compare a graph's inputs (shapes by name; what is no number is any size) and outputs with its header.

    Raises:
        ModelFileError: they are other than the header says.
    """
    batch = header.artefact.batch if header.artefact else None
    wanted = (batch, header.channels, *header.config.data.size)
    shape = tuple(side if isinstance(side, int) and side > 0 else None for side in takes.get(IMAGE, ()))
    if len(takes) != 1 or shape != wanted or list(gives) != [MAP, RECONSTRUCTION]:
        told = "×".join("n" if side is None else str(side) for side in wanted)
        raise ModelFileError(f"{path}: its graph does not take {IMAGE} {told} and give {MAP} and {RECONSTRUCTION}")
