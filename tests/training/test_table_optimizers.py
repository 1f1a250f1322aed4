"""Table optimisers against numbers worked out by hand and against dense PyTorch ones; untouched
rows stay untouched.
"""

from __future__ import annotations

import pytest
import torch

from hemix.errors import MissingExtra, SettingsError
from hemix.nn.embedding import LookUp, Tables
from hemix.training import fbgemm
from hemix.training.table_optimizers import (
    RowAdam,
    RowOptimizer,
    RowwiseAdagrad,
    build_table_optimizer,
)
from tests.refusals import raises

needs_fbgemm = pytest.mark.skipif(
    fbgemm.installed() is None, reason="FBGEMM ABSENT: pip install 'hemix[fast]'"
)


def make_tables(rows: int = 6, width: int = 2) -> Tables:
    tables = Tables({"a": rows}, width).train()
    with torch.no_grad():
        tables.weight.copy_(torch.randn(rows, width, generator=torch.Generator().manual_seed(0)))
    return tables


def step(
    tables: Tables,
    optimizer: RowOptimizer,
    ids: list[int],
    scale: float,
    learning_rate: float = 0.1,
) -> None:
    (vectors,) = tables.look_up([LookUp(tables=("a",), ids=torch.tensor(ids).unsqueeze(1))])
    (vectors.square().sum() * scale).backward()
    optimizer.step(learning_rate)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad"])
def test_only_looked_up_rows_change(name: str) -> None:
    tables = make_tables()
    optimizer = build_table_optimizer(name, tables)
    step(tables, optimizer, [1, 3], 1.0)
    before = tables.weight.clone()
    step(tables, optimizer, [3, 4], 1.0)
    changed = (tables.weight != before).all(1)
    assert changed.tolist() == [False, False, False, True, True, False]


def test_adam_equals_dense_adam_where_every_row_is_looked_up() -> None:
    tables = make_tables()
    dense = torch.nn.Parameter(tables.weight.clone())
    reference = torch.optim.Adam([dense], lr=0.1)
    optimizer = build_table_optimizer("adam", tables)
    for i in range(20):
        step(tables, optimizer, list(range(6)), 1.0 + i)
        reference.zero_grad()
        (dense.square().sum() * (1.0 + i)).backward()
        reference.step()
    torch.testing.assert_close(tables.weight, dense, rtol=1e-5, atol=1e-6)


def test_adam_corrects_by_steps_not_by_a_rows_own_count() -> None:
    """A row first seen in step 2: m = 0.1 g, v = 0.001 g^2; the move is lr * (0.1 / (1 - 0.9^2)) /
    sqrt(0.001 / (1 - 0.999^2)).
    """
    tables = make_tables()
    optimizer = build_table_optimizer("adam", tables)
    step(tables, optimizer, [0], 1.0)
    before = tables.weight[5].clone()
    step(tables, optimizer, [5], 1.0)
    expected = 0.1 * (0.1 / (1 - 0.9**2)) / (0.001 / (1 - 0.999**2)) ** 0.5
    torch.testing.assert_close(
        (before - tables.weight[5]).abs(), torch.full((2,), expected), rtol=1e-4, atol=1e-6
    )


def test_rowwise_adagrad_by_hand() -> None:
    """Weight (3, 4), loss w^2 / 2 per value: gradient (3, 4), mean square 12.5; the move is lr * g
    / sqrt(12.5).
    """
    tables = make_tables(rows=3)
    with torch.no_grad():
        tables.weight[1] = torch.tensor([3.0, 4.0])
    step(tables, build_table_optimizer("rowwise_adagrad", tables), [1], 0.5)
    expected = torch.tensor([3.0, 4.0]) * (1 - 0.1 / 12.5**0.5)
    torch.testing.assert_close(tables.weight[1], expected)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad"])
def test_state_goes_out_and_comes_back(name: str) -> None:
    ours, theirs = make_tables(), make_tables()
    first, second = build_table_optimizer(name, ours), build_table_optimizer(name, theirs)
    step(ours, first, [1, 2], 1.0)
    saved = {key: value.clone() for key, value in first.tensors().items()}
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
    second.load(saved)
    step(ours, first, [2, 3], 2.0)
    step(theirs, second, [2, 3], 2.0)
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad"])
def test_a_step_without_gradient_does_nothing(name: str) -> None:
    tables = make_tables()
    optimizer, before = build_table_optimizer(name, tables), tables.weight.clone()
    optimizer.step(0.1)
    tables.look_up([LookUp(tables=("a",), ids=torch.tensor([[1]]))])
    optimizer.step(0.1)
    assert torch.equal(tables.weight, before)


def test_an_unknown_optimiser_is_named() -> None:
    with raises(SettingsError, "'sgd'", field="train.table_optimizer"):
        build_table_optimizer("sgd", make_tables())


ROWS = {"a": 40, "b": 7, "c": 300}


def make_several(seed: int = 0) -> Tables:
    tables = Tables(ROWS, 8).train()
    with torch.no_grad():
        tables.weight.copy_(
            torch.randn(tables.weight.shape, generator=torch.Generator().manual_seed(seed))
        )
    return tables


def train_some(
    tables: Tables, optimizer: RowOptimizer, first: int, last: int, *, lists: bool = True
) -> None:
    """Steps of random look-ups: columns of several tables with repeats, ids of one table in two
    look-ups, lists empty and full.
    """
    for i in range(first, last):
        g = torch.Generator().manual_seed(i)
        ids = torch.stack(
            [torch.randint(0, ROWS[t], (32,), generator=g) for t in ("a", "b", "c")], 1
        )
        wanted = [
            LookUp(tables=("a", "b", "c"), ids=ids),
            LookUp(tables=("c",), ids=torch.randint(0, 300, (5, 1), generator=g)),
        ]
        if lists:
            lengths = torch.randint(0, 4, (20,), generator=g)
            offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
            values = torch.randint(0, 40, (int(offsets[-1]),), generator=g)
            wanted.append(LookUp(tables=("a",), ids=values, offsets=offsets))
        outputs = tables.look_up(wanted)
        loss = sum(
            (v * torch.randn(v.shape, generator=g)).sum() + v.square().sum() for v in outputs
        )
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step(0.05 * (1 + i % 7))


@needs_fbgemm
@pytest.mark.parametrize("lists", [True, False])
def test_fbgemm_equals_torch_over_100_steps(lists: bool) -> None:
    plain, fused = make_several(), make_several()
    first = build_table_optimizer("rowwise_adagrad", plain, "torch")
    second = build_table_optimizer("rowwise_adagrad", fused, "auto")
    assert "FBGEMM" in second.backend and first.backend == "PyTorch"
    for i in range(100):
        train_some(plain, first, i, i + 1, lists=lists)
        train_some(fused, second, i, i + 1, lists=lists)
        torch.testing.assert_close(fused.weight, plain.weight, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(second.tensors(), first.tensors(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "rowwise_adagrad"])
def test_torch_equals_a_dense_gradient_over_100_steps(name: str) -> None:
    """The same look-ups by F.embedding on a weight with a dense gradient, updated by the formula on
    the rows that were read.
    """
    tables, second = make_several(), make_several()
    optimizer = build_table_optimizer(name, tables)
    dense = torch.nn.Parameter(second.weight.clone())
    state = [torch.zeros_like(dense), torch.zeros_like(dense)]
    for i in range(100):
        train_some(tables, optimizer, i, i + 1)
        gradient, read = dense_gradient(dense, i)
        rate = 0.05 * (1 + i % 7)
        with torch.no_grad():
            if name == "adam":
                state[0][read] = 0.9 * state[0][read] + 0.1 * gradient[read]
                state[1][read] = 0.999 * state[1][read] + 0.001 * gradient[read] ** 2
                move = (
                    state[0]
                    / (1 - 0.9 ** (i + 1))
                    / ((state[1] / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8)
                )
            else:
                state[0][read] += (gradient[read] ** 2).mean(1, keepdim=True)
                move = gradient / (state[0].sqrt() + 1e-8)
            dense[read] -= rate * move[read]
    torch.testing.assert_close(tables.weight, dense, rtol=1e-4, atol=1e-4)


def dense_gradient(weight: torch.nn.Parameter, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(gradient of the whole weight, the rows that step ``i`` of :func:`train_some` reads), list by
    list.
    """
    g = torch.Generator().manual_seed(i)
    first = {"a": 0, "b": 40, "c": 47}
    ids = torch.stack(
        [first[t] + torch.randint(0, ROWS[t], (32,), generator=g) for t in ("a", "b", "c")], 1
    )
    alone = first["c"] + torch.randint(0, 300, (5, 1), generator=g)
    lengths = torch.randint(0, 4, (20,), generator=g).tolist()
    values = torch.randint(0, 40, (sum(lengths),), generator=g)
    lists = [
        ids_of_list if len(ids_of_list) else torch.tensor([1])
        for ids_of_list in torch.split(values, lengths)
    ]
    outputs = [
        weight[ids].flatten(1),
        weight[alone].flatten(1),
        torch.stack([weight[ids_of_list].mean(0) for ids_of_list in lists]),
    ]
    loss = sum((v * torch.randn(v.shape, generator=g)).sum() + v.square().sum() for v in outputs)
    assert isinstance(loss, torch.Tensor)
    weight.grad = None
    loss.backward()
    assert weight.grad is not None
    return weight.grad, torch.cat([ids.flatten(), alone.flatten(), *lists]).unique()


@needs_fbgemm
@pytest.mark.parametrize("backends", [("torch", "fbgemm"), ("fbgemm", "torch")])
def test_a_checkpoint_goes_on_with_the_other_backend(backends: tuple[str, str]) -> None:
    whole = make_several()
    train_some(whole, build_table_optimizer("rowwise_adagrad", whole, "torch"), 0, 20)
    half = make_several()
    before = build_table_optimizer("rowwise_adagrad", half, backends[0])
    train_some(half, before, 0, 10)
    saved = {name: tensor.clone() for name, tensor in before.tensors().items()}
    after = build_table_optimizer("rowwise_adagrad", half, backends[1])
    after.load(saved)
    train_some(half, after, 10, 20)
    torch.testing.assert_close(half.weight, whole.weight, rtol=1e-5, atol=2e-6)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("backend", ["torch", pytest.param("fbgemm", marks=needs_fbgemm)])
def test_the_same_steps_give_the_same_bytes(backend: str) -> None:
    weights = []
    for _ in range(2):
        tables = make_several()
        train_some(tables, build_table_optimizer("rowwise_adagrad", tables, backend), 0, 10)
        weights.append(tables.weight)
    assert torch.equal(*weights)


@needs_fbgemm
def test_fbgemm_leaves_other_rows_alone() -> None:
    tables = make_tables()
    optimizer, before = (
        build_table_optimizer("rowwise_adagrad", tables, "fbgemm"),
        tables.weight.clone(),
    )
    step(tables, optimizer, [1, 3, 3], 1.0)
    assert (tables.weight != before).all(1).tolist() == [False, True, False, True, False, False]
    optimizer.step(0.1)  # nothing was looked up


def test_fbgemm_is_refused_where_there_is_no_kernel() -> None:
    values = ("train.table_optimizer=rowwise_adagrad", "adam on cpu")
    with raises(SettingsError, *values, field="train.embedding_backend"):
        build_table_optimizer("adam", make_tables(), "fbgemm")


def test_auto_is_torch_where_fbgemm_has_no_kernel() -> None:
    optimizer = build_table_optimizer("adam", make_tables(), "auto")
    assert isinstance(optimizer, RowAdam) and optimizer.backend.startswith(
        "PyTorch (FBGEMM: only rowwise_adagrad"
    )


def test_without_fbgemm_its_backend_says_how_to_get_it_and_auto_does_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fbgemm, "installed", lambda: None)
    fbgemm.load.cache_clear()
    values = ("train.embedding_backend=fbgemm", "hemix[fast]")
    with raises(MissingExtra, *values, field="fbgemm-gpu-cpu"):
        build_table_optimizer("rowwise_adagrad", make_tables(), "fbgemm")
    optimizer = build_table_optimizer("rowwise_adagrad", make_tables(), "auto")
    assert type(optimizer) is RowwiseAdagrad and "pip install 'hemix[fast]'" in optimizer.backend
