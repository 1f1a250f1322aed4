"""Logs replayed against a server: their events as live events, the requests of a split as rank
requests, and what training says of them.

Any store and any way to rank can be held against a run's own predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from hemix.data.dataset import Dataset
from hemix.nn.heads import probabilities
from hemix.runs import Run
from hemix.runs.prediction import predicted_tables
from hemix.schema import Schema
from hemix.serving.stores import Store
from hemix.serving.types import Candidate, Event, RankedItem, Ranking, RankRequest

TOLERANCE = 1e-5

Rank = Callable[[RankRequest], Ranking]


@dataclass(frozen=True)
class LoggedRequest:
    """A request of the log and the rows of the log that are its candidates."""

    request: RankRequest
    log_rows: list[int]


def live_events(logs: Path, schema: Schema) -> list[Event]:
    """The events table as live events, in the order of their times."""
    assert schema.tables.events is not None
    rows = pq.read_table(logs / schema.tables.events).to_pylist()
    clock = schema.history.clock_column or schema.clock.column
    (action,) = schema.event_fields["action"].columns("action")
    own = {schema.user, schema.item, clock, action}
    events = [
        Event(
            id=f"e{i}",
            kind="interaction",
            time_ms=row[clock],
            user=str(row[schema.user]),
            item=str(row[schema.item]),
            action=row[action],
            fields={name: value for name, value in row.items() if name not in own},
            received_ms=row[clock],
        )
        for i, row in enumerate(rows)
    ]
    return sorted(events, key=lambda event: event.time_ms)


def logged_requests(logs: Path, data: Dataset, split: str = "test") -> list[LoggedRequest]:
    """The requests of a split with their raw values, in the order of their times."""
    schema, part = data.schema, data.split(split)
    rows = pq.read_table(logs / schema.tables.impressions).to_pylist()

    def columns(level: str) -> list[str]:
        return [c for n, f in schema.features.level(level).items() for c in f.columns(n)]

    collected = []
    log_row, request_of = part.log_row.read(), part.requests_of(np.arange(part.impressions))
    for q in range(part.requests):
        at = log_row[request_of == q].tolist()
        first = rows[at[0]]
        request = RankRequest(
            id=f"q{q}",
            user=str(first[schema.user]),
            time_ms=int(part.time_ms[np.array([q])][0]),
            context={name: first[name] for name in columns("context")},
            items=tuple(
                Candidate(str(rows[i][schema.item]), {n: rows[i][n] for n in columns("cross")})
                for i in at
            ),
        )
        collected.append(LoggedRequest(request, at))
    return sorted(collected, key=lambda logged: logged.request.time_ms)


def expected_scores(run: Run, data: Dataset, split: str = "test") -> dict[int, dict[str, float]]:
    """Outputs and score of every row of the log, by Run.predict; held against the training forward
    here.
    """
    rows: dict[int, dict[str, float]] = {}
    for table in predicted_tables(run, data, split):
        names = [*run.schema.outputs, "score"]
        columns = {name: table.column(name).to_pylist() for name in names}
        for i, log_row in enumerate(table.column("log_row").to_pylist()):
            rows[log_row] = {name: columns[name][i] for name in names}
    part = data.split(split)
    batch = part.batch(np.arange(part.requests))
    role = run.schema.roles.bias
    if role is not None:
        batch.bias.fill_(min(role.serve_as, role.max))
    with torch.no_grad():
        forward = probabilities(run.model(batch), run.spec)
    log_row = part.log_row[batch.impression_index.numpy()].tolist()
    for name, values in forward.items():
        assert np.allclose([rows[i][name] for i in log_row], values.numpy(), atol=TOLERANCE)
    return rows


def replayed(
    store: Store, events: Sequence[Event], requests: Sequence[LoggedRequest]
) -> Iterator[LoggedRequest]:
    """The requests in their order; before each, the store gets what happened before it.

    One event is late: it comes with the next.
    """
    done = 0
    for one in requests:
        until = done
        while until < len(events) and events[until].time_ms < one.request.time_ms:
            until += 1
        if until > done:
            store.append(events[done:until])
        done = until
        yield one


def assert_same(
    ranking: Ranking, logged: LoggedRequest, expected: dict[int, dict[str, float]]
) -> None:
    """Every candidate's outputs and score, and the order."""
    assert ranking.id == logged.request.id and ranking.degraded == ()
    by_item: dict[str, list[RankedItem]] = {}
    for item in ranking.items:
        by_item.setdefault(item.id, []).append(item)
    for candidate, row in zip(logged.request.items, logged.log_rows, strict=True):
        ours = [values_of(item) for item in by_item[candidate.id]]
        theirs = expected[row]
        assert any(
            all(
                np.isclose(one[name], theirs[name], rtol=0, atol=TOLERANCE, equal_nan=True)
                for name in theirs
            )
            for one in ours
        ), (logged.request.id, candidate.id, ours, theirs)
    scores = [item.score for item in ranking.items if not np.isnan(item.score)]
    assert scores == sorted(scores, reverse=True)
    assert len(ranking.items) == len(logged.request.items)


def values_of(item: RankedItem) -> dict[str, Any]:
    """Outputs and score."""
    return {**item.outputs, "score": item.score}
