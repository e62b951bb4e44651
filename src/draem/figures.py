"""Figures of matplotlib without a window or a global state; it is loaded when the first one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from draem.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Told apart by the colour-blind (M. Okabe, K. Ito, 2008)."""
_DPI = 110


def blank_figure(width: float, height: float) -> Figure:
    """A figure of its own, without a window or a global state; sides in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "report") from None
    return Figure((width, height), dpi=_DPI, layout="constrained")


def drawn(figure: Figure) -> NDArray[np.uint8]:
    """The figure as pixels, H×W×3 uint8 RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3], np.uint8)  # type: ignore[no-untyped-call]
