"""Checks on files and formats: can they be read, and are they of one kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from draem.data.doctor.facts import Facts
from draem.data.doctor.findings import Finding, Severity
from draem.pixels import unused_range

_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
    "NumPy": (".npy",),
}
_PLAIN = 2
"""Largest difference of two values of an image of one plain colour."""


def check_readable(images: Sequence[Facts]) -> Iterator[Finding]:
    """Files that are missing, empty, no images, cut off or damaged; pictures of one plain colour."""
    for facts in images:
        if facts.unreadable:
            yield _broken(facts, "unreadable", facts.unreadable, "put the image there again, or remove it")
        elif facts.damaged:
            yield _broken(facts, "damaged", facts.damaged, "copy the file again from its source, or remove it")
        elif facts.look and facts.look.extent <= _PLAIN:
            yield _broken(facts, "blank", "one plain colour: no picture was taken", "remove it")


def check_extension(images: Sequence[Facts]) -> Iterator[Finding]:
    """Files whose suffix names another format than they hold."""
    for facts in images:
        suffix = facts.sample.path.suffix.lower()
        if facts.format and suffix not in _SUFFIXES[facts.format]:
            told = f"named {suffix}, but holds {facts.format}: {_SUFFIXES[facts.format][0]}"
            advice = "rename it by its content: other programs go by the name"
            yield Finding("extension", "warning", (facts.name,), told, advice)


def check_uniform(images: Sequence[Facts]) -> Iterator[Finding]:
    """Readable images of one category that are not all of one size, depth, number of channels or profile."""
    seen = [facts for facts in images if facts.look and facts.header]
    yield from _sizes(seen)
    yield from _odd(seen, "depth", _depth, "convert all to one depth: a mix hides a change of camera")
    yield from _unused_range(seen)
    yield from _odd(seen, "channels", _channels, "convert all alike: a detector must not learn which camera it was")
    profiles = "convert all to one profile: profiles are not applied, so one colour has several values"
    yield from _odd(seen, "profile", _profile, profiles, "note")


def check_headers(images: Sequence[Facts]) -> Iterator[Finding]:
    """Images that are stored turned, or with more than one picture: a stack's pages are channels of one."""
    turned = [facts.name for facts in images if facts.header and facts.header.orientation != 1]
    if turned:
        told = f"{_count(turned)} stored turned, with an Exif tag that says so"
        advice = "draem turns them upright; other programs may not: store them upright"
        yield Finding("orientation tag", "note", tuple(turned), told, advice)
    several = [facts.name for facts in images if facts.header and facts.header.pages > 1 and not facts.header.stacked]
    if several:
        told = f"{_count(several)} with more than one page or frame"
        yield Finding("pages", "warning", tuple(several), told, "only the first is used: save the others apart")


def _broken(facts: Facts, check: str, what: str, advice: str) -> Finding:
    return Finding(check, "error", (facts.name,), what, advice, drop=(facts.name,))


def _sizes(images: Sequence[Facts]) -> Iterator[Finding]:
    """Mixed sizes are a note, mixed aspect ratios a warning: those are stretched differently."""
    sizes = Counter(facts.look.size for facts in images if facts.look)
    if len(sizes) < 2:
        return
    (height, width), most = sizes.most_common(1)[0]
    odd = [facts for facts in images if facts.look and facts.look.size != (height, width)]
    stretched = any(
        abs(facts.look.size[1] * height / (facts.look.size[0] * width) - 1) > 0.02 for facts in odd if facts.look
    )
    told = f"{len(sizes)} sizes: {most} images of {height}×{width}, {len(odd)} of others, such as "
    told += "×".join(str(side) for side in (odd[0].look.size if odd[0].look else ()))
    advice = "take all with one camera setting" + (
        ": other aspect ratios are stretched to the input, or use data.fit=letterbox" if stretched else ""
    )
    yield Finding("size", "warning" if stretched else "note", tuple(facts.name for facts in odd), told, advice)


def _unused_range(images: Sequence[Facts]) -> Iterator[Finding]:
    deep = [facts for facts in images if facts.highest is not None]
    highest = max((facts.highest or 0 for facts in deep), default=0)
    if wanted := unused_range(highest):
        told = f"{_count([facts.name for facts in deep])} of 16 bits, none brighter than {highest} of 65535"
        advice = f"nearly black as they are: give --set data.value_range=[0,{wanted[1]:g}] here and in training"
        yield Finding("depth", "warning", tuple(facts.name for facts in deep), told, advice)


def _depth(facts: Facts) -> str:
    header = facts.header
    return f"{header.bits} bits{' floating' if header.floating else ''}" if header else ""


def _channels(facts: Facts) -> str:
    if not (facts.look and facts.header):
        return ""
    if facts.header.samples not in (1, 3):
        return f"{facts.header.samples} channels"
    kind = "CMYK" if facts.header.colour == "cmyk" else "grey" if facts.look.grey else "colour"
    return kind + (" with alpha" if facts.header.alpha else "")


def _profile(facts: Facts) -> str:
    return (facts.header.profile if facts.header else None) or "no colour profile"


def _odd(
    images: Sequence[Facts],
    check: str,
    kind: Callable[[Facts], str],
    advice: str,
    severity: Severity = "warning",
) -> Iterator[Finding]:
    """One finding for the images that are not of the commonest kind."""
    kinds = Counter(kind(facts) for facts in images)
    if len(kinds) < 2:
        return
    usual, _ = kinds.most_common(1)[0]
    odd = tuple(facts.name for facts in images if kind(facts) != usual)
    told = ", ".join(f"{count} {name}" for name, count in kinds.most_common())
    yield Finding(check, severity, odd, told, advice)


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} image{'' if len(names) == 1 else 's'}"
