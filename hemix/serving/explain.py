"""Attributions: the past events that received the candidates' attention in the model."""

from __future__ import annotations

from typing import Any

from hemix.data.spec import TIMELESS_MS
from hemix.models import Predictor
from hemix.nn.inputs import Inputs
from hemix.serving.encoded import RequestSide, UserSide
from hemix.serving.types import Attribution

__all__ = ["attributions"]

_EVENTS = 5
"""Maximum events per candidate"""


def attributions(
    model: Predictor, state: Any, inputs: Inputs, user: UserSide, request: RequestSide
) -> list[tuple[Attribution, ...]]:
    """Return, for every candidate of one request, the events of most weight and the newest event.

    The newest is always included, because people ask for the effect of a user's last action.

    Args:
        model: The model.
        state: Its request state.
        inputs: Its inputs of the request's candidates.
        user: The encoded user.
        request: The encoded request.

    Returns:
        One tuple per candidate; empty where the model weighs no events.
    """
    begin, _, end = request.history_ranges[0].tolist()
    attention = model.event_weights(state, inputs, _EVENTS, end - 1 if end > begin else None)
    if attention is None:
        return [()] * len(request.request.items)
    positions, weights = (tensor.tolist() for tensor in attention)
    now_ms = request.request.time_ms
    return [
        tuple(
            _attribution(user, position, weight, now_ms)
            for position, weight in zip(*of_candidate, strict=True)
            if position >= 0
        )
        for of_candidate in zip(positions, weights, strict=True)
    ]


def _attribution(user: UserSide, position: int, weight: float, now_ms: int) -> Attribution:
    time_ms = int(user.time_ms[position])
    return Attribution(
        item=user.item_ids[position].as_py() or None,
        weight=weight,
        age_seconds=None if time_ms == TIMELESS_MS else (now_ms - time_ms) / 1000,
        action=user.actions[position].as_py(),
    )
