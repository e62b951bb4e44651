"""Presets against the paper's and the published code's settings; layers of YAML and settings; every wrong value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from draem.config import AUGMENTATIONS, ROTATIONS, Config
from draem.errors import ConfigError
from draem.presets import PRESETS
from draem.settings import parse_number, parse_setting, read_yaml

PUBLISHED: dict[str, Any] = {
    "data.size": (256, 256),
    "simulation.clean_share": 0.5,
    "simulation.mask_threshold": (0.5, 0.5),
    "simulation.lattice": (0, 5),
    "simulation.mask_rotation": 90.0,
    "simulation.allow_empty": True,
    "simulation.augmentations": AUGMENTATIONS,
    "simulation.augmentations_drawn": 3,
    "simulation.beta": (0.0, 0.8),
    "network.reconstructive_width": 128,
    "network.discriminative_width": 64,
    "network.aligned_corners": True,
    "training.epochs": 700,
    "training.images": None,
    "training.batch_size": 8,
    "training.accumulate": 1,
    "training.sampling": "replacement",
    "training.optimizer": "adam",
    "training.weight_decay": 0.0,
    "training.learning_rate": 1e-4,
    "training.schedule": "steps",
    "training.milestones": (0.8, 0.9),
    "training.factor": 0.2,
    "training.clip_norm": None,
    "training.ema": 0.0,
    "training.ssim_weight": 1.0,
    "training.focal_gamma": 2.0,
    "training.precision": "fp32",
    "score.filter_size": 21,
}
"""The published code, setting by setting."""

PAPER: dict[str, Any] = PUBLISHED | {
    "simulation.allow_empty": False,
    "simulation.beta": (0.0, 0.9),
    "training.factor": 0.1,
    "training.sampling": "shuffle",
}


def _value(config: Config, key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    return found


def _file(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _refused(*says: str, file: Path | None = None, settings: dict[str, Any] | None = None, preset: str = "fast") -> str:
    with pytest.raises(ConfigError) as caught:
        Config.resolve(preset, file, settings)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    for part in says:
        assert part in text
    return text


# ------------------------------------------------------------------------------------------------------------- presets


@pytest.mark.parametrize("key", PUBLISHED)
def test_official_is_the_published_code(key: str) -> None:
    assert _value(Config.resolve("official"), key) == PUBLISHED[key]


def test_official_turns_the_normal_image_as_published() -> None:
    rotation = Config.resolve("official").simulation.rotation
    assert (rotation.degrees, rotation.probability, rotation.corners) == (90.0, 0.3, "black")


@pytest.mark.parametrize("key", [key for key in PAPER if key not in ("simulation.mask_threshold",)])
def test_paper_where_it_says_so(key: str) -> None:
    changed = {"simulation.augmentations", "training.milestones"}
    if key not in changed:
        assert _value(Config.resolve("paper"), key) == PAPER[key]


def test_paper_where_it_differs() -> None:
    paper = Config.resolve("paper")
    assert paper.training.epochs is not None
    drops = [share * paper.training.epochs for share in paper.training.milestones]
    assert drops == pytest.approx([400, 600])
    low, high = paper.simulation.mask_threshold
    assert low < 0.5 < high
    # The texture's weight is 1 − β, in [0.1, 1].
    assert [1 - beta for beta in reversed(paper.simulation.beta)] == pytest.approx([0.1, 1.0])
    seven = {"posterize", "sharpness", "solarize", "equalize", "brightness", "hue_saturation", "autocontrast"}
    assert set(paper.simulation.augmentations) == seven
    assert paper.simulation.rotation.degrees == 45.0


def test_our_presets_grow_and_have_a_threshold() -> None:
    ours = [Config.resolve(name) for name in ("edge", "fast", "standard", "large")]
    widths = [(config.network.reconstructive_width, config.network.discriminative_width) for config in ours]
    assert widths == [(16, 8), (32, 16), (64, 32), (128, 64)]
    for config in ours:
        assert config.training.images is not None
        assert not config.network.aligned_corners
        assert not config.simulation.allow_empty
        assert config.data.calibrate_share > 0


def test_preset_unknown_or_missing() -> None:
    _refused("'fats'", "fast", preset="fats")
    _refused("''", preset="")
    assert Config.resolve("", default="edge").preset == "edge"


# -------------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("name", PRESETS)
def test_yaml_round_trip(name: str, tmp_path: Path) -> None:
    config = Config.resolve(
        name, None, {"training.seed": 7, "simulation.textures": "some/folder", "data.size": [64, 96]}
    )
    again = Config.resolve("", _file(tmp_path, config.to_yaml()))
    assert again == config
    assert not again.differences(config)


def test_settings_win_over_file_wins_over_preset(tmp_path: Path) -> None:
    file = _file(tmp_path, "preset: edge\ntraining: {batch_size: 4, seed: 5}\n")
    config = Config.resolve("", file, {"training.seed": 6})
    assert (config.preset, config.training.batch_size, config.training.seed) == ("edge", 4, 6)
    assert config.network.reconstructive_width == 16
    assert Config.resolve("large", file).network.reconstructive_width == 128, "a preset by name wins over the file's"


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert Config.resolve("fast", _file(tmp_path, "# nothing\n")) == Config.resolve("fast")


@pytest.mark.parametrize(("preset", "given", "other"), [("official", "images", "epochs"), ("fast", "epochs", "images")])
def test_one_budget_replaces_the_other(preset: str, given: str, other: str, tmp_path: Path) -> None:
    for file, settings in ((None, {f"training.{given}": 3}), (_file(tmp_path, f"training: {{{given}: 3}}"), None)):
        training = Config.resolve(preset, file, settings).training
        assert getattr(training, given) == 3
        assert getattr(training, other) is None
    kept = Config.resolve(preset).override(None, {f"training.{given}": 3}).training
    assert getattr(kept, other) is None


def test_both_budgets_or_none_are_refused() -> None:
    _refused("images or as epochs, not both", settings={"training.images": 3, "training.epochs": 2})
    _refused("budget", settings={"training.images": None})


def test_a_number_is_a_square_and_a_range() -> None:
    config = Config.resolve("fast", None, {"data.size": 64, "simulation.beta": 0.5, "simulation.rotation": "full"})
    assert config.data.size == (64, 64)
    assert config.simulation.beta == (0.5, 0.5)
    assert Config.resolve("fast", None, {"simulation.count": 3}).simulation.count == (3, 3)
    assert config.simulation.rotation == ROTATIONS["full"]


def test_part_of_a_rotation_keeps_the_rest() -> None:
    config = Config.resolve("official", None, {"simulation.rotation.degrees": 10})
    assert (config.simulation.rotation.degrees, config.simulation.rotation.probability) == (10.0, 0.3)


def test_override_and_differences() -> None:
    before = Config.resolve("fast")
    after = before.override(None, {"training.seed": 9, "simulation.rotation": "slight", "data.size": 256})
    assert before.differences(after) == ["simulation.rotation", "training.seed"]
    assert after.preset == "fast"
    assert before.training.seed == 0


def test_the_callers_mapping_stays_as_it_was() -> None:
    settings = {"training": {"seed": 1}, "training.batch_size": 3}
    config = Config.resolve("fast", None, settings)
    assert (config.training.seed, config.training.batch_size) == (1, 3)
    assert settings == {"training": {"seed": 1}, "training.batch_size": 3}


def test_sections_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Config.resolve("fast").training.seed = 3


# --------------------------------------------------------------------------------------------------------------- wrong


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("training: {batch_sise: 4}", "training.batch_sise is not a setting (did you mean training.batch_size?)"),
        ("trainng: {}", "did you mean training?"),
        ("zzz: 1", "known here: preset, data"),
        ("training: 5", "training"),
        ("training:", "training"),
        ("data: [1]", "data"),
        ("1: 2", "1"),
        ("training: {1: 2}", "training.1"),
        ("data: {size: [1, 2, 3]}", "data.size"),
        ("data: {size: 8}", "data.size"),
        ("data: {size: 8193}", "data.size"),
        ("data: {size: true}", "data.size"),
        ("data: {select_share: 0.5, calibrate_share: 0.5}", "nothing is left to train on"),
        ("network: {reconstructive_width: 0}", "network.reconstructive_width"),
        ("network: {reconstructive_width: 1000000000000}", "network.reconstructive_width"),
        ("training: {learning_rate: fast}", "training.learning_rate"),
        ("training: {learning_rate: .nan}", "training.learning_rate"),
        ("training: {learning_rate: .inf}", "training.learning_rate"),
        ("training: {epochs: .inf}", "training.epochs"),
        ("training: {checkpoint_every: .inf}", "training.checkpoint_every"),
        ("training: {seed: -1}", "training.seed"),
        ("training: {precision: fp8}", "training.precision"),
        ("training: {milestones: [0.5, 1.5]}", "training.milestones.1"),
        ("simulation: {beta: [0.9, 0.1]}", "beta"),
        ("simulation: {beta: [-0.1, 0.1]}", "beta"),
        ("simulation: {beta: .nan}", "beta"),
        ("simulation: {beta: [0.1]}", "beta"),
        ("simulation: {mask_threshold: .nan}", "mask_threshold"),
        ("simulation: {lattice: [5, 0]}", "lattice"),
        ("simulation: {lattice: 3}", "lattice"),
        ("simulation: {count: 0}", "count.0: Input should be greater than or equal to 1 (got 0)"),
        ("simulation: {region: 1}", "region: everywhere, foreground, or the path of a mask image (got 1)"),
        ("simulation: {region: }", "region: everywhere, foreground, or the path of a mask image (got None)"),
        ("simulation: {rotation: diagonal}", "none, slight, full"),
        ("simulation: {rotation: 5}", "rotation"),
        ("simulation: {augmentations: []}", "augmentations_drawn"),
        ("simulation: {augmentations: [swirl]}", "augmentations.0"),
        ("score: {filter_size: 20}", "odd"),
        ("score: {false_reject: 0}", "score.false_reject"),
        ("score: {review: 0.001}", "review"),
        ("[1, 2]", "mapping"),
        ("? [a]\n: 3", "not YAML"),
        ("data: {size: ", "not YAML"),
        ("data: 2001-99-99", "not YAML"),
        ("data: {size: " + "9" * 5000 + "}", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        ("data: " + "[" * 5000, "not YAML"),
        ("a: &a {b: *a}", "a is not a setting"),
        ("training: &a {images: *a}", "training.images"),
        ("data: {layout: " + "x" * 5000 + "}", "data.layout"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_name(text: str | bytes, says: str, tmp_path: Path) -> None:
    file = _file(tmp_path, text)
    assert str(file) in _refused(says, file=file)


@pytest.mark.parametrize("text", ["preset: [1]", "preset: {a: b}", "preset: 5", "preset: null", "preset: nope"])
def test_a_wrong_preset_in_a_file(text: str, tmp_path: Path) -> None:
    _refused("preset", "official", file=_file(tmp_path, text), preset="")


@pytest.mark.parametrize(
    ("size", "fold", "levels"),
    [(256, 4, 4), ([512, 256], 4, 4), ([1024, 255], 2, 5), (128, 2, 5), (127, 1, 6), (64, 1, 6), ("wrong", 0, 0)],
)
def test_a_fold_takes_the_place_of_levels(size: Any, fold: int, levels: int) -> None:
    if not fold:
        with pytest.raises(ConfigError, match=r"data\.size"):
            Config.resolve("edge", None, {"data.size": size})
        return
    config = Config.resolve("edge", None, {"data.size": size})
    assert (config.network.fold, config.network.levels, config.network.stride) == (fold, levels, 32)
    assert min(config.data.size) // fold >= 64 or fold == 1
    given = Config.resolve("edge", None, {"data.size": size, "network.fold": 4}).network
    assert (given.fold, given.levels) == (4, 4)
    given = Config.resolve("edge", None, {"data.size": size, "network.fold": 4, "network.levels": 6}).network
    assert (given.fold, given.levels) == (4, 6)
    published = Config.resolve("paper", None, {"data.size": size}).network
    assert (published.fold, published.levels) == (1, 6)
    assert config.override(None, {"network.fold": "auto", "network.levels": "auto"}) == config


@pytest.mark.parametrize("fold", [3, [4], "four", None])
def test_levels_of_a_wrong_fold(fold: Any) -> None:
    assert "levels" not in _refused("network.fold", settings={"network.fold": fold}, preset="edge")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    _refused("nowhere.yaml", "cannot be read", file=tmp_path / "nowhere.yaml")
    _refused(str(tmp_path), "cannot be read", file=tmp_path)


@pytest.mark.parametrize("section", ["training", "data"])
@pytest.mark.parametrize("value", ["5", "", "[1]"])
def test_a_section_that_is_none_is_not_papered_over(section: str, value: str, tmp_path: Path) -> None:
    # A later layer would otherwise put its own section in the place of the value, and the rest would be lost.
    file = _file(tmp_path, f"{section}: {value}")
    _refused(str(file), section, file=file, settings={"training.images": 3, "data.size": 64})


def test_settings_that_contradict_in_shape() -> None:
    _refused("training is a value", settings={"training": 5, "training.seed": 3})
    _refused("training.seed", settings={"training.seed.deeper": 3})
    _refused("not a setting", settings={"a..b": 3})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1e-3", 1e-3),
        ("a.b=-2E+4", -2e4),
        ("a.b=16", 16),
        ("a.b=[0.1, 0.9]", [0.1, 0.9]),
        ("a.b=slight", "slight"),
        ("a.b=x=y", "x=y"),
        ("a.b=null", None),
        ("a.b=", None),
        ("a.b=true", True),
    ],
)
def test_setting_of_the_command_line(text: str, value: Any) -> None:
    assert parse_setting(text) == ("a.b", value)


@pytest.mark.parametrize(
    "value",
    [
        *("2001-99-99", "0x_", "0b_", "!!int foo", "!!float x", "!!int ''", "!!bool x", "!!timestamp x", "{[1]: 2}"),
        *("[" * 5000, "!!python/object:os.system x", "[1", "*a", "\x07"),
    ],
)
def test_a_setting_that_is_no_value(value: str) -> None:
    with pytest.raises(ConfigError, match="is not a value") as caught:
        parse_setting(f"data.size={value}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["0_1", "1_000", "0_9", "1_0.5", "0.2_5", "[256, 1_28]", "1_0e3", "{a: 2_0}"])
def test_a_setting_with_underscores(text: str) -> None:
    """YAML 1.1 reads 0_1 as 1."""
    with pytest.raises(ConfigError, match=r"^--set training.seed=.*: write [0-9._e]+ without underscores$"):
        parse_setting(f"training.seed={text}")


@pytest.mark.parametrize("text", ["runs/2024_01/model", "model_1", "v_2"])
def test_a_name_may_have_underscores(text: str) -> None:
    assert parse_setting(f"training.init={text}") == ("training.init", text)


@pytest.mark.parametrize("text", ["0", "1", "+1", "0.25", ".5", "3.", "1e-3", "2.5E+1", " 0.5 "])
def test_a_number(text: str) -> None:
    assert parse_number(text) == float(text)


@pytest.mark.parametrize("text", ["", ".", "-0", "-1", "0_1", "1e", "nan", "inf", "0x1", "\u0661", "1 2", "e3"])
def test_what_is_no_plain_number(text: str) -> None:
    with pytest.raises(ValueError, match="not a number from 0 on"):
        parse_number(text)


@pytest.mark.parametrize("text", ["data.size", "=3", ""])
def test_a_setting_without_key_or_value(text: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        parse_setting(text)


def test_numbers_read_alike_in_file_and_setting(tmp_path: Path) -> None:
    file = _file(tmp_path, "training: {images: 1e4, learning_rate: 1e-3}")
    assert read_yaml(file) == {"training": {"images": 1e4, "learning_rate": 1e-3}}
    assert Config.resolve("fast", file) == Config.resolve(
        "fast", None, dict([parse_setting("training.images=1e4"), parse_setting("training.learning_rate=1e-3")])
    )


def test_folders_that_are_given_are_drawn_from() -> None:
    given = Config.resolve("fast", None, {"simulation.crops": "own", "simulation.textures": "dtd"}).simulation
    assert {kind for kind, weight in given.source_weights.items() if weight} == {"folder", "crops"}
    shown = Config.resolve("fast", None, {"simulation.crops": "own", "simulation.sources.crops": 0}).simulation
    assert {kind for kind, weight in shown.source_weights.items() if weight} == {"procedural"}


def test_the_studios_configuration_mixes_every_kind() -> None:
    config = Config.resolve("fast", Path(__file__).parent.parent / "configs" / "studio.yaml").simulation
    assert min(config.masks.model_dump().values()) > 0
    assert {kind for kind, weight in config.source_weights.items() if not weight} == {"folder", "crops"}
