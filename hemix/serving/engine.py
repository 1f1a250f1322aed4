"""A run and a store in, ranked candidates out. No HTTP.

A ranking is: read the store, take the user's state from the cache or make it, encode the request,
score, sort. The state is free of the request's time; cuts, ages and fixed interests are made anew
each time, by the model's second step. Requests that are ranked together are scored together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hemix.errors import RequestError, SettingsError
from hemix.nn.heads import probabilities
from hemix.nn.inputs import Inputs
from hemix.runs import Run
from hemix.serving.batch import request_batch
from hemix.serving.cache import Kept, StateCache
from hemix.serving.checks import FieldChecks
from hemix.serving.explain import because
from hemix.serving.features import Encoder, RequestSide, check_history
from hemix.serving.joint import Joint
from hemix.serving.reading import Found, Reader
from hemix.serving.served import ServedLog
from hemix.serving.served.columns import Served
from hemix.serving.states import UserStates
from hemix.serving.stores import Store
from hemix.serving.types import (
    Attribution,
    CacheOutcome,
    Candidate,
    RankedItem,
    Ranking,
    RankRequest,
    Status,
)

__all__ = ["Engine", "EngineConfig"]

Array = npt.NDArray[Any]
Precision = Literal["fp32", "bf16"]

_WARM_UP_ITEMS = 50
_JOINED_CANDIDATES = 256
"""Requests are joined up to so many candidates: on a CPU more are not scored faster together."""
_PART_CANDIDATES = 128
"""The parts of a ranking that is scored by several threads have at least so many: what a part costs
beside its candidates is a tenth of what these cost
"""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a run is served."""

    name: str = "model"
    """Its name in rankings and logs"""
    version: str = "1"
    cache_bytes: int = 256 << 20
    """Memory for users' states"""
    device: str = "cpu"
    precision: Precision = "fp32"
    """Of the model's dense part"""
    store_timeout_s: float = 0.25
    """How long a ranking waits for the store; then it is made without"""
    slots: int | None = None
    """So many threads score: small requests that wait for one are joined, a large one that finds
    others free is divided. None: every thread scores its own request"""


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A request, encoded, with its user's state."""

    kept: Kept
    side: RequestSide
    found: Found
    cache: CacheOutcome
    began: float
    encoded: float
    """When it was ready, on the clock of ``began``"""
    stages_ms: dict[str, float]


class Engine:
    """Ranks for many threads at a time.

    Call :meth:`close` when done; the store is its opener's to close.
    """

    def __init__(
        self,
        run: Run | str | Path,
        store: Store,
        config: EngineConfig | None = None,
        *,
        log: ServedLog | None = None,
    ) -> None:
        """Load a run for serving.

        Args:
            run: A run, or its folder.
            store: Where live events lie.
            config: Name, device and sizes.
            log: Keeps what is ranked; None: nothing is kept.

        Raises:
            RunError: If the run cannot be served.
            DataError: If its features cannot be read.
            SettingsError: For a device that is not there.
        """
        self.config = config or EngineConfig()
        self._device = _device(self.config.device)
        self.run = run if isinstance(run, Run) else Run.load(run, self.config.device)
        self.run.model.to(self._device).eval()
        self.name, self.version, self.schema = (
            self.config.name,
            self.config.version,
            self.run.schema,
        )
        encoder = Encoder(
            self.run.encoders(),
            self.run.statistics(),
            self.run.entities("user"),
            self.run.entities("item"),
            FieldChecks(self.schema),
        )
        self._encoder, self.history_limit = encoder, encoder.limit
        role = self.schema.roles.bias
        self._bias = 0 if role is None else min(role.serve_as, role.max)
        expression, outputs = self.schema.score_expression, self.schema.outputs
        self._expression = expression
        self._raw_names = [name for name in expression.names if name not in outputs]
        self._score_is_output = expression.text if expression.text in outputs else None
        self.cache = StateCache(self.config.cache_bytes)
        self._log = log
        slots = self.config.slots
        self._joint = None
        if slots is not None:
            self._joint = Joint(self._score, slots=slots, most=_JOINED_CANDIDATES)
        timeout_s = self.config.store_timeout_s
        self.reader = Reader(store, limit=self.history_limit, timeout_s=timeout_s)
        self._autocast = partial(_autocast, self._device, self.config.precision)
        self._states = UserStates(
            self.run,
            encoder,
            self.reader,
            self.cache,
            self._device,
            self._autocast,
        )

    @torch.inference_mode()
    def rank(
        self, requests: Sequence[RankRequest], check: Callable[[Ranking], None] | None = None
    ) -> list[Ranking]:
        """A ranking for every request, in their order.

        No output is NaN or infinite. Raises RequestError naming the field of a value that cannot be
        used, or the item for which the model gives no finite output; or what ``check`` raises of a
        ranking; then none is logged.
        """
        ready = [self._encode(request) for request in requests]
        rankings = self._together(ready) if ready else []
        if check is not None:
            for ranking in rankings:
                check(ranking)
        if self._log is not None:
            for one, ranking in zip(ready, rankings, strict=True):
                found = one.found
                self._log.ranking(
                    Served(
                        request=one.side.request,
                        ranking=ranking,
                        user=found.user,
                        items=found.items,
                        events=one.kept.side.events,
                    )
                )
        return rankings

    @torch.inference_mode()
    def rank_found(self, request: RankRequest, found: Found) -> Ranking:
        """A ranking by what a store is said to have answered, past the store, the cache and the
        log. Raises RequestError.
        """
        return self._score([self._encode(request, found)])[0]

    def warm_up(self) -> None:
        """Rank made-up items for a made-up user, past the store, so that a first request finds all
        in place.
        """
        items = tuple(Candidate(f"warm-up-{i}") for i in range(_WARM_UP_ITEMS))
        request = RankRequest(
            id="warm-up", user="warm-up", time_ms=int(time.time() * 1000), items=items
        )
        for _ in range(2):
            self.rank_found(request, Found())

    def close(self) -> None:
        """Let go of threads, states and the model.

        What is closed ranks no more; a second close does nothing.
        """
        self.reader.close()
        self.cache.clear()
        if self._joint is not None:
            self._joint.close()
        self._joint = None  # it holds the engine: a ring that a frozen collector would never free
        if hasattr(self, "run"):
            del self.run, self._states

    # -- one request -------------------------------------------------------------------------------

    def _encode(self, request: RankRequest, found: Found | None = None) -> _Ready:
        check_history(request)
        began = time.perf_counter()
        if found is None:
            kept, found, cache, stages = self._states.of(request)
        else:
            kept, cache, stages = self._states.made(request, found), "miss", {}
        at = time.perf_counter()
        side = self._encoder.request_side(request, kept.side, found.items)
        encoded = time.perf_counter()
        stages["encode"] = (encoded - at) * 1000
        return _Ready(
            kept=kept,
            side=side,
            found=found,
            cache=cache,
            began=began,
            encoded=encoded,
            stages_ms=stages,
        )

    def _together(self, ready: list[_Ready]) -> list[Ranking]:
        """Score requests with those of other threads that wait; one that is explained alone."""
        if self._joint is None or len(ready) > 1:
            return self._score(ready)
        request = ready[0].side.request
        return [
            self._joint.run(ready[0], _JOINED_CANDIDATES if request.explain else len(request.items))
        ]

    # -- all together ------------------------------------------------------------------------------

    def _score(self, ready: Sequence[_Ready]) -> list[Ranking]:
        at, model = time.perf_counter(), self.run.model
        batch = request_batch(
            [r.kept.side for r in ready], [r.side for r in ready], self.run.spec, self._bias
        ).to(self._device)
        with self._autocast():
            inputs = model.embed(batch, ["request", "candidate"])
            state = model.encode_request(model.join_users([r.kept.state for r in ready]), inputs)
            logits = self._logits(state, inputs)
        outputs = {
            name: values.double().cpu().numpy()
            for name, values in probabilities(logits, self.run.spec).items()
        }
        reasons = self._because(ready, state, inputs)
        score_ms = (time.perf_counter() - at) * 1000
        first, rankings = 0, []
        for one, reason in zip(ready, reasons, strict=True):
            last = first + len(one.side.request.items)
            part = {name: values[first:last] for name, values in outputs.items()}
            rankings.append(
                self._ranking(
                    one, part, reason, {"wait": (at - one.encoded) * 1000, "score": score_ms}
                )
            )
            first = last
        return rankings

    def _logits(self, state: Any, inputs: Inputs) -> Tensor:
        """[N, T]; of a large request in parts, by threads that have nothing else to do.

        Each part is some 250 operations, so that the interpreter, for which they take turns, is
        seldom waited for.
        """
        model, batch = self.run.model, inputs.batch
        if self._joint is None or batch.requests_count > 1 or batch.cpu_copy is not None:
            return model.score(state, inputs).float()

        def part(first: int, last: int) -> Tensor:
            with torch.inference_mode(), self._autocast():
                return model.score(state, inputs.select_candidates(first, last)).float()

        return torch.cat(self._joint.divide(part, batch.candidates_count, _PART_CANDIDATES))

    def _because(
        self, ready: Sequence[_Ready], state: Any, inputs: Inputs
    ) -> list[list[tuple[Attribution, ...]] | None]:
        """Per request that asked, per candidate; None for the others."""
        asked = [one.side.request.explain for one in ready]
        if not any(asked):
            return [None] * len(ready)
        if len(ready) == 1:
            with self._autocast():
                return [
                    because(
                        self.run.model, state, inputs, ready[0].kept.side, ready[0].side.request
                    )
                ]
        return [
            self._explained_alone(one) if wanted else None
            for one, wanted in zip(ready, asked, strict=True)
        ]

    def _explained_alone(self, one: _Ready) -> list[tuple[Attribution, ...]] | None:
        model = self.run.model
        batch = request_batch([one.kept.side], [one.side], self.run.spec, self._bias).to(
            self._device
        )
        with self._autocast():
            inputs = model.embed(batch, ["request", "candidate"])
            state = model.encode_request(one.kept.state, inputs)
            return because(model, state, inputs, one.kept.side, one.side.request)

    def _ranking(
        self,
        one: _Ready,
        outputs: dict[str, Array],
        reasons: list[tuple[Attribution, ...]] | None,
        score_ms: dict[str, float],
    ) -> Ranking:
        request, side = one.side.request, one.kept.side
        for name, found in outputs.items():
            if not np.isfinite(found).all():
                raise RequestError(
                    f"items[{int(np.argmin(np.isfinite(found)))}]",
                    f"the model gives no finite {name} for it",
                )
        values: dict[str, Any] = {
            **outputs,
            **{name: one.side.raw[:, i] for i, name in enumerate(self._raw_names)},
        }
        score = self._expression.scores(values, len(request.items))
        order = np.argsort(np.where(np.isnan(score), math.inf, -score), kind="stable").tolist()
        columns = {name: values.tolist() for name, values in outputs.items()}
        scores, statuses = score.tolist(), _statuses(one.side.known, score)
        items = tuple(
            RankedItem(
                request.items[i].id,
                scores[i],
                {name: column[i] for name, column in columns.items()},
                statuses[i],
                () if reasons is None else reasons[i],
                i,
            )
            for i in order
        )
        begin, middle, end = one.side.history_ranges[0].tolist()
        degraded = (
            one.found.degraded
            if request.history is None
            else tuple(d for d in one.found.degraded if d != "history")
        )
        cut_short = (
            request.history is None
            and side.events >= self.history_limit
            and end < self._encoder.most
        )
        if cut_short and "early_history" not in degraded:  # a replay has it from the log
            degraded += ("early_history",)
        return Ranking(
            id=request.id,
            model=self.name,
            version=self.version,
            items=items,
            degraded=degraded,
            took_ms=(time.perf_counter() - one.began) * 1000,
            history_revision=one.kept.history,
            history_ranges=(begin, middle, end),
            stages_ms={**one.stages_ms, **score_ms},
            cache=one.cache,
            user_known=side.row >= 0 or one.kept.user > 0,
            newest_event_ms=int(side.time_ms[end - 1]) if end > begin else None,
        )


def _statuses(known: Array, score: Array) -> list[Status]:
    """What is said of every item; ``known`` bool [N], ``score`` [N]."""
    statuses: list[Status] = np.where(
        known, np.where(np.isnan(score), "NO_SCORE", "OK"), "UNKNOWN_ITEM"
    ).tolist()
    return statuses


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"device: {name} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    return device
