"""Whole runs, small: what they write, what they learn from, how they start."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor

import draem
from draem import verbs
from draem.config import Config
from draem.data.layouts import read_layout
from draem.data.samples import split_good
from draem.errors import ConfigError, DataError, ModelFileError, TrainingError
from draem.images import write_image
from draem.inspection.detector import Detector
from draem.network.losses import draem_losses
from draem.simulation.batch import load_normal
from draem.simulation.draws import sample_keys
from draem.training import trainer, validation
from draem.training.average import MovingAverage
from draem.training.order import image_indices
from draem.training.progress import COLUMNS
from draem.training.threads import use_threads
from tiny import write_noise

SETTINGS: dict[str, Any] = {
    "data.size": 32,
    "network.reconstructive_width": 4,
    "network.fold": 1,
    "network.levels": 3,
    "network.discriminative_width": 4,
    "training.batch_size": 4,
    "training.images": 24,
    "training.log_every": 1,
    "training.validations": 1,
    "training.ema": 0.5,
    "training.precision": "fp32",
    "training.accelerator": "cpu",
    "training.threads": 1,
    "score.filter_size": 3,
}


def train(data: Path, out: Path, **options: Any) -> Detector:
    settings = SETTINGS | options.pop("settings", {})
    return verbs.train(data, out, options.pop("preset", "edge"), settings=settings, **options)


def history(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert not [name for name, value in ours.items() if not torch.equal(value, theirs[name])]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("parts"), 12)


@pytest.fixture(scope="module")
def finished(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Detector]:
    """A run of six steps with three validations, and its detector."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    return out, train(parts, out, settings={"training.validations": 3})


# --------------------------------------------------------------------------------------------------- what a run leaves


def test_train_returns_the_detector_that_load_reads(finished: tuple[Path, Detector], parts: Path) -> None:
    out, detector = finished
    loaded = draem.load(out / "model.safetensors")
    assert detector.header == loaded.header
    thresholds = detector.header.thresholds
    assert thresholds is not None
    assert "1 good images held out" in thresholds.chosen_on
    first, second = detector.predict(parts / "03.png"), loaded.predict(parts / "03.png")
    assert first.score == second.score
    assert first.verdict in ("accept", "review", "reject")


def test_the_threshold_is_the_score_of_the_calibrate_image(finished: tuple[Path, Detector], parts: Path) -> None:
    """With one image the quantile is its score."""
    out, detector = finished
    (name,) = json.loads((out / "split.json").read_text())["calibrate"]
    assert detector.header.thresholds is not None
    assert detector.header.thresholds.reject == pytest.approx(detector.predict(parts / name).score, rel=1e-6)


def test_the_record_of_a_run(finished: tuple[Path, Detector], parts: Path) -> None:
    out, detector = finished
    header = detector.header
    assert header.training is not None
    assert header.data is not None
    assert (header.training.images_seen, header.training.steps, header.training.step_kept) == (24, 6, 6)
    assert (header.data.train, header.data.select, header.data.calibrate) == (10, 1, 1)
    assert Config.resolve("", out / "config.yaml") == header.config
    names = json.loads((out / "split.json").read_text())
    split = split_good(read_layout(parts).train_good, 0.1, 0.1, seed=0)
    for job in ("train", "select", "calibrate"):
        assert names[job] == [sample.name for sample in getattr(split, job)]


def test_the_history_of_a_run(finished: tuple[Path, Detector]) -> None:
    rows = history(finished[0])
    assert tuple(rows[0]) == COLUMNS
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["step"] for row in rows if row["val_pixel_ap"]] == ["2", "4", "6"]
    for row in rows:
        parts = float(row["ssim"]) + float(row["l2"]) + float(row["focal"])
        assert float(row["loss"]) == pytest.approx(parts, rel=1e-6)
    accumulator = EventAccumulator(str(finished[0] / "tensorboard"))
    accumulator.Reload()
    losses = [(event.step, event.value) for event in accumulator.Scalars("training/loss")]
    assert losses == [(int(row["step"]), pytest.approx(float(row["loss"]))) for row in rows]
    assert [event.step for event in accumulator.Images("validation")] == [2, 4, 6]


def test_a_run_is_not_written_over(finished: tuple[Path, Detector], parts: Path) -> None:
    out, _ = finished
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(TrainingError, match="--resume"):
        train(parts, out)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    (out.parent / "file").write_text("")
    with pytest.raises(TrainingError, match="is a file"):
        train(parts, out.parent / "file")


def test_the_same_seed_gives_the_same_model_and_another_does_not(
    finished: tuple[Path, Detector], parts: Path, tmp_path: Path
) -> None:
    train(parts, tmp_path / "same", settings={"training.validations": 3})
    assert_same_weights(tmp_path / "same", finished[0])
    train(parts, tmp_path / "other", settings={"training.seed": 1})
    assert history(tmp_path / "other")[0]["loss"] != history(tmp_path / "same")[0]["loss"]


def test_the_average_is_the_model_where_there_is_one(
    finished: tuple[Path, Detector], parts: Path, tmp_path: Path
) -> None:
    def last(out: Path, prefix: str) -> dict[str, Tensor]:
        state = load_file(out / trainer.CHECKPOINT)
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    model, average = weights(finished[0]), last(finished[0], "average.")
    assert model.keys() == average.keys()
    assert all(torch.equal(value, average[name]) for name, value in model.items())
    assert any(not torch.equal(value, average[name]) for name, value in last(finished[0], "model.").items())
    train(parts, tmp_path, settings={"training.ema": 0.0, "training.images": 8})
    model, trained = weights(tmp_path), last(tmp_path, "model.")
    assert last(tmp_path, "average.") == {}
    assert all(torch.equal(value, trained[name]) for name, value in model.items())


def test_the_average_takes_in_every_step(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its number, which decides how far back it reaches."""
    steps: list[int] = []
    monkeypatch.setattr(MovingAverage, "update", lambda self, network, step: steps.append(step))
    train(parts, tmp_path, settings={"training.validations": 0})
    assert steps == list(range(6))


def test_validations_do_not_change_the_training(finished: tuple[Path, Detector], parts: Path, tmp_path: Path) -> None:
    train(parts, tmp_path, settings={"training.validations": 0})
    assert_same_weights(tmp_path, finished[0])


# ------------------------------------------------------------------------------------------ what a run learns from


def grey_levels(images: Tensor) -> set[int]:
    return set((images * 255).round().to(torch.uint8).flatten().tolist())


def test_no_image_has_two_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image has a grey level of its own; which levels each job sees is recorded."""
    for level in range(10, 250, 12):
        write_image(tmp_path / "data" / f"{level:03d}.png", np.full((32, 32, 3), level, np.uint8))
    seen: dict[str, set[int]] = {"train": set(), "select": set(), "calibrate": set()}
    stream = Detector.stream

    def recording(job: str) -> Any:
        def load(*args: Any) -> tuple[Tensor, Tensor | None]:
            images, counted = load_normal(*args)
            seen[job] |= grey_levels(images)
            return images, counted

        return load

    def recording_stream(self: Detector, sources: Any, **options: Any) -> Any:
        seen["calibrate"] |= {int(Path(source).stem) for source in sources}
        return stream(self, sources, **options)

    monkeypatch.setattr(trainer, "load_normal", recording("train"))
    monkeypatch.setattr(validation, "load_normal", recording("select"))
    monkeypatch.setattr(Detector, "stream", recording_stream)
    train(
        tmp_path / "data",
        tmp_path / "run",
        settings={"training.images": 40, "training.seed": 3, "simulation.lighting": 0.0},
    )
    names = json.loads((tmp_path / "run" / "split.json").read_text())
    for job, levels in seen.items():
        assert levels == {int(Path(name).stem) for name in names[job]}, job
    assert sum(map(len, seen.values())) == len(set.union(*seen.values())) == 20


def test_a_batch_has_the_same_samples_however_it_is_cut(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which images, and by which keys their anomalies are drawn. (Of processes: see test_distributed.)"""
    drawn: list[tuple[int, int]] = []
    shown: list[int] = []

    def keys(seed: int, step: int, samples: Tensor) -> Tensor:
        drawn.extend((step, int(sample)) for sample in samples)
        return sample_keys(seed, step, samples)

    def indices(*args: Any) -> Tensor:
        found = image_indices(*args)
        shown.extend(found.tolist())
        return found

    monkeypatch.setattr(trainer, "sample_keys", keys)
    monkeypatch.setattr(trainer, "image_indices", indices)
    orders = []
    for batch, accumulate in ((8, 1), (4, 2), (2, 4)):
        drawn.clear()
        shown.clear()
        cut = {"training.batch_size": batch, "training.accumulate": accumulate, "training.validations": 0}
        train(parts, tmp_path / str(batch), settings=cut)
        assert drawn == [(step, sample) for step in range(3) for sample in range(8)]
        orders.append(list(shown))
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0][:10]) == sorted(orders[0][10:20]) == list(range(10))


def test_test_images_play_no_part(tmp_path: Path) -> None:
    write_noise(tmp_path / "data/train/good", 10)
    write_noise(tmp_path / "data/test/good", 3, seed=1)
    write_noise(tmp_path / "data/test/hole", 3, seed=2)
    first = train(tmp_path / "data", tmp_path / "first")
    for path in (tmp_path / "data/test").rglob("*.png"):
        path.unlink() if path.stem == "01" else path.write_bytes(b"damaged")
    second = train(tmp_path / "data", tmp_path / "second")
    assert_same_weights(tmp_path / "first", tmp_path / "second")
    assert first.header.thresholds == second.header.thresholds
    assert (tmp_path / "first/split.json").read_text() == (tmp_path / "second/split.json").read_text()
    assert "test/" not in (tmp_path / "first/split.json").read_text()


def damaged(folder: Path, jobs: tuple[str, ...]) -> tuple[Path, list[Path]]:
    """Twelve images, one of each job damaged."""
    split = split_good(read_layout(write_noise(folder, 12)).train_good, 0.1, 0.1, seed=0)
    paths = [getattr(split, job)[0].path for job in jobs]
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])
    return folder, paths


def test_damaged_images_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One in each job: without its only select and calibrate image a run still ends, without a threshold."""
    data, paths = damaged(tmp_path / "data", ("train", "select", "calibrate"))
    detector = train(data, tmp_path / "run")
    said = capsys.readouterr().err.splitlines()
    for path in paths:
        assert len([line for line in said if line.startswith("left out: ") and str(path) in line]) == 1, path
    assert detector.header.thresholds is None
    assert any(line.startswith("no threshold") for line in said)
    assert not any(row["val_loss"] for row in history(tmp_path / "run"))


@pytest.mark.parametrize("job", ["train", "select", "calibrate"])
def test_damaged_images_stop_a_run_that_says_so(tmp_path: Path, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the training, not after."""
    data, (path,) = damaged(tmp_path / "data", (job,))
    monkeypatch.setattr(trainer.Trainer, "fit", lambda self, **options: pytest.fail("it trains"))
    with pytest.raises(DataError) as caught:
        train(data, tmp_path / "run", settings={"data.on_corrupt": "stop"})
    assert str(path) in str(caught.value)


def test_a_folder_without_good_images(tmp_path: Path) -> None:
    write_noise(tmp_path / "data/test/hole", 2)
    with pytest.raises(DataError, match="no good images to train on"):
        train(tmp_path / "data", tmp_path / "run")


def test_without_held_out_images_there_is_no_validation_and_no_threshold(parts: Path, tmp_path: Path) -> None:
    """As in the presets `official` and `paper`, which train on every good image."""
    detector = train(parts, tmp_path, preset="official", settings={"training.images": 8})
    assert detector.header.data is not None
    assert (detector.header.data.train, detector.header.data.select) == (12, 0)
    assert detector.header.thresholds is None
    assert not any(row["val_loss"] for row in history(tmp_path))


def test_without_simulated_anomalies_nothing_is_known_of_pixels(parts: Path, tmp_path: Path) -> None:
    """Validation on clean samples alone: no figure, no crash."""
    train(parts, tmp_path, settings={"simulation.clean_share": 1.0, "training.images": 8})
    row = history(tmp_path)[-1]
    assert row["val_loss"]
    assert (row["val_pixel_ap"], row["val_pixel_auroc"], row["val_image_auroc"]) == ("", "", "")


# --------------------------------------------------------------------------------------------------- how a run starts


def test_init_starts_from_the_given_weights(finished: tuple[Path, Detector], parts: Path, tmp_path: Path) -> None:
    """At a learning rate of nothing, its weights come out again; and the first loss is that of a trained network."""
    still = {"training.learning_rate": 1e-30, "training.weight_decay": 0.0, "training.images": 8}
    trained = train(parts, tmp_path, settings=still, init=finished[0] / "model.safetensors")
    assert trained.header.config.training.init == finished[0] / "model.safetensors"
    before, after = weights(finished[0]), weights(tmp_path)
    for name, value in before.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[name], value, rtol=0, atol=1e-20, msg=name)
    assert float(history(tmp_path)[0]["loss"]) < 0.95 * float(history(finished[0])[0]["loss"])


def test_init_from_another_network_says_which(finished: tuple[Path, Detector], parts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its network is 4/4 levels 3 .* this run's is 4/5 levels 3"):
        train(
            parts,
            tmp_path / "run",
            settings={"network.discriminative_width": 5},
            init=finished[0] / "model.safetensors",
        )
    with pytest.raises(ConfigError, match=r"its network is 4/4 levels 3 \(.* this run's is 4/4 fold 2 levels 3 \("):
        train(parts, tmp_path / "fold", settings={"network.fold": 2}, init=finished[0] / "model.safetensors")
    with pytest.raises(ConfigError, match=r"its network is 4/4 levels 3 \(.* this run's is 4/4 levels 5 \("):
        train(parts, tmp_path / "levels", settings={"network.levels": 5}, init=finished[0] / "model.safetensors")
    with pytest.raises(
        ConfigError, match=r"its network is 4/4 levels 3 \(aligned .* 4/4 levels 3 \(discriminative alone, aligned"
    ):
        train(
            parts,
            tmp_path / "alone",
            settings={"network.parts": "discriminative", "score.map": "segmentation"},
            init=finished[0] / "model.safetensors",
        )
    with pytest.raises(ModelFileError, match=r"nowhere\.safetensors"):
        train(parts, tmp_path / "other", init=tmp_path / "nowhere.safetensors")


def test_threads_are_those_of_the_run(parts: Path, tmp_path: Path) -> None:
    """Sums depend on them, so a resumed run takes the number from its checkpoint."""
    settings = {"training.threads": None, "training.images": 8}
    use_threads(1)
    train(parts, tmp_path / "free", settings=settings)
    use_threads(3)
    train(parts, tmp_path / "free", settings=settings, resume=True)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
    train(parts, tmp_path / "told", settings={"training.threads": 2, "training.images": 8})
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)


# ------------------------------------------------------------------------------------------------- mixed precision


def losses(out: Path) -> NDArray[np.float64]:
    return np.array([float(row["loss"]) for row in history(out)])


def test_bf16_follows_the_fp32_loss_curve(parts: Path, tmp_path: Path) -> None:
    settings = {
        "training.images": 200,
        "training.validations": 0,
        "network.reconstructive_width": 8,
        "network.fold": 1,
        "network.levels": 3,
        "training.keep": "last",
    }
    for precision in ("fp32", "bf16"):
        train(parts, tmp_path / precision, settings=settings | {"training.precision": precision})
    single, half = losses(tmp_path / "fp32"), losses(tmp_path / "bf16")
    assert len(single) == 50
    assert single[-5:].mean() < 0.75 * single[:5].mean()
    assert not np.array_equal(single, half)
    # bfloat16 has 8 significant bits; from step to step the two runs drift apart, by a few percent at this rate.
    assert abs(half[0] / single[0] - 1) < 2**-9
    assert np.abs(half[:10] / single[:10] - 1).max() < 2**-4
    assert np.abs(half.reshape(5, 10).mean(1) / single.reshape(5, 10).mean(1) - 1).max() < 2**-4


def test_losses_are_float32_under_autocast() -> None:
    """SSIM's variances are differences of nearly equal numbers: in bfloat16 nothing is left of them."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.rand(2, 3, 40, 33, generator=generator)
    mask = (torch.rand(2, 1, 40, 33, generator=generator) > 0.5).float()
    logits = torch.randn(2, 2, 40, 33, generator=generator)
    plain = draem_losses(normal * 0.9, logits, normal, mask, 1.0, 2.0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = draem_losses(normal * 0.9, logits, normal, mask, 1.0, 2.0)
    for name in ("total", "ssim", "l2", "focal"):
        assert torch.equal(getattr(plain, name), getattr(mixed, name)), name
