"""A run's scores of a split: what evaluation, prediction and importance all read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hemix.data.batch import Columns, Jagged, RequestBatch
from hemix.data.dataset import Plan, Split
from hemix.data.layout import ranges
from hemix.runs.folder import Run

__all__ = ["BatchChange", "Scored", "permute_feature", "score_split", "without_history"]

Array = npt.NDArray[Any]
BatchChange = Callable[[RequestBatch, int], RequestBatch]
"""Changes a batch before it is scored; gets the batch's number in the plan."""

SCORING_IMPRESSIONS = 4096


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of one batch."""

    impression_index: Array
    """int64 [n]: position of each impression in the split"""
    outputs: dict[str, Array]
    """float64 [n] probabilities by the names of Schema.outputs"""
    global_length: Array
    """int64 [n]: visible events in the global part"""
    realtime_length: Array
    """int64 [n]: visible events in the real-time part"""


@torch.no_grad()
def score_split(
    run: Run,
    split: Split,
    *,
    bias: Literal["logged", "serving"] = "logged",
    plan: Plan | None = None,
    change: BatchChange | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Iterator[Scored]:
    """Score a split batch by batch.

    ``bias``: the logged position, or the one value of serving. Probabilities are those of the full
    log: negative sampling is undone. ``on_progress`` gets the impressions done so far.
    """
    device = run.model.device
    role = run.schema.roles.bias
    run.model.eval()
    done = 0
    for number, batch in enumerate(split.batches(plan or split.plan(SCORING_IMPRESSIONS))):
        if bias == "serving" and role is not None:
            batch = dataclasses.replace(
                batch, bias=torch.full_like(batch.bias, min(role.serve_as, role.max))
            )
        if change is not None:
            batch = change(batch, number)
        outputs = run.model.predict(batch.to(device))
        assert batch.impression_index is not None
        cuts = batch.history_ranges[batch.request_index].numpy()
        done += batch.candidates_count
        yield Scored(
            impression_index=batch.impression_index.numpy(),
            outputs={name: value.double().cpu().numpy() for name, value in outputs.items()},
            global_length=cuts[:, 1] - cuts[:, 0],
            realtime_length=cuts[:, 2] - cuts[:, 1],
        )
        on_progress(done)


def permute_feature(run: Run, level: str, name: str, seed: int) -> BatchChange:
    """A change that shuffles one feature's values (or a statistic's, or the history counts',
    ``history``) among the rows of its level, batch by batch.
    """
    spec = getattr(run.spec, level)
    column = spec.names.index(name) if name in spec.names else None
    jagged_column = spec.jagged_names.index(name) if name in spec.jagged_names else None
    numbers = spec.numbers_of(name)
    field = {"user": "users", "item": "items"}.get(level, level)

    def change(batch: RequestBatch, number: int) -> RequestBatch:
        columns: Columns = getattr(batch, field)
        order = torch.from_numpy(np.random.default_rng([seed, number]).permutation(columns.rows))
        ids, floats, jagged = columns.ids, columns.numbers, list(columns.jagged)
        if column is not None:
            ids = ids.clone()
            ids[:, column] = ids[order, column]
        if numbers:
            floats = floats.clone()
            floats[:, numbers] = floats[order][:, numbers]
        if jagged_column is not None:
            jagged[jagged_column] = _permute_jagged(
                jagged[jagged_column].values, jagged[jagged_column].offsets, order
            )
        changed: dict[str, Any] = {field: Columns(ids=ids, numbers=floats, jagged=tuple(jagged))}
        return dataclasses.replace(batch, **changed)

    return change


def _permute_jagged(values: Tensor, offsets: Tensor, order: Tensor) -> Jagged:
    begin, lengths = offsets[:-1][order], (offsets[1:] - offsets[:-1])[order]
    positions = torch.from_numpy(ranges(begin.numpy(), lengths.numpy()))
    return Jagged(values=values[positions], offsets=torch.cat([offsets[:1], lengths.cumsum(0)]))


def without_history(run: Run, part: Literal["global", "realtime"]) -> BatchChange:
    """A change that hides one part of every history, and with it the counts of its events."""
    counts = run.spec.context.history_numbers(part)

    def change(batch: RequestBatch, _number: int) -> RequestBatch:
        begin, middle, end = batch.history_ranges.unbind(1)
        cuts = (middle, middle, end) if part == "global" else (begin, middle, middle)
        numbers = batch.context.numbers.clone()
        numbers[:, counts] = 0.0
        context = dataclasses.replace(batch.context, numbers=numbers)
        return dataclasses.replace(batch, history_ranges=torch.stack(cuts, dim=1), context=context)

    return change
