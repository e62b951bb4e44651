"""What a simulated anomaly is made of, where it comes from the image itself: moved, bent, blurred, taken away."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from draem.config import SourceKind
from draem.simulation.draws import Stream, to_device, uniform
from draem.simulation.membrane import membrane, neighbours
from draem.simulation.outlines import outer_border, shape_of
from draem.simulation.warping import pixel_places, read_at, turned_places, turns_and_flips

StructuralSource = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From normal images (B×C×H×W float32 in [0, 1]), masks (B×1×H×W) and keys (int64 B on the CPU) to what is to be seen
within the masks: B×C×H×W float32 in [0, 1]."""

_CANDIDATES = 8


def _drawn(keys: Tensor, count: int, device: torch.device) -> Tensor:
    """Uniform draws, B×`count`, on the device."""
    return to_device(uniform(keys, Stream.STRUCTURE, (count,)), device)


def _spread(draws: Tensor, low: float, high: float) -> Tensor:
    """Spread uniform draws over [low, high]."""
    return low + (high - low) * draws


# --------------------------------------------------------------------------------------------------------------- patch


def patch(normal: Tensor, mask: Tensor, keys: Tensor) -> Tensor:
    """Another place of the image, turned and mirrored, in slightly other light.

    Source: C.-L. Li et al., CutPaste, CVPR 2021.
    """
    draws = _drawn(keys, 8 + 2 * _CANDIDATES, normal.device)
    matrix, centre, origin = patch_places(mask, draws)
    rows, columns = turned_places(matrix, centre, origin, (normal.shape[2], normal.shape[3]))
    return relit(read_at(normal, rows, columns), draws[:, 3:6])


def patch_places(mask: Tensor, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is seen at `centre` (B×2) lies at `origin` (B×2), turned by a matrix (B×2×2); see `turned_places`.

    The first of several places whose box does not meet the mask's, else the farthest.
    """
    shape = shape_of(mask)
    centre = ((shape.low + shape.high) / 2).round()
    size = to_device(torch.tensor(mask.shape[2:]), draws.device)
    candidates = (draws[:, 8:].view(-1, _CANDIDATES, 2) * size).floor()
    sides = (shape.high - shape.low + 1.0)[:, None]
    apart = ((candidates - centre[:, None]).abs() / sides).amax(2).clamp(max=1.0)
    order = torch.arange(_CANDIDATES, device=draws.device)
    best = (apart - 1e-4 * order).argmax(1)[:, None, None].expand(-1, 1, 2)
    # A third lies straight, a third is turned by quarters, a third slightly.
    quarters = (draws[:, 1] * 4.0).floor() / 4.0
    slightly = _spread(draws[:, 1], -20.0, 20.0) / 360.0
    way = draws[:, 0] * 3.0
    turns = torch.where(way < 1.0, 0.0, torch.where(way < 2.0, quarters, slightly))
    flips = 1.0 - 2.0 * (draws[:, 2] < 0.5).to(draws.dtype)
    return turns_and_flips(turns, flips), centre, candidates.gather(1, best)[:, 0]


def relit(images: Tensor, draws: Tensor) -> Tensor:
    """Change contrast, brightness and saturation slightly; grey stays grey. draws: B×3."""
    contrast, brightness, saturation = (
        _spread(draws[:, column], *bounds)[:, None, None, None]
        for column, bounds in enumerate(((0.85, 1.15), (-0.08, 0.08), (0.8, 1.2)))
    )
    grey = images.mean(1, keepdim=True)
    return (
        torch.lerp(grey, images, saturation).mul_(contrast).add_(brightness + 0.5 * (1.0 - contrast)).clamp_(0.0, 1.0)
    )


# -------------------------------------------------------------------------------------------------------------- deform


def deform(normal: Tensor, mask: Tensor, keys: Tensor) -> Tensor:
    """The image pushed aside, pinched, bulged or swirled round the mask's centre, and lit as a dent is."""
    draws = _drawn(keys, 6, normal.device)
    shape = shape_of(mask)
    rows, columns = pixel_places((normal.shape[2], normal.shape[3]), normal.device)
    down, right = (rows - shape.centre[:, 0, None, None], columns - shape.centre[:, 1, None, None])
    move_down, move_right = _moves(down, right, shape.radius, draws)
    depth = dent(mask, shape.radius / 2.5)
    moved = read_at(normal, rows + depth[:, 0] * move_down, columns + depth[:, 0] * move_right)
    # On a plain surface a dent is seen by its light alone.
    light = slope(depth, draws[:, 4]).mul_((shape.radius * _spread(draws[:, 5], -0.2, 0.2))[:, None, None, None])
    return moved.add_((moved + 0.2).mul_(light)).clamp_(0.0, 1.0)


def _moves(down: Tensor, right: Tensor, radius: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """How far the middle of a dent is moved, in pixels down and right: by one direction, to or fro, or round.

    down: B×H×1 and right: B×1×W, from the centre. radius: B. draws: B×5.
    """
    kind = (draws[:, 0] * 3.0).floor()
    sign = 1.0 - 2.0 * (draws[:, 1] < 0.5).to(draws.dtype)
    strength = sign * _spread(draws[:, 2], 0.5, 1.1)
    angle = draws[:, 3] * (2.0 * math.pi)
    # Matrix and offset of one linear motion; those of the kinds that were not drawn are zero.
    push, pinch, swirl = ((kind == number).to(draws.dtype) * strength for number in range(3))
    turn = 1.5 * swirl
    along, across = pinch + (turn.cos() - 1.0), turn.sin()
    offset_down, offset_right = push * radius * angle.sin(), push * radius * angle.cos()
    along, across, offset_down, offset_right, limit = (
        number[:, None, None] for number in (along, across, offset_down, offset_right, 1.5 * radius)
    )
    move_down = along * down + across * right + offset_down
    move_right = along * right - across * down + offset_right
    # Far from the centre of a long or scattered mask, a turn would reach across the image.
    length = torch.hypot(move_down, move_right).clamp_(min=1e-6)
    share = (limit / length).clamp_(max=1.0)
    return move_down * share, move_right * share


def dent(mask: Tensor, sigma: Tensor) -> Tensor:
    """A smooth bump within the mask, B×1×H×W: 1 where the mask, blurred by `sigma` (B), is deepest, 0 at its border."""
    smooth = gaussian(mask, sigma, sigma)
    peak = smooth.amax((2, 3), keepdim=True).clamp(min=1e-6)
    rise = (smooth * (2.0 / peak)).sub_(1.0).clamp_(min=0.0)
    return rise * rise * (3.0 - 2.0 * rise)  # level at the border, or light would jump there


def slope(heights: Tensor, turns: Tensor) -> Tensor:
    """The rise a pixel (B×1×H×W) towards a direction (B, of the full circle); none across the image's edge."""
    angle = (turns * (2.0 * math.pi))[:, None, None, None]
    rise = torch.zeros_like(heights)
    rise[..., 1:, :] += heights.diff(dim=2) * angle.sin()
    rise[..., 1:] += heights.diff(dim=3) * angle.cos()
    return rise


# ---------------------------------------------------------------------------------------------------------------- blur


def blur(normal: Tensor, mask: Tensor, keys: Tensor) -> Tensor:
    """The image out of focus, or smeared along its rows or columns."""
    draws = _drawn(keys, 2, normal.device)
    longer = max(normal.shape[2:])
    sigma = (longer * 0.008 * 5.0 ** draws[:, 0]).clamp(min=1.0)
    # Half out of focus; a smear is longer one way, and next to nothing the other way.
    way = draws[:, 1]
    down = torch.where(way < 0.25, 0.2, torch.where(way < 0.5, 2.0 * sigma, sigma))
    across = torch.where(way < 0.25, 2.0 * sigma, torch.where(way < 0.5, 0.2, sigma))
    return gaussian(normal, down, across).clamp_(max=1.0)  # weights sum to 1 up to rounding


def gaussian(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Blur by σ of `down` and `across` pixels (each B), the image mirrored at its edges: matrix products."""
    rows, columns = gaussian_matrix(down, images.shape[2]), gaussian_matrix(across, images.shape[3])
    return rows[:, None] @ images @ columns[:, None]


def gaussian_matrix(sigma: Tensor, length: int) -> Tensor:
    """What each pixel gives to each other, B×`length`×`length`, symmetric; σ well below `length`."""
    distance = torch.arange(2 * length, device=sigma.device, dtype=torch.float32)
    weights = (distance.square() * (-0.5 / sigma.square())[:, None]).exp_()
    weights = weights / (2.0 * weights.sum(1, keepdim=True) - weights[:, :1])
    direct = torch.cat((weights[:, 1:length].flip(1), weights[:, :length]), dim=1).unfold(1, length, 1).flip(1)
    mirrored = weights[:, 1:].unfold(1, length, 1)[:, :length]  # the distance to a mirror image: i + j + 1
    return direct + mirrored + mirrored.flip(1, 2)


# ------------------------------------------------------------------------------------------------------------- missing


def missing(normal: Tensor, mask: Tensor, keys: Tensor) -> Tensor:
    """The surroundings drawn smoothly over what is there, or the colour of the image's edge; as noisy as the image."""
    by_edge = _drawn(keys, 1, normal.device)[:, :, None, None] < 0.5
    filled = torch.where(by_edge, edge_colour(normal), membrane(normal, outer_border(mask)))
    amplitude = math.sqrt(12.0) * noise_level(normal)  # of uniform noise
    grains = uniform(to_device(keys, normal.device), Stream.GRAIN, (1, *normal.shape[2:]))
    return filled.add_(grains.sub_(0.5).mul_(amplitude[:, None, None, None])).clamp_(0.0, 1.0)


def edge_colour(images: Tensor) -> Tensor:
    """The median, B×C×1×1, of the pixels along the image's edge: the background's, where there is one."""
    sides = images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]
    pixels = torch.cat(sides, dim=2).sort(dim=2).values
    return pixels[:, :, pixels.shape[2] // 2, None, None]


def noise_level(images: Tensor) -> Tensor:
    """Standard deviation (B) of the pixels' noise, the same in all channels; edges and texture hardly count."""
    grey = images.mean(1, keepdim=True)
    # Of white noise, the difference to the neighbours' mean is √1.25 times as strong; the square of the mean root of a
    # normal variable's size is 0.676 of its standard deviation. Roots make rare large differences count little.
    roots = (grey - neighbours(grey)).abs_().sqrt_().mean((1, 2, 3))
    return roots.square_().div_(0.676 * math.sqrt(1.25))


STRUCTURAL: dict[SourceKind, StructuralSource] = {
    "patch": patch,
    "deform": deform,
    "blur": blur,
    "missing": missing,
}
