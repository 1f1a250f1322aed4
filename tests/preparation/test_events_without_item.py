"""Events without an item, such as searches: they keep action, fields and time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from hemix.data.dataset import Dataset
from hemix.data.spec import MISSING, UNKNOWN
from hemix.data.versions import NO_ITEM_ROW
from hemix.errors import DataError
from tests.data.small import at, prepared, shown
from tests.refusals import raises

SCHEMA = """
name: small
labels: {click: {}}
tables: {events: events.parquet, items: items.parquet}
features:
  item: {item_id: {type: categorical}, kind: {type: categorical, vocabulary: {min_count: 1}}}
history:
  fields: {query: {type: categorical, vocabulary: {min_count: 1}}}
  counts: true
split: {start: 2026-01-05, valid: 2026-01-06, test: 2026-01-07}
"""
ITEMS = {"item_id": ["a", "b"], "kind": ["red", "blue"]}
SHOWN = shown([("u", item, at(day, 12), day == 0) for day in range(3) for item in "ab"])
EVENTS = {
    "user_id": ["u", "u", "u", "only searches"],
    "item_id": [None, "a", None, None],
    "time_ms": [at(0, 8), at(0, 9), at(0, 10), at(0, 7)],
    "action": ["search", "view", "search", "search"],
    "query": ["tea", None, "red tea", "tea"],
}


def test_they_keep_action_and_fields_and_match_nothing(tmp_path: Path) -> None:
    data = prepared(tmp_path, SCHEMA, impressions=SHOWN, events=EVENTS, items=ITEMS)
    assert data.manifest["items"] == 2 and data.manifest["users"] == 2
    assert data.manifest["join_rate"]["event_items"] == 1, "of the events that have one"
    a = int(data("items/first_row")[0])
    assert data("history/item_row").tolist() == [NO_ITEM_ROW, a, NO_ITEM_ROW, NO_ITEM_ROW]
    actions, queries = data("history/ids").T.tolist()
    search, view = actions[:2]
    assert actions == [search, view, search, search] and search != view
    assert queries[0] == queries[3] > MISSING and queries[1] == MISSING
    assert data("items/features.ids")[NO_ITEM_ROW].tolist() == [UNKNOWN, MISSING]
    assert data("items/keys")[NO_ITEM_ROW].tolist() == [0, 0], "the keys that match nothing"

    dataset = Dataset(data.folder)
    batch = dataset.split("train").batch(np.arange(2))
    names = dataset.spec.cross.number_names
    numbers = batch.cross.numbers.numpy()[np.argsort(batch.impression_index.numpy())]

    def count(name: str) -> list[int]:
        return np.expm1(numbers[:, names.index(name)]).round().astype(int).tolist()

    assert count("match_counts.item_id.view.all") == [1, 0]
    assert count("match_counts.item_id.search.all") == [0, 0]
    assert not numbers[:, names.index("match_last.item_id")].any(), "a search was the newest"
    context = dict(
        zip(dataset.spec.context.number_names, batch.context.numbers[0].tolist(), strict=True)
    )
    assert round(float(np.expm1(context["match_totals.search.all"]))) == 2


def test_events_of_which_none_has_an_item(tmp_path: Path) -> None:
    nothing = {**EVENTS, "item_id": pa.array([None] * 4, pa.string())}
    data = prepared(tmp_path, SCHEMA, impressions=SHOWN, events=nothing, items=ITEMS)
    assert data("history/item_row").tolist() == [NO_ITEM_ROW] * 4


def test_an_impression_needs_its_item_and_an_empty_id_is_none(tmp_path: Path) -> None:
    tables = {"events": EVENTS, "items": ITEMS}
    without = {**SHOWN, "item_id": [None, *SHOWN["item_id"][1:]]}
    with raises(DataError, "row 0", field="item_id"):
        prepared(tmp_path, SCHEMA, impressions=without, **tables)
    empty = {**EVENTS, "item_id": [None, "", None, None]}
    with raises(DataError, "row 1", field="item_id"):
        prepared(tmp_path, SCHEMA, impressions=SHOWN, **{**tables, "events": empty})
