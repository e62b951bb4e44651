"""The exported files that ways to run a model need: made, or found where an earlier benchmark made them."""

from __future__ import annotations

from pathlib import Path

from draem.data.layouts import read_layout
from draem.deployment.benchmark.material import Material
from draem.deployment.certificate import choose_images
from draem.deployment.export import export
from draem.errors import DraemError, MissingExtraError, ModelFileError
from draem.modelfile import ArtefactFormat, Header, WeightPrecision, read_header
from draem.modelfile.openvino import weights_file

_COMPARED = 16
"""Images of the certificate."""


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
