"""Because: the past events that drew the candidates' attention, as the model weighs them.

Knows no model's inside.
"""

from __future__ import annotations

from typing import Any

from hemix.data.spec import TIMELESS_MS
from hemix.models import Predictor
from hemix.nn.inputs import Inputs
from hemix.serving.features import UserSide
from hemix.serving.types import Attribution, RankRequest

__all__ = ["because"]

_MOST = 5


def because(
    model: Predictor, state: Any, inputs: Inputs, user: UserSide, request: RankRequest
) -> list[tuple[Attribution, ...]]:
    """For every candidate of one request, whose ``state`` and ``inputs`` these are, the events of
    most weight, and the newest in any case: what a user did just now is what one asks about. None
    where the model weighs no events.
    """
    begin, _, end = inputs.batch.cpu_batch.history_ranges[0].tolist()
    found = model.attention(state, inputs, _MOST, end - 1 if end > begin else None)
    if found is None:
        return [()] * len(request.items)
    positions, weights = (tensor.tolist() for tensor in found)
    return [
        tuple(
            _one(user, position, weight, request.time_ms)
            for position, weight in zip(*pair, strict=True)
            if position >= 0
        )
        for pair in zip(positions, weights, strict=True)
    ]


def _one(user: UserSide, position: int, weight: float, now_ms: int) -> Attribution:
    time_ms = int(user.time_ms[position])
    return Attribution(
        item=user.item_ids[position].as_py(),
        weight=weight,
        age_seconds=None if time_ms == TIMELESS_MS else (now_ms - time_ms) / 1000,
        action=user.actions[position].as_py(),
    )
