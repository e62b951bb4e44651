"""What a simulated anomaly is made of, where it comes from the image itself: moved, bent, blurred, taken away."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from draem.config import SourceKind

StructuralSource = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From normal images (B×C×H×W float32 in [0, 1]), masks (B×1×H×W) and keys (int64 B on the CPU) to what is to be seen
within the masks: B×C×H×W float32 in [0, 1]."""

STRUCTURAL: dict[SourceKind, StructuralSource] = {}
