"""From predictions to the split's part of metrics.json."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from hemix.errors import DataError
from hemix.evaluation import metrics
from hemix.evaluation.evaluate import evaluate_predictions
from hemix.evaluation.slices import slice_masks
from tests.evaluation.made import predictions

DESIGN_KEYS = {
    "auc",
    "auc_ci95",
    "gauc",
    "gauc_coverage",
    "ndcg_at_10",
    "logloss",
    "ne",
    "pcoc",
    "ece",
    "ece_floor",
    "positives",
}


@pytest.fixture(scope="module")
def figures():
    return evaluate_predictions(predictions(), replicates=100)


def test_every_task_has_every_key_of_the_design_and_all_is_json(figures):
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


def test_figures_are_those_of_the_metrics(figures):
    p = predictions()
    click, order = figures["tasks"]["click"], figures["tasks"]["order"]
    assert click["auc"] == metrics.auc(p.labels[:, 0], p.probabilities[:, 0])
    assert order["logloss"] == metrics.logloss(p.labels[:, 1], p.probabilities[:, 1])
    assert click["popularity_auc"] == metrics.auc(p.labels[:, 0], p.popularity[:, 0])
    assert click["oracle_auc"] == metrics.auc(p.labels[:, 0], p.truth[:, 0])
    assert click["oracle_distance"] == click["oracle_auc"] - click["auc"] > 0
    assert click["truth_logloss"] < click["logloss"]
    assert click["positives"] == p.labels[:, 0].sum()


def test_a_given_task_is_measured_on_the_rows_where_the_label_holds(figures):
    p = predictions()
    clicked = p.labels[:, 0] == 1
    given = figures["tasks"]["order_given_click"]
    assert given["rows"] == clicked.sum() == figures["tasks"]["click"]["positives"]
    assert given["auc"] == metrics.auc(p.labels[clicked, 1], p.conditional[clicked, 1])
    assert given["oracle_auc"] == metrics.auc(
        p.labels[clicked, 1], (p.truth[:, 1] / p.truth[:, 0])[clicked]
    )
    assert (
        "order_given_click"
        not in evaluate_predictions(predictions(conditional=None), replicates=2)["tasks"]
    )


def test_unknown_labels_are_left_out_of_their_task_only():
    labels = predictions().labels.astype(float)
    labels[:500, 1] = np.nan
    labels[500:600, 1] = -1
    found = evaluate_predictions(predictions(labels=labels), replicates=2)["tasks"]
    assert found["click"]["rows"] == 2000
    assert found["order"]["rows"] == 1400
    assert found["order"]["auc"] == metrics.auc(
        labels[600:, 1], predictions().probabilities[600:, 1]
    )


def test_weights_bring_sampled_negatives_back_to_the_full_log():
    full = predictions(rows=24_000)
    kept = (full.labels[:, 0] == 1) | (np.random.default_rng(0).random(full.rows) < 0.2)
    columns = {
        name: getattr(full, name)[kept]
        for name in (
            "probabilities",
            "conditional",
            "labels",
            "user",
            "request",
            "truth",
            "popularity",
            "history_length",
            "realtime_length",
            "user_seen_in_train",
            "item_seen_in_train",
        )
    }
    sampled = predictions(**columns, weights=np.where(columns["labels"][:, 0] == 1, 1.0, 5.0))
    a, b = (evaluate_predictions(p, replicates=2)["tasks"]["click"] for p in (full, sampled))
    for name in ("auc", "gauc", "logloss", "ne", "pcoc"):
        assert b[name] == pytest.approx(a[name], rel=0.03), name
    unweighted = metrics.pcoc(sampled.labels[:, 0], sampled.probabilities[:, 0])
    assert unweighted < 0.7 * a["pcoc"]


def test_what_is_undefined_is_absent_with_its_reason():
    labels = predictions().labels.copy()
    labels[:, 1] = 0
    found = evaluate_predictions(predictions(labels=labels), replicates=10)["tasks"]["order"]
    assert found["absent"]["auc"] == "no positives"
    assert found["absent"]["pcoc"] == "no positives"
    assert "auc" not in found and "auc_ci95" not in found
    assert found["logloss"] > 0


def test_without_rows_nothing_is_made_up():
    empty = {
        "probabilities": np.zeros((0, 2)),
        "conditional": None,
        "labels": np.zeros((0, 2)),
        "truth": None,
        "popularity": None,
        **{k: np.zeros(0, int) for k in ("user", "request", "history_length", "realtime_length")},
        **{k: np.zeros(0, bool) for k in ("user_seen_in_train", "item_seen_in_train")},
    }
    figures = evaluate_predictions(predictions(**empty))
    assert figures["rows"] == 0
    assert figures["tasks"]["click"]["absent"]["auc"] == "no rows"
    assert figures["slices"] == {
        "history_length": {},
        "realtime_length": {},
        "user": {},
        "item": {},
    }


def test_truth_and_popularity_are_optional_and_a_truth_with_gaps_is_none():
    truth = predictions().truth.copy()
    truth[3, 1] = np.nan
    found = evaluate_predictions(predictions(truth=truth, popularity=None), replicates=2)["tasks"]
    assert "oracle_auc" in found["click"]
    assert "oracle_auc" not in found["order"]
    assert "popularity_auc" not in found["click"]


def test_the_same_seed_gives_the_same_figures():
    first, again = (evaluate_predictions(predictions(), seed=5, replicates=20) for _ in range(2))
    other = evaluate_predictions(predictions(), seed=6, replicates=20)
    assert first == again
    assert first["tasks"]["click"]["auc_ci95"] != other["tasks"]["click"]["auc_ci95"]


def test_slices_by_hand():
    p = predictions(rows=8)
    p = predictions(
        rows=8,
        history_length=np.array([0, 1, 9, 10, 99, 100, 999, 1000]),
        realtime_length=np.array([0, 0, 1, 4, 5, 19, 20, 300]),
        user_seen_in_train=np.ones(8, bool),
        item_seen_in_train=np.arange(8) > 0,
    )
    found = {
        cut: {name: np.flatnonzero(mask).tolist() for name, mask in parts.items()}
        for cut, parts in slice_masks(p).items()
    }
    assert found == {
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


def test_slices_part_the_rows_and_hold_the_metrics_of_their_rows(figures):
    p = predictions()
    for parts in figures["slices"].values():
        assert sum(part["rows"] for part in parts.values()) == 2000
    new = ~p.item_seen_in_train
    part = figures["slices"]["item"]["new"]
    assert part["rows"] == new.sum()
    assert part["tasks"]["click"]["auc"] == metrics.auc(p.labels[new, 0], p.probabilities[new, 0])
    assert 0 < part["tasks"]["click"]["auc_standard_error"] < 0.1
    assert part["tasks"]["order_given_click"]["rows"] == (new & (p.labels[:, 0] == 1)).sum()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "labels",
            np.full((2000, 2), 3),
            r"Predictions\.labels\[click\]: expected 0, 1 or -1 \(unknown\), got 3 in row 0",
        ),
        (
            "labels",
            np.zeros((2000, 1)),
            r"Predictions\.labels: expected shape \(2000, 2\), got \(2000, 1\)",
        ),
        ("user", np.zeros(3), r"Predictions\.user: expected shape \(2000,\), got \(3,\)"),
        (
            "probabilities",
            np.full((2000, 2), np.nan),
            r"Predictions\.probabilities: expected probabilities from 0 to 1, got",
        ),
        ("given", (None, 1), r"Predictions\.given\[1\]: expected an earlier task or None, got 1"),
    ],
)
def test_bad_predictions_are_named(field, value, message):
    with pytest.raises(DataError, match=message):
        evaluate_predictions(predictions(**{field: value}))


def test_neither_metrics_nor_report_load_torch():
    code = (
        "import sys; from hemix.evaluation import evaluate, importance, report; sys.exit('torch' "
        "in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_interval_of_one_user_is_absent_with_its_reason():
    made = predictions(rows=400)
    one = predictions(rows=400, user=np.full(400, 7))
    for task in evaluate_predictions(one, replicates=10)["tasks"].values():
        assert "auc" in task
        assert "auc_ci95" not in task
        assert task["absent"]["auc_ci95"] == "fewer than two users"
    weights = np.where(made.user == made.user[0], 1.0, 0.0)
    figures = evaluate_predictions(predictions(rows=400, weights=weights), replicates=10)
    assert figures["tasks"]["click"]["absent"]["auc_ci95"] == "fewer than two users", (
        "the others weigh nothing"
    )
    for parts in figures["slices"].values():
        for part in parts.values():
            assert "auc_standard_error" not in part["tasks"]["click"]


@pytest.mark.parametrize("empty", ["positives", "negatives", "rows"])
def test_weights_that_leave_a_class_empty_leave_the_other_task_as_it_is(empty):
    """Orders of weight 0 take nothing from what is known of clicks on the other rows."""
    made = predictions()
    label = made.labels[:, 0]
    zero = {"positives": label == 1, "negatives": label == 0, "rows": np.ones(2000, bool)}[empty]
    figures = evaluate_predictions(predictions(weights=np.where(zero, 0.0, 2.0)), replicates=5)
    click = figures["tasks"]["click"]
    for metric in ("auc", "gauc", "ndcg_at_10", "ne"):
        assert metric not in click or (empty, metric) == ("negatives", "ndcg_at_10")
    assert click["absent"]["auc"] == f"no {empty}"
    assert ("logloss" in click) == (empty != "rows")
    if empty == "negatives":
        kept = label == 1
        order = figures["tasks"]["order"]
        assert order["auc"] == pytest.approx(
            metrics.auc(made.labels[kept, 1], made.probabilities[kept, 1])
        )
    json.dumps(figures, allow_nan=False)
