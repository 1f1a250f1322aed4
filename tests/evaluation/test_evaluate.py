"""From predictions to the split's entry of metrics.json."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from hemix.errors import DataError
from hemix.evaluation import metrics
from hemix.evaluation.evaluate import evaluate_predictions
from hemix.evaluation.slices import slice_masks
from tests.evaluation.synthetic import synthetic_predictions
from tests.refusals import raises

DESIGN_KEYS = {
    "auc",
    "auc_ci95",
    "gauc",
    "gauc_by_positives",
    "gauc_coverage",
    "hit_rate_at_5",
    "hit_rate_at_10",
    "mrr",
    "ndcg_at_5",
    "ndcg_at_10",
    "techjam_score",
    "user_ndcg_at_5",
    "user_ndcg_at_5_all",
    "user_ndcg_at_10",
    "user_recall_at_5",
    "user_recall_at_10",
    "logloss",
    "ne",
    "pcoc",
    "ece",
    "ece_floor",
    "positives",
}


@pytest.fixture(scope="module")
def figures():
    return evaluate_predictions(synthetic_predictions(), replicates=100)


def test_every_task_has_all_metrics_and_the_entry_is_json(figures):
    assert figures["rows"] == 2000
    assert figures["requests"] == 250
    assert list(figures["tasks"]) == ["click", "order", "order_given_click"]
    for task in figures["tasks"].values():
        assert not DESIGN_KEYS - set(task)
        low, high = task["auc_ci95"]
        assert low < task["auc"] < high
        assert len(task["calibration"]) == 10
        assert "absent" not in task
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_the_entry_holds_the_values_of_the_metrics(figures):
    p = synthetic_predictions()
    click, order = figures["tasks"]["click"], figures["tasks"]["order"]
    assert click["auc"] == metrics.auc(p.labels[:, 0], p.probabilities[:, 0])
    assert order["logloss"] == metrics.logloss(p.labels[:, 1], p.probabilities[:, 1])
    assert click["popularity_auc"] == metrics.auc(p.labels[:, 0], p.baselines["popularity"][:, 0])
    assert click["oracle_auc"] == metrics.auc(p.labels[:, 0], p.truth[:, 0])
    assert click["oracle_distance"] == click["oracle_auc"] - click["auc"] > 0
    assert click["truth_logloss"] < click["logloss"]
    assert click["positives"] == p.labels[:, 0].sum()


def test_metrics_of_lists_are_of_requests_and_users(figures):
    p = synthetic_predictions()
    click, y, scores = figures["tasks"]["click"], p.labels[:, 0], p.probabilities[:, 0]
    requests, users = (metrics.RankedLists(y, scores, owners) for owners in (p.request, p.user))
    assert click["mrr"] == requests.mrr()
    assert click["hit_rate_at_5"] == requests.hit_rate_at(5)
    assert click["ndcg_at_10"] == requests.ndcg_at(10)
    assert click["user_recall_at_10"] == users.recall_at(10)
    assert click["user_ndcg_at_5"] == users.ndcg_at(5)
    of_all = users.ndcg_at(5, no_positives="zero")
    assert click["user_ndcg_at_5_all"] == of_all
    gauc, _ = metrics.gauc(y, scores, p.user, by="positives")
    assert click["gauc_by_positives"] == gauc
    assert click["techjam_score"] == pytest.approx((gauc + of_all) / 2)


def test_a_conditional_task_is_evaluated_where_its_given_label_is_1(figures):
    p = synthetic_predictions()
    clicked = p.labels[:, 0] == 1
    given = figures["tasks"]["order_given_click"]
    assert given["rows"] == clicked.sum() == figures["tasks"]["click"]["positives"]
    assert given["auc"] == metrics.auc(p.labels[clicked, 1], p.conditional[clicked, 1])
    assert given["oracle_auc"] == metrics.auc(
        p.labels[clicked, 1], (p.truth[:, 1] / p.truth[:, 0])[clicked]
    )
    assert (
        "order_given_click"
        not in evaluate_predictions(synthetic_predictions(conditional=None), replicates=2)["tasks"]
    )


def test_unknown_labels_are_left_out_of_their_task_alone():
    labels = synthetic_predictions().labels.astype(float)
    labels[:500, 1] = np.nan
    labels[500:600, 1] = -1
    tasks = evaluate_predictions(synthetic_predictions(labels=labels), replicates=2)["tasks"]
    assert tasks["click"]["rows"] == 2000
    assert tasks["order"]["rows"] == 1400
    assert tasks["order"]["auc"] == metrics.auc(
        labels[600:, 1], synthetic_predictions().probabilities[600:, 1]
    )


def test_weights_undo_negative_sampling():
    full = synthetic_predictions(rows=24_000)
    sampled_rows = (full.labels[:, 0] == 1) | (np.random.default_rng(0).random(full.rows) < 0.2)
    columns = {
        name: getattr(full, name)[sampled_rows]
        for name in (
            "probabilities",
            "conditional",
            "labels",
            "user",
            "request",
            "truth",
            "history_length",
            "realtime_length",
            "user_seen_in_train",
            "item_seen_in_train",
        )
    }
    sampled = synthetic_predictions(
        **columns, baselines={}, weights=np.where(columns["labels"][:, 0] == 1, 1.0, 5.0)
    )
    a, b = (evaluate_predictions(p, replicates=2)["tasks"]["click"] for p in (full, sampled))
    for name in ("auc", "gauc", "logloss", "ne", "pcoc"):
        assert b[name] == pytest.approx(a[name], rel=0.03), name
    unweighted = metrics.pcoc(sampled.labels[:, 0], sampled.probabilities[:, 0])
    assert unweighted < 0.7 * a["pcoc"]


def test_an_undefined_metric_is_absent_with_its_reason():
    labels = synthetic_predictions().labels.copy()
    labels[:, 1] = 0
    figures = evaluate_predictions(synthetic_predictions(labels=labels), replicates=10)
    order = figures["tasks"]["order"]
    assert order["absent"]["auc"] == "no positives"
    assert order["absent"]["pcoc"] == "no positives"
    assert "auc" not in order and "auc_ci95" not in order
    assert order["logloss"] > 0


def test_a_split_without_rows_has_reasons_instead_of_metrics():
    empty = {
        "probabilities": np.zeros((0, 2)),
        "conditional": None,
        "labels": np.zeros((0, 2)),
        "truth": None,
        "baselines": {},
        **{k: np.zeros(0, int) for k in ("user", "request", "history_length", "realtime_length")},
        **{k: np.zeros(0, bool) for k in ("user_seen_in_train", "item_seen_in_train")},
    }
    figures = evaluate_predictions(synthetic_predictions(**empty))
    assert figures["rows"] == 0
    assert figures["tasks"]["click"]["absent"]["auc"] == "no rows"
    assert figures["slices"] == {
        "history_length": {},
        "realtime_length": {},
        "user": {},
        "item": {},
    }


def test_a_truth_with_nan_is_left_out_and_popularity_is_optional():
    truth = synthetic_predictions().truth.copy()
    truth[3, 1] = np.nan
    tasks = evaluate_predictions(synthetic_predictions(truth=truth, baselines={}), replicates=2)[
        "tasks"
    ]
    assert "oracle_auc" in tasks["click"]
    assert "oracle_auc" not in tasks["order"]
    assert "popularity_auc" not in tasks["click"]


def test_the_seed_determines_the_entry():
    first, again = (
        evaluate_predictions(synthetic_predictions(), seed=5, replicates=20) for _ in range(2)
    )
    other = evaluate_predictions(synthetic_predictions(), seed=6, replicates=20)
    assert first == again
    assert first["tasks"]["click"]["auc_ci95"] != other["tasks"]["click"]["auc_ci95"]


def test_slice_masks_split_by_history_realtime_user_and_item():
    p = synthetic_predictions(
        rows=8,
        history_length=np.array([0, 1, 9, 10, 99, 100, 999, 1000]),
        realtime_length=np.array([0, 0, 1, 4, 5, 19, 20, 300]),
        user_seen_in_train=np.ones(8, bool),
        item_seen_in_train=np.arange(8) > 0,
    )
    rows = {
        dimension: {name: np.flatnonzero(mask).tolist() for name, mask in masks.items()}
        for dimension, masks in slice_masks(p).items()
    }
    assert rows == {
        "history_length": {
            "0": [0],
            "1-9": [1, 2],
            "10-99": [3, 4],
            "100-299": [5],
            "300-999": [6],
            "1000+": [7],
        },
        "realtime_length": {"0": [0, 1], "1-4": [2, 3], "5-19": [4, 5], "20+": [6, 7]},
        "user": {"known": list(range(8))},
        "item": {"known": list(range(1, 8)), "new": [0]},
    }


def test_slices_partition_the_rows_and_hold_their_metrics(figures):
    p = synthetic_predictions()
    for slices in figures["slices"].values():
        assert sum(entry["rows"] for entry in slices.values()) == 2000
    new = ~p.item_seen_in_train
    entry = figures["slices"]["item"]["new"]
    assert entry["rows"] == new.sum()
    assert entry["tasks"]["click"]["auc"] == metrics.auc(p.labels[new, 0], p.probabilities[new, 0])
    assert 0 < entry["tasks"]["click"]["auc_standard_error"] < 0.1
    assert entry["tasks"]["order_given_click"]["rows"] == (new & (p.labels[:, 0] == 1)).sum()


@pytest.mark.parametrize(
    ("field", "value", "code", "values"),
    [
        ("labels", np.full((2000, 2), 3), None, ["click", 0, 1, -1, 3, "row 0"]),
        ("labels", np.zeros((2000, 1)), "wrong_shape", [(2000, 2), (2000, 1)]),
        ("user", np.zeros(3), "wrong_shape", [(2000,), (3,)]),
        ("probabilities", np.full((2000, 2), np.nan), None, [0, 1, "nan", "row 0"]),
        ("given", (None, 1), None, ["[1]", "None", "got 1"]),
    ],
)
def test_invalid_predictions_are_refused_by_field_and_row(field, value, code, values):
    with raises(DataError, *values, code=code, field=field):
        evaluate_predictions(synthetic_predictions(**{field: value}))


def test_evaluation_does_not_import_torch():
    code = (
        "import sys; from hemix.evaluation import evaluate, importance, report; sys.exit('torch' "
        "in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_user_has_no_interval():
    base = synthetic_predictions(rows=400)
    one = synthetic_predictions(rows=400, user=np.full(400, 7))
    for task in evaluate_predictions(one, replicates=10)["tasks"].values():
        assert "auc" in task
        assert "auc_ci95" not in task
        assert task["absent"]["auc_ci95"] == "fewer than two users"
    weights = np.where(base.user == base.user[0], 1.0, 0.0)
    figures = evaluate_predictions(synthetic_predictions(rows=400, weights=weights), replicates=10)
    assert figures["tasks"]["click"]["absent"]["auc_ci95"] == "fewer than two users", (
        "the others weigh nothing"
    )
    for slices in figures["slices"].values():
        for entry in slices.values():
            assert "auc_standard_error" not in entry["tasks"]["click"]


@pytest.mark.parametrize("empty", ["positives", "negatives", "rows"])
def test_a_class_of_weight_zero_leaves_the_other_task_unchanged(empty):
    """Zero weights of one click class leave the orders of the other rows evaluated."""
    base = synthetic_predictions()
    label = base.labels[:, 0]
    zero = {"positives": label == 1, "negatives": label == 0, "rows": np.ones(2000, bool)}[empty]
    figures = evaluate_predictions(
        synthetic_predictions(weights=np.where(zero, 0.0, 2.0)), replicates=5
    )
    click = figures["tasks"]["click"]
    for metric in ("auc", "gauc", "ndcg_at_10", "ne"):
        assert metric not in click or (empty, metric) == ("negatives", "ndcg_at_10")
    assert click["absent"]["auc"] == f"no {empty}"
    assert ("logloss" in click) == (empty != "rows")
    if empty == "negatives":
        clicked = label == 1
        order = figures["tasks"]["order"]
        assert order["auc"] == pytest.approx(
            metrics.auc(base.labels[clicked, 1], base.probabilities[clicked, 1])
        )
    json.dumps(figures, allow_nan=False)


def test_rate_and_prediction_by_position():
    p = synthetic_predictions()
    weights = np.where(np.arange(2000) % 2, 1.0, 3.0)
    weights[p.request == 249] = 0
    position = np.where(p.request == 249, 9, np.arange(2000) % 8)
    tasks = evaluate_predictions(
        dataclasses.replace(p, position=position, weights=weights), replicates=2
    )["tasks"]
    rows = tasks["click"]["by_position"]
    assert [row["position"] for row in rows] == list(range(8))
    at = (position == 3) & (weights > 0)
    assert rows[3]["rows"] == at.sum()
    assert rows[3]["rate"] == pytest.approx(p.labels[at, 0].mean())
    assert rows[3]["prediction"] == pytest.approx(p.probabilities[at, 0].mean())
    rate = rows[3]["rate"]
    assert rows[3]["standard_error"] == pytest.approx(np.sqrt(rate * (1 - rate) / at.sum()))
    assert "by_position" in tasks["order_given_click"]
    assert "by_position" not in evaluate_predictions(p, replicates=2)["tasks"]["click"]


def test_a_baseline_of_another_shape_is_refused():
    with raises(DataError, code="wrong_shape", field="baselines.position"):
        synthetic_predictions(baselines={"position": np.zeros((2000, 1))})


def test_selected_impressions_keep_their_baselines_and_positions():
    p = synthetic_predictions(position=np.arange(2000))
    selected = p.select(np.array([7, 3]))
    assert selected.position.tolist() == [7, 3]
    assert selected.baselines["popularity"].tolist() == (p.baselines["popularity"][[7, 3]].tolist())
