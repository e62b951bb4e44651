"""A prediction as a figure and as HTML: what a notebook shows of it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from draem.figures import blank_figure
from draem.pages import thumbnail
from draem.pictures import heat_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RGB = NDArray[np.uint8]


def prediction_figure(
    image: RGB, reconstruction: RGB, anomaly_map: NDArray[np.float32], overlay: RGB, title: str
) -> Figure:
    """Image, reconstruction, anomaly map with its scale, and regions, side by side.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = blank_figure(12.5, 3.6)
    panels = figure.subplots(1, 4)
    pictures = {"image": image, "reconstruction": reconstruction, "regions": overlay}
    for axes, (name, picture) in zip(panels[[0, 1, 3]], pictures.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(name)
    shown = panels[2].imshow(anomaly_map, cmap="inferno", vmin=0.0, vmax=1.0)
    panels[2].set_title("anomaly map")
    figure.colorbar(shown, ax=panels[2], fraction=0.046)
    for axes in panels:
        axes.set_axis_off()
    figure.suptitle(title)
    return figure


def prediction_html(overlay: RGB, anomaly_map: NDArray[np.float32], title: str) -> str:
    """The overlay and the anomaly map as small pictures, with what was decided."""
    pictures = (overlay, heat_map(anomaly_map))
    shown = "".join(f'<img src="{thumbnail(picture, 256)}" alt="" style="margin-right: 8px">' for picture in pictures)
    return f"<figure>{shown}<figcaption>{escape(title)}</figcaption></figure>"
