"""Numbers that say "no value" (DBL_MAX, FLT_MAX): cut alike in logs and stores, and no scale is
learned from them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hemix import api
from hemix.data.encode import Encoders
from hemix.features.scaling import Scale
from hemix.serving.column_parser import ColumnParser, columns_of
from hemix.serving.field_validation import FieldValidator
from hemix.serving.stores import StoreLimits, open_store
from tests.data.small import PLAIN, Prepared, at, prepared

DBL_MAX, FLT_MAX = 1.7976931348623157e308, 3.4028234663852886e38
NUMBERS = [DBL_MAX, -DBL_MAX, FLT_MAX, 1.0, 2.0, 3.0]
SCHEMA = (
    PLAIN
    + """
tables: {items: items.parquet, users: users.parquet, events: events.parquet}
history: {fields: {q: {type: numeric, buckets: 4}}}
features:
  user: {q: {type: numeric}, s: {type: numeric, encoding: standardise}, v: {type: vector, size: 2}}
  item: {q: {type: numeric}, s: {type: numeric, encoding: standardise}, v: {type: vector, size: 2}}
  context: {q: {type: numeric}, s: {type: numeric, encoding: standardise}, v: {type: vector,
    size: 2}}
  cross: {xq: {type: numeric, column: q}, xs: {type: numeric, encoding: standardise, column: s},
    xv: {type: vector, size: 2, column: v}}
"""
)


@pytest.fixture
def data(tmp_path: Path) -> Prepared:
    """A row of each number in every split, and of every user and item."""
    numbers: dict[str, Any] = {
        "q": NUMBERS * 3,
        "s": NUMBERS * 3,
        "v": [[n, 1.0] for n in NUMBERS] * 3,
    }
    users, items = [f"u{n}" for n in range(18)], [f"i{n}" for n in range(18)]
    shown = {
        "user_id": users,
        "item_id": items,
        "time_ms": [at(n // 6, n) for n in range(18)],
        "click": [n % 2 for n in range(18)],
    }
    events = {
        "user_id": users,
        "item_id": items,
        "time_ms": [at(-1)] * 18,
        "action": ["view"] * 18,
        "q": NUMBERS * 3,
    }
    tables = {
        "items": {"item_id": items, **numbers},
        "users": {"user_id": users, **numbers},
        "events": events,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return prepared(tmp_path, SCHEMA, impressions={**shown, **numbers}, **tables)


def test_large_numbers_are_clipped_and_not_learned_from(data: Prepared) -> None:
    encoders = Encoders.load(data.folder / "encoders")
    deviation = np.sqrt(2 / 3)
    for key in ("user.s", "item.s", "context.s", "cross.xs"):
        assert encoders.scales[key] == Scale(2.0, pytest.approx(deviation))
        assert encoders.edges[key[:-1] + "q"].tolist() == [1.0, 2.0, 3.0, 1e30]
    expected = [[1e4, 0, 1e6, 1], [-1e4, 0, -1e6, 1], [1e4, 0, 1e6, 1]]
    expected += [[(n - 2) / deviation, 0, n, 1] for n in (1, 2, 3)]
    assert data("users/features.numbers")[:6] == pytest.approx(np.array(expected, np.float32))
    assert data("items/features.numbers")[1:7] == pytest.approx(
        np.array(expected, np.float32)
    )  # behind the unknown item
    for numbers in ("train/context.numbers", "test/cross.numbers"):
        assert data(numbers) == pytest.approx(np.array(expected, np.float32))


def test_a_store_has_the_events_of_the_histories(data: Prepared, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    assert api.store_load(tmp_path / "logs", url)["accepted"] == 18
    encoders, store = (
        Encoders.load(data.folder / "encoders"),
        open_store(url, StoreLimits(impressions=False)),
    )
    reader = ColumnParser(encoders.schema, "event", FieldValidator(encoders.schema))
    ids = data("history/ids")
    for user in range(18):
        [event] = store.history(f"u{user}", limit=9).events
        raw = reader.parse(1, columns_of([{**event.fields, "action": event.action}]))
        assert encoders.block("event", raw, 1).ids.tolist() == [
            ids[data.users().index(f"u{user}")].tolist()
        ]
    store.close()
