"""From pooled tokens to logits, from logits to loss and to probabilities.

The funnel is here and nowhere else: a task's logit is conditional on the task c that it is given,

    p = p_c sigmoid(logit),  1 - p = (1 - p_c) + p_c sigmoid(-logit)

in log space, along the chain.

Letters: N candidates, T tasks, P pooled width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.data.spec import InputSpec
from hemix.nn.init import WeightInit
from hemix.nn.layers import GroupedLinear

__all__ = [
    "Funnel",
    "Heads",
    "LossOptions",
    "counted_weights",
    "log_probabilities",
    "loss",
    "loss_sums",
    "probabilities",
]

Funnel: TypeAlias = Literal["entire_space", "given_only"]
"""How a task with ``given`` is trained: see :func:`loss_sums`."""


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """What changes the training loss and not the valid loss."""

    divisor_T: Tensor | None = None
    """The divisor of every task; None: the labels' own weight"""
    task_weights: Sequence[float] | None = None
    """Factor of every task's loss; None: 1"""
    label_smoothing: float = 0.0
    """Labels are moved towards 1/2 by this fraction of the way."""


_PLAIN = LossOptions()


class Heads(nn.Module):
    """One tower per task, and the bias column's logit."""

    def __init__(self, spec: InputSpec, inputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = GroupedLinear(len(spec.tasks), inputs, hidden)
        self.second = GroupedLinear(len(spec.tasks), hidden, 1)
        self.dropout = nn.Dropout(dropout)
        self.position = (
            nn.Parameter(torch.empty(spec.bias_rows, len(spec.tasks))) if spec.bias_rows else None
        )

    def init_own_weights(self, init: WeightInit) -> None:  # noqa: ARG002
        """Begin as if there were no bias column."""
        if self.position is not None:
            self.position.zero_()

    def forward(self, pooled_NP: Tensor, bias_N: Tensor) -> Tensor:
        """Return logits [N, T], in the parameters' precision.

        Args:
            pooled_NP: Pooled vectors of the candidates.
            bias_N: int64, rows of the bias table (positions).
        """
        hidden_TNh = F.gelu(self.first(pooled_NP.expand(self.first.weight.shape[0], -1, -1)))
        logits_NT: Tensor = (
            self.second(self.dropout(hidden_TNh)).squeeze(2).t().to(self.second.weight.dtype)
        )
        return (
            logits_NT
            if self.position is None
            else logits_NT + self.position.index_select(0, bias_N)
        )

    @torch.no_grad()
    def start_at(self, log_odds_T: Tensor, log_odds_PT: Tensor) -> None:
        """Set the biases so that a logit of 0 from the towers gives the train rates.

        Args:
            log_odds_T: [T], of all rows.
            log_odds_PT: [rows of the bias table, T], of the rows at each position.
        """
        assert self.second.bias is not None
        self.second.bias.copy_(log_odds_T[:, None])
        if self.position is not None:
            self.position.copy_(log_odds_PT - log_odds_T)

    @torch.no_grad()
    def rescale(self, slope_T: Tensor, shift_T: Tensor) -> None:
        """Change the last layer so that every task's logit becomes ``slope * logit + shift``.

        Args:
            slope_T: [T].
            shift_T: [T].
        """
        assert self.second.bias is not None
        self.second.weight.mul_(slope_T.to(self.second.weight)[:, None, None])
        self.second.bias.mul_(slope_T.to(self.second.bias)[:, None]).add_(
            shift_T.to(self.second.bias)[:, None]
        )
        if self.position is not None:
            self.position.mul_(slope_T.to(self.position))


def log_probabilities(logits_NT: Tensor, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Return log p and log(1 - p) of every task over the entire space, both [N, T].

    With c the task it is given: p = p_c * sigmoid(logit), and 1 - p = (1 - p_c) + p_c *
    sigmoid(-logit).

    Args:
        logits_NT: Logits, conditional for a task with ``given``.
        spec: The tasks.
    """
    log_p, log_not = list[Tensor](), list[Tensor]()
    for task, logit in zip(spec.tasks, logits_NT.unbind(1), strict=True):
        yes, no = F.logsigmoid(logit), F.logsigmoid(-logit)
        if task.given is not None:
            yes, no = (
                log_p[task.given] + yes,
                torch.logaddexp(log_not[task.given], log_p[task.given] + no),
            )
        log_p.append(yes)
        log_not.append(no)
    return torch.stack(log_p, 1), torch.stack(log_not, 1)


def probabilities(
    logits_NT: Tensor, spec: InputSpec, undo_sampling: bool = True
) -> dict[str, Tensor]:
    """Return the probability [N] of every task over all impressions, by name.

    A task b with ``given: a`` has a second entry, ``b_given_a``.

    Args:
        logits_NT: Logits, conditional for a task with ``given``.
        spec: The tasks.
        undo_sampling: Whether to correct for the sampling of negatives.
    """
    if undo_sampling:
        logits_NT = logits_NT + logits_NT.new_tensor(spec.logit_shift)
    log_p, _ = log_probabilities(logits_NT, spec)
    outputs = {task.name: log_p[:, i].exp() for i, task in enumerate(spec.tasks)}
    for i, task in enumerate(spec.tasks):
        if task.given is not None:
            outputs[f"{task.name}_given_{spec.tasks[task.given].name}"] = logits_NT[:, i].sigmoid()
    return outputs


def loss(
    logits_NT: Tensor,
    labels_NT: Tensor,
    weights_NT: Tensor,
    spec: InputSpec,
    funnel: Funnel = "entire_space",
    options: LossOptions = _PLAIN,
) -> Tensor:
    """Return the weighted binary cross-entropy, a scalar, at least fp32.

    It is the mean over the known labels of every task, summed over tasks.

    Args:
        logits_NT: Logits, conditional for a task with ``given``.
        labels_NT: Labels; 0 where unknown.
        weights_NT: Weights of the labels; 0 masks an unknown one.
        spec: The tasks.
        funnel: See :func:`loss_sums`.
        options: Divisors, weights of tasks, and smoothing.
    """
    total_T, own_T = loss_sums(
        logits_NT, labels_NT, weights_NT, spec, funnel, label_smoothing=options.label_smoothing
    )
    weight_T = own_T if options.divisor_T is None else options.divisor_T
    mean_T = total_T / torch.where(weight_T > 0, weight_T, 1)
    if options.task_weights is not None:
        mean_T = mean_T * mean_T.new_tensor(options.task_weights)
    return mean_T.sum()


def loss_sums(
    logits_NT: Tensor,
    labels_NT: Tensor,
    weights_NT: Tensor,
    spec: InputSpec,
    funnel: Funnel = "entire_space",
    *,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return sums over rows, which add up over batches.

    Args:
        logits_NT: Logits, conditional for a task with ``given``.
        labels_NT: Labels; 0 where unknown.
        weights_NT: Weights of the labels; 0 masks an unknown one.
        spec: The tasks.
        funnel: ``entire_space``, or ``given_only``: train a task with ``given`` on its conditional
            logit, where the given label is known and 1.
        label_smoothing: Labels are moved towards 1/2 by this fraction of the way.

    Returns:
        The weighted cross-entropy [T] and the weight [T] of every task, at least fp32.
    """
    logits_NT = logits_NT.to(torch.promote_types(logits_NT.dtype, torch.float32))
    labels_NT, weights_NT = labels_NT.to(logits_NT.dtype), weights_NT.to(logits_NT.dtype)
    if funnel == "entire_space":
        yes, no = log_probabilities(logits_NT, spec)
    else:
        yes, no = F.logsigmoid(logits_NT), F.logsigmoid(-logits_NT)
        weights_NT = counted_weights(labels_NT, weights_NT, spec, funnel)
    if label_smoothing:
        labels_NT = labels_NT + label_smoothing * (0.5 - labels_NT)
    return (weights_NT * -(labels_NT * yes + (1 - labels_NT) * no)).sum(0), weights_NT.sum(0)


def counted_weights(
    labels_NT: Tensor,
    weights_NT: Tensor,
    spec: InputSpec,
    funnel: Funnel = "entire_space",
) -> Tensor:
    """Return the weights [N, T] with which rows count in :func:`loss_sums`.

    Args:
        labels_NT: Labels; 0 where unknown.
        weights_NT: Weights of the labels; 0 masks an unknown one.
        spec: The tasks.
        funnel: With ``given_only`` a weight is 0 where the given label is not known to be 1.
    """
    if funnel == "entire_space":
        return weights_NT
    return torch.stack(
        [
            w * _given_holds(i, labels_NT, weights_NT, spec)
            for i, w in enumerate(weights_NT.unbind(1))
        ],
        1,
    )


def _given_holds(task: int, labels_NT: Tensor, weights_NT: Tensor, spec: InputSpec) -> Tensor:
    """1 where the label that the task is given is known and positive, or where there is none."""
    given = spec.tasks[task].given
    if given is None:
        return torch.ones_like(labels_NT[:, task])
    return labels_NT[:, given] * (weights_NT[:, given] > 0)
