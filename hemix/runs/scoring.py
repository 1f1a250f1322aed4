"""Scores of a split by a run: the input of evaluation, prediction and permutation importance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.masking import NO_MASKING, Masking
from hemix.data.replacement import Replacement
from hemix.data.sampler import Sampler, SequentialSampler
from hemix.data.split import HistoryPart, Split
from hemix.runs.folder import Run, ScoredPosition

__all__ = [
    "SCORING_IMPRESSIONS",
    "UNCHANGED",
    "BatchChange",
    "InputChange",
    "ScoredBatch",
    "permute_feature",
    "score_split",
]

Array = npt.NDArray[Any]
BatchChange = Callable[[RequestBatch, int], RequestBatch]
"""``change(batch, number)``: the batch to score in place of batch ``number``."""

SCORING_IMPRESSIONS = 4096
"""Impressions a batch."""


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """The scores of one batch."""

    impression_index: Array
    """int64 [n]: position of each impression in the split."""
    outputs: dict[str, Array]
    """float64 [n] probabilities by the names of Schema.outputs."""
    global_length: Array
    """int64 [n]: visible events of the global history."""
    realtime_length: Array
    """int64 [n]: visible events of the real-time history."""
    batch: RequestBatch
    """What was scored."""


@dataclass(frozen=True, kw_only=True)
class InputChange:
    """What a model sees in place of the split's own inputs."""

    batches: BatchChange | None = None
    """Applied to every batch before it is scored."""
    hidden: HistoryPart | None = None
    """The part of every history that is hidden."""
    masking: Masking = NO_MASKING
    """Which users and items are scored as unknown ones."""


UNCHANGED = InputChange()


@torch.no_grad()
def score_split(
    run: Run,
    split: Split,
    *,
    position: ScoredPosition = "logged",
    sampler: Sampler | None = None,
    steps: int | None = None,
    change: InputChange = UNCHANGED,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Iterator[ScoredBatch]:
    """Score a split batch by batch.

    Probabilities are those of the full log: negative sampling is undone.

    Args:
        run: The model and its schema.
        split: Of a dataset with the run's schema.
        position: The logged position of every impression, or the one that a server uses for all.
        sampler: The batches; by default all impressions in order.
        steps: How many batches; by default all.
        change: What the model sees in place of the inputs.
        on_progress: Called with the number of impressions that are scored.

    Yields:
        The scores of every batch.
    """
    device = run.model.device
    role = run.schema.roles.bias
    run.model.eval()
    done = 0
    sampler = sampler or SequentialSampler(split, SCORING_IMPRESSIONS)
    batches = split.batches(
        sampler,
        steps=range(sampler.steps if steps is None else steps),
        replacement=Replacement(masking=change.masking, seed=(0,)),
        hidden=change.hidden,
    )
    for number, batch in enumerate(batches):
        if not batch.candidates_count:
            continue
        if position == "serving" and role is not None:
            batch = dataclasses.replace(
                batch, bias=torch.full_like(batch.bias, min(role.serve_as, role.max))
            )
        if change.batches is not None:
            batch = change.batches(batch, number)
        outputs = run.model.predict(batch.to(device))
        assert batch.impression_index is not None
        history_ranges = batch.history_ranges[batch.request_index].numpy()
        done += batch.candidates_count
        yield ScoredBatch(
            impression_index=batch.impression_index.numpy(),
            outputs={name: value.double().cpu().numpy() for name, value in outputs.items()},
            global_length=history_ranges[:, 1] - history_ranges[:, 0],
            realtime_length=history_ranges[:, 2] - history_ranges[:, 1],
            batch=batch,
        )
        on_progress(done)


def permute_feature(run: Run, level: str, name: str, seed: int) -> BatchChange:
    """Make a change that permutes one feature's values among the rows of its level, by batch.

    Args:
        run: Whose inputs are changed.
        level: ``user``, ``item``, ``context`` or ``cross``.
        name: A feature, a statistic, ``history`` for the history counts, or
            ``match_counts``, ``match_last``, ``match_age`` or
                ``match_totals``.
        seed: Of the permutations, together with the batch's number.

    Returns:
        The change.
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
            jagged[jagged_column] = jagged[jagged_column].select(order)
        changed: dict[str, Any] = {field: Columns(ids=ids, numbers=floats, jagged=tuple(jagged))}
        return dataclasses.replace(batch, **changed)

    return change
