"""Learning encoders: edges, scales, vocabularies, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemix.data.encode import Encoders
from hemix.data.keys import KeyMap, keys_of
from hemix.data.raw_columns import Where
from hemix.features.scaling import quantile_edges
from hemix.preparation import partial_counts
from hemix.preparation.fit import fit_encoders
from hemix.preparation.partial_counts import PartialCounts, in_sample
from hemix.preparation.texts import observed_texts, save_texts, text_tables
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
    monkeypatch.setattr(partial_counts, "_SAMPLE_ROWS", 20_000)
    sample = in_sample(rows, 100_000)
    assert 19_000 < sample.sum() < 21_000
    assert (
        np.concatenate([in_sample(rows[:7], 100_000), in_sample(rows[7:], 100_000)]) == sample
    ).all()


def fitted(
    folder: Path,
    schema: Schema,
    level: str,
    values: dict[str, pa.Array],
    weights: list[int] | None = None,
    parts: int = 1,
) -> tuple[Encoders, dict[str, pa.Table]]:
    """Learn from rows that are counted in some parts."""
    rows = len(next(iter(values.values())))
    weight = np.ones(rows, dtype=np.int64) if weights is None else np.array(weights)
    partials, texts = [], []
    for part in range(parts):
        own = {name: column.take(np.arange(part, rows, parts)) for name, column in values.items()}
        features = schema.features.level(level).items()
        raw = {n: f.read(n, own, len(weight[part::parts]), Where("t")) for n, f in features}
        counts = PartialCounts(schema)
        counts.count(level, raw, weight[part::parts])
        partials.append(folder / f"{part}")
        texts.append(folder / f"{part}.arrow")
        partials[-1].mkdir(parents=True)
        counts.save(partials[-1])
        observed = observed_texts(schema, level, raw, own)
        save_texts(texts[-1], text_tables(schema), observed)
    return fit_encoders(schema, partials, texts, KeyMap.empty())


def schema(features: str) -> Schema:
    return Schema.parse(
        f"{{name: x, labels: {{click: {{}}}}, split: {{valid: 1, test: 2}}, features: {features}}}"
    )


@pytest.mark.parametrize("parts", [1, 2, 9])
def test_ids_follow_count_then_text(tmp_path: Path, parts: int) -> None:
    plain = schema("{context: {city: {type: categorical, vocabulary: {min_count: 2}}}}")
    values = {"city": pa.array(["b", "z", "z", "a", "b", "a", "z", "once", None])}
    encoders, texts = fitted(tmp_path, plain, "context", values, parts=parts)
    assert texts["context.city"].to_pylist() == [
        {"id": 2, "value": "z", "count": 3},
        {"id": 3, "value": "a", "count": 2},
        {"id": 4, "value": "b", "count": 2},
    ]
    assert encoders.vocabularies["context.city"].look_up(
        keys_of(pa.array(["a", "b", "once"])), 0
    ).tolist() == [3, 4, 0]


def test_max_rows_keeps_the_most_frequent(tmp_path: Path) -> None:
    few = schema("{context: {city: {type: categorical, vocabulary: {min_count: 1, max_rows: 1}}}}")
    _, texts = fitted(tmp_path, few, "context", {"city": pa.array(["b", "b", "a"])})
    assert texts["context.city"].column("value").to_pylist() == ["b"]


def test_a_shared_table_counts_together_lists_too(tmp_path: Path) -> None:
    shared = schema("""{item: {item_id: {type: categorical, hash: {rows: 9}},
      one: {type: categorical, table: w},
                        many: {type: categorical, multi: true, table: w}}}""")
    values = {
        "item_id": pa.array([1, 2, 3]),
        "one": pa.array(["a", "b", None]),
        "many": pa.array([["a", "c"], None, ["c"]]),
    }
    _, texts = fitted(tmp_path / "once", shared, "item", values)
    assert texts["w"].column("value").to_pylist() == ["a", "c"]
    # how often the training rows point to each item
    _, weighted = fitted(tmp_path / "weighted", shared, "item", values, [0, 2, 1])
    assert weighted["w"].to_pylist() == [{"id": 2, "value": "b", "count": 2}]


@pytest.mark.parametrize("parts", [1, 3])
def test_scales_are_weighted_and_ignore_missing(tmp_path: Path, parts: int) -> None:
    numeric = schema(
        "{item: {age: {type: numeric, encoding: standardise}, flat: {type: numeric, encoding: "
        "standardise}}}"
    )
    values = {"age": pa.array([1.0, 3.0, None, 99.0]), "flat": pa.array([5.0, 5.0, 5.0, 5.0])}
    encoders, _ = fitted(tmp_path, numeric, "item", values, [3, 1, 1, 0], parts)
    assert encoders.scales["item.age"].mean == pytest.approx(1.5)
    assert encoders.scales["item.age"].std == pytest.approx(0.75**0.5)
    assert encoders.scales["item.flat"].std == 1.0


@pytest.mark.parametrize("encoding", ["buckets: 16", "encoding: standardise"])
def test_no_bit_depends_on_the_parts(tmp_path: Path, encoding: str) -> None:
    """Sums of floats depend on their order, so samples are sorted first."""
    numeric = schema(f"{{context: {{x: {{type: numeric, {encoding}}}}}}}")
    values = {"x": pa.array(np.random.default_rng(0).lognormal(size=5000) * 1e3)}
    states = [
        fitted(tmp_path / str(parts), numeric, "context", values, parts=parts)[0].states
        for parts in (1, 2, 7)
    ]
    for of_parts in states[1:]:
        for path, state in states[0].items():
            np.testing.assert_array_equal(np.asarray(of_parts[path]), np.asarray(state))


def test_nothing_to_learn_from_is_no_error(tmp_path: Path) -> None:
    empty = schema(
        "{context: {a: {type: numeric}, b: {type: numeric, encoding: standardise}, c: {type: "
        "categorical}}}"
    )
    encoders, _ = fitted(tmp_path, empty, "context", {n: pa.nulls(2) for n in "abc"})
    assert encoders.encode("context", {"a": pa.array([1.0])}, 1).ids.tolist() == [[2, 1]]
