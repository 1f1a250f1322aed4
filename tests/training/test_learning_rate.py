"""The factor of the peak learning rate, by hand: linear up, a cosine down."""

from __future__ import annotations

import itertools

import pytest

from hemix.training.optimizers import lr_factor


def test_warm_up_is_linear_and_never_zero() -> None:
    """Over 4 steps in fifths, so that the step after them is the first at the peak."""
    assert [lr_factor(step, 100, 4, 0.1) for step in range(4)] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8]
    )
    assert lr_factor(4, 100, 4, 0.1) == 1.0


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 1.0),
        (2, 0.1 + 0.9 * 0.5 * (1 + 2**-0.5)),  # an eighth of a whole turn: cos(45 degrees)
        (4, 0.55),  # half way, half way between 1 and 0.1
        (6, 0.1 + 0.9 * 0.5 * (1 - 2**-0.5)),
        (8, 0.1),
        (9, 0.1),  # beyond the end it stays
        (1000, 0.1),
    ],
)
def test_the_cosine_by_hand(step: int, factor: float) -> None:
    assert lr_factor(step, 8, 0, 0.1) == pytest.approx(factor)
    assert lr_factor(step + 5, 8 + 5, 5, 0.1) == pytest.approx(factor), (
        "the cosine begins after the warm-up"
    )


def test_it_ends_at_the_given_factor() -> None:
    assert lr_factor(50, 50, 10, 0.0) == pytest.approx(0.0)
    assert [lr_factor(step, 50, 0, 1.0) for step in range(50)] == [1.0] * 50


def test_it_only_rises_and_then_only_falls() -> None:
    factors = [lr_factor(step, 60, 20, 0.1) for step in range(60)]
    assert all(a < b for a, b in itertools.pairwise(factors[:21]))
    assert all(a > b for a, b in itertools.pairwise(factors[20:]))
    assert max(factors) == factors[20] == 1.0


def test_a_run_shorter_than_its_warm_up() -> None:
    assert [lr_factor(step, 2, 3, 0.1) for step in range(3)] == pytest.approx([0.25, 0.5, 0.75])
    assert lr_factor(3, 2, 3, 0.1) == 1.0
