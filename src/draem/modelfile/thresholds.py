"""Thresholds in a header, what they promise, and the good scores that a score is compared with."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from draem.modelfile.part import Fraction, Part

ContentSum = Annotated[str, Field(pattern="^[0-9a-f]{10}$")]
"""Of a file: see `draem.data.samples.content_sum`."""
Verdict = Literal["accept", "review", "reject"]
MOST_REFERENCE = 10_000
"""Scores of good images that a header holds."""


class Promise(Part):
    """What a threshold promises of new parts, if they come about as those did whose scores it was chosen from."""

    of: Literal["good", "anomalous"] = "good"
    """Of good parts, that few of them score above; of anomalous ones, that few of them score no higher."""
    rate: Fraction
    """The share of them that are so at most …"""
    confidence: Fraction | None
    """… with this chance that the promise holds; none: … on average over such choices of images."""
    images: int
    """How many it was chosen from."""
    beyond: int
    """How many of these are on the wrong side."""

    def in_words(self) -> str:
        """One clause that a person can sign."""
        share = f"at most {percent(self.rate)}"
        where, side = ("score above", "above") if self.of == "good" else ("score no higher", "no higher")
        who = "good parts" if self.of == "good" else "such defects"
        sure = (
            f"on average {share} of {who} {where}"
            if self.confidence is None
            else f"{share} of {who} {where}, with {percent(self.confidence)} confidence"
        )
        return f"{sure} ({self.beyond} of {self.images} {side})"


class Thresholds(Part):
    """Where an image score becomes a verdict, and what that was chosen on."""

    reject: float
    """Scores above are rejected."""
    review: float | None = None
    """Scores above, up to `reject`, go to a person; none: no such zone."""
    chosen_on: str
    """In words: which images, how many, by which rule."""
    reject_promise: Promise | None = None
    review_promise: Promise | None = None
    images: Annotated[list[ContentSum], Field(max_length=MOST_REFERENCE)] = []
    """Sums of the images that chose them, where these are known: on others they can be judged."""

    @property
    def lowest(self) -> float:
        """Scores above are not accepted."""
        return self.reject if self.review is None else self.review

    def verdict(self, score: float) -> Verdict:
        """What an image score means."""
        if score > self.reject:
            return "reject"
        return "review" if self.review is not None and score > self.review else "accept"


class Reference(Part):
    """Scores of good images, against which a score's p-value is taken."""

    scores: Annotated[list[Fraction], Field(min_length=1, max_length=MOST_REFERENCE)]
    """Ascending."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(left > right for left, right in pairwise(self.scores)):
            raise ValueError("the scores of a reference ascend")
        return self

    def p_value(self, score: float) -> float:
        """The conformal p-value: (1 + how many of the n good images score as high or higher) / (n + 1).

        Of good parts drawn like these, at most a share p has a p-value of p or less, whatever the model: so it
        compares between models, as scores do not.

        Source: Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005.
        """
        as_high = len(self.scores) - bisect_left(self.scores, score)
        return (1 + as_high) / (len(self.scores) + 1)


class Profile(Part):
    """What may differ between cameras or products that share a model."""

    thresholds: Thresholds | None = None
    reference: Reference | None = None


def percent(share: float) -> str:
    """A share for people: 0.5%, 12%, 99.9%."""
    return f"{100 * share:.3g}%"
