"""An epoch's plan: every request once, in the order that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hemix.data.dataset import Dataset


@pytest.mark.parametrize("order", ["stored", "time", "shuffled", "users"])
def test_every_request_once(planted_data: Path, order: str) -> None:
    split = Dataset(planted_data).split("train")
    plan = split.plan(128, order=order, seed=1)
    assert np.array_equal(np.sort(plan.order), np.arange(split.requests))


def test_users_order_keeps_a_user_together_and_in_time(planted_data: Path) -> None:
    split = Dataset(planted_data).split("train")
    order = split.plan(128, order="users", seed=1, epoch=2).order
    user, time_ms = split.user[order], split.time_ms[order]
    begins = np.flatnonzero(np.diff(user, prepend=-1))
    assert len(begins) == len(np.unique(user))
    within = np.diff(user) == 0
    assert (np.diff(time_ms)[within] >= 0).all()
    assert not np.array_equal(order, split.plan(128, order="users", seed=1, epoch=3).order)
    assert np.array_equal(order, split.plan(128, order="users", seed=1, epoch=2).order)
