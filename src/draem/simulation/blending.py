"""Blending by gradients: what is pasted keeps its edges and takes its colours from what surrounds it."""

from __future__ import annotations

from torch import Tensor

from draem.simulation.membrane import membrane
from draem.simulation.outlines import inner_border


def gradient_blend(normal: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """The source, shifted smoothly so that it meets the normal image at the mask's border.

    normal, source: B×C×H×W float32 in [0, 1]; mask: B×1×H×W, 1 inside. Returns B×C×H×W in [0, 1]. A mask that covers
    the whole image has no border: the source stays as it is.
    Sources: P. Pérez, M. Gangnet, A. Blake, Poisson image editing, SIGGRAPH 2003, equation 10; H. Schlüter et al.,
    Natural synthetic anomalies for self-supervised anomaly detection and localization, ECCV 2022.
    """
    shift = membrane(normal - source, inner_border(mask))
    return (source + shift).clamp_(0.0, 1.0)
