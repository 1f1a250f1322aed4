"""Figures of a study from written scores: metrics, costs and paired differences by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hemix.data.layout import save_array
from hemix.errors import RunError
from hemix.evaluation.differences import holm
from hemix.evaluation.metrics import UndefinedMetric
from hemix.lab.studies.datasets import evaluated_rows
from hemix.lab.studies.study import TrialsByLabel
from hemix.lab.studies.summary import measure_trials, paired_differences, summarise
from hemix.lab.studies.trial import TRIAL_FORMAT, Trial
from tests.lab.studies.in_process import MakeTrial
from tests.refusals import raises

COSTS = {
    "dense_parameters": 1000,
    "embedding_parameters": 2000,
    "flops_per_impression": 3000.0,
    "threads": 1,
    "code": "c0ffee00",
    "hemix": "0",
    "torch": "0",
}
WriteScores = Callable[..., Trial]
"""Writes a trial whose click scores are ``slope`` x label + noise of ``seed``"""


@pytest.fixture
def write_scores(make_trial: MakeTrial) -> WriteScores:
    def write(width: int, seed: int, slope: float, figures: dict[str, Any] | None = None) -> Trial:
        trial = make_trial(seed, **{"model.token_width": width})
        trial.write_definition()
        click = evaluated_rows([trial.dataset], "valid")[0][0]["click"]
        noise = np.random.default_rng([width, seed]).random(len(click.rows))
        scores = np.full((len(click.rows), 3), 0.5, np.float32)
        scores[:, 0] = 0.2 + 0.3 * noise + slope * click.labels
        save_array(trial.folder / "valid.npy", scores)
        content = {"tasks": {"click": {"auc": 0.5}}, "train_seconds": 1.0, "peak_bytes": 1}
        TRIAL_FORMAT.write(trial.folder / "result.json", {**content, **COSTS, **(figures or {})})
        return trial

    return write


@pytest.fixture
def runs(write_scores: WriteScores) -> TrialsByLabel:
    """Three candidates of two seeds; each separates clicks better than the one before."""
    return {
        name: [[write_scores(width, seed, slope) for seed in (0, 1)]]
        for name, width, slope in (("weak", 8, 0.0), ("good", 16, 0.1), ("best", 32, 0.3))
    }


def of(runs: TrialsByLabel) -> list[Any]:
    """The dataset of the trials."""
    return [next(iter(runs.values()))[0][0].dataset]


def click_auc(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The differences of the AUC of clicks."""
    return [pair for pair in content["pairs"] if (pair["task"], pair["metric"]) == ("click", "auc")]


def test_the_auc_of_a_trial_is_that_of_all_pairs_of_rows(runs: TrialsByLabel) -> None:
    measured = measure_trials(runs, of(runs), "valid", "click", "auc")
    click = evaluated_rows(of(runs), "valid")[0][0]["click"]
    for label, trials in runs.items():
        by_dataset = measured[label]
        assert not isinstance(by_dataset, UndefinedMetric)
        for trial in trials[0]:
            scores = np.load(trial.folder / "valid.npy")[click.rows, 0]
            positive, negative = scores[click.labels == 1], scores[click.labels == 0]
            expected = (np.sign(positive[:, None] - negative).mean() + 1) / 2
            assert by_dataset[0][trial.seed].value == pytest.approx(expected, abs=1e-9)


def test_a_difference_is_that_of_the_means_and_antisymmetric(runs: TrialsByLabel) -> None:
    measured = measure_trials(runs, of(runs), "valid", "click", "auc")
    means = {
        label: np.mean([estimate.value for estimate in by_dataset[0].values()])
        for label, by_dataset in measured.items()
        if not isinstance(by_dataset, UndefinedMetric)
    }
    content = paired_differences(
        runs, of(runs), "valid", pairs=[("best", "weak"), ("weak", "best")]
    )
    there, back = click_auc(content)
    assert there["delta"] == pytest.approx(means["best"] - means["weak"])
    assert there["delta"] > 0.3
    assert back["delta"] == pytest.approx(-there["delta"])
    assert back["ci95"] == pytest.approx([-bound for bound in reversed(there["ci95"])])
    assert (there["runs"], back["p"]) == (2, pytest.approx(there["p"]))


def test_p_values_are_adjusted_over_the_pairs_that_are_not_primary(runs: TrialsByLabel) -> None:
    content = paired_differences(runs, of(runs), "valid", primary=[("good", "weak")])
    pairs = click_auc(content)
    assert [(pair["a"], pair["b"], pair["primary"]) for pair in pairs] == [
        ("good", "weak", True),
        ("weak", "best", False),
        ("good", "best", False),
    ]
    assert pairs[0]["p_holm"] == pairs[0]["p"]
    adjusted = holm([pair["p"] for pair in pairs[1:]])
    assert [pair["p_holm"] for pair in pairs[1:]] == pytest.approx(adjusted)


def test_candidates_without_a_common_seed_have_no_difference(write_scores: WriteScores) -> None:
    runs = {"a": [[write_scores(8, 0, 0.1)]], "b": [[write_scores(16, 1, 0.1)]]}
    content = paired_differences(runs, of(runs), "valid")
    assert content["pairs"] == []
    reasons = {entry["reason"] for entry in content["absent_pairs"] if entry["task"] == "click"}
    assert reasons == {"no common seed on some dataset"}


def test_scores_of_another_shape_are_refused(runs: TrialsByLabel) -> None:
    trial = runs["weak"][0][0]
    save_array(trial.folder / "valid.npy", np.zeros((5, 2), np.float32))
    with raises(RunError, trial.folder / "valid.npy", "(5, 2)"):
        measure_trials(runs, of(runs), "valid", "click", "auc")


def test_a_summary_has_means_of_metrics_and_seconds_and_the_largest_memory(
    write_scores: WriteScores,
) -> None:
    first = {"tasks": {"click": {"auc": 0.6, "ne": 0.9}}, "train_seconds": 2.0, "peak_bytes": 7}
    second = {"tasks": {"click": {"auc": 0.8}}, "train_seconds": 4.0, "peak_bytes": 5}
    trials = [write_scores(8, seed, 0.1, each) for seed, each in enumerate((first, second))]
    model = summarise({"a": [trials]}, "valid")["a"]
    assert model["tasks"] == {"click": {"auc": {"mean": pytest.approx(0.7), "values": [0.6, 0.8]}}}
    assert (model["train_seconds"], model["peak_bytes"]) == (3.0, 7)
    assert model["settings"]["model.token_width"] == 8
    assert [trial["seed"] for trial in model["trials"]] == [0, 1]
    assert [each["trial"] for each in model["trials"]] == [trial.folder.name for trial in trials]
    assert "history_events_max" not in model
