"""What every model file says of itself beside its weights: all that inspection needs, and where it comes from."""

from __future__ import annotations

import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from draem.config import Config, widths_in_words
from draem.config.sections import Angle, Shift
from draem.errors import ModelFileError
from draem.modelfile.part import Fraction, Part
from draem.modelfile.strictjson import parse_json
from draem.modelfile.thresholds import ContentSum, Profile, Reference, Thresholds

FORMAT_VERSION = 4
OLDEST_VERSION = 1

ArtefactFormat = Literal["onnx", "openvino"]
WeightPrecision = Literal["fp32", "fp16", "int8"]
Polygon = Annotated[list[tuple[Fraction, Fraction]], Field(min_length=3)]
"""Corners (x, y) as fractions of the image's width and height, so that they hold at any resolution."""
MOST_POLYGONS, MOST_CORNERS = 1000, 20_000
"""Of a region, in all: drawing it stays a matter of moments."""
MOST_PROFILES = 1000
PROFILE_NAME = r"^[A-Za-z0-9_.+-]{1,64}$"
ProfileName = Annotated[str, Field(pattern=PROFILE_NAME)]


class RegionOfInterest(Part):
    """Where anomalies count: inside of `inspect`, outside of `ignore`; both by the even-odd rule."""

    inspect: list[Polygon] = []
    """None: everywhere."""
    ignore: list[Polygon] = []

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        polygons = self.inspect + self.ignore
        if len(polygons) > MOST_POLYGONS or sum(map(len, polygons)) > MOST_CORNERS:
            raise ValueError(f"more than {MOST_POLYGONS} polygons or {MOST_CORNERS} corners")
        return self


class Registration(Part):
    """A part where it should lie; images are shifted and turned onto it before anything else is done with them."""

    reference: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=65_536)]
    """A grey PNG of at most 128 pixels a side, as base64."""
    shift: Shift
    """How far a part may lie from there, as a fraction of the image's width and height; beyond it is not found."""
    angle: Angle
    """How far it may be turned, in degrees either way."""


class DataRecord(Part):
    """Which data made the model: the fingerprint is that of all samples, the counts those of the good images."""

    name: str
    fingerprint: str
    train: int
    select: int
    calibrate: int
    used: list[ContentSum] = []
    """Sums of the images that were trained on or selected with (`draem.data.samples.content_sum`): no threshold may be
    chosen on them."""


class TeacherRecord(Part):
    """Which trained model taught this one."""

    sha256: str
    """Of its weights, as in its own header."""
    preset: str
    reconstructive_width: int
    discriminative_width: int
    fold: int = 1
    levels: int = 6

    @property
    def widths(self) -> str:
        """As people read them."""
        return widths_in_words(self.reconstructive_width, self.discriminative_width, self.fold, self.levels)


class TrainingRecord(Part):
    """How the weights came about."""

    images_seen: int
    steps: int
    step_kept: int
    seconds: float
    device: str
    precision: str
    validation: dict[str, float | None] = {}
    teacher: TeacherRecord | None = None
    """None: taught by masks alone."""


class ImageParity(Part):
    """One image through both: the network in torch (before) and the artefact (after)."""

    name: str
    score_before: float
    score_after: float
    map_max: float
    """Largest difference of the two anomaly maps."""
    map_mean: float


class Certificate(Part):
    """How far an artefact's answers are from those of the network that it was exported from, on real images."""

    execution: str
    """What ran the artefact: backend, version, device and precision; the figures hold for it."""
    compared_on: str = ""
    """In words: which images."""
    images: list[ImageParity]
    map_max: float
    map_mean: float
    score: float
    """Largest difference of two scores."""
    flips: int | None
    """Images whose verdict differs, at the thresholds of the header; none where there is no threshold."""
    tolerance: dict[str, float]
    """Largest allowed by the names above; an artefact beyond it was forced."""
    forced: bool = False
    stale: str = ""
    """Why the figures do not hold any more; empty: they do."""
    metrics_before: dict[str, float | None] | None = None
    """On labelled images, in torch; none where there were no labels."""
    metrics_after: dict[str, float | None] | None = None

    def at(self, thresholds: Thresholds | None) -> Self:
        """The certificate at other thresholds: which verdicts differ is known from the scores of the images."""
        if thresholds is None:
            return self.model_copy(update={"flips": None})
        differ = (
            thresholds.verdict(image.score_before) != thresholds.verdict(image.score_after) for image in self.images
        )
        return self.model_copy(update={"flips": sum(differ)})


class Artefact(Part):
    """What an exported file is, and what it was exported from."""

    format: ArtefactFormat
    precision: WeightPrecision
    """Of the weights and, for int8, of the arithmetic."""
    batch: int | None = None
    """Images in one run; none: any number."""
    source_sha256: str
    """Of the weights in the model file that was exported."""
    quantised_on: str = ""
    """int8: in words, which images the ranges were taken from."""
    kept: list[str] = []
    """int8: operations that stay in higher precision, since they would have hurt."""
    certificate: Certificate | None = None


class Header(Part):
    """All that inspection needs to know beside the weights."""

    kind: Literal["draem-model"] = "draem-model"
    format_version: int = FORMAT_VERSION
    config: Config
    channels: int = 3
    colour_order: Literal["RGB", "grey", "stack"] = "RGB"
    value_range: tuple[Literal[0], Literal[1]] = (0, 1)
    """Of what the network takes; those of files are `config.data.value_range`."""
    region: RegionOfInterest | None = None
    """None: the whole image."""
    registration: Registration | None = None
    """None: images are taken as they lie."""
    thresholds: Thresholds | None = None
    reference: Reference | None = None
    """None: scores have no p-values."""
    profiles: Annotated[dict[ProfileName, Profile], Field(max_length=MOST_PROFILES)] = {}
    """Thresholds of single cameras or products, by name, in the place of those above."""
    data: DataRecord | None = None
    training: TrainingRecord | None = None
    artefact: Artefact | None = None
    """None: a trained model, not an exported one."""
    origin: str = "trained"
    """trained, or what the weights were imported from."""
    versions: dict[str, str] = {}
    sha256: str = ""
    """Of the weights' bytes, as they stand in the file."""

    @model_validator(mode="after")
    def _channels_agree(self) -> Self:
        wanted = self.config.data.pixel_format.channels
        if (self.channels, self.colour_order) != (wanted, colour_order(wanted)):
            raise ValueError(
                f"channels {self.channels} ({self.colour_order}), but its data.channels say {wanted} "
                f"({colour_order(wanted)})"
            )
        return self

    def at_profile(self, name: str | None) -> Header:
        """The header with a profile's thresholds and reference in the place of its own; none: as it is.

        Raises:
            ModelFileError: there is no such profile.
        """
        if name is None:
            return self
        if name not in self.profiles:
            there = f"there is {', '.join(sorted(self.profiles))}" if self.profiles else "it has none"
            raise ModelFileError(f"profile {name[:64]!r}: {there}; make one: draem calibrate MODEL GOOD --profile NAME")
        profile = self.profiles[name]
        return self.model_copy(update={"thresholds": profile.thresholds, "reference": profile.reference})


def colour_order(channels: int) -> Literal["RGB", "grey", "stack"]:
    """What a number of channels means."""
    return "RGB" if channels == 3 else "grey" if channels == 1 else "stack"


def package_versions() -> dict[str, str]:
    """What made a model: versions of Python and of the packages that decide its numbers."""
    packages = ("draem", "torch", "numpy", "opencv-python-headless", "lightning-fabric")
    found = {"python": platform.python_version()}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def as_written(header: Header, sha256: str) -> tuple[Header, str]:
    """A header as it goes into a file whose weights have this sum, and its text.

    The text is ASCII alone, which every reader of every language takes, that of XML too.
    """
    sealed = header.model_copy(update={"format_version": FORMAT_VERSION, "sha256": sha256})
    return sealed, json.dumps(sealed.model_dump(mode="json"), separators=(",", ":"), allow_nan=False)


def parse_header(path: Path, text: str, *, intact: bool) -> Header:
    """The header in a file's text; `intact` says whether the text matches its checksum.

    Raises:
        ModelFileError: naming the file and what is wrong with it.
    """
    try:
        values = parse_json(text)
    except ValueError:
        raise ModelFileError(f"{path}: its header is not JSON, or says something twice") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if type(version) is not int or not OLDEST_VERSION <= version <= FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: header version {str(version)[:20]}, this draem reads up to {FORMAT_VERSION}; update draem"
        )
    if not intact:
        raise ModelFileError(f"{path}: its header does not match its checksum; copy the file again")
    try:
        # From the text once more: pydantic's reader refuses what is JSON to Python but not Unicode.
        return Header.model_validate_json(text)
    except ValidationError as error:
        first: Any = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelFileError(f"{path}: its header is wrong at {place[:80]!r} ({first['msg']})") from None
