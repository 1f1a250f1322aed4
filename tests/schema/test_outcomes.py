"""Columns that no feature may read because they are not known when ranking, and numbers that no id
or time can hold.
"""

from __future__ import annotations

import pytest

from hemix.errors import SchemaError, SettingsError
from hemix.moments import duration_ms
from hemix.schema import Schema
from hemix.settings import build_settings
from tests.refusals import raises

HEAD = "name: s\nsplit: {valid: 1, test: 2}\n"
LABELS = (
    "labels: {click: {}, order: {column: bought, given: click, available_at: bought_at}}\nroles: "
    "{bias: {column: pos}}\n"
)


@pytest.mark.parametrize(
    ("feature", "key", "of"),
    [
        (
            "features: {context: {click: {type: categorical}}}",
            "features.context.click",
            "labels.click",
        ),
        (
            "features: {cross: {a: {type: numeric, column: bought}}}",
            "features.cross.a",
            "labels.order",
        ),
        (
            "features: {context: {a: {type: numeric, column: bought_at}}}",
            "features.context.a",
            "labels.order.available_at",
        ),
        (
            "features: {cross: {a: {type: categorical, column: pos}}}",
            "features.cross.a",
            "roles.bias",
        ),
        (
            "features: {cross: {a: {type: categorical, column: pos, hash: {rows: 9}}}}",
            "features.cross.a",
            "roles.bias",
        ),
        (
            "features: {context: {a: {type: coordinates, latitude: x, longitude: bought}}}",
            "features.context.a",
            "labels.order",
        ),
        (
            "features: {cross: {a: {type: vector, size: 2, column: click}}}",
            "features.cross.a",
            "labels.click",
        ),
        (
            "features: {cross: {a: {type: categorical, multi: true, column: click}}}",
            "features.cross.a",
            "labels.click",
        ),
        (
            "history: {fields: {a: {type: categorical, column: bought}}}",
            "history.fields.a",
            "labels.order",
        ),
        (
            "history: {fields: {bought_at: {type: numeric}}}",
            "history.fields.bought_at",
            "labels.order.available_at",
        ),
        (
            "tables: {items: impressions.parquet}\nfeatures: {item: {a: {type: numeric, column: "
            "click}}}",
            "features.item.a",
            "labels.click",
        ),
        (
            "tables: {users: ./impressions.parquet/}\nfeatures: {user: {a: {type: numeric, "
            "column: click}}}",
            "features.user.a",
            "labels.click",
        ),
        (
            "tables: {events: impressions.parquet}\nhistory: {fields: {a: {type: categorical, "
            "column: bought}}}",
            "history.fields.a",
            "labels.order",
        ),
    ],
)
def test_an_outcome_cannot_be_a_feature(feature: str, key: str, of: str) -> None:
    with pytest.raises(SchemaError) as error:
        Schema.parse(HEAD + LABELS + feature)
    assert str(error.value).startswith(
        f"schema: {key}: column "
    ) and f"is the column of {of}," in str(error.value)


def test_the_truth_is_no_feature() -> None:
    feature = "features: {cross: {p_click: {type: numeric}}}\n"
    with raises(SchemaError, "labels.click", field="features.cross.p_click"):
        Schema.parse(HEAD + LABELS + "tables: {truth: impressions.parquet}\n" + feature)
    Schema.parse(
        HEAD + LABELS + "tables: {truth: truth.parquet}\n" + feature
    )  # another model's prediction


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("user: click", "user"),
        ("item: bought", "item"),
        ("score: click * bought\ntables: {items: impressions.parquet}", "score"),
    ],
)
def test_an_outcome_cannot_be_an_id_or_a_number_of_the_score(content: str, key: str) -> None:
    labels = LABELS.replace("click: {}", "seen: {column: click}").replace(
        "given: click", "given: seen"
    )
    with raises(SchemaError, "is the column of labels.", field=key):
        Schema.parse(HEAD + labels + content.replace("score: click", "score: seen"))


def test_an_outcome_cannot_be_the_request_id() -> None:
    with raises(SchemaError, "labels.click", field="roles.request_id"):
        Schema.parse(HEAD + "labels: {click: {}}\nroles: {request_id: click}\n")


def test_a_label_column_cannot_be_the_position() -> None:
    with raises(SchemaError, "labels.order", field="roles.bias.column"):
        Schema.parse(HEAD + LABELS.replace("column: pos", "column: bought"))


@pytest.mark.parametrize(
    "feature",
    [
        # a column of the events table
        "tables: {events: e.parquet}\nhistory: {fields: {click: {type: categorical}}}",
        # of the item table
        "tables: {items: i.parquet}\nfeatures: {item: {click: {type: numeric}}}",
        "tables: {users: u.parquet}\nfeatures: {user: {bought: {type: numeric}}}",
        "features: {context: {order: {type: categorical}}}",  # a label's name, but not its column
        "history: {fields: {pos: {type: categorical}}}",  # the position of an earlier impression
        "features: {context: {hour: {type: clock, part: hour}}}",
        "features: {user: {user_id: {type: categorical}}, cross: {item_id: {type: categorical}}}",
    ],
)
def test_columns_known_when_ranking_are_accepted(feature: str) -> None:
    Schema.parse(HEAD + LABELS + feature)


def test_the_clock_as_available_at_is_known() -> None:
    labels = "labels: {click: {available_at: time_ms}}\n"
    Schema.parse(HEAD + labels + "features: {context: {age: {type: numeric, column: time_ms}}}")


MOST_ROWS = 2**31 - 3


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (
            f"features: {{context: {{a: {{type: categorical, hash: {{rows: {MOST_ROWS + 1}}}}}}}}}",
            "features.context.a.hash.rows",
        ),
        (
            "features: {context: {a: {type: categorical, vocabulary: {max_rows: "
            f"{2**31}}}}}}}}}",
            "features.context.a.vocabulary.max_rows",
        ),
        (
            f"features: {{context: {{a: {{type: categorical, max_values: {10**20}}}}}}}",
            "features.context.a.max_values",
        ),
        (
            f"features: {{context: {{a: {{type: vector, size: {10**12}}}}}}}",
            "features.context.a.size",
        ),
        (f"roles: {{bias: {{column: p, max: {2**31}}}}}", "roles.bias.max"),
        (f"roles: {{bias: {{column: p, serve_as: {2**31}}}}}", "roles.bias.serve_as"),
        (f"history: {{global_length: {10**20}}}", "history.global_length"),
        (f"history: {{realtime_length: {2**31}}}", "history.realtime_length"),
        (f"history: {{delay: {10**12}d}}", "history.delay"),
        (f"history: {{realtime_window: {10**18}s}}", "history.realtime_window"),
        ("statistics: {s: {label: click, by: [user], smoothing: .inf}}", "statistics.s.smoothing"),
    ],
)
def test_numbers_that_ids_or_times_cannot_hold(content: str, key: str) -> None:
    with pytest.raises(SchemaError) as error:
        Schema.parse(f"{HEAD}labels: {{click: {{}}}}\n{content}")
    assert str(error.value).startswith(f"schema: {key}: expected ")


def test_the_largest_numbers_are_accepted() -> None:
    Schema.parse(
        f"{HEAD}labels: {{click: {{}}}}\nfeatures: {{context: {{a: {{type: categorical, hash: "
        f"{{rows: {MOST_ROWS}}}}}}}}}"
    )
    assert duration_ms("36525d") == 36525 * 86_400_000
    assert build_settings(overrides=[f"train.seed={2**63 - 1}"]).train.seed == 2**63 - 1
    for setting in ("train.epochs", "model.layers", "train.batch_size", "boosting.rounds"):
        with raises(SettingsError, field=setting):
            build_settings(overrides=[f"{setting}={2**31}"])
