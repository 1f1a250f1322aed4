"""The engine: ranks requests with a run and a store.

A ranking reads the store, takes the user's state from the cache or computes it, encodes the
request, scores and sorts. History ranges, ages and fixed-query interests depend on the request's
time and are computed for every request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hemix.runs import Run
from hemix.runs.device import choose_device
from hemix.serving.config import ServeConfig
from hemix.serving.field_validation import FieldValidator, check_history
from hemix.serving.ranking_log import RankingLog
from hemix.serving.ranking_log.tables import LoggedRanking
from hemix.serving.request_encoder import RequestEncoder
from hemix.serving.scorer import EncodedRanking, ItemRanker, RequestScores, Scorer
from hemix.serving.store_reader import StoreReader, StoreSnapshot
from hemix.serving.stores import Store
from hemix.serving.types import CacheOutcome, Candidate, Ranking, RankRequest
from hemix.serving.user_cache import UserStateCache
from hemix.serving.user_states import UserLookup, UserStates

__all__ = ["Engine"]

_WARM_UP_ITEMS, _WARM_UP_RUNS = 50, 2


@dataclass(frozen=True, kw_only=True)
class _PreparedRequest(EncodedRanking):
    """An encoded request with the inputs of its log entry."""

    snapshot: StoreSnapshot
    cache: CacheOutcome
    started: float
    """Value of ``time.perf_counter`` at the start."""
    stages_ms: dict[str, float]


class Engine:
    """Ranks for many threads. Call :meth:`close` when done; the caller closes the store."""

    def __init__(
        self,
        run: Run | str | Path,
        store: Store,
        config: ServeConfig | None = None,
        *,
        name: str = "model",
        version: str = "1",
        log: RankingLog | None = None,
        dynamic_batching: bool = False,
    ) -> None:
        """Load a run for serving.

        Args:
            run: A run, or its folder.
            store: The store of live events.
            config: Device, precision, cache and time-outs; None: the defaults.
            name: Name of the model in rankings and logs.
            version: Version of the model in rankings and logs.
            log: Logs rankings; None: they are not logged.
            dynamic_batching: Score small requests of several threads together, and divide large
                ones, on ``config.scoring_workers`` threads; otherwise every thread scores its own.

        Raises:
            RunError: The run cannot be served.
            DataError: Its features cannot be read.
            SettingsError: The device cannot be used.
        """
        config = config or ServeConfig()
        device = choose_device(config.device)
        self.run = run if isinstance(run, Run) else Run.load(run, config.device)
        self.run.model.to(device).eval()
        self.name, self.version, self.schema = name, version, self.run.schema
        self._encoder = RequestEncoder(
            self.run.encoders(),
            self.run.statistics(),
            self.run.entities("user"),
            self.run.entities("item"),
            FieldValidator(self.schema),
        )
        self.history_limit = self._encoder.limit
        self.cache = UserStateCache(config.cache_bytes)
        self.reader = StoreReader(store, limit=self.history_limit, timeout_s=config.store_timeout)
        slots = config.scoring_workers if dynamic_batching else None
        self._scorer = Scorer(self.run, device, config.precision, slots)
        self._item_ranker = ItemRanker(self.run)
        self._users = UserStates(
            self.run, self._encoder, self.reader, self.cache, device, self._scorer.autocast
        )
        self._log = log

    @torch.inference_mode()
    def rank(
        self, requests: Sequence[RankRequest], check: Callable[[Ranking], None] | None = None
    ) -> list[Ranking]:
        """Rank requests. No output is NaN or infinite.

        Args:
            requests: The requests.
            check: Called with each ranking; no ranking is logged where it raises.

        Returns:
            A ranking for every request, in their order.

        Raises:
            RequestError: A value cannot be used, or the model gives no finite output for an item.
        """
        prepared = [self._prepare(request) for request in requests]
        scores = self._scorer.score(prepared) if prepared else []
        rankings = [
            self._ranking(request, of_request)
            for request, of_request in zip(prepared, scores, strict=True)
        ]
        if check is not None:
            for ranking in rankings:
                check(ranking)
        if self._log is not None:
            for request, ranking in zip(prepared, rankings, strict=True):
                self._log.log_ranking(
                    LoggedRanking(
                        request=request.side.request,
                        ranking=ranking,
                        user=request.snapshot.user,
                        items=request.snapshot.items,
                        events=request.user.side.events,
                    )
                )
        return rankings

    @torch.inference_mode()
    def rank_snapshot(self, request: RankRequest, snapshot: StoreSnapshot) -> Ranking:
        """Rank with a given snapshot instead of the store, without cache and log.

        Args:
            request: The request.
            snapshot: What the store would return.

        Raises:
            RequestError: A value cannot be used.
        """
        prepared = self._prepare(request, snapshot)
        [scores] = self._scorer.score_batch([prepared])
        return self._ranking(prepared, scores)

    def warm_up(self) -> None:
        """Rank made-up items for a made-up user, so that the first real request is fast."""
        items = tuple(Candidate(f"warm-up-{i}") for i in range(_WARM_UP_ITEMS))
        request = RankRequest(
            id="warm-up", user="warm-up", time_ms=int(time.time() * 1000), items=items
        )
        for _ in range(_WARM_UP_RUNS):
            self.rank_snapshot(request, StoreSnapshot())

    def close(self) -> None:
        """Release threads, states and the model; a second close does nothing."""
        self.reader.close()
        self.cache.clear()
        self._scorer.close()
        if hasattr(self, "run"):
            del self.run, self._users

    def _prepare(
        self, request: RankRequest, snapshot: StoreSnapshot | None = None
    ) -> _PreparedRequest:
        check_history(request)
        started = time.perf_counter()
        if snapshot is None:
            lookup = self._users.look_up(request)
        else:
            lookup = UserLookup(self._users.compute(request, snapshot), snapshot, "miss", {})
        looked_up = time.perf_counter()
        side = self._encoder.request_side(request, lookup.user.side, lookup.snapshot.items)
        encoded_at = time.perf_counter()
        return _PreparedRequest(
            user=lookup.user,
            side=side,
            snapshot=lookup.snapshot,
            cache=lookup.cache,
            started=started,
            encoded_at=encoded_at,
            stages_ms={**lookup.stages_ms, "encode": (encoded_at - looked_up) * 1000},
        )

    def _ranking(self, prepared: _PreparedRequest, scores: RequestScores) -> Ranking:
        user = prepared.user
        begin, middle, end = prepared.side.history_ranges[0].tolist()
        return Ranking(
            id=prepared.side.request.id,
            model=self.name,
            version=self.version,
            items=self._item_ranker.rank(prepared.side, scores),
            degraded=self._degraded(prepared, end),
            took_ms=(time.perf_counter() - prepared.started) * 1000,
            history_revision=user.history_revision,
            history_ranges=(begin, middle, end),
            stages_ms={**prepared.stages_ms, **scores.stages_ms},
            cache=prepared.cache,
            user_known=user.side.row >= 0 or user.user_revision > 0,
            newest_event_ms=int(user.side.time_ms[end - 1]) if end > begin else None,
        )

    def _degraded(self, prepared: _PreparedRequest, end: int) -> tuple[str, ...]:
        """Return what the ranking lacked.

        Args:
            prepared: The request.
            end: Number of events before the request.
        """
        missing = prepared.snapshot.degraded
        if prepared.side.request.history is not None:  # it replaces the store's history
            return tuple(name for name in missing if name != "history")
        earlier_events_missing = (
            prepared.user.side.events >= self.history_limit and end < self._encoder.most
        )
        # in a replay the log has named it already
        if earlier_events_missing and "early_history" not in missing:
            missing += ("early_history",)
        return missing
