"""Weights in and out: tensors ↔ model file, and the published weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from draem.config import Config, NetworkConfig
from draem.errors import ModelFileError
from draem.modelfile import Header, package_versions
from draem.modelfile.tensors import read_model, write_model
from draem.network.draem import Draem


def save_model(path: Path, state: Mapping[str, Tensor], header: Header) -> Header:
    """Write a model's state (as of `Draem.state_dict`) with its header; returns the header as written."""
    return write_model(path, header, to_bytes(state))


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Tensors of any device and layout as safetensors."""
    return safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in state.items()})


def load_model(path: Path) -> tuple[Draem, Header]:
    """A network in evaluation mode, on the CPU, and its header.

    Raises:
        ModelFileError: the file is damaged, or its weights do not fit its header.
    """
    sealed = read_model(path)
    header = sealed.header
    state = parse_tensors(path, sealed.content)
    network = empty_network(header.config.network, header.channels)
    expected = network.state_dict()
    wrong = _mismatch(state, expected)
    if wrong:
        raise ModelFileError(f"{path}: {wrong}")
    network.load_state_dict(state, assign=True)
    return network.eval(), header


def parse_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """Tensors of safetensors bytes; `path` names them in the error."""
    try:
        return safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: its tensors are damaged ({' '.join(str(error).split())[:80]})") from None


def empty_network(config: NetworkConfig, channels: int = 3) -> Draem:
    """A network whose weights are still to be given: takes no memory and no time to initialise."""
    with torch.device("meta"):
        return Draem(config, channels)


def read_published(reconstructive: Path, discriminative: Path) -> tuple[dict[str, Tensor], NetworkConfig]:
    """The published pair of state dicts (NAME.pckl, NAME_seg.pckl) as a state of `Draem`, turned from BGR to RGB.

    The published networks see BGR pixels. Swapping the channels of their first and last convolutions once makes them
    see RGB, with the same results.

    Raises:
        ModelFileError: a file is missing, is no such pickle, or its names or shapes are not the published ones.
    """
    first, second = _read_pickle(reconstructive), _read_pickle(discriminative)
    encoder, decoder = "encoder.block1.0.weight", "decoder.fin_out.0"
    segment = "encoder_segment.block1.0.weight"
    for state, key, path in ((first, encoder, reconstructive), (second, segment, discriminative)):
        if key not in state or state[key].dim() != 4:
            raise ModelFileError(f"{path}: no tensor {key}; give NAME.pckl first and NAME_seg.pckl second")
    try:
        config = NetworkConfig(
            reconstructive_width=first[encoder].shape[0],
            discriminative_width=second[segment].shape[0],
            aligned_corners=True,
        )
    except ValidationError:
        raise ModelFileError(f"{reconstructive}, {discriminative}: the first layer has no sensible width") from None
    state = {f"reconstructive.{name}": value for name, value in first.items()}
    state |= {f"discriminative.{name}": value for name, value in second.items()}
    wrong = _mismatch(state, empty_network(config).state_dict())
    if wrong:
        raise ModelFileError(f"{reconstructive}, {discriminative}: {wrong}")
    # Only now that every shape is known to be right: a tensor may pretend to any size.
    state = {name: value.detach().clone() for name, value in state.items()}
    swapped = torch.tensor([2, 1, 0])
    for name, dim, order in (
        (f"reconstructive.{encoder}", 1, swapped),
        (f"reconstructive.{decoder}.weight", 0, swapped),
        (f"reconstructive.{decoder}.bias", 0, swapped),
        (f"discriminative.{segment}", 1, torch.cat((swapped, swapped + 3))),
    ):
        state[name] = state[name].index_select(dim, order)
    return state, config


def import_published(reconstructive: Path, discriminative: Path, out: Path) -> Header:
    """Write the published pair as a new model file (preset `official`, no threshold); see `read_published`."""
    if out.suffix != ".safetensors":
        raise ModelFileError(f"{out}: a model file's name ends in .safetensors")
    if out.exists():
        raise ModelFileError(f"{out}: exists already; give another --out, or remove it")
    state, network = read_published(reconstructive, discriminative)
    config = Config.resolve("official").model_copy(update={"network": network})
    origin = f"imported from {reconstructive.name} and {discriminative.name}"
    return save_model(out, state, Header(config=config, origin=origin, versions=package_versions()))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on odd pickles say nothing to a person
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None
    except Exception:  # a damaged pickle makes the unpickler raise nearly anything
        raise ModelFileError(f"{path}: not a state dict of tensors alone; nothing else is unpickled") from None
    if not isinstance(state, dict) or not all(_plain(value) for value in state.values()):
        raise ModelFileError(f"{path}: not a state dict of tensors")
    # Saved from DataParallel, every name has a prefix.
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"


def _mismatch(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The first difference in names, shapes or types, in words; empty if there is none."""
    missing, unknown = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing:
        return f"tensor {min(missing)} is missing"
    if unknown:
        return f"tensor {min(unknown)} is not one of this network"
    for name, value in expected.items():
        if state[name].shape != value.shape:
            return f"tensor {name} has shape {tuple(state[name].shape)}, {tuple(value.shape)} expected"
        if state[name].dtype != value.dtype:
            return f"tensor {name} is {state[name].dtype}, {value.dtype} expected"
    return ""
