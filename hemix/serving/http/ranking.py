"""POST /v1/rank without its HTTP: a message to a checked request, a ranking to its answer."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import msgspec

from hemix.errors import DataError, RequestError
from hemix.serving.checks import FieldChecks
from hemix.serving.http.messages import (
    FIELDS_BYTES,
    HistoryMessage,
    PastEvent,
    RankMessage,
    check_size,
    decode,
    oversized,
    without_mark,
)
from hemix.serving.http.refusal import Refusal
from hemix.serving.http.service import Limits
from hemix.serving.models import Models
from hemix.serving.types import Candidate, Event, HistoryOverride, RankedItem, Ranking, RankRequest

__all__ = ["answer", "rank", "read_request"]

_DECODER = msgspec.json.Decoder(RankMessage)


def read_request(body: bytes, limits: Limits) -> RankMessage:
    """A body as a message within the limits. Raises Refusal."""
    body = without_mark(body)
    check_size(body)
    message = decode(_DECODER, body)
    if len(message.items) > limits.items:
        raise Refusal(
            413,
            "too_many_items",
            f"{len(message.items):,} items; at most {limits.items:,} a request",
            field="items",
        )
    if len(body) > FIELDS_BYTES:
        _check_sizes(message)
    return message


def _check_sizes(message: RankMessage) -> None:
    given = message.history if message.history is not None else HistoryMessage()
    each = [("context", message.context)]
    each += [(f"items[{i}].fields", item.fields) for i, item in enumerate(message.items)]
    for where, part in (("history.global", given.global_), ("history.realtime", given.realtime)):
        each += [(f"{where}[{i}].fields", event.fields) for i, event in enumerate(part)]
    for where, fields in each:
        problem = oversized(fields) if fields else None
        if problem is not None:
            raise Refusal(422, "invalid", problem, field=where)


def rank(message: RankMessage, models: Models, limits: Limits, request_id: str) -> Ranking:
    """Rank with the model that the message names.

    Raises Refusal: 404 for an unknown model, 422 for values that do not fit.
    """
    with models.lease(message.model) as served:
        if served is None:
            raise Refusal(
                404,
                "unknown_model",
                f"no model {message.model!r}; GET /v1/models lists them",
                field="model",
            )
        request = _request(message, request_id)
        _check(request, served.checks)
        try:
            check = partial(_check_known, message=message) if limits.strict else None
            [ranking] = served.ranker.rank([request], check)
        except RequestError as error:
            raise Refusal(422, "invalid", error.problem, field=error.field) from error
        except DataError as error:
            raise Refusal(422, "invalid", str(error)) from error
    return ranking


def _request(message: RankMessage, request_id: str) -> RankRequest:
    # what was accepted in this very millisecond comes before it
    time_ms = message.timestamp if message.timestamp is not None else int(time.time() * 1000) + 1
    given = message.history
    override = None
    if given is not None:
        parts = ("history.global", given.global_), ("history.realtime", given.realtime)
        past, realtime = (_events(where, part, message.user, time_ms) for where, part in parts)
        if past and realtime and past[-1].time_ms > realtime[0].time_ms:
            raise Refusal(
                422,
                "invalid",
                "begins before the global part ends",
                field="history.realtime[0].timestamp",
            )
        override = HistoryOverride(global_=past, realtime=realtime)
    return RankRequest(
        id=message.id or request_id,
        user=message.user,
        time_ms=time_ms,
        items=tuple(Candidate(item.id, item.fields) for item in message.items),
        context=message.context,
        explain=message.explain,
        history=override,
    )


def _events(where: str, part: list[PastEvent], user: str, time_ms: int) -> tuple[Event, ...]:
    last = 0
    for i, event in enumerate(part):
        if not last <= event.timestamp < time_ms:
            wanted = (
                "not before the event before it"
                if event.timestamp < time_ms
                else "before the request"
            )
            raise Refusal(
                422,
                "invalid",
                f"expected a time {wanted}, found {event.timestamp}",
                field=f"{where}[{i}].timestamp",
            )
        last = event.timestamp
    return tuple(
        Event(
            id=f"{where}[{i}]",
            kind="interaction",
            time_ms=event.timestamp,
            user=user,
            item=event.item,
            action=event.action,
            fields=event.fields,
        )
        for i, event in enumerate(part)
    )


def _check(request: RankRequest, checks: FieldChecks) -> None:
    found = checks.problem("context", request.context)
    where = "context"
    for i, item in enumerate(request.items):
        if found is not None:
            break
        if item.fields:
            found, where = checks.problem("candidate", item.fields), f"items[{i}].fields"
    if request.history is not None:
        for event in (*request.history.global_, *request.history.realtime):
            if found is not None:
                break
            found, where = checks.problem("event", event.fields), f"{event.id}.fields"
    if found is not None:
        column, problem = found
        raise Refusal(422, "invalid", problem, field=f"{where}.{column}")


def _check_known(ranking: Ranking, message: RankMessage) -> None:
    if ranking.degraded:
        return  # what only events know cannot be told from what nobody knows
    if not ranking.user_known:
        raise Refusal(
            422, "unknown_user", f"the run does not know user {message.user!r}", field="user"
        )
    strangers = {item.id for item in ranking.items if item.status == "UNKNOWN_ITEM"}
    for i, item in enumerate(message.items):
        if item.id in strangers:
            raise Refusal(
                422,
                "unknown_item",
                f"the run does not know item {item.id!r}",
                field=f"items[{i}].id",
            )


def answer(ranking: Ranking, *, explain: bool) -> bytes:
    """The JSON of an answer."""
    return msgspec.json.encode(
        {
            "id": ranking.id,
            "model": ranking.model,
            "version": ranking.version,
            "took_ms": round(ranking.took_ms, 3),
            "degraded": ranking.degraded,
            "user_status": "OK" if ranking.user_known else "UNKNOWN_USER",
            "items": [_item(item, explain) for item in ranking.items],
        }
    )


def _item(item: RankedItem, explain: bool) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": item.id,
        "score": item.score,
        "outputs": item.outputs,
        "status": item.status,
    }
    if explain:
        content["because"] = [
            {
                "item": cause.item,
                "weight": cause.weight,
                "age_seconds": cause.age_seconds,
                "type": cause.action,
            }
            for cause in item.attributions
        ]
    return content
