"""The anomaly source's augmentations: the published code's ten operations, batched.

Each takes images, B×C×H×W float32 in [0, 1], and uniform draws, B×5 or B×C if that is more, and returns new images
alike. Hue and saturation need RGB; where there are not three channels, they are not drawn. The ranges are those of the
imgaug operators that the published code names (imgaug 0.4; units of 255 there).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from draem.config import Augmentation
from draem.simulation.draws import Stream, integers, to_device, uniform
from draem.simulation.rotation import rotate

_DRAWS = 5
_LEVELS = 256


def _per_image(draws: Tensor, low: float, high: float) -> Tensor:
    """Spread uniform draws (B) over [low, high], as B×1×1×1."""
    return (low + (high - low) * draws)[:, None, None, None]


def gamma(images: Tensor, draws: Tensor) -> Tensor:
    """Raise each channel to a power of its own, 0.5 to 2."""
    # exp(γ·log x): faster than a power.
    return images.log().mul_((0.5 + 1.5 * draws[:, : images.shape[1]])[:, :, None, None]).exp_()


def brightness(images: Tensor, draws: Tensor) -> Tensor:
    """Multiply by 0.8 to 1.2, then add ± 30/255."""
    scaled = images * _per_image(draws[:, 0], 0.8, 1.2)
    return scaled.add_(_per_image(draws[:, 1], -30.0 / 255.0, 30.0 / 255.0)).clamp_(0.0, 1.0)


def sharpness(images: Tensor, draws: Tensor) -> Tensor:
    """Blend with a smoothed image, weight of the original 0 (smooth) to 2 (sharpened); the border pixels stay.

    The smoothing is the 3×3 mean with the centre five times as heavy (Pillow's ImageEnhance.Sharpness).
    """
    inner = images[..., 1:-1, 1:-1]
    # Whole rows are added in one sweep; the sums over columns are then taken of that.
    rows = (images[..., :-2, :] + images[..., 1:-1, :]).add_(images[..., 2:, :])
    smooth = (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:]).add_(inner, alpha=4.0).mul_(1.0 / 13.0)
    sharpened = images.clone()
    sharpened[..., 1:-1, 1:-1] = smooth.lerp_(inner, _per_image(draws[:, 0], 0.0, 2.0)).clamp_(0.0, 1.0)
    return sharpened


def hue_saturation(images: Tensor, draws: Tensor) -> Tensor:
    """Turn the hue by ± 50/255 of the colour circle and add ± 50/255 to the saturation (HSV)."""
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    per_chroma = 1.0 / chroma.clamp(min=1e-12)
    # Hue in sixths of the circle: 0 red, 2 green, 4 blue; grey pixels get some hue, which their saturation hides.
    is_red, is_green = _at_least(red, value), _at_least(green, value)
    by_red, by_green, by_blue = green - blue, blue - red, red - green
    hue = torch.lerp(
        torch.lerp(by_blue * per_chroma + 4.0, by_green * per_chroma + 2.0, is_green), by_red * per_chroma, is_red
    )
    hue += (6.0 * 50.0 / 255.0) * (2.0 * draws[:, 0] - 1.0)[:, None, None]
    saturation = chroma / value.clamp(min=1e-12)
    saturation = saturation.add_((50.0 / 255.0) * (2.0 * draws[:, 1] - 1.0)[:, None, None]).clamp_(0.0, 1.0)
    phase = torch.stack((hue + 5.0, hue + 3.0, hue + 1.0), dim=1)
    phase.sub_((phase * (1.0 / 6.0)).floor_(), alpha=6.0)
    less = torch.minimum(4.0 - phase, phase).clamp_(0.0, 1.0)
    return value[:, None] - less.mul_((value * saturation)[:, None])


def solarize(images: Tensor, draws: Tensor) -> Tensor:
    """Invert what is at or above a threshold of 32 to 128 of 255, with probability a half."""
    threshold = _per_image(draws[:, 0], 32.0 / 255.0, 128.0 / 255.0) + 2.0 * _per_image(draws[:, 1], 0.0, 1.0).round_()
    return torch.lerp(images, 1.0 - images, _at_least(images, threshold))


def posterize(images: Tensor, draws: Tensor) -> Tensor:
    """Quantise to 1 to 8 bits a channel, each level at the middle of its bin."""
    levels = 2 ** integers(draws[:, :1], 1, 8)[:, :, None, None]
    bins = (images * (255.0 / 256.0 * levels)).floor_()
    return bins.add_(0.5).mul_(256.0 / 255.0 / levels).clamp_(max=1.0)


def invert(images: Tensor, draws: Tensor) -> Tensor:
    """Turn black into white."""
    return 1.0 - images


def autocontrast(images: Tensor, draws: Tensor) -> Tensor:
    """Cut 0 to 20 % of the pixels at each end of every channel and stretch the rest to the full range."""
    levels, histogram = _histogram(images)
    percent = integers(draws[:, :1], 0, 20)[:, :, None]
    cut = (percent * levels.shape[2]).div(100, rounding_mode="floor")
    total = histogram.cumsum(2)
    # The lowest level with more than `cut` pixels up to it, and the highest with more than that from it on.
    low = (total <= cut).sum(2, keepdim=True)
    high = (total - histogram < total[:, :, -1:] - cut).sum(2, keepdim=True) - 1
    ramp = torch.arange(_LEVELS, device=images.device)
    stretched = ((ramp - low) / (high - low).clamp(min=1)).clamp_(0.0, 1.0)
    flat = (high <= low).to(torch.float32)
    return _look_up(levels, torch.lerp(stretched, (ramp / 255.0).expand_as(stretched), flat), images)


def equalize(images: Tensor, draws: Tensor) -> Tensor:
    """Equalise the histogram of every channel (Pillow's ImageOps.equalize)."""
    levels, histogram = _histogram(images)
    total = histogram.cumsum(2)
    ramp = torch.arange(_LEVELS, device=images.device)
    last = ((histogram > 0) * ramp).amax(2, keepdim=True)
    step = (total[:, :, -1:] - histogram.gather(2, last)).div(255, rounding_mode="floor")
    safe = step.clamp(min=1)
    curve = (safe // 2 + total - histogram).div(safe, rounding_mode="floor").clamp_(max=255) / 255.0
    flat = (step == 0).to(torch.float32)
    return _look_up(levels, torch.lerp(curve, (ramp / 255.0).expand_as(curve), flat), images)


def turn(images: Tensor, draws: Tensor) -> Tensor:
    """Rotate by ± 45°, with black corners."""
    return rotate(images, 90.0 * draws[:, 0] - 45.0, "black")


def _at_least(values: Tensor, bounds: Tensor) -> Tensor:
    """1.0 where a value is at or above its bound, else 0.0; many times faster on a CPU than through booleans."""
    return torch.ge(values, bounds, out=torch.empty_like(values))


def _histogram(images: Tensor) -> tuple[Tensor, Tensor]:
    """Levels of 255, int64 B×C×HW, and how many pixels each has, int64 B×C×256."""
    levels = (images * 255.0).round_().to(torch.int32).long().flatten(2)
    histogram = torch.zeros(*levels.shape[:2], _LEVELS, dtype=torch.int32, device=images.device)
    ones = torch.ones(1, dtype=torch.int32, device=images.device).expand_as(levels)
    # Integer counts: the same whatever order the device adds them in.
    return levels, histogram.scatter_add_(2, levels, ones).long()


def _look_up(levels: Tensor, curves: Tensor, images: Tensor) -> Tensor:
    """Apply tone curves, B×C×256, to levels, B×C×HW."""
    return curves.gather(2, levels).view_as(images)


OPERATIONS: dict[Augmentation, Callable[[Tensor, Tensor], Tensor]] = {
    "gamma": gamma,
    "brightness": brightness,
    "sharpness": sharpness,
    "hue_saturation": hue_saturation,
    "solarize": solarize,
    "posterize": posterize,
    "invert": invert,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "rotate": turn,
}

_RGB_ONLY = ("hue_saturation",)


def chosen(keys: Tensor, names: Sequence[Augmentation], count: int) -> Tensor:
    """Draw `count` different positions in `names`, or all, for each sample, in the order of application: int64."""
    return uniform(keys, Stream.AUGMENT_CHOICE, (len(names),)).argsort(dim=1)[:, :count]


def augment(images: Tensor, keys: Tensor, names: Sequence[Augmentation], count: int) -> Tensor:
    """Apply `count` of the augmentations to each image, drawn without replacement, in the order drawn.

    images: B×C×H×W float32 in [0, 1]. keys: int64 B on the CPU. Returns B×C×H×W in [0, 1].
    Samples that share an operation in a slot go through it as one batch.
    """
    channels = images.shape[1]
    names = [name for name in names if channels == 3 or name not in _RGB_ONLY]
    choices = chosen(keys, names, count)
    draws = uniform(keys, Stream.AUGMENT, (len(names), max(_DRAWS, channels)))
    order = torch.arange(len(keys))
    for slot in range(choices.shape[1]):
        # Sorted on the host by what they go through, all members of an operation are one slice.
        positions, move = choices[order, slot].sort(stable=True)
        order = order[move]
        counts = torch.bincount(positions, minlength=len(names)).tolist()
        some_draws = torch.split(to_device(draws[order, positions], images.device), counts)
        some_images = torch.split(images.index_select(0, to_device(move, images.device)), counts)
        parts = zip(names, some_images, some_draws, strict=True)
        images = torch.cat([OPERATIONS[name](some, drawn) for name, some, drawn in parts if len(some)])
    return images.index_select(0, to_device(order.argsort(), images.device))
