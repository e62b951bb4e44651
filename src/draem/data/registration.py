"""Registration: where a part lies on an image against a reference, and images brought to where it should lie.

Angles are tried first, each with the shift of highest phase correlation within the limits (Kuglin and Hines, 1975); the
best are refined by the enhanced correlation coefficient (Evangelidis and Psarakis, IEEE PAMI 2008), which neither
brightness nor contrast moves.
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from draem.config import DataConfig
from draem.data.interest import draw_region
from draem.errors import ConfigError, ImageError, ModelFileError
from draem.imageheaders import read_header
from draem.images import Fit, by_fours, decode_raw, fit_image, read_pixels
from draem.modelfile import RegionOfInterest, Registration
from draem.pixels import Pixels

_SIDE = 128
"""Pixels of the longer side of a reference, and of the images that are held against it."""
_STEP = 4.0
"""Degrees between the angles that are tried; refining reaches further."""
_REFINED = 4
_LEAST = 0.7
"""Correlation with the reference below which the part was not found."""
_LEAST_SIDE = 16
_SAME_SHAPE = 0.02
"""By how much of a side an image's shape may differ from the reference's."""
_SLACK = 1e-3
_ASTRAY, _TWISTED = 0.02, 2.0
"""Of the image, and degrees: by so much a reference may be mistaken in finding itself."""
_PART = 0.6
"""Of the limits, by which a reference is moved to see whether it finds itself."""
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
        return by_fours(image, lambda part: _moved(part, matrix))

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
    """Finds on images the part that a reference shows, by what of it lies in the region of interest."""

    def __init__(self, registration: Registration, region: RegionOfInterest | None) -> None:
        self._limits = registration
        self._reference = _decoded(registration)
        self._counts = np.ones(self._reference.shape, np.uint8)
        if region is not None:
            self._counts[:] = draw_region(region, self._reference.shape)

    def place(self, image: Pixels) -> Placement:
        """How the part lies on an image H×W×C, within the limits; the image's brightness and contrast do not matter."""
        if not self._of_its_shape(image):
            return Placement(found=False)
        seen = _small(image, self._reference.shape)
        tried = [self._correlated(seen, angle) for angle in self._angles]
        best = sorted(tried, key=lambda pair: -pair[0])[:_REFINED]
        refined = [self._refined(seen, start) for _, start in best]
        fitting = [pair for pair in refined if self._within_limits(pair[1])]
        if not fitting:
            return Placement(found=False)
        # Once more from there: what counts lies by a few pixels elsewhere than it did from the first guess.
        correlation, placement = self._refined(seen, max(fitting, key=lambda pair: pair[0])[1])
        return placement if correlation >= _LEAST and self._within_limits(placement) else Placement(found=False)

    def check(self) -> None:
        """See whether the reference finds itself where it is moved to.

        Raises:
            ConfigError: it does not: too much of it looks alike.
        """
        picture = np.rint(self._reference).astype(np.uint8)[..., None]
        size = self._reference.shape
        for signs in ((1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1)):
            angle, right, down = (_PART * sign for sign in signs)
            limits = self._limits
            place = Placement(angle * limits.angle, right * limits.shift, down * limits.shift)
            moved = cv2.warpAffine(picture, place.matrix(size), size[::-1], borderMode=cv2.BORDER_REPLICATE)
            found = self.place(moved.reshape(*size, 1).astype(np.uint8))
            far = max(abs(found.right - place.right), abs(found.down - place.down)) > _ASTRAY
            if not found.found or far or abs(found.angle - place.angle) > _TWISTED:
                raise ConfigError(
                    "registration: the reference does not find itself when it is moved by six tenths of the limits: "
                    "within the region of interest much of it looks alike; give narrower limits "
                    "(registration_shift, registration_angle=0), another reference, or a larger region"
                )

    def _of_its_shape(self, image: Pixels) -> bool:
        height, width = image.shape[:2]
        if min(height, width) < _LEAST_SIDE:
            return False
        scale = max(self._reference.shape) / max(height, width)
        slack = (max(1.0, _SAME_SHAPE * side) for side in self._reference.shape)
        wanted = zip((height, width), self._reference.shape, slack, strict=True)
        return all(abs(side * scale - reference) <= most for side, reference, most in wanted)

    def _within_limits(self, place: Placement) -> bool:
        angle, shift = abs(place.angle), max(abs(place.right), abs(place.down))
        return angle <= self._limits.angle + _SLACK and shift <= self._limits.shift + _SLACK

    @cached_property
    def _angles(self) -> list[float]:
        steps = math.ceil(self._limits.angle / _STEP)
        return [round(step * self._limits.angle / steps, 6) for step in range(-steps, steps + 1)] if steps else [0.0]

    @cached_property
    def _window(self) -> NDArray[np.float32]:
        """Fades towards the border, where what comes in at one side goes out at the other."""
        height, width = self._reference.shape
        return np.asarray(np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]), np.float32)

    @cached_property
    def _spectrum(self) -> NDArray[np.complex64]:
        return np.asarray(np.conj(np.fft.rfft2(self._windowed(self._reference))))

    def _windowed(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray((picture - picture.mean()) * self._window, np.float32)

    @cached_property
    def _reachable(self) -> NDArray[np.bool_]:
        """Which shifts, by their place in the correlation, a part may have within the limits, turned or not."""
        height, width = self._reference.shape
        down, right = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
        if not self._limits.angle:
            return np.asarray((abs(down) <= self._limits.shift) & (abs(right) <= self._limits.shift))
        most = self._limits.shift * math.hypot(height, width)
        return np.asarray(np.hypot(down * height, right * width) <= most + 1.0)

    def _correlated(self, seen: NDArray[np.float32], angle: float) -> tuple[float, Placement]:
        """The best shift at an angle, to a pixel, and how good it is."""
        height, width = seen.shape
        turning = Placement(angle).matrix(seen.shape)
        turned = _moved(seen, turning)
        product = np.fft.rfft2(self._windowed(turned)) * self._spectrum
        correlation = np.fft.irfft2(product / np.maximum(np.abs(product), 1e-6), s=seen.shape)
        correlation = np.where(self._reachable, correlation, -np.inf)
        row, column = np.unravel_index(int(correlation.argmax()), seen.shape)
        # Shifts up or left stand at the end.
        down, right = int(row) - height * (2 * row > height), int(column) - width * (2 * column > width)
        # The shift of the image turned back; that of the image itself is turned along.
        across, along = turning[:, :2] @ (right, down)
        return float(correlation[row, column]), Placement(angle, across / width, along / height)

    def _refined(self, seen: NDArray[np.float32], start: Placement) -> tuple[float, Placement]:
        """A placement made exact, and the correlation with the reference there; -1 where it runs away."""
        height, width = seen.shape
        kind = cv2.MOTION_EUCLIDEAN if self._limits.angle else cv2.MOTION_TRANSLATION
        coarse, still = start.matrix(seen.shape), np.eye(2, 3, dtype=np.float32)
        # From the image turned back, since OpenCV knows angles up to 90° alone. What lies beyond its border, and
        # outside of the region, does not count.
        there = self._counts & _moved(np.ones_like(seen), coarse, cv2.BORDER_CONSTANT).astype(np.uint8)
        try:
            correlation, found = cv2.findTransformECC(
                self._reference, _moved(seen, coarse), still, kind, _PRECISION, there
            )
        except cv2.error:  # it does not converge
            return -1.0, start
        matrix = coarse @ np.vstack((np.asarray(found, np.float64), (0.0, 0.0, 1.0)))
        angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        middle = (np.array([width, height]) - 1.0) / 2.0
        right, down = matrix[:, :2] @ middle + matrix[:, 2] - middle
        return correlation, Placement(angle, float(right) / width, float(down) / height)


def _moved(image: NDArray[Any], matrix: Matrix, border: int = cv2.BORDER_REPLICATE) -> NDArray[Any]:
    """Up to four channels of an image, with at each place what lies where the matrix takes it to."""
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, image.shape[1::-1]
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=flags, borderMode=border), image.dtype)


def _small(image: Pixels, size: tuple[int, int]) -> NDArray[np.float32]:
    """The mean of an image's channels at a size."""
    return np.asarray(fit_image(image, size, "resize").mean(axis=2), np.float32)


def registrar_of(registration: Registration | None, region: RegionOfInterest | None) -> Registrar | None:
    """What finds the part; none where images are taken as they lie.

    Raises:
        ModelFileError: the reference is damaged.
    """
    return None if registration is None else Registrar(registration, region)


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
    if high - low < 1e-3 * config.pixel_format.highest or min(grey.shape) < _LEAST_SIDE:
        raise ConfigError(f"registration: {path}: nothing to recognise in it: all of one brightness, or too small")
    levels = np.rint((grey - low) * (255.0 / (high - low))).astype(np.uint8)
    encoded = cv2.imencode(".png", levels)[1].tobytes()
    return Registration(reference=base64.b64encode(encoded).decode(), shift=shift, angle=angle)


def _decoded(registration: Registration) -> NDArray[np.float32]:
    """The reference's brightness.

    Raises:
        ModelFileError: it is no picture as `read_registration` makes them.
    """
    try:
        data = base64.b64decode(registration.reference)
        header = read_header(data)
        sides = sorted((header.height, header.width)) if header else [0]
        grey = header is not None and (header.format, header.channels, header.bits) == ("PNG", 1, 8)
        if grey and sides[0] >= _LEAST_SIDE and sides[-1] <= _SIDE:
            return decode_raw(data, "the reference").astype(np.float32)
    except (binascii.Error, ImageError):
        pass
    raise ModelFileError("its registration's reference is no grey PNG of 16 to 128 pixels a side: set it again")
