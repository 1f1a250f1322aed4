"""Label rates of known and unknown values: counted by hand, tested against chance by user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hemix.display import manifest_summary
from hemix.preparation.label_rates import z_score
from tests.data.small import at, prepared, shown

SCHEMA = """
name: rates
tables: {items: items.parquet}
labels: {click: {}}
features:
  user: {user_id: {type: categorical}}
  item: {item_id: {type: categorical}, tags: {type: categorical, multi: true}}
  context: {city: {type: categorical}}
split: {valid: 2026-01-06, test: 2026-01-07}
"""


def test_rows_and_positives_are_counted_by_split_and_value(tmp_path: Path) -> None:
    rows = [
        ("u", "a", at(0, 1), 1, "x"),
        ("u", "a", at(0, 2), 0, "x"),
        ("u", "b", at(0, 3), 1, "y"),  # b and y occur once on train: unknown
        ("v", "a", at(0, 4), None, None),  # a label that nobody knows counts in neither group
        ("v", "a", at(0, 5), 0, None),  # a missing city is neither known nor unknown
        ("w", "c", at(1), 1, "z"),
        ("u", "a", at(1), 0, "x"),
        ("u", "a", at(2), 0, "x"),
    ]
    items = {"item_id": ["a", "b", "c"], "tags": [["p", "q"], ["p", "r"], []]}
    data = prepared(tmp_path, SCHEMA, impressions=shown(rows, "city"), items=items)
    train, valid = (data.manifest["label_rates"][split] for split in ("train", "valid"))

    def counts(entry: dict[str, dict[str, int]]) -> list[int]:
        return [
            entry[group][what] for group in ("unknown", "known") for what in ("positives", "rows")
        ]

    assert counts(train["item.item_id"]["click"]) == [1, 1, 1, 3]
    assert counts(train["context.city"]["click"]) == [1, 1, 1, 2]
    assert counts(train["item.tags"]["click"]) == [
        1,
        1,
        1,
        3,
    ]  # r occurs once: one unknown value makes the row unknown
    assert "user.user_id" not in train  # both users are known
    assert counts(valid["user.user_id"]["click"]) == [1, 1, 0, 1]
    assert counts(valid["item.item_id"]["click"]) == [1, 1, 0, 1]
    assert "item.tags" not in valid  # c has none, which is missing
    assert data.manifest["label_rates"]["test"] == {}


def test_the_difference_is_measured_in_standard_errors_over_users() -> None:
    """100 users with one row each: 30 of 50 against 10 of 50.

    By hand: difference .4, pooled rate .4.
    """
    per_user = np.array(
        [[1, 1, 0, 0]] * 30 + [[0, 1, 0, 0]] * 20 + [[0, 0, 1, 1]] * 10 + [[0, 0, 0, 1]] * 40, float
    )
    assert z_score(per_user.sum(0), per_user.T @ per_user) == pytest.approx(
        0.4 / np.sqrt(0.4 * 0.6 * 2 / 50)
    )


def test_users_that_always_click_widen_the_error() -> None:
    """Ten rows a user, all alike: ten users of each group say as much as ten rows, not a
    hundred.
    """
    per_user = np.array(
        [[10, 10, 0, 0]] * 6 + [[0, 10, 0, 0]] * 4 + [[0, 0, 10, 10]] * 4 + [[0, 0, 0, 10]] * 6,
        float,
    )
    assert z_score(per_user.sum(0), per_user.T @ per_user) == pytest.approx(
        0.2 / np.sqrt((0.6 * 0.4 + 0.4 * 0.6) / 10)
    )


@pytest.mark.parametrize("sums", [(0, 4, 50, 100), (0, 0, 5, 10), (0, 100, 0, 100)])
def test_small_groups_are_not_tested(sums: tuple[float, ...]) -> None:
    assert z_score(np.array(sums, float), np.zeros((4, 4))) is None


@pytest.mark.parametrize(("leak", "warning"), [(True, "warning: "), (False, "noted: "), (None, "")])
def test_prepare_warns_of_a_difference_that_valid_does_not_show(
    tmp_path: Path, leak: bool | None, warning: str
) -> None:
    """Tokens that occur once are never clicked on train: a leak where they are clicked on valid, a
    fact where not.
    """
    rng = np.random.default_rng(0)
    rows = []
    for day in range(3):
        for n in range(300):
            rare = n % 2 == 0
            click = int(rng.random() < 0.3)
            if rare and leak is not None and (day == 0 or not leak):
                click = 0
            rows.append((f"u{n % 60}", "a", at(day) + n, click, f"{day}-{n}" if rare else "often"))
    data = prepared(
        tmp_path, SCHEMA, impressions=shown(rows, "city"), items={"item_id": ["a"], "tags": [[]]}
    )
    entry = data.manifest["label_rates"]["train"]["context.city"]["click"]
    assert entry["beyond_chance"] is (leak is not None)
    if leak is not None:
        assert entry["agrees_with_valid"] is not leak
    lines = [
        line
        for line in manifest_summary(data.manifest, tmp_path).splitlines()
        if "context.city" in line
    ]
    assert [line[: line.index(":") + 2] for line in lines] == ([warning] if warning else [])
