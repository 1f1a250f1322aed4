"""Which weights are kept and when a run stops, from valid losses made up by hand."""

from __future__ import annotations

import pytest

from hemix.config import TrainSettings
from hemix.training.early_stopping import EarlyStopping
from hemix.training.position import Position
from hemix.training.validate import Validation


def validation(loss: float | None) -> Validation:
    return Validation(loss=loss, first_auc=None, tasks={})


def test_two_evaluations_without_a_better_loss_end_the_run() -> None:
    early_stopping = EarlyStopping(TrainSettings(epochs=9, patience=2))
    position = Position()
    improved = []
    for step, loss in enumerate([0.5, 0.4, 0.4, 0.45], start=1):
        position.step = step
        improved.append(early_stopping.update(position, validation(loss)))
    assert improved == [True, True, False, False]
    assert (position.best_step, position.best_valid_loss, position.finished) == (2, 0.4, True)


def test_an_evaluation_without_a_loss_changes_nothing() -> None:
    early_stopping = EarlyStopping(TrainSettings(epochs=2, patience=1))
    position = Position()
    assert not early_stopping.update(position, validation(None))
    assert position == Position()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 1, "patience": 2, "evaluate_every_steps": 0}, False),
        ({"epochs": 1, "patience": 2, "evaluate_every_steps": 5}, True),
        ({"epochs": 3, "patience": 0, "evaluate_every_steps": 5}, False),
    ],
)
def test_weights_are_saved_only_where_there_is_a_choice(
    options: dict[str, int],
    expected: bool,
) -> None:
    assert EarlyStopping(TrainSettings(**options)).keeps_best is expected
