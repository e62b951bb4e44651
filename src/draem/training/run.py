"""A whole run: data → split → training → threshold → model file, in one folder.

RUN/config.yaml            what made it, resolved
RUN/split.json             which good image had which job
RUN/scene.json             where parts lie and what of them counts; null: as they lie, everywhere
RUN/metrics.csv            its history; RUN/tensorboard the same with pictures
RUN/checkpoint.safetensors where --resume goes on
RUN/model.safetensors      the model
"""

from __future__ import annotations

import inspect
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from draem.config import Config, DataConfig, NetworkConfig
from draem.data.bank import ImageBank
from draem.data.formats import resolve_format
from draem.data.layouts import read_layout
from draem.data.registration import Registrar
from draem.data.samples import Dataset, Sample, Split, content_sum, fingerprint
from draem.errors import ConfigError, DataError, ImageError, MemoryLimitError, TrainingError
from draem.inspection.calibration import first_thresholds, reference_of
from draem.inspection.detector import Detector
from draem.inspection.memory import out_of_memory
from draem.inspection.torch_backend import TorchBackend, choose_device
from draem.modelfile import (
    DataRecord,
    Header,
    TrainingRecord,
    colour_order,
    package_versions,
    read_header,
)
from draem.network.draem import Draem
from draem.network.weights import load_model, save_model
from draem.pixels import unused_range
from draem.training.distillation import Teacher
from draem.training.memory import keep_freed_memory, largest_batch, smallest_batch
from draem.training.progress import RunLog
from draem.training.record import Scene, kept_scene, split_of, write_record
from draem.training.threads import use_threads
from draem.training.trainer import CHECKPOINT, Trained, Trainer

MODEL = "model.safetensors"
_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train_run(
    data: Path,
    out: Path,
    config: Config,
    *,
    category: str | None = None,
    resume: bool = False,
    scene: Scene | None = None,
) -> Detector:
    """Train on a data set's good images and write the model; returns it as a detector.

    Args:
        data: folder of good images, or a data set in a layout that is understood.
        out: the run's folder.
        config: all settings, resolved.
        category: which of several categories; `all` trains one model on all of them.
        resume: go on from the folder's checkpoint; without one, start from the beginning.
        scene: where parts lie and what of them counts, in place of what the settings name.

    Raises:
        DraemError: of the kind that fits; see `draem.errors`.
    """
    refuse_overwriting(out, resume)
    config = _on_this_machine(config)
    teacher = Teacher.load(config.training.teacher) if config.training.teacher is not None else None
    fabric = _launch(config)
    dataset = read_layout(data, config.data.layout, category)
    split = split_of(dataset, config, out, resume)
    with RunLog(out, active=fabric.is_global_zero) as log:
        log.message(_announce(config, dataset, split, fabric))
        data_config, said = _format(config.data, dataset, begun=resume and (out / CHECKPOINT).exists())
        data_config = data_config.model_copy(update={"outside": "blank" if data_config.blanks else "keep"})
        config = config.model_copy(update={"data": data_config})
        for line in said:
            log.message(line)
        if teacher is not None:
            teacher.refuse_other_images(data_config)
            log.message(f"teacher: {teacher.path} ({teacher.header.config.network.widths})")
        scene = scene or kept_scene(config.data, out, resume)
        train, select = _load_banks(split, config, scene.registrar, out, log)
        fabric.barrier()
        if fabric.is_global_zero:
            write_record(out, config, split, scene)
        fabric.barrier()
        trainer = Trainer(config, out, fabric, train, select, log, teacher, scene.region)
        if trainer.train_regions is not None:
            log.message(str(trainer.train_regions))
        start_from = None if resume and (out / CHECKPOINT).exists() else _starting_weights(config)
        with _explaining_memory(config, fabric, teacher):
            trained = trainer.fit(resume=resume, start_from=start_from)
        if fabric.is_global_zero:
            if (found := trained.validation.get("val_pixel_ap")) is not None:
                log.message(f"validation: pixel AP {found:.3f} on defects simulated on {len(split.select)} good images")
            header = _header(config, dataset, split, trained, str(fabric.device), teacher)
            header = header.model_copy(update=dict(scene))
            header = _write_model(out / MODEL, header, trained, split, fabric.device, log)
            log.message(f"model: {out / MODEL}")
        fabric.barrier()
    return Detector.load(out / MODEL, config.training.accelerator)


def _format(config: DataConfig, dataset: Dataset, *, begun: bool) -> tuple[DataConfig, list[str]]:
    """As `resolve_format`; a run begun by an older version, whose settings do not say, has RGB of 8 bits."""
    if begun:
        known = config.pixel_format
        return config.model_copy(update={"channels": known.channels, "depth": known.depth}), []
    return resolve_format(config, [sample.path for sample in dataset.train_good])


def refuse_overwriting(out: Path, resume: bool) -> None:
    """Raise TrainingError where `out` is a file, or holds a run that is not to be resumed."""
    if not resume and any((out / name).exists() for name in (MODEL, CHECKPOINT)):
        raise TrainingError(
            f"{out}: holds a run already; add --resume (resume=True) to go on with it, or give another --out"
        )
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out}: is a file; --out is a folder")


def _on_this_machine(config: Config) -> Config:
    """The configuration with `auto` replaced by what this machine has."""
    recipe = config.training
    if recipe.batch_size < smallest_batch(config):
        side = config.network.stride
        raise ConfigError(f"training.batch_size=1 cannot train on images of {side}×{side} or less; use 2 or more")
    device = choose_device(recipe.accelerator)
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16" if _native_bf16(device) else "fp32"
    if (config.data.region or config.data.ignore) and config.simulation.rotation.probability:
        raise ConfigError(
            "data.region and simulation.rotation exclude each other: the region would not turn with the image; set "
            "simulation.rotation=none"
        )
    if precision == "fp16" and device == "cpu":
        raise ConfigError("training.precision=fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if recipe.devices > 1 and device == "cuda" and recipe.devices > torch.cuda.device_count():
        raise ConfigError(f"training.devices is {recipe.devices}, but there are {torch.cuda.device_count()} GPUs here")
    # An untrained network's activations fade into denormal numbers, on which CPUs are a hundred times slower.
    # Set before the first parallel region, since its threads inherit it.
    torch.set_flush_denormal(True)
    keep_freed_memory()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    resolved = recipe.model_copy(update={"accelerator": device, "precision": precision})
    return config.model_copy(update={"training": resolved})


def _native_bf16(device: str) -> bool:
    """Whether bf16 products are done in hardware, so that they are faster and not slower."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if device == "cpu":
        # Private names, which older versions of torch spell differently: without them, float32.
        tests = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
        return any(bool(test()) for test in tests if test is not None)
    return False


def _launch(config: Config) -> Fabric:
    """Fabric for the device, precision and processes; starts the other processes where there are several."""
    recipe = config.training
    processes = recipe.devices * recipe.nodes
    started = int(os.environ.get("WORLD_SIZE", "1")) if torch.distributed.is_torchelastic_launched() else processes
    if started != processes:
        raise ConfigError(f"torchrun started {started} processes, the settings say {processes}: set training.devices")
    several = processes > 1
    if several and recipe.accelerator == "mps":
        raise ConfigError("training.devices: MPS has one device")
    backend = "nccl" if recipe.accelerator == "cuda" else "gloo"
    # Statistics are averaged over the processes by us: broadcasting those of the first would lose the others'.
    # Newer torch warns of the older name.
    names = inspect.signature(DistributedDataParallel).parameters
    ours: Any = {"forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False}
    strategy: Any = DDPStrategy(process_group_backend=backend, **ours) if several else "auto"
    fabric = Fabric(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        strategy=strategy,
        precision=_PRECISION[recipe.precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    if recipe.threads is not None:  # after the launch, which shares the cores between processes
        use_threads(recipe.threads)
    return fabric


def _load_banks(
    split: Split, config: Config, registrar: Registrar | None, out: Path, log: RunLog
) -> tuple[ImageBank, ImageBank | None]:
    """The images to train on and to select with. Those to calibrate with are only looked at: what cannot be read is
    to be named, or to stop the run, now and not at its end."""

    def bank(samples: Sequence[Sample]) -> ImageBank:
        return _bank(samples, config, registrar, out, log)

    train, select = bank(split.train), _held_out(split.select, bank, log)
    _held_out(split.calibrate, bank, log)
    highest = train.highest if config.data.depth == 16 and config.data.value_range is None else 2**16 - 1
    if wanted := unused_range(highest):
        log.message(
            f"nearly black: no pixel is brighter than {highest} of 65535; for a camera of fewer than 16 bits give "
            f"--set data.value_range=[0,{wanted[1]:g}]"
        )
    return train, select


def _held_out(
    samples: Sequence[Sample], bank: Callable[[Sequence[Sample]], ImageBank], log: RunLog
) -> ImageBank | None:
    """None where there are no such images, or none that can be read: a run can do without."""
    try:
        return bank(samples) if samples else None
    except ImageError:
        raise
    except DataError as error:
        log.message(f"left out: {error}")
        return None


def _bank(samples: Sequence[Sample], config: Config, registrar: Registrar | None, out: Path, log: RunLog) -> ImageBank:
    paths, cache = [sample.path for sample in samples], out / "cache"
    with log.counted("read images") as progress:
        bank = ImageBank.load(paths, config.data, cache=cache, progress=progress, registrar=registrar)
    for _, reason in bank.skipped:
        log.message(f"left out: {reason}")
    if 2 * len(bank.unplaced) > len(bank):
        raise ConfigError(
            f"data.registration: the part was found on {len(bank) - len(bank.unplaced)} of {len(bank)} images alone, "
            f"not on {bank.unplaced[0]} for one: give an image of such a part, or wider limits "
            "(data.registration_shift, data.registration_angle)"
        )
    if bank.unplaced:
        log.message(
            f"registration: the part was not found on {len(bank.unplaced)} of {len(bank)} images, which are taken as "
            f"they lie; the first: {bank.unplaced[0]}"
        )
    return bank


def _announce(config: Config, dataset: Dataset, split: Split, fabric: Fabric) -> str:
    recipe = config.training
    jobs = f"{len(split.train)} to train, {len(split.select)} to select, {len(split.calibrate)} to calibrate"
    return (
        f"{dataset.name}: {jobs} · preset {config.preset} ({config.network.widths}) · "
        f"{fabric.device.type} {recipe.precision}"
    )


def _in_words(network: NetworkConfig) -> str:
    parts = "" if network.parts == "both" else f"{network.parts} alone, "
    return f"{network.widths} ({parts}aligned corners {network.aligned_corners})"


def _starting_weights(config: Config) -> dict[str, torch.Tensor] | None:
    """Those of the model in `training.init`; none for random ones."""
    init = config.training.init
    if init is None:
        return None
    network, header = load_model(init)
    if header.config.network != config.network:
        theirs, ours = header.config.network, config.network
        raise ConfigError(
            f"--init {init}: its network is {_in_words(theirs)}, this run's is {_in_words(ours)}; choose --preset or "
            "network.* alike"
        )
    theirs_takes, ours_takes = header.channels, config.data.pixel_format.channels
    if theirs_takes != ours_takes:
        raise ConfigError(
            f"--init {init}: its network takes images of {theirs_takes} channels, this run's of {ours_takes}; "
            f"set data.channels={theirs_takes}, or leave --init away"
        )
    return network.state_dict()


@contextmanager
def _explaining_memory(config: Config, fabric: Fabric, teacher: Teacher | None) -> Iterator[None]:
    """Out of memory names the batch size that would fit."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # so that nothing holds the failed step's memory any more
    else:
        return
    size = config.training.batch_size
    fits = largest_batch(config, fabric.device, size, teacher)
    if fits == 0:
        raise MemoryLimitError(
            "out of memory even with the smallest batch: use a narrower preset or a smaller data.size"
        )
    raise MemoryLimitError(
        f"out of memory with training.batch_size={size}; {fits} fits: --set training.batch_size={fits} "
        f"--set training.accumulate={config.training.accumulate * -(-size // fits)}"
    )


def _header(
    config: Config, dataset: Dataset, split: Split, trained: Trained, device: str, teacher: Teacher | None
) -> Header:
    recipe, channels = config.training, config.data.pixel_format.channels
    return Header(
        config=config,
        channels=channels,
        colour_order=colour_order(channels),
        data=DataRecord(
            name=dataset.name,
            fingerprint=fingerprint(dataset.samples),
            train=len(split.train),
            select=len(split.select),
            calibrate=len(split.calibrate),
            used=sorted(_used(config, split, teacher)),
        ),
        training=TrainingRecord(
            images_seen=trained.images_seen,
            steps=trained.steps,
            step_kept=trained.step_kept,
            seconds=round(trained.seconds, 1),
            device=device,
            precision=recipe.precision,
            validation=trained.validation,
            teacher=None if teacher is None else teacher.record,
        ),
        versions=package_versions(),
    )


def _used(config: Config, split: Split, teacher: Teacher | None) -> set[str]:
    """Sums of the images that were trained or selected on: by this run, for its first weights, by its teacher."""
    found = {content_sum(sample.path) for sample in (*split.train, *split.select)}
    before = [] if teacher is None else [teacher.header]
    before += [] if config.training.init is None else [read_header(config.training.init)]
    return found.union(*(header.data.used for header in before if header.data is not None))


def _write_model(
    path: Path, header: Header, trained: Trained, split: Split, device: torch.device, log: RunLog
) -> Header:
    """Find the first threshold on the calibrate images, and write the model with it."""
    network = Draem(header.config.network, header.channels)
    network.load_state_dict(trained.state)
    detector = Detector(TorchBackend(network, str(device)), header)
    assert header.data is not None
    sums = {content_sum(sample.path): sample.path for sample in split.calibrate}
    new = {content: path for content, path in sums.items() if content not in header.data.used}
    paths = sorted(new.values())
    if len(paths) < len(split.calibrate):
        known = len(split.calibrate) - len(paths)
        log.message(f"not for the threshold: {known} images that are copies, or known from earlier trainings")
    scores = [found.score for found in detector.stream(paths, on_unreadable=lambda source, error: None)]
    thresholds = first_thresholds(scores, header.config.score)
    if thresholds is None:
        few = header.config.data.calibrate_share > 0 and not split.calibrate
        why = "too few good images to hold any out for it, 5 are needed" if few else "no new good image was held out"
        log.message(f"no threshold: {why}")
    else:
        log.message(f"threshold {thresholds.reject:.4f}: {thresholds.chosen_on}")
        thresholds = thresholds.model_copy(update={"images": sorted(new)})
    found = {"thresholds": thresholds, "reference": reference_of(scores)}
    return save_model(path, trained.state, header.model_copy(update=found))
