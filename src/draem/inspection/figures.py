"""A prediction as a figure and as HTML: what a notebook shows of it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from draem.figures import blank_figure
from draem.images import fit_image
from draem.pages import thumbnail
from draem.pictures import heat_map

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from draem.inspection.prediction import Prediction


def prediction_figure(found: Prediction) -> Figure:
    """Image, reconstruction, anomaly map with its scale, and regions, side by side.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = blank_figure(12.5, 3.6)
    image = fit_image(found.image, *found.data.frame((found.input_map.shape[0], found.input_map.shape[1])))
    panels = figure.subplots(1, 4)
    for axes, title, picture in zip(
        panels[[0, 1, 3]],
        ("image", "reconstruction", "regions"),
        (image, found.reconstruction, found.overlay()),
        strict=True,
    ):
        axes.imshow(picture)
        axes.set_title(title)
    shown = panels[2].imshow(found.input_map, cmap="inferno", vmin=0.0, vmax=1.0)
    panels[2].set_title("anomaly map")
    figure.colorbar(shown, ax=panels[2], fraction=0.046)
    for axes in panels:
        axes.set_axis_off()
    figure.suptitle(in_words(found))
    return figure


def in_words(found: Prediction) -> str:
    """Name, verdict, score and how unusual it is."""
    name = "array" if found.path is None else found.path.name
    parts = [f"score {found.score:.4f}"]
    parts += [] if found.threshold is None else [f"threshold {found.threshold:.4f}"]
    parts += [] if found.p_value is None else [f"p-value {found.p_value:.3g}"]
    return f"{name}: {found.verdict or 'no threshold'} ({', '.join(parts)})"


def prediction_html(found: Prediction) -> str:
    """The overlay and its anomaly map as small pictures, with what was decided."""
    pictures = (found.overlay(), heat_map(np.asarray(found.anomaly_map)))
    shown = "".join(f'<img src="{thumbnail(picture, 256)}" alt="" style="margin-right: 8px">' for picture in pictures)
    return f"<figure>{shown}<figcaption>{escape(in_words(found))}</figcaption></figure>"
