"""The truth of a test image: where its anomaly is, in whatever form a data set says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.errors import ImageError
from draem.images import fit_mask, read_mask

Rule = Literal["half", "nonzero"]
"""Which pixels of a mask file are anomalous: above half of its range (0/255 and 0/1 masks), or all but 0 (labels)."""


@dataclass(frozen=True)
class Truth:
    """Where the anomaly of one image is: the union of what its files mark.

    Data sets with several masks an image (one for each defect) have several files.
    """

    files: tuple[Path, ...]
    rule: Rule = "half"

    def read(self) -> NDArray[np.bool_]:
        """H×W bool, True where anomalous, at the resolution of the files.

        Raises:
            ImageError: a file cannot be read, or two of them differ in size.
        """
        mask = read_mask(self.files[0], self.rule)
        for path in self.files[1:]:
            other = read_mask(path, self.rule)
            if other.shape != mask.shape:
                raise ImageError(f"{path}: {_size(other.shape)} pixels; {self.files[0]} has {_size(mask.shape)}")
            mask = mask | other
        return mask


def load_truth(truth: Truth, image_size: tuple[int, int], config: DataConfig) -> NDArray[np.bool_]:
    """Read the anomaly mask of an image of `image_size` (height, width): H×W bool at `config.size`.

    It is averaged over each pixel's area, whatever the image's interpolation. A mask of another resolution than its
    image is fine; one of another shape cannot belong to it.

    Raises:
        ImageError: the mask cannot be read, or its aspect ratio is not the image's, to a pixel's rounding.
    """
    mask = truth.read()
    height, width = mask.shape
    expected = height * image_size[1] / image_size[0]
    if abs(expected - width) > max(1.0, image_size[1] / image_size[0]):
        raise ImageError(
            f"{truth.files[0]}: a mask of {_size(mask.shape)} pixels does not fit its image of {_size(image_size)}"
        )
    return fit_mask(mask, config.size, config.fit)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape)
