"""Synthetic synthetic_predictions of a click and order funnel with a known truth."""

from __future__ import annotations

import dataclasses

import numpy as np

from hemix.evaluation.predictions import Predictions


def synthetic_predictions(rows: int = 2000, seed: int = 0, **changes) -> Predictions:
    """Clicks and orders of 8 candidates a request, 40 users, predicted by the truth with noise."""
    rng = np.random.default_rng(seed)
    request = np.arange(rows) // 8
    user = rng.integers(0, 40, request.max() + 1)[request]
    item = rng.integers(0, 30, rows)
    appeal = rng.normal(size=30)[item]
    p_click = 1 / (1 + np.exp(1.5 - appeal - rng.normal(size=rows)))
    p_order = p_click * np.clip(0.3 + 0.1 * appeal, 0.02, 0.9)
    click = rng.random(rows) < p_click
    order = click & (rng.random(rows) < p_order / p_click)
    noisy = np.clip(p_click * np.exp(0.3 * rng.normal(size=rows)), 0, 0.98)
    given = np.clip(p_order / p_click * np.exp(0.2 * rng.normal(size=rows)), 0, 1)
    result = Predictions(
        tasks=("click", "order"),
        given=(None, 0),
        probabilities=np.stack([noisy, noisy * given], axis=1),
        conditional=np.stack([noisy, given], axis=1),
        labels=np.stack([click, order], axis=1).astype(np.int8),
        user=user,
        request=request,
        truth=np.stack([p_click, p_order], axis=1),
        baselines={
            "popularity": np.stack([1 / (1 + np.exp(-appeal)), 0.1 / (1 + np.exp(-appeal))], axis=1)
        },
        history_length=user * 30,
        realtime_length=rng.poisson(3, rows),
        user_seen_in_train=user % 10 != 0,
        item_seen_in_train=item % 7 != 0,
    )
    return dataclasses.replace(result, **changes)
