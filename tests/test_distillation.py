"""A teacher beside the masks: its loss, what it changes and what it leaves alone, what is refused."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import draem
from draem import verbs
from draem.config import Config, DataConfig
from draem.data.demo import render_demo
from draem.errors import ConfigError, MemoryLimitError, ModelFileError, TrainingError
from draem.images import write_image
from draem.inspection.described import header_rows
from draem.inspection.detector import Detector
from draem.modelfile import Artefact, TeacherRecord, read_header
from draem.modelfile.tensors import read_model, read_record, write_model
from draem.network.draem import Draem
from draem.network.losses import focal_loss, taught_loss
from draem.network.weights import load_model, save_model
from draem.settings import parse_setting
from draem.training import run
from draem.training.checkpoint import RunState
from draem.training.distillation import Teacher
from draem.training.trainer import CHECKPOINT, Trainer
from tiny import write_noise, write_tiny_model

SETTINGS: dict[str, Any] = {
    "data.size": 64,
    "network.reconstructive_width": 4,
    "network.fold": 1,
    "network.levels": 3,
    "network.discriminative_width": 4,
    "training.batch_size": 4,
    "training.images": 24,
    "training.log_every": 2,
    "training.validations": 1,
    "training.ema": 0.5,
    "training.precision": "fp32",
    "training.accelerator": "cpu",
    "training.threads": 1,
    "score.filter_size": 5,
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("parts"), 12)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wider than its students, with answers of all sizes."""
    out = tmp_path_factory.mktemp("teacher") / "model.safetensors"
    return write_tiny_model(out, network__reconstructive_width=8, network__discriminative_width=6)


def distill(teacher: Path, data: Path, out: Path, settings: dict[str, Any] | None = None, **options: Any) -> Detector:
    return verbs.distill(teacher, data, out, settings=SETTINGS | (settings or {}), **options)


def history(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_equal_state(ours: Path, theirs: Path) -> None:
    """The model; and the checkpoint, which holds the optimiser's moments too."""
    for name in ("model.safetensors", CHECKPOINT):
        first, second = load_file(ours / name), load_file(theirs / name)
        assert first.keys() == second.keys()
        assert not [key for key, value in first.items() if not torch.equal(value, second[key])]


# ----------------------------------------------------------------------------------------------------------- the loss


def logits_of(shape: tuple[int, ...], seed: int, scale: float) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_the_loss_is_that_of_a_slow_reference(gamma: float) -> None:
    ours, taught = logits_of((2, 2, 3, 4), 0, 3.0), logits_of((2, 2, 3, 4), 1, 3.0)
    total = 0.0
    for image in range(2):
        for row in range(3):
            for column in range(4):
                pairs = ((one[image, :, row, column]).double() for one in (ours, taught))
                p, q = (float(torch.softmax(pair, dim=0)[1]) for pair in pairs)
                entropy = -q * math.log(p) - (1 - q) * math.log(1 - p)
                total += abs(q - p) ** gamma * entropy
    assert float(taught_loss(ours, taught, gamma)) == pytest.approx(total / 24, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_certain_teacher_is_a_mask(gamma: float) -> None:
    """Value and gradient."""
    mask = (logits_of((2, 1, 5, 6), 2, 1.0) > 0).float()
    certain = torch.cat((200 * (1 - mask), 200 * mask), dim=1)
    first, second = (logits_of((2, 2, 5, 6), 0, 2.0).requires_grad_() for _ in range(2))
    ours, theirs = taught_loss(first, certain, gamma), focal_loss(second, mask, gamma)
    torch.testing.assert_close(ours, theirs)
    ours.backward()  # type: ignore[no-untyped-call]
    theirs.backward()  # type: ignore[no-untyped-call]
    assert first.grad is not None
    torch.testing.assert_close(first.grad, second.grad)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_whoever_agrees_learns_nothing_more(gamma: float) -> None:
    taught = logits_of((1, 2, 8, 8), 0, 4.0)
    ours = taught.clone().requires_grad_()
    taught_loss(ours, taught, gamma).backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert float(ours.grad.abs().max()) < 1e-3
    extreme = torch.tensor([-1e4, 1e4]).reshape(1, 2, 1, 1)
    for other in (extreme, -extreme):
        logits = extreme.clone().requires_grad_()
        value = taught_loss(logits, other, gamma)
        value.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert bool(value.isfinite())
        assert bool(logits.grad.isfinite().all())


def test_the_loss_is_float32_under_autocast() -> None:
    ours, taught = logits_of((2, 2, 9, 7), 0, 3.0), logits_of((2, 2, 9, 7), 1, 3.0)
    plain = taught_loss(ours, taught, 2.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(taught_loss(ours, taught, 2.0), plain)


# ---------------------------------------------------------------------------------------------------------- whole runs


def test_no_gradient_reaches_the_teacher(teacher: Path) -> None:
    taught = Teacher.load(teacher)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    before = {name: value.clone() for name, value in taught.network.state_dict().items()}
    answer = taught.logits(images)
    assert not answer.requires_grad
    student = torch.zeros_like(answer).requires_grad_()
    taught_loss(student, answer, 2.0).backward()  # type: ignore[no-untyped-call]
    assert images.grad is None
    assert all(value.grad is None and not value.requires_grad for value in taught.network.parameters())
    # In evaluation mode: neither the statistics nor the answer depend on the batch.
    assert all(torch.equal(value, before[name]) for name, value in taught.network.state_dict().items())
    torch.testing.assert_close(taught.logits(images[:1]), answer[:1], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("taught", "fold"), [(2, 1), (1, 2)])
def test_teacher_and_student_of_different_folds(taught: int, fold: int, parts: Path, tmp_path: Path) -> None:
    """What is taught is a map of all pixels, whatever either network makes of their squares."""
    path = write_tiny_model(tmp_path / "teacher.safetensors", network__fold=taught, network__reconstructive_width=5)
    images = torch.rand(2, 3, 50, 64, generator=torch.Generator().manual_seed(0))
    answer = Teacher.load(path).logits(images)
    assert answer.shape == (2, 2, 50, 64)
    assert torch.equal(answer, load_model(path)[0](images)[1])
    trained = distill(path, parts, tmp_path / "run", {"network.fold": fold, "training.images": 8})
    record = trained.header.training
    assert record is not None
    assert record.teacher is not None
    assert record.teacher.fold == taught
    assert trained.header.config.network.fold == fold
    teacher = header_rows(trained.header)["teacher"]
    assert teacher.startswith("fast, widths 5/4 fold 2 levels 3, " if taught == 2 else "fast, widths 5/4 levels 3, ")
    said = "widths 4/4 fold 2 levels 3" if fold == 2 else "widths 4/4 levels 3"
    assert header_rows(trained.header)["preset"].endswith(said)


def test_weight_zero_is_plain_training(teacher: Path, parts: Path, tmp_path: Path) -> None:
    verbs.train(parts, tmp_path / "plain", "edge", settings=SETTINGS)
    distill(teacher, parts, tmp_path / "zero", {"training.distill_weight": 0.0})
    distill(teacher, parts, tmp_path / "half")
    assert_equal_state(tmp_path / "zero", tmp_path / "plain")
    rows, plain = history(tmp_path / "zero"), history(tmp_path / "plain")
    assert all(float(row["taught"]) > 0 for row in rows)
    assert all(row["taught"] == "" for row in plain)
    clock = {"images_per_second", "taught"}
    assert [{key: row[key] for key in row.keys() - clock} for row in rows] == [
        {key: row[key] for key in row.keys() - clock} for row in plain
    ]
    first, second = load_file(tmp_path / "half" / "model.safetensors"), load_file(tmp_path / "plain/model.safetensors")
    assert any(not torch.equal(value, second[name]) for name, value in first.items())


def test_rows_add_up(teacher: Path, parts: Path, tmp_path: Path) -> None:
    distill(teacher, parts, tmp_path, {"training.distill_weight": 0.3, "training.ssim_weight": 0.5})
    for row in history(tmp_path):
        value = {name: float(row[name]) for name in ("loss", "ssim", "l2", "focal", "taught")}
        total = 0.5 * value["ssim"] + value["l2"] + 0.7 * value["focal"] + 0.3 * value["taught"]
        assert value["loss"] == pytest.approx(total, rel=1e-5)


class Broken(BaseException):
    """Not an Exception: nothing in the run may catch it, as nothing catches a kill."""


def break_off(teacher: Path, data: Path, out: Path, settings: dict[str, Any], step: int) -> None:
    one_step = Trainer._one_step

    def breaking(self: Trainer) -> float:
        if self.step == step:
            raise Broken
        return one_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_one_step", breaking)
        with pytest.raises(Broken):
            distill(teacher, data, out, settings | {"training.checkpoint_every": 0})


@pytest.mark.parametrize(
    "settings",
    [{}, {"training.precision": "bf16", "training.accumulate": 2, "training.images": 48}],
    ids=["fp32", "bf16, accumulating"],
)
def test_resumed_equals_unbroken(teacher: Path, parts: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Also where the teacher was moved meanwhile, and where `train` goes on with the run."""
    distill(teacher, parts, tmp_path / "unbroken", settings)
    break_off(teacher, parts, tmp_path / "broken", settings, 3)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(teacher.read_bytes())
    if settings:
        verbs.train(parts, tmp_path / "broken", resume=True)
    else:
        distill(moved, parts, tmp_path / "broken", {"training.checkpoint_every": 60}, resume=True)
    assert_equal_state(tmp_path / "broken", tmp_path / "unbroken")
    clock = "images_per_second"
    ours, theirs = history(tmp_path / "broken"), history(tmp_path / "unbroken")
    assert [row | {clock: ""} for row in ours] == [row | {clock: ""} for row in theirs]


def test_another_teacher_is_refused_on_resuming(teacher: Path, parts: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "run", write_tiny_model(tmp_path / "other.safetensors")
    break_off(teacher, parts, out, {}, 2)
    sums = [read_header(path).sha256[:12] for path in (teacher, other)]
    assert read_record(out / CHECKPOINT)[0]["teacher"][:12] == sums[0]
    with pytest.raises(TrainingError) as caught:
        distill(other, parts, out, resume=True)
    assert str(caught.value) == (
        f"{out}: its run has another teacher (sha256 {sums[0]}, now {sums[1]}); resume with that one"
    )
    verbs.train(parts, tmp_path / "plain", "edge", settings=SETTINGS)
    with pytest.raises(TrainingError, match=rf"another teacher \(sha256 none, now {sums[1]}\)"):
        distill(other, parts, tmp_path / "plain", resume=True)


def test_a_run_without_a_teacher_begun_by_an_older_version_goes_on(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoint says nothing of teachers."""
    save = RunState.save
    monkeypatch.setattr(
        RunState,
        "save",
        lambda self, path, record: save(self, path, {key: record[key] for key in record if key != "teacher"}),
    )
    verbs.train(parts, tmp_path, "edge", settings=SETTINGS)
    verbs.train(parts, tmp_path, resume=True)
    assert "teacher" not in read_record(tmp_path / CHECKPOINT)[0]


def test_the_header_says_the_teacher(teacher: Path, parts: Path, tmp_path: Path, run_cli: Any) -> None:
    student = distill(teacher, parts, tmp_path)
    record = read_header(tmp_path / "model.safetensors").training
    known = read_header(teacher)
    assert record is not None
    assert record == student.header.training
    assert record.teacher == TeacherRecord(
        sha256=known.sha256, preset="fast", reconstructive_width=8, discriminative_width=6, levels=3
    )
    said = run_cli("info", tmp_path / "model.safetensors").out
    assert "fast, widths 8/6 levels 3, " in said
    assert known.sha256[:16] in said
    assert student.header.config.training.teacher == teacher
    assert student.header.config.preset == "edge"


def test_the_student_comes_closer_to_its_teacher(tmp_path: Path) -> None:
    """A teacher with a view of its own (nothing is anomalous but what is bright), which the masks contradict."""
    (data,) = render_demo(tmp_path / "data", "woven", size=64, train=16, test_good=2, test_defect=2)
    teacher = tmp_path / "teacher.safetensors"
    write_tiny_model(teacher)
    settings = SETTINGS | {"training.images": 240, "training.learning_rate": 5e-3, "training.distill_weight": 1.0}
    taught = distill(teacher, data, tmp_path / "taught", settings)
    alone = verbs.train(data, tmp_path / "alone", "edge", settings=settings)
    images = sorted((data / "test").rglob("*.png"))
    wanted = [found.anomaly_map for found in draem.load(teacher, "cpu").predict(images)]

    def distance(student: Detector) -> float:
        maps = [found.anomaly_map for found in student.predict(images)]
        return float(np.mean([np.abs(ours - theirs).mean() for ours, theirs in zip(maps, wanted, strict=True)]))

    assert distance(taught) < 0.7 * distance(alone)


# ------------------------------------------------------------------------------------------------- what is refused


def refused(teacher: Path, data: Path, out: Path, settings: dict[str, Any] | None = None) -> str:
    with pytest.raises((ConfigError, ModelFileError)) as caught:
        distill(teacher, data, out, settings)
    said = str(caught.value)
    assert "\n" not in said
    assert not (out / CHECKPOINT).exists()
    return said


def test_no_such_teacher_is_one_line(parts: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.safetensors"
    assert refused(missing, parts, tmp_path / "run").startswith(f"{missing}: no such file")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    assert str(tmp_path / "damaged.safetensors") in refused(tmp_path / "damaged.safetensors", parts, tmp_path / "run")


def test_an_exported_teacher_is_one_line(teacher: Path, parts: Path, tmp_path: Path) -> None:
    sealed = read_model(teacher)
    artefact = Artefact(format="onnx", precision="fp32", source_sha256=sealed.header.sha256)
    exported = tmp_path / "exported.safetensors"
    write_model(exported, sealed.header.model_copy(update={"artefact": artefact}), sealed.content)
    assert refused(exported, parts, tmp_path / "run") == (
        f"teacher {exported}: an exported model (onnx); give the model that it was exported from, RUN/model.safetensors"
    )


@pytest.mark.parametrize(
    ("taught", "ours", "advice"),
    [
        ({}, {"data.size": 32}, "--set data.size=[64,64]"),
        ({}, {"data.channels": 1}, "--set data.channels=3"),
        ({}, {"data.depth": 16}, "--set data.depth=8"),
        (
            {"data__depth": 16, "data__value_range": [0, 4095]},
            {"data.depth": 8, "data.value_range": None},
            "--set data.depth=16 --set data.value_range=[0,4095]",
        ),
        ({}, {"data.value_range": [0, 100]}, "--set data.value_range=null"),
        ({"data__fit": "letterbox"}, {"data.fit": "resize"}, "--set data.fit=letterbox"),
        (
            {"data__fit": "tiles", "data__overlap": 32},
            {"data.fit": "resize", "data.overlap": 64},
            "--set data.fit=tiles --set data.overlap=32",
        ),
    ],
)
def test_a_teacher_of_other_images_says_how_to_train(
    parts: Path, tmp_path: Path, taught: dict[str, Any], ours: dict[str, Any], advice: str
) -> None:
    """And what it says helps."""
    teacher = write_tiny_model(tmp_path / "teacher.safetensors", **taught)
    said = refused(teacher, parts, tmp_path / "run", ours)
    assert said == f"teacher {teacher}: was trained on images that come in another way; train with {advice}"
    given = dict(verbs_settings(advice))
    distill(teacher, parts, tmp_path / "again", ours | given | {"training.images": 4})


KINDS = [
    {"data__size": [96, 64], "data__channels": 1, "data__depth": 8, "data__fit": "letterbox"},
    {
        "data__size": [64, 96],
        "data__channels": 3,
        "data__depth": 16,
        "data__value_range": [0, 4095],
        "data__fit": "tiles",
        "data__overlap": 32,
    },
]


@pytest.mark.parametrize("kind", KINDS)
def test_images_come_to_the_student_as_to_its_teacher(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]
) -> None:
    """Unless told otherwise, in the file or the settings; a run that goes on has what it began with."""
    asked: list[DataConfig] = []

    def stop(data: Path, out: Path, config: Config, **rest: Any) -> None:
        asked.append(config.data)
        (out / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")

    monkeypatch.setattr(run, "train_run", stop)
    teacher = write_tiny_model(tmp_path / "teacher.safetensors", **kind)
    theirs = read_header(teacher).config.data
    (tmp_path / "own.yaml").write_text("data: {size: 32, select_share: 0.2, fit: resize}", encoding="utf-8")
    verbs.distill(teacher, parts, tmp_path, "official")
    verbs.distill(teacher, parts, tmp_path, config=tmp_path / "own.yaml", settings={"data": {"depth": 8}})
    verbs.distill(teacher, parts, tmp_path, resume=True)
    plain, own, resumed = asked
    names = ("size", "channels", "depth", "value_range", "fit", "overlap")
    assert {name: getattr(plain, name) for name in names} == {name: getattr(theirs, name) for name in names}
    assert plain.interpolation == "linear", "the preset's, which no network sees"
    assert (own.size, own.select_share, own.fit, own.depth) == ((32, 32), 0.2, "resize", 8)
    assert (own.channels, own.value_range, own.overlap) == (theirs.channels, theirs.value_range, theirs.overlap)
    assert resumed == own


def test_memory_for_the_teachers_answer_is_counted(
    teacher: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Teacher.logits

    def limited(self: Teacher, images: Tensor) -> Tensor:
        if len(images) > 2:
            raise MemoryError
        return usual(self, images)

    monkeypatch.setattr(Teacher, "logits", limited)
    with pytest.raises(MemoryLimitError, match=r"out of memory with training\.batch_size=8; 2 fits"):
        distill(teacher, parts, tmp_path, {"training.batch_size": 8})


def verbs_settings(advice: str) -> list[tuple[str, Any]]:
    return [parse_setting(word) for word in advice.split() if word != "--set"]


def test_both_have_a_map_to_speak_of(teacher: Path, parts: Path, tmp_path: Path) -> None:
    alone = {"network.parts": "reconstructive", "score.map": "ssim"}
    assert "training.teacher teaches the discriminative" in refused(teacher, parts, tmp_path / "run", alone)
    config = Config.resolve("fast", None, SETTINGS | alone)
    network, known = Draem(config.network), read_header(teacher)
    dumb = tmp_path / "dumb.safetensors"
    save_model(dumb, network.state_dict(), known.model_copy(update={"config": config}))
    assert refused(dumb, parts, tmp_path / "run").startswith(f"teacher {dumb}: has no discriminative sub-network")


def test_command_line(teacher: Path, parts: Path, tmp_path: Path, run_cli: Any) -> None:
    given = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    done = run_cli("distill", teacher, parts, "--out", tmp_path / "run", "--images", "8", "--seed", "3", *given[:8])
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == f"model: {tmp_path / 'run' / 'model.safetensors'}"
    assert f"teacher: {teacher} (8/6 levels 3)" in done.err
    config = read_header(tmp_path / "run" / "model.safetensors").config
    assert (config.preset, config.training.images, config.training.seed) == ("edge", 8, 3)
    failed = run_cli("distill", tmp_path / "no.safetensors", parts, "--out", tmp_path / "other")
    assert failed.code == 1
    assert failed.err.startswith(f"draem: {tmp_path / 'no.safetensors'}: no such file")
    assert len(failed.err.splitlines()) == 1
    all_of_them = run_cli("distill", teacher, parts, "--out", tmp_path / "other", "--category", "all")
    assert all_of_them.err == "draem: category all: a teacher teaches one category; name it\n"


def test_grey_and_padded_images(tmp_path: Path) -> None:
    """A teacher of one channel; sides that do not divide by 32."""
    for index in range(8):
        pixels = np.random.default_rng(index).integers(60, 200, (40, 33), dtype=np.uint8)
        write_image(tmp_path / "grey" / f"{index}.png", pixels[..., None])
    teacher = write_tiny_model(tmp_path / "teacher.safetensors", data__channels=1, data__size=[40, 33])
    student = distill(teacher, tmp_path / "grey", tmp_path / "run", {"data.size": [40, 33], "training.images": 8})
    assert student.header.channels == 1
