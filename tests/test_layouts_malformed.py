"""Trees and files as people and programs break them: each gives one line that names the place."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from draem.config import AnyLayout
from draem.data.layouts import read_layout, records
from draem.errors import DataError
from trees import SIZE, TREES, draw, line, plant, put_mask, spot, text

Change = Callable[[Path], object]
HEADER = "path,split,label,mask,defect\n"


def _one_line(root: Path, *says: str, layout: AnyLayout = "auto", category: str | None = None) -> None:
    with pytest.raises(DataError) as caught:
        _read_all(root, layout, category)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert said.startswith(str(root if root.is_dir() else root.parent)), said
    assert len(said) < 700
    for part in says:
        assert part in said


def _read_all(root: Path, layout: AnyLayout, category: str | None) -> None:
    for sample in read_layout(root, layout, category).samples:
        if sample.truth is not None:
            sample.truth.read()


def _csv(rows: str, header: str = HEADER) -> Change:
    def change(root: Path) -> None:
        draw(root / "a.png")
        draw(root / "b.png")
        (root / "x.csv").write_bytes((header + rows).encode("utf-8", "surrogateescape"))

    return change


def _coco(**parts: Any) -> Change:
    """One image with one polygon, and what is to be otherwise."""

    def change(root: Path) -> None:
        draw(root / "a.png")
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 4, 1, 4, 4]]}],
            "categories": [{"id": 1, "name": "crack"}],
        }
        text(root / "a.coco.json", content | parts)

    return change


def _mark(**parts: Any) -> Change:
    return _coco(annotations=[{"id": 1, "image_id": 1, "category_id": 1, **parts}])


def _image(**parts: Any) -> Change:
    return _coco(images=[{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]} | parts])


def _manifest(*lines: str) -> Change:
    def change(root: Path) -> None:
        draw(root / "a.png")
        text(root / "x.manifest", "\n".join([line("k/a.png", "normal"), *lines]))

    return change


def _real_iad(content: dict[str, Any] | str) -> Change:
    def change(root: Path) -> None:
        draw(root / "pcb" / "OK" / "a.jpg")
        draw(root / "pcb" / "NG" / "b.jpg")
        text(root / "pcb.json", content)

    return change


META = {"prefix": "pcb/", "normal_class": "OK"}
OK = {"category": "pcb", "anomaly_class": "OK", "image_path": "OK/a.jpg", "mask_path": None}
COLOURS = {"0": {"class-name": "BACKGROUND", "hex-color": "white"}}

BROKEN: dict[str, tuple[Change, tuple[str, ...]]] = {
    # CSV
    "csv without path": (_csv("a.png,good\n", "file,label,mask\n"), ("x.csv: no column path", "file,label,mask")),
    "csv without label": (_csv("a.png,test\n", "path,split\n"), ("x.csv: no column label",)),
    "csv mask gone": (_csv("a.png,test,bad,m/1.png,\n"), ("x.csv:2: no such file: 'm/1.png'",)),
    "csv image gone": (_csv("a.png,,good,,\nc.png,,good,,\n"), ("x.csv:3: no such file: 'c.png'",)),
    "csv escapes": (_csv("../../etc/passwd,,good,,\n"), ("x.csv:2: '../../etc/passwd' leads out of the data set",)),
    "csv absolute": (_csv("/etc/passwd,,good,,\n"), ("x.csv:2: '/etc/passwd' leads out",)),
    "csv drive": (_csv("C:\\a.png,,good,,\n"), ("x.csv:2: 'C:\\\\a.png' leads out",)),
    "csv mask escapes": (_csv("a.png,,bad,a.png;../x.png,\n"), ("x.csv:2: '../x.png' leads out",)),
    "csv not utf-8": (_csv("caf\udce9.png,,good,,\n"), ("x.csv: not UTF-8 (byte 32)",)),
    "csv twice": (_csv("a.png,,good,,\nb.png,,good,,\na.png,,good,,\n"), ("x.csv:4: a.png is described", "x.csv:2")),
    "csv label": (_csv("a.png,,perhaps,,\n"), ("x.csv:2: label 'perhaps' is not known: use good or anomalous",)),
    "csv split": (_csv("a.png,holdout,good,,\n"), ("x.csv:2: split 'holdout' is not known",)),
    "csv contradiction": (_csv("a.png,,good,,crack\n"), ("x.csv:2: label good and defect crack contradict",)),
    "csv cells": (_csv("a.png,,good\n"), ("x.csv:2: 3 cells, the header has 5",)),
    "csv quote": (_csv('a.png,,good,,"crack\n'), ("x.csv:", "not CSV")),
    "csv empty path": (_csv(",,good,,\n"), ("x.csv:2: a path is needed",)),
    "csv null": (_csv("a\0.png,,good,,\n"), ("x.csv:2",)),
    "csv semicolons": (_csv("a.png;;good\n", "path;split;label\n"), ("x.csv: no column path", "'path;split;label'")),
    "csv tabs": (_csv("a.png\tgood\n", "path\tlabel\r\n"), ("x.csv: no column path",)),
    "csv another name": (_csv("a.png,good\n", "image,label\n"), ("x.csv: no column path", "needed are path,label")),
    "csv utf-16": (
        lambda root: [draw(root / "a.png"), (root / "x.csv").write_bytes(HEADER.encode("utf-16"))],  # type: ignore[func-returns-value]
        ("x.csv: not UTF-8 (byte 0)",),
    ),
    "csv nothing": (_csv(""), ("describes no images (CSV)",)),
    "csv category": (_csv("a.png,good,../x\n", "path,label,category\n"), ("category '../x' cannot be the name",)),
    "csv long cell": (_csv(f"{'a' * 200_000},,good,,\n"), ("x.csv:", "not CSV")),
    # COCO
    "coco no annotations": (_coco(annotations=None), ("a.coco.json: no list 'annotations'",)),
    "coco image gone": (_image(file_name="b.png"), ("a.coco.json: images[0]: no such file: 'b.png'",)),
    "coco image escapes": (_image(file_name="../a.png"), ("images[0]: '../a.png' leads out",)),
    "coco image no name": (_image(file_name=None), ("images[0]: a path is needed, not None",)),
    "coco no size": (_image(height=None), ("images[0]: height and width are needed",)),
    "coco vast size": (_image(height=10**9, width=10**9), ("images[0]: height and width are needed",)),
    "coco image number": (_coco(images=[3]), ("images[0]: an object is needed",)),
    "coco twice": (
        _coco(images=[{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}], annotations=[]),
        ("images[1]: a.png is described before", "images[0]"),
    ),
    "coco half a character": (_image(file_name="\udc80.png"), ("a.coco.json: cannot be read as JSON",)),
    "coco long name": (_image(file_name=f"{'a' * 5000}/a.png"), ("images[0]: no such file: 'aaa",)),
    "coco category": (_mark(category_id=7), ("annotations[0]: category_id 7 is none of its categories",)),
    "coco image id": (_mark(image_id=7), ("annotations[0]: image_id 7 is none of its images",)),
    "coco polygon odd": (_mark(segmentation=[[1, 1, 4, 1, 4]]), ("annotations[0]: a polygon is a list",)),
    "coco polygon text": (_mark(segmentation=["x"]), ("annotations[0]: a polygon is a list",)),
    "coco polygon nan": (_mark(segmentation=[[1, 1, 4, 1, 4, float("nan")]]), ("annotations[0]: a polygon",)),
    "coco polygon outside": (
        _mark(segmentation=[[90, 90, 99, 90, 99, 99]]),
        ("images[0]: an outline lies outside of the image of 6×8 pixels",),
    ),
    "coco no outline": (_mark(), ("annotations[0]: no segmentation, and no bbox",)),
    "coco empty box": (_mark(bbox=[1, 1, 0, 3]), ("annotations[0]: no segmentation, and no bbox",)),
    "coco runs size": (
        _mark(segmentation={"size": [5, 8], "counts": [40]}),
        ("annotations[0]: runs of size [5, 8] in an image of 6×8",),
    ),
    "coco runs sum": (_mark(segmentation={"size": [6, 8], "counts": [40, 9]}), ("images[0]: runs of 49 pixels",)),
    "coco runs text": (_mark(segmentation={"size": [6, 8], "counts": "o"}), ("images[0]: damaged or cut short",)),
    "coco runs none": (_mark(segmentation={"size": [6, 8]}), ("annotations[0]: counts are whole numbers",)),
    # manifest
    "manifest cut": (_manifest('{"source-ref": "s3://b/k/'), ("x.manifest:2: damaged or cut short",)),
    "manifest list": (_manifest("[1]"), ("x.manifest:2: a JSON object is needed, not a list",)),
    "manifest image gone": (
        _manifest(line("k/b.png", "normal")),
        ("x.manifest:2: no such file: 's3://bucket-1/k/b.png'",),
    ),
    "manifest twice": (_manifest(line("j/a.png", "normal")), ("x.manifest:2: a.png is described before",)),
    "manifest class": (_manifest(line("a.png", "maybe")), ("x.manifest:2: ",)),
    "manifest no class": (_manifest('{"source-ref": "s3://b/k/c.png"}'), ("x.manifest:2: ",)),
    "manifest escapes": (_manifest(line("../a.png", "normal")), ("x.manifest:2: ", "leads out of the data set")),
    "manifest no reference": (_manifest('{"label": 1}'), ("x.manifest:2: a path is needed, not None",)),
    # Real-IAD
    "real-iad image gone": (
        _real_iad({"meta": META, "train": [OK | {"image_path": "OK/c.jpg"}]}),
        ("pcb.json: train[0]: no such file: 'OK/c.jpg'",),
    ),
    "real-iad mask gone": (
        _real_iad({"meta": META, "train": [OK, {"anomaly_class": "AK", "image_path": "NG/b.jpg", "mask_path": "m"}]}),
        ("pcb.json: train[1]: no such file: 'm'",),
    ),
    "real-iad no class": (_real_iad({"meta": META, "test": [OK | {"anomaly_class": 3}]}), ("test[0]: anomaly_class",)),
    "real-iad twice": (_real_iad({"meta": META, "train": [OK], "test": [OK]}), ("test[0]: a.jpg is described before",)),
    "real-iad cut": (
        _real_iad('{"meta": {"prefix": "pcb/", "normal_class": "OK"}, "tr'),
        ("pcb.json: damaged or cut",),
    ),
    "real-iad prefix": (
        _real_iad({"meta": META | {"prefix": "../pcb/"}, "train": [OK]}),
        ("pcb.json: meta.prefix: '../pcb/' leads out",),
    ),
    "real-iad no list": (_real_iad({"meta": META, "train": {}}), ("pcb.json: train is no list",)),
    "real-iad nothing": (_real_iad({"meta": META, "train": [], "test": []}), ("describes no images (Real-IAD)",)),
    # trees
    "empty": (lambda root: root.mkdir(exist_ok=True), ("no images in it",)),
    "only masks": (
        lambda root: put_mask(root / "ground_truth" / "crack" / "0.png", spot(0)),
        ("unclear which images",),
    ),
    "category below": (lambda root: TREES["mvtec"](root / "cable"), ("holds 1 MVTec AD category (cable)",)),
    "btad out of place": (
        lambda root: [draw(root / f"train/{kind}/0.png") for kind in ("ok", "ko")],  # type: ignore[func-returns-value]
        ("train/ko/0.png: out of place", "train/ok"),
    ),
    "two csv": (
        lambda root: [text(root / name, HEADER) for name in ("x.csv", "y.csv")],  # type: ignore[func-returns-value]
        ("several CSV files describe it (x.csv, y.csv)",),
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_one_line_says_what_and_where(kind: str, tmp_path: Path) -> None:
    change, says = BROKEN[kind]
    change(tmp_path)
    _one_line(tmp_path, *says)


def test_the_unbroken_ones_are_read(tmp_path: Path) -> None:
    """What the cases above start from is whole."""
    for index, change in enumerate(
        (_csv("a.png,,good,,\n"), _coco(), _manifest(), _real_iad({"meta": META, "train": [OK]}))
    ):
        (tmp_path / str(index)).mkdir()
        change(tmp_path / str(index))
        assert len(read_layout(tmp_path / str(index)).samples) == 1


def _drop(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


def _damage(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(b"damaged")


def _append(name: str, row: str) -> Change:
    def change(root: Path) -> None:
        with (root / name).open("a", encoding="utf-8") as file:
            file.write(row)

    return change


SPLIT = "split_csv/1cls.csv"
GONE = "candle/Data/Images/Normal/0000.JPG"


@pytest.mark.parametrize(
    ("layout", "change", "says"),
    [
        ("visa", _drop(GONE), (f"{SPLIT}:2: no such file: '{GONE}'",)),
        ("visa", _drop("pcb1/Data/Masks/Anomaly/001.png"), (f"{SPLIT}:11: no such file",)),
        (
            "visa",
            _append(SPLIT, f"candle,train,normal,{GONE},\n"),
            (f"{SPLIT}:12: 0000.JPG is described", f"{SPLIT}:2"),
        ),
        ("visa", _append(SPLIT, "candle,train,normal\n"), (f"{SPLIT}:12: 3 cells",)),
        ("visa", lambda root: text(root / SPLIT, "object,split\n"), (f"{SPLIT}: no column label",)),
        ("kolektor_sdd", _drop("kos03/Part1_label.bmp"), ("kos03/Part1.jpg: no mask Part1_label beside it",)),
        ("kolektor_sdd", _damage("kos03/Part1_label.bmp"), ("kos03/Part1_label.bmp: not an image",)),
        ("kolektor_sdd2", _drop("train/10000_GT.png"), ("train/10000.png: no mask 10000_GT beside it",)),
        ("kolektor_sdd2", _damage("test/20000_GT.png"), ("test/20000_GT.png: not an image",)),
        ("dagm", _drop("Train/0003.PNG"), ("Train/Label/0003_label.PNG: there is no image 0003",)),
        ("csv", _damage("masks/1.png"), ("masks/1.png: not an image",)),
        ("manifest", _drop("masks/1.png"), ("test.manifest:3: no such file: 's3://bucket-1/project/masks/1.png'",)),
    ],
)
def test_broken_sets(layout: str, change: Change, says: tuple[str, ...], tmp_path: Path) -> None:
    root, _ = plant(tmp_path, layout)
    change(root)
    _one_line(root, *says, category="all")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.json", '{"images": [', "x.json: damaged or cut short: no JSON at line 1"),
        ("x.json", '{"version": 1}', "x.json: no list 'images': COCO's files have"),
        ("x.json", "[]", "x.json: a JSON object is needed, not a list"),
        ("x.json", "", "x.json: damaged or cut short"),
        ("x.json", '{"images": ' + "[" * 200_000, "x.json: cannot be read as JSON"),
        ("x.json", '{"images": ' + "1" * 10_000 + "}", "x.json: cannot be read as JSON"),
        ("x.csv", "", "x.csv: no column path"),
        ("x.csv", "path;label\na.png;good\n", "x.csv: no column path: its header is 'path;label'"),
        ("x.manifest", "", "describes no images (Lookout manifest)"),
        ("x.txt", "a", "x.txt: is a file: give the folder of images, or a .csv"),
    ],
)
def test_files_given_by_themselves(name: str, content: str, says: str, tmp_path: Path) -> None:
    text(tmp_path / name, content)
    _one_line(tmp_path / name, says)


def test_colours_of_a_manifest(tmp_path: Path) -> None:
    for colours, says in (
        (COLOURS, "x.manifest:2: hex-color 'white': write it as #ffffff"),
        ({"0": "#ffffff"}, "x.manifest:2: internal-color-map"),
        (["#ffffff"], "x.manifest:2: internal-color-map"),
    ):
        draw(tmp_path / "b.png")
        _manifest(line("b.png", "anomaly", "a.png", colours))(tmp_path)  # type: ignore[arg-type]
        _one_line(tmp_path, says)


def test_a_description_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_LARGEST", 2**20)
    text(tmp_path / "x.json", {"images": [], "filler": "x" * 2**21})
    _one_line(tmp_path / "x.json", "x.json: 2 MB; files that describe a data set are read up to")


def test_the_wrong_layout_is_told(tmp_path: Path) -> None:
    root, _ = plant(tmp_path, "mvtec")
    _one_line(root, "is not DAGM (Train/Label): found ground_truth/", "leave the layout away", layout="dagm")
    _one_line(tmp_path / "gone", "no such folder or file", layout="coco")
    text(tmp_path / "x.csv", HEADER)
    _one_line(tmp_path / "x.csv", "is a file: give the folder", layout="mvtec")


def test_without_good_images_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    _csv("a.png,train,bad,,\nb.png,test,bad,,\n")(tmp_path)
    data = read_layout(tmp_path)
    assert data.train_good == ()
    assert len(data.anomalous) == 2


EVIL: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 10**400, 1e308, float("nan"), 3.5, "", "x", "\0", "é", "\n", "/", "../a", "a" * 5000),
    *([], {}, [[]], [[1, 2]], {"a": 1}, [1, 2, 3, 4, 5, 6]),
)


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything within."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*above, key)
        yield from _places(inner, (*above, key))


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("coco", "test/_annotations.coco.json"),
        ("real_iad", "realiad_jsons/realiad_jsons/pcb.json"),
        ("manifest", "test.manifest"),
    ],
)
def test_whatever_stands_anywhere(layout: str, file: str, tmp_path: Path) -> None:
    """Anything in place of anything: it is read, or refused in one line; nothing else is raised."""
    root, _ = plant(tmp_path, layout)
    *before, last = (root / file).read_text(encoding="utf-8").splitlines()
    places, rng = list(_places(json.loads(last))), random.Random(0)
    refused = []
    for _ in range(250):
        *way, key = rng.choice(places)
        content = inner = json.loads(last)
        for step in way:
            inner = inner[step]
        inner[key] = rng.choice(EVIL)
        text(root / file, "\n".join([*before, json.dumps(content)]))
        try:
            _read_all(root, "auto", "all")
        except DataError as error:
            refused.append(str(error))
    assert 25 < len(refused) < 250
    assert all(len(said.splitlines()) == 1 and len(said) < 1000 for said in refused)


def test_hostile_paths_never_leave_the_folder(tmp_path: Path) -> None:
    """The secret beside the data set is there, and is not found by any name."""
    draw(tmp_path / "secret.png")
    root = tmp_path / "set"
    names = ["../secret.png", "x/../../secret.png", str(tmp_path / "secret.png"), "..\\secret.png", "./../secret.png"]
    for name in names:
        _csv(f"{json.dumps(name)},,good,,\n" if "\\" not in name else f"{name},,good,,\n")(root)
        _one_line(root, "x.csv:2", "leads out of the data set")
        _image(file_name=name)(root)
        _one_line(root / "a.coco.json", "images[0]", "leads out of the data set")
        text(root / "x.manifest", line(name, "normal"))
        _one_line(root / "x.manifest", "x.manifest:1", "leads out of the data set")
