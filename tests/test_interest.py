"""The region of interest in training: simulation, losses, validation, threshold; and on every backend afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import draem
from draem.config import Config, DataConfig
from draem.data.bank import ImageBank
from draem.data.interest import draw_region, interest_of
from draem.data.regions import Regions
from draem.errors import ConfigError, TrainingError
from draem.evaluation.evaluate import evaluate
from draem.images import write_image
from draem.inspection.detector import Detector
from draem.inspection.edits import set_values
from draem.inspection.region import InspectedPixels
from draem.modelfile import RegionOfInterest, read_header
from draem.network.draem import Draem
from draem.network.losses import draem_losses, ssim_map, taught_loss
from draem.network.weights import save_model
from draem.simulation.batch import blanked, load_batch, load_regions
from draem.simulation.draws import sample_keys
from draem.simulation.simulator import Simulator
from draem.training import trainer as trainer_module
from tiny import TINY, lively_, write_tiny_ir, write_tiny_onnx

SIZE = 64
LEFT = RegionOfInterest(inspect=[[(0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)]])
SMALL: dict[str, Any] = TINY | {"training.images": 24, "training.batch_size": 4, "training.validations": 2}


def _half(path: Path, size: int = SIZE) -> Path:
    """A mask image whose left half is white."""
    mask = np.zeros((size, size), np.uint8)
    mask[:, : size // 2] = 255
    write_image(path, mask)
    return path


def _part(seed: int, spot: str = "") -> NDArray[np.uint8]:
    """A rendered part: stripes and noise; with a bright spot at the left or the right."""
    random = np.random.default_rng(seed)
    stripes = 110 + 30 * np.sin(np.arange(SIZE) / 3.0)[:, None, None] + random.normal(0, 6, (SIZE, SIZE, 3))
    image = np.clip(stripes, 0, 255).astype(np.uint8)
    if spot:
        column = 8 if spot == "left" else 44
        image[20:36, column : column + 12] = (250, 240, 20)
    return image


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for number in range(12):
        write_image(folder / f"{number:02d}.png", _part(number))
    return folder


@pytest.fixture(scope="module")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the left half."""
    folder = tmp_path_factory.mktemp("run")
    mask = _half(folder / "mask.png")
    draem.train(parts, folder / "run", "edge", settings={**SMALL, "data.region": str(mask)})
    return folder / "run" / "model.safetensors"


def _lively(model: Path, path: Path, **data: Any) -> Path:
    """The model with weights whose maps differ everywhere, as of a long training."""
    header = read_header(model)
    network = Draem(header.config.network, header.channels)
    lively_(network)
    config = header.config.model_copy(update={"data": header.config.data.model_copy(update=data)})
    save_model(path, network.state_dict(), header.model_copy(update={"config": config}))
    return path


# --------------------------------------------------------------------------------------------------------------- losses


def _answers(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reconstruction, logits, normal, mask; anomalous on the left alone."""
    random = torch.Generator().manual_seed(seed)
    reconstruction, normal = (torch.rand(3, 3, 40, 48, generator=random) for _ in range(2))
    logits = torch.randn(3, 2, 40, 48, generator=random)
    mask = (torch.rand(3, 1, 40, 48, generator=random) > 0.8).float()
    mask[..., 24:] = 0
    return reconstruction, logits, normal, mask


def test_losses_are_those_of_the_inspected_pixels() -> None:
    reconstruction, logits, normal, mask = _answers()
    inside = torch.zeros(3, 1, 40, 48)
    inside[..., :24] = 1
    found = draem_losses(
        reconstruction, logits, normal, mask, 1.0, 2.0, l1_weight=0.5, dice_weight=0.5, inspected=inside
    )
    left = reconstruction[..., :24], logits[..., :24], normal[..., :24], mask[..., :24]
    cut = draem_losses(*left, 1.0, 2.0, l1_weight=0.5, dice_weight=0.5)
    assert float(found.l2) == pytest.approx(float(cut.l2), rel=1e-5)
    assert float(found.focal) == pytest.approx(float(cut.focal), rel=1e-5)
    similarity = ssim_map(reconstruction, normal)[..., :24]  # its windows reach beyond
    assert float(found.ssim) == pytest.approx(1 - float(similarity.mean()), rel=1e-5)
    rest = float(found.total - found.ssim - found.l2 - found.focal)
    assert rest == pytest.approx(float(cut.total - cut.ssim - cut.l2 - cut.focal), rel=1e-4)
    taught = torch.randn_like(logits)
    assert float(taught_loss(logits, taught, 2.0, inside)) == pytest.approx(
        float(taught_loss(logits[..., :24], taught[..., :24], 2.0)), rel=1e-5
    )


def test_inspected_everywhere_is_no_region() -> None:
    answers = _answers()
    whole = draem_losses(*answers, 1.0, 2.0, l1_weight=0.5, dice_weight=0.5)
    inspected = draem_losses(*answers, 1.0, 2.0, l1_weight=0.5, dice_weight=0.5, inspected=torch.ones(3, 1, 40, 48))
    assert float(inspected.total) == pytest.approx(float(whole.total), rel=1e-5)
    nothing = draem_losses(*answers, 1.0, 2.0, inspected=torch.zeros(3, 1, 40, 48))
    assert (float(nothing.l2), float(nothing.focal)) == (0.0, 0.0)


@pytest.mark.parametrize(("scales", "reach"), [(1, 5), (3, 5 * 4)])
def test_no_gradient_from_outside(scales: int, reach: int) -> None:
    """SSIM's windows reach five pixels out of what is inspected, pixels of its coarsest scale."""
    reconstruction, logits, normal, mask = _answers()
    inside = torch.zeros(3, 1, 40, 48)
    inside[..., :24] = 1
    logits.requires_grad_()
    reconstruction.requires_grad_()
    found = draem_losses(reconstruction, logits, normal, mask, 1.0, 2.0, inspected=inside, ssim_scales=scales)
    found.total.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert reconstruction.grad is not None
    assert logits.grad[..., :24].abs().amin(1).gt(0).all()
    assert not logits.grad[..., 24:].any()
    assert reconstruction.grad[..., 24 + reach - 1].any()
    assert not reconstruction.grad[..., 24 + reach :].any()


# ----------------------------------------------------------------------------------------------------------- simulation


@pytest.mark.parametrize("fit", ["resize", "letterbox", "tiles"])
def test_anomalies_lie_inside(parts: Path, fit: Any) -> None:
    data = DataConfig(size=(SIZE, SIZE), fit=fit, overlap=32)
    config = Config.resolve("edge", None, {**TINY, "simulation.clean_share": 0.0})
    with ImageBank.load(sorted(parts.iterdir()), data) as bank:
        regions = Regions.of_anomalies(bank, "everywhere", LEFT, data)
        indices, samples = torch.arange(24) % len(bank), torch.arange(24)
        keys = sample_keys(0, 0, samples)
        cpu = torch.device("cpu")
        simulated = Simulator(config.simulation, (SIZE, SIZE), cpu, 3)(
            load_batch(bank, indices, keys, cpu), keys, load_regions(regions, indices, keys, cpu)
        )
    assert simulated.mask[..., : SIZE // 2].amax((1, 2, 3)).min() == 1
    assert not simulated.mask[..., SIZE // 2 :].any()
    assert torch.equal(simulated.anomalous[..., SIZE // 2 :], simulated.normal[..., SIZE // 2 :])


def test_both_regions_hold(parts: Path, tmp_path: Path) -> None:
    """Where anomalies may lie, and where they count: both, or an error where they share nothing."""
    data = DataConfig(size=(SIZE, SIZE))
    upper, right = np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    upper[:20], right[:, 40:] = 255, 255
    write_image(tmp_path / "upper.png", upper)
    write_image(tmp_path / "right.png", right)
    with ImageBank.load(sorted(parts.iterdir()), data) as bank:
        found = Regions.of_anomalies(bank, tmp_path / "upper.png", LEFT, data)
        assert found is not None
        np.testing.assert_array_equal(found.whole(0), (upper > 0) & draw_region(LEFT, (SIZE, SIZE)))
        with pytest.raises(ConfigError, match=r"share no pixel on 12 images, such as 00\.png"):
            Regions.of_anomalies(bank, tmp_path / "right.png", LEFT, data)
        assert Regions.of_anomalies(bank, "everywhere", None, data) is None


def test_a_letterbox_holds_the_region_where_the_image_lies(tmp_path: Path) -> None:
    """Each image for itself: as the detector has it."""
    shapes = [(32, 96), (96, 32), (50, 50)]
    for number, shape in enumerate(shapes):
        write_image(tmp_path / f"{number}.png", np.full((*shape, 3), 90, np.uint8))
    data = DataConfig(size=(SIZE, SIZE), fit="letterbox")
    with ImageBank.load(sorted(tmp_path.glob("*.png")), data) as bank:
        found = Regions.inspected(bank, LEFT, data)
    assert found is not None
    for number, shape in enumerate(shapes):
        np.testing.assert_array_equal(found.whole(number), InspectedPixels(LEFT, data).mask(shape))
    rows, columns = np.flatnonzero(found.whole(0).any(1)), np.flatnonzero(found.whole(0).any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (21, 41, 0, 31)


def test_blank_is_mid_grey() -> None:
    images = torch.rand(2, 3, 8, 8)
    inside = torch.zeros(2, 1, 8, 8)
    inside[..., :4] = 1
    found = blanked(images, inside, DataConfig().pixel_format)
    assert torch.equal(found[..., :4], images[..., :4])
    assert torch.allclose(found[..., 4:], torch.tensor(128 / 255))
    assert blanked(images, None, DataConfig().pixel_format) is images


# ------------------------------------------------------------------------------------------------------------- settings


def test_masks_and_polygons_say_the_same(tmp_path: Path) -> None:
    drawn = interest_of(DataConfig(region=_half(tmp_path / "mask.png")))
    (tmp_path / "region.json").write_text(LEFT.model_dump_json())
    written = interest_of(DataConfig(region=tmp_path / "region.json"))
    ignored = np.zeros((SIZE, SIZE), np.uint8)
    ignored[:, SIZE // 2 :] = 255
    write_image(tmp_path / "ignore.png", ignored)
    left_out = interest_of(DataConfig(ignore=tmp_path / "ignore.png"))
    for region in (drawn, written, left_out):
        assert region is not None
        np.testing.assert_array_equal(draw_region(region, (SIZE, SIZE)), draw_region(LEFT, (SIZE, SIZE)))
    assert interest_of(DataConfig()) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"data.region": "none.png"}, "region: "),
        ({"data.region": "black.png"}, "nothing in it is white"),
        ({"data.region": "half.png", "data.ignore": "white.png"}, "leave nothing to inspect"),
        ({"data.region": "half.png", "simulation.rotation": "full"}, "exclude each other"),
    ],
)
def test_what_cannot_be(parts: Path, tmp_path: Path, settings: dict[str, str], says: str) -> None:
    _half(tmp_path / "half.png")
    write_image(tmp_path / "black.png", np.zeros((SIZE, SIZE), np.uint8))
    write_image(tmp_path / "white.png", np.full((SIZE, SIZE), 255, np.uint8))
    given = {key: str(tmp_path / value) if value.endswith(".png") else value for key, value in settings.items()}
    with pytest.raises(ConfigError, match=says):
        draem.train(parts, tmp_path / "run", "edge", settings={**SMALL, **given})
    assert not (tmp_path / "run" / "model.safetensors").exists()


# -------------------------------------------------------------------------------------------------------------- a run


def test_the_model_has_the_region(trained: Path) -> None:
    header = read_header(trained)
    assert header.region is not None
    np.testing.assert_array_equal(draw_region(header.region, (SIZE, SIZE)), draw_region(LEFT, (SIZE, SIZE)))
    assert header.config.data.outside == "blank"
    assert header.config.data.blanks
    assert header.thresholds is not None
    plain = Config.resolve("edge", None, TINY)
    assert (plain.data.outside, plain.data.blanks) == ("auto", False)


def test_a_stopped_run_keeps_its_region(
    parts: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit the unbroken run, though the mask image is gone meanwhile."""
    mask = shutil.copy(trained.parent.parent / "mask.png", tmp_path / "mask.png")
    settings = {**SMALL, "data.region": str(mask), "training.checkpoint_every": 0}
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_stops", lambda self, interrupt: self.step == 3)
        with pytest.raises(TrainingError, match="stopped at step 3"):
            draem.train(parts, tmp_path / "run", "edge", settings=settings)
    Path(mask).unlink()
    draem.train(parts, tmp_path / "run", "edge", settings=settings, resume=True)
    resumed, unbroken = read_header(tmp_path / "run" / "model.safetensors"), read_header(trained)
    assert resumed.sha256 == unbroken.sha256
    assert (resumed.region, resumed.thresholds) == (unbroken.region, unbroken.thresholds)
    assert json.loads((tmp_path / "run" / "scene.json").read_text())["region"]["inspect"]


@pytest.mark.parametrize("kind", ["torch", "onnxruntime", "openvino"])
def test_a_defect_inside_is_found_and_one_outside_changes_no_figure(trained: Path, tmp_path: Path, kind: Any) -> None:
    """On every backend, with a network whose layers see the whole image."""
    model = _lively(trained, tmp_path / "model.safetensors")
    if kind != "torch":
        model = write_tiny_onnx(model, tmp_path / "model.onnx")
    if kind == "openvino":
        model = write_tiny_ir(model, tmp_path / "model.xml")
    detector = Detector.load(model, "cpu", backend=kind)
    good, left, right = detector.predict([_part(99), _part(99, "left"), _part(99, "right")])
    assert left.score != good.score
    assert np.abs(left.input_map - good.input_map).max() > 1e-4
    assert (right.score, right.verdict, right.p_value) == (good.score, good.verdict, good.p_value)
    np.testing.assert_array_equal(right.input_map, good.input_map)
    np.testing.assert_array_equal(right.reconstruction, good.reconstruction)
    metrics = []
    for name, outside in (("plain", ""), ("soiled", "right")):
        root = tmp_path / name / "part"
        for number in range(4):
            write_image(root / "test" / "good" / f"{number}.png", _part(200 + number, outside))
            spotted = _part(300 + number, "left")
            spotted[:, 40:] = _part(300 + number, outside)[:, 40:]
            write_image(root / "test" / "spot" / f"{number}.png", spotted)
            mask = np.zeros((SIZE, SIZE), np.uint8)
            mask[20:36, 8:20] = 255
            write_image(root / "ground_truth" / "spot" / f"{number}_mask.png", mask)
        write_image(root / "train" / "good" / "0.png", _part(0))
        found = evaluate(detector, root)
        metrics.append((found.metrics, found.intervals, [image.score for image in found.images], found.defects))
    assert metrics[0] == metrics[1]


def test_another_region_needs_no_new_export(trained: Path, tmp_path: Path) -> None:
    model = write_tiny_onnx(_lively(trained, tmp_path / "model.safetensors"), tmp_path / "model.onnx")
    before = Detector.load(model).predict(_part(99, "right")).score
    set_values(model, ["region=none"])
    assert Detector.load(model).predict(_part(99, "right")).score != before


def test_without_blanking_the_network_sees_the_whole_image(parts: Path, trained: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "data.region": str(_half(tmp_path / "mask.png")), "data.outside": "keep"}
    draem.train(parts, tmp_path / "run", "edge", settings=settings)
    assert read_header(tmp_path / "run" / "model.safetensors").config.data.outside == "keep"
    detector = Detector.load(_lively(trained, tmp_path / "model.safetensors", outside="keep"), "cpu")
    good, right = detector.predict([_part(99), _part(99, "right")])
    assert not np.array_equal(good.input_map[:, : SIZE // 2], right.input_map[:, : SIZE // 2])
    assert not right.input_map[:, SIZE // 2 :].any()
