"""Trivial rules beside a model: their rates against counts of the log, and a planted match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hemix.data.dataset import Dataset
from hemix.data.sampler import SequentialSampler
from hemix.evaluation.metrics import auc
from hemix.preparation import prepare
from hemix.runs import Run
from hemix.runs.baselines import TouchedBefore, popularity, position_rates
from hemix.runs.evaluation import split_predictions
from tests.planted import write_logs


def full_weights(data: Dataset) -> np.ndarray:
    """Weights of the train rows: a quarter of the negatives is in the log."""
    train = data.split("train")
    return np.where(train.labels.read()[:, 0] == 0, 4.0, 1.0) * train.weight.read()


def test_position_rates_are_those_of_the_full_log(rich_data: Path) -> None:
    data = Dataset(rich_data)
    train = data.split("train")
    labels, bias, weights = train.labels.read(), train.bias.read(), full_weights(data)
    rates = position_rates(data)
    assert rates is not None
    assert rates.shape == (data.spec.bias_rows, 2)
    for task in (0, 1):
        known = labels[:, task] >= 0
        mean = np.average(labels[known, task], weights=weights[known])
        at = known & (bias == 2)
        positives = weights[at] @ labels[at, task]
        assert rates[2, task] == pytest.approx(
            (positives + 20 * mean) / (weights[at].sum() + 20), rel=1e-6
        )


def test_popularity_undoes_negative_sampling(rich_data: Path) -> None:
    data = Dataset(rich_data)
    sampled = popularity(Dataset(rich_data), np.array([0, 1, -1]))
    positives = np.load(data.folder / "items" / "train_positives.npy")
    shown = np.load(data.folder / "items" / "train_known.npy")
    mean = positives.sum(0) / shown.sum(0)
    rate = (positives[1] + 20 * mean) / (shown[1] + 20)
    odds = rate[0] / (1 - rate[0]) / 4
    assert sampled[1, 0] == pytest.approx(odds / (1 + odds))
    assert sampled[1, 1] / sampled[1, 0] == pytest.approx(rate[1] / rate[0])


def test_a_planted_match_is_found(planted_data: Path) -> None:
    """A click is likely where the category is that of the last event today."""
    data = Dataset(planted_data)
    rule = TouchedBefore.fit(data, position_rates(data))
    assert rule is not None
    test = data.split("test")
    scores, labels = [], []
    sampler = SequentialSampler(test, 500)
    for batch in test.batches(sampler):
        assert batch.labels is not None
        scores.append(rule.predict(batch)[:, 0])
        labels.append(batch.labels[:, 0].numpy())
    y, p = np.concatenate(labels), np.concatenate(scores)
    area = auc(y, p, np.ones(len(y)))
    assert isinstance(area, float)
    assert area > 0.6
    assert p.mean() == pytest.approx(y.mean(), abs=0.03)


def test_every_split_but_train_has_baselines(planted_run: Path, planted_data: Path) -> None:
    run, data = Run.load(planted_run), Dataset(planted_data)
    names = {
        split: list(split_predictions(run, data, data.split(split)).baselines)
        for split in ("train", "valid")
    }
    assert names == {"train": [], "valid": ["popularity", "position", "touched_before"]}


def test_a_log_without_positions_and_matches_has_popularity_alone(tmp_path: Path) -> None:
    schema = """
name: plain
clock: {column: time_ms}
features: {item: {item_id: {type: categorical, vocabulary: {min_count: 1}}}}
history: {source: impressions, match_counts: false}
labels: {click: {}}
split: {valid: 2026-01-08, test: 2026-01-09}
"""
    prepare(write_logs(tmp_path / "logs", schema=schema), tmp_path / "data")
    data = Dataset(tmp_path / "data")
    assert position_rates(data) is None
    assert TouchedBefore.fit(data, None) is None
