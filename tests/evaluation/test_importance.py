"""Permutation importance of a logistic scorer with known coefficients."""

from __future__ import annotations

import numpy as np
import pytest

from hemix.errors import DataError
from hemix.evaluation.importance import permutation_importance
from tests.refusals import raises


def logistic(columns):
    return 1 / (1 + np.exp(-(2 * columns["strong"] + 0.5 * columns["weak"])))


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=4000) for name in ("useless", "weak", "strong")}


def permuting(columns):
    def scorer(feature, rng):
        return logistic({**columns, feature: rng.permutation(columns[feature])})

    return scorer


def test_features_are_sorted_by_their_auc_drop(columns):
    p = logistic(columns)
    labels = (np.random.default_rng(1).random(p.size) < p).astype(int)
    entries = permutation_importance(permuting(columns), ["useless", "weak", "strong"], labels, p)
    assert [entry["feature"] for entry in entries] == ["strong", "weak", "useless"]
    strong, weak, useless = entries
    assert strong["auc_drop"] > 5 * weak["auc_drop"] > 0
    assert strong["logloss_rise"] > weak["logloss_rise"] > 0
    assert useless["auc_drop"] == useless["logloss_rise"] == useless["auc_drop_deviation"] == 0
    assert strong["repetitions"] == 3 and strong["auc_drop_deviation"] > 0


def test_permutations_of_a_feature_do_not_depend_on_other_features(columns):
    p = logistic(columns)
    labels = (p > np.random.default_rng(1).random(p.size)).astype(int)
    alone = permutation_importance(permuting(columns), ["weak"], labels, p, seed=3)
    among = permutation_importance(permuting(columns), ["strong", "weak"], labels, p, seed=3)
    assert alone[0] == among[1]
    assert alone != permutation_importance(permuting(columns), ["weak"], labels, p, seed=4)


def test_one_repetition_has_no_deviation(columns):
    labels = (columns["strong"] > 0).astype(int)
    entries = permutation_importance(
        permuting(columns), ["strong"], labels, logistic(columns), repetitions=1
    )
    assert not [key for key in entries[0] if key.endswith("deviation")]


def test_labels_of_one_class_are_refused(columns):
    with raises(DataError, code="undefined_metric", field="labels"):
        permutation_importance(permuting(columns), ["weak"], np.zeros(4000), logistic(columns))
