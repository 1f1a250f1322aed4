"""Exponential moving averages of all weights, dense part and tables, for evaluation and for what a
run keeps.

The average after step t is sum over s = 1..t of d^(t-s) w_s, divided by its weights' sum (1 - d^t)
/ (1 - d): the mean of Kingma and Ba's bias-corrected form (arXiv 1412.6980, section 3), so that a
short run is averaged over what it has and the first values count for nothing. As a recursion: avg_t
= avg_(t-1) + a_t (w_t - avg_(t-1)) with a_t = (1 - d) / (1 - d^t).

A table's row changes only in steps that look it up. While it rests at w, its average moves towards
w by a known factor,

    avg_b - w = (avg_a - w) * d^(b-a) (1 - d^a) / (1 - d^b)
    (the product of 1 - a_s for s = a+1..b)

so a row is caught up when it is next touched: the same average, at the cost of the touched rows
alone. Knows no training loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from hemix.nn.embedding import Tables

__all__ = ["Average"]

_ROWS_AT_ONCE = 2**16


class Average:
    """The running average of a model's weights.

    ``decay`` in (0, 1): about 1 / (1 - decay) steps count.
    """

    def __init__(self, dense: Mapping[str, Tensor], tables: Tables, decay: float) -> None:
        self._decay = decay
        self._dense, self._table = dict(dense), tables.weight
        self._dense_mean = {name: weight.detach().clone() for name, weight in dense.items()}
        self._table_mean = tables.weight.detach().clone()
        self._seen = torch.zeros(
            tables.weight.shape[0], dtype=torch.int32, device=tables.weight.device
        )
        """[rows]: the step up to which a row's average is known"""
        self._steps = torch.zeros((), dtype=torch.int64)

    def begin_step(self) -> None:
        """A step begins: call before any weight of it changes."""
        self._steps += 1

    @torch.no_grad()
    def rows_changed(self, rows: Tensor, before: Tensor, after: Tensor) -> None:
        """Distinct ``rows`` int64 [n] of the tables went from ``before`` to ``after`` [n, width] in
        this step.
        """
        step = int(self._steps)
        mean = self._table_mean.index_select(0, rows)
        mean = torch.lerp(before, mean, self._rest(self._seen.index_select(0, rows), step - 1))
        self._table_mean.index_copy_(0, rows, mean.lerp_(after, self._share(step)))
        self._seen.index_fill_(0, rows, step)

    @torch.no_grad()
    def end_step(self) -> None:
        """All weights of the step have changed."""
        share = self._share(int(self._steps))
        for name, weight in self._dense.items():
            self._dense_mean[name].lerp_(weight, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's weights are the averages; after it they are the live ones again."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights and their averages; nothing before the first step."""
        step = int(self._steps)
        if step == 0:
            return
        for name, weight in self._dense.items():
            _exchange(weight, self._dense_mean[name])
        for first in range(0, self._table.shape[0], _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            weight, mean, seen = self._table[rows], self._table_mean[rows], self._seen[rows]
            mean.copy_(torch.lerp(weight, mean, self._rest(seen, step)))
            seen.fill_(step)
            _exchange(weight, mean)

    def tensors(self) -> dict[str, Tensor]:
        """All state by name: the tensors themselves, not copies."""
        dense = {f"dense.{name}": mean for name, mean in self._dense_mean.items()}
        return {**dense, "table": self._table_mean, "seen": self._seen, "steps": self._steps}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`tensors`."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])

    def _share(self, step: int) -> float:
        return (1 - self._decay) / (1 - self._decay**step)

    def _rest(self, seen: Tensor, step: int) -> Tensor:
        """[n, 1]: what is left at ``step`` of the distance that a row's average had from its weight
        when it was last touched.
        """
        if step == 0:
            return torch.zeros(seen.shape[0], 1, device=seen.device)
        a, d = seen.double(), self._decay
        left = d ** (step - a) * (1 - d**a) / (1 - d**step)
        return left.to(self._table_mean.dtype).unsqueeze(1)


def _exchange(one: Tensor, other: Tensor) -> None:
    kept = one.detach().clone()
    one.copy_(other)
    other.copy_(kept)
