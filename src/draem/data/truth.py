"""The truth of a test image: where its anomaly is, in whatever form a data set says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.shapes import Shapes
from draem.errors import ImageError
from draem.images import fit_mask, read_image, read_mask

Rule = Literal["half", "nonzero"]
"""Which pixels of a mask file are anomalous: above half of its range (0/255 and 0/1 masks), or all but 0 (labels)."""
Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


@dataclass(frozen=True)
class Truth:
    """Where the anomaly of one image is: the union of what its files and shapes mark; it has at least one.

    Data sets with several masks an image (one for each defect) have several files.
    """

    files: tuple[Path, ...] = ()
    rule: Rule = "half"
    background: Colour | None = None
    """If there is one, it stands for the rule: all pixels of another colour are anomalous."""
    shapes: Shapes | None = None

    @property
    def place(self) -> str:
        """Where the truth is told, for errors: its first file, or the entry of an annotation file."""
        return str(self.files[0]) if self.files else self.shapes.place if self.shapes else "no truth"

    def read(self) -> NDArray[np.bool_]:
        """H×W bool, True where anomalous, at the resolution of the files or of the shapes' coordinates.

        Raises:
            ImageError: a file cannot be read, two of them differ in size, or shapes do not fit their image.
        """
        parts = self._parts()
        mask = next(parts)[1]
        for place, other in parts:
            if other.shape != mask.shape:
                raise ImageError(f"{place}: {_size(other.shape)} pixels; {self.place} has {_size(mask.shape)}")
            mask = mask | other
        return mask

    def _parts(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        for path in self.files:
            if self.background is None:
                yield str(path), read_mask(path, self.rule)
            else:
                yield str(path), np.asarray((read_image(path) != self.background).any(axis=2))
        if self.shapes is not None:
            yield self.shapes.place, self.shapes.draw()


def load_truth(truth: Truth, image_size: tuple[int, int], config: DataConfig) -> NDArray[np.bool_]:
    """Read the anomaly mask of an image of `image_size` (height, width): H×W bool at the size of its map.

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
            f"{truth.place}: a mask of {_size(mask.shape)} pixels does not fit its image of {_size(image_size)}"
        )
    return fit_mask(mask, *config.frame(image_size))


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape)
