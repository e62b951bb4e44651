"""The section of a configuration that says which anomalies are simulated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from draem.config.sections import Section, Share

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


def _pair(value: Any) -> Any:
    """One number means a range of no width."""
    return (value, value) if isinstance(value, int | float) else value


Range = Annotated[tuple[float, float], BeforeValidator(_pair)]


def _place(value: Any) -> Any:
    """A word or a path; what is neither has one line that says so, not one for each type it might have been."""
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("everywhere, foreground, or the path of a mask image")
    return value


Weight = Annotated[float, Field(ge=0.0)]

MaskKind = Literal["perlin", "rectangle", "scar", "scratch", "blob", "crack", "chip", "stain"]
SourceKind = Literal["procedural", "folder", "flat", "patch", "deform", "blur", "missing", "crops"]


class MaskWeights(Section):
    """How often each kind of anomaly mask is drawn; weights, which need not sum to 1."""

    perlin: Weight = 1.0
    """Thresholded Perlin noise, as published."""
    rectangle: Weight = 0.0
    """Upright rectangles."""
    scar: Weight = 0.0
    """Long, thin, turned rectangles (CutPaste)."""
    scratch: Weight = 0.0
    """Thin, slightly bent lines."""
    blob: Weight = 0.0
    """Round and lumpy spots."""
    crack: Weight = 0.0
    """Thin, jagged, branching lines."""
    chip: Weight = 0.0
    """Bites out of the part's edge, or of the image's where no region is known."""
    stain: Weight = 0.0
    """The whole part, or a large share of it."""


class SourceWeights(Section):
    """How often each kind of anomaly source is drawn; weights, which need not sum to 1."""

    procedural: Weight | None = None
    """Textures made from nothing; none: 1 without `simulation.textures`, else 0."""
    folder: Weight | None = None
    """The images of `simulation.textures`; none: 1 where it is given."""
    flat: Weight = 0.0
    """One flat colour."""
    patch: Weight = 0.0
    """Another place of the image itself (CutPaste)."""
    deform: Weight = 0.0
    """The image, locally pushed, pinched or swirled."""
    blur: Weight = 0.0
    """The image, out of focus."""
    missing: Weight = 0.0
    """The surroundings, drawn over what is there: missing material or parts."""
    crops: Weight | None = None
    """Your own defects, cut out, with their own masks, from `simulation.crops`; none: 1 where it is given."""


class SimulationConfig(Section):
    """Which simulated anomalies are drawn: masks × sources × opacity, each kind by its weight."""

    clean_share: Share = 0.5
    """Share of samples that stay normal, with an empty mask."""
    masks: MaskWeights = MaskWeights()
    """Where: the weight of each kind of mask."""
    count: Annotated[
        tuple[Annotated[int, Field(ge=1, le=64)], Annotated[int, Field(ge=1, le=64)]], BeforeValidator(_pair)
    ] = (1, 1)
    """How many shapes a mask has, both included; Perlin masks and stains have what they have."""
    area: Annotated[tuple[float, float], BeforeValidator(_pair)] | None = None
    """Share of the image that a mask covers, every octave between the two as likely; none: as each kind comes."""
    region: Annotated[Literal["everywhere", "foreground"] | Path, BeforeValidator(_place)] = "everywhere"
    """Anomalies lie everywhere, on the part alone (found without a network), or where a mask image is white."""
    mask_threshold: Range = (0.5, 0.5)
    """Perlin noise above this is anomalous; two numbers: drawn uniformly for each sample."""
    lattice: tuple[Annotated[int, Field(ge=0, le=8)], Annotated[int, Field(ge=0, le=8)]] = (0, 5)
    """Cells along each axis are 2^k, k drawn uniformly between these, both included, each axis apart."""
    octaves: Annotated[int, Field(ge=1, le=5)] = 1
    """Of the Perlin noise: each twice as fine and half as strong as the one before; 1: as published."""
    mask_rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 90.0
    """The noise is turned by a uniform angle in ± this many degrees."""
    allow_empty: bool = False
    """The published behaviour: a Perlin mask may come out empty, and the sample is then silently clean."""
    sources: SourceWeights = SourceWeights()
    """With what: the weight of each kind of source."""
    textures: Path | None = None
    """A folder of anomaly source textures, searched to any depth; none: procedural textures."""
    crops: Path | None = None
    """A folder of your own defects, cut out: PNG with alpha, or NAME.png with NAME_mask.png."""
    source_colour: Literal["match", "rgb"] = "match"
    """`match`: textures on grey images are grey, or colour alone would give the anomaly away; `rgb`: as published."""
    augmentations: tuple[Augmentation, ...] = AUGMENTATIONS
    """From which the augmentations of a texture are drawn."""
    augmentations_drawn: Annotated[int, Field(ge=0, le=10)] = 3
    """How many are drawn for each sample, without replacement, applied in the order drawn."""
    beta: Range = (0.0, 0.8)
    """Opacity β, the weight of the original inside the mask, drawn uniformly: of textures and flat colours."""
    structural_beta: Range = (0.0, 0.0)
    """The same of sources made from the image itself, and of crops."""
    softness: Range = (0.0, 0.0)
    """How soft an anomaly's edge is: σ in pixels of the blur of its opacity, drawn uniformly; the mask stays sharp."""
    gradient_share: Share = 0.0
    """Share of patches and crops that keep their gradients and take their colours from the surroundings (NSA)."""
    visible: Share = 0.02
    """What sources made from the image itself change by less, of the full range, is not called anomalous."""
    lighting: Share = 0.0
    """How much the light on normal images varies: gain and gamma of each are drawn from e^−s to e^s; 0: not at all."""
    rotation: Annotated[RotationConfig, BeforeValidator(_rotation_policy)] = ROTATIONS["none"]
    """How the normal image is turned: none, slight, full, or degrees/probability/corners."""

    @property
    def source_weights(self) -> dict[SourceKind, float]:
        """The weight of each kind of source, with what `textures` and `crops` decide."""
        weights: dict[SourceKind, float] = self.sources.model_dump()  # type: ignore[assignment]
        given = self.textures is not None
        for kind, default in (("procedural", not given), ("folder", given), ("crops", self.crops is not None)):
            weights[kind] = float(default) if weights[kind] is None else weights[kind]  # type: ignore[index]
        return weights

    @model_validator(mode="after")
    def _bounds_ordered(self) -> Self:
        for name in ("mask_threshold", "lattice", "beta", "structural_beta", "count", "area", "softness"):
            low, high = getattr(self, name) or (0, 0)
            if low > high:
                raise ValueError(f"{name}: the lower bound comes first")
        if not -1.0 <= self.mask_threshold[0] <= self.mask_threshold[1] < 1.0:
            raise ValueError("mask_threshold lies in [-1, 1), the range of the noise")
        for name in ("beta", "structural_beta"):
            if not 0.0 <= getattr(self, name)[0] <= getattr(self, name)[1] <= 1.0:
                raise ValueError(f"{name} lies in [0, 1]")
        if not 0.0 <= self.softness[0] <= self.softness[1] <= 8.0:
            raise ValueError("softness lies in [0, 8] pixels")
        if self.area is not None and not 0.0 < self.area[0] <= self.area[1] <= 1.0:
            raise ValueError("area lies in (0, 1], a share of the image")
        if self.augmentations_drawn > len(self.augmentations):
            raise ValueError("augmentations_drawn is more than there are augmentations")
        return self

    @model_validator(mode="after")
    def _something_to_draw(self) -> Self:
        for name, weights in (("masks", self.masks.model_dump()), ("sources", self.source_weights)):
            if not sum(weights.values()):
                raise ValueError(f"{name}: every weight is 0: nothing can be drawn")
        for kind, folder in (("folder", "textures"), ("crops", "crops")):
            if self.source_weights[kind] and getattr(self, folder) is None:  # type: ignore[index]
                raise ValueError(f"sources.{kind} needs a folder: give simulation.{folder}")
        return self
