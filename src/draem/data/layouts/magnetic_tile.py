"""Magnetic tiles (Y. Huang et al., The Visual Computer 2020).

    MT_Free/Imgs/exp1_num_100018.jpg  MT_Free/Imgs/exp1_num_100018.png …    image and mask beside each other
    MT_Blowhole/Imgs  MT_Break/Imgs  MT_Crack/Imgs  MT_Fray/Imgs  MT_Uneven/Imgs

There is no split. It is made by the number of the tile, all exposures of which stay together: a sixth of the good
tiles, chosen by a hash of the number, and all defects test.
"""

from __future__ import annotations

import re
from pathlib import Path

from draem.data.layouts.files import Listing
from draem.data.layouts.reader import Reader
from draem.data.layouts.terms import category_of, hold_out, make_sample
from draem.data.samples import Sample

_TEST_SHARE = 1 / 6
_FREE = "MT_Free"


def claims(root: Path, listing: Listing) -> bool:
    """Whether there is a folder MT_Free/Imgs or the like."""
    return bool(_kinds(root, listing))


def read(root: Path, listing: Listing) -> list[Sample]:
    """All tiles; the type of a defect is the folder's name without MT_."""
    category, samples = category_of(root), []
    held = hold_out((_tile(path) for path in _photographs(root, _FREE, listing)), _TEST_SHARE)
    for kind in _kinds(root, listing):
        defect = "good" if kind == _FREE else kind.removeprefix("MT_").lower()
        drawn = {path.stem: path for path in listing.pictures(root / kind / "Imgs") if path.suffix.lower() == ".png"}
        for path in _photographs(root, kind, listing):
            mask = drawn.get(path.stem)
            to_test = defect != "good" or _tile(path) in held
            masks = [mask] if mask else None
            samples.append(make_sample(root, path, "test" if to_test else "train", category, defect, masks))
    return samples


def _kinds(root: Path, listing: Listing) -> list[str]:
    return [
        name for name in listing.folders(root) if name.startswith("MT_") and listing.has_folder(root / name / "Imgs")
    ]


def _photographs(root: Path, kind: str, listing: Listing) -> list[Path]:
    return [path for path in listing.pictures(root / kind / "Imgs") if path.suffix.lower() != ".png"]


def _tile(path: Path) -> str:
    """Its number: exp1_num_108889 and exp4_num_108889 show the same tile."""
    number = re.search(r"num_(\d+)", path.stem)
    return number[1] if number else path.stem


MAGNETIC_TILE = Reader("magnetic_tile", "magnetic tiles", "MT_Free/Imgs", claims, read)
