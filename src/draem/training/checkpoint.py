"""The state of a run, written so that a killed run goes on where it was, bit for bit.

One safetensors file with a JSON record, written beside and renamed: at every moment there is a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from draem.errors import ModelFileError
from draem.modelfile.tensors import read_record, write_record
from draem.network.weights import parse_tensors, to_bytes

_MODEL, _AVERAGE, _OPTIMIZER = "model.", "average.", "optimizer."


class RunState:
    """What changes while training: weights, their moving average, the optimiser's moments, and a small record."""

    def __init__(self, network: nn.Module, average: nn.Module | None, optimizer: Optimizer) -> None:
        self.network = network
        self.average = average
        self.optimizer = optimizer

    def save(self, path: Path, record: Mapping[str, Any]) -> None:
        """Write everything to `path`; what was there before stays whole until the new file is."""
        tensors = {_MODEL + name: value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {_AVERAGE + name: value for name, value in self.average.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            for name, value in moments.items():
                tensors[f"{_OPTIMIZER}{index}.{name}"] = torch.as_tensor(value)
        write_record(path, record, to_bytes(tensors))

    def load(self, path: Path) -> dict[str, Any]:
        """Take everything from `path`; returns the record.

        Raises:
            ModelFileError: the file is damaged, or is the state of another network.
        """
        record, content = read_record(path)
        tensors = parse_tensors(path, content)
        try:
            self.network.load_state_dict(_under(tensors, _MODEL))
            if self.average is not None:
                self.average.load_state_dict(_under(tensors, _AVERAGE))
            self._load_optimizer(_under(tensors, _OPTIMIZER))
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            reason = " ".join(str(error).split())[:120]
            raise ModelFileError(f"{path}: not a state of this network and optimiser ({reason})") from None
        return record

    def finite(self) -> bool:
        """Whether every weight is a number; waits for the device."""
        floats = [value for value in self.network.state_dict().values() if value.is_floating_point()]
        return bool(torch.stack([value.sum() for value in floats]).isfinite().all())

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, _, name = key.partition(".")
            parameter = parameters[int(index)]
            if value.shape == parameter.shape:
                # The memory format decides how sums run: it must be the parameter's own.
                value = torch.empty_like(parameter, requires_grad=False).copy_(value)
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def save_weights(path: Path, network: nn.Module, record: Mapping[str, Any]) -> None:
    """Write a network's state with a record of where it comes from."""
    write_record(path, record, to_bytes(network.state_dict()))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_weights` wrote: the state and the record.

    Raises:
        ModelFileError: the file is damaged.
    """
    record, content = read_record(path)
    return parse_tensors(path, content), record
