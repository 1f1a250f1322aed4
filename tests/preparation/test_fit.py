"""Learning encoders: edges, scales, vocabularies, by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemix.data.keys import KeyIndex, keys_of
from hemix.data.raw_columns import Where
from hemix.features.scaling import quantile_edges
from hemix.preparation import fit
from hemix.preparation.fit import EncoderFitter, in_sample
from hemix.schema import Schema

ONES = np.ones


@pytest.mark.parametrize(
    ("values", "weights", "buckets", "edges"),
    [
        ([4, 1, 3, 2], [1, 1, 1, 1], 2, [3]),  # {1, 2} {3, 4}
        ([1, 2, 3, 4], [1, 1, 1, 1], 4, [2, 3, 4]),
        ([1, 2, 3], [1, 1, 8], 2, [3]),  # weights count
        ([1, 2, 3], [8, 1, 1], 2, []),  # an edge at the smallest value would leave a bucket empty
        ([5, 5, 5], [1, 1, 1], 3, []),
        ([0, 0, 0, 0, 0, 0, 0, 1, 2, 3], ONES(10), 10, [1, 2, 3]),
        ([], [], 4, []),
    ],
)
def test_quantile_edges(
    values: list[float], weights: list[float], buckets: int, edges: list[float]
) -> None:
    assert (
        quantile_edges(
            np.array(values, dtype=float), np.array(weights, dtype=float), buckets
        ).tolist()
        == edges
    )


@given(
    values=st.lists(st.integers(-20, 20), min_size=1, max_size=60),
    buckets=st.integers(2, 12),
    seed=st.integers(0, 9),
)
def test_edges_are_ascending_few_and_independent_of_the_order(
    values: list[int], buckets: int, seed: int
) -> None:
    array = np.array(values, dtype=float)
    edges = quantile_edges(array, np.ones(len(array)), buckets)
    assert len(edges) < buckets and (np.diff(edges) > 0).all()
    assert all(
        len(np.flatnonzero(np.searchsorted(edges, array, side="right") == b))
        for b in range(len(edges) + 1)
    )
    shuffled = np.random.default_rng(seed).permutation(array)
    assert quantile_edges(shuffled, np.ones(len(array)), buckets).tolist() == edges.tolist()


def test_the_sample_is_a_function_of_the_row_number(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(100_000)
    assert in_sample(rows, 100_000).all()
    monkeypatch.setattr(fit, "_SAMPLE_ROWS", 20_000)
    sample = in_sample(rows, 100_000)
    assert 19_000 < sample.sum() < 21_000
    assert (
        np.concatenate([in_sample(rows[:7], 100_000), in_sample(rows[7:], 100_000)]) == sample
    ).all()


def fitted(
    schema: Schema, level: str, values: dict[str, pa.Array], weights: list[float] | None = None
):  # type: ignore[no-untyped-def]
    fitter = EncoderFitter(schema)
    rows = len(next(iter(values.values())))
    raw = {n: f.read(n, values, rows, Where("t")) for n, f in schema.features.level(level).items()}
    fitter.observe(level, raw, values)
    fitter.count(level, raw, None if weights is None else np.array(weights))
    return fitter.fit(KeyIndex(), KeyIndex())


def schema(features: str) -> Schema:
    return Schema.parse(
        f"{{name: x, labels: {{click: {{}}}}, split: {{valid: 1, test: 2}}, features: {features}}}"
    )


def test_ids_follow_count_then_text() -> None:
    plain = schema("{context: {city: {type: categorical, vocabulary: {min_count: 2}}}}")
    encoders, texts = fitted(
        plain, "context", {"city": pa.array(["b", "z", "z", "a", "b", "a", "z", "once", None])}
    )
    assert texts["context.city"].to_pylist() == [
        {"id": 2, "value": "z", "count": 3},
        {"id": 3, "value": "a", "count": 2},
        {"id": 4, "value": "b", "count": 2},
    ]
    assert encoders.vocabularies["context.city"].look_up(
        keys_of(pa.array(["a", "b", "once"])), 0
    ).tolist() == [3, 4, 0]


def test_max_rows_keeps_the_most_frequent() -> None:
    few = schema("{context: {city: {type: categorical, vocabulary: {min_count: 1, max_rows: 1}}}}")
    _, texts = fitted(few, "context", {"city": pa.array(["b", "b", "a"])})
    assert texts["context.city"].column("value").to_pylist() == ["b"]


def test_a_shared_table_counts_together_lists_too() -> None:
    shared = schema("""{item: {item_id: {type: categorical, hash: {rows: 9}},
      one: {type: categorical, table: w},
                        many: {type: categorical, multi: true, table: w}}}""")
    values = {
        "item_id": pa.array([1, 2, 3]),
        "one": pa.array(["a", "b", None]),
        "many": pa.array([["a", "c"], None, ["c"]]),
    }
    _, texts = fitted(shared, "item", values)
    assert texts["w"].column("value").to_pylist() == ["a", "c"]
    _, weighted = fitted(
        shared, "item", values, [0, 2, 1]
    )  # how often the training rows point to each item
    assert weighted["w"].to_pylist() == [{"id": 2, "value": "b", "count": 2}]


def test_scales_are_weighted_and_ignore_missing() -> None:
    numeric = schema(
        "{item: {age: {type: numeric, encoding: standardise}, flat: {type: numeric, encoding: "
        "standardise}}}"
    )
    values = {"age": pa.array([1.0, 3.0, None, 99.0]), "flat": pa.array([5.0, 5.0, 5.0, 5.0])}
    encoders, _ = fitted(numeric, "item", values, [3, 1, 1, 0])
    assert encoders.scales["item.age"].mean == pytest.approx(1.5)
    assert encoders.scales["item.age"].std == pytest.approx(0.75**0.5)
    assert encoders.scales["item.flat"].std == 1.0


def test_nothing_to_learn_from_is_no_error() -> None:
    empty = schema(
        "{context: {a: {type: numeric}, b: {type: numeric, encoding: standardise}, c: {type: "
        "categorical}}}"
    )
    encoders, _ = fitted(empty, "context", {n: pa.nulls(2) for n in "abc"})
    assert encoders.encode("context", {"a": pa.array([1.0])}, 1).ids.tolist() == [[2, 1]]
