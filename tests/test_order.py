"""Which image is seen when."""

from __future__ import annotations

import torch

from draem.training.order import _order, image_indices

SEED = 5


def in_batches(images: int, epochs: int, batch: int, seed: int = SEED) -> torch.Tensor:
    positions = torch.arange(images * epochs)
    return torch.cat([image_indices(some, images, seed) for some in torch.split(positions, batch)])


def test_every_image_once_an_epoch_whatever_the_batch() -> None:
    for images, batch in [(1, 4), (7, 3), (10, 8), (10, 10), (5, 23), (13, 1)]:
        seen = in_batches(images, 6, batch).view(6, images)
        assert torch.equal(seen.sort(dim=1).values, torch.arange(images).expand(6, images)), (images, batch)


def test_the_batch_size_does_not_change_the_order() -> None:
    whole = image_indices(torch.arange(60), 10, SEED)
    for batch in (1, 7, 16, 60):
        assert torch.equal(in_batches(10, 6, batch), whole), batch


def test_a_pure_function_of_seed_and_position() -> None:
    """Whatever was asked before, in whatever order, and whatever torch's own generator did."""
    positions = torch.tensor([57, 3, 12, 3, 41, 999])
    first = image_indices(positions, 10, SEED)
    state = torch.get_rng_state()
    for other in range(20):
        image_indices(torch.arange(100), 7, other)
    assert torch.equal(torch.get_rng_state(), state)
    _order.cache_clear()
    torch.manual_seed(99)
    assert torch.equal(image_indices(positions, 10, SEED), first)
    assert torch.equal(torch.stack([image_indices(one[None], 10, SEED)[0] for one in positions]), first)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(in_batches(20, 5, 20, seed).view(5, 20)[epoch].tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_orders_are_uniform() -> None:
    """Over many epochs every image is first equally often: χ² with 9 degrees of freedom, 99.9 % below 27.9."""
    epochs, images = 2000, 10
    first = image_indices(torch.arange(epochs) * images, images, SEED)
    counts = torch.bincount(first, minlength=images).double()
    assert ((counts - epochs / images) ** 2 / (epochs / images)).sum() < 27.9


def test_replacement_draws_each_anew() -> None:
    """As the published code does: within an epoch 1/e of the images are not seen, and all are equally likely."""
    images, epochs = 50, 200
    drawn = image_indices(torch.arange(images * epochs), images, SEED, "replacement").view(epochs, images)
    assert drawn.min() >= 0
    assert drawn.max() < images
    missed = torch.tensor([images - len(set(epoch.tolist())) for epoch in drawn]).double().mean() / images
    assert abs(missed - 0.364) < 0.02  # (1 − 1/50)^50
    counts = torch.bincount(drawn.flatten(), minlength=images).double()
    assert ((counts - epochs) ** 2 / epochs).sum() < 85.4  # χ², 49 degrees of freedom, 99.9 %
    assert torch.equal(image_indices(torch.arange(70, 90), images, SEED, "replacement"), drawn.flatten()[70:90])


def test_positions_of_a_very_long_run() -> None:
    positions = torch.arange(10) + 10**12
    assert sorted(image_indices(positions, 10, 2**31 - 1).tolist()) == list(range(10))
