"""Rank requests: from a body to a validated request, and from a ranking to the response's JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from hemix.errors import DataError, RequestError
from hemix.serving.field_validation import FieldValidator
from hemix.serving.http.messages import (
    MAX_FIELDS_BYTES,
    ApiError,
    HistoryMessage,
    PastEvent,
    RankMessage,
    check_size,
    decode,
    fields_problem,
    strip_bom,
)
from hemix.serving.http.service import RequestLimits
from hemix.serving.loaded_models import LoadedModels
from hemix.serving.types import Candidate, Event, HistoryOverride, RankedItem, Ranking, RankRequest

__all__ = ["encode_ranking", "rank", "read_request"]

_DECODER = msgspec.json.Decoder(RankMessage)


def read_request(body: bytes, limits: RequestLimits) -> RankMessage:
    """Decode the body of a rank request.

    Args:
        body: JSON in UTF-8.
        limits: Limits of the server.

    Raises:
        ApiError: The body is malformed, invalid or beyond a limit.
    """
    body = strip_bom(body)
    check_size(body)
    message = decode(_DECODER, body)
    if len(message.items) > limits.items:
        raise ApiError(
            413,
            "too_many_items",
            f"{len(message.items):,} items; at most {limits.items:,} a request",
            field="items",
        )
    if len(body) > MAX_FIELDS_BYTES:
        for path, fields in _all_fields(message):
            problem = fields_problem(fields) if fields else None
            if problem is not None:
                raise ApiError(422, "invalid", problem, field=path)
    return message


def _all_fields(message: RankMessage) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and fields of context, items and events."""
    history = message.history if message.history is not None else HistoryMessage()
    yield "context", message.context
    for i, item in enumerate(message.items):
        yield f"items[{i}].fields", item.fields
    for i, event in enumerate(history.global_):
        yield f"history.global[{i}].fields", event.fields
    for i, event in enumerate(history.realtime):
        yield f"history.realtime[{i}].fields", event.fields


def rank(
    message: RankMessage, models: LoadedModels, limits: RequestLimits, request_id: str
) -> Ranking:
    """Rank with the model that the message names.

    Args:
        message: The request.
        models: Models of the server.
        limits: Limits of the server.
        request_id: The default id of the ranking.

    Raises:
        ApiError: 404 for an unknown model, 422 for invalid values.
    """
    with models.lease(message.model) as model:
        if model is None:
            raise ApiError(
                404,
                "unknown_model",
                f"no model {message.model!r}; GET /v1/models lists them",
                field="model",
            )
        request = _to_request(message, request_id)
        _check_fields(request, model.checks)
        check = partial(_check_known, message=message) if limits.strict else None
        try:
            [ranking] = model.engine.rank([request], check)
        except RequestError as error:
            raise ApiError.from_error(error, field=error.field) from error
        except DataError as error:
            raise ApiError.from_error(error, code=RequestError.code) from error
    return ranking


def _to_request(message: RankMessage, request_id: str) -> RankRequest:
    # one ms later, so that events accepted in this very millisecond are seen
    now_ms = int(time.time() * 1000) + 1
    time_ms = message.timestamp if message.timestamp is not None else now_ms
    return RankRequest(
        id=message.id or request_id,
        user=message.user,
        time_ms=time_ms,
        items=tuple(Candidate(item.id, item.fields) for item in message.items),
        context=message.context,
        explain=message.explain,
        history=_to_override(message, time_ms),
    )


def _to_override(message: RankMessage, time_ms: int) -> HistoryOverride | None:
    history = message.history
    if history is None:
        return None
    global_ = _to_events("history.global", history.global_, message.user, time_ms)
    realtime = _to_events("history.realtime", history.realtime, message.user, time_ms)
    if global_ and realtime and global_[-1].time_ms > realtime[0].time_ms:
        raise ApiError(
            422,
            "invalid",
            "is earlier than the end of the global history",
            field="history.realtime[0].timestamp",
        )
    return HistoryOverride(global_=global_, realtime=realtime)


def _to_events(path: str, messages: list[PastEvent], user: str, time_ms: int) -> tuple[Event, ...]:
    """Convert one history; refuse events out of order or not before the request."""
    previous = 0
    for i, event in enumerate(messages):
        if not previous <= event.timestamp < time_ms:
            late = event.timestamp >= time_ms
            expected = "before the request" if late else "not before the previous event"
            raise ApiError(
                422,
                "invalid",
                f"expected a time {expected}, found {event.timestamp}",
                field=f"{path}[{i}].timestamp",
            )
        previous = event.timestamp
    return tuple(
        Event(
            id=f"{path}[{i}]",
            kind="interaction",
            time_ms=event.timestamp,
            user=user,
            item=event.item,
            action=event.action,
            fields=event.fields,
        )
        for i, event in enumerate(messages)
    )


def _check_fields(request: RankRequest, checks: FieldValidator) -> None:
    _check("context", "context", request.context, checks)
    for i, item in enumerate(request.items):
        if item.fields:
            _check(f"items[{i}].fields", "candidate", item.fields, checks)
    if request.history is not None:
        for event in (*request.history.global_, *request.history.realtime):
            _check(f"{event.id}.fields", "event", event.fields, checks)


def _check(path: str, level: str, fields: Mapping[str, Any], checks: FieldValidator) -> None:
    problem = checks.problem(level, fields)
    if problem is not None:
        column, message = problem
        raise ApiError(422, "invalid", message, field=f"{path}.{column}")


def _check_known(ranking: Ranking, message: RankMessage) -> None:
    """Refuse an unknown user or item, in strict mode."""
    if ranking.degraded:  # without the store, users and items that events introduced look unknown
        return
    if not ranking.user_known:
        problem = f"the run does not know user {message.user!r}"
        raise ApiError(422, "unknown_user", problem, field="user")
    unknown = {item.id for item in ranking.items if item.status == "UNKNOWN_ITEM"}
    for i, item in enumerate(message.items):
        if item.id in unknown:
            problem = f"the run does not know item {item.id!r}"
            raise ApiError(422, "unknown_item", problem, field=f"items[{i}].id")


def encode_ranking(ranking: Ranking, *, explain: bool) -> bytes:
    """Return the response's JSON.

    Args:
        ranking: The ranking.
        explain: Whether to include attributions.
    """
    return msgspec.json.encode(
        {
            "id": ranking.id,
            "model": ranking.model,
            "version": ranking.version,
            "took_ms": round(ranking.took_ms, 3),
            "degraded": ranking.degraded,
            "user_status": "OK" if ranking.user_known else "UNKNOWN_USER",
            "items": [_item_content(item, explain) for item in ranking.items],
        }
    )


def _item_content(item: RankedItem, explain: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": item.id,
        "score": item.score,
        "outputs": item.outputs,
        "status": item.status,
    }
    if explain:
        content["because"] = [
            {
                "item": attribution.item,
                "weight": attribution.weight,
                "age_seconds": attribution.age_seconds,
                "type": attribution.action,
            }
            for attribution in item.attributions
        ]
    return content
