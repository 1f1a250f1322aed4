"""Rank requests: from a body to a validated request, and from a ranking to the response's JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from hemix.errors import DataError, RequestError
from hemix.serving.field_validation import FieldValidator, check_history
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
from hemix.serving.loaded_models import LoadedModel, LoadedModels
from hemix.serving.types import (
    Candidate,
    Event,
    HistoryOverride,
    RankedItem,
    Ranking,
    RankRequest,
    Status,
)

__all__ = ["RankResponse", "encode_ranking", "lease_model", "rank", "read_request"]

_DECODER = msgspec.json.Decoder(RankMessage)


class AttributionResponse(TypedDict):
    """A past event, with the fraction of the attention that it received."""

    item: str | None
    weight: float
    age_seconds: float | None
    type: str | None


class ItemResponse(TypedDict):
    """A ranked item; ``because`` is there with ``explain``."""

    id: str
    score: Annotated[float | None, Meta(description="null without a score")]
    outputs: Mapping[str, float]
    status: Status
    because: NotRequired[list[AttributionResponse]]


class RankResponse(TypedDict):
    """The items of a request by descending score."""

    id: str
    model: str
    version: str
    took_ms: float
    degraded: Annotated[
        tuple[str, ...], Meta(description="Inputs that it lacked: history, features, early_history")
    ]
    user_status: Literal["OK", "UNKNOWN_USER"]
    items: list[ItemResponse]


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


@contextmanager
def lease_model(models: LoadedModels, name: str | None) -> Iterator[LoadedModel]:
    """Use a model, which stays open until the block ends.

    Args:
        models: Models of the server.
        name: Name of the model; None: the first one.

    Raises:
        ApiError: 404 for an unknown name.
    """
    with models.lease(name) as model:
        if model is None:
            message = f"no model {name!r}; GET /v1/models lists them"
            raise ApiError(404, "unknown_model", message, field="model")
        yield model


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
    with lease_model(models, message.model) as model:
        request = _to_request(message, request_id)
        check = partial(_check_known, message=message) if limits.strict else None
        try:
            check_history(request)
            _check_fields(request, model.checks)
            [ranking] = model.engine.rank([request], check)
        except RequestError as error:
            raise ApiError.from_error(error, field=error.field) from error
        except DataError as error:
            raise ApiError.from_error(error, code=RequestError.code) from error
    return ranking


def _to_request(message: RankMessage, request_id: str) -> RankRequest:
    # one ms later, so that events accepted in this very millisecond are seen
    now_ms = int(time.time() * 1000) + 1
    return RankRequest(
        id=message.id or request_id,
        user=message.user,
        time_ms=message.timestamp if message.timestamp is not None else now_ms,
        items=tuple(Candidate(item.id, item.fields) for item in message.items),
        context=message.context,
        explain=message.explain,
        history=None if message.history is None else _to_override(message.history, message.user),
    )


def _to_override(history: HistoryMessage, user: str) -> HistoryOverride:
    return HistoryOverride(
        global_=_to_events("history.global", history.global_, user),
        realtime=_to_events("history.realtime", history.realtime, user),
    )


def _to_events(path: str, messages: list[PastEvent], user: str) -> tuple[Event, ...]:
    """Convert one history; the id of an event is its path in the request."""
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
        raise RequestError(f"{path}.{column}", message)


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
    content: RankResponse = {
        "id": ranking.id,
        "model": ranking.model,
        "version": ranking.version,
        "took_ms": round(ranking.took_ms, 3),
        "degraded": ranking.degraded,
        "user_status": "OK" if ranking.user_known else "UNKNOWN_USER",
        "items": [_item_content(item, explain) for item in ranking.items],
    }
    return msgspec.json.encode(content)


def _item_content(item: RankedItem, explain: bool) -> ItemResponse:
    content: ItemResponse = {
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
