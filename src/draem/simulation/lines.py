"""Anomaly masks of thin lines: scratches and cracks, as capsules along polylines.

Widths and lengths come from what an image of 256² would have. With an `area` the length is scaled to it, and the width
where the image is too small for the length. A mask has 0.65 to 1.45 times the pixels wanted, as lines cross and
interruptions have round ends, if these are some twenty a line or more; a region cuts off what lies beyond it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from draem.config import SimulationConfig
from draem.simulation.draws import to_device
from draem.simulation.placing import anchors, inside_of, within
from draem.simulation.plans import Plan, geometric, pixels_each, plan, scale_of
from draem.simulation.spans import capsule_spans, fill

_PIECES = 16
"""Of a scratch."""
TRUNK, _BRANCHES, TWIG = 12, 4, 5
"""Segments of a crack's trunk, which come first; branches at most; segments of each branch."""
SCRATCH_DRAWS = 5 + _PIECES
"""Uniform numbers for each scratch; below: for each crack."""
CRACK_DRAWS = 5 + 2 * TRUNK + _BRANCHES * (3 + TWIG)
_SCRATCH_LENGTHS, _SCRATCH_WIDTHS = (0.08, 0.8), (1.0, 4.0)
_CRACK_LENGTHS, _CRACK_WIDTHS = (0.15, 0.8), (1.0, 3.0)
"""Lengths in sides of the image, widths in pixels at 256²."""


class Lines(NamedTuple):
    """Segments of lines on the CPU, float64; S lines a sample, K segments each.

    ends: B×S×K×2×2, where each segment starts and ends, row and column, as seen from the line's anchor, which lies on
    it; widths: B×S×K; both in pixels. Of a course, in shares of the line's length and width. drawn: B×S×K bool.
    """

    ends: Tensor
    widths: Tensor
    drawn: Tensor


def scratches(drawn: Plan, size: tuple[int, int]) -> Lines:
    """Slightly bent lines, some of them interrupted; 1 to 4 pixels wide at 256²."""
    lengths = geometric(drawn.draws[..., 3], *_SCRATCH_LENGTHS) * math.sqrt(size[0] * size[1])
    widths = geometric(drawn.draws[..., 4], *_SCRATCH_WIDTHS) * scale_of(size)
    return _stretched(_scratch_courses(drawn), drawn, lengths, widths, size)


def cracks(drawn: Plan, size: tuple[int, int]) -> Lines:
    """A jagged trunk, thinner towards its end, with two to four branches that leave it sideways; 1 to 3 pixels wide at
    256²."""
    lengths = geometric(drawn.draws[..., 3], *_CRACK_LENGTHS) * math.sqrt(size[0] * size[1])
    widths = geometric(drawn.draws[..., 4], *_CRACK_WIDTHS) * scale_of(size)
    return _stretched(_crack_courses(drawn), drawn, lengths, widths, size)


def _scratch_courses(drawn: Plan) -> Lines:
    """Parts of parabolas."""
    angle, bend, faint = drawn.draws[..., 0] * math.pi, drawn.draws[..., 1] - 0.5, drawn.draws[..., 2]
    at = torch.linspace(-0.5, 0.5, _PIECES + 1, dtype=torch.float64)
    aside = (0.6 * bend * bend.abs())[..., None] * 4 * at**2  # most are nearly straight
    points = torch.stack(
        (at * angle.sin()[..., None] + aside * angle.cos()[..., None],
         at * angle.cos()[..., None] - aside * angle.sin()[..., None]), dim=-1
    )  # fmt: skip
    ends = torch.stack((points[..., :-1, :], points[..., 1:, :]), dim=-2)
    there = drawn.draws[..., 5:] >= (0.8 * faint - 0.4).clamp(min=0.0)[..., None]
    there[..., _PIECES // 2] = True  # the one that the anchor is at
    return Lines(ends, torch.ones_like(there, dtype=torch.float64), there & drawn.drawn[..., None])


def _crack_courses(drawn: Plan) -> Lines:
    """Walks that turn at random, and walks that leave them."""
    sizes = [5, 2 * TRUNK, _BRANCHES * (3 + TWIG)]
    knobs, trunk_draws, branch_draws = torch.split(drawn.draws, sizes, dim=-1)
    turns, steps = trunk_draws.view(*trunk_draws.shape[:-1], TRUNK, 2).unbind(-1)
    angles = knobs[..., :1] * (2 * math.pi) + (turns - 0.5) * 2.0
    trunk = _walk(angles, (0.5 + steps) / TRUNK)
    trunk = trunk - trunk[..., TRUNK // 2, :1, :][..., None, :]  # the anchor is where its second half begins
    taper = torch.linspace(1.0, 0.5, TRUNK, dtype=torch.float64).expand(trunk.shape[:-2])
    branches = branch_draws.view(*branch_draws.shape[:-1], _BRANCHES, 3 + TWIG)
    begin = torch.arange(_BRANCHES) * ((TRUNK - 2) // _BRANCHES) + 1 + (branches[..., 0] * 2).long()
    side = torch.tensor([1.0, -1.0]).repeat(_BRANCHES // 2) * torch.where(knobs[..., 1:2] < 0.5, 1.0, -1.0)
    away = angles.gather(-1, begin)[..., None] * 0.5 + knobs[..., :1, None] * math.pi
    away = away + (side * (0.5 + 0.7 * branches[..., 1]))[..., None] + (branches[..., 3:] - 0.5) * 1.6
    length = (0.12 + 0.3 * branches[..., 2]) / TWIG
    twigs = _walk(away, length[..., None].expand_as(away))
    root = trunk[..., 0, :].gather(-2, begin[..., None].expand(*begin.shape, 2))
    twigs = twigs + root[..., None, None, :]
    thin = 0.6 * taper.gather(-1, begin)[..., None].expand(away.shape)
    there = torch.arange(_BRANCHES) < 2 + (knobs[..., 2:3] * 3).long()
    there = torch.cat((torch.ones_like(taper, dtype=torch.bool), there.repeat_interleave(TWIG, -1)), dim=-1)
    ends = torch.cat((trunk, twigs.flatten(-4, -3)), dim=-3)
    return Lines(ends, torch.cat((taper, thin.flatten(-2)), dim=-1), there & drawn.drawn[..., None])


def _walk(angles: Tensor, lengths: Tensor) -> Tensor:
    """Segments one after the other, from the origin: …×K×2×2, their directions and lengths …×K given."""
    steps = torch.stack((angles.sin(), angles.cos()), dim=-1) * lengths[..., None]
    stops = steps.cumsum(-2)
    return torch.stack((stops - steps, stops), dim=-2)


def _stretched(lines: Lines, drawn: Plan, lengths: Tensor, widths: Tensor, size: tuple[int, int]) -> Lines:
    """The lines at their lengths and widths (B×S) in pixels, or at those that give the area that the plan wants.

    No line is longer than fits into the image, and none is thinner than a pixel.
    """
    widths = widths.clamp(min=1.0)
    points = lines.ends.flatten(-3, -2)
    spread = (points.amax(-2) - points.amin(-2)).clamp(min=1e-9)
    longest = 0.95 * (torch.tensor(size) / spread).amin(-1)
    pixels = pixels_each(drawn, size)
    if pixels is None:
        lengths = torch.minimum(lengths, longest)
    else:
        lengths, widths = _of_area(lines, pixels, widths, longest)
    thickness = (widths[..., None] * lines.widths).clamp(min=1.0)
    return Lines(lines.ends * lengths[..., None, None, None], thickness, lines.drawn)


def _of_area(lines: Lines, pixels: Tensor, usual: Tensor, longest: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths and widths, B×S, of lines that cover so many pixels (B×S): of usual width, if that fits the image."""
    segments = (lines.ends[..., 1, :] - lines.ends[..., 0, :]).norm(dim=-1) * lines.drawn
    cap = math.pi / 4  # both ends of a line are round
    widths = usual
    for _ in range(4):  # how much of a line is a pixel wide, since no part is thinner, depends on its width
        whole = (segments * lines.widths.maximum(1 / widths[..., None])).sum(-1).clamp(min=1e-9)
        lengths = ((pixels / usual - cap * usual) / whole).maximum(4 * usual).minimum(longest)
        body = lengths * whole
        widths = ((body**2 + 4 * cap * pixels).sqrt() - body) / (2 * cap)
    return lengths, widths


def _masks(made: Lines, keys: Tensor, size: tuple[int, int], device: torch.device, region: Tensor | None) -> Tensor:
    """Place the lines, fill their segments, and cut off what lies outside the region."""
    points, thickest = made.ends.flatten(-3, -2), made.widths.amax(-1)[..., None] / 2
    region = inside_of(region)
    box = torch.stack((points.amin(-2) - thickest, points.amax(-2) + thickest), dim=-2)
    centres = anchors(keys, box, size, device, region)
    samples, slots, segments = made.drawn.nonzero(as_tuple=True)
    ends = made.ends[samples, slots, segments]
    ends = torch.where((ends[:, 0, 0] > ends[:, 1, 0])[:, None, None], ends.flip(1), ends)
    radius = to_device((made.widths[samples, slots, segments] / 2).float(), device)
    samples = to_device(samples, device)
    shifts = centres[samples, to_device(slots, device)]
    upper, lower = (to_device(end.float(), device) + shifts for end in ends.unbind(1))
    left, right = capsule_spans(upper, lower, radius, size[0])
    return within(fill(left, right, samples, len(keys), size[1]), centres, region)


def scratch_masks(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device, region: Tensor | None = None
) -> Tensor:
    """Thin, slightly bent lines; see `masks.MaskMaker` and `scratches`."""
    drawn = plan(keys, config, SCRATCH_DRAWS)
    return _masks(scratches(drawn, size), keys, size, device, region)


def crack_masks(
    keys: Tensor, size: tuple[int, int], config: SimulationConfig, device: torch.device, region: Tensor | None = None
) -> Tensor:
    """Thin, jagged, branching lines; see `masks.MaskMaker` and `cracks`."""
    drawn = plan(keys, config, CRACK_DRAWS)
    return _masks(cracks(drawn, size), keys, size, device, region)
