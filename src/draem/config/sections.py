"""The sections of a configuration: data, network, training, scoring; that of the simulation has its own module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from draem.pixels import MOST_CHANNELS, PixelFormat

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
# Eight times the published width: tables of sizes stay within 64 bits, whatever a model file says.
Width = Annotated[int, Field(ge=1, le=1024)]

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
    if not (isinstance(value, int) or (isinstance(value, list | tuple) and len(value) == 2)):
        raise ValueError("one number of pixels, or two: [height, width]")
    return (value, value) if isinstance(value, int) else value


Size = Annotated[
    tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]], BeforeValidator(_square)
]
"""Height and width in pixels; a single number means a square."""


def _channels(value: Any) -> Any:
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_CHANNELS):
        raise ValueError(f"auto, or a number from 1 to {MOST_CHANNELS}")
    return value


RawValue = Annotated[float, Field(ge=-1e30, le=1e30)]
"""Of a pixel in a file; bounded, so that differences stay within a float's range."""


MOST_SHIFT, MOST_ANGLE = 0.5, 180.0
"""By which a part may lie elsewhere, as a fraction of the image; and in degrees, be turned either way."""
Shift = Annotated[float, Field(ge=0.0, le=MOST_SHIFT)]
Angle = Annotated[float, Field(ge=0.0, le=MOST_ANGLE)]


class DataConfig(Section):
    """Where images come from, and how they become the network's input."""

    layout: AnyLayout = "auto"
    """How the data set lies in its folders (docs/layouts.md); `auto` finds out."""
    size: Size = (256, 256)
    """Height and width of the network's input in pixels; one number: a square."""
    channels: Annotated[Literal["auto"] | int, BeforeValidator(_channels)] = "auto"
    """Of the network: 1 grey, 3 RGB, else a stack's; `auto`: 1 if all good images are grey, their number for stacks."""
    depth: Literal["auto", 8, 16] = "auto"
    """Bits of one channel that are kept; `auto`: 16 if any good image has more than 8."""
    value_range: tuple[RawValue, RawValue] | None = None
    """Raw values that become black and white, such as 0, 4095 for 12 bits in 16; none: all that the type holds."""
    fit: Literal["resize", "letterbox", "tiles"] = "resize"
    """`resize` ignores the aspect ratio; `letterbox` keeps it and pads by repeating the image's edge; `tiles` leaves
    images as they are and looks at parts of `size`, one after the other (docs/big-images.md)."""
    overlap: Annotated[int, Field(ge=0, le=8192)] = 64
    """`tiles`: pixels that neighbouring tiles share at least, a multiple of 32, like their sides."""
    region: Path | None = None
    """Where anomalies count: a mask image (white is inspected), drawn on one of the images, or a .json of polygons;
    none: everywhere. It goes into the model, where `draem set` changes it."""
    ignore: Path | None = None
    """A mask image: what is white does not count."""
    registration: Path | None = None
    """An image of a part where it should lie: every image is shifted and turned onto it first (docs/inspect.md); none:
    images are taken as they lie. It goes into the model, where `draem set` changes it."""
    registration_shift: Shift = 0.1
    """How far a part may lie from there, as a fraction of the image's width and height."""
    registration_angle: Angle = 10.0
    """How far it may be turned, in degrees either way; 0 for parts that look alike however they are turned."""
    outside: Literal["auto", "blank", "keep"] = "auto"
    """What the network sees where nothing counts: `blank`, mid-grey, so that nothing there can change an answer; or
    `keep`, the image. `auto`: blank where training has a region, else keep."""
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
    fold: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=2, le=100)]] | None = None
    """`k, K`: the k-th (from 0) of K parts of the good images is held out for the threshold, instead of a share."""

    @property
    def blanks(self) -> bool:
        """Whether the network sees mid-grey where nothing counts."""
        given = self.region is not None or self.ignore is not None
        return self.outside == "blank" or (self.outside == "auto" and given)

    @property
    def pixel_format(self) -> PixelFormat:
        """The pixels of the network; what is not resolved stands for RGB of 8 bits, as in models of older versions."""
        channels = 3 if self.channels == "auto" else self.channels
        return PixelFormat(channels, 8 if self.depth == "auto" else self.depth, self.value_range)

    def frame(self, image_size: tuple[int, int]) -> tuple[tuple[int, int], Literal["resize", "letterbox"]]:
        """At which size an image of (height, width) gets its map, and how it is brought there; for tiles its own."""
        return (image_size, "resize") if self.fit == "tiles" else (self.size, self.fit)

    @model_validator(mode="after")
    def _range_ordered(self) -> Self:
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError("value_range: the lower value comes first")
        return self

    @model_validator(mode="after")
    def _fold_is_one_of_them(self) -> Self:
        if self.fold is not None and self.fold[0] >= self.fold[1]:
            raise ValueError(f"fold: of {self.fold[1]} parts the last is {self.fold[1] - 1}")
        return self

    @model_validator(mode="after")
    def _some_left_to_train(self) -> Self:
        if self.select_share + self.calibrate_share >= 1.0:
            raise ValueError("select_share + calibrate_share must be below 1: nothing is left to train on")
        return self


Parts = Literal["both", "discriminative", "reconstructive"]


LEVELS = {1: 6, 2: 5, 4: 4}
"""Of each fold: those whose innermost pixel is 32 of the image's, as published."""


class NetworkConfig(Section):
    """The widths of both sub-networks; 128 and 64 are the published ones."""

    parts: Parts = "both"
    """Both sub-networks, or one alone, as in the paper's ablation; one needs a `score.map` that it makes."""

    reconstructive_width: Width = 128
    """Channels at the highest resolution of the reconstructive sub-network; deeper levels have up to eight times as
    many."""
    discriminative_width: Width = 64
    """The same of the discriminative sub-network."""
    fold: Literal[1, 2, 4] = 1
    """Pixels a side that become channels: 2: both sub-networks see half the resolution and four times the channels, and
    their last layers give four pixels each. 1: as published. `auto`: 4, for sides below 256 pixels 2, below 128 1."""
    levels: Annotated[int, Field(ge=3, le=6)] = 6
    """Resolutions of the discriminative sub-network, each half as fine as the one before; the reconstructive one has
    one less. 6: as published. `auto`: what makes the innermost pixel 32 of the image's, as published: with fold 2 5,
    with fold 4 4."""
    aligned_corners: bool = False
    """Bilinear upsampling with aligned corners, as published; without, tiles of a large image agree with the whole."""

    @property
    def stride(self) -> int:
        """Pixels a side that one of the innermost level stands for; the image's sides are padded to a multiple."""
        return int(self.fold * 2 ** (self.levels - 1))

    @property
    def widths(self) -> str:
        """As people read them: 32/16, or 32/16 fold 2."""
        return widths_in_words(self.reconstructive_width, self.discriminative_width, self.fold, self.levels)


def widths_in_words(reconstructive: int, discriminative: int, fold: int, levels: int) -> str:
    """Widths of both sub-networks in short, the fold where there is one, the levels where they are not the fold's."""
    return (
        f"{reconstructive}/{discriminative}"
        + (f" fold {fold}" if fold > 1 else "")
        + (f" levels {levels}" if levels != LEVELS.get(fold) else "")
    )


class TrainingConfig(Section):
    """The recipe: budget, optimiser, schedule, losses, precision, device."""

    images: Positive | None = None
    """Budget in images seen; or `epochs`."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Budget in passes over the training images; or `images`."""
    init: Path | None = None
    """A trained model of the same network, to start from its weights instead of random ones."""
    teacher: Path | None = None
    """A trained model of any widths, whose map on simulated anomalies is a target beside their masks: distillation."""
    distill_weight: Share = 0.5
    """Share of the teacher's map in the segmentation loss; the rest is the mask's."""
    batch_size: Positive = 8
    """Images in one forward pass of one device."""
    accumulate: Positive = 1
    """Forward passes before an optimiser step."""
    sampling: Literal["shuffle", "replacement"] = "shuffle"
    """Every image once an epoch, or each drawn anew, as in the published code."""
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    """AdamW takes the weight decay out of the gradient; Muon is AdamW with orthogonalised steps of hidden layers."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """The highest rate of the schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """The optimiser's."""
    schedule: Literal["constant", "steps", "one_cycle", "hold"] = "steps"
    """How the rate changes over the budget; `hold` stays at the highest, and can end early (`patience`)."""
    milestones: tuple[Share, ...] = (0.8, 0.9)
    """`steps`: shares of the budget at which the rate is multiplied by `factor`."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Of `steps`."""
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """`one_cycle`, `hold`: share of the budget in which the rate rises to `learning_rate`; `one_cycle` then falls as a
    cosine."""
    cooldown: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """`hold`: share of the run in which the rate falls at last, along a line."""
    patience: Annotated[int, Field(ge=0)] = 0
    """`hold`: the run begins to fall once so many validations in a row, after the warm-up and 400 steps, have not
    raised the best pixel AP on simulated defects by 0.005; 0: when the budget says so."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient; larger ones are scaled down to it."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Horizon of the moving average of the weights as a share of the run; 0: none. The average is the model."""
    ssim_weight: Annotated[float, Field(ge=0)] = 1.0
    """λ of the reconstruction loss."""
    ssim_scales: Annotated[int, Field(ge=1, le=5)] = 1
    """Of its SSIM: whole size, half, a quarter, … in equal shares; more tell of larger areas that are not restored."""
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0
    """γ of the focal loss."""
    l1_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the mean difference between map and mask, beside the focal loss."""
    dice_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of the Dice loss between map and mask, beside the focal loss."""
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

    @model_validator(mode="after")
    def _may_end_early(self) -> Self:
        if self.patience and self.schedule != "hold":
            raise ValueError(f"patience: only a run of schedule=hold can end early, not {self.schedule}")
        if self.patience and not self.validations:
            raise ValueError("patience: without validations nothing tells that they have settled")
        if self.warmup + self.cooldown >= 1.0 and self.schedule == "hold":
            raise ValueError("warmup + cooldown must be below 1: nothing is left to hold")
        return self


ScoreMap = Literal["segmentation", "joint", "ssim", "msgms"]


class ScoreConfig(Section):
    """From anomaly map to image score and verdict."""

    map: ScoreMap = "segmentation"
    """The discriminative sub-network's map, as published; how unlike image and reconstruction are: SSIM, gradients
    (MSGMS); `joint`: the map where image and reconstruction differ, too."""

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
