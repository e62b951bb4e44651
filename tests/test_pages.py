"""Pages hold everything they show, and nothing that is filled in becomes markup."""

from __future__ import annotations

import base64
import builtins
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import pytest

from draem.errors import MissingExtraError
from draem.pages import render, thumbnail, write_page

HOSTILE = '"><script>alert(1)</script>'
VALUES: dict[str, Any] = {
    "title": HOSTILE,
    "images": 3,
    "jobs": HOSTILE,
    "tally": [("error", 1), ("warning", 0), ("note", 0)],
    "groups": [
        {
            "check": "unreadable",
            "severity": "error",
            "holds": HOSTILE,
            "advice": HOSTILE,
            "findings": [
                {
                    "message": HOSTILE,
                    "pictures": [{"name": HOSTILE, "alt": HOSTILE, "source": ""}],
                    "more": [HOSTILE],
                }
            ],
            "more": [{"names": HOSTILE, "message": HOSTILE}],
        }
    ],
    "checks": [{"check": HOSTILE, "holds": HOSTILE, "count": 1}],
}


class Outline(HTMLParser):
    """Tags in order, with what is open at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_what_is_filled_in_is_escaped_and_tags_match() -> None:
    text = render("check", VALUES)
    outline = Outline()
    outline.feed(text)
    assert not outline.open
    assert "script" not in outline.tags
    assert "&lt;script&gt;" in text
    # One heading of the first level, then one for each group, then one for each finding.
    assert [tag for tag in outline.tags if re.fullmatch(r"h\d", tag)] == ["h1", "h2", "h3"]
    assert outline.tags.count("caption") == outline.tags.count("table") == 2


def test_a_page_loads_nothing() -> None:
    text = render("check", VALUES)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_a_value_that_is_missing_raises() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("check", {"title": "x"})


def test_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "check", {**VALUES, "title": "caf\udce9"})
    assert "caf?" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("size", "expected"), [((300, 600), (96, 192)), ((20, 10), (20, 10)), ((5, 2000), (1, 192))])
def test_thumbnails_are_small_pictures(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = np.full((*size, 3), (200, 60, 10), np.uint8)
    kind, data = thumbnail(image).split(",")
    assert kind == "data:image/jpeg;base64"
    read = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    assert read.shape[:2] == expected
    np.testing.assert_allclose(read[..., ::-1].mean(axis=(0, 1)), (200, 60, 10), atol=4)


def test_without_jinja2_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "jinja2":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"draem\[report\]"):
        render("check", VALUES)
