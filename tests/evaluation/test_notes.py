"""Notes: a model that is worse than a trivial baseline is noted, with its significance."""

from __future__ import annotations

import html
import json
from typing import Any

import numpy as np
import pytest

from hemix.display import metrics_table, notes_lines
from hemix.evaluation.evaluate import evaluate_predictions
from hemix.evaluation.notes import (
    calibration_notes,
    evaluation_notes,
    one_class_note,
    training_notes,
    valid_notes,
)
from hemix.evaluation.predictions import Predictions
from hemix.evaluation.report import render_report
from tests.evaluation.synthetic import synthetic_predictions


def evaluate_with_notes(p: Predictions) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    figures = evaluate_predictions(p, replicates=20)
    return figures, evaluation_notes(p.task_rows(), figures["tasks"], p.user, "test")


def with_click_probabilities(probabilities: np.ndarray, **changes: Any) -> Predictions:
    """The synthetic funnel with other probabilities of a click."""
    base = synthetic_predictions()
    order = np.minimum(probabilities, base.probabilities[:, 1])
    return synthetic_predictions(probabilities=np.stack([probabilities, order], axis=1), **changes)


def test_a_model_better_than_the_baselines_has_no_notes() -> None:
    figures, notes = evaluate_with_notes(
        synthetic_predictions(baselines={"popularity": np.full((2000, 2), 0.1)})
    )
    assert all(task["ne"] < 1 for task in figures["tasks"].values())
    assert notes == []


def test_a_log_loss_above_the_base_rate_is_noted() -> None:
    base = synthetic_predictions()
    figures, notes = evaluate_with_notes(
        with_click_probabilities(1 - base.probabilities[:, 0], baselines={})
    )
    [note] = [note for note in notes if note["task"] == "click"]
    click = figures["tasks"]["click"]
    rate = base.labels[:, 0].mean()
    assert note["code"] == "loss_above_base_rate"
    assert (note["split"], note["logloss"], note["ne"]) == (
        "test",
        click["logloss"],
        pytest.approx(click["ne"]),
    )
    assert note["base_rate_logloss"] == pytest.approx(
        -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    )
    assert note["within_chance"] is False
    assert 0 < note["standard_error"] < note["logloss"] - note["base_rate_logloss"]
    assert json.loads(json.dumps(notes, allow_nan=False)) == notes


def test_an_insignificant_excess_of_log_loss_is_within_chance() -> None:
    """Small noise around the base rate: worse than the rate, but not significantly."""
    rate = synthetic_predictions().labels[:, 0].mean()
    noise = np.random.default_rng(3).normal(size=2000) * 0.02
    for p in (rate + noise, rate - noise):
        figures, notes = evaluate_with_notes(
            with_click_probabilities(np.clip(p, 0.01, 0.99), baselines={})
        )
        click_notes = [note for note in notes if note["task"] == "click"]
        assert bool(click_notes) == (figures["tasks"]["click"]["ne"] > 1.0005)
        assert all(note["within_chance"] for note in click_notes)


def test_the_base_rate_as_prediction_has_no_note() -> None:
    constant = np.full(2000, synthetic_predictions().labels[:, 0].mean())
    assert [
        n
        for n in evaluate_with_notes(with_click_probabilities(constant, baselines={}))[1]
        if n["task"] == "click"
    ] == []


def test_an_auc_below_popularity_is_noted_with_its_significance() -> None:
    base = synthetic_predictions()
    weak = np.clip(
        0.9 * base.probabilities[:, 0].mean() + 0.01 * np.random.default_rng(0).normal(size=2000),
        0,
        1,
    )
    _, notes = evaluate_with_notes(with_click_probabilities(weak))
    [note] = [n for n in notes if (n["task"], n["code"]) == ("click", "auc_below_popularity")]
    assert note["auc"] < note["popularity_auc"]
    assert note["difference_ci95"][1] < 0
    assert note["within_chance"] is False
    close = synthetic_predictions(
        baselines={"popularity": np.clip(base.probabilities + 1e-3 * base.labels, 0, 1)}
    )
    assert {n["code"] for n in evaluate_with_notes(close)[1]} == {"auc_below_popularity"}, (
        "every pair the same or better: small, but sure"
    )
    noise = np.exp(0.3 * np.random.default_rng(1).normal(size=(2000, 2)))
    even = [base.probabilities * noise, base.probabilities * noise[::-1]]
    below = []
    for ours, theirs in (even, even[::-1]):  # one of the two is below, not surely
        _, notes = evaluate_with_notes(
            synthetic_predictions(
                probabilities=np.clip(ours, 0, 1), baselines={"popularity": np.clip(theirs, 0, 1)}
            )
        )
        below += [n for n in notes if n["code"] == "auc_below_popularity" and n["task"] == "click"]
    assert [n["within_chance"] for n in below] == [True]


@pytest.mark.parametrize("name", ["position", "touched_before"])
def test_an_auc_below_another_baseline_is_noted_by_its_name(name: str) -> None:
    base = synthetic_predictions()
    figures, notes = evaluate_with_notes(synthetic_predictions(baselines={name: base.truth}))
    click = figures["tasks"]["click"]
    assert click[f"{name}_auc"] == click["oracle_auc"]
    assert click[f"{name}_logloss"] == click["truth_logloss"]
    [note] = [n for n in notes if n["task"] == "click"]
    assert (note["code"], note[f"{name}_auc"]) == (f"auc_below_{name}", click[f"{name}_auc"])


def test_notes_of_one_user_have_no_interval() -> None:
    base = synthetic_predictions()
    _, notes = evaluate_with_notes(
        with_click_probabilities(1 - base.probabilities[:, 0], user=np.zeros(2000, dtype=int))
    )
    below = next(n for n in notes if (n["task"], n["code"]) == ("click", "auc_below_popularity"))
    above = next(n for n in notes if (n["task"], n["code"]) == ("click", "loss_above_base_rate"))
    assert "difference_ci95" not in below
    assert "standard_error" not in above


def test_training_notes_join_labels_validation_and_calibration() -> None:
    lines = {
        "click": {"slope": 1.2, "shift": 0.1},
        "order": {"slope": 1.0, "shift": 0.0, "left_out": "one class"},
    }
    notes = training_notes(
        [one_class_note("order", 0, 50)],
        valid_notes({"click": (0.7, 0.5), "order": (0.2, 0.3)}),
        lines,
    )
    assert [(n["code"], n["task"], n["split"]) for n in notes] == [
        ("one_class_in_train", "order", "train"),
        ("loss_above_base_rate", "click", "valid"),
        ("calibration_left_out", "order", "valid"),
    ]
    assert notes[1]["ne"] == pytest.approx(1.4)
    assert training_notes([], valid_notes({"click": (0.1, 0.0)}), None) == [], (
        "one class: any model is above"
    )
    assert (
        calibration_notes({"click": {"slope": 0.01, "shift": 0.0, "held": "x"}})[0]["code"]
        == "calibration_held"
    )


def test_table_and_report_show_every_note() -> None:
    figures, notes = evaluate_with_notes(
        with_click_probabilities(1 - synthetic_predictions().probabilities[:, 0])
    )
    figures["notes"] = notes
    of_training = valid_notes({"click": (0.7, 0.5)})
    page = html.unescape(render_report(metrics={"notes": of_training, "split": {"test": figures}}))
    assert notes
    for note in notes:
        assert note["text"] in metrics_table(figures, "test")
    for note in [*notes, *of_training]:
        assert note["text"] in page
    assert notes_lines(of_training)[0].endswith(of_training[0]["text"])
    assert 'class="notes"' not in render_report(
        metrics={"notes": [], "split": {"test": {**figures, "notes": []}}}
    )


def test_table_and_report_show_the_reason_of_an_undefined_metric() -> None:
    figures, _ = evaluate_with_notes(synthetic_predictions(user=np.zeros(2000, dtype=int)))
    assert figures["tasks"]["click"]["absent"] == {"auc_ci95": "fewer than two users"}
    assert "fewer than two users" in metrics_table(figures, "test")
    assert "fewer than two users" in render_report(metrics={"split": {"test": figures}})
