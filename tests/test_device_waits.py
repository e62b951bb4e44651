"""Nothing in a training step waits for the device.

Without an accelerator: tensors that would lie on it are marked, whatever is computed from a marked one is marked, and
an operation that would bring a marked value to the host, or that needs one to know its result's shape, is noted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from draem.config import Config
from draem.data.bank import ImageBank
from draem.images import write_image
from draem.network import losses
from draem.simulation import batch, draws
from draem.simulation.batch import load_batch, load_regions
from draem.simulation.masks import MASKS
from draem.training import trainer
from draem.training.distillation import Teacher
from draem.training.progress import RunLog
from draem.training.trainer import Trainer
from tiny import write_tiny_model

WAITING = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_dim",
    "_unique2",
    "repeat_interleave",
}
TO_HOST = ("cpu", "numpy", "tolist", "item", "__array__")


class DeviceWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Marks by storage, and keeps what it marked, so that no address is used twice."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.marked: dict[int, Any] = {}
        self.waits: list[str] = []

    def mark(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage.data_ptr():
                self.marked[storage.data_ptr()] = storage

    def on_device(self, tensor: object) -> bool:
        return isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() in self.marked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        touched = [value for value in tree_leaves((args, kwargs or {})) if self.on_device(value)]
        if touched:
            name = func.overloadpacket.__name__
            by_mask = name.startswith("index") and any(value.dtype in (torch.bool, torch.uint8) for value in touched)
            if name in WAITING or by_mask:
                self.waits.append(name)
            self.mark(*(value for value in tree_leaves(result) if isinstance(value, Tensor)))
        return result


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> DeviceWatch:
    watch = DeviceWatch()
    for name in TO_HOST:
        original = getattr(Tensor, name)

        def noting(self: Tensor, *args: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            if watch.on_device(self):
                watch.waits.append(name)
            return original(self, *args, **options)

        monkeypatch.setattr(Tensor, name, noting)
    return watch


def to_device(watch: DeviceWatch) -> Any:
    """As `draws.to_device`, but a copy even here, where host and device are one."""

    def copied(tensor: Tensor, device: torch.device) -> Tensor:
        copy = tensor.clone()
        watch.mark(copy)
        return copy

    return copied


@pytest.fixture(params=["alone", "taught", "muon"])
def training(
    request: pytest.FixtureRequest, tmp_path: Path, watch: DeviceWatch, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trainer]:
    """A trainer after its first step, in which caches fill, with all that lies on its device marked."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(losses, "_blurred_on_cpu", losses._blurred_by_products)  # what a device does
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    white = np.zeros((32, 32, 3), np.uint8)
    white[4:28, 8:20] = 255
    write_image(tmp_path / "regions" / "white.png", white)
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        write_image(tmp_path / f"{index}.png", pixels)
    settings = {
        "data.size": 32,
        "network.reconstructive_width": 4,
        "network.fold": 1,
        "network.levels": 3,
        "network.discriminative_width": 4,
        "training.accumulate": 2,
        "training.optimizer": "muon" if request.param == "muon" else "adamw",
        "training.ema": 0.1,
        "training.clip_norm": 1.0,
        "training.precision": "fp32",
        "simulation.rotation": "full",
        "simulation.clean_share": 0.2,
        "simulation.region": str(tmp_path / "regions" / "white.png"),
        **{f"simulation.masks.{kind}": 1.0 for kind in MASKS},
    }
    config = Config.resolve("edge", settings=settings)
    fabric = Fabric(accelerator="cpu", devices=1)
    bank = ImageBank.load(sorted(tmp_path.glob("*.png")), config.data)
    teacher = None
    if request.param == "taught":
        teacher = Teacher.load(write_tiny_model(tmp_path / "teacher.safetensors", data__size=32))
    made = Trainer(config, tmp_path, fabric, bank, None, RunLog(tmp_path, active=False), teacher)
    made._prepare(None)
    made._one_step()
    for module in [module for name, module in sys.modules.items() if name.startswith("draem.simulation")]:
        if getattr(module, "to_device", None) is draws.to_device:
            monkeypatch.setattr(module, "to_device", to_device(watch))

    def loaded(*args: Any) -> Tensor:
        images = load_batch(*args)
        watch.mark(images)
        return images

    def found(*args: Any) -> Tensor | None:
        region = load_regions(*args)
        assert (region is None) == (args[0] is None)  # no region of interest here
        if region is not None:
            watch.mark(region)
        return region

    monkeypatch.setattr(batch, "load_batch", loaded)
    monkeypatch.setattr(trainer, "load_regions", found)
    assert made.average is not None
    watch.mark(made.window, *made.network.state_dict().values(), *made.average.module.state_dict().values())
    if teacher is not None:
        watch.mark(*teacher.network.state_dict().values())
    watch.mark(*(value for state in made.optimizer.state.values() for value in state.values()))
    yield made
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def test_a_step_does_not_wait(training: Trainer, watch: DeviceWatch) -> None:
    marked = len(watch.marked)
    with watch:
        training._one_step()
    assert len(watch.marked) > marked + 1000  # the marks went along with the step
    assert watch.on_device(training.network.discriminative.decoder_segment.fin_out[0].weight)
    assert watch.waits == []


def test_a_row_does_wait(training: Trainer, watch: DeviceWatch) -> None:
    """The losses come to the host there; so the watch sees what it is to see."""
    with watch:
        training._one_step()
        training._losses()
    assert watch.waits == ["tolist"]


def test_the_watch_sees_every_way_to_the_host(watch: DeviceWatch) -> None:
    there, here = torch.arange(4.0), torch.arange(4.0)
    watch.mark(there)
    ways: list[Any] = [
        lambda x: float((x * 2).sum()),
        lambda x: bool((x + here > 1).any()),
        lambda x: x.view(2, 2).t().cpu(),
        lambda x: (x[1:] + 1).numpy(),
        lambda x: here[x > 1],
        lambda x: (x * here).nonzero(),
        lambda x: torch.unique(x),
        lambda x: torch.masked_select(here, x > 2),
        lambda x: torch.equal(x, here),
        lambda x: np.asarray(x),
    ]
    for number, way in enumerate(ways):
        watch.waits.clear()
        with watch:
            way(here)
        assert watch.waits == [], number
        with watch:
            way(there)
        assert watch.waits != [], number
