"""Tables that have no ids, or few, in common; events without an action; rates of lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hemix.display import manifest_summary
from hemix.errors import DataError
from tests.data.small import ONE_EACH, PLAIN, at, prepared, shown

IDS = "features: {user: {user_id: {type: categorical}}, item: {item_id: {type: categorical}}}\n"
READ = "features: {user: {age: {type: numeric}}, item: {brand: {type: categorical}}}\n"
BOTH = PLAIN + "tables: {items: items.parquet, users: users.parquet}\n"
EVENTS = PLAIN + "tables: {events: events.parquet}\n"
ALL = PLAIN + "tables: {events: events.parquet, items: items.parquet}\n"
USERS = {"user_id": ["u", "v"], "age": [1, 2]}


def items(*ids: Any) -> dict[str, Any]:
    return {"item_id": list(ids), "brand": ["a"] * len(ids)}


def impressions(*ids: Any, user: str = "u") -> dict[str, Any]:
    """An impression of every item on each of the three days."""
    return shown(
        [(user, item, at(day, hour), hour % 2) for day in range(3) for hour, item in enumerate(ids)]
    )


def events(*ids: Any, user: str = "u", **more: Any) -> dict[str, Any]:
    return {
        "user_id": [user] * len(ids),
        "item_id": list(ids),
        "time_ms": [at(0, n) for n in range(len(ids))],
    } | more


def notes(folder: Path, manifest: dict[str, Any]) -> list[str]:
    return [
        line
        for line in manifest_summary(manifest, folder).splitlines()
        if line.startswith("noted: ")
    ]


def refusal(folder: Path, schema: str, **tables: Any) -> str:
    with pytest.raises(DataError) as error:
        prepared(folder, schema, **tables)
    assert "\n" not in str(error.value) and not (folder / "data").exists()
    return str(error.value)


def test_an_item_table_without_items_of_the_impressions_is_refused(tmp_path: Path) -> None:
    message = refusal(
        tmp_path, BOTH + READ, impressions=impressions(1, 2), items=items("1.0", "2.0"), users=USERS
    )
    assert "items.parquet: has no item of impressions.parquet" in message
    assert "'1.0' (string)" in message and "'1' (int64)" in message and "'item_id'" in message


def test_a_user_table_without_users_of_the_impressions_is_refused(tmp_path: Path) -> None:
    users = {"user_id": [f"{i:05d}" for i in range(3)], "age": [1, 2, 3]}
    message = refusal(tmp_path, BOTH + READ, impressions=ONE_EACH, items=items("i"), users=users)
    assert "users.parquet: has no user of impressions.parquet" in message and "'00000'" in message


def test_a_table_used_by_the_score_only_is_checked(tmp_path: Path) -> None:
    schema = PLAIN + "tables: {items: items.parquet}\nscore: click * price\n"
    message = refusal(
        tmp_path, schema, impressions=ONE_EACH, items={"item_id": ["I"], "price": [1.0]}
    )
    assert "items.parquet: has no item of " in message


def test_a_table_without_used_columns_gives_a_note(tmp_path: Path) -> None:
    data = prepared(
        tmp_path,
        BOTH + IDS,
        impressions=ONE_EACH,
        items={"item_id": ["I", "J"]},
        users={"user_id": ["u"]},
    )
    assert data.manifest["join_rate"] == {"users": 1.0, "items": 0.0}
    (note,) = notes(tmp_path, data.manifest)
    assert "none of the impressions are of items in the item table; 'i'" in note


def test_join_rates_count_impressions_and_low_rates_give_a_note(tmp_path: Path) -> None:
    """Of 20 items each is shown once a day: 18 known ones are 90 %, 19 are 95 %."""
    twenty = [f"i{n:02d}" for n in range(20)]
    for known, noted in ((18, True), (19, False), (20, False)):
        folder = tmp_path / str(known)
        folder.mkdir()
        data = prepared(
            folder,
            BOTH + READ,
            impressions=impressions(*twenty),
            items=items(*twenty[:known]),
            users=USERS,
        )
        assert data.manifest["join_rate"] == {"users": 1.0, "items": known / 20}
        assert data.manifest["join_example"] == ({"items": f"i{known}"} if noted else {})
        assert len(notes(folder, data.manifest)) == noted
    more = impressions("a", "a", "a", "b")  # rows count, not ids
    more["time_ms"] = [time + n for n, time in enumerate(more["time_ms"])]
    (tmp_path / "rows").mkdir()
    data = prepared(tmp_path / "rows", BOTH + READ, impressions=more, items=items("a"), users=USERS)
    assert data.manifest["join_rate"]["items"] == 0.75


def test_tables_are_joined_by_text_and_by_id_whatever_their_version(tmp_path: Path) -> None:
    schema = BOTH + READ + "valid_from: since\n"
    table = items("1", "2") | {"since": [at(9), at(9)]}
    data = prepared(tmp_path, schema, impressions=impressions(1, 2), items=table, users=USERS)
    assert data.manifest["join_rate"] == {"users": 1.0, "items": 1.0} and not notes(
        tmp_path, data.manifest
    )


def test_events_without_known_items_are_refused_with_an_item_table(tmp_path: Path) -> None:
    shows = impressions(1, 2)
    message = refusal(
        tmp_path,
        ALL + IDS,
        impressions=shows,
        items={"item_id": [1, 2]},
        events=events("1.0", "2.0"),
    )
    assert "events.parquet: has no item of items.parquet or impressions.parquet" in message
    assert "'1.0' (string)" in message and "(int64)" in message


def test_events_of_items_in_the_table_or_the_impressions(tmp_path: Path) -> None:
    logged = events("i", "k", "k", "gone", action=["view"] * 4)
    data = prepared(
        tmp_path, ALL + IDS, impressions=ONE_EACH, items={"item_id": ["i", "k"]}, events=logged
    )
    assert data.manifest["join_rate"] == {"items": 1.0, "event_users": 1.0, "event_items": 0.75}
    (note,) = notes(tmp_path, data.manifest)
    assert "75.0% of the events" in note and "'gone'" in note


def test_events_of_other_items_are_allowed_without_an_item_table(tmp_path: Path) -> None:
    data = prepared(
        tmp_path,
        EVENTS + IDS,
        impressions=ONE_EACH,
        events=events("i", "x", "y", "z", action=["view"] * 4),
    )
    assert data.manifest["join_rate"]["event_items"] == 0.25
    assert not notes(tmp_path, data.manifest)
    (tmp_path / "none").mkdir()
    data = prepared(
        tmp_path / "none", EVENTS + IDS, impressions=ONE_EACH, events=events("i.0", action=["view"])
    )
    (note,) = notes(tmp_path, data.manifest)
    assert "none of the events are of items" in note and "'i.0'" in note


def test_events_of_other_users(tmp_path: Path) -> None:
    logged = events("i", "i", action=["view", "view"]) | {"user_id": ["u", "other"]}
    data = prepared(tmp_path, EVENTS, impressions=ONE_EACH, events=logged)
    assert data.manifest["join_rate"] == {"event_users": 0.5, "event_items": 1.0}
    assert "'other'" in notes(tmp_path, data.manifest)[0]
    (tmp_path / "none").mkdir()
    message = refusal(tmp_path / "none", EVENTS, impressions=ONE_EACH, events=events("i", user="U"))
    assert "events.parquet: has no user of impressions.parquet: column 'user_id'" in message


def test_impressions_alone_join_nothing(tmp_path: Path) -> None:
    data = prepared(tmp_path, PLAIN + IDS, impressions=ONE_EACH)
    assert (data.manifest["join_rate"], data.manifest["join_example"]) == ({}, {})


def test_events_without_an_action_are_noted_with_their_columns(tmp_path: Path) -> None:
    data = prepared(tmp_path, EVENTS, impressions=ONE_EACH, events=events("i", verb=["view"]))
    assert data.manifest["history"]["columns_without_action"] == [
        "user_id",
        "item_id",
        "time_ms",
        "verb",
    ]
    (note,) = notes(tmp_path, data.manifest)
    assert "'action'" in note and "user_id, item_id, time_ms, verb" in note
    named = EVENTS + "history: {action: {type: categorical, column: verb}}\n"
    for name, schema in (("named", named), ("events", EVENTS)):
        (tmp_path / name).mkdir()
        column = "verb" if name == "named" else "action"
        data = prepared(
            tmp_path / name, schema, impressions=ONE_EACH, events=events("i", **{column: ["view"]})
        )
        assert "columns_without_action" not in data.manifest["history"] and not notes(
            tmp_path, data.manifest
        )


def test_rates_of_lists_count_rows(tmp_path: Path) -> None:
    """Train knows a and b. Of the eight valid rows three have no tag, two hold an unknown one."""
    lists: list[Any] = [["a"], ["b", "a"]]
    lists += [["a"], ["a", "b"], [], None, [None], ["x"], ["x", "y", "a"], ["b", None], ["a"]]
    times = [at(0, 1), at(0, 2), *(at(1, hour) for hour in range(8)), at(2)]
    rows = shown([("u", "i", time, 0) for time in times]) | {
        "tags": pa.array(lists, pa.list_(pa.string()))
    }
    schema = (
        PLAIN
        + "features: {context: {tags: {type: categorical, multi: true, vocabulary: {min_count: "
        "1}}}}\n"
    )
    data = prepared(tmp_path, schema, impressions=rows)
    assert data.manifest["missing_rate"]["valid"]["context.tags"] == 3 / 8
    assert data.manifest["unknown_rate"]["valid"]["context.tags"] == 2 / 8
    assert data.manifest["missing_rate"]["train"]["context.tags"] == 0


def test_rates_of_an_item_tables_lists_count_impressions(tmp_path: Path) -> None:
    """Valid shows item a (a list of two known tags) once and item b (no tag) three times."""
    rows = shown(
        [
            ("u", "a", at(0), 0),
            *(("u", item, at(1, n), 0) for n, item in enumerate("abbb")),
            ("u", "a", at(2), 0),
        ]
    )
    table = {"item_id": ["a", "b"], "tags": pa.array([["x", "y"], []], pa.list_(pa.string()))}
    schema = (
        PLAIN
        + "tables: {items: items.parquet}\n"
        + (
            "features: {item: {tags: {type: categorical, multi: true, vocabulary: {min_count: "
            "1}}}}\n"
        )
    )
    data = prepared(tmp_path, schema, impressions=rows, items=table)
    assert data.manifest["missing_rate"]["valid"]["item.tags"] == 0.75
    assert data.manifest["unknown_rate"]["valid"]["item.tags"] == 0


@pytest.mark.parametrize("typed", [True, False])
def test_tables_without_rows(tmp_path: Path, typed: bool) -> None:
    """What an optional table does not hold is missing; a table without rows may not know its
    types.
    """
    text, number = (pa.string(), pa.int64()) if typed else (pa.null(), pa.null())
    logged = pa.table(
        {
            "user_id": pa.array([], text),
            "item_id": pa.array([], text),
            "time_ms": pa.array([], number),
        }
    )
    users = pa.table({"user_id": pa.array([], text), "age": pa.array([], number)})
    brands = pa.table({"item_id": pa.array([], text), "brand": pa.array([], text)})
    schema = (
        ALL.replace("items: items.parquet", "items: items.parquet, users: users.parquet") + READ
    )
    shows = impressions(1, 2)
    data = prepared(tmp_path, schema, impressions=shows, events=logged, items=brands, users=users)
    assert data.manifest["missing_rate"]["test"] == {"item.brand": 1.0, "user.age": 1.0}
    assert (data.manifest["join_rate"], data.manifest["history"]["events"]) == ({}, 0)
    assert [note.split()[-4] for note in notes(tmp_path, data.manifest)] == [
        "events",
        "items",
        "users",
    ]
    assert data.items() == [1, 2]
