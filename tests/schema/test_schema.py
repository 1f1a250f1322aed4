"""The schema: it survives its own YAML, its fingerprint follows its meaning, and each refusal names
a key.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hemix.errors import SchemaError
from hemix.moments import duration_ms
from hemix.schema import Schema
from tests.refusals import raises

RICH = """
name: rich-1.0_a
tables: {impressions: days,
  events: e.parquet, items: i.parquet, users: u.parquet, truth: truth/t.parquet}
user: uid
item: iid
clock: {column: at, unit: us, timezone: Asia/Shanghai}
valid_from: since
features:
  user:
    uid: {type: categorical, vocabulary: {min_count: 5, max_rows: 1000}}
    likes: {type: categorical, multi: true, max_values: 7, hash: {rows: 31}}
    income: {type: numeric, encoding: standardise, column: euros}
    embedding: {type: vector, size: 3, column: vec}
    home: {type: coordinates, latitude: lat, longitude: lon}
  context:
    hour: {type: clock, part: hour_of_week}
    place: {type: coordinates, latitude: c_lat, longitude: c_lon}
    age: {type: numeric, buckets: 4}
  item:
    iid: {type: categorical, table: things, vocabulary: {min_count: 1}}
    price: {type: numeric}
    place: {type: coordinates, latitude: lat, longitude: lon}
  cross:
    match: {type: categorical}
    far: {type: distance, between: [context.place, item.place], buckets: 9}
history:
  source: events
  clock_column: happened
  item_features: [iid]
  action: {column: verb, hash: {rows: 5}}
  fields:
    hour: {type: clock, part: hour}
    dwell: {type: numeric, buckets: 5}
    tab: {type: categorical, table: things, vocabulary: {min_count: 1}}
  global_length: 50
  realtime_length: 3
  realtime_window: 2h
  delay: 90s
labels:
  click: {column: is_click}
  order: {given: click, available_at: known, maturity: 3d}
roles: {request_id: r, weight: w, bias: {column: pos, serve_as: 1, max: 9},
  negative_sampling_rate: 0.1}
score: click * order_given_click^0.5 * price
split: {start: 2026-01-01, valid: 2026-01-15 06:00, test: 2026-01-16, end: 2026-02-01}
"""

PLAIN = "name: x\nlabels: {click: {}}\nsplit: {valid: 1, test: 2}\n"


def refusal(text: str) -> str:
    with pytest.raises(SchemaError) as error:
        Schema.parse(text, "s.yaml")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("s.yaml: ")
    return message.removeprefix("s.yaml: ")


def with_(**parts: str) -> str:
    """PLAIN with top-level keys replaced; values are YAML."""
    content = yaml.safe_load(PLAIN)
    content.update({key: yaml.safe_load(value) for key, value in parts.items()})
    return yaml.safe_dump(content, sort_keys=False)


# -- round trip ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [RICH, PLAIN], ids=["rich", "plain"])
def test_yaml_reads_back_what_was_written(text: str) -> None:
    schema = Schema.parse(text)
    again = Schema.parse(schema.to_yaml())
    assert again == schema
    assert again.fingerprint() == schema.fingerprint()
    assert again.to_yaml() == schema.to_yaml()


def test_the_rich_schema_has_its_values() -> None:
    schema = Schema.parse(RICH)
    assert (schema.history.delay_ms, schema.history.realtime_window_ms) == (90_000, 7_200_000)
    assert schema.labels["order"].maturity_ms == 3 * 86_400_000
    assert schema.split.valid == "2026-01-15 06:00"
    assert schema.split.test == "2026-01-16"
    assert schema.clock.per_second == 1_000_000
    assert list(schema.event_fields) == ["action", "hour", "dwell", "tab"]
    assert schema.event_item_features == ("iid",)


names = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
column = st.none() | names
categoricals = st.builds(
    lambda encoding, multi, column, most: {
        "type": "categorical",
        "multi": multi,
        "column": column,
        "max_values": most,
        **encoding,
    },
    st.sampled_from(
        [
            {},
            {"hash": {"rows": 3}},
            {"vocabulary": {"min_count": 4}},
            {"vocabulary": {"max_rows": 9}},
        ]
    ),
    st.booleans(),
    column,
    st.integers(1, 60),
)
numerics = st.builds(
    lambda encoding, buckets: {"type": "numeric", "encoding": encoding, "buckets": buckets},
    st.sampled_from(["quantile", "standardise"]),
    st.integers(2, 40),
)
vectors = st.builds(
    lambda size, column: {"type": "vector", "size": size, "column": column},
    st.integers(1, 9),
    column,
)
coordinates = st.builds(
    lambda a, b: {"type": "coordinates", "latitude": a, "longitude": b}, names, names
)
clocks = st.builds(
    lambda part: {"type": "clock", "part": part},
    st.sampled_from(["hour", "weekday", "hour_of_week"]),
)
features = {
    "user": categoricals | numerics | vectors | coordinates,
    "context": categoricals | numerics | vectors | coordinates | clocks,
    "item": categoricals | numerics | vectors | coordinates,
    "cross": categoricals | numerics | vectors,
}
duration = st.builds(
    lambda n, unit: f"{n}{unit}",
    st.integers(0, 999),
    st.sampled_from(["ms", "s", "min", "m", "h", "d"]),
)


@settings(max_examples=40, deadline=None)  # no timing assertion on a busy machine
@given(
    levels=st.fixed_dictionaries(
        {level: st.dictionaries(names, kind, max_size=3) for level, kind in features.items()}
    ),
    delay=duration,
    window=st.just("day") | duration,
    maturity=duration,
    rate=st.none() | st.floats(0.01, 1),
)
def test_any_schema_reads_back(
    levels: dict, delay: str, window: str, maturity: str, rate: float | None
) -> None:  # type: ignore[type-arg]
    content = {
        **yaml.safe_load(PLAIN),
        "features": levels,
        "history": {"delay": delay, "realtime_window": window},
        "labels": {"click": {"maturity": maturity}, "order": {"given": "click"}},
        "roles": {"negative_sampling_rate": rate},
    }
    schema = Schema.parse(yaml.safe_dump(content))
    again = Schema.parse(schema.to_yaml())
    assert again == schema
    assert again.fingerprint() == schema.fingerprint()


# -- fingerprint -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("column: is_click", "column: is_clicked"),
        ("delay: 90s", "delay: 91s"),
        ("realtime_window: 2h", "realtime_window: day"),
        ("maturity: 3d", "maturity: 4d"),
        ("available_at: known, ", ""),
        ("user: uid", "user: euros"),
        ("timezone: Asia/Shanghai", "timezone: UTC"),
        ("unit: us", "unit: ms"),
        ("valid_from: since", "valid_from: from"),
        ("min_count: 5", "min_count: 4"),
        ("buckets: 9", "buckets: 8"),
        ("part: hour_of_week", "part: weekday"),
        ("column: euros", "column: dollars"),
        ("serve_as: 1", "serve_as: 2"),
        ("negative_sampling_rate: 0.1", "negative_sampling_rate: 0.2"),
        ("score: click *", "score: order *"),
        ("test: 2026-01-16", "test: 2026-01-17"),
        ("global_length: 50", "global_length: 51"),
        ("weight: w, ", ""),
        ("users: u.parquet, ", ""),
        ("items: i.parquet, ", ""),
    ],
)
def test_the_fingerprint_changes_with_a_meaning(old: str, new: str) -> None:
    assert RICH.count(old) == 1
    assert Schema.parse(RICH.replace(old, new)).fingerprint() != Schema.parse(RICH).fingerprint()


def test_the_fingerprint_changes_with_the_funnel() -> None:
    funnel, apart = (
        with_(labels=f"{{click: {{}}, order: {{{given}}}}}") for given in ("given: click", "")
    )
    assert Schema.parse(funnel).fingerprint() != Schema.parse(apart).fingerprint()


def test_the_fingerprint_changes_with_the_presence_of_an_event_table() -> None:
    events = Schema.parse(PLAIN + "tables: {events: e.parquet}")
    assert events.fingerprint() != Schema.parse(PLAIN).fingerprint()
    unused = Schema.parse(PLAIN + "tables: {events: e.parquet}\nhistory: {source: impressions}")
    assert unused.fingerprint() != Schema.parse(PLAIN).fingerprint(), (
        "the event table is there, though not the history's source"
    )
    explicit = Schema.parse(PLAIN + "tables: {events: e.parquet}\nhistory: {source: events}")
    assert explicit.fingerprint() == events.fingerprint(), "the default, spelt out"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: rich-1.0_a", "name: other"),
        ("impressions: days", "impressions: nights"),
        ("events: e.parquet", "events: elsewhere/e2.parquet"),
        ("users: u.parquet", "users: u2.parquet"),
        (", truth: truth/t.parquet", ""),
    ],
)
def test_the_fingerprint_ignores_names_and_paths(old: str, new: str) -> None:
    assert RICH.count(old) == 1
    assert Schema.parse(RICH.replace(old, new)).fingerprint() == Schema.parse(RICH).fingerprint()


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["score", "log_row", "time_ms", "user_id", "item_id"])
def test_a_label_may_not_take_the_name_of_a_prediction_column(name: str) -> None:
    assert refusal(with_(labels=f"{{{name}: {{}}}}")) == (
        f"labels.{name}: the name is taken by a column of the predictions; choose another name"
    )


@pytest.mark.parametrize(
    "labels",
    [
        "{click: {}, order: {given: click}, order_given_click: {}}",
        "{click: {}, order_given_click: {}, order: {given: click}}",
    ],
    ids=["after", "before"],
)
def test_a_label_may_not_take_the_name_of_a_conditional_output(labels: str) -> None:
    assert "order_given_click: the name is taken by a column of the predictions" in refusal(
        with_(labels=labels)
    )


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"labels": "{}"}, "labels: "),
        ({"labels": "{a-b: {}}"}, "labels.a-b: expected a name of letters, digits and _"),
        (
            {"labels": "{order: {given: click}, click: {}}"},
            "labels.order.given: expected a label defined before it (none), got 'click'",
        ),
        (
            {"labels": "{click: {}, order: {given: clik}}"},
            "labels.order.given: expected a label defined before it (click), got 'clik'",
        ),
        (
            {"labels": "{click: {given: click}}"},
            "labels.click.given: expected a label defined before it (none), got 'click'",
        ),
        (
            {"labels": "{click: {maturity: 3}}"},
            "labels.click.maturity: expected a duration with a unit such as 30min, 2h or 7d",
        ),
        (
            {"history": "{delay: 5}"},
            "history.delay: expected a duration with a unit such as 30min, 2h or 7d, got 5",
        ),
        ({"history": "{delay: 5 weeks}"}, "history.delay: expected a duration with a unit"),
        ({"history": "{delay: -5s}"}, "history.delay: expected a duration with a unit"),
        (
            {"history": "{realtime_window: 3600}"},
            "history.realtime_window: expected a duration with a unit",
        ),
        (
            {"history": "{realtime_window: night}"},
            "history.realtime_window: expected a duration with a unit",
        ),
        ({"history": "{global_length: 0}"}, "history.global_length: "),
        ({"history": "{source: events}"}, "history.source: events needs tables.events"),
        ({"history": "{item_features: [price]}"}, "history.item_features: no item feature 'price'"),
        ({"history": "{action: {multi: true}}"}, "history.action: one value, not multi"),
        (
            {"history": "{fields: {action: {type: categorical}}}"},
            "history.fields.action: the action has a key of its own",
        ),
        (
            {"history": "{fields: {tags: {type: categorical, multi: true}}}"},
            "history.fields.tags: one-valued categorical",
        ),
        (
            {"history": "{fields: {x: {type: numeric, encoding: standardise}}}"},
            "history.fields.x: one-valued categorical",
        ),
        (
            {"clock": "{timezone: Berlin}"},
            "clock.timezone: expected an IANA time zone such as Asia/Shanghai, got 'Berlin'",
        ),
        ({"clock": "{timezone: ../etc}"}, "clock.timezone: expected an IANA time zone"),
        ({"clock": "{unit: h}"}, "clock.unit: "),
        ({"split": "{valid: 2, test: 1}"}, "split: expected valid < test, got 2 and 1"),
        ({"split": "{valid: 1, test: 1}"}, "split: expected valid < test, got 1 and 1"),
        ({"split": "{start: 3, valid: 2, test: 4}"}, "split: expected start < valid, got 3 and 2"),
        ({"split": "{valid: 2, test: 4, end: 4}"}, "split: expected test < end, got 4 and 4"),
        (
            {"split": "{valid: 2026-01-01, test: 4}"},
            "split: valid and test must be of one kind, got '2026-01-01' and 4",
        ),
        ({"split": "{valid: 2}"}, "split.test: missing"),
        (
            {"statistics": "{ctr: {label: click, by: [user], days: 7}}"},
            "statistics.ctr.days: unknown key",
        ),
        ({"statistics": "{ctr: {label: click, by: []}}"}, "statistics.ctr.by: "),
        (
            {"statistics": "{ctr: {label: click, by: [user], smoothing: 0}}"},
            "statistics.ctr.smoothing: ",
        ),
        (
            {"statistics": "{ctr: {label: buy, by: [user]}}"},
            "statistics.ctr.label: expected one of click, got 'buy'",
        ),
        (
            {"statistics": "{ctr: {label: click, by: [user, item.brand]}}"},
            "statistics.ctr.by: expected user, item or a feature as level.name, got 'item.brand'",
        ),
        (
            {"statistics": "{ctr: {label: click, by: [users]}}"},
            "statistics.ctr.by: expected user, item or a feature as level.name",
        ),
        (
            {"statistics": "{ctr: {label: click, by: [item, item]}}"},
            "statistics.ctr.by: a part is named twice: item, item",
        ),
        (
            {
                "statistics": "{ctr: {label: click, by: [item.tags]}}",
                "features": "{item: {tags: {type: categorical, multi: true}}}",
            },
            "statistics.ctr.by: item.tags must be a one-valued categorical",
        ),
        (
            {
                "statistics": "{ctr: {label: click, by: [item.p]}}",
                "features": "{item: {p: {type: numeric, encoding: standardise}}}",
            },
            "statistics.ctr.by: item.p must be a one-valued categorical, a bucketed numeric",
        ),
        (
            {"statistics": "{a.b: {label: click, by: [user]}}"},
            "statistics.a.b: expected a name of letters, digits and _",
        ),
        (
            {
                "statistics": "{tab: {label: click, by: [context.tab]}}",
                "features": "{context: {tab: {type: categorical}}}",
            },
            "statistics.tab: a context feature has this name; choose another name",
        ),
        (
            {"history": "{counts: true}", "features": "{context: {history: {type: categorical}}}"},
            "features.context.history: the name is taken by history.counts",
        ),
        (
            {"features": "{user: {a.b: {type: categorical}}}"},
            "features.user.a.b: expected a name without a dot",
        ),
        (
            {"features": "{user: {h: {type: clock, part: hour}}}"},
            "features.user.h: a user feature is one of categorical, numeric",
        ),
        (
            {"features": "{item: {d: {type: distance, between: [a.b, c.d]}}}"},
            "features.item.d: a item feature is one of",
        ),
        (
            {"features": "{cross: {d: {type: distance, between: [context.p, item.p]}}}"},
            "features.cross.d.between: expected a coordinates feature as level.name, got "
            "'context.p'",
        ),
        ({"features": "{user: {a: {type: numeric, buckets: 1}}}"}, "features.user.a.buckets: "),
        ({"features": "{user: {a: {type: numerc}}}"}, "features.user.a: "),
        (
            {"features": "{user: {a: {type: categorical, vocabulary: {}, hash: {rows: 3}}}}"},
            "features.user.a: expected one of vocabulary and hash, got both",
        ),
        ({"score": "click + "}, "score: cannot read"),
        ({"score": "click.real"}, "score: 'click.real' in 'click.real' is neither arithmetic"),
        ({"roles": "{negative_sampling_rate: 0}"}, "roles.negative_sampling_rate: "),
        (
            {"roles": "{negative_sampling_rate: 0.5}", "labels": "{click: {}, like: {}}"},
            "labels.like: with roles.negative_sampling_rate "
            "every further label needs a given label",
        ),
        ({"rolls": "{}"}, "rolls: unknown key"),
        ({"name": "a/b"}, "name: "),
    ],
)
def test_a_refusal_names_the_key(parts: dict[str, str], says: str) -> None:
    assert refusal(with_(**parts)).startswith(says)


SHARED = (
    "{user: {a: {type: categorical, table: t, hash: {rows: 5}}}, item: {b: {type: categorical, "
    "table: t, hash: {rows: %s}}}}"
)


def test_features_that_share_a_table_are_encoded_alike() -> None:
    Schema.parse(with_(features=SHARED % 5))
    assert refusal(with_(features=SHARED % 6)) == (
        "features.item.b: shares table 't' with features.user.a, but their encodings differ"
    )
    counts = (
        "{user: {a: {type: categorical, table: t}}, item: {b: {type: categorical, table: t, "
        "vocabulary: {min_count: 3}}}}"
    )
    assert "shares table 't'" in refusal(with_(features=counts))


@pytest.mark.parametrize(
    ("history", "key"),
    [
        ("{fields: {f: {type: categorical, table: t}}}", "history.fields.f"),
        ("{action: {table: t, vocabulary: {min_count: 1}}}", "history.action"),
    ],
)
def test_event_fields_that_share_a_table_are_encoded_alike(history: str, key: str) -> None:
    assert refusal(with_(features=SHARED % 5, history=history)) == (
        f"{key}: shares table 't' with features.user.a, but their encodings differ"
    )


def test_a_table_may_be_shared_by_the_name_of_its_first_feature() -> None:
    features = (
        "{item: {id: {type: categorical, hash: {rows: 5}}}, user: {last: {type: categorical, "
        "table: item.id}}}"
    )
    assert "shares table 'item.id'" in refusal(with_(features=features))
    Schema.parse(
        with_(features=features.replace("table: item.id", "table: item.id, hash: {rows: 5}"))
    )


def test_files_that_are_not_a_schema(tmp_path: Path) -> None:
    assert refusal("[1, 2]") == "expected keys such as user, item, labels, split; got list"
    assert refusal("a: [").startswith("not YAML: ")
    with raises(SchemaError, code="unreadable_file", field=tmp_path / "none.yaml"):
        Schema.load(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with raises(SchemaError, code="unreadable_file", field=tmp_path / "b.yaml"):
        Schema.load(tmp_path / "b.yaml")


# -- what the house asks ---------------------------------------------------------------------------


def test_tasks_and_outputs() -> None:
    schema = Schema.parse(
        with_(labels="{click: {}, order: {given: click}, paid: {given: order}, like: {}}")
    )
    assert schema.tasks == ("click", "order", "paid", "like")
    assert schema.outputs == (
        "click",
        "order",
        "paid",
        "like",
        "order_given_click",
        "paid_given_order",
    )
    assert schema.score_expression.names == ("click",), "the first label by default"


def test_events_carry_the_item_features_that_have_one_id() -> None:
    schema = Schema.parse(
        with_(
            features="""
            item:
              c: {type: categorical}
              m: {type: categorical, multi: true}
              q: {type: numeric}
              s: {type: numeric, encoding: standardise}
              v: {type: vector, size: 2}
              h: {type: categorical, hash: {rows: 3}}
            """
        )
    )
    assert schema.event_item_features == ("c", "q", "h")
    assert list(schema.event_fields) == ["action"]
    assert schema.history_source == "impressions"


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("5ms", 5),
        ("90s", 90_000),
        ("30min", 1_800_000),
        ("1m", 60_000),
        (" 2 h ", 7_200_000),
        ("7d", 604_800_000),
    ],
)
def test_durations(text: str, ms: int) -> None:
    assert duration_ms(text) == ms
    assert duration_ms(0) == 0


@pytest.mark.parametrize("value", [5, 1.5, True, False, None, "", "h", "1.5h", "1h30min", "1 week"])
def test_invalid_durations_are_refused(value: object) -> None:
    with pytest.raises(ValueError) as caught:
        duration_ms(value)
    assert repr(value) in str(caught.value)
