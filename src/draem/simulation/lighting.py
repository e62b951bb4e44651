"""Normal images under more or less light."""

from __future__ import annotations

from torch import Tensor

from draem.simulation.draws import Stream, to_device, uniform


def relight(images: Tensor, keys: Tensor, strength: float) -> Tensor:
    """Give each image its own gain g and gamma γ, values v → min(g·v^γ, 1).

    images: B×C×H×W in [0, 1]. keys: int64 B on the CPU. strength s: ln g and ln γ are uniform in [−s, s], each apart.
    Returns B×C×H×W; with a strength of 0 the images themselves.
    """
    if not strength:
        return images
    drawn = ((uniform(keys, Stream.LIGHTING, (2,)) * 2.0 - 1.0) * strength).exp_()
    gain, gamma = to_device(drawn, images.device)[:, :, None, None, None].unbind(1)
    return images.pow(gamma).mul_(gain).clamp_(max=1.0)
