"""The fourteen layouts: each is found by itself and read sample by sample, masks to the pixel."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from draem.config import Layout
from draem.data.layouts import read_layout
from draem.data.layouts.reading import READERS
from draem.data.layouts.terms import hold_out
from draem.data.samples import Dataset
from draem.data.truth import Truth
from draem.errors import DataError
from trees import NAMES, SIZE, TREES, Planted, draw, line, plant, put, put_mask, spot, text

SEVERAL = {"visa": ("candle", "pcb1"), "real_iad": ("audiojack", "pcb")}
NESTED = ("btad", "mpdd", "mvtec", "dagm", "mvtec_loco")


def _all(layout: str) -> str | None:
    return "all" if layout in SEVERAL else None


def _check(data: Dataset, rows: dict[str, Planted]) -> None:
    assert [sample.name for sample in data.samples] == sorted(rows)
    for sample in data.samples:
        planted = rows[sample.name]
        assert sample.path == data.root / sample.name
        assert (sample.category, sample.defect) == (planted.category, planted.defect), sample.name
        assert sample.label == ("good" if planted.defect == "good" else "anomalous")
        assert planted.split in (None, sample.split), sample.name
        assert (sample.truth is None) == (planted.mask is None), sample.name
        if sample.truth is not None:
            np.testing.assert_array_equal(sample.truth.read(), planted.mask, sample.name)


def test_every_layout_has_a_tree() -> None:
    assert set(TREES) == set(get_args(Layout))
    assert {reader.layout for reader in READERS} == set(TREES) - {"folder"}


@pytest.mark.parametrize("layout", TREES)
def test_found_and_read(layout: Layout, tmp_path: Path) -> None:
    root, rows = plant(tmp_path, layout)
    data = read_layout(root, "auto", _all(layout))
    assert data.layout == layout
    assert data.root == root
    _check(data, rows)
    assert read_layout(root, layout, _all(layout)) == data


@pytest.mark.parametrize("layout", TREES)
def test_no_layout_is_taken_for_another(layout: str, tmp_path: Path) -> None:
    """Whoever asks for another layout is told; MPDD and MVTec LOCO have trees like MVTec AD's."""
    root, _ = plant(tmp_path, layout)
    for other in set(TREES) - {layout, "folder", *(["mvtec"] if layout in ("mpdd", "mvtec_loco") else [])}:
        # VisA's descriptions are CSV files with columns of their own.
        with pytest.raises(DataError, match="CSV|csv" if (layout, other) == ("visa", "csv") else "is not "):
            read_layout(root, other, "all")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- categories


@pytest.mark.parametrize("layout", NESTED)
def test_a_folder_of_categories(layout: Layout, tmp_path: Path) -> None:
    names = ("bracket_black", "tubes") if layout == "mpdd" else ("01", "02")
    rows = {name: TREES[layout](tmp_path / name) for name in names}
    for asked in ("auto", layout):
        with pytest.raises(DataError) as caught:
            read_layout(tmp_path, asked)
        assert str(caught.value).startswith(f"{tmp_path}: holds 2 ")
        assert f"({', '.join(names)}): add --category NAME" in str(caught.value)
        together = read_layout(tmp_path, asked, "all")
        assert (together.layout, together.categories) == (layout, names)
        _check(together, {f"{name}/{inner}": row for name in names for inner, row in rows[name].items()})
        one = read_layout(tmp_path, asked, names[1])
        assert one == read_layout(tmp_path / names[1])
        with pytest.raises(DataError, match="no category 'zipper': holds 2 "):
            read_layout(tmp_path, asked, "zipper")


@pytest.mark.parametrize("layout", SEVERAL)
def test_described_categories(layout: Layout, tmp_path: Path) -> None:
    root, rows = plant(tmp_path, layout)
    first, second = SEVERAL[layout]
    with pytest.raises(DataError, match=rf"holds 2 .* categories \({first}, {second}\): add --category NAME"):
        read_layout(root)
    one = read_layout(root, category=second)
    assert one.name == second
    _check(one, {name: row for name, row in rows.items() if row.category == second})
    assert read_layout(root, category="all").of(second).samples == one.samples
    with pytest.raises(DataError, match="no category 'zipper'"):
        read_layout(root, category="zipper")


@pytest.mark.parametrize("layout", ["folder", "coco", "mvtec"])
def test_the_only_category_may_be_named(layout: str, tmp_path: Path) -> None:
    root, _ = plant(tmp_path, layout)
    whole = read_layout(root)
    assert read_layout(root, category=root.name) == read_layout(root, category="all") == whole
    with pytest.raises(DataError, match=rf"no category 'x': holds 1 .* \({root.name}\)"):
        read_layout(root, category="x")


def test_categories_of_several_layouts_are_not_mixed(tmp_path: Path) -> None:
    plant(tmp_path, "btad")
    plant(tmp_path, "mvtec")
    with pytest.raises(DataError, match=r"holds several data sets: 03/ \(BTAD\), bottle/ \(MVTec AD\): give one"):
        read_layout(tmp_path)
    assert read_layout(tmp_path, "mvtec", "bottle").name == "bottle"
    shutil.rmtree(tmp_path / "03")
    plant(tmp_path, "mpdd")
    assert read_layout(tmp_path, category="all").layout == "mvtec"


def test_a_linked_category_keeps_the_name_of_its_link(tmp_path: Path) -> None:
    root, _ = plant(tmp_path / "disc", "mvtec")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "flask").symlink_to(root)
    assert read_layout(tmp_path / "set", category="flask").categories == ("flask",)


# --------------------------------------------------------------------------------------------------- splits of our own


def test_kolektor_is_split_by_commutator(tmp_path: Path) -> None:
    root, _ = plant(tmp_path, "kolektor_sdd")
    data = read_layout(root)
    splits: dict[str, set[str]] = {}
    for sample in data.samples:
        if sample.label == "good":
            splits.setdefault(sample.path.parent.name, set()).add(sample.split)
    assert all(len(split) == 1 for split in splits.values())
    assert sum(split == {"test"} for split in splits.values()) == 2  # a third of six
    moved = root.rename(tmp_path / "elsewhere")
    assert [sample.split for sample in read_layout(moved).samples] == [sample.split for sample in data.samples]


def test_exposures_of_a_magnetic_tile_stay_together(tmp_path: Path) -> None:
    root, _ = plant(tmp_path, "magnetic_tile")
    good = {sample.path.stem: sample.split for sample in read_layout(root).samples if sample.label == "good"}
    tiles = [(f"exp1_num_{99953 + 20 * tile}", f"exp4_num_{99962 + 20 * tile}") for tile in range(12)]
    splits = {tile: {good[stem] for stem in tile} for tile in tiles}
    assert all(len(split) == 1 for split in splits.values())
    assert sum(split == {"test"} for split in splits.values()) == 2  # a sixth of twelve


def test_a_magnetic_tile_whose_mask_is_in_capitals(tmp_path: Path) -> None:
    draw(tmp_path / "MT_Crack/Imgs/exp1_num_9.jpg")
    put_mask(tmp_path / "MT_Crack/Imgs/exp1_num_9.PNG", spot(0))
    (sample,) = read_layout(tmp_path).samples
    assert sample.truth is not None
    assert (sample.truth.read() == spot(0)).all()


def test_one_category_of_visa_is_split_by_itself(tmp_path: Path) -> None:
    root, rows = plant(tmp_path, "visa")
    names = [f"candle/Data/Images/Normal/{index:04}.JPG" for index in range(10, 27)]
    with (root / "candle" / "image_anno.csv").open("a") as file:
        for name in names:
            draw(root / name)
            file.write(f"{name},normal,\n")
    data = read_layout(root / "candle")
    assert data.layout == "visa"
    assert len(data.train_good) == 18
    assert [sample.label for sample in data.test].count("good") == 2  # a tenth of twenty
    planted = {name.removeprefix("candle/"): row for name, row in rows.items() if row.category == "candle"}
    planted |= {name.removeprefix("candle/"): Planted(None, "candle", "good") for name in names}
    own = {name: row._replace(split="test" if row.defect != "good" else None) for name, row in planted.items()}
    _check(data, own)


def test_groups_are_held_out_by_name() -> None:
    names = [f"g{index}" for index in range(30)]
    held = hold_out(names, 1 / 3)
    assert len(held) == 10
    assert hold_out(reversed(names), 1 / 3) == held
    assert held - {"g30"} >= hold_out([*names, "g30"], 1 / 3) - {"g30"}, "one more moves no other into the test"
    assert len(hold_out(["a", "b"], 0.1)) == 1
    assert hold_out(["a"], 0.1) == set()


# --------------------------------------------------------------------------------------------------- files and variants


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("csv", "list.csv"),
        ("real_iad", "realiad_jsons/realiad_jsons/pcb.json"),
        ("manifest", "train.manifest"),
        ("coco", "train/_annotations.coco.json"),
    ],
)
def test_the_file_itself(layout: Layout, file: str, tmp_path: Path) -> None:
    root, _ = plant(tmp_path, layout)
    data = read_layout(root / file)
    assert data.layout == layout
    whole = {sample.path: sample for sample in read_layout(root, category=_all(layout)).samples}
    assert data.samples
    assert all(sample.path in whole for sample in data.samples)
    expected = {"csv": 5, "real_iad": 5, "manifest": 2, "coco": 2}[layout]
    assert len(data.samples) == expected
    assert read_layout(root / file, layout) == data


def test_a_csv_names_categories(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        draw(tmp_path / f"{name}.png")
    text(tmp_path / "x.csv", "category,label,path\nbolt,good,a.png\nnut,good,b.png\n,ng,c.png\n")
    data = read_layout(tmp_path, category="all")
    assert [sample.category for sample in data.samples] == ["bolt", "nut", tmp_path.name]


def test_a_csv_that_describes_something_else_is_passed_over(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    text(tmp_path / "notes.csv", "temperature,time\n20,9:00\n")
    text(tmp_path / "a.json", {"images": [{}], "shapes": []})  # a labelling tool's, of one image
    text(tmp_path / "camera.json", {"exposure": 3})
    assert read_layout(tmp_path).layout == "folder"


@pytest.mark.parametrize("images", ["train2017", "images/train2017", "images", "annotations", "."])
def test_coco_images_in_their_usual_places(images: str, tmp_path: Path) -> None:
    draw(tmp_path / images / "1.jpg")
    size = {"height": SIZE[0], "width": SIZE[1]}
    content = {"images": [{"id": 1, "file_name": "1.jpg", **size}], "annotations": [], "categories": []}
    text(tmp_path / "annotations" / "instances_train2017.json", content)
    text(tmp_path / "annotations" / "captions_train2017.json", content)
    data = read_layout(tmp_path)
    assert (data.layout, len(data.train_good), data.root) == ("coco", 1, tmp_path)
    assert read_layout(tmp_path / "annotations" / "instances_train2017.json").samples == data.samples


def test_a_file_is_read_from_within_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of COCO's files lie above the folder of annotations; a CSV file there speaks of what is beside it."""
    here = tmp_path / "annotations"
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [], "categories": []}
    draw(tmp_path / "train2017" / "1.jpg")
    draw(here / "images" / "2.png")
    text(here / "instances_train2017.json", content)
    text(here / "list.csv", "path,label\nimages/2.png,good\n")
    for folder, prefix in ((here, ""), (tmp_path, "annotations/"), (here / "images", "../")):
        monkeypatch.chdir(folder)
        assert [s.name for s in read_layout(Path(f"{prefix}instances_train2017.json")).samples] == ["train2017/1.jpg"]
        data = read_layout(Path(f"{prefix}list.csv"))
        assert [(s.name, s.category) for s in data.samples] == [("images/2.png", "annotations")]


def test_a_manifest_has_lines_as_json_has_them(tmp_path: Path) -> None:
    """Python knows other ends of lines, which may stand in a name."""
    name = "a\u2028b.png"
    draw(tmp_path / name)
    text(tmp_path / "x.manifest", line("a.png", "normal").replace("a.png", name))
    assert [sample.name for sample in read_layout(tmp_path).samples] == [name]


def test_real_iad_beside_its_images(tmp_path: Path) -> None:
    root, _ = plant(tmp_path, "real_iad")
    for path in (root / "realiad_jsons" / "realiad_jsons").iterdir():
        path.rename(root / "realiad_1024" / path.name)
    data = read_layout(root / "realiad_1024", category="pcb")
    assert len(data.samples) == 5
    assert {sample.name.split("/")[0] for sample in data.samples} == {"pcb"}


def test_real_iad_takes_one_resolution(tmp_path: Path) -> None:
    root, _ = plant(tmp_path, "real_iad")
    shutil.copytree(root / "realiad_1024", root / "realiad_256")
    data = read_layout(root, category="all")
    assert {sample.name.split("/")[0] for sample in data.samples} == {"realiad_1024"}
    assert all("realiad_1024" in sample.truth.place for sample in data.samples if sample.truth)


def test_a_manifest_without_splits_in_its_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(tmp_path / f"{name}.jpg")
    text(tmp_path / "all.jsonl", line("k/a.jpg", "normal") + "\n" + line("k/b.jpg", "anomaly"))
    data = read_layout(tmp_path)
    assert [(s.split, s.defect) for s in data.samples] == [("train", "good"), ("test", "defect")]


def test_a_manifest_takes_the_longest_tail(tmp_path: Path) -> None:
    for name in ("good/1.jpg", "1.jpg", "parts/good/1.jpg"):
        draw(tmp_path / name)
    text(tmp_path / "all.manifest", line("prefix/parts/good/1.jpg", "normal"))
    assert [sample.name for sample in read_layout(tmp_path).samples] == ["parts/good/1.jpg"]


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 20, 30)])
def test_the_background_of_a_mask(background: tuple[int, int, int], tmp_path: Path) -> None:
    pixels = np.full((*SIZE, 3), background[::-1], np.uint8)
    pixels[spot(2)] = (30, 20, 11)  # one step away in red, blue first
    put(tmp_path / "m.png", pixels)
    np.testing.assert_array_equal(Truth((tmp_path / "m.png",), background=background).read(), spot(2))


def test_trained_on_are_good_images_of_train_only(tmp_path: Path) -> None:
    for layout in ("kolektor_sdd2", "dagm", "real_iad"):
        root, rows = plant(tmp_path, layout)
        data = read_layout(root, category=_all(layout))
        assert any(sample.split == "train" and sample.label == "anomalous" for sample in data.samples)
        assert {s.name for s in data.train_good} == {
            n for n, r in rows.items() if (r.split, r.defect) == ("train", "good")
        }


def test_names_are_those_of_the_folders() -> None:
    assert set(NAMES) == set(NESTED)
