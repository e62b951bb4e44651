"""The report as a page: findings with thumbnails, for `draem.pages` to render."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.data.doctor.findings import CHECKS, Box, Finding, Report
from draem.data.samples import Dataset, Sample
from draem.errors import ImageError
from draem.images import read_image
from draem.pages import thumbnail, write_page
from draem.pictures import overlay
from draem.pixels import ValueRange

_FINDINGS, _PICTURES = 12, 24
"""Most findings of a group, and pictures of a finding, that are shown; the others are listed by name."""
_SIDE = 256
_RING = (255, 200, 0)


def write_check_page(path: Path, dataset: Dataset, report: Report, value_range: ValueRange | None = None) -> None:
    """Write the report as one HTML file, with thumbnails of the images it speaks of.

    `value_range` are the raw values that become black and white.

    Raises:
        MissingExtraError: Jinja2 is not installed.
        DraemError: the file cannot be written.
    """
    samples = {sample.name: sample for sample in dataset.samples}
    found = Counter(finding.check for finding in report.findings)
    values = {
        "title": f"Check of {report.name}",
        "images": sum(report.counts.values()),
        "jobs": ", ".join(f"{count} {job}" for job, count in report.counts.items()),
        "tally": list(report.tally().items()),
        "groups": [_group(group, samples, value_range) for group in report.groups()],
        "checks": [{"check": check, "holds": holds, "count": found[check]} for check, holds in CHECKS.items()],
    }
    write_page(path, "check", values)


def _group(group: Sequence[Finding], samples: Mapping[str, Sample], value_range: ValueRange | None) -> dict[str, Any]:
    first = group[0]
    return {
        "check": first.check,
        "severity": first.severity,
        "holds": CHECKS[first.check],
        "advice": first.advice,
        "findings": [_finding(finding, samples, value_range) for finding in group[:_FINDINGS]],
        "more": [{"names": ", ".join(one.names), "message": one.message} for one in group[_FINDINGS:]],
    }


def _finding(finding: Finding, samples: Mapping[str, Sample], value_range: ValueRange | None) -> dict[str, Any]:
    shown = zip_longest(finding.names[:_PICTURES], finding.spots[:_PICTURES])
    pictures = [_picture(name, samples.get(name), finding, spot, value_range) for name, spot in shown]
    return {"message": finding.message, "pictures": pictures, "more": finding.names[_PICTURES:]}


def _picture(
    name: str, sample: Sample | None, finding: Finding, spot: Box | None, value_range: ValueRange | None
) -> dict[str, str]:
    """One thumbnail; without a source where the file cannot be read."""
    kind = "image without a place" if sample is None else f"{sample.label} image to {sample.split} with"
    picture = {"name": name, "alt": f"{kind}: {finding.message}", "source": ""}
    if sample is not None:
        try:
            picture["source"] = thumbnail(_drawn(sample, finding, spot, value_range))
        except ImageError:
            picture["alt"] = f"{kind}, which cannot be shown: {finding.message}"
    return picture


def _drawn(sample: Sample, finding: Finding, spot: Box | None, value_range: ValueRange | None) -> NDArray[np.uint8]:
    """The image, small, with its mask's outline where the finding is about the mask, and a frame around the spot."""
    image = read_image(sample.path, value_range)
    scale = min(_SIDE / max(image.shape[:2]), 1.0)
    width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
    small = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if finding.check.startswith("mask") and sample.truth is not None:
        small = _outlined(small, sample)
    if spot is not None:
        left, top, right, bottom = spot
        corners = (round(left * width), round(top * height)), (round(right * width) - 1, round(bottom * height) - 1)
        small = np.ascontiguousarray(small)
        cv2.rectangle(small, *corners, _RING, 2)
    return small


def _outlined(small: NDArray[np.uint8], sample: Sample) -> NDArray[np.uint8]:
    assert sample.truth is not None
    try:
        mask = sample.truth.read()
    except ImageError:
        return small
    size = small.shape[1::-1]
    shrunk = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    return overlay(small, np.zeros(small.shape[:2], np.float32), shrunk)
