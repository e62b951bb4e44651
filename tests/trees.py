"""Small data sets in the true layouts of the field's, with planted masks: what the readers are to find in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
SIZE = (6, 8)


class Planted(NamedTuple):
    """One image as it was made; the split is none where the set has no split."""

    split: str | None
    category: str
    defect: str
    mask: Mask | None = None


Rows = dict[str, Planted]


def spot(seed: int) -> Mask:
    """A rectangle, another for each seed below 12."""
    mask = np.zeros(SIZE, bool)
    top, left = seed % 4, seed % 6
    mask[top : top + 2, left : left + 2 + seed % 2] = True
    return mask


def draw(path: Path, seed: int = 0) -> None:
    """An image of noise, in the format of the suffix."""
    pixels = np.random.default_rng(seed).integers(60, 200, (*SIZE, 3), dtype=np.uint8)
    put(path, pixels)


def put(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Pixels as they are: blue first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())


def put_mask(path: Path, mask: Mask, value: int = 255) -> None:
    put(path, np.where(mask, np.uint8(value), np.uint8(0)))


def text(path: Path, content: str | dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------- trees


def folder(root: Path) -> Rows:
    for name in ("001.png", "day2/002.jpg"):
        draw(root / name)
    return {name: Planted("train", root.name, "good") for name in ("001.png", "day2/002.jpg")}


def mvtec(root: Path) -> Rows:
    """Two defects; masks of 0/255, of 0/1 and of numbers; and a mask of a good image, which some copies have."""
    rows = {}
    for name in ("train/good/000.png", "train/good/001.png", "test/good/000.png"):
        draw(root / name)
        rows[name] = Planted(name.split("/")[0], root.name, "good")
    for index, (name, value) in enumerate([("crack/000", 255), ("crack/001", 1), ("dent/000", 3)]):
        draw(root / f"test/{name}.png")
        put_mask(root / f"ground_truth/{name}_mask.png", spot(index), value)
        rows[f"test/{name}.png"] = Planted("test", root.name, name.split("/")[0], spot(index))
    put_mask(root / "ground_truth/good/000_mask.png", spot(9))
    rows["test/good/000.png"] = Planted("test", root.name, "good", spot(9))
    text(root / "readme.txt", "MVTec")
    return rows


def visa(root: Path) -> Rows:
    """Numbered masks; the types in one of two categories' own files."""
    rows, lines = {}, ["object,split,label,image,mask"]
    for category in ("candle", "pcb1"):
        own = ["image,label,mask"]
        for split, index in (("train", 0), ("train", 1), ("test", 2)):
            name = f"{category}/Data/Images/Normal/{index:04}.JPG"
            draw(root / name)
            lines.append(f"{category},{split},normal,{name},")
            own.append(f"{name},normal,")
            rows[name] = Planted(split, category, "good")
        for index, types in enumerate(("bent", '"melt,bent"')):
            name, mask = (f"{category}/Data/{kind}/Anomaly/{index:03}" for kind in ("Images", "Masks"))
            draw(root / f"{name}.JPG")
            put_mask(root / f"{mask}.png", spot(index), index + 1)
            lines.append(f"{category},test,anomaly,{name}.JPG,{mask}.png")
            own.append(f"{name}.JPG,{types},{mask}.png")
            known = ("bent", "bent + melt")[index] if category == "candle" else "defect"
            rows[f"{name}.JPG"] = Planted("test", category, known, spot(index))
        if category == "candle":
            text(root / category / "image_anno.csv", "\n".join(own) + "\n")
    text(root / "split_csv" / "1cls.csv", "\r\n".join(lines) + "\r\n")
    text(root / "split_csv" / "2cls_fewshot.csv", "object,split,label,image,mask\n")
    return rows


def btad(root: Path) -> Rows:
    """Category 03: images bmp, masks png; a mask of a good image."""
    rows = {}
    for name in ("train/ok/0000.bmp", "train/ok/0001.png", "test/ok/0000.bmp"):
        draw(root / name)
        rows[name] = Planted(name.split("/")[0], root.name, "good")
    put_mask(root / "ground_truth/ok/0000.png", np.zeros(SIZE, bool))
    rows["test/ok/0000.bmp"] = Planted("test", root.name, "good", np.zeros(SIZE, bool))
    for index, suffix in enumerate(("bmp", "png")):
        draw(root / f"test/ko/{index:04}.{suffix}")
        put_mask(root / f"ground_truth/ko/{index:04}.{'png' if suffix == 'bmp' else 'bmp'}", spot(index))
        rows[f"test/ko/{index:04}.{suffix}"] = Planted("test", root.name, "ko", spot(index))
    return rows


def mpdd(root: Path) -> Rows:
    rows = {}
    for name in ("train/good/000.png", "test/good/000.png"):
        draw(root / name)
        rows[name] = Planted(name.split("/")[0], root.name, "good")
    for index, defect in enumerate(("hole", "scratches")):
        draw(root / f"test/{defect}/000.png")
        put_mask(root / f"ground_truth/{defect}/000_mask.png", spot(index))
        rows[f"test/{defect}/000.png"] = Planted("test", root.name, defect, spot(index))
    return rows


def kolektor_sdd(root: Path) -> Rows:
    """Six commutators of three parts; one part of the second and one of the fifth is cracked, one faintly marked."""
    rows = {}
    for number in range(1, 7):
        for part in range(3):
            name = f"kos{number:02}/Part{part}"
            draw(root / f"{name}.jpg")
            cracked = (number, part) in ((2, 1), (5, 2))
            put_mask(root / f"{name}_label.bmp", spot(number) if cracked else np.zeros(SIZE, bool), number)
            planted = (
                Planted("test", root.name, "defect", spot(number)) if cracked else Planted(None, root.name, "good")
            )
            rows[f"{name}.jpg"] = planted
    return rows


def kolektor_sdd2(root: Path) -> Rows:
    rows = {}
    for split, numbers in (("train", (10000, 10001, 10002)), ("test", (20000, 20001))):
        for number in numbers:
            draw(root / split / f"{number}.png")
            bad = number in (10001, 20001)
            put_mask(root / split / f"{number}_GT.png", spot(number % 10) if bad else np.zeros(SIZE, bool))
            planted = (
                Planted(split, root.name, "defect", spot(number % 10)) if bad else Planted(split, root.name, "good")
            )
            rows[f"{split}/{number}.png"] = planted
    return rows


def dagm(root: Path) -> Rows:
    rows = {}
    for split, numbers in (("Train", (1, 2, 3)), ("Test", (2, 4))):
        lines = ["1"]
        for number in numbers:
            draw(root / split / f"{number:04}.PNG")
            bad = number in (3, 4)
            if bad:
                put_mask(root / split / "Label" / f"{number:04}_label.PNG", spot(number))
            lines.append(f"{number}\t{int(bad)}\t{number:04}.PNG\t0\t{f'{number:04}_label.PNG' if bad else 0}")
            found = Planted(split.lower(), root.name, "defect", spot(number)) if bad else None
            rows[f"{split}/{number:04}.PNG"] = found or Planted(split.lower(), root.name, "good")
        text(root / split / "Label" / "Labels.txt", "\n".join(lines))
    return rows


def magnetic_tile(root: Path) -> Rows:
    """Twelve good tiles in two exposures each, whose numbers rise from photograph to photograph."""
    rows = {}
    for tile in range(12):
        for exposure in (1, 4):
            name = f"MT_Free/Imgs/exp{exposure}_num_{99950 + 20 * tile + 3 * exposure}"
            draw(root / f"{name}.jpg")
            put_mask(root / f"{name}.png", np.zeros(SIZE, bool))
            rows[f"{name}.jpg"] = Planted(None, root.name, "good", np.zeros(SIZE, bool))
    for index, kind in enumerate(("Blowhole", "Break", "Crack", "Fray", "Uneven")):
        name = f"MT_{kind}/Imgs/exp1_num_{108889 + index}"
        draw(root / f"{name}.jpg")
        put_mask(root / f"{name}.png", spot(index))
        rows[f"{name}.jpg"] = Planted("test", root.name, kind.lower(), spot(index))
    return rows


def mvtec_loco(root: Path) -> Rows:
    """Masks of two defects in a folder for each image, their values below and above the half."""
    rows = {}
    for name in ("train/good/000.png", "validation/good/000.png", "test/good/000.png"):
        draw(root / name)
        rows[name] = Planted("test" if name.startswith("test") else "train", root.name, "good")
    for kind, values in (("logical_anomalies", (200, 40)), ("structural_anomalies", (255,))):
        draw(root / f"test/{kind}/000.png")
        for index, value in enumerate(values):
            put_mask(root / f"ground_truth/{kind}/000/{index:03}.png", spot(index), value)
        whole = spot(0) | spot(1) if len(values) == 2 else spot(0)
        rows[f"test/{kind}/000.png"] = Planted("test", root.name, kind, whole)
    text(root / "defects_config.json", "[]")
    return rows


def real_iad(root: Path) -> Rows:
    rows: Rows = {}
    for category in ("audiojack", "pcb"):
        listed: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
        for split, kind, number in (
            ("train", "OK", 1),
            ("train", "OK", 2),
            ("train", "HS", 3),
            ("test", "OK", 4),
            ("test", "AK", 5),
        ):
            place = f"{'OK' if kind == 'OK' else f'NG/{kind}'}/S{number:04}/{category}_{number:04}_{kind}_C1_2023"
            draw(root / "realiad_1024" / category / f"{place}.jpg")
            mask = None if kind == "OK" else f"{place}.png"
            if mask:
                put_mask(root / "realiad_1024" / category / mask, spot(number))
            entry = {"category": category, "anomaly_class": kind, "image_path": f"{place}.jpg", "mask_path": mask}
            listed[split].append(entry)
            found = Planted(split, category, "good") if kind == "OK" else Planted(split, category, kind, spot(number))
            rows[f"realiad_1024/{category}/{place}.jpg"] = found
        meta = {"prefix": f"{category}/", "normal_class": "OK", "pre_transform": [{"type": "centercrop"}]}
        text(root / "realiad_jsons" / "realiad_jsons" / f"{category}.json", {"meta": meta, **listed})
        text(root / "realiad_jsons" / "realiad_jsons_sv" / f"{category}.json", {"meta": meta, **listed})
    return rows


def line(key: str, name: str, mask: str = "", colours: dict[str, Any] | None = None) -> str:
    """One line of a manifest, as the console of Lookout for Vision writes it."""
    entry: dict[str, Any] = {
        "source-ref": f"s3://bucket-1/{key}",
        "anomaly-label": int(name != "normal"),
        "anomaly-label-metadata": {
            "confidence": 1,
            "job-name": "labeling-job/anomaly-label",
            "class-name": name,
            "human-annotated": "yes",
            "creation-date": "2021-10-12T14:16:45.668",
            "type": "groundtruth/image-classification",
        },
    }
    if mask:
        kind = {"type": "groundtruth/semantic-segmentation", "job-name": "labeling-job/segmentation-job"}
        entry["anomaly-mask-ref"] = f"s3://bucket-1/{mask}"
        entry["anomaly-mask-ref-metadata"] = {"internal-color-map": colours, **kind}
    return json.dumps(entry)


def manifest(root: Path) -> Rows:
    """Two manifests; the keys have two folders above; the mask's two colours on white."""
    colours = {
        "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 0.0},
        "1": {"class-name": "scratch", "hex-color": "#2ca02c", "confidence": 0.0},
        "2": {"class-name": "dent", "hex-color": "#1f77b4", "confidence": 0.0},
    }
    for name in ("train/0.jpg", "train/1.jpg", "test/0.jpg", "test/1.jpg"):
        draw(root / "parts" / name)
    pixels = np.full((*SIZE, 3), 255, np.uint8)
    pixels[spot(0)] = (0x2C, 0xA0, 0x2C)
    pixels[spot(3)] = (0xB4, 0x77, 0x1F)  # blue first
    put(root / "masks" / "1.png", pixels)
    lines = [line(f"project/parts/train/{index}.jpg", "normal") for index in range(2)]
    text(root / "train.manifest", "\n".join(lines) + "\n")
    anomaly = line("project/parts/test/1.jpg", "anomaly", "project/masks/1.png", colours)
    text(root / "test.manifest", "\n".join([line("project/parts/test/0.jpg", "normal"), "", anomaly]))
    return {
        "parts/train/0.jpg": Planted("train", root.name, "good"),
        "parts/train/1.jpg": Planted("train", root.name, "good"),
        "parts/test/0.jpg": Planted("test", root.name, "good"),
        "parts/test/1.jpg": Planted("test", root.name, "dent + scratch", spot(0) | spot(3)),
    }


def corners(mask: Mask) -> list[float]:
    """The outline of a rectangle."""
    rows, columns = np.nonzero(mask)
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return [float(v) for v in (left, top, right, top, right, bottom, left, bottom)]


def runs(mask: Mask) -> list[int]:
    """Lengths of runs column by column, normal first."""
    flat = mask.T.ravel()
    edges = [0, *(np.flatnonzero(np.diff(flat.astype(int))) + 1).tolist(), len(flat)]
    lengths = np.diff(edges).tolist()
    return [0, *lengths] if flat[0] else lengths


def coco(root: Path) -> Rows:
    """Roboflow's export: a polygon, runs, a box, a category that is no defect; valid has no split of its own."""
    categories = [
        {"id": 0, "name": "parts", "supercategory": "none"},
        {"id": 1, "name": "crack", "supercategory": "parts"},
        {"id": 2, "name": "dent", "supercategory": "parts"},
        {"id": 3, "name": "Good", "supercategory": "parts"},
    ]
    height, width = SIZE
    rows: Rows = {}
    marks: dict[str, list[tuple[int, dict[str, Any], Mask]]] = {
        "train/0": [],
        "train/1": [(3, {"bbox": [0, 0, width, height], "segmentation": []}, spot(0))],
        "valid/0": [],
        "valid/1": [(1, {"bbox": [0, 0, 1, 1], "segmentation": [corners(spot(4))]}, spot(4))],
        "test/0": [],
        "test/1": [
            (1, {"segmentation": {"size": [height, width], "counts": runs(spot(1))}, "iscrowd": 1}, spot(1)),
            (2, {"bbox": [3, 1, 2, 4], "segmentation": []}, np.zeros(SIZE, bool)),
        ],
    }
    box = np.zeros(SIZE, bool)
    box[1:5, 3:5] = True
    for split in ("train", "valid", "test"):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for name in (name for name in marks if name.startswith(split)):
            number = int(name[-1])
            draw(root / f"{name}.jpg")
            images.append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
            for category, mark, _ in marks[name]:
                annotations.append({"id": len(annotations), "image_id": number, "category_id": category, **mark})
        content = {"info": {}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}
        text(root / split / "_annotations.coco.json", content)
        rows[f"{split}/0.jpg"] = Planted("train" if split == "valid" else split, root.name, "good")
    rows["train/1.jpg"] = Planted("train", root.name, "good")
    rows["valid/1.jpg"] = Planted("test", root.name, "crack", spot(4))
    rows["test/1.jpg"] = Planted("test", root.name, "crack + dent", spot(1) | box)
    return rows


def csv(root: Path) -> Rows:
    """Every column; with a byte-order mark, as spreadsheets write it; two masks of one image; a mask of a good one."""
    for name in ("a.png", "b.png", "c.png", "d.png", "e.png"):
        draw(root / "images" / name)
    for index in range(3):
        put_mask(root / "masks" / f"{index}.png", spot(index))
    lines = [
        "path,split,label,mask,defect",
        "images/a.png,train,good,,",
        "images/b.png,,OK,,",
        r"images\c.png,test,normal,masks/2.png,good",
        '"images/d.png",test,anomalous,masks/0.png; masks/1.png,crack',
        "images/e.png,,NG,,",
    ]
    text(root / "list.csv", "\ufeff" + "\n".join(lines) + "\n\n")
    return {
        "images/a.png": Planted("train", root.name, "good"),
        "images/b.png": Planted("train", root.name, "good"),
        "images/c.png": Planted("test", root.name, "good", spot(2)),
        "images/d.png": Planted("test", root.name, "crack", spot(0) | spot(1)),
        "images/e.png": Planted("test", root.name, "defect"),
    }


TREES: dict[str, Callable[[Path], Rows]] = {
    function.__name__: function
    for function in (
        *(folder, mvtec, visa, btad, mpdd, kolektor_sdd, kolektor_sdd2, dagm, magnetic_tile),
        *(mvtec_loco, real_iad, manifest, coco, csv),
    )
}
NAMES = {"mvtec": "bottle", "btad": "03", "mpdd": "bracket_black", "dagm": "Class1", "mvtec_loco": "breakfast_box"}
"""The folder's name where it is a category's."""


def plant(parent: Path, layout: str) -> tuple[Path, Rows]:
    """Make the tree of a layout; its root and what is in it."""
    root = parent / NAMES.get(layout, layout)
    return root, TREES[layout](root)
