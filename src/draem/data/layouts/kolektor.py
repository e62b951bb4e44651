"""KolektorSDD (D. Tabernik et al., JIM 2020) and KolektorSDD2 (J. Božič et al., Computers in Industry 2021).

    KolektorSDD     kos01/Part0.jpg  kos01/Part0_label.bmp …     a folder for each commutator
    KolektorSDD2    train/10301.png  train/10301_GT.png …  test/20000.png  test/20000_GT.png …

Every image has a mask beside it, and is anomalous if a pixel of the mask is not 0; so the masks are decoded.
KolektorSDD has no split. It is made by commutator, since the photographs of one look alike: of a third of the folders,
chosen by a hash of the name, the good images test, those of the others train; all anomalous images test. The anomalous
images in train of KolektorSDD2 keep that split and are never trained on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.terms import DEFECT, Split, category_of, hold_out, make_sample
from draem.data.samples import Sample
from draem.data.truth import Truth
from draem.errors import DataError
from draem.images import read_mask

_TEST_SHARE = 1 / 3
_LABEL, _TRUTH = "_label", "_GT"


def claims_sdd(root: Path, listing: Listing) -> bool:
    """Whether there is a folder with Part0_label.bmp or the like."""
    name = re.compile(r"Part\d+_label\.\w+")
    return any(name.fullmatch(file) for folder in listing.folders(root) for file in listing.files(root / folder))


def claims_sdd2(root: Path, listing: Listing) -> bool:
    """Whether train or test has 10301_GT.png or the like."""
    return any(Path(file).stem.endswith(_TRUTH) for name in ("train", "test") for file in listing.files(root / name))


def read_sdd(root: Path, listing: Listing) -> list[Sample]:
    """KolektorSDD."""
    pairs = [pair for name in listing.folders(root) for pair in _pairs(root / name, _LABEL, listing)]
    anomalous = _anomalous(pairs)
    held = hold_out((path.parent.name for path, _ in pairs), _TEST_SHARE)
    splits: list[Split] = [
        "test" if bad or path.parent.name in held else "train" for (path, _), bad in zip(pairs, anomalous, strict=True)
    ]
    return _samples(root, pairs, splits, anomalous)


def read_sdd2(root: Path, listing: Listing) -> list[Sample]:
    """KolektorSDD2."""
    train, test = _pairs(root / "train", _TRUTH, listing), _pairs(root / "test", _TRUTH, listing)
    splits: list[Split] = [*(["train"] * len(train)), *(["test"] * len(test))]  # type: ignore[list-item]
    return _samples(root, train + test, splits, _anomalous(train + test))


def _pairs(folder: Path, ending: str, listing: Listing) -> list[tuple[Path, Path]]:
    """Images and their masks."""
    pairs = []
    for path in listing.pictures(folder):
        if path.stem.endswith(ending):
            continue
        mask = listing.beside(path, ending)
        if mask is None:
            raise DataError(f"{path}: no mask {path.stem}{ending} beside it: whether it is good cannot be known")
        pairs.append((path, mask))
    return pairs


def _anomalous(pairs: Sequence[tuple[Path, Path]]) -> list[bool]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda pair: bool(read_mask(pair[1], "nonzero").any()), pairs))


def _samples(
    root: Path, pairs: Sequence[tuple[Path, Path]], splits: Sequence[Split], anomalous: Sequence[bool]
) -> list[Sample]:
    category = category_of(root)
    return [
        make_sample(root, path, split, category, DEFECT if bad else "good", Truth((mask,), "nonzero") if bad else None)
        for (path, mask), split, bad in zip(pairs, splits, anomalous, strict=True)
    ]


KOLEKTOR_SDD = Reader("kolektor_sdd", "KolektorSDD", "kos01/Part0_label.bmp", claims_sdd, read_sdd)
KOLEKTOR_SDD2 = Reader("kolektor_sdd2", "KolektorSDD2", "train/<stem>_GT.png", claims_sdd2, read_sdd2)
