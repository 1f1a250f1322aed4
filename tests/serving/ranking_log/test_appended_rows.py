"""Training rows of what was served lie beside older logs in one folder of files, whatever types
those have.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import DataError
from hemix.preparation import prepare
from hemix.schema import Schema
from hemix.serving.field_validation import FieldValidator
from hemix.serving.ranking_log import RankingLog
from hemix.serving.ranking_log.split_column import SplitColumnFormat
from hemix.serving.ranking_log.tables import LoggedRanking
from hemix.serving.ranking_log.training_rows import write_training_rows
from hemix.serving.types import Candidate, Event, RankRequest
from tests.data.small import MONDAY_MS, PLAIN, Prepared, at, write
from tests.refusals import raises
from tests.serving.ranking_log.rankings import logged_ranking

NOW = at(2, 20)
DAYS = [at(n // 4, n) for n in range(12)]
"""Four rows of each split"""


def old_rows(**columns: Any) -> pa.Table:
    table = {
        "user_id": [n % 2 for n in range(12)],
        "item_id": [n % 3 for n in range(12)],
        "time_ms": DAYS,
        "click": [n % 2 for n in range(12)],
    }
    return pa.table({**table, **columns})


def served_one(context: dict[str, Any] | None = None) -> LoggedRanking:
    """A ranking of two items."""
    request = RankRequest(
        id="r", user="1", time_ms=NOW, items=(Candidate("1"), Candidate("2")), context=context or {}
    )
    return logged_ranking(request, {"click": 0.5})


def served_rows(folder: Path, schema: str, context: dict[str, Any]) -> Path:
    """One ranking, of whose items the first was clicked."""
    log = RankingLog(folder / "served", Schema.parse(schema))
    log.log_ranking(served_one(context))
    log.log_events(
        [
            Event(
                id="e",
                kind="interaction",
                time_ms=NOW,
                user="1",
                item="1",
                action="click",
                ranking="r",
            )
        ],
        1,
    )
    log.close()
    assert log.dropped == 0
    assert write_training_rows(log.folder, folder / "rows", log.schema)["rows"] == 2
    return folder / "rows"


def prepare_with_older_rows(
    folder: Path, schema: str, context: dict[str, Any], **columns: Any
) -> Prepared:
    """The log of three days and what was served on the third, prepared together."""
    rows = served_rows(folder, schema, context)
    logs = write(folder / "logs", schema)
    (logs / "impressions.parquet").mkdir()
    pq.write_table(old_rows(**columns), logs / "impressions.parquet" / "a.parquet")
    (rows / "impressions").rename(logs / "impressions.parquet" / "b")
    return Prepared(folder / "data", prepare(logs, folder / "data", partitions=1))


def context(kind: str) -> str:
    return PLAIN + f"features: {{context: {{f: {kind}}}}}\n"


def of_f(values: list[Any], kind: pa.DataType | None = None) -> dict[str, pa.Array]:
    return {"f": pa.array([values[n % len(values)] for n in range(12)], kind)}


ONE = "{type: categorical, vocabulary: {min_count: 1}}"


@pytest.mark.parametrize(
    ("schema", "columns", "context_fields"),
    [
        (PLAIN, {}, {}),
        (PLAIN, {"click": [bool(n % 2) for n in range(12)]}, {}),
        (PLAIN, {"click": pa.array([n % 2 for n in range(12)], pa.float16())}, {}),
        (PLAIN, {"time_ms": pa.array([t * 1000 for t in DAYS], pa.timestamp("us"))}, {}),
        (PLAIN, {"time_ms": pa.array(DAYS, pa.timestamp("ms", tz="Europe/Berlin"))}, {}),
        (PLAIN + "clock: {unit: s}\n", {"time_ms": [t / 1000 for t in DAYS]}, {}),
        (PLAIN, {"time_ms": pa.array([Decimal(t) for t in DAYS], pa.decimal128(20, 2))}, {}),
        (PLAIN, {"user_id": [float(n % 2) for n in range(12)]}, {}),
        (
            PLAIN,
            {"user_id": pa.array([Decimal(n % 2) for n in range(12)], pa.decimal128(20, 2))},
            {},
        ),
        (
            PLAIN,
            {"item_id": pa.array([n % 3 for n in range(12)], pa.uint64()).dictionary_encode()},
            {},
        ),
        (context(ONE), of_f([True, False]), {"f": True}),
        (context(ONE), of_f([date(2026, 1, 1), None]), {"f": "2026-01-01"}),
        (context(ONE), of_f([1.0, 0.5], pa.float32()), {"f": 1}),
        (context(ONE), of_f([Decimal("1.50"), Decimal(2)], pa.decimal128(9, 2)), {"f": 1.5}),
        (context(ONE), of_f([1, 2], pa.time32("s")), {"f": "00:00:01"}),
        (context("{type: numeric}"), of_f([True, False]), {"f": 1}),
        (context("{type: numeric}"), of_f([2**60 + 1, 2]), {"f": 1.5}),
        (
            context("{type: numeric, encoding: standardise}"),
            of_f([Decimal(1), Decimal(2)], pa.decimal128(30, 9)),
            {"f": 2},
        ),
        (
            context("{type: vector, size: 2}"),
            of_f([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)),
            {"f": [1.5, 2]},
        ),
        (context(ONE.replace("l,", "l, multi: true,")), of_f([[1, 7], [2, 7]]), {"f": [1, 7]}),
        (
            context(ONE.replace("l,", "l, multi: true,")),
            of_f([[True], [False, None]]),
            {"f": [False]},
        ),
    ],
)
def test_prepared_together(
    tmp_path: Path, schema: str, columns: dict[str, Any], context_fields: dict[str, Any]
) -> None:
    data = prepare_with_older_rows(tmp_path, schema, context_fields, **columns)
    splits = data.manifest["splits"]
    assert [split["rows"] for split in splits.values()] == [4, 4, 6] and data.manifest[
        "impressions"
    ]["duplicates"] == 0
    assert splits["test"]["positives"]["click"] == 3 and splits["test"]["unknown"]["click"] == 1
    assert sorted(map(str, data.users())) == ["0", "1"] and sorted(map(str, data.items())) == [
        "0",
        "1",
        "2",
    ]
    assert (
        data.manifest["unknown_rate"]["test"].get("context.f", 0) == 0
    )  # what was said live is what the log holds


SPLITS = {
    "a text day": (
        "valid: 2026-01-06, test: 2026-01-07",
        ["2026-01-05", "2026-01-06", "2026-01-07"],
        None,
        {},
        "2026-01-07",
    ),
    "a date": (
        "valid: 2026-01-06, test: 2026-01-07",
        [20458, 20459, 20460],
        pa.date32(),
        {},
        "2026-01-07",
    ),
    "a moment": (
        "valid: 2026-01-06, test: 2026-01-07",
        DAYS[::4],
        pa.timestamp("ms"),
        {},
        "2026-01-07",
    ),
    "a moment with a zone": (
        "valid: 2026-01-06, test: 2026-01-07",
        DAYS[::4],
        pa.timestamp("ms", "UTC"),
        {},
        "2026-01-07",
    ),
    "a whole number day": (
        "valid: 20260106, test: 20260107",
        [20260105, 20260106, 20260107],
        pa.int32(),
        {},
        20260107,
    ),
    "an hour": (
        "valid: 2026010600, test: 2026010700",
        [2026010500, 2026010605, 2026010709],
        pa.int64(),
        {},
        2026010720,
    ),
    "a text of digits": (
        "valid: '20260106', test: '20260107'",
        ["20260105", "20260106", "20260107"],
        None,
        {},
        "20260107",
    ),
    "a date cut by times": (
        "valid: 2026-01-06T00:00:00, test: 2026-01-07T00:00:00",
        [20458, 20459, 20460],
        pa.date32(),
        {},
        "2026-01-07T20:00:00",
    ),
    "a date cut by compact days": (
        "valid: '20260106', test: '20260107'",
        [20458, 20459, 20460],
        pa.date32(),
        {},
        "20260107",
    ),
    "a moment cut by compact days": (
        "valid: '20260106', test: '20260107'",
        DAYS[::4],
        pa.timestamp("ms"),
        {},
        "20260107",
    ),
    "a moment cut by UTC": (
        "valid: 2026-01-06T00:00:00Z, test: 2026-01-07T00:00:00Z",
        DAYS[::4],
        pa.timestamp("ms", "Asia/Tokyo"),
        {},
        "2026-01-07T20:00:00Z",
    ),
    "a text cut by UTC": (
        "valid: 2026-01-06T00:00:00Z, test: 2026-01-07T00:00:00Z",
        ["2026-01-05T03:00:00Z", "2026-01-06T03:00:00Z", "2026-01-07T03:00:00Z"],
        None,
        {},
        "2026-01-07T20:00:00Z",
    ),
    "a moment cut in two ways": (
        "valid: 2026-01-06, test: '2026-01-07 00:00'",
        DAYS[::4],
        pa.timestamp("ms"),
        {},
        "2026-01-07 20:00",
    ),
    "a week's day": (
        "valid: 2026-W02-2, test: 2026-W02-3",
        ["2026-W02-1", "2026-W02-2", "2026-W02-3"],
        None,
        {},
        "2026-W02-3",
    ),
    "a number with a point": (
        "valid: 20260106.0, test: 20260107.0",
        [20260105, 20260106, 20260107],
        pa.int64(),
        {},
        20260107,
    ),
    "a midnight beside dates": (
        "valid: '2026-01-06T00:00:00', test: '2026-01-07T00:00:00'",
        [20458, 20459, 20460],
        pa.date32(),
        {},
        "2026-01-07T20:00:00",
    ),
    "a day and a minute": (
        "valid: 2026-01-06, test: '2026-01-07 00:30'",
        DAYS[::4],
        pa.timestamp("ms"),
        {},
        "2026-01-07 20:00",
    ),
    "an offset": (
        "valid: '2026-01-06T01:00+01:00', test: '2026-01-07T01:00+01:00'",
        DAYS[::4],
        pa.timestamp("ms", "UTC"),
        {},
        "2026-01-07T21:00+01:00",
    ),
    "UTC as text": (
        "valid: '2026-01-06T00:00:00Z', test: '2026-01-07T00:00:00Z'",
        [f"2026-01-0{n}T00:00:00Z" for n in (5, 6, 7)],
        None,
        {},
        "2026-01-07T20:00:00Z",
    ),
    "UTC beside naive moments": (
        "valid: '2026-01-06T00:00:00Z', test: '2026-01-07T00:00:00Z'",
        DAYS[::4],
        pa.timestamp("ms"),
        {},
        "2026-01-07T20:00:00Z",
    ),
    "seconds": (
        f"valid: {at(1) // 1000}, test: {at(2) // 1000}",
        [t // 1000 for t in DAYS[::4]],
        None,
        {},
        NOW // 1000,
    ),
    "nanoseconds": (
        f"valid: {at(1)}000000, test: {at(2)}000000",
        [t * 10**6 for t in DAYS[::4]],
        None,
        {},
        NOW * 10**6,
    ),
    "milliseconds as text": (
        f"valid: '{at(1)}', test: '{at(2)}'",
        list(map(str, DAYS[::4])),
        None,
        {},
        str(NOW),
    ),
    "a moment that the request says": (
        "valid: 2026-01-06, test: 2026-01-07",
        DAYS[::4],
        pa.timestamp("ms", "Europe/Berlin"),
        {"dt": "2026-01-07T10:00:00Z"},
        "2026-01-07T10:00:00Z",
    ),
    "a part that the request says": ("valid: 1, test: 2", [0, 1, 2], pa.int8(), {"dt": 2}, 2),
    "a text part that the request says": (
        "valid: b, test: c",
        ["a", "b", "c"],
        None,
        {"dt": "c"},
        "c",
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_column_of_the_split(tmp_path: Path, name: str) -> None:
    boundaries, values, kind, context_fields, expected = SPLITS[name]
    schema = f"{{name: x, labels: {{click: {{}}}}, split: {{column: dt, {boundaries}}}}}"
    data = prepare_with_older_rows(
        tmp_path, schema, context_fields, dt=pa.array([values[n // 4] for n in range(12)], kind)
    )
    assert [split["rows"] for split in data.manifest["splits"].values()] == [4, 4, 6]
    written = pq.read_table(tmp_path / "logs" / "impressions.parquet" / "b")["dt"]
    assert written.to_pylist() == [expected, expected]


def test_a_strict_server_takes_the_column_of_the_split() -> None:
    schema = Schema.parse("{name: x, labels: {click: {}}, split: {column: dt, valid: 1, test: 2}}")
    checks = FieldValidator(schema, strict=True)
    assert checks.problem("context", {"dt": 2}) is None
    assert checks.problem("context", {"other": 2}) is not None


def test_a_part_of_which_nothing_is_known_is_null(tmp_path: Path) -> None:
    schema = "{name: x, labels: {click: {}}, split: {column: dt, valid: 1, test: 2}}"
    with raises(DataError, "row 0", field="dt"):
        prepare_with_older_rows(tmp_path, schema, {}, dt=[n // 4 for n in range(12)])


@pytest.mark.parametrize(
    ("boundaries", "expected"),
    [
        ("valid: 2026-01-06, test: 2026-01-07", "2026-01-05"),
        (
            "start: 2026-01-01 06:00, valid: 2026-01-06 06:00, test: 2026-01-07 06:00",
            "2026-01-05 08:00",
        ),
        ("valid: 2026/01/06, test: 2026/01/07", "2026/01/05"),
        ("valid: 2026-02, test: 2026-03", "2026-01"),
        ("valid: 202602, test: 202603", 202601),
        ("valid: 20260106, test: 20260107", 20260105),
        ("valid: 2026-01-06, test: '2026-01-07T12:00:00.5Z'", "2026-01-05T00:00:00.0Z"),
        ("valid: '2026-01-06 12', test: '2026-01-07'", "2026-01-05 08"),
        (f"valid: {at(1)}, test: {at(2)}", float(MONDAY_MS)),
        (f"valid: {at(1) // 1000}, test: {at(2) // 1000}.5, end: .inf", MONDAY_MS / 1000),
        ("valid: 1, test: 2", None),
        ("valid: 30000, test: 40000", None),
        ("valid: 0.5, test: 0.9", None),
    ],
)
def test_what_a_time_is_in_the_column_of_the_split(boundaries: str, expected: Any) -> None:
    """At midnight UTC of the Monday, eight o'clock in Shanghai."""
    schema = (
        "{name: x, labels: {click: {}}, clock: {timezone: Asia/Shanghai}, split: "
        f"{{column: dt, {boundaries}}}}}"
    )
    assert SplitColumnFormat(Schema.parse(schema)).value(MONDAY_MS) == expected


def test_events_too(tmp_path: Path) -> None:
    schema = (
        PLAIN
        + """
tables: {events: event_log}
history: {clock_column: when, action: {column: what, vocabulary: {min_count: 1}},
          fields: {paid: {type: numeric, buckets: 2}, flag: {type: categorical,
            vocabulary: {min_count: 1}}}}
"""
    )
    log = RankingLog(tmp_path / "served", Schema.parse(schema))
    event = Event(
        id="e",
        kind="interaction",
        time_ms=at(0, 2),
        user="1",
        item="2",
        action="buy",
        fields={"paid": 2, "flag": True, "more": [1]},
    )
    log.log_ranking(served_one())
    log.log_events([event], 1)
    log.close()
    write_training_rows(log.folder, tmp_path / "rows", log.schema)
    logs = write(tmp_path / "logs", schema, impressions=old_rows())
    older = {
        "user_id": pa.array([Decimal(1), Decimal(0)], pa.decimal128(20, 2)),
        "item_id": pa.array([2.0, 1.0], pa.float32()),
        "when": pa.array([at(0, 1) * 10**6, None], pa.timestamp("ns")),
        "what": pa.array(["buy", "see"]).dictionary_encode(),
        "paid": pa.array([2, None], pa.uint8()),
        "flag": [True, False],
        "blob": [b"\xff", None],
    }
    (logs / "event_log").mkdir()
    pq.write_table(pa.table(older), logs / "event_log" / "a.parquet")
    (tmp_path / "rows" / "events").rename(logs / "event_log" / "b")
    data = Prepared(tmp_path / "data", prepare(logs, tmp_path / "data", partitions=1))
    assert (data.manifest["history"]["events"], data.manifest["history"]["duplicates"]) == (3, 0)
    assert data.users() == ["0", "1"]
    assert data("history/time_ms")[1:].tolist() == [
        at(0, 1),
        at(0, 2),
    ]  # of user 1: in the log, and live
    ids = data("history/ids")
    assert ids[1].tolist() == ids[2].tolist() and (ids[1] >= 2).all()
