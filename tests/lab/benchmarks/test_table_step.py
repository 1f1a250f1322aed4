"""Implementations of embedding tables against one step that is worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hemix.lab.benchmarks import table_step
from hemix.lab.benchmarks.table_step import Implementation, TableWorkload, build_tables
from hemix.training import fbgemm

LOAD = TableWorkload(fields=2, rows=3, width=2, impressions=2, ids_per_field=2, steps=1, threads=1)
IMPLEMENTATIONS: list[Implementation] = ["fbgemm", "tables", "sparse_bags", "dense_bags"]
OFFSETS = torch.tensor([0, 2, 4])
RATE = 0.01


def installed(implementation: Implementation) -> bool:
    return implementation != "fbgemm" or fbgemm.installed()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_rowwise_adagrad_by_hand(implementation: Implementation) -> None:
    """Row 0 is in both lists of field 0, row 1 in the first, row 2 in none.

    A gradient of (3, 1) of the first mean is (1.5, .5) for each of its ids, and (1, 1) of the
    second (.5, .5) twice. Row 0 gets (1.5, .5) + 2 (.5, .5) = (2.5, 1.5), row 1 (1.5, .5). A row
    moves by rate x gradient / sqrt(mean of squares): row 0 has 4.25, row 1 has 1.25.
    """
    if not installed(implementation):
        pytest.skip("fbgemm is not installed")
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    tables = build_tables(implementation, "rowwise_adagrad", LOAD, weight)
    ids = torch.tensor([[0, 1, 0, 0], [2, 2, 2, 2]])
    vectors = tables.look_up(ids, OFFSETS)
    torch.testing.assert_close(vectors[0], torch.tensor([[2.0, 3.0], [1.0, 2.0]]))
    torch.testing.assert_close(vectors[1], torch.tensor([[5.0, 6.0], [5.0, 6.0]]))
    gradients = [torch.tensor([[3.0, 1.0], [1.0, 1.0]]), torch.zeros(2, 2)]
    torch.autograd.backward(vectors, gradients)
    tables.update()
    with torch.no_grad():
        after = tables.look_up(torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2]]), OFFSETS)
    expected = torch.tensor(
        [
            [1 - RATE * 2.5 / 4.25**0.5, 2 - RATE * 1.5 / 4.25**0.5],
            [3 - RATE * 1.5 / 1.25**0.5, 4 - RATE * 0.5 / 1.25**0.5],
        ]
    )
    torch.testing.assert_close(after[0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(after[1], vectors[1])


@pytest.mark.parametrize("implementation", ["tables", "sparse_bags"])
def test_the_first_step_of_adam_is_the_rate(implementation: Implementation) -> None:
    """The first step of Adam moves by rate x sign of the gradient, in looked-up rows alone."""
    tables = build_tables(implementation, "adam", LOAD, torch.zeros(3, 2))
    ids = torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2]])
    torch.autograd.backward(
        tables.look_up(ids, OFFSETS), [torch.tensor([[2.0, -3.0], [0.5, 4.0]])] * 2
    )
    tables.update()
    with torch.no_grad():
        moved, _ = tables.look_up(torch.tensor([[0, 0, 1, 1]] * 2), OFFSETS)
        still, _ = tables.look_up(torch.tensor([[2, 2, 2, 2]] * 2), OFFSETS)
    expected = RATE * torch.tensor([[-1.0, 1.0], [-1.0, -1.0]])
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=0)
    assert still.abs().max() == 0


def test_the_process_prints_times_and_saves_vectors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "vectors.npy"
    content = json.dumps({**LOAD.__dict__, "steps": 4})
    table_step._main("tables", "adam", content, str(file))
    result = json.loads(capsys.readouterr().out)
    assert len(result["seconds"]) == len(result["cpu_seconds"]) == 4
    assert min(result["seconds"]) > 0 and result["peak_bytes"] > 0
    vectors = np.load(file)
    assert vectors.shape == (2, 2, 2) and np.isfinite(vectors).all()
