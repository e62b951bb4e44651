"""A wider network that answers as a trained one does: each channel several times, with its effect shared out.

Makes a 128/64 network with trained weights within minutes, to measure what deployment does to one; training it further
from there is `draem train --init`.  Source: Chen, Goodfellow, Shlens, "Net2Net", ICLR 2016.

    python benchmarks/widen.py runs/bottle/model.safetensors runs/wide.safetensors --factor 4
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from draem.network.weights import load_model, save_model

_FIRST = ("reconstructive.encoder.block1.0.weight", "discriminative.encoder_segment.block1.0.weight")
_LAST = "fin_out.0."
_NOISE = 0.1
"""Of the shares, so that the copies of a channel learn different things from then on."""


def widen(state: dict[str, Tensor], factor: int, seed: int = 0) -> dict[str, Tensor]:
    """The state of `Draem` with `factor` times the width and the same outputs, but for rounding."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _widened(name, value, factor, generator) for name, value in state.items()}


def _widened(name: str, value: Tensor, factor: int, generator: torch.Generator) -> Tensor:
    if value.dim() == 0:
        return value.clone()
    if _LAST not in name:
        value = value.repeat_interleave(factor, dim=0)
    if value.dim() == 4 and name not in _FIRST:
        shares = 1.0 + _NOISE * torch.randn(value.shape[0], value.shape[1], factor, generator=generator)
        shares /= shares.sum(dim=2, keepdim=True)
        value = (value[:, :, None] * shares[..., None, None]).flatten(1, 2)
    return value.clone()


def main() -> None:
    """Write the wider model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--factor", type=int, default=4)
    given = parser.parse_args()
    network, header = load_model(given.model)
    old = header.config.network
    wide = {
        "reconstructive_width": old.reconstructive_width * given.factor,
        "discriminative_width": old.discriminative_width * given.factor,
    }
    config = header.config.model_copy(update={"network": old.model_copy(update=wide)})
    origin = f"{given.model.name} ({old.reconstructive_width}/{old.discriminative_width}) widened {given.factor} times"
    save_model(
        given.out,
        widen(network.state_dict(), given.factor),
        header.model_copy(update={"config": config, "origin": origin}),
    )
    print(f"model: {given.out}")


if __name__ == "__main__":
    main()
