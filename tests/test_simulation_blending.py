"""Blending by gradients, against Poisson's equation solved as a sparse system."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from draem.simulation.blending import gradient_blend
from draem.simulation.outlines import inner_border
from planted import disc_masks, membrane_by_solving, smooth_images

SIZE = (47, 60)
NORMAL, SOURCE = smooth_images(5, 3, SIZE), 0.3 + 0.3 * smooth_images(5, 3, SIZE, seed=1)
MASKS = disc_masks(5, SIZE, radius=12.0)
MASKS[4, :, 10:40, 5:50] = 1.0


def test_blending_nearly_solves_poissons_equation() -> None:
    got = gradient_blend(NORMAL, SOURCE, MASKS).double().numpy()
    for index in range(5):
        mask = MASKS[index, 0].numpy() > 0
        border = mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
        # The source's Laplacian within, the normal image's values on the border: source + harmonic difference.
        difference = (NORMAL - SOURCE)[index].double().numpy()
        expected = SOURCE[index].double().numpy() + membrane_by_solving(difference, border | ~mask)
        error = np.abs(got[index] - np.clip(expected, 0, 1))[:, mask]
        span = difference[:, border].max() - difference[:, border].min()
        assert error.max() < 0.06 * span
        assert error.mean() < 0.015 * span


def test_the_border_is_the_normal_images_own() -> None:
    border = inner_border(MASKS)
    got = gradient_blend(NORMAL, SOURCE, MASKS)
    torch.testing.assert_close(got * border, NORMAL * border, atol=1e-6, rtol=0)


def test_a_shifted_copy_is_the_normal_image() -> None:
    got = gradient_blend(NORMAL, NORMAL - 0.08, MASKS)
    torch.testing.assert_close(got * MASKS, NORMAL * MASKS, atol=1e-6, rtol=0)


def test_detail_of_the_source_stays() -> None:
    detail = torch.zeros(5, 3, *SIZE)
    detail[..., ::2] = 0.05
    plain, striped = (gradient_blend(NORMAL, SOURCE + extra, MASKS) for extra in (0.0, detail))
    middle = torch.from_numpy(ndimage.binary_erosion(MASKS[0, 0].numpy() > 0, iterations=6))
    stripes = (striped - plain)[0, :, middle]
    assert abs(stripes.std().item() - 0.025) < 0.003


def test_what_cannot_be_blended_stays() -> None:
    # Without a border there is nothing to meet.
    whole = torch.ones(5, 1, *SIZE)
    torch.testing.assert_close(gradient_blend(NORMAL, SOURCE, whole), SOURCE)
    assert gradient_blend(NORMAL, SOURCE, 0.0 * whole).isfinite().all()
    # A line of three pixels is two thirds border, one of four pixels half.
    for width, stays in ((3, True), (4, False)):
        line = torch.zeros(5, 1, *SIZE)
        line[:, :, 20 : 20 + width] = 1.0
        assert torch.equal(gradient_blend(NORMAL, SOURCE, line), SOURCE) is stays


def test_a_sample_does_not_depend_on_the_batch() -> None:
    whole = gradient_blend(NORMAL, SOURCE, MASKS)
    for index in range(5):
        part = slice(index, index + 1)
        assert torch.equal(gradient_blend(NORMAL[part], SOURCE[part], MASKS[part]), whole[part])
