"""Magnetic tiles (Y. Huang et al., The Visual Computer 2020).

    MT_Free/Imgs/exp1_num_100018.jpg  MT_Free/Imgs/exp1_num_100018.png …    image and mask beside each other
    MT_Blowhole/Imgs  MT_Break/Imgs  MT_Crack/Imgs  MT_Fray/Imgs  MT_Uneven/Imgs

There is no split. It is made by the tile, all exposures of which stay together: a sixth of the good tiles, chosen by a
hash, and all defects test. Each tile was photographed in up to six exposures, exp1 to exp6, with rising numbers.
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
    tiles = _tiles(_photographs(root, _FREE, listing))
    held = hold_out(tiles.values(), _TEST_SHARE)
    for kind in _kinds(root, listing):
        defect = "good" if kind == _FREE else kind.removeprefix("MT_").lower()
        drawn = {path.stem: path for path in listing.pictures(root / kind / "Imgs") if path.suffix.lower() == ".png"}
        for path in _photographs(root, kind, listing):
            mask = drawn.get(path.stem)
            to_test = defect != "good" or tiles[path] in held
            masks = [mask] if mask else None
            samples.append(make_sample(root, path, "test" if to_test else "train", category, defect, masks))
    return samples


def _kinds(root: Path, listing: Listing) -> list[str]:
    return [
        name for name in listing.folders(root) if name.startswith("MT_") and listing.has_folder(root / name / "Imgs")
    ]


def _photographs(root: Path, kind: str, listing: Listing) -> list[Path]:
    return [path for path in listing.pictures(root / kind / "Imgs") if path.suffix.lower() != ".png"]


def _tiles(photographs: list[Path]) -> dict[Path, str]:
    """The tile of each photograph, named by its first: exp1_num_290998, exp2_num_291023, exp4_num_291052 are one.

    By rising numbers, a new tile begins where the exposure does not rise. Other names are tiles of their own.
    """
    tiles, numbered = {path: path.stem for path in photographs}, []
    for path in photographs:
        if name := re.fullmatch(r"exp(\d+)_num_(\d+)", path.stem):
            numbered.append((int(name[2]), int(name[1]), path))
    tile, before = "", 0
    for _, exposure, path in sorted(numbered):
        tile = tile if tile and exposure > before else path.stem
        tiles[path], before = tile, exposure
    return tiles


MAGNETIC_TILE = Reader("magnetic_tile", "magnetic tiles", "MT_Free/Imgs", claims, read)
