"""Events of simulated users in the format of POST /v1/events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from hemix.lab.simulator.behaviour import Views
from hemix.lab.simulator.simulation import ShownPages
from hemix.lab.simulator.state import Requests

__all__ = ["Event", "item_id", "ranking_id", "reaction_events", "user_id", "view_events"]

Event = Mapping[str, Any]


def user_id(user_index: int) -> str:
    """Return the id of a user in logs and requests."""
    return f"u{user_index:06d}"


def item_id(venue: int) -> str:
    """Return the id of a venue in logs and requests."""
    return f"p{venue:05d}"


def ranking_id(user_index: int, request_number: int) -> str:
    """Return the id of a ranking.

    Args:
        user_index: Index of the user in the city.
        request_number: Number of the request in the user's life.

    Returns:
        The id, unique in the experiment.
    """
    return f"r{user_index}.{request_number}"


def view_events(requests: Requests, views: Views) -> Iterator[Event]:
    """Yield the views before requests.

    Args:
        requests: Requests that follow the views.
        views: Views, sorted by request.

    Yields:
        One interaction per view.
    """
    first_view = np.searchsorted(views.request_row, views.request_row)
    view_number = np.arange(len(views.request_row)) - first_view
    for request_row, venue, time_ms, number in zip(
        views.request_row.tolist(),
        views.venue.tolist(),
        views.time_ms.tolist(),
        view_number.tolist(),
        strict=True,
    ):
        event = _event(requests, request_row, "view", number, venue=venue, time_ms=time_ms)
        yield {**event, "event": "interaction", "type": "view"}


def reaction_events(pages: ShownPages) -> Iterator[Event]:
    """Yield every impression of pages, and then the reactions to them.

    Servers need the impressions without a click to attribute clicks to rankings.

    Args:
        pages: Pages with their reactions.

    Yields:
        Impressions and interactions with the id of their ranking.
    """
    requests, reactions = pages.requests, pages.reactions
    for row in range(len(pages.venue)):
        event = _impression_event(pages, row, "impression", int(requests.time_ms[row]))
        yield {**event, "event": "impression"}
    for action, happened, times_ms in (
        ("click", reactions.click, reactions.click_ms),
        ("order", reactions.order, reactions.order_ms),
        ("favourite", reactions.favourite, reactions.favourite_ms),
    ):
        for row in np.flatnonzero(happened).tolist():
            event = _impression_event(pages, row, action, int(times_ms[row]))
            yield {**event, "event": "interaction", "type": action}


def _impression_event(pages: ShownPages, row: int, action: str, time_ms: int) -> dict[str, Any]:
    requests, position = pages.requests, int(pages.position[row])
    event = _event(requests, row, action, position, venue=int(pages.venue[row]), time_ms=time_ms)
    ranking = ranking_id(int(requests.user_index[row]), int(requests.number[row]))
    return {**event, "ranking": ranking}


def _event(
    requests: Requests, request_row: int, action: str, number: int, *, venue: int, time_ms: int
) -> dict[str, Any]:
    """The fields that all events have; ``number`` distinguishes events of one request."""
    user_index = int(requests.user_index[request_row])
    request_number = int(requests.number[request_row])
    return {
        "id": f"{user_index}.{request_number}.{action}.{number}",
        "user": user_id(user_index),
        "item": item_id(venue),
        "timestamp": time_ms,
    }
