"""What the doctor says: findings, and the report that holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in shares of an image's width and height."""
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

CHECKS: dict[str, str] = {
    "unreadable": "every image file is there, is an image, and can be decoded",
    "damaged": "every file is whole: not cut off, no wrong checksums",
    "blank": "no image is one plain colour",
    "extension": "names and contents agree on the format",
    "mask unreadable": "every mask can be read",
    "mask missing": "every anomalous image has a mask, where most have one",
    "mask shape": "masks have their image's shape",
    "mask empty": "masks of anomalous images mark something",
    "mask inverted": "masks do not mark nearly everything",
    "mask on good": "no mask marks anything on a good image",
    "mask misaligned": "masks lie where their images differ from good ones",
    "size": "one size and aspect ratio",
    "depth": "one bit depth, and its range of values used",
    "channels": "colour or grey, not both; alpha in all or in none",
    "profile": "one colour profile, or none",
    "orientation tag": "no Exif orientation other than upright",
    "pages": "one picture a file",
    "label conflict": "no picture both good and anomalous",
    "exact leak": "no picture both to train and to test with",
    "exact duplicate": "no picture twice in a split",
    "near leak": "no picture almost the same in train and test",
    "near duplicate": "no picture almost twice in a split",
    "exposure": "no good image much darker, brighter or flatter than the others",
    "focus": "no good image much less sharp than the others",
    "colour": "no good image of another colour than the others",
    "orientation": "no good image turned or mirrored against the others",
    "suspect": "no good image with a spot unlike all others",
    "few images": "enough images to learn from and to test with",
    "split shift": "good images to test with look like those to train with",
    "trivial": "neither brightness nor contrast alone tells good from anomalous",
    "unused": "every image file in the folder has a place in the data set",
}
"""Every check by name, with what holds where it finds nothing; in the order of a report."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be."""

    check: str
    """One of CHECKS."""
    severity: Severity
    """error: must be fixed; warning: look at it; note: good to know."""
    names: tuple[str, ...]
    """The images it is about, as in `Sample.name`; empty where it is about the whole set."""
    message: str
    """What is wrong."""
    advice: str
    """What to do."""
    drop: tuple[str, ...] = ()
    """Those of `names` that a cleaned list leaves out."""
    spots: tuple[Box, ...] = ()
    """Where in each of `names`, if it is about a place in them."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        fields = {"check": self.check, "severity": self.severity, "names": list(self.names)}
        return {**fields, "message": self.message, "advice": self.advice, "drop": list(self.drop), "spots": self.spots}


@dataclass(frozen=True)
class Report:
    """What an examination found, the worst first."""

    name: str
    layout: str
    counts: dict[str, int]
    """Images by job: `train good`, `test good`, `test anomalous`, …"""
    findings: tuple[Finding, ...]

    @property
    def must_fix(self) -> bool:
        """Whether a finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def dropped(self) -> frozenset[str]:
        """Names of the images that a cleaned list leaves out."""
        return frozenset(name for finding in self.findings for name in finding.drop)

    def beside(self, found: Iterable[Finding]) -> Report:
        """This report with other findings among its own."""
        return replace(self, findings=in_order([*self.findings, *found]))

    def tally(self) -> dict[str, int]:
        """Findings by severity; all three are there."""
        count = Counter(finding.severity for finding in self.findings)
        return {severity: count[severity] for severity in SEVERITIES}

    def groups(self) -> list[tuple[Finding, ...]]:
        """Findings of the same check and severity together, in the report's order."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.severity, finding.check), []).append(finding)
        return [tuple(group) for group in groups.values()]

    def in_words(self) -> str:
        """One line: how many of each severity."""
        tally = self.tally()
        if not self.findings:
            return f"{self.name}: nothing found"
        parts = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in tally.items()]
        return f"{self.name}: {', '.join(parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        findings = [finding.to_dict() for finding in self.findings]
        return {
            "name": self.name,
            "layout": self.layout,
            "images": self.counts,
            "found": self.tally(),
            "must_fix": self.must_fix,
            "findings": findings,
        }


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first, then by check, then by name."""
    checks = list(CHECKS)
    return tuple(sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), checks.index(one.check), one.names)))
