"""Exponential moving averages (EMA) of all weights, dense part and tables.

The average after step t is sum over s = 1..t of d^(t-s) w_s, divided by (1 - d^t) / (1 - d), the
sum of the factors. It is the bias-corrected mean of Kingma and Ba (arXiv 1412.6980, section 3). So
a short run is averaged over its own steps, and the first values have no weight. As a recursion:
avg_t = avg_(t-1) + a_t (w_t - avg_(t-1)) with a_t = (1 - d) / (1 - d^t).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from hemix.nn.embedding import EmbeddingTables

__all__ = ["MovingAverage"]

_ROWS_PER_CHUNK = 2**16


class MovingAverage:
    """The moving average of a model's weights.

    A row of a table changes only in steps that look it up. While its weight stays w, its average
    moves towards w by a known factor,

        avg_b - w = (avg_a - w) * d^(b-a) (1 - d^a) / (1 - d^b)
        (the product of 1 - a_s for s = a+1..b)

    so a row's average is brought up to date when the row changes next. The result is the same, and
    a step touches only its own rows.
    """

    def __init__(self, dense: Mapping[str, Tensor], tables: EmbeddingTables, decay: float) -> None:
        """Begin with the weights as they are.

        Args:
            dense: The dense weights by name.
            tables: The embedding tables.
            decay: In (0, 1); the average spans about 1 / (1 - decay) steps.
        """
        self._decay = decay
        self._dense, self._table = dict(dense), tables.weight
        self._dense_mean = {name: weight.detach().clone() for name, weight in dense.items()}
        self._table_mean = tables.weight.detach().clone()
        self._last_step = torch.zeros(
            tables.weight.shape[0], dtype=torch.int32, device=tables.weight.device
        )
        """[rows]: the step up to which a row's average is known"""
        self._steps = torch.zeros((), dtype=torch.int64)

    def begin_step(self) -> None:
        """Begin a step; call it before any weight changes."""
        self._steps += 1

    @torch.no_grad()
    def update_rows(self, rows: Tensor, before: Tensor, after: Tensor) -> None:
        """Average rows of the tables that this step changed.

        Args:
            rows: int64 [n], distinct.
            before: Their values [n, width] before the step.
            after: Their values [n, width] after it.
        """
        step = int(self._steps)
        mean = self._table_mean.index_select(0, rows)
        factor = self._remaining(self._last_step.index_select(0, rows), step - 1)
        mean = torch.lerp(before, mean, factor)
        self._table_mean.index_copy_(0, rows, mean.lerp_(after, self._update_factor(step)))
        self._last_step.index_fill_(0, rows, step)

    @torch.no_grad()
    def end_step(self) -> None:
        """Average the dense weights; call it after all weights have changed."""
        factor = self._update_factor(int(self._steps))
        for name, weight in self._dense.items():
            self._dense_mean[name].lerp_(weight, factor)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averages inside the block, and its own weights after it."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their averages; does nothing before the first step."""
        step = int(self._steps)
        if step == 0:
            return
        for name, weight in self._dense.items():
            _exchange(weight, self._dense_mean[name])
        for first in range(0, self._table.shape[0], _ROWS_PER_CHUNK):
            rows = slice(first, first + _ROWS_PER_CHUNK)
            weight, mean, last_step = (
                self._table[rows],
                self._table_mean[rows],
                self._last_step[rows],
            )
            mean.copy_(torch.lerp(weight, mean, self._remaining(last_step, step)))
            last_step.fill_(step)
            _exchange(weight, mean)

    def tensors(self) -> dict[str, Tensor]:
        """Return all state by name: the tensors themselves, not copies."""
        dense = {f"dense.{name}": mean for name, mean in self._dense_mean.items()}
        return {**dense, "table": self._table_mean, "seen": self._last_step, "steps": self._steps}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`tensors` returned."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])

    def _update_factor(self, step: int) -> float:
        """a_t of the recursion."""
        return (1 - self._decay) / (1 - self._decay**step)

    def _remaining(self, last_step: Tensor, step: int) -> Tensor:
        """[n, 1]: the part of the distance between a row's average and its weight at ``last_step``
        that is left at ``step``.
        """
        if step == 0:
            return torch.zeros(last_step.shape[0], 1, device=last_step.device)
        a, d = last_step.double(), self._decay
        factor = d ** (step - a) * (1 - d**a) / (1 - d**step)
        return factor.to(self._table_mean.dtype).unsqueeze(1)


def _exchange(first: Tensor, second: Tensor) -> None:
    copy = first.detach().clone()
    first.copy_(second)
    second.copy_(copy)
