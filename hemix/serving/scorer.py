"""Scores of encoded requests: the model's second and third step, and the score expression."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hemix.errors import RequestError
from hemix.nn.heads import probabilities
from hemix.nn.inputs import Inputs
from hemix.runs import Run
from hemix.serving.batch import request_batch
from hemix.serving.batcher import DynamicBatcher
from hemix.serving.config import Precision
from hemix.serving.encoded import RequestSide
from hemix.serving.explain import attributions
from hemix.serving.types import Attribution, RankedItem, Status
from hemix.serving.user_cache import CachedUserState

__all__ = ["EncodedRanking", "ItemRanker", "RequestScores", "Scorer"]

Floats = npt.NDArray[np.float64]
Attributions = list[tuple[Attribution, ...]]

_MAX_BATCH_CANDIDATES = 256
"""On a CPU, larger batches are not faster per candidate"""
_MIN_RANGE_CANDIDATES = 128
"""At this size the fixed cost of a range is a tenth of its candidates' cost"""


@dataclass(frozen=True, kw_only=True)
class EncodedRanking:
    """An encoded request with the state of its user."""

    user: CachedUserState
    side: RequestSide
    encoded_at: float
    """Value of ``time.perf_counter`` after encoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestScores:
    """What the model computes for one request of N candidates."""

    outputs: dict[str, Floats]
    """Probabilities [N] by output"""
    attributions: Attributions | None
    """None where the request does not ask for them"""
    stages_ms: dict[str, float]
    """Time in ``wait`` (for a slot) and ``score``, in ms"""


class Scorer:
    """Scores requests of many threads with one run. Call :meth:`close` when done."""

    def __init__(
        self, run: Run, device: torch.device, precision: Precision, slots: int | None
    ) -> None:
        """Set up the scoring.

        Args:
            run: The run; its model is on ``device``.
            device: Device of the model.
            precision: Precision of the model's dense layers.
            slots: Threads that score at a time, with dynamic batching; None: every thread scores
                its own requests.
        """
        self._run, self._device, self._precision = run, device, precision
        role = run.schema.roles.bias
        self._bias = 0 if role is None else min(role.serve_as, role.max)
        self._batcher: DynamicBatcher[EncodedRanking, RequestScores] | None = None
        if slots is not None:
            self._batcher = DynamicBatcher(
                self.score_batch, slots=slots, max_batch_size=_MAX_BATCH_CANDIDATES
            )

    def score(self, requests: Sequence[EncodedRanking]) -> list[RequestScores]:
        """Score requests; a single one may share its batch with those of other threads."""
        if self._batcher is None or len(requests) > 1:
            return self.score_batch(requests)
        request = requests[0].side.request
        # attributions need a batch of their own
        size = _MAX_BATCH_CANDIDATES if request.explain else len(request.items)
        return [self._batcher.run(requests[0], size)]

    def score_batch(self, requests: Sequence[EncodedRanking]) -> list[RequestScores]:
        """Score requests in one batch."""
        if not requests:
            return []
        started, model = time.perf_counter(), self._run.model
        with self.autocast():
            inputs = self._embed(requests)
            users = model.join_users([request.user.state for request in requests])
            state = model.encode_request(users, inputs)
            logits = self._logits(state, inputs)
        outputs = {
            name: values.double().cpu().numpy()
            for name, values in probabilities(logits, self._run.spec).items()
        }
        explained = self._attributions(requests, state, inputs)
        score_ms = (time.perf_counter() - started) * 1000
        bounds = np.cumsum([0, *(len(request.side.request.items) for request in requests)])
        return [
            RequestScores(
                outputs={name: values[first:last] for name, values in outputs.items()},
                attributions=explained[i],
                stages_ms={"wait": (started - request.encoded_at) * 1000, "score": score_ms},
            )
            for i, (request, first, last) in enumerate(
                zip(requests, bounds[:-1], bounds[1:], strict=True)
            )
        ]

    def _embed(self, requests: Sequence[EncodedRanking]) -> Inputs:
        batch = request_batch(
            [request.user.side for request in requests],
            [request.side for request in requests],
            self._run.spec,
            self._bias,
        )
        return self._run.model.embed(batch.to(self._device), ["request", "candidate"])

    def _logits(self, state: Any, inputs: Inputs) -> Tensor:
        """Return logits [N, T]; a large request on the CPU is divided among free slots.

        A range takes some 250 operations, so that threads seldom wait for Python's lock.
        """
        model, batch = self._run.model, inputs.batch
        if self._batcher is None or batch.requests_count > 1 or batch.cpu_copy is not None:
            return model.score(state, inputs).float()

        def score_range(first: int, last: int) -> Tensor:
            with torch.inference_mode(), self.autocast():
                return model.score(state, inputs.select_candidates(first, last)).float()

        ranges = self._batcher.divide(score_range, batch.candidates_count, _MIN_RANGE_CANDIDATES)
        return torch.cat(ranges)

    def _attributions(
        self, requests: Sequence[EncodedRanking], state: Any, inputs: Inputs
    ) -> list[Attributions | None]:
        """Return each request's attributions, one tuple per candidate; None if not requested."""
        model = self._run.model
        explained: list[Attributions | None] = []
        for request in requests:
            if not request.side.request.explain:
                explained.append(None)
                continue
            with self.autocast():
                if len(requests) > 1:
                    inputs = self._embed([request])
                    state = model.encode_request(request.user.state, inputs)
                side = request.user.side
                explained.append(attributions(model, state, inputs, side, request.side))
        return explained

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of the model's precision."""
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)

    def close(self) -> None:
        """Stop helper threads, and release the model; further calls fail."""
        if self._batcher is not None:
            self._batcher.close()
        # batcher and scorer refer to each other: a cycle that a frozen collector never frees
        self._batcher = None
        if hasattr(self, "_run"):
            del self._run


class ItemRanker:
    """Sorts candidates by the schema's score expression."""

    def __init__(self, run: Run) -> None:
        """Take the expression of a run's schema."""
        self._expression = run.schema.score_expression
        self._raw_names = run.schema.score_columns

    def rank(self, side: RequestSide, scores: RequestScores) -> tuple[RankedItem, ...]:
        """Return the candidates by descending score.

        Args:
            side: The encoded request.
            scores: The model's outputs.

        Raises:
            RequestError: The model gives no finite output for an item.
        """
        items, outputs = side.request.items, scores.outputs
        _check_finite(outputs)
        raw = {name: side.raw[:, i] for i, name in enumerate(self._raw_names)}
        score = self._expression.scores({**outputs, **raw}, len(items))
        order = np.argsort(np.where(np.isnan(score), math.inf, -score), kind="stable").tolist()
        columns = {name: values.tolist() for name, values in outputs.items()}
        values, statuses = score.tolist(), _statuses(side.known, score)
        explained = scores.attributions
        return tuple(
            RankedItem(
                items[i].id,
                values[i],
                {name: column[i] for name, column in columns.items()},
                statuses[i],
                () if explained is None else explained[i],
                i,
            )
            for i in order
        )


def _check_finite(outputs: Mapping[str, Floats]) -> None:
    for name, values in outputs.items():
        finite = np.isfinite(values)
        if not finite.all():
            raise RequestError(
                f"items[{int(np.argmin(finite))}]", f"the model gives no finite {name} for it"
            )


def _statuses(known: npt.NDArray[np.bool_], score: Floats) -> list[Status]:
    """Return every item's status; both arrays are [N]."""
    statuses: list[Status] = np.where(
        known, np.where(np.isnan(score), "NO_SCORE", "OK"), "UNKNOWN_ITEM"
    ).tolist()
    return statuses
