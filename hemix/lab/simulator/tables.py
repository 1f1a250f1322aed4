"""The city's arrays as Arrow tables, in the columns that schema.yaml names.

This module knows nothing of how they came about.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hemix.lab.simulator.city import City
from hemix.lab.simulator.people import PRICE_BANDS, People
from hemix.lab.simulator.places import ALWAYS_OPEN, to_degrees
from hemix.lab.simulator.record import ACTIONS, Columns
from hemix.schema import Schema

__all__ = [
    "events_table",
    "impressions_table",
    "items_table",
    "schema_text",
    "truth_table",
    "users_table",
]


def schema_text(city: City) -> str:
    """schema.yaml for the city's days, checked."""
    start = date.fromisoformat(city.parameters.start_date)
    text = Path(__file__).with_name("schema.yaml").read_text(encoding="utf-8")
    text = text.replace("VALID_DATE", (start + timedelta(days=city.days - 2)).isoformat())
    text = text.replace("TEST_DATE", (start + timedelta(days=city.days - 1)).isoformat())
    Schema.parse(text, "schema.yaml")
    return text


def _names(of: npt.NDArray[np.generic], names: list[str] | tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array(of.astype(np.int32)), pa.array(names, pa.string())
    ).cast(pa.string())


def _user_ids(number: npt.NDArray[np.generic]) -> pa.Array:
    distinct, of = np.unique(number, return_inverse=True)
    return _names(of, [f"u{n:06d}" for n in distinct.tolist()])


def _item_ids(number: npt.NDArray[np.generic], count: int) -> pa.Array:
    return _names(number, [f"p{n:05d}" for n in range(count)])


def items_table(city: City) -> pa.Table:
    """All places: what is public about them, and when they open (null: there from the
    beginning).
    """
    p, categories = city.places, city.parameters.categories
    latitude, longitude = to_degrees(city.parameters, p.x_km, p.y_km)
    opened = np.array(
        [0 if d == ALWAYS_OPEN else city.day_start_ms(int(d)) for d in p.opening_day],
        dtype=np.int64,
    )
    tags = [[f"tag_{t:02d}" for t in row if t >= 0] for row in p.tags.tolist()]
    return pa.table(
        {
            "item_id": _item_ids(np.arange(len(p)), len(p)),
            "category": _names(p.category, [c.name for c in categories]),
            "group": _names(p.category, [c.group for c in categories]),
            "chain": pa.array(
                [None if c < 0 else f"chain_{c:02d}" for c in p.chain.tolist()], pa.string()
            ),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "price": p.price_yuan,
            "rating": p.rating,
            "reviews": p.reviews,
            "latitude": latitude,
            "longitude": longitude,
            "opened_ms": pa.array(opened, mask=p.opening_day == ALWAYS_OPEN),
        }
    )


def users_table(city: City, people: People) -> pa.Table:
    """What is known about users."""
    latitude, longitude = to_degrees(city.parameters, people.home_x_km, people.home_y_km)
    return pa.table(
        {
            "user_id": _user_ids(people.number),
            "age_band": _names(people.age, [name for name, _ in city.parameters.people.ages]),
            "gender": _names(people.woman, ("man", "woman")),
            "district": _names(
                people.district, [f"district_{c}" for c in range(len(city.centres.x_km))]
            ),
            "price_band": _names(people.price_band, PRICE_BANDS),
            "home_latitude": latitude,
            "home_longitude": longitude,
        }
    )


def events_table(city: City, events: Columns) -> pa.Table:
    """What users did: by user and time."""
    return pa.table(
        {
            "user_id": _user_ids(events["user"]),
            "item_id": _item_ids(events["place"], len(city.places)),
            "time_ms": events["time_ms"],
            "action": _names(events["action"], ACTIONS),
        }
    )


def impressions_table(city: City, impressions: Columns) -> pa.Table:
    """What was shown and what came of it: by user, time and position."""
    i = impressions
    latitude, longitude = to_degrees(city.parameters, i["x_km"], i["y_km"])  # type: ignore[arg-type]
    weather = np.array([city.weather(day) for day in range(city.days)])
    no_order = ~i["order"].astype(np.bool_)
    return pa.table(
        {
            "request_id": i["user"].astype(np.int64) * 1_000_000 + i["moment"].astype(np.int64),
            "user_id": _user_ids(i["user"]),
            "item_id": _item_ids(i["place"], len(city.places)),
            "time_ms": i["time_ms"],
            "latitude": latitude,
            "longitude": longitude,
            "weather": _names(
                weather[i["day"].astype(np.int64)],
                [name for name, _ in city.parameters.sessions.weather],
            ),
            "position": i["position"],
            "click": i["click"].astype(np.int8),
            "order": i["order"].astype(np.int8),
            "order_time_ms": pa.array(i["order_ms"], mask=no_order),
            "amount": pa.array(i["amount_yuan"], mask=no_order),
        }
    )


def truth_table(city: City, impressions: Columns) -> pa.Table:
    """Row by row with the impressions: the probabilities (``p_order`` over the entire space) and
    what the user wanted.
    """
    p_click = impressions["p_click"].astype(np.float64)
    p_order_given_click = impressions["p_order_given_click"].astype(np.float64)
    return pa.table(
        {
            "p_click": p_click,
            "p_order": p_click * p_order_given_click,
            "p_order_given_click": p_order_given_click,
            "intent": _names(impressions["intent"], [c.name for c in city.parameters.categories]),
        }
    )
