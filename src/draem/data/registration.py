"""Registration: where a part lies on an image against a reference, and images brought to where it should lie.

Angles are tried first, each with the shift of highest phase correlation (Kuglin and Hines, 1975); the best are refined
by the enhanced correlation coefficient (Evangelidis and Psarakis, IEEE PAMI 2008), which neither brightness nor
contrast moves.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.errors import ConfigError, ImageError, ModelFileError
from draem.imageheaders import read_header
from draem.images import Fit, decode_raw, read_pixels
from draem.modelfile import Registration
from draem.pixels import PixelFormat, Pixels, convert

_SIDE = 128
"""Pixels of the longer side of a reference, and of the images that are held against it."""
_STEP = 4.0
"""Degrees between the angles that are tried; refining reaches further."""
_REFINED = 3
_LEAST = 0.5
"""Correlation with the reference below which the part was not found."""
_SAME_SHAPE = 1.02
_PRECISION = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)

Kind = TypeVar("Kind", np.float32, np.uint8)
Matrix = NDArray[np.float64]
"""2×3: from a place (x, y) in the reference's frame to the one in the image; pixels' middles are whole numbers."""


@dataclass(frozen=True)
class Placement:
    """How a part lies on an image: turned about the image's middle, then shifted, from where the reference has it.

    angle: degrees, clockwise as seen; right, down: shift as fractions of the image's width and height. found: whether
    the part was found; if not, the image is taken as it lies.
    """

    angle: float = 0.0
    right: float = 0.0
    down: float = 0.0
    found: bool = True

    def onto_reference(self, image: Pixels) -> Pixels:
        """H×W×C pixels with the part where the reference has it; what was beyond the border repeats the edge."""
        if not self.found:
            return image
        matrix = self.matrix((image.shape[0], image.shape[1]))
        flags, (height, width) = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, image.shape[:2]
        # OpenCV moves at most four channels at once, and drops the axis of a single one.
        groups = [image[..., first : first + 4] for first in range(0, image.shape[2], 4)]
        moved = [
            cv2.warpAffine(group, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
            for group in groups
        ]
        return np.concatenate([part.reshape(height, width, -1) for part in moved], axis=2)

    def onto_image(self, values: NDArray[Kind], fit: Fit) -> NDArray[Kind]:
        """H×W or H×W×C values of a map in the reference's frame, in the image's own; 0 where nothing was looked at."""
        if not self.found:
            return values
        size = values.shape[1::-1]
        moved = cv2.warpAffine(values, self._in_map(fit), size, flags=cv2.INTER_LINEAR, borderValue=0)
        outside = np.ones(values.shape[:2], bool)
        outside[fit.window] = False
        moved[outside] = 0
        return np.asarray(moved.reshape(values.shape), values.dtype)

    def inspected(self, inside: NDArray[np.bool_] | None, fit: Fit) -> NDArray[np.bool_]:
        """Which pixels of the map, in the image's own frame, lie inside of what is inspected in the reference's.

        inside: H×W bool in the reference's frame; none: all of it.
        """
        whole = np.zeros(fit.size, np.float32)
        whole[fit.window] = 1.0 if inside is None else inside[fit.window]
        return self.onto_image(whole, fit) >= 0.5

    def to_dict(self) -> dict[str, float | bool]:
        """Ready for JSON."""
        return vars(self).copy()

    def matrix(self, size: tuple[int, int]) -> Matrix:
        """In pixels of an image of (height, width)."""
        middle = (np.array(size[::-1]) - 1.0) / 2.0
        cosine, sine = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        turn = np.array([[cosine, -sine], [sine, cosine]])
        shift = np.array([self.right * size[1], self.down * size[0]])
        return np.column_stack((turn, middle + shift - turn @ middle))

    def _in_map(self, fit: Fit) -> Matrix:
        """In pixels of a map in which an image lies scaled."""
        scale = np.array([fit.width / fit.original[1], fit.height / fit.original[0]])
        start = np.array([fit.left, fit.top]) + (scale - 1.0) / 2.0
        to_map = np.vstack((np.column_stack((np.diag(scale), start)), (0.0, 0.0, 1.0)))
        in_image = np.vstack((self.matrix(fit.original), (0.0, 0.0, 1.0)))
        return np.asarray((to_map @ in_image @ np.linalg.inv(to_map))[:2])


class Registrar:
    """Finds on images the part that a reference shows."""

    def __init__(self, registration: Registration) -> None:
        self._limits = registration
        self._reference = _decoded(registration)

    def place(self, image: Pixels) -> Placement:
        """How the part lies on an image H×W×C, within the limits; the image's brightness and contrast do not matter."""
        height, width = self._reference.shape
        if not 1 / _SAME_SHAPE < (image.shape[1] * height) / (image.shape[0] * width) < _SAME_SHAPE:
            return Placement(found=False)
        seen = _small(image, (height, width))
        tried = [self._correlated(seen, angle) for angle in self._angles]
        best = sorted(tried, key=lambda pair: -pair[0])[:_REFINED]
        refined = [self._refined(seen, placement) for _, placement in best]
        correlation, placement = max(refined, key=lambda pair: pair[0])
        limits, slack = self._limits, 1e-3
        fits = (
            abs(placement.angle) <= limits.angle + slack
            and max(abs(placement.right), abs(placement.down)) <= limits.shift + slack
        )
        return placement if fits and correlation >= _LEAST else Placement(found=False)

    @cached_property
    def _angles(self) -> list[float]:
        steps = math.ceil(self._limits.angle / _STEP)
        return [round(step * self._limits.angle / steps, 6) for step in range(-steps, steps + 1)] if steps else [0.0]

    @cached_property
    def _window(self) -> NDArray[np.float32]:
        return np.asarray(cv2.createHanningWindow(self._reference.shape[::-1], cv2.CV_32F), np.float32)

    def _correlated(self, seen: NDArray[np.float32], angle: float) -> tuple[float, Placement]:
        """The best shift at an angle, and how good it is."""
        height, width = seen.shape
        turned = _moved(seen, Placement(angle).matrix(seen.shape))
        # A copy: where no padding is needed, OpenCV applies the window in place.
        (right, down), strength = cv2.phaseCorrelate(self._reference.copy(), turned, self._window)
        # The shift of the image turned back; that of the image itself is turned along.
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        across, along = cosine * right - sine * down, sine * right + cosine * down
        return strength, Placement(angle, across / width, along / height)

    def _refined(self, seen: NDArray[np.float32], start: Placement) -> tuple[float, Placement]:
        """A placement made exact, and the correlation with the reference there; -1 where it runs away."""
        height, width = seen.shape
        kind = cv2.MOTION_EUCLIDEAN if self._limits.angle else cv2.MOTION_TRANSLATION
        coarse = start.matrix(seen.shape)
        try:
            # From the image turned back: OpenCV knows angles up to 90° alone.
            correlation, found = cv2.findTransformECC(
                self._reference, _moved(seen, coarse), np.eye(2, 3, dtype=np.float32), kind, _PRECISION
            )
        except cv2.error:  # it does not converge
            return -1.0, start
        matrix = coarse @ np.vstack((np.asarray(found, np.float64), (0.0, 0.0, 1.0)))
        angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        middle = (np.array([width, height]) - 1.0) / 2.0
        right, down = matrix[:, :2] @ middle + matrix[:, 2] - middle
        return correlation, Placement(angle, float(right) / width, float(down) / height)


def _moved(image: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(image, matrix, image.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)


def _small(image: Pixels, size: tuple[int, int]) -> NDArray[np.float32]:
    """The mean of an image's channels at a size."""
    grey = image.mean(axis=2, dtype=np.float32)
    return np.asarray(cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA))


def registration_of(config: DataConfig) -> Registration | None:
    """What `data.registration` says; none: images are taken as they lie.

    Raises:
        ConfigError: the reference cannot be read, or shows nothing.
    """
    if config.registration is None:
        return None
    return read_registration(config.registration, config, config.registration_shift, config.registration_angle)


def read_registration(path: Path, config: DataConfig, shift: float, angle: float) -> Registration:
    """The image in a file as a reference: of the part where it should lie.

    Args:
        path: an image file as the network takes them.
        config: whose channels, depth and range it has.
        shift: how far the part may lie from there, as a fraction of the image's width and height.
        angle: how far it may be turned, in degrees either way.

    Raises:
        ConfigError: it cannot be read, or shows nothing.
    """
    try:
        image = read_pixels(path, config.pixel_format)
    except ImageError as error:
        raise ConfigError(f"registration: {error}") from None
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    grey = _small(image, (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))))
    low, high = float(grey.min()), float(grey.max())
    if high - low < 1e-3 * config.pixel_format.highest or min(grey.shape) < 16:
        raise ConfigError(f"registration: {path}: nothing to recognise in it: all of one brightness, or too small")
    levels = np.rint((grey - low) * (255.0 / (high - low))).astype(np.uint8)
    encoded = cv2.imencode(".png", levels)[1].tobytes()
    return Registration(reference=base64.b64encode(encoded).decode(), shift=shift, angle=angle)


def _decoded(registration: Registration) -> NDArray[np.float32]:
    """The reference's brightness.

    Raises:
        ModelFileError: it is no picture as `read_registration` makes them.
    """
    data = base64.b64decode(registration.reference)
    header = read_header(data)
    if header is None or max(header.height, header.width) > _SIDE:
        raise ModelFileError("the reference of the model's registration is no PNG of at most 128 pixels a side")
    try:
        pixels = convert(decode_raw(data, "the reference of the model's registration"), PixelFormat(1), "registration")
    except ImageError as error:
        raise ModelFileError(str(error)) from None
    return pixels[..., 0].astype(np.float32)
