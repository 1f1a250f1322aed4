"""Whole logs of a few rows, prepared and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hemix.data.layout import SPLITS
from hemix.data.spec import MISSING, TIMELESS_MS, UNKNOWN
from hemix.errors import UsageError
from hemix.preparation import prepare
from tests.data.small import ONE_EACH, PLAIN, at, prepared, shown, write
from tests.planted import write_logs
from tests.preparation.same_bytes import file_hashes
from tests.preparation.test_inputs import arrays
from tests.refusals import raises


def columns(table: dict[str, list[object]], **more: object) -> dict[str, object]:
    return {**table, **more}


# -- order, numbers, splits ------------------------------------------------------------------------


def test_numbers_are_the_order_of_appearance_in_impressions_then_events_then_tables(
    tmp_path: Path,
) -> None:
    data = prepared(
        tmp_path,
        PLAIN + "tables: {events: events.parquet, users: users.parquet}",
        impressions=shown([("b", 7, at(0), 1), ("a", 9, at(1), 0), ("b", 7, at(2), 0)]),
        events={"user_id": ["c", "a"], "item_id": [5, 7], "time_ms": [at(0), at(0)]},
        users={"user_id": ["d", "a"]},
    )
    assert data.users() == ["b", "a", "c", "d"]
    assert data.items() == [7, 9, 5]
    assert data("items/number").tolist() == [-1, 0, 1, 2]
    assert data("items/first_row").tolist() == [1, 2, 3, 4]
    assert data("history/offsets").tolist() == [0, 0, 1, 2, 2]  # an unknown user's event is kept


def test_requests_are_sorted_by_user_then_time(tmp_path: Path) -> None:
    rows = [
        ("b", "i", at(0, 5), 1),
        ("a", "j", at(0, 2), 0),
        ("b", "j", at(0, 1), 0),
        ("a", "i", at(1), 0),
        ("a", "i", at(2), 1),
    ]
    data = prepared(tmp_path, impressions=shown(rows))
    assert data("train/user").tolist() == [0, 0, 1]
    assert data("train/time_ms").tolist() == [at(0, 1), at(0, 5), at(0, 2)]
    assert data("train/log_row").tolist() == [2, 0, 1]
    assert data("train/labels").tolist() == [[0], [1], [0]]
    assert data("train/first_candidate").tolist() == [0, 1, 2, 3]
    assert data.manifest["impressions"]["disorder"] == 1  # b's second row lies before the first
    assert data.manifest["splits"]["train"]["positives"] == {"click": 1}


def test_a_date_is_local_and_rows_outside_start_and_end_are_only_history(tmp_path: Path) -> None:
    schema = """
    name: zoned
    clock: {timezone: Asia/Shanghai}
    labels: {click: {}}
    split: {start: 2026-01-05, valid: 2026-01-06, test: 2026-01-07 12:00, end: 2026-01-08}
    """
    times = [at(-1, 15), at(-1, 16), at(0, 15), at(0, 16), at(2, 3), at(2, 4), at(2, 15), at(2, 16)]
    data = prepared(tmp_path, schema, impressions=shown([("u", "i", t, 0) for t in times]))
    assert data("train/time_ms").tolist() == times[1:3]
    assert data("valid/time_ms").tolist() == times[3:5]
    assert data("test/time_ms").tolist() == times[5:7]
    assert data.manifest["impressions"]["outside_split"] == 2
    assert data("history/time_ms").tolist() == times


@pytest.mark.parametrize(
    ("values", "valid", "test"),
    [
        (pa.array([20260105, 20260106, 20260107]), "20260106", "20260107"),
        (pa.array(["a", "b", "c"]), "b", "c"),
        (pa.array([5, 6, 7], pa.date32()), "1970-01-07", "1970-01-08"),
        (pa.array([0.5, 1.5, 2.5]), "1", "2.5"),
    ],
)
def test_a_named_column_splits_by_its_own_values(
    tmp_path: Path, values: pa.Array, valid: str, test: str
) -> None:
    schema = (
        f"{{name: x, labels: {{click: {{}}}}, split: {{column: part, valid: {valid}, test: "
        f"{test}}}}}"
    )
    same_time = shown([("u", "i", at(0), 0), ("u", "j", at(0), 0), ("u", "k", at(0), 0)])
    data = prepared(tmp_path, schema, impressions=columns(same_time, part=values))
    assert [int(data(f"{split}/log_row")[0]) for split in SPLITS] == [0, 1, 2]


def test_exact_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [("u", "i", at(0), 1, other) for other in (3, 3, 4)] + [
        ("u", "i", at(day), 0, 3) for day in (1, 2)
    ]
    data = prepared(tmp_path, impressions=shown(rows, "not_in_the_schema"))
    assert data("train/log_row").tolist() == [0, 2]
    assert data.manifest["impressions"]["duplicates"] == 1
    assert data.manifest["splits"]["train"]["rows"] == 2


# -- requests --------------------------------------------------------------------------------------

REQUESTS = PLAIN + "roles: {request_id: request}\nfeatures: {context: {city: {type: categorical}}}"


def test_rows_of_a_request_are_its_candidates_at_its_earliest_time(tmp_path: Path) -> None:
    rows = [
        ("u", "i", at(0, 3), 1, "r2", "x"),
        ("u", "j", at(0, 2), 0, "r2", "x"),
        ("u", "i", at(0, 1), 0, "r1", "y"),
        ("u", "k", at(0, 3), 0, "r2", "x"),
        ("u", "i", at(1), 0, "r3", "x"),
        ("u", "i", at(2), 0, "r4", "x"),
    ]
    data = prepared(tmp_path, REQUESTS, impressions=shown(rows, "request", "city"))
    assert data("train/time_ms").tolist() == [at(0, 1), at(0, 2)]
    assert data("train/first_candidate").tolist() == [0, 1, 4]
    assert data("train/log_row").tolist() == [2, 0, 1, 3]
    assert data.manifest["impressions"]["requests_of_several_times"] == 1
    city = data.vocabulary("context.city")
    assert city == {"x": 2}  # every impression counts: x three times in train, y once
    assert data("train/context.ids").tolist() == [[UNKNOWN], [2]]


def test_a_request_in_two_splits_is_two_requests(tmp_path: Path) -> None:
    schema = (
        "{name: x, labels: {click: {}}, roles: {request_id: request}, split: {column: part, "
        "valid: 1, test: 2}}"
    )
    rows = [
        ("u", "i", at(0), 1, "r", 0),
        ("u", "j", at(0), 1, "r", 1),
        ("u", "k", at(0), 0, "r", 1),
        ("u", "i", at(0), 0, "s", 2),
    ]
    data = prepared(tmp_path, schema, impressions=shown(rows, "request", "part"))
    assert [data(f"{split}/first_candidate").tolist() for split in SPLITS] == [
        [0, 1],
        [0, 2],
        [0, 1],
    ]


# -- labels and roles ------------------------------------------------------------------------------


def test_labels_as_of_the_first_valid_moment_and_the_end_of_the_log(tmp_path: Path) -> None:
    schema = """
    name: late
    labels: {click: {}, order: {given: click, available_at: ordered, maturity: 2h}}
    split: {valid: 2026-01-06, test: 2026-01-07}
    """
    rows = [
        ("u", "a", at(0, 10), 1, 1, at(1)),  # known at the first valid moment
        ("u", "b", at(0, 10), 1, 1, at(1) + 1),  # known too late for train
        ("u", "c", at(0, 22), 1, 0, None),  # just mature
        ("u", "d", at(0, 23), 1, 0, None),  # too young
        ("u", "e", at(0, 1), 0, 1, None),  # ordered without a click
        ("u", "f", at(1), 1, 1, at(2, 3)),  # mature, and known at the end of the log
        ("u", "g", at(2, 1), 1, 0, None),
        ("u", "h", at(2, 2), 1, 0, None),
        ("u", "i", at(2, 3), None, None, None),
    ]
    data = prepared(tmp_path, schema, impressions=shown(rows, "order", "ordered"))
    assert data("train/labels").tolist() == [
        [0, 0],
        [1, 1],
        [1, -1],
        [1, 0],
        [1, -1],
    ]  # in the order e a b c d
    assert data("valid/labels").tolist() == [[1, 1]]
    assert data("test/labels").tolist() == [[1, 0], [1, -1], [-1, -1]]
    assert data.manifest["impressions"]["given_violated"] == {"order": 1}
    assert data.manifest["splits"]["train"]["unknown"] == {"click": 0, "order": 2}


def test_weight_and_bias(tmp_path: Path) -> None:
    schema = PLAIN + "roles: {weight: w, bias: {column: position, serve_as: 2, max: 5}}"
    data = prepared(
        tmp_path,
        schema,
        impressions=columns(
            ONE_EACH, w=[0.5, 1.0, 0.0], position=pa.array([None, 99, 0], pa.int32())
        ),
    )
    assert [data(f"{split}/bias").tolist() for split in SPLITS] == [[2], [5], [0]]
    assert [data(f"{split}/weight").tolist() for split in SPLITS] == [[0.5], [1.0], [0.0]]
    (tmp_path / "plain").mkdir()
    plain = prepared(tmp_path / "plain", impressions=ONE_EACH)
    assert plain("train/bias").tolist() == [0] and plain("train/weight").tolist() == [1.0]


@pytest.mark.parametrize(
    ("roles", "weights"),
    [
        ("propensity: {column: p}", [2.0, 100.0, 1.0]),
        ("propensity: {column: p, floor: 0.25}, weight: w", [1.0, 12.0, 0.0]),
    ],
)
def test_weights_are_divided_by_propensities(
    tmp_path: Path, roles: str, weights: list[float]
) -> None:
    impressions = columns(ONE_EACH, w=[0.5, 3.0, 0.0], p=[0.5, 0.001, 1.0])
    data = prepared(tmp_path, PLAIN + f"roles: {{{roles}}}", impressions=impressions)
    assert [data(f"{split}/weight").tolist() for split in SPLITS] == [[w] for w in weights]


# -- encoders are fitted on train ------------------------------------------------------------------


def test_only_train_counts_and_users_count_by_their_impressions(tmp_path: Path) -> None:
    schema = (
        PLAIN
        + """
tables: {users: users.parquet, items: items.parquet}
features:
  user: {user_id: {type: categorical}, job: {type: categorical}}
  item: {item_id: {type: categorical}, kind: {type: categorical, vocabulary: {min_count: 2}}}
  context: {city: {type: categorical}}
history: {source: impressions}
"""
    )
    rows = [("u", "i", at(0), 1, "x"), ("u", "i", at(0, 1), 1, "x"), ("v", "j", at(0), 0, "z")]
    rows += [
        (user, "j", at(day, hour), 0, "z") for user in "uvw" for day in (1, 2) for hour in range(3)
    ]
    data = prepared(
        tmp_path,
        schema,
        impressions=shown(rows, "city"),
        users={"user_id": ["u", "v"], "job": ["cook", "pilot"]},
        items={"item_id": ["i", "j"], "kind": ["food", "film"]},
    )
    assert data.vocabulary("user.user_id") == {"u": 2}
    assert data.vocabulary("user.job") == {"cook": 2}
    assert data.vocabulary("context.city") == {"x": 2}
    # item i: two train impressions, j: one; the events that they amount to do not count
    assert data.vocabulary("item.kind") == {"food": 2}
    assert data("users/features.ids").tolist() == [[2, 2], [UNKNOWN, UNKNOWN], [UNKNOWN, MISSING]]
    assert data("items/features.ids").tolist() == [[UNKNOWN, MISSING], [2, 2], [UNKNOWN, UNKNOWN]]
    assert data("users/train_impressions").tolist() == [2, 1, 0]
    assert data("items/train_impressions").tolist() == [2, 1]
    assert data("items/train_positives").tolist() == [[2], [0]]
    rates = data.manifest["unknown_rate"]
    assert rates["train"]["user.user_id"] == pytest.approx(1 / 3, abs=1e-6)
    assert data.manifest["missing_rate"]["valid"]["user.job"] == pytest.approx(1 / 3, abs=1e-6)
    assert rates["valid"]["context.city"] == 1.0


def test_an_action_is_known_from_its_first_event_before_the_end_of_training(tmp_path: Path) -> None:
    schema = (
        PLAIN
        + "tables: {events: events.parquet}\nhistory: {action: {type: categorical, vocabulary: "
        "{min_count: 2}}}"
    )
    events = {
        "user_id": ["u"] * 6,
        "item_id": ["i"] * 6,
        "time_ms": [at(-9), None, at(0), at(0) + 1, at(1), at(2)],
        "action": ["a", "a", "b", "b", "c", "c"],
    }
    data = prepared(tmp_path, schema, impressions=ONE_EACH, events=events)
    # training ends with its newest impression, at(0); b occurs once until then, c after it.
    # a comes first: its two events lie before the first impression, so no label has caused them
    assert data.vocabulary("event.action") == {"a": 2, "b": 3}


# -- as-of -----------------------------------------------------------------------------------------


def test_versions_are_valid_from_their_start_time(tmp_path: Path) -> None:
    schema = (
        PLAIN
        + """
tables: {items: items.parquet, users: users.parquet, events: events.parquet}
valid_from: since
features:
  user: {user_id: {type: categorical, vocabulary: {min_count: 1}}, level: {type: categorical,
    vocabulary: {min_count: 1}}}
  item: {item_id: {type: categorical, vocabulary: {min_count: 1}}, price: {type: numeric,
    encoding: standardise}}
score: click * price
"""
    )
    rows = [
        ("u", "i", at(0, 5) - 1, 1),
        ("u", "i", at(0, 5), 1),
        ("u", "i", at(0, 6), 0),
        ("u", "i", at(1), 1),
        ("u", "i", at(2), 0),
    ]
    data = prepared(
        tmp_path,
        schema,
        impressions=shown(rows),
        events={"user_id": ["u"] * 3, "item_id": ["i"] * 3, "time_ms": [None, at(0, 4), at(0, 6)]},
        items={
            "item_id": ["i", "i", "i"],
            "since": [at(0, 6), at(0, 5), at(0, 5)],
            "price": [3.0, 1.0, 2.0],
        },
        users={"user_id": ["u", "u"], "since": [at(1), 0], "level": ["gold", "basic"]},
    )
    assert data("items/first_row").tolist() == [1, 4]
    assert data("items/valid_from_ms").tolist() == [TIMELESS_MS, TIMELESS_MS, at(0, 5), at(0, 6)]
    np.testing.assert_array_equal(
        data("items/raw")[:, 0], [np.nan, np.nan, 2.0, 3.0]
    )  # the last of two equal moments stays
    assert data.manifest["item_table"] == {
        "rows": 3,
        "versions": 4,
        "versioned": True,
        "duplicates": 1,
    }
    assert data("train/item_row").tolist() == [1, 2, 3]
    assert data("items/features.ids")[:, 0].tolist() == [
        UNKNOWN,
        2,
        2,
        2,
    ]  # before its first version an item is known
    assert data("history/item_row").tolist() == [1, 1, 3]
    assert data("users/valid_from_ms").tolist() == [TIMELESS_MS, at(1)]
    assert [data(f"{split}/user_row")[0] for split in SPLITS] == [0, 1, 1]


@pytest.mark.parametrize(("since", "price"), [(at(0, 1) + 1, 1.0), (at(0, 1), 2.0)])
def test_leak_no_version_from_after_the_request(tmp_path: Path, since: int, price: float) -> None:
    """A row that becomes valid a millisecond after the request is not looked up; one valid at the
    request is.
    """
    schema = PLAIN + "tables: {items: items.parquet}\nvalid_from: since\nscore: click * price"
    items = {"item_id": ["i", "i"], "since": [0, since], "price": [1.0, 2.0]}
    data = prepared(
        tmp_path,
        schema,
        impressions=shown([("u", "i", t, 1) for t in (at(0, 1), at(1), at(2))]),
        items=items,
    )
    assert data("items/raw")[data("train/item_row")].tolist() == [[price]]


def test_a_version_may_begin_at_a_timestamp(tmp_path: Path) -> None:
    schema = PLAIN + "tables: {items: items.parquet}\nvalid_from: since\nscore: click * price"
    since = pa.array([None, at(0, 5), at(1)], pa.timestamp("ms", tz="UTC"))
    items = {
        "item_id": ["i"] * 3,
        "since": since.cast(pa.timestamp("us", tz="UTC")),
        "price": [1.0, 2.0, 3.0],
    }
    data = prepared(
        tmp_path,
        schema,
        impressions=shown([("u", "i", t, 1) for t in (at(0, 1), at(1), at(2))]),
        items=items,
    )
    assert data("items/valid_from_ms").tolist() == [TIMELESS_MS, TIMELESS_MS, at(0, 5), at(1)]
    assert data("items/raw")[data("train/item_row")].tolist() == [[1.0]]


def test_the_last_row_of_an_id_is_used_without_versions(tmp_path: Path) -> None:
    schema = (
        PLAIN + "tables: {users: users.parquet}\nfeatures: {user: {age: {type: numeric, encoding: "
        "standardise}}}"
    )
    data = prepared(
        tmp_path, schema, impressions=ONE_EACH, users={"user_id": ["u", "u"], "age": [1.0, 5.0]}
    )
    assert data.manifest["user_table"]["duplicates"] == 1
    assert data("users/features.numbers").tolist() == [[0.0, 0.0]]  # (5 - mean 5) / 1


# -- histories -------------------------------------------------------------------------------------

EVENTS = (
    PLAIN + "tables: {events: events.parquet}\nhistory: {action: {type: categorical, vocabulary: "
    "{min_count: 1}}}"
)


def test_events_are_sorted_by_user_and_time_and_ties_keep_the_order_of_the_log(
    tmp_path: Path,
) -> None:
    events = {
        "user_id": ["u", "w", "u", "u", "u", "u", "u"],
        "item_id": ["i", "i", "j", "k", "l", "l", "l"],
        "time_ms": [at(0, 3), at(0), at(0, 1), at(0, 1), None, None, at(0, 1)],
        "action": ["view"] * 7,
    }
    events = {name: [*values, values[2]] for name, values in events.items()}  # the third row again
    data = prepared(tmp_path, EVENTS, impressions=ONE_EACH, events=events)
    item = data("items/number")[data("history/item_row")]
    assert [data.items()[i] for i in item] == ["l", "l", "j", "k", "l", "i", "i"]
    assert data("history/time_ms").tolist() == [
        TIMELESS_MS,
        TIMELESS_MS,
        at(0, 1),
        at(0, 1),
        at(0, 1),
        at(0, 3),
        at(0),
    ]
    assert data("history/offsets").tolist() == [0, 6, 7]
    history = data.manifest["history"]
    assert (history["events"], history["timeless"], history["duplicates"], history["disorder"]) == (
        7,
        2,
        1,
        1,
    )
    assert (history["users_with_events"], history["p50"], history["max"]) == (2, 1, 6)


def test_impressions_as_events_have_the_deepest_label_that_was_known_immediately(
    tmp_path: Path,
) -> None:
    schema = """
    name: own
    labels: {click: {}, order: {given: click, available_at: ordered}, praise: {given: order}}
    features: {context: {city: {type: categorical}}}
    history: {fields: {city: {type: categorical, vocabulary: {min_count: 1}}}}
    split: {valid: 2026-01-06, test: 2026-01-07}
    """
    rows = [
        ("u", "a", at(0, 1), 0, 0, None, 0, "x"),
        ("u", "b", at(0, 2), 1, 0, None, 0, "x"),
        ("u", "c", at(0, 3), 1, 1, at(0, 5), 0, "y"),  # the order becomes known two hours later
        ("u", "d", at(0, 4), 1, 1, at(0, 4), 0, "x"),  # at once
        ("u", "e", at(1), None, None, None, None, "x"),
        ("u", "f", at(2), 1, 1, at(2), 1, "x"),
    ]
    data = prepared(tmp_path, schema, impressions=shown(rows, "order", "ordered", "praise", "city"))
    names = {number: text for text, number in data.vocabulary("event.action").items()}
    action = [names.get(i, "?") for i in data("history/ids")[:, 0].tolist()]
    assert data("history/time_ms").tolist() == [
        at(0, 1),
        at(0, 2),
        at(0, 3),
        at(0, 4),
        at(0, 5),
        at(1),
        at(2),
    ]
    # every label is a known action, whether or not train holds a positive of it
    assert data.vocabulary("event.action") == {"click": 2, "impression": 3, "order": 4, "praise": 5}
    assert action == ["impression", "click", "click", "order", "order", "impression", "praise"]
    city = data.vocabulary("event.city")
    assert data("history/ids")[:, 1].tolist() == [city[c] for c in "xxyxyxx"]
    item = data("items/number")[data("history/item_row")].tolist()
    assert item == [0, 1, 2, 3, 2, 4, 5]


def test_event_times_may_be_in_another_column_and_fields_are_encoded(tmp_path: Path) -> None:
    schema = (
        PLAIN
        + """
tables: {events: events.parquet}
clock: {timezone: Asia/Shanghai}
history: {clock_column: happened, fields: {hour: {type: clock, part: hour},
  seconds: {type: numeric, buckets: 2}}}
"""
    )
    events = {
        "user_id": ["u", "u"],
        "item_id": ["i", "i"],
        "happened": [at(0, -3), None],
        "seconds": [1.0, 9.0],
    }
    rows = [("u", "i", at(0, 1), 1), ("u", "i", at(1), 0), ("u", "i", at(2), 0)]
    data = prepared(tmp_path, schema, impressions=shown(rows), events=events)
    # nobody asked for an action and there is none: missing. 21:00 UTC is 5:00 in Shanghai
    assert data("history/ids").tolist() == [[MISSING, MISSING, 3], [MISSING, 2 + 5, 2]]


# -- distances, truth ------------------------------------------------------------------------------


def test_distances_and_coordinates(tmp_path: Path) -> None:
    schema = (
        PLAIN
        + """
tables: {items: items.parquet}
features:
  context: {here: {type: coordinates, latitude: lat, longitude: lon}}
  item: {place: {type: coordinates, latitude: lat, longitude: lon}}
  cross: {far: {type: distance, between: [context.here, item.place], buckets: 2}}
"""
    )
    rows = [
        ("u", "i", at(0), 1, 31.0, 121.0),
        ("u", "j", at(0, 1), 1, 31.0, 121.0),
        ("u", "k", at(0, 2), 0, 31.0, 121.0),
    ]
    rows += [("u", "i", at(1), 1, 30.0, 121.0), ("u", "i", at(2), 1, None, 121.0)]
    items = {"item_id": ["i", "j"], "lat": [31.0, 31.5], "lon": [121.0, 121.0]}
    data = prepared(tmp_path, schema, impressions=shown(rows, "lat", "lon"), items=items)
    assert data("train/cross.ids")[:, 0].tolist() == [
        2,
        3,
        MISSING,
    ]  # 0 km, 56 km, item without a place
    assert data("valid/cross.ids").tolist() == [[3]]
    assert data("test/cross.ids").tolist() == [[MISSING]]
    np.testing.assert_array_equal(data("items/coordinates")[1:3], [[31.0, 121.0], [31.5, 121.0]])
    assert np.isnan(data("items/coordinates")[[0, 3]]).all()
    assert data("items/features.numbers")[3].tolist() == [0.0, 0.0, 1.0]


def test_truth_is_aligned_with_the_rows(tmp_path: Path) -> None:
    schema = PLAIN + "tables: {truth: truth.parquet}"
    rows = [
        ("b", "i", at(0, 5), 1),
        ("a", "j", at(0, 2), 0),
        ("b", "j", at(0, 1), 0),
        ("a", "i", at(1), 0),
        ("a", "i", at(2), 1),
    ]
    data = prepared(
        tmp_path, schema, impressions=shown(rows), truth={"p_click": [0.0, 0.1, 0.2, 0.3, 0.4]}
    )
    assert data("truth/train").tolist() == [[0.2], [0.0], [0.1]]
    assert data("truth/valid").tolist() == [[0.3]]
    assert data("truth/test").tolist() == [[0.4]]


# -- the same bytes --------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("source", ["events", "impressions"])
def test_the_memory_limit_changes_no_byte(tmp_path: Path, source: str, partitions: int) -> None:
    logs = write_logs(tmp_path / "logs", users=7, days=5)
    if source == "impressions":
        text = (logs / "schema.yaml").read_text()
        (logs / "schema.yaml").write_text(text.replace("events: events.parquet, ", ""))
    hashes = []
    for rows in (7, 61, 10_000):
        prepare(logs, tmp_path / str(rows), memory_rows=rows, partitions=partitions)
        hashes.append(file_hashes(tmp_path / str(rows)))
    assert len(hashes[0]) > 60
    assert hashes[0] == hashes[1] == hashes[2]


def test_a_folder_of_files_is_one_table(tmp_path: Path) -> None:
    whole = prepared(tmp_path, impressions=ONE_EACH)
    logs = write(tmp_path / "parts", PLAIN + "tables: {impressions: days}")
    (logs / "days").mkdir()
    for day in range(3):
        day_rows = pa.table({name: values[day : day + 1] for name, values in ONE_EACH.items()})
        if day == 1:  # another writer, other types
            day_rows = day_rows.set_column(3, "click", pa.array([0], pa.int8())).set_column(
                0, "user_id", pa.array(["u"]).dictionary_encode()
            )
        pa.parquet.write_table(day_rows, logs / "days" / f"{day}.parquet")
    manifest = prepare(logs, tmp_path / "again", partitions=1)
    assert arrays(tmp_path / "again") == arrays(whole.folder)
    assert manifest["tables"]["impressions"] == {"rows": 3, "files": 3}


def test_the_clock_may_count_seconds(tmp_path: Path) -> None:
    milliseconds = prepared(tmp_path, impressions=ONE_EACH)
    (tmp_path / "s").mkdir()
    seconds = prepared(
        tmp_path / "s",
        PLAIN + "clock: {unit: s}",
        impressions=columns(ONE_EACH, time_ms=[t // 1000 for t in ONE_EACH["time_ms"]]),
    )
    assert seconds("test/time_ms").tolist() == milliseconds("test/time_ms").tolist() == [at(2)]


def test_only_the_result_remains_and_nothing_is_overwritten(tmp_path: Path) -> None:
    data = prepared(tmp_path, impressions=ONE_EACH)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "logs"]
    assert not (data.folder / "temporary").exists()
    with raises(UsageError, data.folder, code="out_exists", field="--out"):
        prepare(tmp_path / "logs", data.folder)
    (tmp_path / "empty").mkdir()
    prepare(tmp_path / "logs", tmp_path / "empty")  # an empty folder may be there
    assert (tmp_path / "empty" / "manifest.json").is_file()


def test_progress_is_reported(tmp_path: Path) -> None:
    logs, reports = write(tmp_path / "logs", impressions=ONE_EACH), []
    prepare(logs, tmp_path / "data", progress=lambda what, done: reports.append((what, done)))
    assert ("reading impressions", 1.0) in reports and ("writing", 1.0) in reports
    assert all(0 <= done <= 1 for _, done in reports)
