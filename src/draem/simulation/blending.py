"""Blending by gradients: what is pasted keeps its edges and takes its colours from what surrounds it."""

from __future__ import annotations

import torch
from torch import Tensor

from draem.simulation.membrane import membrane
from draem.simulation.outlines import inner_border

_MOST_BORDER = 0.6


def gradient_blend(normal: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """The source, shifted smoothly so that it meets the normal image at the mask's border.

    normal, source: B×C×H×W float32 in [0, 1]; mask: B×1×H×W, 1 inside. Returns B×C×H×W in [0, 1]. The source stays
    as it is where the mask has no border, since it covers the whole image, or is little else: of what is up to about
    three pixels wide, nothing would be left.
    Sources: P. Pérez, M. Gangnet, A. Blake, Poisson image editing, SIGGRAPH 2003, equation 10; H. Schlüter et al.,
    Natural synthetic anomalies for self-supervised anomaly detection and localization, ECCV 2022.
    """
    border = inner_border(mask)
    shift = membrane(normal - source, border)
    thick = border.sum((1, 2, 3), keepdim=True) <= _MOST_BORDER * mask.sum((1, 2, 3), keepdim=True)
    return torch.addcmul(source, shift, thick.to(source.dtype)).clamp_(0.0, 1.0)
