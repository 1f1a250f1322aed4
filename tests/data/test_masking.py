"""Masked requests and candidates of a batch; the others stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hemix.data.dataset import Dataset
from hemix.data.masking import Masking
from hemix.data.replacement import Replacement
from hemix.data.split import Split


@pytest.fixture(scope="module")
def train(rich_data: Path) -> Split:
    return Dataset(rich_data).split("train")


def test_masks_leave_the_rest_of_a_batch_as_it_is(train: Split) -> None:
    """Half of the requests are masked: the others see the same users, events and numbers."""
    every = np.arange(train.requests)
    swap = Replacement(masking=Masking(user=0.5), seed=(3,))
    masks = swap.masks(train.requests, train.impressions)
    assert masks is not None and 0.3 < masks.user_features.mean() < 0.7
    plain, masked = train.batch(every), train.batch(every, replacement=swap)
    masked.validate(train.data.spec)
    assert masked.users_count > plain.users_count
    lengths = masked.history_ranges[:, 2] - masked.history_ranges[:, 0]
    is_masked = torch.from_numpy(masks.user_features)
    assert int(lengths[is_masked].sum()) == 0
    before = plain.history_ranges[:, 2] - plain.history_ranges[:, 0]
    assert torch.equal(lengths[~is_masked], before[~is_masked])
    for column in ("ids", "numbers"):
        old, new = (getattr(b.users, column)[b.user_index] for b in (plain, masked))
        assert torch.equal(old[~is_masked], new[~is_masked])
        assert not torch.equal(old[is_masked], new[is_masked])
    candidates = ~is_masked[plain.request_index]
    assert torch.equal(plain.cross.numbers[candidates], masked.cross.numbers[candidates])
    assert plain.labels is not None and masked.labels is not None
    assert torch.equal(plain.labels, masked.labels)


def test_rates_of_masks_are_met() -> None:
    masks = Masking.of_rates(0.4, 0.1).draw((1,), 100_000, 50_000)
    assert masks is not None
    both = masks.user_features & masks.history
    rates = [m.mean() for m in (masks.user_features, masks.history, both, masks.item)]
    assert rates == pytest.approx([0.3, 0.3, 0.2, 0.1], abs=0.005)
    assert Masking.of_rates(0.0, 0.0).draw((1,), 5, 5) is None


def test_a_masked_item_is_the_one_behind_the_others(train: Split) -> None:
    every = np.arange(train.requests)
    swap = Replacement(masking=Masking(item=0.5), seed=(3,))
    masks = swap.masks(train.requests, train.impressions)
    plain, masked = train.batch(every), train.batch(every, replacement=swap)
    assert masks is not None
    last = plain.items.rows
    assert masked.items.rows == last + 1
    expected = torch.where(torch.from_numpy(masks.item), last, plain.item_index)
    assert torch.equal(masked.item_index, expected)
    assert torch.equal(masked.event_item, plain.event_item)
    assert masked.items.ids[last, train.data.spec.item.names.index("item_id")] == 0
    assert masked.items.ids[last, train.data.spec.item.names.index("category")] == 1
