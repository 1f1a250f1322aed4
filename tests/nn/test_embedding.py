"""One look-up a step: what it returns, which rows get a gradient, and how multi-valued features are
pooled.
"""

from __future__ import annotations

import pytest
import torch

from hemix.data.spec import MISSING
from hemix.nn.embedding import EmbeddingTables, Gradients, LookUp, distinct_rows, sum_by_row


def numbered() -> EmbeddingTables:
    """Tables a (4 rows) and b (5 rows) of width 2; row i of the weight is (i, 10 i)."""
    tables = EmbeddingTables({"a": 4, "b": 5}, 2)
    with torch.no_grad():
        tables.weight.copy_(torch.arange(9.0).unsqueeze(1) * torch.tensor([1.0, 10.0]))
    return tables


COLUMNS = LookUp(tables=("b", "a"), ids=torch.tensor([[0, 3], [4, 0]]))


@pytest.mark.parametrize("training", [True, False])
def test_columns_come_from_their_tables(training: bool) -> None:
    (vectors,) = numbered().train(training).look_up([COLUMNS])
    assert vectors.tolist() == [[4, 40, 3, 30], [8, 80, 0, 0]]


@pytest.mark.parametrize("training", [True, False])
def test_a_list_is_a_mean_and_an_empty_list_is_the_missing_row(training: bool) -> None:
    look_up = LookUp(
        tables=("b",), ids=torch.tensor([0, 2, 4]), offsets=torch.tensor([0, 0, 2, 2, 3, 3])
    )
    (vectors,) = numbered().train(training).look_up([look_up])
    missing = 4 + MISSING
    assert vectors[:, 0].tolist() == [missing, 5, missing, 8, missing]


def test_the_gradient_has_one_row_per_distinct_id() -> None:
    tables = numbered().train()
    first, second = tables.look_up([COLUMNS, LookUp(tables=("b",), ids=torch.tensor([[4], [4]]))])
    (first.sum() + 10 * second.sum()).backward()
    step = tables.take_step()
    assert step is not None
    rows, gradient = step
    assert rows.tolist() == [0, 3, 4, 8]
    assert gradient[:, 0].tolist() == [1, 1, 1, 21]
    assert tables.take_step() is None


def test_a_lists_gradient_is_shared_out_evenly() -> None:
    """Row 0 alone gets 1; list [0, 2] passes on 6 / 2 to each, list [2] passes on 10: row 2 gets
    both.
    """
    values = torch.tensor([[1.0, 1.0], [6.0, 0.0], [10.0, 2.0]])
    gradients = Gradients(
        ids=torch.tensor([0, 0, 2, 2]), mean_offsets=torch.tensor([0, 2, 3]), values=values
    )
    for rows in (5, 5000):
        distinct, gradient = sum_by_row(gradients, rows)
        assert distinct.tolist() == [0, 2]
        assert gradient.tolist() == [[4, 1], [13, 2]]


def test_parts_of_a_step_are_added_up() -> None:
    """Row 0 of b, row 4 of all, is looked up by all three parts; no gradient reaches the third."""
    tables = numbered().train()
    for factor in (1.0, 10.0, None):
        (vectors,) = tables.look_up(
            [LookUp(tables=("b", "a"), ids=torch.tensor([[0, 3], [0, 2 if factor == 1 else 3]]))]
        )
        if factor is not None:
            (factor * vectors.sum()).backward()
        tables.end_microbatch()
    step = tables.take_step()
    assert step is not None
    rows, gradient = step
    assert rows.tolist() == [2, 3, 4]
    assert gradient[:, 0].tolist() == [1, 21, 22]
    assert tables.take_step() is None


def test_two_look_ups_in_one_step_are_our_own_mistake() -> None:
    tables = numbered().train()
    tables.look_up([COLUMNS])
    with pytest.raises(AssertionError):
        tables.look_up([COLUMNS])
    tables.take_step()
    tables.look_up([COLUMNS])


def test_without_gradients_any_number_of_look_ups() -> None:
    tables = numbered().train()
    with torch.no_grad():
        tables.look_up([COLUMNS])
        tables.look_up([COLUMNS])


@pytest.mark.parametrize("rows", [10, 10_000])
def test_distinct_rows_of_small_and_large_ranges(rows: int) -> None:
    ids = torch.tensor([7, 2, 7, 9, 2])
    distinct, inverse = distinct_rows(ids, rows)
    assert distinct.tolist() == [2, 7, 9]
    assert inverse.tolist() == [1, 0, 1, 2, 0]


def test_tables_by_name_are_views() -> None:
    tables = numbered()
    by_name = tables.by_name()
    assert {k: tuple(v.shape) for k, v in by_name.items()} == {"a": (4, 2), "b": (5, 2)}
    by_name["b"][0] = 99
    assert tables.weight[4].tolist() == [99, 99]
