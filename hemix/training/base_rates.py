"""The log-odds of the train labels, at which the heads of a new model start.

Adam moves a weight by about one learning rate a step. A log of some hundred steps is too short for
biases that start at 0: the click rate of a position can differ by a factor of 40 from the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hemix.data.partition import PartitionSplit
from hemix.data.spec import InputSpec
from hemix.data.split import Split
from hemix.models import Ranker

__all__ = ["BaseRates", "start_at_base_rates", "train_base_rates"]

Array = npt.NDArray[np.float64]

_SMOOTHING_IMPRESSIONS = 20.0
"""A position's rate is smoothed by this many impressions of the average rate."""
_ROWS_PER_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BaseRates:
    """Log-odds of every task; of a task with ``given`` those among the rows where that is 1."""

    log_odds_T: Array
    """[T], over all train rows"""
    log_odds_PT: Array
    """[positions, T]; without a bias column no row"""


def train_base_rates(split: Split, spec: InputSpec) -> BaseRates:
    """Count the labels of a split by task and position, with the weights of the loss.

    Negative sampling is not undone: the loss sees the sampled rows, and ``logit_shift`` corrects
    what the model predicts.

    Args:
        split: The train split.
        spec: Tasks and the bias column.
    """
    shape = (max(spec.bias_rows, 1), len(spec.tasks))
    positives, totals = np.zeros(shape), np.zeros(shape)
    weight = squared_weight = 0.0
    for place in range(len(split.data.partitions)):
        rows = split.partition(place)
        for first in range(0, len(rows.labels), _ROWS_PER_CHUNK):
            chunk = slice(first, first + _ROWS_PER_CHUNK)
            counted = _counts(rows, chunk, spec)
            positives += counted[0]
            totals += counted[1]
            weights = rows.weight[chunk].astype(np.float64)
            weight, squared_weight = weight + weights.sum(), squared_weight + (weights**2).sum()
    # the smoothing counts effective rows (Kish), so that the scale of the weights changes nothing
    scale = weight / squared_weight if squared_weight > 0 else 1.0
    positives, totals = positives * scale, totals * scale
    all_positives, all_totals = positives.sum(0), totals.sum(0)
    rate_T = (all_positives + 0.5) / (all_totals + 1.0)
    rate_PT = (positives + _SMOOTHING_IMPRESSIONS * rate_T) / (totals + _SMOOTHING_IMPRESSIONS)
    return BaseRates(log_odds_T=_log_odds(rate_T), log_odds_PT=_log_odds(rate_PT[: spec.bias_rows]))


def _counts(rows: PartitionSplit, chunk: slice, spec: InputSpec) -> tuple[Array, Array]:
    """Sum the weights by position and task: of the positives, and of all rows that count."""
    labels, weight = rows.labels[chunk], rows.weight[chunk].astype(np.float64)
    bias = rows.bias[chunk] if spec.bias_rows else np.zeros(len(labels), np.int32)
    count = max(spec.bias_rows, 1)
    positives, totals = np.zeros((2, count, len(spec.tasks)))
    for number, task in enumerate(spec.tasks):
        counts = labels[:, number] >= 0
        if task.given is not None:
            counts &= labels[:, task.given] == 1
        is_positive = counts & (labels[:, number] == 1)
        for column, counted in ((positives, is_positive), (totals, counts)):
            column[:, number] = np.bincount(bias, weight * counted, minlength=count)
    return positives, totals


def _log_odds(rate: Array) -> Array:
    return np.log(rate) - np.log1p(-rate)


def start_at_base_rates(model: Ranker, rates: BaseRates) -> None:
    """Let every head of a new model predict the train rates, by position where there is a bias.

    Args:
        model: A model with first weights.
        rates: Of its train rows.
    """
    for heads in model.all_heads():
        heads.start_at(torch.from_numpy(rates.log_odds_T), torch.from_numpy(rates.log_odds_PT))
