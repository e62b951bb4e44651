"""What a runtime's graph takes and gives must be what the model file's header says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from draem.errors import ModelFileError
from draem.modelfile import Header

INPUT, OUTPUTS = "image", ("anomaly_map", "reconstruction")


class Port(NamedTuple):
    """An input or output of a graph: its name, whether it is float32, and its shape; none: any number."""

    name: str
    float32: bool
    shape: tuple[int | None, ...]


def refuse_other_graph(path: Path, header: Header, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
    """Refuse a graph that is none of a network with this header.

    Raises:
        ModelFileError: a name, a type or a shape is another one.
    """
    batch = header.artefact.batch if header.artefact else None
    height, width = header.config.data.size
    images = (batch, header.channels, height, width)
    wanted = [Port(INPUT, True, images), Port(OUTPUTS[0], True, (batch, height, width)), Port(OUTPUTS[1], True, images)]
    found = [*inputs, *outputs]
    if len(inputs) != 1 or found != wanted:
        raise ModelFileError(f"{path}: its graph has {_words(found)}; its header says {_words(wanted)}")


def _words(ports: Sequence[Port]) -> str:
    return ", ".join(_word(port) for port in ports[:3]) or "neither inputs nor outputs"


def _word(port: Port) -> str:
    shape = "×".join("N" if side is None else str(side) for side in port.shape)
    return f"{port.name[:20]} {shape or 'without shape'}{'' if port.float32 else ' not of float32'}"
