"""Registration: where a part lies is found, inspected where it should lie, and told in the image's own pixels."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import draem
from draem import preview
from draem.config import Config, DataConfig
from draem.data.bank import ImageBank
from draem.data.layouts import read_layout
from draem.data.registration import Placement, Registrar, read_registration, registrar_of, registration_of
from draem.deployment.material import draw_material
from draem.errors import ConfigError, DataError, ModelFileError
from draem.evaluation.calibrate import Rule, calibrate
from draem.evaluation.evaluate import evaluate
from draem.images import plan_fit, write_image
from draem.inspection.calibration import ON_AVERAGE
from draem.inspection.described import header_rows
from draem.inspection.detector import Detector
from draem.inspection.edits import set_values
from draem.modelfile import Header, RegionOfInterest, Registration, Thresholds, edit_header, read_header
from draem.modelfile.edits import with_scene
from draem.training.folds import fold_thresholds
from graphs import brightness_header, write_brightness
from tiny import TINY

SIDE = 160
THRESHOLDS = Thresholds(reject=0.6, chosen_on="a test's")
LEFT = RegionOfInterest(inspect=[[(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]])
LIMITS = {"shift": 0.15, "angle": 15.0}
PLACES = [
    Placement(),
    Placement(angle=5.0, right=0.06, down=-0.04),
    Placement(angle=-9.0, right=-0.03, down=0.08),
    Placement(angle=13.0, right=-0.1, down=-0.1),
]


def part(seed: int = 0, spot: tuple[int, int] | None = None, side: int = SIDE) -> NDArray[np.uint8]:
    """A bracket that looks like itself from no other side, on a dark ground with noise; a spot at (x, y)."""
    random = np.random.default_rng(seed)
    image = np.full((side, side, 3), 30, np.uint8)
    unit = side // 16
    cv2.rectangle(image, (4 * unit, 3 * unit), (7 * unit, 13 * unit), (120, 110, 100), -1)
    cv2.rectangle(image, (4 * unit, 10 * unit), (12 * unit, 13 * unit), (120, 110, 100), -1)
    cv2.circle(image, (10 * unit, 5 * unit), unit, (90, 90, 130), -1)
    if spot is not None:
        cv2.circle(image, spot, unit // 2, (255, 255, 255), -1)
    return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def lying(image: NDArray[Any], place: Placement) -> NDArray[Any]:
    """The image of a part that lies so: each pixel of the reference's frame goes where the matrix says."""
    size = (image.shape[0], image.shape[1])
    return np.asarray(cv2.warpAffine(image, place.matrix(size), size[::-1], borderMode=cv2.BORDER_REPLICATE))


def where(place: Placement, x: float, y: float, side: int = SIDE) -> tuple[float, float]:
    """Where a place of the reference's frame lies on the image, by school geometry; pixels' middles count."""
    across, along = x - (side - 1) / 2, y - (side - 1) / 2
    turn = math.radians(place.angle)
    return (
        math.cos(turn) * across - math.sin(turn) * along + (side - 1) / 2 + place.right * side,
        math.sin(turn) * across + math.cos(turn) * along + (side - 1) / 2 + place.down * side,
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "reference.png"
    write_image(path, part())
    return path


@pytest.fixture(scope="module")
def registration(reference: Path) -> Registration:
    return read_registration(reference, DataConfig(), **LIMITS)


# ------------------------------------------------------------------------------------------------------------ finding


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("light", [1.0, 0.6])
def test_a_part_is_found_where_it_lies(registration: Registration, place: Placement, light: float) -> None:
    found = Registrar(registration, None).place((lying(part(seed=1), place) * light).astype(np.uint8))
    assert found.found
    assert found.angle == pytest.approx(place.angle, abs=0.3)
    assert (found.right, found.down) == pytest.approx((place.right, place.down), abs=0.004)


def test_a_shift_alone_is_found_without_turning(reference: Path) -> None:
    registrar = Registrar(read_registration(reference, DataConfig(), shift=0.2, angle=0.0), None)
    found = registrar.place(lying(part(seed=2), Placement(right=0.12, down=-0.15)))
    assert found.angle == 0.0
    assert (found.right, found.down) == pytest.approx((0.12, -0.15), abs=0.003)


def test_a_part_may_be_turned_any_way(reference: Path) -> None:
    """The ground is even, so that no corner of the frame looks like part of the picture."""
    registrar = Registrar(read_registration(reference, DataConfig(), shift=0.1, angle=180.0), None)
    for angle in (-170.0, -95.0, 40.0, 120.0):
        found = registrar.place(lying(part(seed=3), Placement(angle=angle)))
        assert found.found, angle
        assert found.angle == pytest.approx(angle, abs=0.5)


@pytest.mark.parametrize("size", [(44, 340), (140, 1024), (160, 160), (300, 200)])
def test_a_reference_finds_itself(size: tuple[int, int], tmp_path: Path) -> None:
    """Of any shape, at any resolution of the camera."""
    texture = np.random.default_rng(0).integers(0, 255, (12, 60, 3), np.uint8)
    image = np.asarray(cv2.resize(texture, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)
    write_image(tmp_path / "reference.png", image)
    registrar = Registrar(read_registration(tmp_path / "reference.png", DataConfig(), 0.05, 0.0), None)
    for scale in (1, 2):
        found = registrar.place(image.repeat(scale, axis=0).repeat(scale, axis=1))
        assert found.found
        assert (found.right, found.down) == pytest.approx((0.0, 0.0), abs=0.005)


def test_places_within_the_limits_compete_alone(tmp_path: Path) -> None:
    """A comb looks like itself a pitch further; the limits say which is meant."""

    def comb(seed: int) -> NDArray[np.uint8]:
        image = np.full((SIDE, SIDE, 3), 30, np.uint8)
        for left in range(-49, SIDE, 27):
            cv2.rectangle(image, (left, 40), (left + 10, 120), (150, 150, 150), -1)
        noise = np.random.default_rng(seed).normal(0, 4, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    write_image(tmp_path / "comb.png", comb(0))
    registrar = Registrar(read_registration(tmp_path / "comb.png", DataConfig(), 0.08, 0.0), None)
    registrar.check()
    for number, right in enumerate(np.linspace(-0.07, 0.07, 15)):
        found = registrar.place(lying(comb(number + 1), Placement(right=right)))
        assert found.found
        assert found.right == pytest.approx(right, abs=0.005)


def test_what_lies_outside_of_the_region_hardly_moves_a_placement(registration: Registration) -> None:
    registrar = Registrar(registration, LEFT)
    for place in PLACES:
        clean = lying(part(seed=7), place)
        for corners, level in (((120, 20, 150, 140), 255), ((100, 60, 125, 75), 255), ((100, 60, 150, 110), 0)):
            soiled = part(seed=7)
            soiled[corners[1] : corners[3], corners[0] : corners[2]] = level
            found, wanted = registrar.place(lying(soiled, place)), registrar.place(clean)
            assert found.found
            assert found.angle == pytest.approx(wanted.angle, abs=0.02)
            assert (found.right, found.down) == pytest.approx((wanted.right, wanted.down), abs=2e-4)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((SIDE, SIDE, 3), np.uint8),
        np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8),
        lying(part(), Placement(right=0.3)),
        lying(part(), Placement(angle=60.0)),
        part()[: SIDE // 2],
    ],
    ids=["black", "noise", "too far", "turned too far", "another shape"],
)
def test_what_is_not_found_is_taken_as_it_lies(registration: Registration, image: NDArray[np.uint8]) -> None:
    place = Registrar(registration, None).place(image)
    assert not place.found
    assert place.onto_reference(image) is image


def test_a_registrar_finds_the_same_again(registration: Registration) -> None:
    registrar, image = Registrar(registration, None), lying(part(seed=4), PLACES[1])
    assert registrar.place(image) == registrar.place(image)


# ------------------------------------------------------------------------------------------------------------- moving


@pytest.mark.parametrize("place", PLACES)
def test_moved_onto_the_reference_a_part_looks_like_it(place: Placement) -> None:
    image = cv2.GaussianBlur(part(), (0, 0), 3)
    back = place.onto_reference(lying(image, place))
    inner = slice(SIDE // 4, -SIDE // 4)
    assert np.abs(back[inner, inner].astype(int) - image[inner, inner]).max() <= 4


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_channels_of_any_number_and_depth_are_moved_alike(kind: type[np.unsignedinteger[Any]]) -> None:
    stack = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (40, 50, 7)).astype(kind)
    moved = PLACES[2].onto_reference(stack)
    assert moved.shape == stack.shape
    assert moved.dtype == kind
    for channel in range(7):
        np.testing.assert_array_equal(moved[..., channel], PLACES[2].onto_reference(stack[..., channel, None])[..., 0])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("original", "fit"), [((80, 80), "resize"), ((SIDE, SIDE), "letterbox")])
def test_a_map_goes_where_the_part_lies(place: Placement, original: tuple[int, int], fit: Any) -> None:
    """A spot of a map at the network's input, from the reference's frame into the image's: by school geometry."""
    size = (96, 128)
    plan = plan_fit(original, size, fit)
    x, y = 0.4 * original[1], 0.6 * original[0]
    scale = np.array([plan.width / original[1], plan.height / original[0]])
    start = np.array([plan.left, plan.top])
    rows, columns = np.mgrid[: size[0], : size[1]]
    middle = (np.array([x, y]) + 0.5) * scale - 0.5 + start
    spot = np.exp(-((columns - middle[0]) ** 2 + (rows - middle[1]) ** 2) / 18).astype(np.float32)
    moved = place.onto_image(spot, plan)
    wanted = (np.array(where(place, x, y, original[0])) + 0.5) * scale - 0.5 + start
    weight = moved / moved.sum()
    assert ((weight * columns).sum(), (weight * rows).sum()) == pytest.approx(tuple(wanted), abs=0.2)
    outside = np.ones(size, bool)
    outside[plan.window] = False
    assert not moved[outside].any(), "a letterbox's padding shows no part"


def test_what_lay_beyond_the_border_of_the_reference_is_not_inspected() -> None:
    plan = plan_fit((100, 100), (100, 100), "resize")
    seen = Placement(right=0.2).inspected(None, plan)
    np.testing.assert_array_equal(seen, np.tile(np.arange(100) >= 20, (100, 1)))
    half = np.tile(np.arange(100) < 50, (100, 1))
    seen = Placement(right=0.2).inspected(half, plan)
    np.testing.assert_array_equal(seen, np.tile((np.arange(100) >= 20) & (np.arange(100) < 70), (100, 1)))


# --------------------------------------------------------------------------------------------------------- inspecting


@pytest.fixture(params=["onnx", "openvino"])
def model(request: pytest.FixtureRequest, registration: Registration, tmp_path: Path) -> Path:
    """The anomaly map is the brightness: a white spot is a defect."""
    suffix = {"onnx": ".onnx", "openvino": ".xml"}[request.param]
    path = write_brightness(tmp_path / f"model{suffix}", brightness_header(THRESHOLDS, data__size=SIDE // 2))
    edit_header(path, with_scene(read_header(path), None, registration))
    return path


@pytest.mark.parametrize("place", PLACES)
def test_a_defect_is_told_in_the_images_own_pixels(model: Path, place: Placement) -> None:
    found = Detector.load(model).predict(lying(part(spot=(50, 80)), place))
    assert found.placement is not None
    assert found.placement.found
    assert found.verdict == "reject"
    (spot,) = found.regions
    assert spot.place == pytest.approx(where(place, 50, 80), abs=4)
    told = found.to_dict()
    assert told["placement"]["angle"] == pytest.approx(place.angle, abs=0.4)
    assert told["inspected"] == pytest.approx((1 - abs(place.right)) * (1 - abs(place.down)), abs=0.1)
    assert (told["inspected"] == 1.0) == (place == Placement())


@pytest.mark.parametrize("place", PLACES)
def test_the_region_of_interest_goes_with_the_part(model: Path, place: Placement, registration: Registration) -> None:
    edit_header(model, with_scene(read_header(model), LEFT, registration))
    detector = Detector.load(model)
    inside, outside, clean = (detector.predict(lying(part(spot=spot), place)) for spot in ((70, 60), (96, 60), None))
    assert (inside.verdict, outside.verdict, clean.verdict) == ("reject", "accept", "accept")
    assert outside.score == pytest.approx(clean.score, abs=0.02)


def test_as_good_as_an_image_that_was_moved_before(model: Path, registration: Registration) -> None:
    image = lying(part(spot=(50, 80)), PLACES[1])
    header = read_header(model)
    registered = Detector.load(model).predict(image)
    edit_header(model, header.model_copy(update={"registration": None}))
    by_hand = Detector.load(model).predict(Registrar(registration, None).place(image).onto_reference(image))
    assert by_hand.placement is None
    assert registered.score == pytest.approx(by_hand.score, abs=0.02)


def test_a_lost_part_is_said_once_and_inspected_as_it_lies(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    detector = Detector.load(model)
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    found = detector.predict([white, white])
    assert [one.placement and one.placement.found for one in found] == [False, False]
    assert {one.verdict for one in found} == {"reject"}
    assert "part not found" in found[0].in_words()
    assert sum("the part was not found" in record.message for record in caplog.records) == 1


def test_a_lost_part_is_not_accepted(model: Path, tmp_path: Path) -> None:
    """Below the threshold it goes to a person: when inspected, in every count of an evaluation, and in a report."""
    for name, place in (("near", Placement()), ("far", Placement(right=0.4))):
        write_image(tmp_path / "set" / "test" / "good" / f"{name}.png", lying(part(), place))
    write_image(tmp_path / "set" / "train" / "good" / "0.png", part(seed=20))
    images = [tmp_path / "set" / "test" / "good" / f"{name}.png" for name in ("near", "far")]
    header = read_header(model)
    for reject, review, expected in (
        (0.99, None, ["accept", "review"]),
        (0.99, 0.98, ["accept", "review"]),
        (0.99, -1.0, ["review", "review"]),
        (-1.0, None, ["reject", "reject"]),
    ):
        thresholds = Thresholds(reject=reject, review=review, chosen_on="a test's")
        edit_header(model, header.model_copy(update={"thresholds": thresholds}))
        detector = Detector.load(model)
        assert [one.verdict for one in detector.predict(images)] == expected
        found = evaluate(detector, tmp_path / "set")
        counted = {verdict: share.count for verdict, share in found.shares("good").items()}
        assert counted == {name: expected.count(name) for name in ("accept", "review", "reject")}
        assert any(f"{expected.count('review')} to review" in line for line in found.in_words())
    page = tmp_path / "report.html"
    draem.report(model, tmp_path / "set", page)
    assert '"lost": {"good": [true, false]' in page.read_text(encoding="utf-8").replace("&#34;", '"')


def test_predict_counts_lost_parts(model: Path, tmp_path: Path, run_cli: Any) -> None:
    for number, place in enumerate((Placement(), Placement(right=0.4))):
        write_image(tmp_path / "in" / f"{number}.png", lying(part(), place))
    done = run_cli("predict", model, tmp_path / "in", "--out", tmp_path / "out", "--json")
    assert done.code == 0
    assert "the part was not found on 1 images" in done.err
    assert json.loads(done.out.splitlines()[-1])["unplaced"] == 1
    rows = [json.loads(row) for row in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["placement"]["found"] for row in rows] == [True, False]


def test_metrics_are_of_the_images_own_pixels(model: Path, tmp_path: Path) -> None:
    """With masks drawn on the images as they lie; with one part that lies too far off."""
    for number, place in enumerate(PLACES):
        image, mask = part(seed=number, spot=(50, 80)), np.zeros((SIDE, SIDE), np.uint8)
        cv2.circle(mask, (50, 80), SIDE // 32, 255, -1)
        write_image(tmp_path / "set" / "test" / "spot" / f"{number}.png", lying(image, place))
        write_image(tmp_path / "set" / "ground_truth" / "spot" / f"{number}_mask.png", lying(mask, place))
        write_image(tmp_path / "set" / "test" / "good" / f"{number}.png", lying(part(seed=10 + number), place))
        write_image(tmp_path / "set" / "train" / "good" / f"{number}.png", part(seed=20 + number))
    write_image(tmp_path / "set" / "test" / "good" / "far.png", lying(part(), Placement(right=0.4)))
    found = evaluate(Detector.load(model), tmp_path / "set")
    assert found.metrics.image_auroc == 1.0
    assert found.metrics.pixel_ap is not None
    assert found.metrics.pixel_ap > 0.9
    assert all(defect.found for defect in found.defects)
    assert found.unplaced == 1
    assert found.to_dict()["unplaced"] == 1
    assert any("not found on 1 images" in line and "test/good/far.png" in line for line in found.in_words())
    assert any("promises nothing since region or registration" in line for line in found.in_words())


# ------------------------------------------------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for number in range(12):
        write_image(folder / f"{number:02}.png", lying(part(seed=number), PLACES[number % len(PLACES)]))
    write_image(folder / "far.png", lying(part(), Placement(right=0.4)))
    return folder


def test_training_sees_parts_where_they_should_lie(parts: Path, reference: Path) -> None:
    config = DataConfig(size=(64, 64), registration=reference, registration_shift=0.15, registration_angle=15.0)
    paths = sorted(parts.glob("*.png"))
    registered = ImageBank.load(paths, config, registrar=registrar_of(registration_of(config), None))
    plain = ImageBank.load(paths, config)
    assert [path.name for path in registered.unplaced] == ["far.png"]
    assert plain.unplaced == ()

    def spread(bank: ImageBank) -> float:
        return float(bank[:12].astype(float).std(axis=0).mean())

    assert spread(registered) < spread(plain) / 2
    np.testing.assert_array_equal(registered[12], plain[12])


def test_training_refuses_a_reference_of_something_else(parts: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "other.png", np.rot90(part(seed=1)).copy())
    settings: dict[str, Any] = TINY | {"data.registration": str(tmp_path / "other.png"), "training.images": 8}
    with pytest.raises(ConfigError, match=r"found on \d+ of \d+ images alone"):
        draem.train(parts, tmp_path / "run", "edge", settings=settings)


def test_no_promise_on_parts_that_were_not_found(model: Path, parts: Path, tmp_path: Path) -> None:
    for number in range(6):
        write_image(tmp_path / "long" / f"{number}.png", part(seed=number).repeat(2, axis=1))
    before = model.read_bytes()
    with pytest.raises(DataError, match="the part was not found on 6 of them"):
        calibrate(model, tmp_path / "long", Rule(false_reject=0.3, assurance=ON_AVERAGE))
    assert model.read_bytes() == before
    found = calibrate(model, parts, Rule(false_reject=0.3, assurance=ON_AVERAGE))
    assert "the part was not found on 1 of them" in found.thresholds.chosen_on
    assert any("not found on 1 of them" in note for note in found.notes)


def test_folds_need_the_file_no_more(parts: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "reference.png", part())
    settings: dict[str, Any] = TINY | {"data.registration": str(tmp_path / "reference.png"), "training.images": 8}
    settings |= {"data.registration_shift": 0.15, "data.registration_angle": 15.0}
    draem.train(parts, tmp_path / "run", "edge", settings=settings)
    (tmp_path / "reference.png").unlink()
    model = tmp_path / "run" / "model.safetensors"
    fold_thresholds(model, parts, tmp_path / "folds", 2, 0.3)
    fold = read_header(tmp_path / "folds" / "fold-0-of-2" / "model.safetensors")
    assert fold.registration == read_header(model).registration


def test_int8_and_the_preview_see_parts_where_they_should_lie(
    parts: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both load images of their own; what they load is what training would."""
    chosen: dict[str, Any] = {
        "data.size": 64,
        "data.registration": str(reference),
        "data.registration_shift": 0.15,
        "data.registration_angle": 15.0,
    }
    config = Config.resolve("edge", None, chosen)
    dataset, wanted = read_layout(parts, "auto", None), registration_of(config.data)
    loaded: list[Registrar | None] = []
    load = ImageBank.load

    def noted(*given: Any, **told: Any) -> ImageBank:
        loaded.append(told.get("registrar"))
        return load(*given, **told)

    monkeypatch.setattr(ImageBank, "load", noted)
    preview._bank(dataset, config.data, 4, 0)
    draw_material(Header(config=config, registration=wanted), dataset, lambda done, total: None)
    assert len(loaded) == 3
    image = lying(part(seed=4), PLACES[1])
    placed = [registrar.place(image) for registrar in loaded if registrar is not None]
    assert placed == [Registrar(wanted, None).place(image)] * 3 if wanted else False


def test_a_run_keeps_its_reference(parts: Path, tmp_path: Path) -> None:
    """It goes into the model; and resumes without the file."""
    reference = tmp_path / "reference.png"
    write_image(reference, part())
    settings: dict[str, Any] = TINY | {
        "data.registration": str(reference),
        "data.registration_shift": 0.15,
        "data.registration_angle": 15.0,
        "training.images": 8,
    }
    draem.train(parts, tmp_path / "run", "edge", settings=settings)
    header = read_header(tmp_path / "run" / "model.safetensors")
    assert header.registration == read_registration(reference, header.config.data, 0.15, 15.0)
    assert "onto a reference" in header_rows(header)["registration"]
    kept = json.loads((tmp_path / "run" / "scene.json").read_text())
    assert kept["region"] is None
    (tmp_path / "run" / "model.safetensors").unlink()
    write_image(reference, part()[::-1].copy())
    draem.train(parts, tmp_path / "run", "edge", settings=settings, resume=True)
    assert read_header(tmp_path / "run" / "model.safetensors").registration == header.registration


# ------------------------------------------------------------------------------------------------------------- setting


def test_set_and_taken_away(model: Path, reference: Path) -> None:
    _, after = set_values(model, ["registration=none"])
    assert after.registration is None
    with pytest.raises(ConfigError, match="there is none whose limits"):
        set_values(model, ["registration_shift=0.2"])
    _, after = set_values(model, [f"registration={reference}", "registration_angle=0"])
    assert after.registration is not None
    assert (after.registration.shift, after.registration.angle) == (0.1, 0.0)
    before, after = set_values(model, ["registration_shift=0.3", "registration_angle=90"])
    assert before.registration is not None
    assert after.registration == before.registration.model_copy(update={"shift": 0.3, "angle": 90.0})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["registration=nothing.png"], "registration: nothing.png: no such file"),
        (["registration=none", "registration_shift=0.3"], "registration=none: its limits say nothing"),
        (["registration_shift=0.6"], "registration_shift=0.6: give how far it may lie"),
        (["registration_angle=-1"], "registration_angle=-1: give how far it may be turned"),
        (["registration_angle=none"], "registration_angle=none: give how far it may be turned"),
        (["registration_angle=wide"], "registration_angle=wide: give how far"),
    ],
)
def test_wrong_values_are_told(model: Path, values: list[str], said: str) -> None:
    before = model.read_bytes()
    with pytest.raises(ConfigError) as error:
        set_values(model, values)
    assert str(error.value).startswith(said)
    assert model.read_bytes() == before


def test_an_image_that_shows_nothing_is_no_reference(tmp_path: Path) -> None:
    write_image(tmp_path / "grey.png", np.full((SIDE, SIDE, 3), 99, np.uint8))
    with pytest.raises(ConfigError, match="nothing to recognise"):
        read_registration(tmp_path / "grey.png", DataConfig(), **LIMITS)


def test_a_reference_that_does_not_find_itself_is_refused(model: Path, tmp_path: Path) -> None:
    """A pattern whose period is shorter than the limits looks like itself elsewhere."""
    tile = np.kron(np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8), np.ones((3, 3), np.uint8))
    tiles = np.tile(tile, (7, 7))[:SIDE, :SIDE]
    write_image(tmp_path / "tiles.png", np.repeat(tiles[..., None], 3, axis=2))
    before = model.read_bytes()
    with pytest.raises(ConfigError, match="does not find itself"):
        set_values(model, [f"registration={tmp_path / 'tiles.png'}", "registration_shift=0.3"])
    assert model.read_bytes() == before


def test_a_threshold_promises_nothing_after_it(model: Path) -> None:
    _, after = set_values(model, ["registration=none"])
    assert after.thresholds is not None
    assert "promises nothing since region or registration was changed" in after.thresholds.chosen_on


# ------------------------------------------------------------------------------------------------------------- damaged


def _encoded(image: NDArray[np.uint8], suffix: str = ".png") -> str:
    return base64.b64encode(cv2.imencode(suffix, image)[1].tobytes()).decode()


@pytest.mark.parametrize(
    "spoilt",
    [
        "AAAA",
        "AAAAA",
        _encoded(np.arange(100, dtype=np.uint8)[None]),
        _encoded(np.eye(2, dtype=np.uint8) * 255),
        _encoded(part(side=96)[..., 0], ".jpg"),
        _encoded(part(side=96)),
        base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 50).decode(),
        _encoded(part(side=256)[..., 0]),
        _encoded(np.zeros((128, 128), np.uint8))[:40],
    ],
    ids=["no picture", "no base64", "a line", "a dot", "JPEG", "colours", "an empty one", "too large", "cut off"],
)
def test_a_damaged_reference_is_one_clear_line(model: Path, spoilt: str) -> None:
    header: Header = read_header(model)
    edit_header(
        model, header.model_copy(update={"registration": Registration(reference=spoilt, shift=0.1, angle=10.0)})
    )
    with pytest.raises(ModelFileError) as error:
        Detector.load(model)
    assert "\n" not in str(error.value)


def test_the_reference_is_small_and_grey(registration: Registration) -> None:
    data = np.frombuffer(base64.b64decode(registration.reference), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture.shape == (128, 128)
