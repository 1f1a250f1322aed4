"""Convert the city's arrays to Arrow tables with the columns of schema.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.lab.simulator.arrays import Int64Array
from hemix.lab.simulator.city import City
from hemix.lab.simulator.generate import ACTIONS, Columns
from hemix.lab.simulator.users import PRICE_BANDS, Users
from hemix.lab.simulator.venues import ALWAYS_OPEN, to_degrees
from hemix.schema import Schema

__all__ = [
    "events_table",
    "impressions_table",
    "items_table",
    "request_ids",
    "schema_text",
    "truth_table",
    "users_table",
]

_REQUESTS_PER_USER = 1_000_000
"""Upper bound of a request's number in its user's life."""


def schema_text(city: City) -> str:
    """Return the validated text of schema.yaml with the city's split dates."""
    start = date.fromisoformat(city.parameters.start_date)
    text = Path(__file__).with_name("schema.yaml").read_text(encoding="utf-8")
    text = text.replace("VALID_DATE", (start + timedelta(days=city.days - 2)).isoformat())
    text = text.replace("TEST_DATE", (start + timedelta(days=city.days - 1)).isoformat())
    Schema.parse(text, "schema.yaml")
    return text


def _strings(indices: npt.NDArray[np.generic], values: Sequence[str]) -> pa.Array:
    """Look up strings by their indices."""
    return pa.DictionaryArray.from_arrays(
        pa.array(indices.astype(np.int32)), pa.array(values, pa.string())
    ).cast(pa.string())


def _user_ids(user_index: npt.NDArray[np.generic]) -> pa.Array:
    distinct, inverse = np.unique(user_index, return_inverse=True)
    return _strings(inverse, [f"u{index:06d}" for index in distinct.tolist()])


def _item_ids(venue: npt.NDArray[np.generic], venue_count: int) -> pa.Array:
    return _strings(venue, [f"p{index:05d}" for index in range(venue_count)])


def items_table(city: City) -> pa.Table:
    """Return the public properties of all venues; ``opened_ms`` is null if always open."""
    v, categories = city.venues, city.parameters.categories
    latitude, longitude = to_degrees(city.parameters, v.x_km, v.y_km)
    opened_ms = np.array(
        [0 if day == ALWAYS_OPEN else city.day_start_ms(int(day)) for day in v.opening_day],
        dtype=np.int64,
    )
    tags = [[f"tag_{tag:02d}" for tag in row if tag >= 0] for row in v.tags.tolist()]
    chains = [None if chain < 0 else f"chain_{chain:02d}" for chain in v.chain.tolist()]
    return pa.table(
        {
            "item_id": _item_ids(np.arange(len(v)), len(v)),
            "category": _strings(v.category, [category.name for category in categories]),
            "group": _strings(v.category, [category.group for category in categories]),
            "chain": pa.array(chains, pa.string()),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "price": v.price_yuan,
            "rating": v.rating,
            "reviews": v.reviews,
            "latitude": latitude,
            "longitude": longitude,
            "opened_ms": pa.array(opened_ms, mask=v.opening_day == ALWAYS_OPEN),
        }
    )


def users_table(city: City, users: Users) -> pa.Table:
    """Return the public properties of users.

    Args:
        city: City of the users.
        users: U users.

    Returns:
        U rows.
    """
    latitude, longitude = to_degrees(city.parameters, users.home_x_km, users.home_y_km)
    districts = [f"district_{centre}" for centre in range(len(city.centres.x_km))]
    return pa.table(
        {
            "user_id": _user_ids(users.index),
            "age_band": _strings(users.age, [name for name, _ in city.parameters.users.ages]),
            "gender": _strings(users.is_woman, ("man", "woman")),
            "district": _strings(users.district, districts),
            "price_band": _strings(users.price_band, PRICE_BANDS),
            "home_latitude": latitude,
            "home_longitude": longitude,
        }
    )


def events_table(city: City, events: Columns) -> pa.Table:
    """Return events, in the order of their columns.

    Args:
        city: City of the users.
        events: Columns of generate.EVENT_DTYPES.

    Returns:
        One row per event.
    """
    return pa.table(
        {
            "user_id": _user_ids(events["user"]),
            "item_id": _item_ids(events["venue"], len(city.venues)),
            "time_ms": events["time_ms"],
            "action": _strings(events["action"], ACTIONS),
        }
    )


def request_ids(impressions: Columns) -> Int64Array:
    """Return the request id of every impression."""
    user, number = impressions["user"], impressions["request_number"]
    return user.astype(np.int64) * _REQUESTS_PER_USER + number.astype(np.int64)


def impressions_table(city: City, impressions: Columns) -> pa.Table:
    """Return impressions with their labels, in the order of their columns.

    Args:
        city: City of the users.
        impressions: Columns of generate.IMPRESSION_DTYPES.

    Returns:
        One row per impression.
    """
    i = impressions
    x_km, y_km = (i[name].astype(np.float32, copy=False) for name in ("x_km", "y_km"))
    latitude, longitude = to_degrees(city.parameters, x_km, y_km)
    weather = np.array([city.weather(day) for day in range(city.days)])
    weather_names = [name for name, _ in city.parameters.sessions.weather]
    no_order = ~i["order"].astype(np.bool_)
    return pa.table(
        {
            "request_id": request_ids(i),
            "user_id": _user_ids(i["user"]),
            "item_id": _item_ids(i["venue"], len(city.venues)),
            "time_ms": i["time_ms"],
            "latitude": latitude,
            "longitude": longitude,
            "weather": _strings(weather[i["day"].astype(np.int64)], weather_names),
            "position": i["position"],
            "click": i["click"].astype(np.int8),
            "order": i["order"].astype(np.int8),
            "order_time_ms": pa.array(i["order_ms"], mask=no_order),
            "amount": pa.array(i["amount_yuan"], mask=no_order),
        }
    )


def truth_table(city: City, impressions: Columns) -> pa.Table:
    """Return the true probabilities and the intents of impressions.

    Args:
        city: City of the users.
        impressions: Columns of generate.IMPRESSION_DTYPES.

    Returns:
        One row per impression; ``p_order`` is the probability over all impressions.
    """
    p_click = impressions["p_click"].astype(np.float64)
    p_order_given_click = impressions["p_order_given_click"].astype(np.float64)
    categories = [category.name for category in city.parameters.categories]
    return pa.table(
        {
            "p_click": p_click,
            "p_order": p_click * p_order_given_click,
            "p_order_given_click": p_order_given_click,
            "intent": _strings(impressions["intent"], categories),
        }
    )
