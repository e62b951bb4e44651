"""Export: a trained model as ONNX or OpenVINO IR, which gives the same answers or is not written."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from draem.config import AnyLayout
from draem.data.layouts import read_layout
from draem.data.samples import Dataset
from draem.deployment.certificate import beyond, choose_images, compare, tolerances
from draem.deployment.ir import ir_of
from draem.errors import ConfigError, DraemError, MissingExtraError, ModelFileError, ParityError
from draem.files import atomic_write, move_together
from draem.inspection.detector import Detector
from draem.inspection.execution import BackendName, Execution, Precision
from draem.modelfile import (
    Artefact,
    ArtefactFormat,
    Certificate,
    Header,
    WeightPrecision,
    edit_header,
    onnx,
    openvino,
    read_header,
)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

_SUFFIXES: dict[ArtefactFormat, str] = {"onnx": ".onnx", "openvino": ".xml"}
_BACKENDS: dict[ArtefactFormat, tuple[BackendName, ...]] = {
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
}
"""What runs a format; the first is the format's own, and is compared with unless told."""
_FINER_WORDS = "try {}, each finer than the one before, since the certificate refused those before"
_FINER = {"fp32": "", "fp16": "use --precision fp32, ", "int8": "use --precision fp16, "}


@dataclass(frozen=True)
class Export:
    """What was written: the model file, its header with the certificate, and its size with weights in bytes."""

    path: Path
    header: Header
    size: int
    warnings: list[str]
    """What is beyond its tolerance, of an export that was forced."""

    @property
    def artefact(self) -> Artefact:
        """What the file is."""
        assert self.header.artefact is not None
        return self.header.artefact

    @property
    def certificate(self) -> Certificate:
        """How far its answers are from the model's."""
        assert self.artefact.certificate is not None
        return self.artefact.certificate

    def in_words(self) -> str:
        """One line for the person at the console."""
        batch = self.artefact.batch
        images = "any number of images" if batch is None else f"{batch} image{'s' * (batch > 1)} at once"
        return f"{self.path} ({self.artefact.format} {self.artefact.precision}, {images}, {self.size / 1e6:.1f} MB)"

    def to_dict(self) -> dict[str, Any]:
        """What the certificate file holds, and where the files lie; ready for JSON."""
        return {
            "model": str(self.path),
            "certificate_file": str(certificate_file(self.path)),
            "bytes": self.size,
            **_record(self.header),
        }


def certificate_file(path: Path) -> Path:
    """Where the certificate of a model file lies for people to read: NAME.onnx.certificate.json."""
    return path.with_name(f"{path.name}.certificate.json")


def export(
    model: str | Path,
    out: str | Path,
    data: str | Path,
    *,
    to: ArtefactFormat | None = None,
    precision: WeightPrecision = "fp32",
    batch: int | None = None,
    images: int = 64,
    backend: BackendName = "auto",
    execution_precision: Precision = "fp32",
    tolerance: Mapping[str, float] | None = None,
    force: bool = False,
    layout: AnyLayout = "auto",
    category: str | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Export:
    """Write a trained model as ONNX or OpenVINO IR, once it gives the trained model's answers on real images.

    Args:
        model: a trained model (.safetensors).
        out: NAME.onnx, or NAME.xml, beside which NAME.bin is written; what stands there is replaced at the end.
        data: a data set whose layout is understood: its test images are compared on, else its good ones. For int8
            its good images to train with give the ranges.
        to: onnx or openvino; none: as the name of `out` says.
        precision: of the weights; fp16 in ONNX and int8 are that of the arithmetic too.
        batch: images in one run; none: any number.
        images: the most to compare on.
        backend: what runs the export for its certificate; `auto`: ONNX Runtime for ONNX, OpenVINO for its IR.
        execution_precision: of the arithmetic, for the certificate; see `draem.inspection.execution`.
        tolerance: the largest differences allowed where they are to be others: map_max, map_mean, score, flips.
        force: write it though it is beyond the tolerance, marked as such.
        layout: how the data set lies in its folders; found by itself unless told.
        category: which of several categories.
        progress: see `Progress`.

    Raises:
        ParityError: the answers are further from the model's than the tolerance allows; nothing is written.
        DraemError: of the kind that fits; see `draem.errors`. Nothing is written.
    """
    model, out = Path(model), Path(out)
    to = _format(out, to)
    execution = Execution(backend if backend != "auto" else _BACKENDS[to][0], precision=execution_precision)
    allowed = tolerances(precision, execution.precision, tolerance or {})
    header = _refuse_wrong(model, out, to, precision, execution)
    dataset = read_layout(Path(data), layout, category)
    chosen = choose_images(dataset, images, header.config)
    with _workplace(out) as folder:
        draft = folder / out.name
        before = Detector.load(model, "cpu")
        for drafted in _drafts(model, draft, to, precision, batch, dataset, progress):
            after = Detector.load(draft, backend=execution.backend, precision=execution.precision)
            certificate = compare(before, after, chosen, allowed, batch, lambda *done: progress("compare", *done))
            complaints = beyond(certificate, header.thresholds)
            sealed = _with_certificate(drafted, certificate.model_copy(update={"forced": bool(complaints)}))
            if force or not complaints:
                break
        if complaints and not force:
            raise ParityError(f"{out}: not written, {_in_words(complaints, precision)}")
        return Export(out, sealed, _put_in_place(draft, out, sealed), complaints)


def export_model(
    model: Path,
    out: Path,
    to: ArtefactFormat = "onnx",
    precision: WeightPrecision = "fp32",
    batch: int | None = None,
    dataset: Dataset | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Header:
    """Write a trained model as another kind of model file, without a certificate; returns its header.

    Raises:
        MissingExtraError: what exports is not installed.
        ConfigError: int8 without a data set.
    """
    return next(_drafts(model, out, to, precision, batch, dataset, progress))


def _drafts(
    model: Path,
    out: Path,
    to: ArtefactFormat,
    precision: WeightPrecision,
    batch: int | None,
    dataset: Dataset | None,
    progress: Progress,
) -> Iterator[Header]:
    """Write the export, and of int8 a finer one in its place as often as another is asked for; gives its header."""
    with _needing_export():
        from draem.deployment.graph import onnx_graph
        from draem.deployment.quantise import quantise
        from draem.network.weights import load_model

        network, header = load_model(model)
        artefact = Artefact(format=to, precision=precision, batch=batch, source_sha256=header.sha256)

        def write(content: bytes, weights: bytes, artefact: Artefact, used: Iterable[str] = ()) -> Header:
            data = header.data
            if data is not None:
                data = data.model_copy(update={"used": sorted({*data.used, *used})})
            described = header.model_copy(update={"artefact": artefact, "data": data})
            if to == "onnx":
                return onnx.write_model(out, described, content)
            return openvino.write_model(out, described, content, weights)

        if precision == "int8":
            if dataset is None:
                raise ConfigError("precision int8: needs a data set, whose good images give the ranges")
            models = quantise(network, header, to, batch, dataset, lambda *done: progress("quantise", *done))
            for tries, made in enumerate(models, 1):
                said = made.said + (f"; {_FINER_WORDS.format(tries)}" if tries > 1 else "")
                found = artefact.model_copy(update={"quantised_on": said, "kept": made.kept})
                yield write(made.content, made.weights, found, made.used)
        else:
            half = to == "onnx" and precision == "fp16"
            content = onnx_graph(network, header.channels, header.config.data.size, batch, half)
            yield write(*(ir_of(content, half=precision == "fp16") if to == "openvino" else (content, b"")), artefact)


def _format(out: Path, to: ArtefactFormat | None) -> ArtefactFormat:
    """The format that the name of a file stands for, which is the one asked for.

    Raises:
        ConfigError: it stands for none, or for another.
    """
    if to is not None and to not in _SUFFIXES:
        raise ConfigError(f"format {to!r}: use {' or '.join(_SUFFIXES)}")
    found = next((name for name, suffix in _SUFFIXES.items() if out.suffix.lower() == suffix), None)
    if found is None or to not in (None, found):
        wanted = " or ".join(f"{suffix} ({name})" for name, suffix in _SUFFIXES.items() if to in (None, name))
        raise ConfigError(f"{out}: an export's name ends in {wanted}")
    return found


def _refuse_wrong(
    model: Path, out: Path, to: ArtefactFormat, precision: WeightPrecision, execution: Execution
) -> Header:
    """The header of the model, if all that can be known before the work says that it will go well."""
    if precision not in ("fp32", "fp16", "int8"):
        raise ConfigError(f"precision {precision!r}: use fp32, fp16 or int8")
    header = read_header(model)
    if header.artefact is not None or model.suffix.lower() != ".safetensors":
        raise ModelFileError(f"{model}: is an export already; export the trained model (.safetensors)")
    for path in _files(out):
        if path.exists() and not path.is_file():
            raise DraemError(f"{path}: cannot be written: it is a {'folder' if path.is_dir() else 'device'}")
    if execution.backend not in _BACKENDS[to]:
        raise ConfigError(f"backend {execution.backend} does not run {to}; use {' or '.join(_BACKENDS[to])}")
    needed = ["torch", "onnx", "onnxscript"]
    needed += ["openvino"] if "openvino" in (to, execution.backend) or precision == "int8" else []
    needed += ["nncf"] if precision == "int8" else []
    for package in needed:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "export")
    return header


@contextmanager
def _needing_export() -> Iterator[None]:
    """Importing in this block needs the extra `export`."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export") from None


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder on the disk of `out` to write and test in, which is gone in the end, come what may.

    Raises:
        DraemError: nothing can be written there.
    """
    there = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        folder = TemporaryDirectory(dir=there, prefix=".draem-export-")
    except OSError as error:
        raise DraemError(f"{out}: cannot be written: {error.strerror or error}") from error
    with folder as name:
        yield Path(name)


def _files(path: Path) -> list[Path]:
    """All that an export writes, in the order in which it is put in place: an .xml finds its .bin there."""
    weights = [openvino.weights_file(path)] if path.suffix.lower() == ".xml" else []
    return [*weights, path, certificate_file(path)]


def _in_words(complaints: list[str], precision: WeightPrecision) -> str:
    return (
        f"its answers are not the model's: {'; '.join(complaints)}; "
        f"{_FINER[precision]}allow more with --tolerance, or write it all the same with --force"
    )


def _put_in_place(draft: Path, out: Path, sealed: Header) -> int:
    """Give a draft its final header and its certificate, and move all its files; returns the model's size in bytes."""
    edit_header(draft, sealed)
    atomic_write(certificate_file(draft), json.dumps(_record(sealed), indent=1, allow_nan=False).encode())
    drafts = [path for path in _files(draft) if path.exists()]
    size = sum(path.stat().st_size for path in drafts if path != certificate_file(draft))
    move_together({path: out.with_name(path.name) for path in drafts}, kept=draft.parent)
    return size


def _with_certificate(header: Header, certificate: Certificate) -> Header:
    assert header.artefact is not None
    artefact = header.artefact.model_copy(update={"certificate": certificate})
    return header.model_copy(update={"artefact": artefact})


def _record(header: Header) -> dict[str, Any]:
    """The certificate with what it is about, for people and programs that do not read model files."""
    plain = header.model_dump(mode="json", include={"sha256", "artefact", "thresholds", "versions"})
    return {"weights_sha256": plain.pop("sha256"), **plain}
