"""Labels as they were known, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from hemix.data.spec import TIMELESS_MS
from hemix.preparation.labels import apply_given_labels, known_immediately, labels_as_of
from hemix.schema import Label

FUNNEL = {"click": Label(), "order": Label(given="click")}


def array(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def test_an_order_without_its_click_counts_as_none_and_an_unknown_click_hides_the_order() -> None:
    labels, changed = apply_given_labels(
        FUNNEL, {"click": array(1, 0, 0, -1, 1), "order": array(1, 1, 0, 1, -1)}
    )
    assert labels["order"].tolist() == [1, 0, 0, -1, -1]
    assert changed == {"order": 1}


def test_a_positive_that_became_known_later_is_unknown() -> None:
    labels = {"click": Label(available_at="t")}
    times = {"click": array(100, 101, TIMELESS_MS, 101)}
    got = labels_as_of(
        labels, {"click": array(1, 1, 1, 0)}, array(0, 0, 0, 0), times, array(100, 100, 100, 100)
    )
    assert got[:, 0].tolist() == [1, -1, 1, 0]


def test_an_immature_label_is_unknown() -> None:
    labels = {"click": Label(maturity="10ms")}  # type: ignore[call-arg]
    got = labels_as_of(
        labels, {"click": array(0, 0, 1)}, array(90, 91, 99), {}, array(100, 100, 100)
    )
    assert got[:, 0].tolist() == [0, -1, -1]


def test_an_unknown_click_makes_its_order_unknown() -> None:
    labels = {"click": Label(available_at="t"), "order": Label(given="click")}
    got = labels_as_of(
        labels, {"click": array(1), "order": array(0)}, array(0), {"click": array(200)}, array(100)
    )
    assert got.tolist() == [[-1, -1]]


def test_positives_known_immediately() -> None:
    late = Label(available_at="t")
    assert known_immediately(Label(), array(1, 0, -1), array(5, 5, 5), None).tolist() == [
        True,
        False,
        False,
    ]
    assert known_immediately(
        late, array(1, 1, 1), array(5, 5, 5), array(5, 6, TIMELESS_MS)
    ).tolist() == [True, False, True]
