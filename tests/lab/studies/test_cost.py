"""The cost estimate of a study is the sum over its missing trials."""

from __future__ import annotations

import pytest

from hemix.lab.studies import cost
from hemix.lab.studies.cost import Stage, finished_costs, plan_study
from hemix.lab.studies.options import StudyOptions
from hemix.lab.studies.trial import TRIAL_FORMAT
from tests.lab.studies.in_process import MakeTrial, write_result

START = cost._START_SECONDS


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the timing of steps: 0.01 s per impression, none for width 16."""
    labels: list[str] = []

    def measure(trial: object, _threads: int) -> float | None:
        labels.append(trial.name)  # type: ignore[attr-defined]
        width = trial.candidate.settings.model.token_width  # type: ignore[attr-defined]
        return None if width == 16 else 0.01

    monkeypatch.setattr(cost, "_measure_cost", measure)
    return labels


def test_estimate_adds_up_missing_trials(make_trial: MakeTrial, measured: list[str]) -> None:
    trials = [make_trial(seed) for seed in (0, 1, 2)]
    rows = trials[0].dataset.train_rows
    stages = [
        Stage(name="search", trials=trials[:1], split="valid"),
        Stage(name="compare", trials=[*trials, trials[0]], split="valid"),
    ]
    plan = plan_study(stages, StudyOptions(jobs=2, threads=1))
    assert [(stage.trials, stage.finished) for stage in plan.stages] == [(1, 0), (3, 0)]
    expected = [round(count * (START + 0.01 * rows)) for count in (1, 3)]
    assert [stage.seconds for stage in plan.stages] == expected
    assert plan.seconds == sum(expected)
    assert plan.hours == pytest.approx(plan.seconds / 2 / 3600, abs=5e-4)
    assert len(measured) == 1, "equal candidates are timed once"


def test_finished_trials_cost_nothing_and_give_the_cost_of_others(
    make_trial: MakeTrial, measured: list[str]
) -> None:
    trials = [make_trial(seed) for seed in range(4)]
    rows = trials[0].dataset.train_rows
    for trial, factor in zip(trials[:3], (1, 2, 9), strict=True):
        write_result(trial, seconds=factor * rows / 100)
    assert list(finished_costs(trials[0].root).values()) == [pytest.approx(0.02)]
    (stage,) = plan_study([Stage(name="x", trials=trials, split="valid")], StudyOptions()).stages
    assert (stage.finished, stage.seconds) == (3, round(START + 0.02 * rows))
    assert measured == []


def test_trained_trial_needs_only_the_start_for_test(make_trial: MakeTrial) -> None:
    trials = [make_trial(0), make_trial(1)]
    for trial in trials:
        write_result(trial)
    TRIAL_FORMAT.write(trials[0].folder / "test.json", {"tasks": {}})
    (stage,) = plan_study([Stage(name="x", trials=trials, split="test")], StudyOptions()).stages
    assert (stage.finished, stage.seconds) == (1, round(START))


def test_candidate_that_cannot_be_timed_is_unknown(make_trial: MakeTrial) -> None:
    wide = make_trial(**{"model.token_width": 16})
    plan = plan_study([Stage(name="x", trials=[wide], split="valid")], StudyOptions())
    assert (plan.stages[0].unknown, plan.seconds) == (("model",), 0)


def test_learning_rates_do_not_change_the_cost_key(make_trial: MakeTrial) -> None:
    key = make_trial().cost_key
    assert make_trial(**{"train.dense_learning_rate": 0.5}).cost_key == key
    assert make_trial(**{"model.token_width": 16}).cost_key != key
