"""Ranking losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hemix.nn.heads import log_probabilities
from hemix.nn.ranking_loss import RankedGroups, log_odds, rank_groups, ranking_loss
from tests.batches import make_spec, smallest_spec

LOG2 = math.log(2)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def groups_of(
    labels: list[float], group: list[int], weights: list[float] | None = None
) -> RankedGroups:
    spec = smallest_spec()
    label = torch.tensor(labels).unsqueeze(1)
    weight = torch.ones_like(label) if weights is None else torch.tensor(weights).unsqueeze(1)
    (ranked,) = rank_groups(label, weight, torch.tensor(group), spec)
    return ranked


SCORES = torch.tensor([2.0, 0.5, 1.0, -1.0, 3.0, 0.0])
LABELS = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
GROUPS = [7, 7, 3, 3, 3, 5]
"""Group 7: one pair. Group 3: a positive with two negatives. Group 5 has no negative."""


def test_pairwise_is_the_mean_over_pairs_times_the_rows_of_a_group() -> None:
    ranked = groups_of(LABELS, GROUPS)
    assert (ranked.groups, float(ranked.weight)) == (2, 5.0)
    expected = 2 * softplus(0.5 - 2.0) + 3 * (softplus(-1.0 - 1.0) + softplus(3.0 - 1.0)) / 2
    assert float(ranking_loss("pairwise", SCORES, ranked)) == pytest.approx(expected)


def test_listwise_is_the_mean_over_positives_of_the_softmax_among_all_rows() -> None:
    labels, group = [1.0, 1.0, 0.0, 0.0], [0, 0, 0, 1]
    scores = torch.tensor([1.0, 0.0, 2.0, 9.0])
    log_sum = math.log(math.e + 1 + math.e**2)
    expected = 3 * ((log_sum - 1.0) + (log_sum - 0.0)) / 2
    total = ranking_loss("listwise", scores, groups_of(labels, group))
    assert float(total) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["pairwise", "listwise"])
def test_a_weight_of_2_equals_two_rows_and_0_none(kind: str) -> None:
    weighted = groups_of([1.0, 0.0, 0.0, 1.0], [0, 0, 0, 0], [2.0, 1.0, 3.0, 0.0])
    scores = torch.tensor([0.3, -0.2, 0.8, 50.0])
    copies = groups_of([1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0] * 6)
    repeated = torch.tensor([0.3, 0.3, -0.2, 0.8, 0.8, 0.8])
    assert float(weighted.weight) == float(copies.weight) == 6.0
    total, expected = ranking_loss(kind, scores, weighted), ranking_loss(kind, repeated, copies)
    assert float(total) == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", ["pairwise", "listwise"])
def test_the_level_of_a_group_and_the_order_of_rows_change_nothing(kind: str) -> None:
    expected = ranking_loss(kind, SCORES, groups_of(LABELS, GROUPS))
    level = torch.tensor([10.0 * group for group in GROUPS])
    torch.testing.assert_close(
        ranking_loss(kind, SCORES + level, groups_of(LABELS, GROUPS)), expected
    )
    order = [4, 0, 5, 3, 1, 2]
    shuffled = groups_of([LABELS[i] for i in order], [GROUPS[i] for i in order])
    torch.testing.assert_close(ranking_loss(kind, SCORES[order], shuffled), expected)


@pytest.mark.parametrize("kind", ["pairwise", "listwise"])
def test_the_gradient_raises_positives_and_lowers_negatives_of_groups_with_both(kind: str) -> None:
    scores = SCORES.clone().requires_grad_()
    ranking_loss(kind, scores, groups_of(LABELS, GROUPS)).backward()
    gradient = scores.grad
    assert gradient is not None
    assert (gradient[[0, 2]] < 0).all()
    assert (gradient[[1, 3, 4]] > 0).all()
    assert float(gradient[5]) == 0.0
    torch.testing.assert_close(gradient.sum(), torch.tensor(0.0))


def test_without_pairs_there_is_no_group() -> None:
    for labels in ([1.0, 0.0], [1.0, 1.0], []):
        ranked = groups_of(labels, list(range(len(labels))))
        assert (ranked.groups, float(ranked.weight)) == (0, 0.0)


def test_a_task_with_given_is_ranked_by_its_probability_over_all_impressions() -> None:
    spec = make_spec()
    logits: Tensor = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    scores = log_odds(logits, spec)
    torch.testing.assert_close(scores[:, 0], logits[:, 0])
    # p(click) p(order given click) = 1/2 * 1/2, log odds log(1/3)
    assert float(scores[0, 1]) == pytest.approx(math.log(1 / 3))
    log_p, log_not = log_probabilities(logits, spec)
    torch.testing.assert_close(scores, log_p - log_not)
    assert log_odds(logits, spec, "given_only") is logits


def test_given_only_ranks_the_rows_whose_given_label_holds() -> None:
    labels = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    click, order = rank_groups(
        labels, torch.ones(3, 2), torch.zeros(3, dtype=torch.int64), make_spec(), "given_only"
    )
    assert (click.positives.tolist(), click.negatives.tolist()) == ([0, 1], [2])
    assert (order.positives.tolist(), order.negatives.tolist()) == ([0], [1])
