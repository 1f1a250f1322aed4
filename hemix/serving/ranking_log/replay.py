"""Replay of logged rankings: they are ranked again with the histories of their time.

A replay needs the log only; for events that the log lacks (a backfill, another server) it reads the
store. It proves that the logged scores are those that the run computes now.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemix.schema import Schema
from hemix.serving.engine import Engine
from hemix.serving.ranking_log.files import ranking_files, read_table
from hemix.serving.ranking_log.logged_events import Arrival, LoggedEvents, history_at
from hemix.serving.ranking_log.tables import LogTables
from hemix.serving.store_reader import StoreSnapshot
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.types import Candidate, Event, LiveFeatures, Ranking, RankRequest, StoredHistory

__all__ = ["ReplayedRanking", "replay", "replay_log"]


@dataclass(frozen=True, kw_only=True)
class ReplayedRanking:
    """A logged ranking and its replay."""

    id: str
    model: str
    version: str
    logged_scores: dict[int, float]
    """Scores by the candidate's index in the request; NaN without one."""
    replayed_scores: dict[int, float]
    history_ranges: tuple[int, int, int]
    """As logged."""
    ranking: Ranking
    """The replay."""
    complete: bool = True
    """Whether the whole history could be rebuilt; if not, scores cannot be compared."""

    @property
    def difference(self) -> float:
        """Largest absolute difference of a score; infinite where one side has none."""
        return max(
            _difference(self.logged_scores[i], self.replayed_scores[i]) for i in self.logged_scores
        )


def _difference(logged: float, replayed: float) -> float:
    if math.isnan(logged) or math.isnan(replayed):
        return 0.0 if math.isnan(logged) and math.isnan(replayed) else math.inf
    return abs(logged - replayed)


def replay(
    folder: str | Path, engine: Engine, store: Store | None = None
) -> Iterator[ReplayedRanking]:
    """Replay the rankings of a log folder that the engine's model and version served.

    Args:
        folder: A log folder.
        engine: The engine of the served run.
        store: Source of the events; None: the log and its sibling logs.

    Raises:
        DataError: A file cannot be read.
    """
    folder, schema = Path(folder), engine.schema
    histories = _Histories(
        engine, store, None if store is not None else LoggedEvents(folder, schema)
    )
    request_id = LogTables(schema).request_id
    for path in sorted((folder / "rankings").glob("*.parquet")):
        rankings: dict[str, list[dict[str, Any]]] = {}
        for row in read_table(path).to_pylist():
            if (row["served_model"], row["served_version"]) == (engine.name, engine.version):
                rankings.setdefault(row[request_id], []).append(row)
        histories.load(rows[0][schema.user] for rows in rankings.values())
        for rows in rankings.values():
            events, complete = histories.of(rows[0])
            yield _replay(rows, engine, events, complete=complete)


class _Histories:
    """Histories of logged rankings, from the store or from the log."""

    def __init__(self, engine: Engine, store: Store | None, logged: LoggedEvents | None) -> None:
        self._user, self._limit = engine.schema.user, engine.history_limit
        self._store, self._logged = store, logged
        self._arrivals: dict[str, list[Arrival]] = {}

    def load(self, users: Iterator[str]) -> None:
        """Read the events of these users, where they come from the log."""
        if self._logged is not None:
            self._arrivals = self._logged.of(set(users))

    def of(self, row: dict[str, Any]) -> tuple[list[Event], bool]:
        """Return the events that a ranking read, and whether they are complete."""
        user, revision = row[self._user], row["served_history_revision"]
        if not revision:
            return [], True
        if self._store is not None:
            arrivals = self._store.arrivals(user, until=revision)
            history = sorted(arrivals, key=lambda event: event.time_ms)  # stable
        else:
            cap, ttl_ms = row.get("served_history_cap"), row.get("served_history_ttl_ms")
            rebuilt = history_at(self._arrivals[user], revision, cap=cap, ttl_ms=ttl_ms)
            if rebuilt is None:
                return [], False
            history = rebuilt
        events = history[-self._limit :]
        return events, row.get("served_history_events", len(events)) == len(events)


def replay_log(folder: Path, run: Path, url: str | None = None) -> dict[str, Any]:
    """Replay a log folder and compare the scores.

    Args:
        folder: A log folder.
        run: Folder of the served run.
        url: URL of the store with the events; None: the log's events.

    Returns:
        Counts, the largest difference of a score and the id of its ranking. Rankings with
        incomplete histories are counted and not compared.

    Raises:
        DataError: The folder has no rankings.
        RunError: The run cannot be loaded.
        StoreError: The store cannot be read.
    """
    first = read_table(ranking_files(folder)[0]).to_pylist()[0]
    store = open_store(url or "memory://", StoreLimits(ttl_ms=None, item_ttl_ms=None))
    try:
        engine = Engine(run, store, name=first["served_model"], version=first["served_version"])
        rankings = candidates = one_sided = incomplete = 0
        largest, farthest = 0.0, None
        for replayed in replay(folder, engine, None if url is None else store):
            rankings += 1
            candidates += len(replayed.logged_scores)
            if not replayed.complete:
                incomplete += 1
                continue
            difference = replayed.difference
            one_sided += math.isinf(difference)
            if largest <= difference < math.inf:
                largest, farthest = difference, replayed.id
        engine.close()
    finally:
        store.close()
    return {
        "rankings": rankings,
        "candidates": candidates,
        "max_abs_difference": largest,
        "farthest": farthest,
        "with_scores_on_one_side_only": one_sided,
        "with_incomplete_histories": incomplete,
    }


def _replay(
    rows: list[dict[str, Any]], engine: Engine, events: list[Event], *, complete: bool
) -> ReplayedRanking:
    first, schema = rows[0], engine.schema
    items = {
        row[schema.item]: _features(row["served_item_features"])
        for row in rows
        if row["served_item_features"] is not None
    }
    history_items = json.loads(first["served_history_item_features"] or "{}")
    items |= {item: _to_features(content) for item, content in history_items.items()}
    snapshot = StoreSnapshot(
        history=StoredHistory(first["served_history_revision"], tuple(events)),
        user=_features(first["served_user_features"]),
        items=items,
        degraded=tuple(first["served_degraded"]),
    )
    in_request_order = sorted(rows, key=lambda row: int(row["served_request_index"]))
    request = RankRequest(
        id=first["served_ranking"],
        user=first[schema.user],
        time_ms=round(first[schema.clock.column].timestamp() * 1000),
        context={name: first[name] for name in _columns(schema, "context")},
        items=tuple(Candidate(row[schema.item], _fields(row, schema)) for row in in_request_order),
    )
    ranking = engine.rank_snapshot(request, snapshot)
    return ReplayedRanking(
        id=first["served_ranking"],
        model=first["served_model"],
        version=first["served_version"],
        logged_scores={
            int(row["served_request_index"]): _score(row["served_score"]) for row in rows
        },
        replayed_scores={item.position: item.score for item in ranking.items},
        history_ranges=tuple(first["served_history_ranges"]),
        ranking=ranking,
        complete=complete,
    )


def _score(logged: float | None) -> float:
    """Return NaN without a score, for which older logs have null or infinity."""
    return logged if logged is not None and math.isfinite(logged) else math.nan


def _columns(schema: Schema, level: str) -> list[str]:
    return [
        column
        for name, feature in schema.features.level(level).items()
        for column in feature.columns(name)
    ]


def _fields(row: dict[str, Any], schema: Schema) -> dict[str, Any]:
    other_fields = json.loads(row["served_fields"] or "{}")
    return {**{name: row[name] for name in _columns(schema, "cross")}, **other_fields}


def _features(text: str | None) -> LiveFeatures:
    return LiveFeatures() if text is None else _to_features(json.loads(text))


def _to_features(content: dict[str, Any]) -> LiveFeatures:
    return LiveFeatures(1, content["values"], content["since_ms"])
