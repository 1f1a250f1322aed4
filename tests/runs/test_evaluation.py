"""Predictions of a run on a dataset, and metrics.json, against values computed from the logs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from hemix import api
from hemix.data.dataset import Dataset
from hemix.errors import RunError, StorageError, UsageError
from hemix.evaluation.predictions import Predictions
from hemix.runs import Run
from hemix.runs.evaluation import split_predictions
from tests.data.small import PLAIN, at, prepared, shown
from tests.refusals import raises
from tests.rich import write_rich

SPLITS = ("train", "valid", "test")


def predict_split(run: Path, data: Path, split: str) -> tuple[Predictions, np.ndarray]:
    """A split's predictions, and the row of the impression log behind each."""
    impressions = Dataset(data).split(split)
    predictions = split_predictions(Run.load(run), Dataset(data), impressions)
    return predictions, impressions.log_row.read()


@pytest.fixture(scope="module")
def log(rich_logs: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(rich_logs / "impressions.parquet").to_pylist()
    return rows


# -- the right rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("data", ["rich_data", "rich_partitions"])
def test_truth_and_labels_are_those_of_the_log_row(
    rich_run: Path, data: str, split: str, log: list[dict[str, Any]], request: pytest.FixtureRequest
) -> None:
    """The truth of log row n is (n + 1) / 1000 and half of it."""
    predictions, rows = predict_split(rich_run, request.getfixturevalue(data), split)
    assert predictions.truth is not None
    np.testing.assert_allclose(
        predictions.truth, np.stack([(rows + 1) / 1000, (rows + 1) / 2000], 1)
    )
    clicks = [-1 if log[row]["click"] is None else log[row]["click"] for row in rows]
    if split == "test":  # in train a label is also unknown that was not known by its end
        assert predictions.labels[:, 0].tolist() == clicks
    request_ids = [log[row]["request_id"] for row in rows]
    assert len(set(zip(request_ids, predictions.request.tolist(), strict=True))) == len(
        set(request_ids)
    )
    users = [log[row]["user_id"] for row in rows]
    assert len(set(zip(users, predictions.user.tolist(), strict=True))) == len(set(users))


def test_splits_hold_every_distinct_log_row_once(
    rich_data: Path, log: list[dict[str, Any]]
) -> None:
    rows = np.concatenate([Dataset(rich_data).split(split).log_row.read() for split in SPLITS])
    assert len(set(rows.tolist())) == len(rows)
    distinct = {json.dumps(row, sort_keys=True) for row in log}
    assert {json.dumps(log[row], sort_keys=True) for row in rows} == distinct
    assert len(rows) == len(distinct) < len(log)


@pytest.mark.parametrize("data", ["rich_data", "rich_partitions"])
def test_predictions_name_their_log_row(
    rich_run: Path,
    data: str,
    log: list[dict[str, Any]],
    rich_logs: Path,
    request: pytest.FixtureRequest,
) -> None:
    run = Run.load(rich_run)
    table = run.predict(request.getfixturevalue(data), "test", position="logged").to_pylist()
    prices = {
        row["item_id"]: row["price"]
        for row in pq.read_table(rich_logs / "items.parquet").to_pylist()
    }
    assert (
        len({row["log_row"] for row in table})
        == len(table)
        == Dataset(request.getfixturevalue(data)).split("test").impressions
    )
    for row in table:
        for name in ("user_id", "item_id", "time_ms"):
            assert row[name] == log[row["log_row"]][name]
        price = prices[row["item_id"]]
        assert (
            np.isnan(row["score"])
            if price is None
            else row["score"] == pytest.approx(row["order"] * price, rel=1e-9)
        )
    predictions, rows = predict_split(rich_run, request.getfixturevalue(data), "test")
    by_row = {row["log_row"]: row["click"] for row in table}
    np.testing.assert_allclose(
        predictions.probabilities[:, 0], [by_row[row] for row in rows], rtol=1e-6
    )


# -- negative sampling -----------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_scores_and_weights_undo_negative_sampling(
    rich_run: Path, rich_data: Path, split: str, log: list[dict[str, Any]]
) -> None:
    """The log has a quarter of the negatives: p = sigmoid(logit + log(1/4)), and a negative counts
    four times its weight.
    """
    predictions, rows = predict_split(rich_run, rich_data, split)
    impressions, model = Dataset(rich_data).split(split), Run.load(rich_run).model
    logits = model(impressions.batch(np.arange(impressions.requests))).detach().double().numpy()
    click = 1 / (1 + np.exp(-(logits[:, 0] + np.log(0.25))))
    np.testing.assert_allclose(predictions.probabilities[:, 0], click, rtol=1e-5)
    np.testing.assert_allclose(
        predictions.probabilities[:, 1], click / (1 + np.exp(-logits[:, 1])), rtol=1e-5
    )
    assert predictions.conditional is not None and predictions.weights is not None
    np.testing.assert_allclose(
        predictions.conditional[:, 1], 1 / (1 + np.exp(-logits[:, 1])), rtol=1e-5
    )
    labels = predictions.labels[:, 0]
    assert {-1.0, 0.0, 1.0} == set(labels.tolist())
    expected = [
        log[row]["weight"] * (4 if label == 0 else 1)
        for row, label in zip(rows, labels, strict=True)
    ]
    np.testing.assert_allclose(predictions.weights, expected, rtol=1e-6)


def test_a_model_of_a_sampled_log_predicts_the_click_rate_of_the_full_log(tmp_path: Path) -> None:
    """100 positives a day and 400 negatives, of which the log has every fourth.

    No user occurs twice, so no feature separates them: the model predicts 0.2, not 0.5.
    """
    rows = [
        (f"u{day}-{n}", "i", at(day, n % 20), int(n % 2 == 0))
        for day in range(3)
        for n in range(200)
    ]
    schema = PLAIN + "roles: {negative_sampling_rate: 0.25}"
    data = prepared(tmp_path, schema, impressions=shown(rows)).folder
    api.train(
        data,
        tmp_path / "run",
        settings={"train.batch_size": 20, "train.epochs": 4, "train.warmup_steps": 2},
    )
    figures = api.evaluate(tmp_path / "run", data, importance_impressions=0)["tasks"]["click"]
    predictions, _ = predict_split(tmp_path / "run", data, "test")
    assert predictions.probabilities.mean() == pytest.approx(0.2, abs=0.04)
    assert figures["pcoc"] == pytest.approx(1.0, abs=0.2)


# -- popularity ------------------------------------------------------------------------------------


def popular(folder: Path, a: str = "a", b: str = "b") -> Path:
    """Train: item a clicked 1, 0, unknown, 1 and b 0, 0, with orders 1, 0, unknown, unknown and 0,
    0.
    """
    rows: list[tuple[Any, ...]] = [
        ("u", a, at(0, 1), 1, 1),
        ("u", a, at(0, 2), 0, 0),
        ("v", a, at(0, 3), None, None),
        ("v", a, at(0, 4), 1, None),
        ("u", b, at(0, 5), 0, 0),
        ("v", b, at(0, 6), 0, 0),
        *[(u, a, at(1, 1), c, 0) for u, c in (("u", 1), ("v", 0))],
        *[("u", i, at(2, h), h % 2, 0) for h, i in enumerate((a, b, "new", a))],
    ]
    schema = (
        "name: popular\nlabels: {click: {}, order: {given: click}}\nsplit: {valid: 2026-01-06, "
        "test: 2026-01-07}\n"
    )
    schema += "features: {item: {item_id: {type: categorical, vocabulary: {min_count: 1}}}}"
    return prepared(folder, schema, impressions=shown(rows, "order")).folder


@pytest.fixture(scope="module")
def popular_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("popular")
    data = popular(folder)
    return api.train(data, folder / "run", settings={"train.batch_size": 4}), data


def test_popularity_is_the_smoothed_train_rate(popular_run: tuple[Path, Path]) -> None:
    """Clicks: known 3 + 2 with 2 positives, mean 0.4; a: (2 + 20 x 0.4) / (3 + 20), b: (0 + 8) / (2
    + 20), new: 0.4. Orders: known 2 + 2 with 1, mean 0.25; a: (1 + 5) / (2 + 20), b: 5 / 22, new:
    0.25.
    """
    predictions, _ = predict_split(*popular_run, "test")
    a, b, new = (10 / 23, 6 / 22), (8 / 22, 5 / 22), (0.4, 0.25)
    np.testing.assert_allclose(predictions.baselines["popularity"], [a, b, new, a])
    assert predictions.item_seen_in_train.tolist() == [True, True, False, True]
    assert predictions.user_seen_in_train.tolist() == [True] * 4


# -- metrics.json ----------------------------------------------------------------------------------


def test_splits_are_merged_into_metrics_json(
    popular_run: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(popular_run[0], run)
    before = json.loads((run / "metrics.json").read_text())
    assert before["split"] == {}
    valid = api.evaluate(run, popular_run[1], split="valid", importance_impressions=0)
    test = api.evaluate(run, popular_run[1], split="test", importance_impressions=0)
    after = json.loads((run / "metrics.json").read_text())
    assert after["split"] == {"valid": valid, "test": test}
    assert {**after, "split": {}} == before
    assert (valid["rows"], test["rows"]) == (2, 4)
    again = api.evaluate(run, popular_run[1], split="valid", importance_impressions=0)
    assert again == valid
    assert json.loads((run / "metrics.json").read_text()) == after
    assert (run / "report.html").exists()
    with raises(UsageError, "dev", "train, valid, test", field="--split"):
        api.evaluate(run, popular_run[1], split="dev")


def test_a_run_that_cannot_be_written_is_refused_before_it_is_scored(
    popular_run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = popular_run
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != run)
    activities = list[str]()
    with raises(StorageError, code="permission_denied", field=run):
        api.evaluate(run, data, on_progress=lambda activity, _: activities.append(activity))
    assert activities == []


def test_the_same_schema_with_other_encoders_is_refused(
    popular_run: tuple[Path, Path], tmp_path: Path
) -> None:
    """Two items of other names: the same schema, tables of the same sizes, and other things meant
    by each id.
    """
    other = popular(tmp_path, a="x", b="y")
    ours, theirs = Dataset(popular_run[1]), Dataset(other)
    assert (ours.schema.fingerprint(), ours.spec) == (theirs.schema.fingerprint(), theirs.spec)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in popular_run[0].iterdir())
    with raises(RunError, popular_run[0], code="other_data", field=other):
        api.evaluate(popular_run[0], other)
    with raises(RunError, popular_run[0], code="other_data", field=other):
        api.predict(popular_run[0], other, tmp_path / "x.parquet")
    assert (
        sorted((path.name, path.stat().st_mtime_ns) for path in popular_run[0].iterdir()) == before
    )
    assert not (tmp_path / "x.parquet").exists()


def test_the_same_logs_prepared_again_and_in_other_partitions_are_accepted(
    rich_run: Path, rich_partitions: Path, tmp_path: Path
) -> None:
    assert len(list(Run.load(rich_run).predict(rich_partitions).to_pylist())) > 0
    write_rich(tmp_path / "logs")
    api.prepare(tmp_path / "logs", tmp_path / "data")
    assert Run.load(rich_run).predict(tmp_path / "data").num_rows > 0
    write_rich(tmp_path / "others", item="j")
    api.prepare(tmp_path / "others", tmp_path / "other_data")
    with raises(RunError, rich_run, code="other_data", field=tmp_path / "other_data"):
        Run.load(rich_run).predict(tmp_path / "other_data")
