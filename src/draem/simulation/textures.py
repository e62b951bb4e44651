"""Procedural textures: a scalar field over the image, wrapped round a random palette, with grain.

Each kind of texture is a function of (keys, draws, size) that returns the field in turns of the palette, B×H×W.
`draws` are 8 uniform numbers a sample, B×8, on the device; `keys` seed the dense noise. Lengths are in units of the
longer side of the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from draem.pixels import LUMA
from draem.simulation.draws import Stream, mix32, stream_words, to_device, uniform, unit
from draem.simulation.perlin import perlin

Size = tuple[int, int]
Field = Callable[[Tensor, Tensor, Size], Tensor]

PALETTE_STEPS = 256
_STOPS = 6
_MIX_ROW, _MIX_COLUMN = 0x3C6EF35F, 0x1B873593


def _between(draws: Tensor, low: float, high: float) -> Tensor:
    """Spread uniform draws (B) evenly over [low, high], as B×1×1."""
    return (low + (high - low) * draws)[:, None, None]


def _geometric(draws: Tensor, low: float, high: float) -> Tensor:
    """Spread uniform draws (B) over [low, high] with every octave as likely, as B×1×1."""
    return (low * (high / low) ** draws)[:, None, None]


def _plane(turns: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Coordinates along and across a direction (B, in turns), each B×H×W, zero at the centre."""
    longer = max(size)
    y = ((torch.arange(size[0], device=turns.device) - size[0] / 2) / longer)[None, :, None]
    x = ((torch.arange(size[1], device=turns.device) - size[1] / 2) / longer)[None, None, :]
    angles = (turns * (2.0 * math.pi))[:, None, None]
    cos, sin = angles.cos(), angles.sin()
    return cos * x + sin * y, cos * y - sin * x


def _clouds(keys: Tensor, zoom: Tensor, size: Size, cells: tuple[int, int] = (4, 4), octaves: int = 4) -> Tensor:
    """Fractal noise, B×H×W, about ± 1; the coarsest of its lattices has `cells`, or by `zoom` (B) down to a quarter."""
    lattice = 0.25 ** zoom[:, None] * to_device(torch.tensor([cells], dtype=torch.float32), keys.device)
    return perlin(keys, lattice, cells, size, Stream.TEXTURE_GRADIENTS, octaves)


def _triangle(phase: Tensor) -> Tensor:
    """A triangle wave of period 1 between 0 and 1."""
    return ((phase - phase.round()) * 2.0).abs_()


def _cell_hash(keys: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """One int32 hash a lattice cell; `row` and `column` are float cell numbers, B×H×W."""
    first, second = stream_words(keys, Stream.TEXTURE_CELLS)
    cells = (row.to(torch.int32) * _MIX_ROW).bitwise_xor_(column.to(torch.int32) * _MIX_COLUMN)
    return mix32(cells.bitwise_xor_(first[:, None, None])).bitwise_xor_(second[:, None, None])


def blotches(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Clouds and stains; with a hard palette, flat patches like camouflage."""
    return _clouds(keys, draws[:, 7], size) * _between(draws[:, 0], 0.4, 1.6) + _between(draws[:, 1], 0.0, 1.0)


def mottle(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Fine clouds: rust, plaster, foam."""
    return _clouds(keys, draws[:, 7], size, (16, 16), 3) * _between(draws[:, 0], 0.3, 1.2) + _between(
        draws[:, 1], 0.0, 1.0
    )


def veins(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Thin lines where fractal noise changes sign: cracks, veins, roots."""
    ridge = _clouds(keys, draws[:, 7], size).abs_().mul_(_geometric(draws[:, 0], 4.0, 30.0))
    return ridge.div_(1.0 + ridge)


def marble(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Parallel bands, warped by clouds."""
    along, _ = _plane(draws[:, 0], size)
    return along * _geometric(draws[:, 1], 1.0, 10.0) + _clouds(keys, draws[:, 7], size) * _geometric(
        draws[:, 2], 0.3, 2.0
    )


def wood(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Growth rings round a distant, stretched centre, warped by fibres."""
    along, across = _plane(draws[:, 0], size)
    along = (along + _between(draws[:, 1], -1.0, 1.0)) * _geometric(draws[:, 2], 0.05, 1.0)
    across = across + _between(draws[:, 3], -0.7, 0.7)
    rings = (along.square_() + across.square_()).sqrt_()
    return rings * _geometric(draws[:, 4], 3.0, 20.0) + _clouds(keys, draws[:, 7], size, (3, 6)) * _between(
        draws[:, 5], 0.05, 0.6
    )


def fibres(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Noise much longer than wide, lying down or upright: brushed metal, hair, fabric."""
    upright = _clouds(keys, draws[:, 7], size, (4, 48), 2)
    lying = _clouds(keys + 1, draws[:, 6], size, (48, 4), 2)
    weight = (draws[:, 0] * 3.0).floor()[:, None, None] * 0.5  # upright, both, or lying
    return torch.lerp(upright, lying, weight) * _between(draws[:, 1], 0.4, 1.2) + _between(draws[:, 2], 0.0, 1.0)


def grating(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Straight or bent stripes, 2 to 50 across the image."""
    along, across = _plane(draws[:, 0], size)
    bend = _between((draws[:, 2] * 2.0 - 1.0).clamp_(min=0.0), 0.0, 0.8)
    return (along + bend * across.square_()) * _geometric(draws[:, 1], 2.0, 50.0)


def weave(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Two sets of threads, over and under in turns: cloth, wire mesh."""
    along, across = _plane(draws[:, 0], size)
    along = along * _geometric(draws[:, 1], 4.0, 32.0)
    across = across * _geometric((draws[:, 1] + 0.2 * draws[:, 2]).clamp_(max=1.0), 4.0, 32.0)
    over = (along.floor() + across.floor()).remainder_(2.0)
    warp, weft = _triangle(along) * 0.5, _triangle(across) * 0.5 + 0.5
    return torch.lerp(warp, weft, over)


def bricks(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Tiles of random tones, in straight or shifted courses, with or without joints: walls, mosaics, pixels."""
    along, across = _plane((draws[:, 0] * 3.0 - 2.0).clamp_(min=0.0), size)  # two thirds lie straight
    across = across * _geometric(draws[:, 1], 3.0, 64.0)
    row = across.floor()
    along = along * _geometric(draws[:, 1], 3.0, 64.0) * _geometric(draws[:, 2], 0.3, 1.0)
    along += row.remainder(2.0) * (draws[:, 3] > 0.5)[:, None, None] * 0.5
    column = along.floor()
    tones = unit(_cell_hash(keys, row, column))
    joint = _between((draws[:, 4] * 2.0 - 1.0).clamp_(min=0.0), 0.0, 0.3)
    edge = torch.minimum(_triangle(across), _triangle(along))
    return tones * _between(draws[:, 5], 0.2, 0.9) * ((edge - joint) * 1e6).add_(1.0).clamp_(0.0, 1.0)


def pebbles(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Pebbles, cells, leather, terrazzo; made at half the size, since Worley noise costs ten times what others do."""
    field = _worley(keys, draws, (-(-size[0] // 2), -(-size[1] // 2)))
    return torch.nn.functional.interpolate(field[:, None], size=size, mode="bilinear")[:, 0]


def _worley(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Distance to the nearest of random points, and that point's tone (S. Worley, A cellular texture basis function,
    1996)."""
    along, across = _plane(draws[:, 0], size)
    scale = _geometric(draws[:, 1], 5.0, 40.0)
    along, across = along * scale, across * (scale * _geometric(draws[:, 2], 0.4, 1.0))
    # Points keep to the middle four fifths of their cell, so four cells nearly always hold the nearest.
    row, column = (across - 0.5).floor_(), (along - 0.5).floor_()
    nearest = torch.full_like(row, 0x7FFFFFFF, dtype=torch.int32)
    for down in (0.0, 1.0):
        for right in (0.0, 1.0):
            words = _cell_hash(keys, row + down, column + right)
            point_y = (words & 0x3FF) * (0.8 * 2.0**-10) + (row + (down + 0.1) - across)
            point_x = ((words >> 10) & 0x3FF) * (0.8 * 2.0**-10) + (column + (right + 0.1) - along)
            distance = point_y.square_().add_(point_x.square_())
            # The distance in the upper bits and the cell's tone in the lower ten: one minimum finds both.
            packed = (distance * 2.0**17).to(torch.int32).mul_(1024) + ((words >> 20) & 0x3FF)
            nearest = torch.minimum(nearest, packed)
    tones = (nearest & 0x3FF) * 2.0**-10
    radius = ((nearest >> 10) * 2.0**-17).sqrt_()
    return radius * _between(draws[:, 3], 0.2, 0.9) + tones * _between(draws[:, 4], 0.0, 0.5)


def dots(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """A regular screen of dots: halftone, perforated sheet."""
    along, across = _plane(draws[:, 0], size)
    frequency = _geometric(draws[:, 1], 4.0, 32.0) * (2.0 * math.pi)
    return 0.5 + 0.49 * (along * frequency).cos_() * (across * frequency).cos_()


def speckle(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Grains of one to four pixels over faint clouds: granite, sand, asphalt."""
    longer = float(max(size))
    along, across = _plane(torch.zeros_like(draws[:, 0]), size)
    grain = longer / (1.0 + (draws[:, 0] * 4.0).floor())[:, None, None]
    grains = unit(_cell_hash(keys, (across * grain).floor_(), (along * grain).floor_()))
    # A power makes bright grains rare.
    return grains ** _geometric(draws[:, 1], 1.0, 12.0) * 0.9 + _clouds(keys, draws[:, 7], size, (4, 4), 2) * 0.15


def gradient(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """A slow run of colours, straight or round: a shade, a shadow, a highlight."""
    along, across = _plane(draws[:, 0], size)
    round_ = (along.square() + across.square_()).sqrt_()
    field = torch.lerp(along, round_, (draws[:, 1] > 0.5).to(torch.float32)[:, None, None])
    return field * _between(draws[:, 2], 0.2, 1.0) + _between(draws[:, 3], 0.0, 1.0)


KINDS: tuple[Field, ...] = (
    blotches, mottle, veins, marble, wood, fibres, grating, weave, bricks, pebbles, dots, speckle, gradient,
)  # fmt: skip


def palettes(keys: Tensor, channels: int = 3) -> Tensor:
    """Draw closed palettes of six colours, B×C×256 float32 in [0, 1]; of one channel: the brightness of RGB's.

    From nearly one tone to any colours of RGB, from grey to saturated, at uneven distances; transitions from linear to
    steps.
    """
    if channels == 1:
        return to_device(torch.tensor([LUMA]), keys.device) @ palettes(keys)
    draws = uniform(keys, Stream.PALETTE, (_STOPS * (channels + 1) + 3,))
    stops, knobs = draws[:, 3:].view(-1, _STOPS, channels + 1), draws[:, :3]
    spread = (0.15 + 1.2 * knobs[:, 0]).clamp_(max=1.0)[:, None, None]
    colours = torch.lerp(stops[:, :1, :-1], stops[:, :, :-1], spread)  # B×6×C
    # Most real surfaces are muted: a fifth of the palettes is grey, and half at most half saturated.
    colours = torch.lerp(colours[:, :, :1], colours, (1.25 * knobs[:, 2] - 0.25).clamp_(min=0.0)[:, None, None])
    colours = (1.3 * colours - 0.15).clamp_(0.0, 1.0)  # so that pure black, white and full colours occur
    widths = 0.1 + stops[:, :, -1]
    # A running sum as a product: cumsum of floats is not deterministic on CUDA.
    totals = widths @ torch.ones(_STOPS, _STOPS, device=keys.device).triu()
    ends = totals / totals[:, -1:]  # B×6: where each colour's segment ends, the last at 1
    starts = torch.cat((torch.zeros_like(ends[:, :1]), ends[:, :-1]), dim=1)
    positions = ((torch.arange(PALETTE_STEPS, device=keys.device) + 0.5) / PALETTE_STEPS)[None, None, :]
    local = (positions - starts[:, :, None]) / (ends - starts)[:, :, None]  # B×6×256
    inside = ((local >= 0.0) & (local < 1.0)).to(torch.float32)
    # 1 is linear; above, the transition shrinks towards a step.
    hardness = 2.0 ** (12.0 * knobs[:, 1] - 4.0).clamp_(min=0.0)
    blend = ((local - 0.5) * hardness[:, None, None] + 0.5).clamp_(0.0, 1.0)
    after = colours.roll(-1, dims=1)
    return colours.transpose(1, 2) @ (inside * (1.0 - blend)) + after.transpose(1, 2) @ (inside * blend)


def colour(field: Tensor, palette: Tensor) -> Tensor:
    """Look a field (B×H×W, in turns) up in palettes (B×C×256): B×C×H×W float32."""
    channels = palette.shape[1]
    steps = (field * float(PALETTE_STEPS)).floor_().to(torch.int32).bitwise_and_(PALETTE_STEPS - 1).long()
    return palette.gather(2, steps.flatten(1)[:, None].expand(-1, channels, -1)).view(-1, channels, *field.shape[1:])


def relief(field: Tensor, draws: Tensor) -> Tensor:
    """Light the field as a height map from the upper left: B×H×W within ± 0.25, none for half of the samples.

    draws: uniform B.
    """
    strength = (draws * 8.0 - 4.0).clamp_(min=0.0)[:, None, None]
    light = torch.zeros_like(field)
    light[:, 1:, 1:] = ((field[:, 1:, 1:] - field[:, :-1, :-1]) * strength).clamp_(-0.25, 0.25)
    return light


def grain(keys: Tensor, draws: Tensor, size: Size) -> Tensor:
    """Pixel noise, B×H×W, none for half of the samples, else up to ± 0.15; `draws` uniform B."""
    amplitude = (draws * 0.6 - 0.3).clamp_(min=0.0)[:, None, None]
    return uniform(keys, Stream.GRAIN, size).sub_(0.5).mul_(amplitude)
