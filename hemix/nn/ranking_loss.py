"""Ranking losses within groups (a user's or a request's impressions), beside log loss.

Pairwise is RankNet's (Burges et al., ICML 2005), which is BPR's for implicit feedback; listwise is
ListNet's top-one cross-entropy (Cao et al., ICML 2007) with the positives as the target. Both act
on log odds and see differences within a group alone, so log loss has to keep the level.

Letters: n counted rows, G groups, T tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.devices import to_device
from hemix.data.jagged import offsets_of, range_positions
from hemix.data.spec import InputSpec
from hemix.nn.heads import Funnel, counted_weights, log_probabilities

__all__ = ["RankedGroups", "log_odds", "rank_groups", "ranking_loss"]


@dataclass(frozen=True, kw_only=True)
class RankedGroups:
    """The groups of a batch that have both classes of one task, on one device.

    A group weighs as many rows as it has, as a user does in GAUC.
    """

    positives: Tensor
    """int64 [p], rows of the batch, group by group"""
    negatives: Tensor
    """int64 [q], rows of the batch, group by group"""
    positive_group: Tensor
    """int64 [p]"""
    negative_group: Tensor
    """int64 [q]"""
    positive_weight: Tensor
    """float32 [p]; adds up to the group's weight over its positives"""
    negative_weight: Tensor
    """float32 [q]; adds up to 1 over a group's negatives"""
    row_weight: Tensor
    """float32 [p + q]: weights of the rows in the log, positives first"""
    pair_positive: Tensor
    """int64 [pairs], positions among the positives"""
    pair_negative: Tensor
    """int64 [pairs], positions among the negatives"""
    groups: int
    """G"""
    weight: Tensor
    """float32, a scalar: the total weight of the groups"""

    def to(self, device: torch.device) -> RankedGroups:
        """Return the groups on a device; ``weight`` stays in the CPU's memory."""
        moved = {
            name: to_device(value, device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor) and name != "weight"
        }
        return RankedGroups(**moved, groups=self.groups, weight=self.weight)


def rank_groups(
    labels_NT: Tensor,
    weights_NT: Tensor,
    group_N: Tensor,
    spec: InputSpec,
    funnel: Funnel = "entire_space",
) -> list[RankedGroups]:
    """Find the groups with both classes, for every task.

    Args:
        labels_NT: Labels in the CPU's memory; 0 where unknown.
        weights_NT: Weights of the labels; 0 masks an unknown one.
        group_N: int64, the group of every row.
        spec: The tasks.
        funnel: With ``given_only`` a task ranks the rows whose given label is 1.
    """
    counted_NT = counted_weights(labels_NT, weights_NT.float(), spec, funnel)
    return [
        _groups_of_task(label, weight, group_N)
        for label, weight in zip(labels_NT.unbind(1), counted_NT.unbind(1), strict=True)
    ]


def _groups_of_task(label_N: Tensor, weight_N: Tensor, group_N: Tensor) -> RankedGroups:
    rows = torch.nonzero(weight_N > 0).squeeze(1)
    _, group = torch.unique(group_N[rows], return_inverse=True)
    label, weight = label_N[rows], weight_N[rows]
    groups = int(group.max()) + 1 if len(rows) else 0
    zeros = torch.zeros(groups)
    positive_G = zeros.index_add(0, group, weight * label)
    total_G = zeros.index_add(0, group, weight)
    negative_G = zeros.index_add(0, group, weight * (1 - label))
    both = (positive_G > 0) & (negative_G > 0)
    number = torch.cumsum(both, 0) - 1
    order = torch.argsort(group, stable=True)
    order = order[both[group[order]]]
    positive, negative = order[label[order] == 1], order[label[order] == 0]
    counts = torch.bincount(number[group[negative]], minlength=int(both.sum()))
    of_positive = number[group[positive]]
    lengths = counts[of_positive]
    return RankedGroups(
        positives=rows[positive],
        negatives=rows[negative],
        positive_group=of_positive,
        negative_group=number[group[negative]],
        positive_weight=(weight * (total_G / positive_G)[group])[positive],
        negative_weight=(weight / negative_G[group])[negative],
        row_weight=weight[torch.cat([positive, negative])],
        pair_positive=torch.repeat_interleave(torch.arange(len(positive)), lengths),
        pair_negative=range_positions(offsets_of(counts)[:-1][of_positive], lengths),
        groups=int(both.sum()),
        weight=total_G[both].sum(),
    )


def log_odds(logits_NT: Tensor, spec: InputSpec, funnel: Funnel = "entire_space") -> Tensor:
    """Return what is ranked, [N, T]: log odds of every task's probability over all impressions.

    Args:
        logits_NT: Logits, conditional for a task with ``given``.
        spec: The tasks.
        funnel: With ``given_only`` the conditional logits themselves.
    """
    if funnel == "given_only" or all(task.given is None for task in spec.tasks):
        return logits_NT
    log_p_NT, log_not_NT = log_probabilities(logits_NT, spec)
    return log_p_NT - log_not_NT


def ranking_loss(
    kind: Literal["pairwise", "listwise"], scores_N: Tensor, ranked: RankedGroups
) -> Tensor:
    """Return the sum of a task's ranking loss over groups, each times its weight, a scalar.

    - ``pairwise``: the mean of ``softplus(negative - positive)`` over a group's pairs;
    - ``listwise``: the mean over a group's positives of ``-log softmax`` among all its rows.

    Args:
        kind: The loss.
        scores_N: Log odds, at least fp32.
        ranked: The groups, on the device of the scores.
    """
    positive, negative = scores_N[ranked.positives], scores_N[ranked.negatives]
    if kind == "pairwise":
        margin = positive[ranked.pair_positive] - negative[ranked.pair_negative]
        weight = (
            ranked.positive_weight[ranked.pair_positive]
            * ranked.negative_weight[ranked.pair_negative]
        )
        return (weight * F.softplus(-margin)).sum()
    scores = torch.cat([positive, negative])
    group = torch.cat([ranked.positive_group, ranked.negative_group])
    top_G = scores.new_full((ranked.groups,), -torch.inf)
    top_G = top_G.scatter_reduce(0, group, scores.detach(), "amax")
    mass_G = scores.new_zeros(ranked.groups).index_add(
        0, group, ranked.row_weight * (scores - top_G[group]).exp()
    )
    log_sum = (mass_G.log() + top_G)[ranked.positive_group]
    return (ranked.positive_weight * (log_sum - positive)).sum()
