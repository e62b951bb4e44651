"""Charts as SVG text: they take their colours from the page, and nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike

from draem.evaluation.curves import Curve

_BINS = 60


@dataclass(frozen=True)
class _Frame:
    """Where values lie on a chart: a box of pixels with room for labels at its left and below."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 54.0
    below: float = 38.0
    margin: float = 18.0

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        inner = self.width - self.left - self.margin, self.height - self.below - self.margin
        return self.left + across * inner[0], self.margin + (1.0 - up) * inner[1]

    def points(self, x: ArrayLike, y: ArrayLike) -> str:
        pairs = zip(np.asarray(x, np.float64).tolist(), np.asarray(y, np.float64).tolist(), strict=True)
        return " ".join("{:.1f},{:.1f}".format(*self.place(*pair)) for pair in pairs)

    def axes(self, x_label: str, y_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
        parts = []
        for value in x_ticks:
            across, bottom = self.place(value, self.y[0])
            parts.append(f'<text class="tick" x="{across:.1f}" y="{bottom + 15:.1f}">{value:g}</text>')
        for value in y_ticks:
            left, up = self.place(self.x[0], value)
            right = self.place(self.x[1], value)[0]
            parts.append(f'<path class="grid" d="M{left:.1f} {up:.1f}H{right:.1f}"/>')
            parts.append(f'<text class="tick end" x="{left - 6:.1f}" y="{up + 4:.1f}">{value:g}</text>')
        middle = (self.left + self.width - self.margin) / 2
        parts.append(f'<text class="label" x="{middle:.1f}" y="{self.height - 5:.1f}">{escape(x_label)}</text>')
        turned = f'transform="rotate(-90 11 {self.height / 2:.1f})"'
        parts.append(f'<text class="label" x="11" y="{self.height / 2:.1f}" {turned}>{escape(y_label)}</text>')
        return "".join(parts)


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about so many."""
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step *= min((1, 2, 2.5, 5, 10), key=lambda times: abs((high - low) / (step * times) - about))
    return [
        round(place * step, 10) for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _svg(frame: _Frame, said: str, body: str, more: str = "") -> str:
    box = f'viewBox="0 0 {frame.width:g} {frame.height:g}"'
    return f'<svg {box} role="img" aria-label="{escape(said)}" {more}>{body}</svg>'


def curve_chart(curve: Curve, title: str, x_label: str, y_label: str) -> str:
    """A curve with its band; the title is told to who cannot see it, with the mean height."""
    most = float(curve.x[-1])
    frame = _Frame(320, 260, (0.0, most), (0.0, 1.0))
    band = frame.points([*curve.x, *curve.x[::-1]], [*curve.high, *curve.low[::-1]])
    body = (
        frame.axes(x_label, y_label, _ticks(0.0, most), (0, 0.25, 0.5, 0.75, 1))
        + f'<polygon class="band" points="{band}"/><polyline class="line" points="{frame.points(curve.x, curve.y)}"/>'
    )
    said = f"{title}: {y_label} over {x_label}, on average {float(np.mean(curve.y)):.3f}, with its 95 % band"
    return _svg(frame, said, body)


def score_chart(good: Sequence[float], anomalous: Sequence[float]) -> str:
    """Histograms of good scores (upwards) and anomalous ones (downwards), each as shares of its own images.

    The page's script moves the line `cut-reject`, the line `cut-review` and the zones; it finds the scale in the
    attributes `data-…`.
    """
    scores = [*good, *anomalous]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    room = max(high - low, 1e-3) * 0.03
    low, high = max(0.0, low - room), min(1.0, high + room)
    if high - low < 1e-3:
        low, high = max(0.0, low - 5e-4), min(1.0, high + 5e-4)
    edges = np.linspace(low, high, _BINS + 1)
    shares = [np.histogram(part, edges)[0] / max(len(part), 1) for part in (good, anomalous)]
    tallest = max(float(max(part.max() for part in shares)), 1e-9)
    frame = _Frame(760, 280, (low, high), (-tallest, tallest))
    bars = []
    for kind, part, sign in (("good", shares[0], 1.0), ("anomalous", shares[1], -1.0)):
        for place, share in enumerate(part):
            if share > 0.0:
                left, top = frame.place(float(edges[place]), max(sign * float(share), 0.0))
                right, bottom = frame.place(float(edges[place + 1]), min(sign * float(share), 0.0))
                size = f'width="{max(right - left - 1, 1):.1f}" height="{bottom - top:.1f}"'
                bars.append(f'<rect class="bar {kind}" x="{left:.1f}" y="{top:.1f}" {size}/>')
    left, middle = frame.place(low, 0.0)
    right, top = frame.place(high, tallest)
    bottom = frame.place(low, -tallest)[1]
    whole = f'x="{left:.1f}" y="{top:.1f}" width="0" height="{bottom - top:.1f}"'
    zones = "".join(f'<rect id="zone-{name}" class="zone {name}" {whole}/>' for name in ("review", "reject"))
    cuts = "".join(
        f'<path id="cut-{name}" class="cut {name}" d="M{left:.1f} {top:.1f}V{bottom:.1f}"/>'
        for name in ("review", "reject")
    )
    words = (
        f'<text class="side" x="{left + 8:.1f}" y="{top + 14:.1f}">good</text>'
        f'<text class="side" x="{left + 8:.1f}" y="{bottom - 6:.1f}">anomalous</text>'
    )
    body = zones + frame.axes("image score", "share of images", _ticks(low, high), ()) + "".join(bars)
    body += f'<path class="axis" d="M{left:.1f} {middle:.1f}H{right:.1f}"/>{cuts}{words}'
    said = f"Scores of {len(good)} good images above the line and {len(anomalous)} anomalous ones below it"
    scale = f'id="scores-chart" data-low="{low!r}" data-high="{high!r}" data-left="{left:.2f}" data-right="{right:.2f}"'
    return _svg(frame, said, body, scale)


def history_chart(x: Sequence[float], y: Sequence[float], x_label: str, y_label: str) -> str:
    """A figure over the images seen in training."""
    top = 1.0 if max(y) <= 1.0 and min(y) >= 0.0 else max(y) * 1.05
    frame = _Frame(460, 240, (0.0, max(x)), (min(0.0, *y), top))
    body = (
        frame.axes(x_label, y_label, _ticks(*frame.x), _ticks(*frame.y))
        + f'<polyline class="line" points="{frame.points(x, y)}"/>'
    )
    return _svg(frame, f"{y_label} over {x_label}: from {y[0]:.3g} to {y[-1]:.3g}", body)
