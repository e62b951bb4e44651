"""The one description of a run: data, simulation, network, training, scoring; presets; YAML in and out.

Every flag of the command line sets a field of these models, and the resolved configuration is saved with the model.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from draem.errors import ConfigError
from draem.presets import PRESETS
from draem.settings import flat, nested, read_yaml, stack

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
# Eight times the published width: tables of sizes stay within 64 bits, whatever a model file says.
Width = Annotated[int, Field(ge=1, le=1024)]

Augmentation = Literal[
    "gamma",
    "brightness",
    "sharpness",
    "hue_saturation",
    "solarize",
    "posterize",
    "invert",
    "autocontrast",
    "equalize",
    "rotate",
]
"""The published code's ten augmentations of the anomaly source."""

AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)

Layout = Literal[
    "folder",
    "mvtec",
    "visa",
    "btad",
    "mpdd",
    "kolektor_sdd",
    "kolektor_sdd2",
    "dagm",
    "magnetic_tile",
    "mvtec_loco",
    "real_iad",
    "manifest",
    "coco",
    "csv",
]
"""How a data set lies in its folders; docs/layouts.md says how each is understood."""
AnyLayout = Literal["auto", Layout]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values are checked and cannot be assigned to."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _square(value: Any) -> Any:
    """One number means a square."""
    return (value, value) if isinstance(value, int) else value


Size = Annotated[
    tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]], BeforeValidator(_square)
]
"""Height and width in pixels; a single number means a square."""


class DataConfig(Section):
    """Where images come from, and how they become the network's input."""

    layout: AnyLayout = "auto"
    """How the data set lies in its folders (docs/layouts.md); `auto` finds out."""
    size: Size = (256, 256)
    """Height and width of the network's input in pixels; one number: a square."""
    fit: Literal["resize", "letterbox"] = "resize"
    """`resize` ignores the aspect ratio; `letterbox` keeps it and pads by repeating the image's edge."""
    interpolation: Literal["area", "linear"] = "area"
    """How images are made smaller: `area` averages, `linear` is what the published code does. Larger: always linear."""
    on_corrupt: Literal["skip", "stop"] = "skip"
    """Name an unreadable image and go on without it, or stop."""
    memory_limit_mb: Positive = 4096
    """Decoded images above this are kept in a memory-mapped file instead of RAM."""
    select_share: Share = 0.1
    """Share of the good images held out for validation with simulated defects."""
    calibrate_share: Share = 0.1
    """Share of the good images held out for the threshold; no image has two jobs."""

    @model_validator(mode="after")
    def _some_left_to_train(self) -> Self:
        if self.select_share + self.calibrate_share >= 1.0:
            raise ValueError("select_share + calibrate_share must be below 1: nothing is left to train on")
        return self


class RotationConfig(Section):
    """How a normal image is turned before it is used: its angle is uniform in ± `degrees`."""

    degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    probability: Share = 0.0
    corners: Literal["black", "reflect"] = "reflect"


ROTATIONS = {
    "none": RotationConfig(),
    "slight": RotationConfig(degrees=5.0, probability=0.5),
    "full": RotationConfig(degrees=180.0, probability=0.5),
}


def _rotation_policy(value: Any) -> Any:
    """A policy's name stands for its settings."""
    if isinstance(value, str):
        if value not in ROTATIONS:
            raise ValueError(f"rotation is one of {', '.join(ROTATIONS)}, or degrees/probability/corners")
        return ROTATIONS[value]
    return value


Range = Annotated[tuple[float, float], BeforeValidator(lambda v: (v, v) if isinstance(v, int | float) else v)]


class SimulationConfig(Section):
    """Which simulated anomalies are drawn."""

    clean_share: Share = 0.5
    """Share of samples that stay normal, with an empty mask."""
    mask_threshold: Range = (0.5, 0.5)
    """Perlin noise above this is anomalous; two numbers: drawn uniformly for each sample."""
    lattice: tuple[Annotated[int, Field(ge=0, le=8)], Annotated[int, Field(ge=0, le=8)]] = (0, 5)
    """Cells along each axis are 2^k, k drawn uniformly between these, both included, each axis apart."""
    mask_rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 90.0
    """The noise is turned by a uniform angle in ± this many degrees."""
    allow_empty: bool = False
    """The published behaviour: a mask may come out empty, and the sample is then silently clean."""
    textures: Path | None = None
    """A folder of anomaly source textures, searched to any depth; none: procedural textures."""
    source_colour: Literal["match", "rgb"] = "match"
    """`match`: textures on grey images are grey, or colour alone would give the anomaly away; `rgb`: as published."""
    augmentations: tuple[Augmentation, ...] = AUGMENTATIONS
    """From which the augmentations of a texture are drawn."""
    augmentations_drawn: Annotated[int, Field(ge=0, le=10)] = 3
    """How many are drawn for each sample, without replacement, applied in the order drawn."""
    beta: Range = (0.0, 0.8)
    """Opacity β, the weight of the original inside the mask, drawn uniformly."""
    rotation: Annotated[RotationConfig, BeforeValidator(_rotation_policy)] = ROTATIONS["none"]
    """How the normal image is turned: none, slight, full, or degrees/probability/corners."""

    @model_validator(mode="after")
    def _bounds_ordered(self) -> Self:
        for name in ("mask_threshold", "lattice", "beta"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the lower bound comes first")
        if not -1.0 <= self.mask_threshold[0] <= self.mask_threshold[1] < 1.0:
            raise ValueError("mask_threshold lies in [-1, 1), the range of the noise")
        if not 0.0 <= self.beta[0] <= self.beta[1] <= 1.0:
            raise ValueError("beta lies in [0, 1]")
        if self.augmentations_drawn > len(self.augmentations):
            raise ValueError("augmentations_drawn is more than there are augmentations")
        return self


class NetworkConfig(Section):
    """The widths of both sub-networks; 128 and 64 are the published ones."""

    reconstructive_width: Width = 128
    """Channels at full resolution of the reconstructive sub-network; deeper levels have up to eight times as many."""
    discriminative_width: Width = 64
    """The same of the discriminative sub-network."""
    aligned_corners: bool = False
    """Bilinear upsampling with aligned corners, as published; without, tiles of a large image agree with the whole."""


class TrainingConfig(Section):
    """The recipe: budget, optimiser, schedule, losses, precision, device."""

    images: Positive | None = None
    """Budget in images seen; or `epochs`."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Budget in passes over the training images; or `images`."""
    init: Path | None = None
    """A trained model of the same network, to start from its weights instead of random ones."""
    batch_size: Positive = 8
    """Images in one forward pass of one device."""
    accumulate: Positive = 1
    """Forward passes before an optimiser step."""
    sampling: Literal["shuffle", "replacement"] = "shuffle"
    """Every image once an epoch, or each drawn anew, as in the published code."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """AdamW takes the weight decay out of the gradient."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """The highest rate of the schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """The optimiser's."""
    schedule: Literal["constant", "steps", "one_cycle"] = "steps"
    """How the rate changes over the budget."""
    milestones: tuple[Share, ...] = (0.8, 0.9)
    """`steps`: shares of the budget at which the rate is multiplied by `factor`."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Of `steps`."""
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """`one_cycle`: share of the budget in which the rate rises to `learning_rate`; then it falls as a cosine."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; larger ones are scaled down to it."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Horizon of the moving average of the weights as a share of the run; 0: none. The average is the model."""
    ssim_weight: Annotated[float, Field(ge=0)] = 1.0
    """λ of the reconstruction loss."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """γ of the focal loss."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the forward pass; losses are float32. `auto`: bf16 where the device multiplies it natively, else fp32."""
    channels_last: bool = True
    """Memory layout in which CPUs and GPUs multiply fastest."""
    compile: bool = False
    """Compile the network with torch.compile, which takes minutes at the start."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device; `auto`: CUDA, else MPS, else CPU."""
    devices: Positive = 1
    """Processes on this machine, one for each GPU; they share each batch. On a CPU they talk by gloo."""
    nodes: Positive = 1
    """Machines."""
    threads: Positive | None = None
    """CPU threads; none: all cores. Kept with the checkpoint, since sums depend on it bit for bit."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the split, the weights, the order and every simulated anomaly."""
    validations: Annotated[int, Field(ge=0)] = 10
    """How often, evenly over the run, simulated defects on the select images are scored."""
    keep: Literal["best", "last"] = "last"
    """Which weights become the model: of the last step, or of the best validation."""
    log_every: Positive = 10
    """Steps between two rows of metrics.csv."""
    checkpoint_every: Annotated[float, Field(ge=0)] = 60.0
    """Seconds between two checkpoints."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.images is not None and self.epochs is not None:
            raise ValueError("give the budget as images or as epochs, not both")
        if self.images is None and self.epochs is None:
            raise ValueError("a budget is needed: images or epochs")
        return self


class ScoreConfig(Section):
    """From anomaly map to image score and verdict."""

    filter_size: Annotated[int, Field(ge=1, le=255)] = 21
    """Side of the mean filter (stride 1, zero padding) whose maximum is the image score; odd."""
    false_reject: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of good parts that the first threshold may reject."""
    review: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of good parts that the first threshold may send to review or reject."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.filter_size % 2 == 0:
            raise ValueError("filter_size is odd: it has a middle pixel")
        if self.review < self.false_reject:
            raise ValueError("review is at least false_reject: rejected parts count in it")
        return self


class Config(Section):
    """A whole run, resolved."""

    preset: str
    data: DataConfig = DataConfig()
    simulation: SimulationConfig = SimulationConfig()
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig
    score: ScoreConfig = ScoreConfig()

    def to_yaml(self) -> str:
        """The configuration as YAML that `Config.resolve(file=…)` reads back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100)

    @classmethod
    def resolve(
        cls, preset: str, file: Path | None = None, settings: Mapping[str, Any] | None = None, default: str = ""
    ) -> Config:
        """Layer a YAML file over a preset, and settings over both.

        Args:
            preset: a name of `PRESETS`; a `preset` in the settings goes before it, where it is empty the file's counts.
            file: YAML with any part of the configuration.
            settings: dotted keys to values, such as ``{"training.seed": 3}``.
            default: preset where neither names one.

        Raises:
            ConfigError: naming the key, the value and what would be allowed.
        """
        layers = _layers(file, settings)
        name = layers[-1].get("preset") or preset or layers[0].get("preset") or default
        if not isinstance(name, str) or name not in PRESETS:
            raise ConfigError(f"preset {name!r} is unknown: use one of {', '.join(PRESETS)}")
        return parse_config({**stack(PRESETS[name], layers), "preset": name}, where=str(file or "settings"))

    def override(self, file: Path | None = None, settings: Mapping[str, Any] | None = None) -> Config:
        """This configuration with a YAML file and settings over it; see `resolve`."""
        merged = stack(self.model_dump(mode="json"), _layers(file, settings))
        return parse_config({**merged, "preset": self.preset}, where=str(file or "settings"))

    def differences(self, other: Config) -> list[str]:
        """Dotted keys whose values differ."""
        ours, theirs = flat(self.model_dump(mode="json")), flat(other.model_dump(mode="json"))
        return [key for key, value in ours.items() if theirs[key] != value]


def parse_config(values: Mapping[str, Any], where: str) -> Config:
    """Check plain values against the models; `where` names their origin in the error."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_explain(item) for item in error.errors()[:3])}") from None


def _layers(file: Path | None, settings: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    layers = {str(file): read_yaml(file)} if file else {}
    layers["settings"] = nested(settings or {})
    for where, layer in layers.items():
        for key in Config.model_fields.keys() - {"preset"}:
            if not isinstance(layer.get(key, {}), dict):
                raise ConfigError(f"{where}: {key}: a section of settings is expected, not {str(layer[key])[:60]!r}")
    return list(layers.values())


def _explain(item: Any) -> str:
    """One pydantic finding as `section.key: what is wrong (got …)`, with the nearest known key for an unknown one."""
    place = [str(part) for part in item["loc"]]
    key = ".".join(place) or "configuration"
    if item["type"] == "extra_forbidden":
        model: Any = Config
        for part in place[:-1]:
            field = model.model_fields.get(part)
            model = field.annotation if field else model
        known = list(getattr(model, "model_fields", {}))
        near = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        return f"{key} is not a setting ({hint})"
    if item["type"] == "missing":
        return f"{key} is missing"
    message = item["msg"].removeprefix("Value error, ")
    if isinstance(item["input"], dict):
        return f"{key}: {message}"
    return f"{key}: {message} (got {repr(item['input'])[:60]})"
