"""Offline HTML pages: one file that loads nothing from elsewhere. Templates are in `templates/`, filled with Jinja2.

Whatever is filled in is escaped: a file name cannot become markup.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.errors import MissingExtraError
from draem.files import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
_QUALITY = 82


def write_page(path: Path, template: str, values: Mapping[str, Any]) -> None:
    """Fill the template `templates/TEMPLATE.html` and write the page, whole or not at all.

    Raises:
        MissingExtraError: Jinja2 is not installed.
        DraemError: the file cannot be written.
    """
    # Names of files may hold bytes that are no text; a page must be text.
    atomic_write(path, render(template, values).encode("utf-8", "replace"))


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page as text; a value that the template needs and does not get raises.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    return environment().get_template(f"{template}.html").render(values)


def environment() -> Environment:
    """What fills the templates; asking for it early tells whether it can be had.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise MissingExtraError("Jinja2", "report") from error
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def thumbnail(image: NDArray[np.uint8], side: int = 192) -> str:
    """An H×W×3 uint8 RGB image as a small JPEG in a data URI, its longer side `side` pixels at most."""
    scale = min(side / max(image.shape[:2]), 1.0)
    if scale < 1:
        height, width = (max(1, round(length * scale)) for length in image.shape[:2])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
