"""Training rows out of what was served and what came of it: by hand, and back through prepare and
train to the shards of the log.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.data.dataset import Dataset
from hemix.errors import DataError, UsageError
from hemix.preparation import prepare
from hemix.runs import Run
from hemix.schema import Schema
from hemix.serving.config import ServeConfig
from hemix.serving.engine import Engine
from hemix.serving.ranking_log import LoggingStore, RankingLog
from hemix.serving.ranking_log.tables import LogTables
from hemix.serving.ranking_log.training_rows import write_training_rows
from hemix.serving.stores import StoreLimits, open_store
from hemix.serving.types import Candidate, Event, RankRequest
from tests.planted import write_logs
from tests.refusals import raises
from tests.serving.parity import LoggedRequest, live_events, logged_requests, replayed
from tests.serving.ranking_log.rankings import logged_ranking

NOW = 1_768_000_000_000
SCHEMA = """
name: small
tables: {events: events, impressions: impressions}
history: {action: {column: what, vocabulary: {min_count: 1}}}
labels: {click: {column: clicked}, order: {given: click, available_at: ordered_at}}
roles: {request_id: request, bias: {column: position, max: 9}}
split: {valid: 2026-01-08, test: 2026-01-09}
"""
OUTPUTS = {"click": 0.5, "order": 0.1, "order_given_click": 0.2}


def interaction(
    number: int, item: str, what: str, ranking: str | None = "r1", **more: Any
) -> Event:
    return Event(
        **{
            **dict(
                id=f"e{number}",
                kind="interaction",
                time_ms=NOW + number,
                user="u",
                item=item,
                action=what,
                ranking=ranking,
            ),
            **more,
        }
    )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RankingLog]:
    made = RankingLog(tmp_path / "served", Schema.parse(SCHEMA))
    yield made
    made.close()


def log_four_items(log: RankingLog) -> None:
    """Log a ranking of a, b, c and d and close the log. d was not shown, b was clicked, c ordered
    twice.
    """
    items = ("a", "b", "c", "d")
    request = RankRequest(id="r1", user="u", time_ms=NOW, items=tuple(Candidate(i) for i in items))
    log.log_ranking(logged_ranking(request, OUTPUTS))
    log.log_events(
        [
            interaction(1, "a", "seen", kind="impression", fields={"position": 7}),
            interaction(2, "b", "seen", kind="impression"),
            interaction(3, "b", "clicked"),
            interaction(5, "c", "click"),
            interaction(6, "c", "order"),
            interaction(7, "c", "order"),
            interaction(8, "d", "click", ranking=None),
            interaction(9, "d", "click", ranking="another"),
        ],
        1,
    )
    log.close()


def test_labels_are_what_the_events_say(log: RankingLog, tmp_path: Path) -> None:
    log_four_items(log)
    counts = write_training_rows(log.folder, tmp_path / "rows", log.schema)
    assert counts == {"rows": 4, "shown": 3, "events": 6, "click": 2, "order": 1}
    table = pq.read_table(tmp_path / "rows" / "impressions")
    assert table.column_names == [
        "user_id",
        "item_id",
        "time_ms",
        "request",
        "position",
        "clicked",
        "order",
        "ordered_at",
    ]
    rows = table.to_pylist()
    assert [(r["item_id"], r["position"], r["clicked"], r["order"]) for r in rows] == [
        ("a", 7, 0, 0),
        ("b", 1, 1, 0),
        ("c", 2, 1, 1),
        ("d", 3, None, None),
    ]
    assert [r["ordered_at"] for r in rows] == [
        None,
        None,
        datetime.fromtimestamp((NOW + 6) / 1000, UTC),
        None,
    ]
    events = pq.read_table(tmp_path / "rows" / "events")
    assert events.column_names == ["user_id", "item_id", "time_ms", "what"]
    assert "seen" not in events["what"].to_pylist(), (
        "what was merely shown is in no history of the server's either"
    )


def test_a_used_folder_and_logs_that_cannot_be_read_are_refused(
    log: RankingLog, tmp_path: Path
) -> None:
    log_four_items(log)
    write_training_rows(log.folder, tmp_path / "rows", log.schema)
    with raises(UsageError, code="out_exists", field="--out"):
        write_training_rows(log.folder, tmp_path / "rows", log.schema)
    with raises(DataError, code="missing_file"):
        write_training_rows(tmp_path, tmp_path / "other", log.schema)
    (log.folder / "rankings" / "zz.parquet").write_bytes(b"PAR1")
    with raises(DataError, "zz.parquet", code="unreadable_file"):
        write_training_rows(log.folder, tmp_path / "other", log.schema)
    assert not (tmp_path / "other").exists()


def test_what_came_after_the_version_was_replaced_counts(log: RankingLog, tmp_path: Path) -> None:
    request = RankRequest(id="r1", user="u", time_ms=NOW, items=(Candidate("a"), Candidate("b")))
    log.log_ranking(logged_ranking(request, OUTPUTS))
    log.log_events(
        [interaction(n, item, "seen", kind="impression") for n, item in enumerate("ab")], 1
    )
    log.close()
    for name, schema in (
        ("next", SCHEMA),
        ("other", SCHEMA.replace("name: small", "name: small\nitem: sku")),
    ):
        after = RankingLog(tmp_path / name, Schema.parse(schema))
        after.log_events([interaction(3, "b", "clicked"), interaction(4, "b", "order")], 2)
        after.close()
    counts = write_training_rows(log.folder, tmp_path / "rows", log.schema)
    assert counts == {"rows": 2, "shown": 2, "events": 0, "click": 1, "order": 1}
    rows = pq.read_table(tmp_path / "rows" / "impressions").to_pylist()
    assert [(r["item_id"], r["clicked"], r["order"]) for r in rows] == [("a", 0, 0), ("b", 1, 1)]


@dataclasses.dataclass(frozen=True)
class Log:
    """Rankings of items a and b, events, and what becomes of them."""

    folder: Path
    schema: Schema

    def write(
        self, rankings: Sequence[tuple[str, str, int]], events: Sequence[Event], name: str = "m-1"
    ) -> None:
        """``rankings``: (id, user, time)."""
        log = RankingLog(self.folder / name, self.schema)
        for id_, user, time_ms in rankings:
            request = RankRequest(
                id=id_, user=user, time_ms=time_ms, items=(Candidate("a"), Candidate("b"))
            )
            outputs = dict.fromkeys(self.schema.outputs, 0.5)
            log.log_ranking(logged_ranking(request, outputs, version=name[2:]))
        log.log_events(list(events), 1)
        log.close()

    def rows(self, *columns: str, name: str = "m-1") -> dict[tuple[str, int, str], tuple[Any, ...]]:
        """(user, time from NOW, item) -> columns, of rows that somebody saw."""
        out = self.folder / f"rows-{name}"
        self.counts.update(write_training_rows(self.folder / name, out, self.schema))
        rows = pq.read_table(out / "impressions").to_pylist()
        return {
            (r["user_id"], round(r["time_ms"].timestamp() * 1000) - NOW, r["item_id"]): tuple(
                r[c] for c in columns
            )
            for r in rows
            if r[columns[0]] is not None
        }

    counts: dict[str, int] = dataclasses.field(default_factory=dict)


CHAIN = SCHEMA.replace(
    "labels: {click: {column: clicked}, order: {given: click, available_at: ordered_at}}",
    "labels: {click: {column: clicked, available_at: clicked_at}, order: {given: click, "
    "available_at: ordered_at}, "
    "again: {given: order, available_at: again_at}, like: {}}",
)


@pytest.mark.parametrize("kind", ["impression", "interaction"])
@pytest.mark.parametrize("what", ["click", "clicked"])
def test_an_event_of_either_kind_whose_type_is_a_label_is_a_positive(
    tmp_path: Path, kind: Any, what: str
) -> None:
    log = Log(tmp_path, Schema.parse(SCHEMA))
    log.write(
        [("r1", "u", NOW)],
        [
            interaction(1, "a", what, kind=kind),
            interaction(2, "b", "impression", kind="impression"),
        ],
    )
    assert log.rows("clicked", "order") == {("u", 0, "a"): (1, 0), ("u", 0, "b"): (0, 0)}
    assert log.counts == {
        "rows": 2,
        "shown": 2,
        "events": int(kind == "interaction"),
        "click": 1,
        "order": 0,
    }


def test_whoever_did_what_a_label_depends_on_did_that_too(tmp_path: Path) -> None:
    log = Log(tmp_path, Schema.parse(CHAIN))
    log.write(
        [("r1", "u", NOW), ("r1", "v", NOW), ("r1", "w", NOW)],
        [
            interaction(5, "a", "again"),
            interaction(7, "b", "order"),
            interaction(9, "b", "click"),  # sent after the order that followed it
            interaction(3, "a", "click", user="v"),
            interaction(6, "a", "order", user="v"),
            interaction(4, "b", "like", user="v"),
        ],
    )
    later = RankingLog(tmp_path / "m-2", log.schema)
    later.log_events([interaction(8, "a", "order", user="w")], 2)
    later.close()

    def at(*ms: int | None) -> list[datetime | None]:
        return [None if m is None else datetime.fromtimestamp((NOW + m) / 1000, UTC) for m in ms]

    names = ("clicked", "order", "again", "like", "clicked_at", "ordered_at", "again_at")
    assert log.rows(*names) == {
        ("u", 0, "a"): (1, 1, 1, 0, *at(5, 5, 5)),
        ("u", 0, "b"): (1, 1, 0, 0, *at(7, 7, None)),
        ("v", 0, "a"): (1, 1, 0, 0, *at(3, 6, None)),
        ("v", 0, "b"): (0, 0, 0, 1, *at(None, None, None)),
        ("w", 0, "a"): (1, 1, 0, 0, *at(8, 8, None)),
    }
    assert (log.counts["click"], log.counts["order"], log.counts["again"], log.counts["like"]) == (
        4,
        4,
        1,
        1,
    )


def test_a_ranking_id_is_its_users(tmp_path: Path) -> None:
    log = Log(tmp_path, Schema.parse(SCHEMA))
    log.write(
        [("1", "u", NOW), ("1", "v", NOW)],
        [interaction(1, "a", "click", "1", user="v"), interaction(2, "b", "click", "1", user="w")],
    )
    assert log.rows("clicked") == {("v", 0, "a"): (1,)}
    assert (log.counts["rows"], log.counts["shown"], log.counts["click"]) == (4, 1, 1)


def test_an_event_answers_to_the_newest_ranking_of_its_time(tmp_path: Path) -> None:
    log = Log(tmp_path, Schema.parse(SCHEMA))
    log.write(
        [("r1", "u", NOW), ("r1", "u", NOW + 1000)],
        [
            interaction(500, "a", "click"),
            interaction(
                999, "b", "seen", kind="impression"
            ),  # a ranking without a time is of the next millisecond
            interaction(5000, "b", "order"),
            interaction(-9, "b", "click"),  # before all: by another clock
        ],
    )
    assert log.rows("clicked", "order") == {
        ("u", 0, "a"): (1, 0),
        ("u", 0, "b"): (1, 0),
        ("u", 1000, "b"): (1, 1),
    }


def test_a_request_that_is_sent_again_is_labelled_once(tmp_path: Path) -> None:
    log = Log(tmp_path, Schema.parse(SCHEMA))
    log.write(
        [("r1", "u", NOW), ("r1", "u", NOW), ("r2", "u", NOW), ("r3", "u", NOW)],
        [interaction(1, "a", "click")],
    )
    log.write(
        [("r2", "u", NOW + 4)],
        [interaction(9, "a", "click", "r2"), interaction(9, "b", "click", "r2", id="e10")],
        "m-2",
    )
    other = Log(tmp_path, Schema.parse(SCHEMA.replace("name: small", "name: small\nitem: sku")))
    other.write([("r2", "u", NOW + 4)], [], "m-3")
    log.rows("clicked")
    assert (log.counts["rows"], log.counts["shown"], log.counts["click"]) == (8, 1, 1), (
        "r2 was answered by version 2"
    )
    assert log.rows("clicked", name="m-2") == {("u", 4, "a"): (1,), ("u", 4, "b"): (1,)}


BAD_POSITIONS = [True, -1, 1.5, 1e99, 10**19, float("nan"), float("inf"), "3", [2], {"a": 1}]


@pytest.mark.parametrize("position", [*BAD_POSITIONS, None, 2.0, 0, 2**53])
def test_a_position_that_cannot_be_one_is_left_aside_and_counted(
    tmp_path: Path, position: Any
) -> None:
    log = Log(tmp_path, Schema.parse(SCHEMA))
    usable = position in (2.0, 0, 2**53) and position is not True
    log.write(
        [("r1", "u", NOW)],
        [
            interaction(n, item, "seen", kind="impression", fields={"position": p})
            for n, (item, p) in enumerate([("a", position), ("b", 7)])
        ],
    )
    log.write(
        [], [interaction(0, "a", "seen", kind="impression", fields={"position": position})], "m-2"
    )  # the same event
    assert log.rows("position") == {
        ("u", 0, "a"): (int(position) if usable else 0,),
        ("u", 0, "b"): (7,),
    }
    assert log.counts.get("positions_left_out") == (None if usable or position is None else 1)


def test_a_usable_position_goes_before_one_that_is_not(tmp_path: Path) -> None:
    log = Log(tmp_path, Schema.parse(SCHEMA))
    events = [
        interaction(n, "a", "seen", kind="impression", fields={"position": p})
        for n, p in enumerate([True, 4, 5])
    ]
    log.write([("r1", "u", NOW)], events)
    assert log.rows("position")[("u", 0, "a")] == (4,) and log.counts["positions_left_out"] == 1


@pytest.mark.parametrize(
    ("features", "valid", "values", "kind"),
    [
        ("", 6, {6: 6.0, 6.5: 6.5, "7": 7.0, "x": None, True: None, "nan": None}, pa.float64()),
        ("context: {day: {type: categorical}}", 6, {6: 6.0, "7": 7.0}, pa.float64()),
        ("cross: {day: {type: numeric}}", 6, {6: 6.0}, pa.float64()),
        ("", "2026-01-06", {"2026-01-07": "2026-01-07", 6: "6", (1, 2): None}, pa.string()),
    ],
)
def test_the_column_that_divides_the_log_is_of_the_kind_of_its_boundaries(
    features: str, valid: Any, values: dict[Any, Any], kind: pa.DataType
) -> None:
    later = "2026-01-07" if isinstance(valid, str) else 7
    split = (
        f"name: small\nlabels: {{click: {{}}}}\nfeatures: {{{features}}}\nsplit: {{column: day, "
        f"valid: {valid}, test: {later}}}\n"
    )
    columns = LogTables(Schema.parse(split))
    for value, logged in values.items():
        given = {"day": list(value) if isinstance(value, tuple) else value}
        of_request, of_item = ({}, given) if "cross" in features else (given, {})
        request = RankRequest(
            id="r", user="u", time_ms=NOW, items=(Candidate("a", of_item),), context=of_request
        )
        table = columns.rankings([logged_ranking(request, {"click": 0.5})], ["r#1"])
        assert table["day"].type == kind and table["day"].to_pylist() == [logged]


def test_older_logs_are_divided_too(tmp_path: Path) -> None:
    log = Log(
        tmp_path,
        Schema.parse("name: small\nlabels: {click: {}}\nsplit: {column: day, valid: 6, test: 7}\n"),
    )
    log.write([("r1", "u", NOW)], [interaction(1, "a", "click")])
    [path] = (tmp_path / "m-1" / "rankings").iterdir()
    table = pq.read_table(path)
    pq.write_table(
        table.set_column(table.column_names.index("day"), "day", pa.array(["6", "x"])), path
    )  # as text, once
    log.rows("click")
    days = pq.read_table(tmp_path / "rows-m-1" / "impressions")["day"]
    assert (days.type, days.to_pylist()) == (pa.float64(), [6.0, None])


def log_outcomes(log: RankingLog, impressions: list[tuple[RankRequest, dict[str, Any]]]) -> None:
    """Log every impression, click and order as an event."""
    for n, (request, row) in enumerate(impressions):
        common: dict[str, Any] = dict(
            user=request.user, item=row["item_id"], time_ms=request.time_ms, ranking=request.id
        )
        log.log_events(
            [Event(id=f"s{n}", kind="impression", fields={"position": row["position"]}, **common)],
            n,
        )
        for label in ("click", "order"):
            if row[label]:
                log.log_events(
                    [Event(id=f"{label}{n}", kind="interaction", action=label, **common)], n
                )


def test_a_log_that_was_served_and_answered_prepares_to_the_same_rows(
    planted_run: Path, tmp_path: Path
) -> None:
    """Every request of the log ranked, every impression and outcome sent as events: prepare makes
    the same rows of either. (An item twice in a request is one to its events, so such rows become
    equal, are dropped, and are left out here.)
    """
    small = write_logs(tmp_path / "small", users=8)
    prepare(small, tmp_path / "data")
    run, data = Run.load(planted_run), Dataset(tmp_path / "data")
    shown = pq.read_table(small / "impressions.parquet").to_pylist()
    store = open_store("memory://", StoreLimits(ttl_ms=None))
    log = RankingLog(tmp_path / "served", run.schema)
    logged = LoggingStore(store, log)
    engine = Engine(run, logged, ServeConfig(store_timeout=20), log=log)
    requests = [
        LoggedRequest(
            dataclasses.replace(one.request, id=f"{split}-{one.request.id}"), one.log_rows
        )
        for split in ("train", "valid", "test")
        for one in logged_requests(small, data, split)
    ]
    requests.sort(key=lambda one: one.request.time_ms)
    impressions = []
    for one in replayed(logged, live_events(small, run.schema), requests):
        engine.rank([one.request])
        impressions += [(one.request, shown[row]) for row in one.log_rows]
    log_outcomes(log, impressions)
    log.close()
    assert log.dropped == 0

    counts = write_training_rows(log.folder, tmp_path / "logs", run.schema)
    assert (
        counts["shown"] == counts["rows"] == len(shown)
        and counts["click"] >= sum(row["click"] for row in shown) > 20
    )
    for table in ("items.parquet", "users.parquet", "events.parquet"):
        shutil.copy(small / table, tmp_path / "logs" / table)
    schema = (
        (small / "schema.yaml")
        .read_text()
        .replace("tables: {", "tables: {impressions: impressions, ")
    )
    (tmp_path / "logs" / "schema.yaml").write_text(schema)
    prepare(tmp_path / "logs", tmp_path / "again")
    again = Dataset(tmp_path / "again")
    times = Counter((request.id, row["item_id"]) for request, row in impressions)
    once = [(r, row) for r, row in impressions if times[r.id, row["item_id"]] == 1]
    assert len(once) > 0.8 * len(impressions)
    for name in ("train", "test"):
        ours, theirs = (
            row_count(d, name, {(r.user, r.time_ms, str(row["item_id"])) for r, row in once})
            for d in (data, again)
        )
        assert len(ours) > 30 and ours == theirs


def row_count(data: Dataset, name: str, wanted: set[tuple[str, int, str]]) -> list[tuple[Any, ...]]:
    """User, time, item, position, labels and cuts' lengths of a split's rows, sorted."""
    part = data.split(name)
    item_ids = pq.read_table(data.folder / "ids" / "items.parquet")["id"]
    number = np.load(data.folder / "items" / "number.npy")
    batch = part.batch(np.arange(part.requests))
    assert (
        batch.impression_index is not None
        and batch.labels is not None
        and batch.weights is not None
    )
    rows, request = batch.impression_index.numpy(), batch.request_index.numpy()
    users = data.user_ids(part.users_of(request)).to_pylist()
    items = item_ids.take(pa.array(number[part.item_row[rows]])).to_pylist()
    lengths = batch.history_ranges.diff(dim=1)[batch.request_index].tolist()
    columns = zip(
        users,
        part.time_ms[request].tolist(),
        items,
        batch.bias.tolist(),
        batch.labels.tolist(),
        batch.weights.tolist(),
        lengths,
        strict=True,
    )
    return sorted(row for row in columns if row[:3] in wanted)
