"""The plot of a benchmark: accuracy against latency."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from draem.deployment.benchmark.result import Benchmark, Row
from draem.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

METRIC = "pixel_ap"
_COLOURS = {"torch": "#D55E00", "onnxruntime": "#0072B2", "openvino": "#009E73"}
"""Told apart by the colour-blind (M. Okabe, K. Ito, 2008)."""
_MARKERS = {"fp32": "o", "fp16": "s", "bf16": "D", "int8": "^"}
_OFFSETS = ((8, 6), (8, -12), (-8, 6), (-8, -12), (0, 14), (0, -20), (8, 20), (-8, 20), (8, -28), (-8, -28), (0, 34))
"""Where a label may stand, in points from its mark; the first that covers nothing is taken."""
_LEAST_SPAN = 0.02
"""Of the accuracy's axis: differences that mean nothing must not fill the picture."""


def latency_plot(benchmark: Benchmark) -> bytes | None:
    """Pixel AP against the median time from file to decision, as PNG; none where no row has both.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    points = [(row, row.decision.p50, ap) for row in benchmark.rows if row.decision and (ap := row.metric(METRIC))]
    if not points:
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "report") from None
    figure = Figure((9, 5.5), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _frame(axes, [time for _, time, _ in points], [ap for _, _, ap in points])
    axes.set_title(f"{benchmark.model}\n{benchmark.measured_on}", fontsize="medium")
    for row, time, ap in points:
        marker, colour = _MARKERS.get(row.way.precision, "P"), _COLOURS.get(row.way.backend, "black")
        axes.scatter([time], [ap], s=55, marker=marker, color=colour, zorder=3)
    figure.tight_layout()
    _label(axes, points)
    written = BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def _frame(axes: Axes, times: list[float], values: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_xlim(min(times) / 1.6, max(times) * 1.9)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    middle, span = (min(values) + max(values)) / 2, max(1.6 * (max(values) - min(values)), _LEAST_SPAN)
    axes.set_ylim(middle - span / 2, middle + span / 2)
    axes.set_xlabel("milliseconds from image file to decision, median, batch 1 (left is faster)")
    axes.set_ylabel("pixel AP")
    axes.grid(color="#e4e4e4")
    axes.set_axisbelow(True)


def _label(axes: Axes, points: list[tuple[Row, float, float]]) -> None:
    """Name every mark where no other mark or name stands."""
    from matplotlib.transforms import Bbox

    taken = [
        Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform([(t, ap) for _, t, ap in points])
    ]
    frame = axes.get_window_extent()
    for row, time, ap in sorted(points, key=lambda point: point[1]):
        name = f"{row.way.backend} {row.way.precision}, {time:.{0 if time >= 100 else 1}f} ms"
        label = axes.annotate(
            name,
            (time, ap),
            (0, 0),
            textcoords="offset points",
            fontsize="small",
            color=_COLOURS.get(row.way.backend, "black"),
        )
        best = min(_OFFSETS, key=lambda offset: _covered(label, offset, frame, taken))
        _covered(label, best, frame, taken)
        taken.append(label.get_window_extent())


def _covered(label: Annotation, offset: tuple[int, int], frame: Bbox, taken: list[Bbox]) -> int:
    """Put a label at an offset from its mark; how much of what is taken it covers there, the frame counted too."""
    label.xyann = offset
    label.set_horizontalalignment("left" if offset[0] > 0 else "right" if offset[0] < 0 else "center")
    box = label.get_window_extent()
    outside = bool(box.x0 < frame.x0 or box.x1 > frame.x1 or box.y0 < frame.y0 or box.y1 > frame.y1)
    return sum(bool(box.overlaps(other)) for other in taken) + len(taken) * outside
