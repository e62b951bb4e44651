"""Blending by gradients: what is pasted keeps its edges and takes its colours from what surrounds it."""

from __future__ import annotations

from torch import Tensor


def gradient_blend(normal: Tensor, source: Tensor, mask: Tensor) -> Tensor:
    """The source, shifted smoothly so that it meets the normal image at the mask's border.

    normal, source: B×C×H×W float32 in [0, 1]; mask: B×1×H×W, 1 inside. Returns B×C×H×W in [0, 1].
    """
    raise NotImplementedError
