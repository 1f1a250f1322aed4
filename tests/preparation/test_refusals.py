"""Bad logs: each ends in one line that names the file, the column and the row, and leaves no
folder.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import HemixError, StorageError
from hemix.preparation import prepare
from tests.data.small import ONE_EACH, PLAIN, at, shown, write
from tests.planted import write_logs
from tests.refusals import raises

EVENTS = PLAIN + "tables: {events: events.parquet}\n"
ONE_EVENT = {"user_id": ["u"], "item_id": ["i"], "time_ms": [at(0)]}


def refusal(folder: Path, schema: str = PLAIN, **tables: Any) -> str:
    """The message of the refusal, with the logs folder left out; checks that it is one line and
    that nothing was made.
    """
    logs = write(folder / "logs", schema, **tables)
    return refused(logs, folder / "data")


def refused(logs: Path, out: Path) -> str:
    with pytest.raises(HemixError) as error:
        prepare(logs, out)
    message = str(error.value)
    assert "\n" not in message
    assert not out.exists() and not list(out.parent.glob(".*")), "something was left behind"
    return message.replace(str(logs), "LOGS")


def replaced(**columns: Any) -> dict[str, Any]:
    return {**ONE_EACH, **columns}


# -- files -----------------------------------------------------------------------------------------


def test_no_logs(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere", tmp_path / "data") == "LOGS: no such folder of logs"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty", tmp_path / "data") == (
        "LOGS: expected schema.yaml and Parquet tables, found an empty folder"
    )


def test_no_schema(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "impressions.parquet").write_bytes(b"")
    assert (
        refused(tmp_path / "logs", tmp_path / "data")
        == "LOGS/schema.yaml: cannot be read: No such file or directory"
    )


def test_no_such_table(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "LOGS/impressions.parquet: no such file (tables.impressions)"


def test_an_empty_folder_of_a_table(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", PLAIN + "tables: {impressions: days}")
    (logs / "days").mkdir()
    assert refused(logs, tmp_path / "data") == (
        "LOGS/days: expected Parquet files (*.parquet) in the folder (tables.impressions), found "
        "none"
    )


def test_not_parquet_and_truncated(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path, impressions=b"user_id,item_id\n")
        == "LOGS/impressions.parquet: not a Parquet file"
    )
    assert refusal(tmp_path, impressions=b"") == "LOGS/impressions.parquet: not a Parquet file"
    path = write(tmp_path / "logs", impressions=ONE_EACH) / "impressions.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert refused(path.parent, tmp_path / "data").startswith(
        "LOGS/impressions.parquet: truncated or damaged Parquet: "
    )


def test_damage_inside_names_the_row_group(tmp_path: Path) -> None:
    path = write(tmp_path / "logs", impressions=ONE_EACH) / "impressions.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=1)
    groups = pq.read_metadata(path)
    assert groups.num_row_groups > 2
    first, after = (groups.row_group(number).column(0).dictionary_page_offset for number in (1, 2))
    content = bytearray(path.read_bytes())
    content[first:after] = b"\xff" * (after - first)
    path.write_bytes(content)
    message = refused(path.parent, tmp_path / "data")
    assert message.startswith(
        f"LOGS/impressions.parquet: row group 1 of {groups.num_row_groups} is damaged: "
    )


def test_no_rows(tmp_path: Path) -> None:
    empty = pa.table(ONE_EACH).slice(0, 0)
    assert refusal(tmp_path, impressions=empty) == (
        "LOGS/impressions.parquet: expected at least one row (tables.impressions), found none"
    )


def test_files_of_a_folder_with_different_columns_are_refused(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", PLAIN + "tables: {impressions: days}")
    (logs / "days").mkdir()
    pq.write_table(pa.table(ONE_EACH), logs / "days" / "1.parquet")
    pq.write_table(pa.table(ONE_EACH).drop_columns("click"), logs / "days" / "2.parquet")
    assert refused(logs, tmp_path / "data") == (
        "LOGS/days/2.parquet: no column 'click' (labels.click), which other files of the folder "
        "have"
    )
    pq.write_table(pa.table(replaced(click=["a", "b", "c"])), logs / "days" / "2.parquet")
    assert refused(logs, tmp_path / "data") == (
        "LOGS/days/2.parquet: column 'click' (labels.click): expected a number, found string; "
        "1.parquet has int64"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([1, 2, 3]), pa.array([True, False, True])),
        (pa.array([1, 2, 3]), pa.array([1, 2, 3], pa.date32())),
        (pa.array([1, 2, 3], pa.timestamp("ms")), pa.array([1, 2, 3], pa.date32())),
        (pa.array([1.5, 2, 3]), pa.array([1, 2, 3], pa.time32("ms"))),
        (pa.array([[1], [2], []]), pa.array([[True], [], None])),
        (pa.array(["a", "b", "c"]), pa.array([{"a": 1}] * 3)),
        (pa.array([["a"], [], None]), pa.array(["a", "b", "c"])),
        (pa.array([1, 2, 3]), pa.array([1, 2, 3], pa.duration("s"))),
    ],
    ids=lambda values: str(values.type),
)
def test_types_of_two_files_whose_values_have_no_text_in_common(
    tmp_path: Path, one: pa.Array, other: pa.Array
) -> None:
    """The message has the column, its key, both types and both files."""
    multi = str(pa.types.is_list(one.type)).lower()
    schema = (
        PLAIN + "tables: {impressions: days}\nfeatures: {context: {f: {type: categorical, "
        f"multi: {multi}}}}}}}\n"
    )
    logs = write(tmp_path / "logs", schema)
    (logs / "days").mkdir()
    for name, values in (("1", one), ("2", other)):
        pq.write_table(pa.table({**ONE_EACH, "f": values}), logs / "days" / f"{name}.parquet")
    message = refused(logs, tmp_path / "data")
    assert message.startswith("LOGS/days/2.parquet: column 'f' (features.context.f): ")
    assert all(
        part in message
        for part in ("1.parquet", str(one.type).split("<")[0], str(other.type).split("<")[0])
    )


# -- columns ---------------------------------------------------------------------------------------


def test_a_missing_column_is_refused(tmp_path: Path) -> None:
    without = {name: values for name, values in ONE_EACH.items() if name != "click"}
    assert refusal(tmp_path, impressions=without) == (
        "LOGS/impressions.parquet: no column 'click' (labels.click); it has: user_id, item_id, "
        "time_ms"
    )


@pytest.mark.parametrize(
    ("more", "key", "column"),
    [
        ("roles: {request_id: r}", "roles.request_id", "r"),
        ("roles: {weight: w}", "roles.weight", "w"),
        ("roles: {propensity: {column: p}}", "roles.propensity.column", "p"),
        ("roles: {bias: {column: position}}", "roles.bias.column", "position"),
        ("features: {context: {city: {type: categorical}}}", "features.context.city", "city"),
        ("features: {cross: {far: {type: numeric, column: km}}}", "features.cross.far", "km"),
        ("history: {fields: {tab: {type: categorical}}}", "history.fields.tab", "tab"),
    ],
)
def test_every_column_of_the_schema_is_required(
    tmp_path: Path, more: str, key: str, column: str
) -> None:
    message = refusal(tmp_path, PLAIN + more, impressions=ONE_EACH)
    assert message.startswith(f"LOGS/impressions.parquet: no column {column!r} ({key}); it has: ")


def test_columns_of_the_other_tables(tmp_path: Path) -> None:
    action = EVENTS + "history: {action: {type: categorical, column: verb}}"
    assert "LOGS/events.parquet: no column 'verb' (history.action)" in refusal(
        tmp_path, action, impressions=ONE_EACH, events=ONE_EVENT
    )
    items = PLAIN + "tables: {items: items.parquet}\nfeatures: {item: {price: {type: numeric}}}"
    assert "LOGS/items.parquet: no column 'price' (features.item.price)" in refusal(
        tmp_path, items, impressions=ONE_EACH, items={"item_id": ["i"]}
    )
    score = PLAIN + "tables: {items: items.parquet}\nscore: click * price"
    assert "LOGS/items.parquet: no column 'price' (score)" in refusal(
        tmp_path, score, impressions=ONE_EACH, items={"item_id": ["i"]}
    )
    versions = PLAIN + "tables: {items: items.parquet}\nvalid_from: since"
    assert refusal(tmp_path, versions, impressions=ONE_EACH, items={"item_id": ["i"]}) == (
        "LOGS/items.parquet: no column 'since' (valid_from)"
    )
    truth = PLAIN + "tables: {truth: truth.parquet}"
    assert refusal(tmp_path, truth, impressions=ONE_EACH, truth={"p_click": [0.5]}) == (
        "LOGS/truth.parquet: expected 3 rows, one per impression, found 1"
    )


def test_features_need_their_table(tmp_path: Path) -> None:
    assert refusal(
        tmp_path, PLAIN + "features: {user: {age: {type: numeric}}}", impressions=ONE_EACH
    ) == ("features.user.age: column 'age' needs tables.users, which the schema does not name")


@pytest.mark.parametrize(
    ("more", "columns", "message"),
    [
        (
            "",
            {"time_ms": ["x", "y", "z"]},
            "column 'time_ms' (clock.column): expected a number or a timestamp, found string",
        ),
        (
            "",
            {"click": [[1], [0], [0]]},
            "column 'click' (labels.click): expected a number, found list",
        ),
        (
            "features: {context: {age: {type: numeric}}}",
            {"age": ["1", "2", "3"]},
            "column 'age' (features.context.age): expected a number, found string",
        ),
        (
            "features: {cross: {v: {type: vector, size: 3}}}",
            {"v": [1.0, 2.0, 3.0]},
            "column 'v' (features.cross.v): expected a list of 3 numbers, found double",
        ),
    ],
)
def test_types(tmp_path: Path, more: str, columns: dict[str, Any], message: str) -> None:
    assert message in refusal(tmp_path, PLAIN + more, impressions=replaced(**columns))


def test_event_fields_of_one_table_need_one_encoding(tmp_path: Path) -> None:
    schema = (
        PLAIN
        + """
features: {item: {item_id: {type: categorical, hash: {rows: 9}, table: item}}}
history: {fields: {item_id: {type: categorical, table: item}}}
"""
    )
    assert refusal(tmp_path, schema, impressions=ONE_EACH) == (
        "LOGS/schema.yaml: history.fields.item_id: shares table 'item' with "
        "features.item.item_id, but their encodings differ"
    )


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"click": [0, 2, 0]},
            "row 1: column 'click': expected a label 0 or 1 (null: unknown), found 2",
        ),
        (
            {"click": [0.0, float("nan"), 0.0]},
            "row 1: column 'click': expected a label 0 or 1 (null: unknown), found nan",
        ),
        (
            {"user_id": ["u", "u", None]},
            "row 2: column 'user_id': expected a value, found null; fill it, or drop such rows",
        ),
        (
            {"user_id": ["u", "", "u"]},
            "row 1: column 'user_id': expected an id, found an empty text; fill it, or drop such "
            "rows",
        ),
        (
            {"item_id": [b"i", b"j", b""]},
            "row 2: column 'item_id': expected an id, found an empty text; fill it, or drop such "
            "rows",
        ),
        (
            {"user_id": [b"u", b"\xe9", b"u"]},
            "row 1: column 'user_id': expected text in UTF-8, found the bytes b'\\xe9'",
        ),
        (
            {"time_ms": pa.array([at(0), 2**63, at(2)], pa.uint64())},
            "row 1: column 'time_ms': expected a time between 1990 and 2100 in ms, found "
            "9.22337203685478e+18, which",
        ),
        (
            {"item_id": [1.0, 2.0, float("nan")]},
            "row 2: column 'item_id': expected a finite number or null, found nan",
        ),
        (
            {"time_ms": [at(0), None, at(2)]},
            "row 1: column 'time_ms': expected a value, found null; fill it, or drop such rows",
        ),
        (
            {"time_ms": [at(0), at(1) // 1000, at(2)]},
            "row 1: column 'time_ms': looks like seconds: 1767657600 in milliseconds would be "
            "1970-01-21; set clock.unit: s",
        ),
        (
            {"time_ms": [at(0) * 1000, at(1), at(2)]},
            "row 0: column 'time_ms': looks like microseconds: 1.7675712e+15 in milliseconds is "
            "beyond all dates; "
            "set clock.unit: us",
        ),
        (
            {"time_ms": [5, at(1), at(2)]},
            "row 0: column 'time_ms': expected a time between 1990 and 2100 in ms, found 5, which",
        ),
    ],
)
def test_values(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    assert refusal(tmp_path, impressions=replaced(**columns)).startswith(
        f"LOGS/impressions.parquet: {message}"
    )


def test_milliseconds_are_detected_with_clock_unit_s(tmp_path: Path) -> None:
    assert "row 0: column 'time_ms': looks like milliseconds: 1767571200000 in seconds" in refusal(
        tmp_path, PLAIN + "clock: {unit: s}", impressions=ONE_EACH
    )


def test_the_row_is_counted_in_its_own_file(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", PLAIN + "tables: {impressions: days}")
    (logs / "days").mkdir()
    pq.write_table(pa.table(ONE_EACH), logs / "days" / "1.parquet")
    pq.write_table(pa.table(replaced(click=[0, 0, 7])), logs / "days" / "2.parquet")
    assert refused(logs, tmp_path / "data").startswith(
        "LOGS/days/2.parquet: row 2: column 'click': expected a label 0 or 1"
    )


@pytest.mark.parametrize(
    ("more", "columns", "message"),
    [
        (
            "roles: {weight: w}",
            {"w": [1.0, -1.0, 1.0]},
            "row 1: column 'w': expected a weight of at least 0, found -1",
        ),
        (
            "roles: {weight: w}",
            {"w": [1.0, None, 1.0]},
            "row 1: column 'w': expected a value, found null; fill it, or drop such rows",
        ),
        (
            "roles: {weight: w}",
            {"w": [1.0, 1e39, 1.0]},
            "row 1: column 'w': expected a weight of at most 1e+30, found 1e+39",
        ),
        *(
            (
                "roles: {propensity: {column: p}}",
                {"p": [1.0, 0.5, value]},
                f"row 2: column 'p': expected a probability above 0 and at most 1, found {value}; "
                "drop rows that cannot have been shown",
            )
            for value in (0, -1, 1.5)
        ),
        (
            "features: {context: {tags: {type: categorical, multi: true}}}",
            {"tags": [[b"a", None], None, [b"a", b"\xe9\xe8"]]},
            "row 2: column 'tags': expected text in UTF-8, found the bytes b'\\xe9\\xe8'",
        ),
        (
            "roles: {request_id: r}",
            {"r": [1.0, float("nan"), 2]},
            "row 1: column 'r': expected a finite number or null, found nan",
        ),
        (
            "roles: {request_id: r}",
            {"r": ["a", "b", None]},
            "row 2: column 'r': expected a value, found null; fill it, or drop such rows",
        ),
        (
            "features: {context: {age: {type: numeric}}}",
            {"age": [1.0, 2.0, float("inf")]},
            "row 2: column 'age': expected a finite number or null, found inf",
        ),
    ],
)
def test_values_of_roles_and_features(
    tmp_path: Path, more: str, columns: dict[str, Any], message: str
) -> None:
    assert (
        refusal(tmp_path, PLAIN + more, impressions=replaced(**columns))
        == f"LOGS/impressions.parquet: {message}"
    )


def test_values_of_events(tmp_path: Path) -> None:
    assert refusal(
        tmp_path,
        EVENTS,
        impressions=ONE_EACH,
        events={**ONE_EVENT, "user_id": pa.array([None], pa.string())},
    ) == (
        "LOGS/events.parquet: row 0: column 'user_id': expected a value, found null; fill it, or "
        "drop such rows"
    )
    assert "LOGS/events.parquet: row 0: column 'time_ms': looks like seconds" in refusal(
        tmp_path, EVENTS, impressions=ONE_EACH, events={**ONE_EVENT, "time_ms": [at(0) // 1000]}
    )


@pytest.mark.parametrize(
    ("table", "column"),
    [("events", "user_id"), ("events", "item_id"), ("users", "user_id"), ("items", "item_id")],
)
def test_ids_of_every_table(tmp_path: Path, table: str, column: str) -> None:
    schema = PLAIN + f"tables: {{{table}: {table}.parquet}}\n"
    for value, problem in (
        (b"", "expected an id, found an empty text"),
        (b"\xff", "expected text in UTF-8, found the bytes"),
    ):
        content = {
            "user_id": [b"u", b"u"],
            "item_id": [b"i", b"i"],
            "time_ms": [at(0)] * 2,
            column: [b"u", value],
        }
        folder = tmp_path / str(len(problem))
        folder.mkdir()
        message = refusal(folder, schema, impressions=ONE_EACH, **{table: content})
        assert message.startswith(f"LOGS/{table}.parquet: row 1: column {column!r}: {problem}")


def test_a_score_number_above_the_limit_is_refused(tmp_path: Path) -> None:
    schema = PLAIN + "tables: {items: items.parquet}\nscore: click * price"
    items = {"item_id": ["i", "j"], "price": [1.0, -1.7976931348623157e308]}
    assert refusal(tmp_path, schema, impressions=ONE_EACH, items=items) == (
        "LOGS/items.parquet: row 1: column 'price': expected a number of at most 1e+30, found "
        "-1.79769e+308"
    )


def test_events_without_a_known_user_are_refused(tmp_path: Path) -> None:
    message = refusal(
        tmp_path, EVENTS, impressions=ONE_EACH, events={**ONE_EVENT, "user_id": ["stranger"]}
    )
    assert message.startswith("LOGS/events.parquet: has no user of impressions.parquet: ")
    assert "column 'user_id' is string here and string there" in message


# -- splits and requests ---------------------------------------------------------------------------


def test_an_empty_split(tmp_path: Path) -> None:
    later = PLAIN.replace("2026-01-07", "2026-02-07")
    message = refusal(tmp_path, later, impressions=ONE_EACH)
    assert message.startswith(
        "LOGS/impressions.parquet: the test split is empty: no row with 2026-02-07 <= time_ms; "
    )
    assert "runs from 2026-01-05 00:00:00 to 2026-01-07 00:00:00" in message


def test_a_boundary_of_another_type_than_the_column_is_refused(tmp_path: Path) -> None:
    schema = "{name: x, labels: {click: {}}, split: {column: item_id, valid: 1, test: 2}}"
    assert refusal(tmp_path, schema, impressions=ONE_EACH) == (
        "split.valid: 1 does not compare with column 'item_id' of LOGS/impressions.parquet, which "
        "holds string"
    )
    clock = PLAIN.replace("2026-01-06", "soon").replace("2026-01-07", "sooner")
    assert refusal(tmp_path, clock, impressions=ONE_EACH).startswith(
        "split.valid: expected a date or time such as"
    )


REQUESTS = PLAIN + "roles: {request_id: r}\nfeatures: {context: {city: {type: categorical}}}"
LATER = [("u", "i", at(1), 0, "s", "x"), ("u", "i", at(2), 0, "t", "x")]


def test_a_request_of_two_users(tmp_path: Path) -> None:
    rows = [("u", "i", at(0), 1, "r", "x"), ("v", "j", at(0), 0, "r", "x"), *LATER]
    assert refusal(tmp_path, REQUESTS, impressions=shown(rows, "r", "city")) == (
        "LOGS/impressions.parquet: row 1: column 'r': the user (user_id) differs within request "
        "'r' (first row: 0)"
    )


def test_a_request_of_two_contexts(tmp_path: Path) -> None:
    rows = [("u", "i", at(0), 1, "r", "x"), ("u", "j", at(0), 0, "r", None), *LATER]
    assert refusal(tmp_path, REQUESTS, impressions=shown(rows, "r", "city")) == (
        "LOGS/impressions.parquet: row 1: column 'r': context feature 'city' differs within "
        "request 'r' (first row: 0)"
    )


# -- the disk --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        pytest.skip(f"NO SMALL DISK: mounting a tmpfs needs privileges ({done.stderr.strip()})")
    yield disk
    subprocess.run(
        ["umount", "--lazy", str(disk)], check=True
    )  # the error may still hold memory maps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("users", "processes", "partitions"), [(20, 1, 1), (60, 1, 8), (200, 1, 1), (60, 2, 2)]
)
def test_a_full_disk(
    small_disk: Path, tmp_path: Path, users: int, processes: int, partitions: int
) -> None:
    logs = write_logs(tmp_path / "logs", users=users)
    with raises(StorageError, f"{small_disk}/data/", code="disk_full"):
        prepare(logs, small_disk / "data", partitions=partitions, processes=processes)
    assert list(small_disk.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_disk_that_may_not_be_written(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", impressions=ONE_EACH)
    (tmp_path / "closed").mkdir(mode=0o500)
    with raises(StorageError, tmp_path / "closed", code="permission_denied"):
        prepare(logs, tmp_path / "closed" / "data")


@pytest.mark.parametrize("weight", [1e-31, 1e-50, 5e-324])
def test_a_weight_too_small_for_float32_is_refused(tmp_path: Path, weight: float) -> None:
    """Its row would count as none, without a word."""
    message = refusal(
        tmp_path, PLAIN + "roles: {weight: w}\n", impressions=replaced(w=[1.0, weight, 0.0])
    )
    assert message.startswith("LOGS/impressions.parquet: row 1: column 'w': ") and message.endswith(
        f"found {weight:g}"
    )


def test_small_weights_stay(tmp_path: Path) -> None:
    write(
        tmp_path / "logs",
        PLAIN + "roles: {weight: w}\n",
        impressions=replaced(w=[0.0, 1e-30, -0.0]),
    )
    prepare(tmp_path / "logs", tmp_path / "data")
    weights = [
        float(np.load(tmp_path / "data" / "partitions" / "00000" / split / "weight.npy")[0])
        for split in ("train", "valid", "test")
    ]
    assert weights == [0.0, float(np.float32(1e-30)), 0.0]


def test_column_names_with_invisible_characters_are_quoted(tmp_path: Path) -> None:
    """A byte order mark that a CSV left before the first column's name."""
    table = {
        ("\ufeffuser_id" if name == "user_id" else name): values
        for name, values in ONE_EACH.items()
    }
    assert "it has: '\\ufeffuser_id', item_id, " in refusal(tmp_path, impressions=table)


@pytest.mark.parametrize(
    ("value", "described"), [("", "an empty text"), (b"", "an empty text"), (None, "null")]
)
def test_a_request_without_an_id(tmp_path: Path, value: object, described: str) -> None:
    """All rows that lack one would be one request."""
    requests = pa.array([b"r" if isinstance(value, bytes) else "r", value, value])
    message = refusal(
        tmp_path, PLAIN + "roles: {request_id: r}\n", impressions=replaced(r=requests)
    )
    assert (
        message.startswith("LOGS/impressions.parquet: row 1: column 'r': expected ")
        and f"found {described}" in message
    )


@pytest.mark.parametrize("way", ["link", "absolute"])
def test_the_impressions_as_item_table_by_another_path(tmp_path: Path, way: str) -> None:
    """A label is no feature, whatever the path of its table is."""
    items = tmp_path / "logs" / "impressions.parquet" if way == "absolute" else "items.parquet"
    schema = (
        PLAIN + f"tables: {{items: {items}}}\nfeatures: {{item: {{a: {{type: numeric, column: "
        "click}}}\n"
    )
    logs = write(tmp_path / "logs", schema, impressions=ONE_EACH)
    (logs / "items.parquet").symlink_to(logs / "impressions.parquet")
    message = refused(logs, tmp_path / "data")
    assert "features.item.a: column 'click' is the column of labels.click" in message
