"""The ways to run a model: which backend, on which file, in which precision; and the exports that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from draem.data.layouts import read_layout
from draem.deployment.benchmark.material import Material
from draem.deployment.certificate import choose_images
from draem.deployment.export import export
from draem.errors import ConfigError, DraemError, MissingExtraError, ModelFileError
from draem.inspection.backends import RUNS
from draem.inspection.execution import BackendName, Precision
from draem.modelfile import ArtefactFormat, Header, WeightPrecision, read_header
from draem.modelfile.openvino import weights_file

_COMPARED = 16
"""Images of the certificate."""


@dataclass(frozen=True)
class Way:
    """A backend and a precision; `artefact` is what is exported for it, none: the model file itself.

    `precision` names the file's, or the arithmetic's where that is another (bf16).
    """

    backend: BackendName
    precision: str
    artefact: tuple[ArtefactFormat, WeightPrecision] | None = None
    arithmetic: Precision = "fp32"

    @property
    def name(self) -> str:
        """Such as openvino:int8."""
        return f"{self.backend}:{self.precision}"


_TRAINED = (
    Way("torch", "fp32"),
    Way("torch", "bf16", None, "bf16"),
    Way("onnxruntime", "fp32", ("onnx", "fp32")),
    Way("onnxruntime", "fp16", ("onnx", "fp16")),
    Way("onnxruntime", "int8", ("onnx", "int8")),
    Way("openvino", "fp32", ("openvino", "fp32")),
    Way("openvino", "fp16", ("openvino", "fp16")),
    Way("openvino", "bf16", ("openvino", "fp16"), "bf16"),
    Way("openvino", "int8", ("openvino", "int8")),
)


def ways_to_run(model: Path, header: Header) -> tuple[Way, ...]:
    """Of a trained model all there are, through exports of it; of an exported one those of its file."""
    if header.artefact is None:
        return _TRAINED
    precision = header.artefact.precision
    found = [Way(backend, precision) for backend in RUNS[model.suffix.lower()]]
    if precision != "int8":
        found.append(Way("openvino", "bf16", None, "bf16"))
    return tuple(found)


def chosen(ways: Sequence[Way], only: str) -> tuple[Way, ...]:
    """Those that a list such as `openvino:int8,torch` names, in their own order; empty: all.

    Raises:
        ConfigError: a name is none of them.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [way.name for way in ways]
    for name in names:
        if not any(name in (way.name, way.backend) for way in ways):
            raise ConfigError(f"--only {name}: this model is run by {', '.join(known)}")
    return tuple(way for way in ways if not names or way.name in names or way.backend in names)


def exported(
    model: Path, header: Header, to: ArtefactFormat, precision: WeightPrecision, folder: Path, material: Material
) -> Path:
    """The model as another kind of file, in a folder.

    Raises:
        DraemError: why it cannot be exported.
    """
    suffix = "onnx" if to == "onnx" else "xml"
    out = folder / f"{model.stem}-{precision}.{suffix}"
    if not _is_export_of(out, header, material):
        try:
            _export(model, out, to, precision, material)
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "a package", "export") from None
        except RuntimeError as error:  # what torch's and OpenVINO's converters raise
            words = " ".join(str(error).split())[:160]
            raise DraemError(f"cannot be exported to {to} in {precision}: {words}") from None
    return out


def size_of(path: Path) -> int:
    """Bytes of a model file; of OpenVINO IR those of the pair."""
    pair = [path, weights_file(path)] if path.suffix.lower() == ".xml" else [path]
    return sum(file.stat().st_size for file in pair)


def _export(model: Path, out: Path, to: ArtefactFormat, precision: WeightPrecision, material: Material) -> None:
    export(
        *(model, out, material.data),
        to=to,
        precision=precision,
        images=_COMPARED,
        force=True,  # how far off it is, is what a benchmark shows; the file is marked
        layout=material.layout,
        category=material.category,
    )


def _is_export_of(path: Path, header: Header, material: Material) -> bool:
    """Whether a file is there that was exported from just this model, threshold and all, with the same data.

    Int8 takes its ranges from the data, and the certificate is about its images.
    """
    if not path.exists():
        return False
    try:
        found = read_header(path)
    except ModelFileError:
        return False
    artefact = found.artefact
    if artefact is None or artefact.source_sha256 != header.sha256 or artefact.certificate is None:
        return False
    dataset = read_layout(material.data, material.layout, material.category)
    compared_on = choose_images(dataset, _COMPARED, header.config).in_words
    same_data = artefact.certificate.compared_on.startswith(compared_on)
    return same_data and found.model_copy(update={"artefact": None, "sha256": header.sha256}) == header
