"""Served rankings made again: from their rows, and from the events as they had arrived when each
was ranked.

The proof that what was served is what would be computed now, with nothing of the server's state but
its log, or (for events that the log lacks: a backfill, another server's) its log and its store.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hemix.errors import DataError
from hemix.schema import Schema
from hemix.serving.engine import Engine, EngineConfig
from hemix.serving.reading import Found
from hemix.serving.served.arrivals import LoggedArrivals, history_at
from hemix.serving.served.columns import ServedColumns
from hemix.serving.served.files import read_log_table
from hemix.serving.stores import Store, StoreLimits, open_store
from hemix.serving.types import Candidate, Event, Features, History, Ranking, RankRequest

__all__ = ["Replayed", "replay", "replay_log"]

_PATTERN = "*.parquet"


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A ranking as it was served and as it is made again."""

    id: str
    model: str
    version: str
    served: dict[int, float]
    """Scores by the candidate's position in the request; NaN where it has none"""
    again: dict[int, float]
    history_ranges: tuple[int, int, int]
    """As served"""
    ranking: Ranking
    """Made again"""
    complete: bool = True
    """Whether its history could be rebuilt; else it is made again with what was found, and the
    difference says nothing
    """

    @property
    def difference(self) -> float:
        """The largest, over candidates; a score that is missing on one side only is infinitely
        far.
        """
        pairs = [(self.served[i], self.again[i]) for i in self.served]
        return max(
            math.inf if math.isnan(a) != math.isnan(b) else 0.0 if math.isnan(a) else abs(a - b)
            for a, b in pairs
        )


def replay(folder: str | Path, engine: Engine, store: Store | None = None) -> Iterator[Replayed]:
    """Every ranking of a log folder that ``engine``'s model and version served, its history up to
    the revision that it noted: from the events logged there and in the folders beside it, or from
    what a ``store`` still keeps. Raises DataError naming a file that cannot be read.
    """
    schema = engine.schema
    logged = LoggedArrivals(Path(folder), schema) if store is None else None
    for path in sorted((Path(folder) / "rankings").glob(_PATTERN)):
        rows = _read(path)
        request_id = ServedColumns(schema).request_id
        grouped: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if (row["served_model"], row["served_version"]) == (engine.name, engine.version):
                grouped.setdefault(row[request_id], []).append(row)
        arrived = (
            logged.of({group[0][schema.user] for group in grouped.values()})
            if logged is not None
            else {}
        )
        for group in grouped.values():
            first, limit = group[0], engine.history_limit
            revision, user = first["served_history_revision"], first[schema.user]
            if not revision:
                yield _replayed(group, engine, [], complete=True)
            elif store is not None:
                events = sorted(
                    store.arrivals(user, until=revision), key=lambda event: event.time_ms
                )  # stable
                yield _replayed(
                    group,
                    engine,
                    events[-limit:],
                    complete=_as_many(first, min(limit, len(events))),
                )
            else:
                cap, ttl_ms = first.get("served_history_cap"), first.get("served_history_ttl_ms")
                found = history_at(arrived[user], revision, cap=cap, ttl_ms=ttl_ms)
                events = (found or [])[-limit:]
                yield _replayed(
                    group,
                    engine,
                    events,
                    complete=found is not None and _as_many(first, len(events)),
                )


def _as_many(row: dict[str, Any], events: int) -> bool:
    """Whether a ranking read so many events."""
    return bool(row.get("served_history_events", events) == events)


def replay_log(folder: Path, run: Path, url: str | None = None) -> dict[str, Any]:
    """Replay a log folder with a run, by its events or by the store at ``url``: counts, the largest
    difference of scores and the ranking that has it. Rankings whose history could not be rebuilt
    are counted and not compared.

    Raises DataError where the folder holds no rankings, and what run and store raise.
    """
    first = next(iter(sorted((folder / "rankings").glob(_PATTERN))), None)
    if first is None:
        raise DataError(
            f"{folder}: no rankings: expected rankings/*.parquet, as hemix serve --log writes them"
        )
    named = _read(first)[0]
    store = open_store(url or "memory://", StoreLimits(ttl_ms=None, item_ttl_ms=None))
    try:
        engine = Engine(
            run, store, EngineConfig(name=named["served_model"], version=named["served_version"])
        )
        rankings = candidates = one_sided = incomplete = 0
        worst, farthest = 0.0, None
        for one in replay(folder, engine, None if url is None else store):
            rankings, candidates = rankings + 1, candidates + len(one.served)
            if not one.complete:
                incomplete += 1
                continue
            one_sided += math.isinf(one.difference)
            if worst <= one.difference < math.inf:
                worst, farthest = one.difference, one.id
        engine.close()
    finally:
        store.close()
    return {
        "rankings": rankings,
        "candidates": candidates,
        "max_abs_difference": worst,
        "farthest": farthest,
        "with_scores_on_one_side_only": one_sided,
        "with_incomplete_histories": incomplete,
    }


def _read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_log_table(path).to_pylist()
    return rows


def _replayed(
    rows: list[dict[str, Any]], engine: Engine, events: list[Event], *, complete: bool
) -> Replayed:
    first, schema = rows[0], engine.schema
    user = first[schema.user]
    degraded = tuple(first["served_degraded"])
    items = {
        row[schema.item]: _features(row["served_of_item"])
        for row in rows
        if row["served_of_item"] is not None
    }
    items |= {
        item: _features(json.dumps(said))
        for item, said in json.loads(first["served_of_items"] or "{}").items()
    }
    found = Found(
        history=History(first["served_history_revision"], tuple(events)),
        user=_features(first["served_of_user"]),
        items=items,
        degraded=degraded,
    )
    in_order = sorted(rows, key=lambda row: int(row["served_candidate"]))
    request = RankRequest(
        id=first["served_ranking"],
        user=user,
        time_ms=round(first[schema.clock.column].timestamp() * 1000),
        context={name: first[name] for name in _columns(schema, "context")},
        items=tuple(Candidate(row[schema.item], _fields(row, schema)) for row in in_order),
    )
    ranking = engine.rank_found(request, found)
    return Replayed(
        id=first["served_ranking"],
        model=first["served_model"],
        version=first["served_version"],
        served={int(row["served_candidate"]): _score(row["served_score"]) for row in rows},
        again={item.position: item.score for item in ranking.items},
        history_ranges=tuple(first["served_cuts"]),
        ranking=ranking,
        complete=complete,
    )


def _score(logged: float | None) -> float:
    """NaN where there is none; older logs hold infinity there."""
    return logged if logged is not None and math.isfinite(logged) else math.nan


def _columns(schema: Schema, level: str) -> list[str]:
    return [c for n, f in schema.features.level(level).items() for c in f.columns(n)]


def _fields(row: dict[str, Any], schema: Schema) -> dict[str, Any]:
    return {
        **{name: row[name] for name in _columns(schema, "cross")},
        **json.loads(row["served_fields"] or "{}"),
    }


def _features(text: str | None) -> Features:
    if text is None:
        return Features()
    said = json.loads(text)
    return Features(1, said["values"], said["since_ms"])
