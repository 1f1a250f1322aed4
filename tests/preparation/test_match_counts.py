"""Match counts from logs to batches: what the loader adds, which actions are counted apart, and
what a later day keeps of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hemix.data.dataset import Dataset
from hemix.data.spec import UNKNOWN
from hemix.errors import SchemaError
from hemix.preparation import prepare
from tests.data.small import PLAIN, Prepared, at, prepared, shown, write
from tests.refusals import raises

SCHEMA = """
name: small
labels: {{click: {{}}}}
tables: {{events: events.parquet, items: items.parquet}}
features:
  item:
    item_id: {{type: categorical, vocabulary: {{min_count: 99}}}}
    kind: {{type: categorical, vocabulary: {{min_count: 99}}}}
    size: {{type: numeric, buckets: 2}}
history: {{{history}}}
split: {{start: {start}, valid: {valid}, test: {test}}}
"""
ITEMS = {
    "item_id": ["a", "b", "c", "d"],
    "kind": ["red", "red", None, "blue"],
    "size": [1.0, 2.0, 9.0, None],
}


def schema(history: str = "", first: int = 5) -> str:
    days = {name: f"2026-01-{first + n:02d}" for n, name in enumerate(("start", "valid", "test"))}
    return SCHEMA.format(history=history, **days)


def impressions(first: int = 0) -> dict[str, list[Any]]:
    """All items at noon of the train day, one of valid and test."""
    train = [("u", item, at(first, 12), 1) for item in "abcd"]
    return shown([*train, *(("u", "a", at(first + n, 12), 0) for n in (1, 2))])


def events(*rows: tuple[str, int, str | None]) -> dict[str, list[Any]]:
    """(item, ms, action) of user u."""
    return {
        "user_id": ["u"] * len(rows),
        "item_id": [item for item, *_ in rows],
        "time_ms": [time for _, time, _ in rows],
        "action": [action for *_, action in rows],
    }


EVENTS = events(
    ("a", at(-8), "view"),
    ("c", at(0, 8), "view"),
    ("d", at(0, 9), "order"),
    ("b", at(0, 11), "view"),
)


def train_counts(folder: Path, prefix: str) -> list[list[int]]:
    """By item, the counts whose names begin so, of the train day."""
    data = Dataset(folder)
    batch = data.split("train").batch(np.arange(4))
    columns = [i for i, n in enumerate(data.spec.cross.number_names) if n.startswith(prefix)]
    assert batch.cross.numbers.shape[1] == data.spec.cross.numbers
    order = np.argsort(batch.impression_index.numpy())
    numbers = np.expm1(batch.cross.numbers.numpy()[order][:, columns]).round()
    return [[int(value) for value in row] for row in numbers]


def test_the_loader_counts_values_that_no_vocabulary_knows(tmp_path: Path) -> None:
    data = prepared(tmp_path, schema(), impressions=impressions(), events=EVENTS, items=ITEMS)
    assert not data.vocabulary("item.kind") and not data.vocabulary("item.item_id")
    spec = Dataset(data.folder).spec
    assert list(spec.match_actions) == ["view", "order"]
    # 15min, 1h, 2d, realtime (since midnight), all, the newest event
    assert spec.match_windows_ms == (900_000, 3_600_000, 2 * 86_400_000), "of 8.5 days"
    assert train_counts(data.folder, "match_counts.item_id.view.") == [
        [0, 0, 0, 0, 1, 0],
        [0, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert train_counts(data.folder, "match_counts.item_id.order.")[3] == [0, 0, 1, 1, 1, 1]
    assert train_counts(data.folder, "match_counts.kind.view.") == [
        [0, 1, 1, 1, 2, 1],
        [0, 1, 1, 1, 2, 1],
        [0, 0, 0, 0, 0, 0],  # c has no kind, and the event of c neither
        [0, 0, 0, 0, 0, 0],
    ]
    # b and c are in one bucket of two; d has no size
    assert train_counts(data.folder, "match_counts.size.view.all") == [[1], [2], [2], [0]]
    dataset = Dataset(data.folder)
    batch = dataset.split("train").batch(np.arange(4))
    ages = batch.cross.numbers[:, dataset.spec.cross.numbers_of("match_age")[:2]].double().numpy()
    hours = np.expm1(ages[:, 0] * np.log1p(10 * 8760))[np.argsort(batch.impression_index.numpy())]
    np.testing.assert_allclose(hours, [204, 1, 4, 3], rtol=1e-5)
    assert not ages[:, 1].any()
    totals = np.expm1(batch.context.numbers.numpy()).round().astype(int)
    # view, order and other in 15min, 1h, 2d, realtime, all
    assert totals.tolist() == [[0, 1, 2, 2, 3, 0, 0, 1, 1, 1] + [0] * 5] * len(totals)
    assert data("items/keys").shape == (5, 3) and data("items/keys")[0].tolist() == [0, 0, 0]
    assert data("train/cross.numbers").shape == (4, 0), "nothing of it is stored by impression"


def test_lists_and_hashed_ids_match_by_any_value_and_by_raw_keys(tmp_path: Path) -> None:
    """A hash of one row: two kinds have one id, but their keys differ."""
    text = schema("match_counts: {columns: [tags, kind]}").replace(
        "kind: {type: categorical, vocabulary: {min_count: 99}}",
        "kind: {type: categorical, hash: {rows: 1}}\n"
        "    tags: {type: categorical, multi: true, vocabulary: {min_count: 2}}",
    )
    items = {**ITEMS, "tags": [["x", "y"], ["y", "y"], None, ["x", "rare"]]}
    data = prepared(tmp_path, text, impressions=impressions(), events=EVENTS, items=items)
    names = Dataset(data.folder).spec.cross.number_names
    assert names[0].startswith("match_counts.kind.") and names[-1] == "match_age.tags.missing"
    # events: view of a (x, y), view of c (none), order of d (x), view of b (y)
    assert train_counts(data.folder, "match_counts.tags.view.all") == [[2], [2], [0], [1]]
    assert train_counts(data.folder, "match_counts.tags.order.all") == [[1], [0], [0], [1]]
    assert train_counts(data.folder, "match_counts.tags.view.last") == [[1], [1], [0], [0]]
    assert train_counts(data.folder, "match_counts.kind.view.all") == [[2], [2], [0], [0]]


def test_the_windows_fit_the_log_or_are_the_schemas(tmp_path: Path) -> None:
    """Of impressions as events too; events without a time and of valid days do not count."""
    recent = events(("a", at(0, 8), "view"), ("c", at(0, 9), "view"))
    timeless = {**recent, "time_ms": [None, at(0, 9)]}
    tables = {"impressions": impressions(), "items": ITEMS}
    for name, text, log, windows in (
        ("hours", schema(), recent, (900_000, 3_600_000)),  # 4 h
        ("timeless", schema(), timeless, (900_000, 3_600_000)),  # 3 h
        ("own", schema("match_counts: {windows: [2h]}"), recent, (7_200_000,)),
        ("none", schema("match_counts: {windows: []}"), recent, ()),
    ):
        (tmp_path / name).mkdir()
        data = Dataset(prepared(tmp_path / name, text, events=log, **tables).folder)
        assert data.spec.match_windows_ms == windows, name


def test_a_delay_hides_events_from_the_counts(tmp_path: Path) -> None:
    data = prepared(
        tmp_path, schema("delay: 61min"), impressions=impressions(), events=EVENTS, items=ITEMS
    )
    assert train_counts(data.folder, "match_counts.item_id.view.all") == [[1], [0], [1], [0]]


def test_turned_off_nothing_is_added(tmp_path: Path) -> None:
    off = schema("match_counts: false")
    data = prepared(tmp_path, off, impressions=impressions(), events=EVENTS, items=ITEMS)
    dataset = Dataset(data.folder)
    assert dataset.spec.match_actions == {} and dataset.spec.cross.numbers == 0
    assert not (data.folder / "items" / "keys.npy").exists()
    assert dataset.split("train").batch(np.arange(4)).cross.numbers.shape == (4, 0)


def test_impressions_as_events_match_by_their_labels(tmp_path: Path) -> None:
    plain = PLAIN + "features: {item: {item_id: {type: categorical}}}\n"
    rows = [
        ("u", "i", at(0), 1),
        ("u", "i", at(0, 1), 0),
        ("u", "i", at(1), 0),
        ("u", "j", at(2), 0),
    ]
    data = Dataset(prepared(tmp_path, plain, impressions=shown(rows)).folder)
    assert sorted(data.spec.match_actions) == ["click", "impression"]
    names = data.spec.cross.number_names
    numbers = data.split("valid").batch(np.arange(1)).cross.numbers[0]
    for action in ("click", "impression"):
        assert numbers[names.index(f"match_counts.item_id.{action}.all")] == np.log1p(np.float32(1))


def test_named_actions_are_counted_apart_and_all_others_together(tmp_path: Path) -> None:
    rows = [("a", at(0, n), action) for n, action in enumerate(("x", "y", "z", None, "x"))]
    tables = {"impressions": impressions(), "events": events(*rows), "items": ITEMS}
    counts = "match_counts.item_id."
    data = prepared(tmp_path, schema("match_counts: {actions: [y]}"), **tables)
    assert train_counts(data.folder, f"{counts}y.all")[0] == [1]
    assert train_counts(data.folder, f"{counts}other.all")[0] == [4]
    (tmp_path / "most").mkdir()
    data = prepared(tmp_path / "most", schema("match_counts: {actions: 1}"), **tables)
    assert list(Dataset(data.folder).spec.match_actions) == ["x"]
    assert train_counts(data.folder, f"{counts}x.all")[0] == [2]
    assert train_counts(data.folder, f"{counts}other.all")[0] == [3]


def test_an_action_that_no_event_has_is_refused_with_what_was_meant(tmp_path: Path) -> None:
    text = schema("match_counts: {actions: [view, oder]}")
    names = ("'oder'", "did you mean order?")
    with raises(SchemaError, *names, field="history.match_counts.actions"):
        prepared(tmp_path, text, impressions=impressions(), events=EVENTS, items=ITEMS)
    assert not (tmp_path / "data").exists()


def test_a_later_day_keeps_the_actions_of_the_first(tmp_path: Path) -> None:
    """A new action is one of the others; one that is forgotten keeps its column, which is empty."""
    first = prepared(tmp_path, schema(), impressions=impressions(), events=EVENTS, items=ITEMS)
    before = Dataset(first.folder).spec
    rows = [("a", at(9, 1), "wish"), ("a", at(9, 2), "wish"), ("a", at(9, 3), "view")]
    logs = write(
        tmp_path / "later",
        schema(first=14),
        impressions=impressions(9),
        events=events(*rows),
        items=ITEMS,
    )

    def later(name: str, vocabulary_ttl_days: int | None) -> Prepared:
        out = tmp_path / name
        return Prepared(
            out, prepare(logs, out, init_from=first.folder, vocabulary_ttl_days=vocabulary_ttl_days)
        )

    continued = later("kept", None)
    spec = Dataset(continued.folder).spec
    assert spec.match_actions == before.match_actions
    assert spec.match_windows_ms == before.match_windows_ms == (900_000, 3_600_000, 2 * 86_400_000)
    assert spec.cross.number_names == before.cross.number_names
    assert train_counts(continued.folder, "match_counts.item_id.view.all")[0] == [1]
    assert train_counts(continued.folder, "match_counts.item_id.other.all")[0] == [2]

    forgot = later("forgot", 1)
    spec = Dataset(forgot.folder).spec
    assert spec.match_actions == {**before.match_actions, "order": -1}
    assert spec.match_actions["view"] > UNKNOWN
    assert train_counts(forgot.folder, "match_counts.item_id.order.all")[0] == [0]
    assert train_counts(forgot.folder, "match_counts.item_id.other.all")[0] == [2]
