"""Weights in and out: model files, and the published pairs of pickles, whole, damaged and hostile."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from draem.config import Config, NetworkConfig
from draem.errors import DraemError, ModelFileError
from draem.files import atomic_write
from draem.inspection.detector import Detector
from draem.modelfile import Header
from draem.network.draem import Draem
from draem.network.weights import import_published, load_model, read_published, save_model
from test_network import plain_forward
from tiny import lively_, write_tiny_model

State = dict[str, Tensor]
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def states() -> tuple[State, State]:
    """Two published state dicts of small widths: what networks that see BGR were trained to."""
    network = Draem(NetworkConfig(reconstructive_width=3, discriminative_width=2, aligned_corners=True))
    lively_(network, seed=5)
    return dict(network.reconstructive.state_dict()), dict(network.discriminative.state_dict())


@pytest.fixture
def pair(states: tuple[State, State], tmp_path: Path) -> Pair:
    """The pair as it is published: torch.save of the state dicts alone."""
    paths = tmp_path / "bottle.pckl", tmp_path / "bottle_seg.pckl"
    for state, path in zip(states, paths, strict=True):
        torch.save(state, path)
    return paths


def _refused(first: Path, second: Path, *says: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        read_published(first, second)
    text = str(caught.value)
    assert "\n" not in text
    assert str(first) in text or str(second) in text
    for part in says:
        assert part in text


# --------------------------------------------------------------------------------------------------------- model files


def test_round_trip_of_the_weights(tmp_path: Path) -> None:
    config = Config.resolve("fast", None, {"network.reconstructive_width": 3, "network.discriminative_width": 2})
    network = Draem(config.network).train()
    lively_(network)
    network(torch.rand(2, 3, 32, 32))  # moves the running statistics and their count
    path = tmp_path / "model.safetensors"
    save_model(path, network.channels_last().state_dict(), Header(config=config))
    loaded, header = load_model(path)
    assert not loaded.training
    assert header.config == config
    expected = network.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, value in loaded.state_dict().items():
        assert value.dtype == expected[name].dtype
        assert torch.equal(value, expected[name]), name
    images = torch.rand(1, 3, 40, 33)
    with torch.no_grad():
        for one, other in zip(loaded(images), network.eval()(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    save_model(tmp_path / "again.safetensors", loaded.state_dict(), header)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_loaded_network_can_be_trained(tiny_model: Path) -> None:
    network, _ = load_model(tiny_model)
    reconstruction, logits = network.train()(torch.rand(2, 3, 32, 32))
    (reconstruction.mean() + logits.mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_weights_that_are_not_numbers_do_not_accept_every_part(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "model.safetensors")
    network, header = load_model(path)
    with torch.no_grad():
        next(network.parameters())[0] = torch.nan
    save_model(path, network.state_dict(), header)
    with pytest.raises(ModelFileError, match="not numbers"):
        Detector.load(path, "cpu").predict(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy())


# ----------------------------------------------------------------------------------------------------------- published


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_an_imported_pair_sees_rgb_as_it_saw_bgr(
    states: tuple[State, State], pair: Pair, size: tuple[int, int], tmp_path: Path
) -> None:
    header = import_published(*pair, tmp_path / "model.safetensors")
    network, again = load_model(tmp_path / "model.safetensors")
    assert again == header
    assert header.origin == "imported from bottle.pckl and bottle_seg.pckl"
    assert header.thresholds is None
    assert header.config.preset == "official"
    rgb = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        reconstruction, logits = network.double()(rgb.double())
        first, second = ({name: value.double() for name, value in state.items()} for state in states)
        expected = plain_forward(first, second, rgb.flip(1).double(), aligned=True)
    torch.testing.assert_close(reconstruction, expected[0].flip(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits.softmax(1), expected[1].softmax(1), rtol=0, atol=1e-6)
    # Without the permutation the results would be others: the comparison means something.
    assert float((reconstruction - expected[0]).abs().max()) > 1e-2


@pytest.mark.parametrize("form", ["legacy", "parallel", "parameters", "views"])
def test_other_ways_of_saving_the_same(states: tuple[State, State], pair: Pair, tmp_path: Path, form: str) -> None:
    expected, _ = read_published(*pair)
    first: Any = dict(states[0])
    if form == "parallel":
        first = {f"module.{name}": value for name, value in first.items()}
    elif form == "parameters":
        first = {n: torch.nn.Parameter(v) if v.is_floating_point() else v for n, v in first.items()}
    elif form == "views":
        first = {n: torch.stack([v, v])[1] for n, v in first.items()}
    path = tmp_path / "other.pckl"
    torch.save(first, path, _use_new_zipfile_serialization=form != "legacy")
    found, config = read_published(path, pair[1])
    assert (config.reconstructive_width, config.discriminative_width, config.aligned_corners) == (3, 2, True)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any(value.requires_grad for value in found.values())


def test_reading_leaves_the_files_alone(pair: Pair) -> None:
    before = [path.read_bytes() for path in pair]
    read_published(*pair)
    assert [path.read_bytes() for path in pair] == before


def test_weights_of_another_fold(states: tuple[State, State], pair: Pair, tmp_path: Path) -> None:
    """Named in one line: the published networks have none, and a header says which its weights have."""
    first = dict(states[0])
    name = "encoder.block1.0.weight"
    first[name] = first[name].repeat(1, 4, 1, 1)
    torch.save(first, pair[0])
    _refused(*pair, name, "shape", "expected")
    network, header = load_model(write_tiny_model(tmp_path / "one.safetensors"))
    config = header.config.override(None, {"network.fold": 2})
    path = tmp_path / "other.safetensors"
    save_model(path, network.state_dict(), header.model_copy(update={"config": config}))
    with pytest.raises(ModelFileError, match=r"has shape \(4, 3, 3, 3\), \(4, 12, 3, 3\) expected"):
        load_model(path)


def test_swapped_doubled_or_missing_files(pair: Pair, tmp_path: Path) -> None:
    first, second = pair
    _refused(second, first, "NAME.pckl first")
    _refused(first, first, "NAME_seg.pckl second")
    _refused(tmp_path / "none", second, "cannot be read")
    _refused(first, tmp_path, "cannot be read")


class _Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("where", ["alone", "value", "key", "torch"])
def test_code_in_a_pickle_does_not_run(states: tuple[State, State], pair: Pair, where: str, protocol: int) -> None:
    first, second = pair
    mark = first.parent / "it-ran"
    hostile = _Hostile(mark)
    content: Any = {
        "alone": hostile,
        "value": states[0] | {"encoder.block1.0.weight": hostile},
        "key": {hostile: 1},
        "torch": states[0] | {"encoder.block1.0.bias": hostile},
    }[where]
    if where == "torch":
        torch.save(content, first, pickle_protocol=protocol)
    else:
        first.write_bytes(pickle.dumps(content, protocol))
    _refused(first, second, "nothing else is unpickled")
    assert not mark.exists()
    pickle.loads(pickle.dumps(hostile))
    assert mark.exists(), "it would have run"


_WEIGHT, _BIAS = "encoder.block1.0.weight", "encoder.block1.0.bias"
CHANGES: dict[str, Callable[[State], Any]] = {
    "module": lambda state: torch.nn.Linear(1, 1),
    "list": lambda state: list(state.values()),
    "none": lambda state: None,
    "empty": lambda state: {},
    "wrapped": lambda state: {"state_dict": state},
    "numbers as names": lambda state: {1: torch.zeros(1)},
    "a tensor too few": lambda state: {n: v for n, v in state.items() if n != _BIAS},
    "a tensor too many": lambda state: state | {"x": torch.zeros(1)},
    "half": lambda state: {n: v.half() if v.is_floating_point() else v for n, v in state.items()},
    "shape": lambda state: state | {_BIAS: torch.zeros(4)},
    "four channels": lambda state: state | {_WEIGHT: torch.zeros(3, 4, 3, 3)},
    "no width": lambda state: state | {_WEIGHT: torch.zeros(0, 3, 3, 3)},
    "a width of a billion": lambda state: state | {_WEIGHT: torch.zeros(1).expand(10**9, 3, 3, 3)},
    "a billion numbers": lambda state: state | {_BIAS: torch.zeros(1).expand(10**12)},
    "sparse": lambda state: state | {_WEIGHT: torch.zeros(3, 3, 3, 3).to_sparse()},
    "nowhere": lambda state: state | {_WEIGHT: torch.zeros(3, 3, 3, 3, device="meta")},
    "flat": lambda state: state | {_WEIGHT: torch.zeros(81)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_contents(states: tuple[State, State], pair: Pair, change: str) -> None:
    first, second = pair
    torch.save(CHANGES[change](states[0]), first)
    _refused(first, second)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\3\4", b"\x80", b"\x80\2.", b"\x80\5K\1.", b"hello\n" * 50])
def test_what_is_no_pickle(pair: Pair, content: bytes) -> None:
    first, second = pair
    first.write_bytes(content)
    _refused(first, second)
    _refused(second, first)


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_pickles_are_refused_or_read(states: tuple[State, State], pair: Pair, legacy: bool) -> None:
    first, second = pair
    torch.save(states[0], first, _use_new_zipfile_serialization=not legacy)
    content = first.read_bytes()
    rng = random.Random(0)
    refused = 0
    for turn in range(60):
        changed = bytearray(content)
        if turn % 3 == 0:
            del changed[rng.randrange(len(content)) :]
        else:
            for _ in range(rng.choice([1, 3, 10])):
                changed[rng.randrange(min(len(content), 4000) if turn % 3 == 1 else len(content))] = rng.randrange(256)
        first.write_bytes(changed)
        with suppress(ModelFileError):  # and nothing else
            read_published(first, second)
            continue
        refused += 1
    assert refused >= 20, "every cut file at the least"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (".", "ends in .safetensors"),
        ("folder.safetensors", "exists already"),
        ("bottle.pckl/model.safetensors", "cannot be written"),
    ],
)
def test_places_that_cannot_be_written(pair: Pair, out: str, said: str) -> None:
    (pair[0].parent / "folder.safetensors").mkdir()
    place = Path(out) if out == "." else pair[0].parent / out
    before = pair[0].read_bytes()
    with pytest.raises(DraemError, match=said):
        import_published(*pair, place)
    assert pair[0].read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_device_is_not_replaced_by_a_file(pair: Pair, tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.safetensors"
    os.mkfifo(fifo)
    with pytest.raises(DraemError, match="device"):
        atomic_write(fifo, b"model")
    with pytest.raises(DraemError, match="exists already"):
        import_published(*pair, fifo)
    assert fifo.is_fifo()
