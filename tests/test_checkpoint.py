"""The state of a run: there and back bit for bit; damaged or foreign files refused with one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from draem.config import NetworkConfig
from draem.errors import ModelFileError
from draem.modelfile.tensors import read_record
from draem.network.draem import Draem
from draem.training.average import MovingAverage
from draem.training.checkpoint import RunState, load_weights, save_weights

RECORD: dict[str, Any] = {"step": 12, "window": [0.1, 3.0], "best": {"val_pixel_ap": None}, "text": "Größe"}


@pytest.fixture(autouse=True)
def _as_in_a_run() -> Iterator[None]:
    """As runs do: an untrained network's denormal numbers are slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


class Small:
    """A network in training, with its average and its optimiser."""

    def __init__(self, seed: int, width: int = 4, *, average: bool = True, kind: type = torch.optim.AdamW) -> None:
        torch.manual_seed(seed)
        self.network = Draem(NetworkConfig(reconstructive_width=width, discriminative_width=4)).channels_last()
        self.average = MovingAverage(self.network, 3.0) if average else None
        self.optimizer = kind(self.network.parameters(), lr=1e-3, fused=True)
        self.state = RunState(self.network, self.average.module if self.average else None, self.optimizer)

    def train(self, steps: int) -> None:
        for step in range(steps):
            images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(step))
            reconstruction, logits = self.network(images.contiguous(memory_format=torch.channels_last))
            (reconstruction.square().mean() + logits.square().mean()).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.average:
                self.average.update(self.network, step)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes while training."""
        found = {f"model.{name}": value for name, value in self.network.state_dict().items()}
        if self.average:
            found |= {f"average.{name}": value for name, value in self.average.module.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        return found


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        assert value.stride() == second[name].stride(), name
        assert value.dtype == second[name].dtype, name


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("average", [True, False])
def test_a_loaded_state_goes_on_bit_for_bit(tmp_path: Path, kind: type, average: bool) -> None:
    before = Small(1, average=average, kind=kind)
    before.train(3)
    before.state.save(tmp_path / "state", RECORD)
    after = Small(2, average=average, kind=kind)
    after.train(1)  # moments of its own, to be replaced
    assert after.state.load(tmp_path / "state") == RECORD
    assert_same(after.tensors(), before.tensors())
    before.train(3)
    after.train(3)
    assert_same(after.tensors(), before.tensors())


def test_weights_and_moments_keep_channels_last(tmp_path: Path) -> None:
    """The memory format decides in which order sums run."""
    before, after = Small(1), Small(2)
    before.train(1)
    before.state.save(tmp_path / "state", RECORD)
    after.state.load(tmp_path / "state")
    wide = [value for value in after.tensors().values() if value.dim() == 4 and min(value.shape[1:3]) > 1]
    assert len(wide) > 3 * 40
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in wide)


def test_a_state_before_the_first_step(tmp_path: Path) -> None:
    before, after = Small(1), Small(2)
    before.state.save(tmp_path / "state", RECORD)
    after.state.load(tmp_path / "state")
    assert_same(after.tensors(), before.tensors())


@pytest.mark.parametrize("foreign", [{"width": 5}, {"average": False}])
def test_the_state_of_another_network_is_refused(tmp_path: Path, foreign: dict[str, Any]) -> None:
    other = Small(1, **foreign)
    other.train(1)
    other.state.save(tmp_path / "state", RECORD)
    with pytest.raises(ModelFileError, match="not a state of this network") as caught:
        Small(1).state.load(tmp_path / "state")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "state") in str(caught.value)


def test_any_changed_byte_is_found(tmp_path: Path) -> None:
    """In the length, the table of tensors, the record (a digit of the step) and the tensors."""
    path = tmp_path / "state"
    state = Small(1, average=False).state
    state.save(path, RECORD)
    whole = path.read_bytes()
    table = int.from_bytes(whole[:8], "little")
    step = whole.index(b'\\"step\\": 12') + len(b'\\"step\\": 1')
    dtype = whole.index(b'"F32"') + 1
    for place in [0, 3, 8, step, dtype, table // 2, 8 + table, (8 + table + len(whole)) // 2, len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ModelFileError) as caught:
            state.load(path)
        assert str(path) in str(caught.value), place
        assert "\n" not in str(caught.value), place
    path.write_bytes(whole)
    assert state.load(path) == RECORD


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "state"
    state = Small(1, average=False).state
    state.save(path, RECORD)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match="cut short"):
        state.load(path)


def test_a_failed_write_leaves_the_last_state(tmp_path: Path) -> None:
    path = tmp_path / "state"
    small = Small(1)
    small.state.save(path, RECORD)
    with pytest.raises(ValueError, match="JSON"):
        small.state.save(path, {"step": float("nan")})
    assert read_record(path)[0] == RECORD
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_finite(value: float) -> None:
    small = Small(1)
    assert small.state.finite()
    with torch.no_grad():
        small.network.get_buffer("discriminative.encoder_segment.block3.1.running_var")[-1] = value
    assert not small.state.finite()


def test_weights_there_and_back(tmp_path: Path) -> None:
    network = Small(1).network
    save_weights(tmp_path / "weights", network, RECORD)
    state, record = load_weights(tmp_path / "weights")
    assert record == RECORD
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
