"""A later day's encoders: known values keep their ids, new ones get rows of their own, forgotten
ones make room.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.data.encode import Encoders
from hemix.errors import DataError, UsageError
from hemix.preparation import prepare
from tests.data.small import Prepared, at, shown, write
from tests.refusals import raises

SCHEMA = """
name: growing
labels: {{click: {{}}}}
features:
  user: {{user_id: {{type: categorical, vocabulary: {{min_count: 1}}}}}}
  item: {{item_id: {{type: categorical, vocabulary: {{min_count: 1{limit}}}}}}}
  cross: {{price: {{type: numeric, buckets: 2}}}}
split: {{start: {start}, valid: {valid}, test: {test}}}
"""


def day(number: int) -> str:
    return f"2026-01-{5 + number:02d}"


def schema(first: int, limit: str = "") -> str:
    return SCHEMA.format(start=day(first), valid=day(first + 1), test=day(first + 2), limit=limit)


def rows(first: int, items: str, prices: list[float] | None = None) -> dict[str, list[object]]:
    """The letters of ``items`` are shown once each on the train day, one more thing on the days of
    valid and test.
    """
    train = [
        ("u", item, at(first, hour), 1, price)
        for hour, (item, price) in enumerate(zip(items, prices or range(0, 990, 10), strict=False))
    ]
    rest = [("u", "z", at(first + later), 0, 0.0) for later in (1, 2)]
    return shown([*train, *rest], "price")


@pytest.fixture
def first(tmp_path: Path) -> Prepared:
    logs = write(
        tmp_path / "first-logs", schema(0), impressions=rows(0, "aaabbc", [1.0, 2, 3, 4, 5, 6])
    )
    return Prepared(tmp_path / "first", prepare(logs, tmp_path / "first"))


def later(
    tmp_path: Path,
    of: Prepared,
    items: str,
    start: int = 1,
    limit: str = "",
    vocabulary_ttl_days: int | None = None,
) -> Prepared:
    logs = write(tmp_path / "later-logs", schema(start, limit), impressions=rows(start, items))
    out = tmp_path / "later"
    return Prepared(
        out, prepare(logs, out, init_from=of.folder, vocabulary_ttl_days=vocabulary_ttl_days)
    )


def test_known_values_keep_their_ids_and_new_ones_follow_by_count(
    tmp_path: Path, first: Prepared
) -> None:
    assert first.vocabulary("item.item_id") == {"a": 2, "b": 3, "c": 4}
    extended = later(tmp_path, first, "eddda")
    assert extended.vocabulary("item.item_id") == {"a": 2, "b": 3, "c": 4, "d": 5, "e": 6}
    assert extended.manifest["growth"]["item.item_id"] == {"kept": 3, "added": 2, "forgotten": 0}
    encoders = Encoders.load(extended.folder / "encoders")
    assert encoders.spec().tables["item.item_id"] == 7
    assert "growth" not in first.manifest


def test_unseen_values_lose_their_rows(tmp_path: Path, first: Prepared) -> None:
    """b and c were last seen on day 0, whose train rows ended with it; day 5 ends 5 days later."""
    extended = later(tmp_path, first, "eddda", start=5, vocabulary_ttl_days=4)
    assert extended.vocabulary("item.item_id") == {"a": 2, "d": 3, "e": 4}
    assert extended.manifest["growth"]["item.item_id"] == {"kept": 1, "added": 2, "forgotten": 2}
    assert Encoders.load(extended.folder / "encoders").spec().tables["item.item_id"] == 5


def test_a_value_stays_until_its_time_to_live_and_a_new_row_extends_it(
    tmp_path: Path, first: Prepared
) -> None:
    second = later(tmp_path, first, "b", start=3, vocabulary_ttl_days=4)
    assert second.vocabulary("item.item_id") == {"a": 2, "b": 3, "c": 4}
    logs = write(tmp_path / "third-logs", schema(6), impressions=rows(6, "d"))
    third = Prepared(
        tmp_path / "third",
        prepare(logs, tmp_path / "third", init_from=second.folder, vocabulary_ttl_days=4),
    )
    assert third.vocabulary("item.item_id") == {"d": 2, "b": 3}


def test_a_free_row_without_a_new_value_stays_empty(tmp_path: Path, first: Prepared) -> None:
    extended = later(tmp_path, first, "c", start=5, vocabulary_ttl_days=4)
    assert extended.vocabulary("item.item_id") == {"c": 4}
    assert Encoders.load(extended.folder / "encoders").spec().tables["item.item_id"] == 5


def test_no_more_values_than_the_schema_allows(tmp_path: Path) -> None:
    logs = write(tmp_path / "logs", schema(0, ", max_rows: 4"), impressions=rows(0, "aaabbc"))
    before = Prepared(tmp_path / "data", prepare(logs, tmp_path / "data"))
    extended = later(tmp_path, before, "eedda", limit=", max_rows: 4")
    assert extended.vocabulary("item.item_id") == {"a": 2, "b": 3, "c": 4, "d": 5}


def test_buckets_keep_their_edges(tmp_path: Path, first: Prepared) -> None:
    extended = later(tmp_path, first, "abcdefgh")
    edges = [
        Encoders.load(data.folder / "encoders").edges["cross.price"].tolist()
        for data in (first, extended)
    ]
    assert edges[0] == edges[1]
    logs = tmp_path / "later-logs"
    prepare(logs, tmp_path / "anew")
    assert Encoders.load(tmp_path / "anew" / "encoders").edges["cross.price"].tolist() != edges[0]


def test_a_run_folder_can_be_extended_and_other_folders_and_schemas_are_refused(
    tmp_path: Path, first: Prepared
) -> None:
    logs = write(tmp_path / "logs", schema(1), impressions=rows(1, "d"))
    with raises(UsageError, tmp_path, field="--init-from"):
        prepare(logs, tmp_path / "out", init_from=tmp_path)
    with raises(UsageError, 3, 1, "--init-from", field="--vocabulary-ttl-days"):
        prepare(logs, tmp_path / "out", vocabulary_ttl_days=3)
    other = write(
        tmp_path / "other", schema(1).replace("buckets: 2", "buckets: 3"), impressions=rows(1, "d")
    )
    values = (first.folder, "features.cross.price.buckets", 2, 3)
    with raises(DataError, *values, code="other_schema", field="--init-from"):
        prepare(other, tmp_path / "out", init_from=first.folder)
    assert not (tmp_path / "out").exists()
