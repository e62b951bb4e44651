"""How far the network sees: what it says of a pixel depends on no pixel farther away than this.

Of a tile that lies at a multiple of the network's stride in a large image, the map is therefore the large image's from
so many pixels inside of the tile's border on. It holds without aligned corners alone: with them, each pixel's place in
the upsampling depends on the size of what is upsampled.
"""

from __future__ import annotations

from draem.config import Parts


def reach(parts: Parts, fold: int, levels: int) -> int:
    """In pixels, up, down, left and right; the same for all widths."""
    halvings = {"reconstructive": levels - 2, "discriminative": levels - 1}
    names = ("discriminative", "reconstructive") if parts == "both" else (parts,)
    layers = "".join(_layers(halvings[name]) for name in names)
    period = 2 ** max(halvings[name] for name in names)
    seen = [(pixel, *_seen(pixel, layers)) for pixel in range(period)]
    # Folded pixels are squares: the last one of a square sees the first one of another, and the other way round.
    return max(fold * max(pixel - low, high - pixel) + fold - 1 for pixel, low, high in seen)


def _layers(halvings: int) -> str:
    """From map to image: convolutions of side 3 (c), doublings (u), halvings (h).

    Connections around the deeper layers see less than these do.
    """
    return "c" + "cccu" * halvings + "cc" + "hcc" * halvings


def _seen(pixel: int, layers: str) -> tuple[int, int]:
    """First and last pixel of the image on which a pixel of the map depends."""
    low = high = pixel
    for layer in layers:
        if layer == "c":
            low, high = low - 1, high + 1
        elif layer == "u":  # between the two nearest of the pixels half as fine
            low, high = (low - 1) // 2, (high + 1) // 2
        else:
            low, high = 2 * low, 2 * high + 1
    return low, high
