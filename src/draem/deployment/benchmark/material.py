"""What is measured with: test images of a data set, or rendered ones that only take time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from draem.config import AnyLayout, DataConfig
from draem.data.demo import LARGEST, SMALLEST, render_image
from draem.data.layouts import read_layout
from draem.data.samples import stratified
from draem.deployment.benchmark.job import Accuracy
from draem.evaluation.evaluate import samples_to_test
from draem.images import write_image

TIMED_IMAGES = 8
"""Files that are read and decided on in turn."""


@dataclass(frozen=True)
class Material:
    """A data set, the files of it to time with, both in words, and what accuracy is taken on.

    No accuracy: there are no labels.
    """

    data: Path
    layout: AnyLayout
    category: str | None
    files: list[str]
    words: str
    accuracy: Accuracy | None = None


def of_dataset(data: Path, layout: AnyLayout, category: str | None, most: int) -> Material:
    """At most so many of a data set's test images to evaluate on, and the first few of them to time with.

    Raises:
        DataError: it cannot be understood, or has no test images.
    """
    samples = samples_to_test(read_layout(data, layout, category))
    timed = stratified(samples, TIMED_IMAGES)
    words = f"{len(timed)} images of {data}"
    files = [str(sample.path) for sample in timed]
    if all(sample.label == "good" for sample in samples):
        words += " (no accuracy: all of its test images are good)"
        return Material(data, layout, category, files, words)
    words += f", accuracy on {min(most, len(samples))} of its {len(samples)} test images"
    return Material(data, layout, category, files, words, Accuracy(str(data), layout, category, most))


def rendered(config: DataConfig, folder: Path) -> Material:
    """Images of cloth as large as the network's input, with its channels, written into an empty folder."""
    channels = config.pixel_format.channels
    side = min(max(*config.size, SMALLEST), LARGEST)
    folder.mkdir(exist_ok=True)
    files = []
    for index in range(TIMED_IMAGES):
        image = render_image("woven", size=side, index=index).image
        path = folder / f"{index}{'.png' if channels in (1, 3) else '.npy'}"
        if channels in (1, 3):
            write_image(path, image)
        else:
            np.save(path, np.take(image, range(channels), axis=2, mode="wrap"))
        files.append(str(path))
    words = f"{len(files)} rendered images of {side}×{side} pixels (no accuracy without --data)"
    return Material(folder, "folder", None, files, words)
