"""Trees of train, test and ground_truth: MVTec AD, and those made after it: MPDD, BTAD, MVTec LOCO.

    MVTec AD, MPDD    train/good    test/good  test/<defect>     ground_truth/<defect>/<stem>_mask.png
    BTAD              train/ok      test/ok    test/ko           ground_truth/ko/<stem>.png, of any suffix
    MVTec LOCO        train/good    validation/good              test/good  test/<kind>_anomalies
                      ground_truth/<kind>_anomalies/<stem>/000.png …: one mask for each defect

Sources: P. Bergmann et al., CVPR 2019; S. Jezek et al., ICUMT 2021; P. Mishra et al., ISIE 2021; P. Bergmann et al.,
IJCV 2022.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.terms import category_of, make_sample
from draem.data.samples import Sample
from draem.data.truth import Truth
from draem.errors import DataError

_MASK_ENDINGS = ("_mask", "", "_gt", "_label", "_seg", "-mask", "_ground_truth", "_groundtruth")
"""What stands between an image's stem and its mask's suffix, the likeliest first."""
_MPDD = frozenset({"bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"})


def claims_mvtec(root: Path, listing: Listing) -> bool:
    """Whether there is train/good, or a folder of images in test."""
    test = root / "test"
    return listing.has_folder(root / "train" / "good") or any(
        listing.has_images(test / name) for name in listing.folders(test)
    )


def claims_mpdd(root: Path, listing: Listing) -> bool:
    """MVTec AD's tree under the name of one of MPDD's parts."""
    return root.resolve().name in _MPDD and claims_mvtec(root, listing)


def claims_btad(root: Path, listing: Listing) -> bool:
    """Whether good is called ok."""
    return any(listing.has_folder(root / place) for place in ("train/ok", "test/ok", "test/ko"))


def claims_loco(root: Path, listing: Listing) -> bool:
    """Whether there are logical or structural anomalies."""
    return any(listing.has_folder(root / "test" / f"{kind}_anomalies") for kind in ("logical", "structural"))


def read_mvtec(root: Path, listing: Listing) -> list[Sample]:
    """MVTec AD and MPDD."""
    return _read(root, listing, _Tree("good", ("train",)))


def read_btad(root: Path, listing: Listing) -> list[Sample]:
    """BTAD; the type of its defects is ko."""
    return _read(root, listing, _Tree("ok", ("train",)))


def read_loco(root: Path, listing: Listing) -> list[Sample]:
    """MVTec LOCO: the good images for validation are to train with, and are split as all of those are.

    The value of a mask's pixels says the type of defect, so that all but 0 is anomalous.
    """
    samples = _read(root, listing, _Tree("good", ("train", "validation")))
    masks: dict[str, list[Path]] = defaultdict(list)
    for path in listing.images(root / "ground_truth"):
        masks[path.parent.relative_to(root / "ground_truth").as_posix()].append(path)
    told = [masks.get(sample.name.removeprefix("test/").rpartition(".")[0]) for sample in samples]
    return [
        Sample(**{**vars(sample), "truth": Truth(tuple(files), "nonzero") if files else None})
        for sample, files in zip(samples, told, strict=True)
    ]


class _Tree(NamedTuple):
    good: str
    train: tuple[str, ...]


def _read(root: Path, listing: Listing, tree: _Tree) -> list[Sample]:
    category = category_of(root)
    for stray in _strays(root, listing, tree):
        places = " ".join(f"{name}/{tree.good}" for name in tree.train)
        raise DataError(f"{stray}: out of place: this layout has images in {places} and test/<defect> only")
    samples = [
        make_sample(root, path, "train", category, "good")
        for name in tree.train
        for path in listing.images(root / name / tree.good)
    ]
    for kind in listing.folders(root / "test"):
        masks = _masks(root / "ground_truth", kind, listing)
        defect = "good" if kind == tree.good else kind
        for path in listing.images(root / "test" / kind):
            place = path.relative_to(root / "test").with_suffix("").as_posix()
            mask = next((masks[place + ending] for ending in _MASK_ENDINGS if place + ending in masks), None)
            samples.append(make_sample(root, path, "test", category, defect, [mask] if mask else None))
    if not samples:
        raise DataError(f"{root}: no images in train/{tree.good} nor in test")
    return samples


def _masks(truth: Path, kind: str, listing: Listing) -> dict[str, Path]:
    """Masks by their place below ground_truth, without suffix; of two that differ in it the first by name."""
    found = reversed(listing.images(truth / kind))
    return {path.relative_to(truth).with_suffix("").as_posix(): path for path in found}


def _strays(root: Path, listing: Listing, tree: _Tree) -> list[Path]:
    """Images that the layout leaves over: passing over them in silence could hide half a data set."""
    strays = listing.pictures(root / "test")
    for name in tree.train:
        strays += listing.pictures(root / name)
        for other in set(listing.folders(root / name)) - {tree.good}:
            strays += listing.images(root / name / other)
    return sorted(strays)


MVTEC = Reader("mvtec", "MVTec AD", "train/good, test/<defect>, ground_truth/<defect>", claims_mvtec, read_mvtec)
MPDD = Reader("mpdd", "MPDD", "MVTec AD's in bracket_black and so on", claims_mpdd, read_mvtec)
BTAD = Reader("btad", "BTAD", "train/ok, test/ko", claims_btad, read_btad)
MVTEC_LOCO = Reader("mvtec_loco", "MVTec LOCO", "test/logical_anomalies", claims_loco, read_loco)
