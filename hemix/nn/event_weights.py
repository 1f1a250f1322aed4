"""Which events draw the candidates' attention: the explanation of a ranking.

Letters: N candidates, E events, n queries, D token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.nn.history_state import DynamicQueries, HistoryState
from hemix.nn.interests import HistoryInterest
from hemix.nn.slots import HostIndex

__all__ = ["HistoryRead", "strongest_events"]

_WEIGHTS_AT_ONCE = 2**19
"""Events by candidates whose weights are held at once."""


@dataclass(frozen=True, kw_only=True)
class HistoryRead:
    """One history and the candidates' queries that read it."""

    interest: HistoryInterest
    history: HistoryState
    queries: DynamicQueries


def strongest_events(
    reads: Sequence[HistoryRead], batch: RequestBatch, count: int, always_include: int | None
) -> tuple[Tensor, Tensor]:
    """Return the events of most weight: the mean over the queries and heads of all reads.

    Args:
        reads: What is read; the weights of several are averaged by their numbers of queries.
        batch: The request.
        count: How many events.
        always_include: The position of an event that gets a column of its own, the last, with
            weight 0 where it is among the strongest already.

    Returns:
        Positions int64 [N, count], with ``always_include`` [N, count + 1]; -1 for none. Weights of
        the same shape; the first ``count`` fall.
    """
    index, ranges = HostIndex.of_candidates(batch), batch.cpu_batch.history_ranges
    events = int(ranges.max()) if ranges.numel() else 0
    queries = max(1, sum(read.interest.dynamic_count for read in reads))
    device, candidates = batch.request_index.device, batch.candidates_count
    positions, weights = list[Tensor](), list[Tensor]()
    step = max(1, _WEIGHTS_AT_ONCE // (1 + events))
    for first in range(0, max(candidates, 1), step):
        rows = slice(first, min(first + step, candidates))
        total_NE = torch.zeros(rows.stop - rows.start, 1 + events, device=device)
        for read in reads:
            own_NE = read.interest.weights(read.history, read.queries[rows], index[rows], events)
            total_NE = total_NE + own_NE * read.interest.dynamic_count
        top_positions, top_weights = _top(total_NE[:, 1:] / queries, count, always_include)
        positions.append(top_positions)
        weights.append(top_weights)
    return torch.cat(positions), torch.cat(weights)


def _top(weight_NE: Tensor, count: int, always_include: int | None) -> tuple[Tensor, Tensor]:
    """Positions and weights [N, count (+ 1)] of the largest weights."""
    events = weight_NE.shape[1]
    top = weight_NE.topk(min(count, events))
    missing = (0, count - min(count, events))
    weights, positions = F.pad(top.values, missing), F.pad(top.indices, missing)
    if always_include is not None:
        is_among = (top.indices == always_include).any(1, keepdim=True)
        own_weight = weight_NE[:, always_include : always_include + 1].masked_fill(is_among, 0)
        weights = torch.cat([weights, own_weight], 1)
        positions = F.pad(positions, (0, 1), value=always_include)
    return positions.masked_fill(weights <= 0, -1), weights
