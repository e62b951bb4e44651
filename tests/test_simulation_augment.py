"""The ten augmentations, each against a per-image reference: Pillow, OpenCV, SciPy, or plain NumPy."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage, stats

from draem.config import AUGMENTATIONS
from draem.simulation.augment import OPERATIONS, augment, chosen
from draem.simulation.draws import Stream, sample_keys, uniform

NAMES = tuple(OPERATIONS)
COUNT, HEIGHT, WIDTH = 24, 40, 53
KEYS = sample_keys(31, 0, torch.arange(COUNT))
DRAWS = uniform(KEYS, 77, (5,))


def make_images() -> torch.Tensor:
    """Whole 255ths: smooth ramps, noise, a narrow range, one flat image, and one of two levels."""
    noise = uniform(KEYS, 78, (3, HEIGHT, WIDTH))
    noise[::2] = noise[::2] * 0.3 + torch.linspace(0.0, 0.7, WIDTH)
    noise[3] = 0.4
    noise[5] = (noise[5] > 0.3).float() * 0.5
    return (noise * 255.0).round() / 255.0


IMAGES = make_images()
BYTES = (IMAGES * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def run(name: str) -> NDArray[np.floating]:
    """The operation's result in units of 255, B×H×W×3."""
    result = OPERATIONS[name](IMAGES, DRAWS)  # type: ignore[index]
    assert result.shape == IMAGES.shape
    assert result.min() >= 0.0
    assert result.max() <= 1.0
    return result.permute(0, 2, 3, 1).numpy() * 255.0


def compare(name: str, reference: object, tolerance: float) -> None:
    """Hold every image of the batch against `reference(bytes H×W×3, its five draws)`, in units of 255."""
    got = run(name)
    expected = np.stack([reference(*pair) for pair in zip(BYTES, DRAWS.double().numpy(), strict=True)])  # type: ignore[operator]
    np.testing.assert_allclose(got, expected, atol=tolerance, rtol=0)


def test_gamma() -> None:
    compare("gamma", lambda image, d: 255.0 * (image / 255.0) ** (0.5 + 1.5 * d[:3]), 1e-2)


def test_brightness() -> None:
    compare("brightness", lambda image, d: np.clip(image * (0.8 + 0.4 * d[0]) + 60.0 * d[1] - 30.0, 0, 255), 1e-2)


def test_sharpness_equals_pillow() -> None:
    def reference(image: NDArray[np.uint8], d: NDArray[np.float64]) -> NDArray[np.uint8]:
        return np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(2.0 * d[0]))

    compare("sharpness", reference, 1.6)  # Pillow rounds twice


def test_hue_saturation_equals_opencv() -> None:
    def reference(image: NDArray[np.uint8], d: NDArray[np.float64]) -> NDArray[np.float32]:
        hsv = cv2.cvtColor((image / 255.0).astype(np.float32), cv2.COLOR_RGB2HSV)  # degrees, [0, 1], [0, 1]
        hsv[:, :, 0] = (hsv[:, :, 0] + (2 * d[0] - 1) * 50 / 255 * 360) % 360
        hsv[:, :, 1] = np.clip(hsv[:, :, 1] + (2 * d[1] - 1) * 50 / 255, 0, 1)
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255.0)

    colourful = [index for index in range(COUNT) if index not in (3, 5)]  # the hue of grey is anyone's choice
    got = run("hue_saturation")[colourful]
    expected = np.stack([reference(BYTES[index], DRAWS[index].double().numpy()) for index in colourful])
    grey = BYTES[colourful].max(-1) == BYTES[colourful].min(-1)
    np.testing.assert_allclose(got[~grey], expected[~grey], atol=0.05)
    assert grey.mean() < 0.01


def test_solarize_equals_pillow() -> None:
    def reference(image: NDArray[np.uint8], d: NDArray[np.float64]) -> NDArray[np.uint8]:
        threshold = math.ceil(32.0 + 96.0 * d[0])  # the first whole level at or above
        return np.asarray(ImageOps.solarize(Image.fromarray(image), threshold)) if d[1] <= 0.5 else image

    compare("solarize", reference, 1e-2)
    assert 6 < (DRAWS[:, 1] <= 0.5).sum() < 18  # both cases occur


def test_posterize() -> None:
    def reference(image: NDArray[np.uint8], d: NDArray[np.float64]) -> NDArray[np.float64]:
        width = 256 // 2 ** (1 + int(8 * d[0]))
        return np.asarray(np.minimum((image // width) * width + width / 2, 255.0))

    compare("posterize", reference, 1e-2)


def test_invert_equals_pillow() -> None:
    compare("invert", lambda image, d: np.asarray(ImageOps.invert(Image.fromarray(image))), 1e-2)


def test_autocontrast_equals_pillow() -> None:
    def reference(image: NDArray[np.uint8], d: NDArray[np.float64]) -> NDArray[np.uint8]:
        return np.asarray(ImageOps.autocontrast(Image.fromarray(image), cutoff=int(21 * d[0])))

    compare("autocontrast", reference, 1.01)  # Pillow truncates


def test_equalize_equals_pillow() -> None:
    compare("equalize", lambda image, d: np.asarray(ImageOps.equalize(Image.fromarray(image))), 1e-2)


def test_rotate_equals_scipy() -> None:
    def reference(image: NDArray[np.uint8], d: NDArray[np.float64]) -> NDArray[np.float64]:
        angle = math.radians(90.0 * d[0] - 45.0)
        matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        centre = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])
        turned = [
            ndimage.affine_transform(channel, matrix, centre - matrix @ centre, order=1, mode="grid-constant")
            for channel in np.moveaxis(image.astype(float), 2, 0)
        ]
        return np.stack(turned, axis=2)

    compare("rotate", reference, 0.05)


def test_every_configured_augmentation_exists() -> None:
    assert NAMES == AUGMENTATIONS


def test_choice_is_uniform_and_without_replacement() -> None:
    choices = chosen(sample_keys(32, 0, torch.arange(6000)), NAMES, 3)
    assert choices.shape == (6000, 3)
    assert all(len(set(row)) == 3 for row in choices.tolist())
    for slot in range(3):
        assert stats.chisquare(torch.bincount(choices[:, slot], minlength=10).numpy()).pvalue > 1e-3
    pairs = torch.bincount(choices[:, 0] * 10 + choices[:, 1], minlength=100).view(10, 10).numpy()
    assert stats.chisquare(pairs[~np.eye(10, dtype=bool)]).pvalue > 1e-3  # the order is free too


@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_augment_equals_one_image_after_another(count: int) -> None:
    choices = chosen(KEYS, NAMES, count).tolist()
    draws = uniform(KEYS, Stream.AUGMENT, (10, 5))
    before = IMAGES.clone()
    got = augment(IMAGES, KEYS, NAMES, count)
    assert torch.equal(before, IMAGES)
    for index, positions in enumerate(choices):
        image = IMAGES[index : index + 1]
        for position in positions:
            image = OPERATIONS[NAMES[position]](image, draws[index : index + 1, position])
        assert torch.equal(got[index], image[0])


def test_a_subset_uses_only_its_own() -> None:
    assert torch.equal(augment(IMAGES, KEYS, ("invert",), 1), 1.0 - IMAGES)
