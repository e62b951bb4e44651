"""A model file's header in words, as `draem info` and reports tell it."""

from __future__ import annotations

from draem.data.interest import draw_region
from draem.modelfile import Artefact, Certificate, Header, Registration, Thresholds

_FINE = (512, 512)
"""Pixels that a region's share of the image is counted on."""


def header_rows(header: Header) -> dict[str, str]:
    """What there is to know of a model, in words."""
    network, data, score = header.config.network, header.config.data, header.config.score
    rows = {
        "preset": f"{header.config.preset}, widths {network.widths}",
        "input": f"{data.size[0]}×{data.size[1]} {_pixels(header)}, {data.fit}",
        "region": _region(header),
        **({} if header.registration is None else {"registration": _registration(header.registration)}),
        "score": f"maximum of the {score.map} map after a {score.filter_size}×{score.filter_size} mean filter",
        "origin": header.origin,
        "reject above": "none",
    }
    if header.thresholds is not None:
        review = header.thresholds.review
        rows["reject above"] = f"{header.thresholds.reject:.6g}"
        rows["review above"] = "none" if review is None else f"{review:.6g}"
        rows["chosen on"] = header.thresholds.chosen_on
    if header.reference is not None:
        rows["p-values"] = f"against the scores of {len(header.reference.scores)} good images"
    for name, profile in header.profiles.items():
        rows[f"profile {name}"] = "none" if profile.thresholds is None else _in_words(profile.thresholds)
    if header.data is not None:
        jobs = f"{header.data.train} train, {header.data.select} select, {header.data.calibrate} calibrate"
        rows["data"] = f"{header.data.name}: {jobs}; fingerprint {header.data.fingerprint[:16]}"
    if header.training is not None:
        record = header.training
        rows["training"] = (
            f"{record.images_seen} images, {record.seconds / 60:.1f} min on {record.device} in {record.precision}, "
            f"seed {header.config.training.seed}, weights of step {record.step_kept} of {record.steps}"
        )
        if record.teacher is not None:
            taught = record.teacher
            rows["teacher"] = f"{taught.preset}, widths {taught.widths}, sha256 {taught.sha256[:16]}"
    if header.artefact is not None:
        rows |= _artefact_rows(header.artefact)
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in header.versions.items())
    rows["weights"] = f"sha256 {header.sha256}"
    return rows


def _in_words(thresholds: Thresholds) -> str:
    review = "" if thresholds.review is None else f", review above {thresholds.review:.6g}"
    return f"reject above {thresholds.reject:.6g}{review}; {thresholds.chosen_on}"


def changed_rows(before: Header, after: Header) -> list[str]:
    """A line for each row of `header_rows` that two headers of one model do not share."""
    rows = header_rows(before), header_rows(after)
    moved = {name for name in ("region", "registration") if getattr(before, name) != getattr(after, name)}
    # Another one may read the same.
    names = [name for name in rows[0] | rows[1] if name in moved or rows[0].get(name) != rows[1].get(name)]
    return [printable(f"{name}: {rows[0].get(name, 'none')} → {rows[1].get(name, 'none')}") for name in names]


def _region(header: Header) -> str:
    if header.region is None:
        return "the whole image"
    counts = [(len(header.region.inspect), "inspected"), (len(header.region.ignore), "ignored")]
    outlines = ", ".join(f"{number} polygon{'s' * (number > 1)} {what}" for number, what in counts if number)
    return f"{draw_region(header.region, _FINE).mean():.0%} of the image: {outlines}"


def _registration(registration: Registration) -> str:
    turned = f"turned by up to {registration.angle:g}°" if registration.angle else "not turned"
    return f"onto a reference; shifted by up to {registration.shift:.3g} of the image, {turned}"


def _artefact_rows(artefact: Artefact) -> dict[str, str]:
    batch = "any number of images" if artefact.batch is None else f"{artefact.batch} images"
    rows = {"artefact": f"{artefact.format}, {artefact.precision}, {batch} in one run"}
    rows["exported from"] = f"weights with sha256 {artefact.source_sha256}"
    if artefact.quantised_on:
        rows["quantised on"] = artefact.quantised_on
    if artefact.kept:
        more = f" and {len(artefact.kept) - 5} more" if len(artefact.kept) > 5 else ""
        rows["kept in full"] = ", ".join(artefact.kept[:5]) + more
    certificate = artefact.certificate
    if certificate is None:
        return rows | {"certificate": "none"}
    forced = "; beyond its tolerance, written by force" if certificate.forced else ""
    rows["certificate"] = f"{_differences(certificate)}; {certificate.execution}{forced}"
    rows["verdicts"] = _flips(certificate)
    if certificate.metrics_before and certificate.metrics_after:
        after = certificate.metrics_after
        rows["metrics"] = ", ".join(
            f"{name.replace('_', ' ')} {_figure(value)} → {_figure(after.get(name))}"
            for name, value in certificate.metrics_before.items()
            if value is not None
        )
    if certificate.stale:
        rows["stale"] = certificate.stale
    return rows


def _differences(certificate: Certificate) -> str:
    """How far the answers are from the network's, and how far they may be."""
    words = {"map_max": "map at most", "map_mean": "map on average", "score": "score at most"}
    limits = certificate.tolerance
    return ", ".join(
        f"{what} {getattr(certificate, name):.2g}" + (f" (of {limits[name]:g})" if name in limits else "")
        for name, what in words.items()
    )


def _flips(certificate: Certificate) -> str:
    count = len(certificate.images)
    if certificate.flips is None:
        return f"none without a threshold; {count} images compared"
    return f"{certificate.flips} of {count} differ from the network's"


def doubtful(header: Header) -> set[str]:
    """Rows that a person should look at twice."""
    certificate = header.artefact.certificate if header.artefact else None
    if certificate is None:
        return set()
    found = {"certificate": certificate.forced, "verdicts": bool(certificate.flips), "stale": bool(certificate.stale)}
    return {name for name, doubtful in found.items() if doubtful}


def _pixels(header: Header) -> str:
    """Channels, depth and range of the network's images, such as `RGB, 8 bit`."""
    kind = header.config.data.pixel_format
    colours = f"stack of {kind.channels} channels" if header.colour_order == "stack" else header.colour_order
    raw = "" if kind.value_range is None else ", raw values {:g} to {:g}".format(*kind.value_range)
    return f"{colours}, {kind.depth} bit{raw}"


def printable(text: str) -> str:
    """Text with what a terminal would act upon, or cannot show, spelled out: file names may hold anything."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
