"""`draem calibrate`: which images it takes, what it writes into the model, and what it says when they are too few.

The model's score is an image's brightness, so that thresholds are known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import draem
from conftest import Outcome
from draem.data.samples import content_sum
from draem.errors import ConfigError, DataError, ModelFileError
from draem.evaluation.calibrate import Rule, calibrate
from draem.evaluation.evaluate import evaluate
from draem.evaluation.operating import Costs
from draem.images import write_image
from draem.inspection.calibration import CONFIDENT, ON_AVERAGE
from draem.inspection.edits import set_values
from draem.modelfile import DataRecord, Thresholds, edit_header, read_header, read_model
from graphs import SIZE, WEIGHT, brightness_header, write_brightness
from tiny import write_noise

Run = Callable[..., Outcome]
GOOD = list(range(40, 100))
BAD = list(range(90, 150, 2))


def _write(folder: Path, levels: Sequence[int], first: int = 0) -> Path:
    """Images of one brightness each, all different; returns the folder."""
    for number, level in enumerate(levels, first):
        image = np.full((SIZE, SIZE, 3), level, np.uint8)
        image[0, 0] = (number % 40, number // 40, 0)  # in the corner, where the mean filter sees least
        write_image(folder / f"{number:03d}.png", image)
    return folder


def _score(level: int) -> float:
    return float(np.float32(WEIGHT) * (np.float32(level) / np.float32(255)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_brightness(tmp_path / "model.onnx", brightness_header(Thresholds(reject=0.9, chosen_on="a test's")))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MVTec's layout: 60 good images to train, 10 good and 30 anomalous ones to test."""
    root = tmp_path_factory.mktemp("data") / "part"
    _write(root / "train" / "good", GOOD)
    _write(root / "test" / "good", range(45, 95, 5), 60)
    _write(root / "test" / "bright", BAD, 70)
    return root


def _trained_on(model: Path, paths: Sequence[Path]) -> None:
    """Say in the model's header that it was trained on these files."""
    used = sorted(content_sum(path) for path in paths)
    record = DataRecord(name="part", fingerprint="0", train=len(used), select=0, calibrate=0, used=used)
    edit_header(model, read_header(model).model_copy(update={"data": record}))


# ------------------------------------------------------------------------------------------------------------- promises


def test_a_promise_from_good_images(model: Path, labelled: Path) -> None:
    before = read_model(model)
    found = calibrate(model, labelled, Rule(false_reject=0.05, review=0.3))
    header = read_header(model)
    assert header.thresholds == found.thresholds
    assert len(found.good) == 60
    assert not found.anomalous
    assert found.thresholds.reject == pytest.approx(_score(99), abs=1e-6)  # none of 60 above: 59 are needed for 5 %
    beyond = CONFIDENT.beyond(60, 0.3)
    assert found.thresholds.review == pytest.approx(_score(99 - beyond), abs=1e-6)
    promise = found.thresholds.reject_promise
    assert promise is not None
    assert (promise.rate, promise.confidence, promise.images, promise.beyond) == (0.05, 0.95, 60, 0)
    assert promise.in_words() in found.thresholds.chosen_on
    assert found.thresholds.review_promise is not None
    assert found.thresholds.review_promise.in_words() in found.thresholds.chosen_on
    assert (found.good_shares["reject"].count, found.good_shares["review"].count) == (0, beyond)
    assert read_model(model).header.sha256 == before.header.sha256


def test_a_part_is_judged_by_it(model: Path, tmp_path: Path, labelled: Path) -> None:
    calibrate(model, labelled, Rule(false_reject=0.05, review=0.3))
    images = _write(tmp_path / "new", [50, 97, 200])
    found = list(draem.load(model).stream(sorted(images.iterdir())))
    assert [result.verdict for result in found] == ["accept", "review", "reject"]
    assert [result.p_value for result in found] == pytest.approx([51 / 61, 4 / 61, 1 / 61])
    assert found[0].to_dict()["p_value"] == found[0].p_value


def test_on_average_needs_fewer(model: Path, labelled: Path) -> None:
    found = calibrate(model, labelled, Rule(false_reject=1 / 61, assurance=ON_AVERAGE))
    assert found.thresholds.reject == pytest.approx(_score(99), abs=1e-6)
    assert "on average at most 1.64% of good parts" in found.thresholds.chosen_on


def test_too_few_leave_the_model_as_it_was(model: Path, labelled: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(DataError, match=r"with 60 good images the best promise is 4\.9% with 95% confidence; 0\.5%"):
        calibrate(model, labelled, Rule(false_reject=0.005))
    assert model.read_bytes() == before


def test_escapes_bound_the_review_zone_from_below(model: Path, labelled: Path) -> None:
    found = calibrate(model, labelled, Rule(false_reject=0.05, escape=0.1), defect_rate=0.1)
    low = BAD[CONFIDENT.beyond(30, 0.1)]
    assert found.thresholds.review is not None
    assert found.thresholds.review < _score(low) + 1e-7
    assert found.thresholds.review == pytest.approx(_score(low), abs=1e-6)
    promise = found.thresholds.review_promise
    assert promise is not None
    assert (promise.of, promise.rate, promise.images) == ("anomalous", 0.1, 30)
    expected = found.per_thousand()
    assert expected is not None
    good, anomalous = found.good_shares, found.anomalous_shares
    # A promise's own threshold rejects one in their number and one more of new parts, on average.
    assert expected["false_rejects"] == pytest.approx(1000 * 0.9 * (good["reject"].count + 1) / (good["reject"].of + 1))
    beyond = (anomalous["accept"].count + 1) / (anomalous["accept"].of + 1)
    assert expected["escapes"] == pytest.approx(1000 * 0.1 * beyond)
    reviewed = 0.9 * (1 - good["accept"].value - (good["reject"].count + 1) / (good["reject"].of + 1))
    reviewed += 0.1 * (1 - beyond - anomalous["reject"].value)
    assert expected["reviews"] == pytest.approx(1000 * reviewed)


def test_promises_that_both_hold_need_no_review(model: Path, tmp_path: Path) -> None:
    root = tmp_path / "apart"
    _write(root / "train" / "good", GOOD)
    _write(root / "test" / "bright", range(150, 210), 60)
    found = calibrate(model, root, Rule(false_reject=0.05, escape=0.05))
    assert found.thresholds.review is None
    assert found.thresholds.reject == pytest.approx(_score(99), abs=1e-6)
    assert "such defects" in found.thresholds.chosen_on


def test_escapes_alone(model: Path, labelled: Path) -> None:
    found = calibrate(model, labelled, Rule(escape=0.1))
    assert found.thresholds.reject_promise is not None
    assert found.thresholds.reject_promise.of == "anomalous"
    assert found.anomalous_shares["accept"].count == CONFIDENT.beyond(30, 0.1)


# --------------------------------------------------------------------------------------------------------- best for


def test_by_f1_and_by_cost(model: Path, labelled: Path) -> None:
    f1 = calibrate(model, labelled, Rule(f1=True))
    assert (len(f1.good), len(f1.anomalous)) == (70, 30)
    assert f1.interval is not None
    assert f1.interval[0] <= f1.thresholds.reject <= f1.interval[1]
    assert "no promise for others" in f1.thresholds.chosen_on
    assert f1.thresholds.reject_promise is None
    cost = calibrate(model, labelled, Rule(costs=Costs(500, 10, 0.05, review=1)))
    assert cost.thresholds.review is not None
    assert "an escape costs 500, a false reject 10, a review 1, and 5% of parts are anomalous" in (
        cost.thresholds.chosen_on
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "one of these"),
        ({"f1": True, "false_reject": 0.1}, "one of these"),
        ({"f1": True, "costs": Costs(1, 1, 0.1)}, "one of these"),
        ({"review": 0.1, "f1": True}, "review rate goes with"),
        ({"review": 0.1, "false_reject": 0.01, "escape": 0.1}, "review rate goes with"),
        ({"review": 0.01, "false_reject": 0.1}, "rejected parts count in it"),
        ({"false_reject": 1.0}, "false-reject is 1"),
        ({"escape": 0.0}, "escape is 0"),
        ({"escape": float("nan")}, "escape is nan"),
    ],
)
def test_rules_that_make_no_sense(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Rule(**wrong)


def test_labels_are_needed_for_rules_between_labels(model: Path, labelled: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no anomalous images, which this rule needs"):
        calibrate(model, labelled / "train" / "good", Rule(f1=True))
    only_bad = tmp_path / "only"
    _write(only_bad / "test" / "bright", BAD)
    with pytest.raises(DataError, match="0 good images: at least 2"):
        calibrate(model, only_bad, Rule(f1=True))


# ------------------------------------------------------------------------------------------------------ which images


def test_images_that_it_was_trained_on_are_left_out(model: Path, labelled: Path) -> None:
    trained = sorted((labelled / "train" / "good").iterdir())[:20]  # the darkest
    _trained_on(model, trained)
    found = calibrate(model, labelled, Rule(false_reject=0.1))
    assert len(found.good) == 40
    assert min(found.good) == pytest.approx(_score(60), abs=1e-6)
    assert found.notes == ["left out: 20 images that the model was trained or selected on"]
    _trained_on(model, sorted((labelled / "train" / "good").iterdir()))
    with pytest.raises(DataError, match=r"no good images to choose .* needs 29.*left out: 60 images"):
        calibrate(model, labelled, Rule(false_reject=0.1))


def test_a_copy_counts_once(model: Path, tmp_path: Path) -> None:
    folder = _write(tmp_path / "good", GOOD)
    (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
    found = calibrate(model, folder, Rule(false_reject=0.05))
    assert len(found.good) == 60
    assert "left out: 1 copies of other images" in found.notes


def test_what_cannot_be_read_is_named(model: Path, tmp_path: Path) -> None:
    folder = _write(tmp_path / "good", GOOD)
    (folder / "bad.png").write_bytes(b"\x89PNG nothing")
    found = calibrate(model, folder, Rule(false_reject=0.05))
    assert len(found.good) == 60
    assert any("bad.png" in note for note in found.notes)


def test_test_images_stay_unused_unless_labels_are_needed(model: Path, labelled: Path) -> None:
    assert len(calibrate(model, labelled, Rule(false_reject=0.05)).good) == 60
    found = calibrate(model, labelled / "test" / "good", Rule(false_reject=0.3))
    assert len(found.good) == 10


def test_a_training_says_what_it_used(tmp_path: Path) -> None:
    """What is trained or selected on, and not what is held out for the threshold."""
    folder = write_noise(tmp_path / "good", 10)
    draem.train(folder, tmp_path / "run", "edge", settings=SMALL)
    header = read_header(tmp_path / "run/model.safetensors")
    jobs = json.loads((tmp_path / "run/split.json").read_text())
    assert header.data is not None
    assert header.data.used == sorted(content_sum(folder / name) for name in jobs["train"] + jobs["select"])
    assert header.reference is not None
    assert len(header.reference.scores) == len(jobs["calibrate"])
    assert header.thresholds is not None
    assert header.thresholds.reject_promise is not None
    assert header.thresholds.reject_promise.confidence is None


SMALL: dict[str, Any] = {
    "training.images": 4,
    "training.batch_size": 4,
    "training.validations": 0,
    "data.size": 32,
    "network.reconstructive_width": 2,
    "network.discriminative_width": 2,
    "network.fold": 1,
    "network.levels": 3,
    "training.threads": 1,
}


def test_copies_of_what_was_trained_on_choose_no_first_threshold(tmp_path: Path) -> None:
    folder = write_noise(tmp_path / "good", 1)
    for number in range(1, 12):
        (folder / f"{number:02d}.png").write_bytes((folder / "00.png").read_bytes())
    header = draem.train(folder, tmp_path / "run", "edge", settings=SMALL).header
    assert (header.thresholds, header.reference) == (None, None)


def test_what_the_first_weights_were_trained_on_is_known_as_well(tmp_path: Path) -> None:
    """Of a run with another seed, whose held-out images the first one trained on."""
    folder = write_noise(tmp_path / "good", 10)
    first = draem.train(folder, tmp_path / "first", "edge", settings=SMALL | {"training.seed": 0})
    again = draem.train(
        folder,
        tmp_path / "again",
        "edge",
        settings=SMALL | {"training.seed": 1},
        init=tmp_path / "first/model.safetensors",
    )
    assert first.header.data is not None
    assert again.header.data is not None
    assert set(first.header.data.used) < set(again.header.data.used)
    used = set(again.header.data.used)
    held_out = json.loads((tmp_path / "again/split.json").read_text())["calibrate"]
    new = [name for name in held_out if content_sum(folder / name) not in used]
    assert (again.header.thresholds is not None) == bool(new)


def test_an_evaluation_on_images_that_the_model_knows_says_so(model: Path, labelled: Path) -> None:
    assert evaluate(draem.load(model), labelled).known == 0
    calibrate(model, labelled, Rule(f1=True))
    found = evaluate(draem.load(model), labelled)
    assert found.known == 40
    assert "flattered: 40 of these images" in "\n".join(found.in_words())
    set_values(model, ["review=0.1"])
    assert evaluate(draem.load(model), labelled).known == 40
    set_values(model, ["threshold=0.5"])
    assert evaluate(draem.load(model), labelled).known == 0


# ----------------------------------------------------------------------------------------------------------- profiles


def test_a_profile_has_thresholds_of_its_own(model: Path, labelled: Path) -> None:
    before = read_header(model)
    calibrate(model, labelled, Rule(false_reject=0.05), profile="camera-2")
    header = read_header(model)
    assert (header.thresholds, header.reference) == (before.thresholds, before.reference)
    own, other = draem.load(model), draem.load(model, profile="camera-2")
    image = np.full((SIZE, SIZE, 3), 120, np.uint8)
    assert (own.predict(image).verdict, other.predict(image).verdict) == ("accept", "reject")
    assert own.predict(image).p_value is None
    assert other.predict(image).p_value == pytest.approx(1 / 61)
    with pytest.raises(ModelFileError, match=r"profile 'camera-3': there is camera-2; make one"):
        draem.load(model, profile="camera-3")
    set_values(model, ["threshold=0.25"], "camera-2")
    assert draem.load(model, profile="camera-2").predict(image).threshold == 0.25
    set_values(model, ["threshold=none"], "camera-2")
    assert not read_header(model).profiles


def test_a_profile_by_hand(model: Path) -> None:
    set_values(model, ["threshold=0.5", "review=0.25"], "red")
    assert read_header(model).profiles["red"].thresholds == Thresholds(reject=0.5, review=0.25, chosen_on="set by hand")
    with pytest.raises(ConfigError, match="all else is the same for all"):
        set_values(model, ["region=none"], "red")
    with pytest.raises(ConfigError, match="no threshold for it to lie below"):
        set_values(model, ["review=0.1"], "blue")
    for name in ("a b", "", "x" * 65, "new\nline"):
        with pytest.raises(ConfigError, match="a name has up to 64 letters"):
            set_values(model, ["threshold=0.5"], name)
    assert list(read_header(model).profiles) == ["red"]


# -------------------------------------------------------------------------------------------------- what ends a promise


def test_another_threshold_or_region_ends_the_promise(model: Path, labelled: Path, tmp_path: Path) -> None:
    calibrate(model, labelled, Rule(false_reject=0.05, review=0.3))
    calibrate(model, labelled, Rule(false_reject=0.05), profile="red")
    set_values(model, ["review=0.1"])
    found = read_header(model).thresholds
    assert found is not None
    assert found.reject_promise is not None
    assert found.review_promise is None
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:8] = 255
    write_image(tmp_path / "mask.png", mask)
    set_values(model, [f"region={tmp_path / 'mask.png'}"])
    header = read_header(model)
    for thresholds, reference in (
        (header.thresholds, header.reference),
        (header.profiles["red"].thresholds, header.profiles["red"].reference),
    ):
        assert thresholds is not None
        assert (thresholds.reject_promise, reference) == (None, None)
        assert "promises nothing since region or registration was changed" in thresholds.chosen_on
    calibrate(model, labelled, Rule(false_reject=0.05))
    again = read_header(model).thresholds
    assert again is not None
    assert again.reject_promise is not None
    set_values(model, ["threshold=0.3"])
    assert read_header(model).thresholds == Thresholds(reject=0.3, chosen_on="set by hand")


# ----------------------------------------------------------------------------------------------------- command line


def test_the_command(run_cli: Run, model: Path, labelled: Path) -> None:
    ended = run_cli("calibrate", model, labelled, "--false-reject", "0.05", "--review", "0.3", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out.splitlines()[-1])
    assert found["thresholds"]["reject"] == pytest.approx(_score(99), abs=1e-6)
    assert found["good"]["review"]["count"] == CONFIDENT.beyond(60, 0.3)
    assert "of 1,000 parts" in ended.out
    assert "at most 5% of good parts score above, with 95% confidence (0 of 60 above)" in ended.out
    info = run_cli("info", model)
    assert "against the scores of 60 good images" in info.out
    named = run_cli("calibrate", model, labelled, "--false-reject", "0.05", "--profile", "red")
    assert named.code == 0
    assert "profile red" in run_cli("info", model).out


def test_the_command_with_labels(run_cli: Run, model: Path, labelled: Path) -> None:
    ended = run_cli("calibrate", model, labelled, "--f1")
    assert ended.code == 0
    assert "(95%, bootstrap)" in ended.out
    options = ("--escape-cost", "500", "--reject-cost", "10", "--review-cost", "1", "--defect-rate", "0.05")
    ended = run_cli("calibrate", model, labelled, *options, "--json")
    assert ended.code == 0
    assert "of 1,000 parts, 5% of them anomalous:" in ended.out
    assert json.loads(ended.out.splitlines()[-1])["per_thousand"]["escapes"] is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--false-reject", "0.005"], "0.5% with 95% confidence needs 598, on average 199"),
        (["--false-reject", "0.005", "--promise", "average"], "0.5% on average needs 199"),
        (["--false-reject", "2"], "false-reject is 2"),
        (["--promise", "surely"], "confidence or average"),
        (["--confidence", "1"], "the confidence is 1"),
        (["--escape-cost", "10"], "needs --defect-rate"),
        (["--defect-rate", "7"], "defect rate is 7"),
        (["--false-reject", "0.05", "--profile", "a b"], "a name has up to 64"),
        (["--f1", "--escape", "0.1"], "by one of these"),
    ],
)
def test_what_cannot_be_is_one_line(run_cli: Run, model: Path, labelled: Path, options: list[str], says: str) -> None:
    before = model.read_bytes()
    ended = run_cli("calibrate", model, labelled, *options)
    assert ended.code == 1
    assert says in ended.err
    assert ended.err.strip().splitlines()[-1].startswith("draem: ")
    assert "Traceback" not in ended.err
    assert model.read_bytes() == before
