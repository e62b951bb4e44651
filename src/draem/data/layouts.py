"""Data sets on disc → samples: which image is for what, and where its mask is. Nothing is decoded here.

Understood are a folder of good images, and the MVTec AD layout (P. Bergmann et al., CVPR 2019):

    train/good/*            the good images to learn from
    test/good/*             good images to test with
    test/<defect>/*         anomalous images, a folder for each type of defect
    ground_truth/<defect>/<stem>_mask.png    their masks: optional, other suffixes are found as well
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NoReturn

from draem.data.samples import Dataset, Layout, Sample
from draem.data.truth import Truth
from draem.errors import DataError
from draem.images import IMAGE_SUFFIXES

_MASK_ENDINGS = ("_mask", "", "_gt", "_label", "_seg", "-mask", "_ground_truth", "_groundtruth")
"""What stands between an image's stem and its mask's suffix, the likeliest first."""

_GOOD = frozenset({"good", "normal", "ok"})
_NOT_GOOD = frozenset(
    {"abnormal", "anomalies", "anomalous", "anomaly", "bad", "broken", "damaged", "defect", "defective", "defects"}
    | {"faulty", "ground_truth", "labels", "mask", "masks", "ng", "nok", "not_good", "not_ok", "reject", "rejected"}
    | {"test"}
)
"""Names of sub-folders that a folder of good images cannot have: learning from what they hold would spoil a model."""

_UNDERSTOOD = (
    "understood are a folder of good images only, or the MVTec AD layout (train/good, test/<defect>, "
    "ground_truth/<defect>)"
)


def read_layout(root: Path, layout: Literal["auto", "folder", "mvtec"] = "auto") -> Dataset:
    """Find the samples of a data set; `auto` finds the layout by itself.

    A plain folder is searched to any depth and holds good images to learn from only. Hidden files and folders and files
    that are no images (by their suffix) are passed over; links to folders are followed.

    Raises:
        DataError: no such folder, no images, several categories, or a folder that fits no layout.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root}: no such folder")
    if not root.is_dir():
        raise DataError(f"{root}: is a file: give the folder of images")
    if layout == "auto":
        layout = _found_layout(root)
    samples = _mvtec(root) if layout == "mvtec" else _folder(root)
    return Dataset(root, layout, tuple(sorted(samples, key=lambda sample: sample.name)))


# ------------------------------------------------------------------------------------------------------------- layouts


def _found_layout(root: Path) -> Layout:
    if _is_mvtec(root):
        return "mvtec"
    names = {name.lower() for name in _folders(root)}
    # A folder named good beside others says that the others are not.
    if "train" in names or names & _NOT_GOOD or (names & _GOOD and len(names) > 1):
        _unclear(root)
    return "folder"


def _is_mvtec(root: Path) -> bool:
    return (root / "train" / "good").is_dir() or any(_images(root / "test" / name) for name in _folders(root / "test"))


def _folder(root: Path) -> list[Sample]:
    _refuse_several(root)
    images = _images(root)
    if not images:
        raise DataError(f"{root}: no images in it (looked for {' '.join(IMAGE_SUFFIXES)} to any depth)")
    return [_sample(root, path, "train", "good", None) for path in images]


def _mvtec(root: Path) -> list[Sample]:
    if not _is_mvtec(root):
        _refuse_several(root)
        _unclear(root)
    for stray in _strays(root):
        raise DataError(f"{stray}: out of place: the MVTec AD layout has images in train/good and test/<defect> only")
    samples = [_sample(root, path, "train", "good", None) for path in _images(root / "train" / "good")]
    for defect in _folders(root / "test"):
        masks = {path.with_suffix("").as_posix(): path for path in reversed(_images(root / "ground_truth" / defect))}
        for path in _images(root / "test" / defect):
            samples.append(_sample(root, path, "test", defect, None if defect == "good" else _mask(root, path, masks)))
    if not samples:
        raise DataError(f"{root}: no images in train/good nor in test")
    return samples


def _strays(root: Path) -> list[Path]:
    """Images that train/good and test/<defect> leave over: passing over them in silence could hide half a data set."""
    train = [path for path in _images(root / "train") if path.relative_to(root / "train").parts[0] != "good"]
    return train + [path for path in _images(root / "test") if path.parent == root / "test"]


def _mask(root: Path, image: Path, masks: dict[str, Path]) -> Path | None:
    """The mask of a test image: at the same place below ground_truth, the image's stem and a known ending."""
    place = (root / "ground_truth" / image.relative_to(root / "test")).with_suffix("").as_posix()
    return next((masks[place + ending] for ending in _MASK_ENDINGS if place + ending in masks), None)


def _sample(root: Path, path: Path, split: Literal["train", "test"], defect: str, mask: Path | None) -> Sample:
    label: Literal["good", "anomalous"] = "good" if defect == "good" else "anomalous"
    truth = None if mask is None else Truth((mask,))
    return Sample(path, path.relative_to(root).as_posix(), split, root.resolve().name, label, defect, truth)


# -------------------------------------------------------------------------------------------------------------- errors


def _refuse_several(root: Path) -> None:
    """A root above the categories is a common slip; all below it, defects and masks too, would pass as good images."""
    categories = [name for name in _folders(root) if _is_mvtec(root / name)]
    if categories:
        raise DataError(
            f"{root}: holds {len(categories)} MVTec AD categor{'y' if len(categories) == 1 else 'ies'} "
            f"({_listed(categories)}): give one of them, such as {root / categories[0]}"
        )


def _unclear(root: Path) -> NoReturn:
    """Say what was found, what is understood and what to do, in one line."""
    _refuse_several(root)
    here = Counter(path.relative_to(root).parts[0] if path.parent != root else "" for path in _images(root))
    found = [f"{name}/ ({here[name]} images)" for name in _folders(root)]
    if here[""]:
        found.append(f"{here['']} images beside them")
    raise DataError(
        f"{root}: unclear which images are good: found {_listed(found) or 'nothing'}; {_UNDERSTOOD}. Give the folder "
        "that holds good images only, or take every image as good (train: --set data.layout=folder, evaluate: "
        "--layout folder)"
    )


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# --------------------------------------------------------------------------------------------------------------- files


def _folders(folder: Path) -> list[str]:
    """Names of the sub-folders, sorted, without hidden ones; none if there is no such folder."""
    if not folder.is_dir():
        return []
    try:
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not _hidden(entry.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def _images(folder: Path) -> list[Path]:
    """Image files below a folder at any depth, sorted; none if there is no such folder."""
    return sorted(_walk(folder, frozenset()), key=lambda path: path.as_posix()) if folder.is_dir() else []


def _walk(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """Links to folders are followed, since data sets are often linked together; `above` ends a circle of links."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = [entry for entry in os.scandir(folder) if not _hidden(entry.name)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.is_dir():
            yield from _walk(Path(entry), above | {real})
        elif entry.name.lower().endswith(IMAGE_SUFFIXES) and (entry.is_file() or entry.is_symlink()):
            yield Path(entry)  # a link to nowhere too: reading it then says so


def _hidden(name: str) -> bool:
    """Hidden files (macOS leaves ._x.png beside x.png) and the folder macOS packs into archives."""
    return name.startswith(".") or name == "__MACOSX"
