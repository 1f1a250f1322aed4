"""Trivial rules beside a model, learned from the train split of a dataset alone.

``popularity`` is the item's smoothed rate, ``position`` that of the logged position, and
``touched_before`` a logistic regression on the matches of the user's history and the position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from hemix.data.batch import RequestBatch
from hemix.data.dataset import Dataset
from hemix.data.layout import load_array
from hemix.data.sampler import RequestSampler
from hemix.data.spec import InputSpec
from hemix.features.match_counts import MATCH_AGE, MATCH_COUNTS
from hemix.runs.sampling import full_log_weights

__all__ = ["TouchedBefore", "item_values", "popularity", "position_rates"]

Array = npt.NDArray[Any]

_SMOOTHING_IMPRESSIONS = 20.0
"""Rates are smoothed by this many impressions of the average rate."""
_FIT_IMPRESSIONS = 100_000
"""Train impressions that the logistic regression is fitted on, drawn by request."""
_BATCH_IMPRESSIONS = 4096
_PENALTY = 1e-4
"""Of the squared coefficients of standardised inputs, against the mean log loss."""
_WINDOWS = ("realtime", "all")


def item_values(values: Array, item: Array) -> Array:
    """Look up values of items.

    Args:
        values: By the item's number.
        item: int [n] numbers; -1 for an unknown item.

    Returns:
        [n], zeros for unknown items.
    """
    selected = values[np.maximum(item, 0)]
    selected[item < 0] = 0
    return selected


def popularity(data: Dataset, item: Array) -> Array:
    """Look up the smoothed train rates of items in the full log.

    Args:
        data: The dataset.
        item: int [n] numbers of items; -1 for an unknown one.

    Returns:
        float64 [n, tasks].
    """
    shown = load_array(data.folder / "items" / "train_known.npy")
    positives = load_array(data.folder / "items" / "train_positives.npy")
    mean = positives.sum(0) / np.maximum(shown.sum(0), 1.0)
    rate: Array = (item_values(positives, item) + _SMOOTHING_IMPRESSIONS * mean) / (
        item_values(shown, item) + _SMOOTHING_IMPRESSIONS
    )
    shift = data.spec.logit_shift[0]
    if shift:
        # every other task is given the first one, so sampling changes all by the same factor
        first = special.expit(special.logit(rate[:, 0]) + shift)
        rate *= np.divide(first, rate[:, 0], out=np.ones(len(rate)), where=rate[:, 0] > 0)[:, None]
    return rate


def position_rates(data: Dataset) -> Array | None:
    """Compute the smoothed train rate of every value of the bias column.

    Args:
        data: The dataset.

    Returns:
        float64 [bias rows, tasks]; None without a bias column.
    """
    if not data.spec.bias_rows:
        return None
    train = data.split("train")
    labels, bias = train.labels.read(), train.bias.read()
    weights = full_log_weights(data.spec, labels, train.weight.read().astype(np.float64))
    rates = np.empty((data.spec.bias_rows, labels.shape[1]))
    for task in range(labels.shape[1]):
        known, positive = labels[:, task] >= 0, labels[:, task] == 1
        shown, positives = (
            np.bincount(bias, weights=weights * rows, minlength=data.spec.bias_rows)
            for rows in (known, positive)
        )
        mean = positives.sum() / max(shown.sum(), 1.0)
        rates[:, task] = (positives + _SMOOTHING_IMPRESSIONS * mean) / (
            shown + _SMOOTHING_IMPRESSIONS
        )
    return rates


@dataclass(frozen=True, kw_only=True)
class TouchedBefore:
    """A logistic regression on matches of the history and the position.

    Inputs are, for every match column, log1p of the matches today and of all, and the age of the
    last one; and the log-odds of the position.
    """

    columns: tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]
    """Cross numbers: those that an input adds up, and those that are inputs"""
    position_logit: Array | None
    """[bias rows]; None without a bias column"""
    centre: Array
    """[inputs]"""
    scale: Array
    """[inputs]"""
    coefficients: Array
    """[tasks, inputs + 1], the constant last"""

    @classmethod
    def fit(cls, data: Dataset, rates: Array | None) -> TouchedBefore | None:
        """Fit the rule on train.

        Args:
            data: The dataset.
            rates: Of :func:`position_rates`.

        Returns:
            The rule; None for a dataset without match counts.
        """
        columns = _match_columns(data.spec.cross.number_names)
        if not columns[0]:
            return None
        logit = None if rates is None else special.logit(np.clip(rates[:, 0], 1e-6, 1 - 1e-6))
        batches = [
            (_inputs(batch, columns, logit), *_targets(batch, data.spec))
            for batch in _train_batches(data)
        ]
        inputs, labels, weights = (np.concatenate(part) for part in zip(*batches, strict=True))
        centre, scale = inputs.mean(0), inputs.std(0)
        scale[scale == 0] = 1.0
        standard = (inputs - centre) / scale
        coefficients = [
            _fit_logistic(standard, labels[:, task], weights[:, task])
            for task in range(labels.shape[1])
        ]
        return cls(
            columns=columns,
            position_logit=logit,
            centre=centre,
            scale=scale,
            coefficients=np.stack(coefficients),
        )

    def predict(self, batch: RequestBatch) -> Array:
        """Compute the probabilities of all tasks, float64 [N, tasks]."""
        inputs = _inputs(batch, self.columns, self.position_logit)
        standard = (inputs - self.centre) / self.scale
        logits = standard @ self.coefficients[:, :-1].T + self.coefficients[:, -1]
        probabilities: Array = special.expit(logits)
        return probabilities


def _match_columns(names: tuple[str, ...]) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Find the counts of every match column and window, and the ages."""
    counts: dict[tuple[str, str], list[int]] = {}
    ages = []
    for number, name in enumerate(names):
        kind, _, rest = name.partition(".")
        if kind == MATCH_COUNTS:
            column, _, window = rest.split(".")
            if window in _WINDOWS:
                counts.setdefault((column, window), []).append(number)
        elif kind == MATCH_AGE:
            ages.append(number)
    return tuple(tuple(group) for group in counts.values()), tuple(ages)


def _train_batches(data: Dataset) -> Iterator[RequestBatch]:
    train = data.split("train")
    sampler = RequestSampler(train, batch_size=_BATCH_IMPRESSIONS)
    steps = min(sampler.steps, -(-_FIT_IMPRESSIONS // _BATCH_IMPRESSIONS))
    for batch in train.batches(sampler, steps=range(steps)):
        if batch.candidates_count:
            yield batch


def _inputs(
    batch: RequestBatch,
    columns: tuple[tuple[tuple[int, ...], ...], tuple[int, ...]],
    position_logit: Array | None,
) -> Array:
    numbers = batch.cross.numbers.numpy().astype(np.float64)
    groups, ages = columns
    parts = [np.log1p(np.expm1(numbers[:, list(group)]).sum(1)) for group in groups]
    parts += [numbers[:, number] for number in ages]
    if position_logit is not None:
        parts.append(position_logit[batch.bias.numpy()])
    return np.stack(parts, axis=1)


def _targets(batch: RequestBatch, spec: InputSpec) -> tuple[Array, Array]:
    """Labels and weights of a train batch, both [N, tasks]."""
    assert batch.labels is not None
    assert batch.weights is not None
    labels = batch.labels.numpy().astype(np.float64)
    weights = batch.weights.numpy().astype(np.float64)
    return labels, full_log_weights(spec, labels, np.ones(len(labels)))[:, None] * weights


def _fit_logistic(inputs: Array, labels: Array, weights: Array) -> Array:
    """Minimise the mean log loss: coefficients [inputs + 1], the constant last."""
    total = weights.sum()
    start = np.zeros(inputs.shape[1] + 1)
    rate = (weights @ labels + 0.5) / (total + 1.0)
    start[-1] = special.logit(rate)
    if not 0 < weights @ labels < total:
        return start

    def loss(coefficients: Array) -> tuple[float, Array]:
        logits = inputs @ coefficients[:-1] + coefficients[-1]
        residual = weights * (special.expit(logits) - labels) / total
        value = weights @ (np.logaddexp(0.0, logits) - labels * logits) / total
        gradient = np.append(inputs.T @ residual, residual.sum())
        gradient[:-1] += 2 * _PENALTY * coefficients[:-1]
        return float(value + _PENALTY * (coefficients[:-1] ** 2).sum()), gradient

    result: Array = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    return result
