"""Optimisers of the embedding tables: they change only the rows that a step looked up.

Each equals FBGEMM's fused optimiser of the same name. FBGEMM's kernel can do the work of row-wise
Adagrad; the state is the same either way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from hemix.errors import MissingExtra, SettingsError
from hemix.nn.embedding import EmbeddingTables
from hemix.training import fbgemm
from hemix.training.moving_average import MovingAverage

__all__ = [
    "FbgemmRowwiseAdagrad",
    "RowAdam",
    "RowOptimizer",
    "RowwiseAdagrad",
    "build_table_optimizer",
]

_VALUES_PER_CHUNK = 2**18
"""Rows are updated in chunks of so many values, which stay in a core's cache."""


class RowOptimizer(ABC):
    """Updates the rows that a step looked up, after its backward passes."""

    backend = "PyTorch"
    """Who updates the rows, and why, for a person."""

    weight_decay = 0.0
    """Decoupled, as AdamW's, on the rows of a step, so it is stronger on rows that are looked up
    often.
    """

    average: MovingAverage | None = None
    """The moving average to update; None: the run has none"""

    def __init__(self, tables: EmbeddingTables) -> None:
        self._tables = tables

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the rows that have a gradient and clear the gradients."""
        row_gradients = self._tables.take_step()
        if row_gradients is None:
            return
        self._begin_step()
        weight = self._tables.weight
        chunk_rows = (
            max(_VALUES_PER_CHUNK // weight.shape[1], 1)
            if weight.device.type == "cpu"
            else row_gradients[0].shape[0] + 1
        )
        chunks = (torch.split(tensor, chunk_rows) for tensor in row_gradients)
        for rows, gradient in zip(*chunks, strict=True):
            before = weight.index_select(0, rows)
            updated = before.clone() if self.average is not None else before
            if self.weight_decay > 0:
                updated.mul_(1 - learning_rate * self.weight_decay)
            updated.add_(self._direction(rows, gradient), alpha=-learning_rate)
            weight.index_copy_(0, rows, updated)
            if self.average is not None:
                self.average.update_rows(rows, before, updated)

    def _begin_step(self) -> None:  # noqa: B027
        """Prepare a step; called once, before its chunks of rows."""

    @abstractmethod
    def _direction(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """Update the state of some rows and return the descent direction [n, width].

        Args:
            rows: int64 [n], distinct.
            gradient: [n, width].
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return all state by name: the tensors themselves, not copies."""

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`tensors` returned."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])


class RowAdam(RowOptimizer):
    """Adam on the looked-up rows; bias correction by the number of steps, as FBGEMM does, not by a
    row's own count.
    """

    def __init__(
        self,
        tables: EmbeddingTables,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(tables)
        self._betas, self._epsilon = betas, epsilon
        self._mean = torch.zeros_like(tables.weight, requires_grad=False)
        self._square = torch.zeros_like(tables.weight, requires_grad=False)
        self._steps = torch.zeros((), dtype=torch.int64)

    def _begin_step(self) -> None:
        self._steps += 1

    def _direction(self, rows: Tensor, gradient: Tensor) -> Tensor:
        steps, (first, second) = int(self._steps), self._betas
        mean = self._mean.index_select(0, rows).lerp_(gradient, 1 - first)
        square = (
            self._square.index_select(0, rows)
            .mul_(second)
            .addcmul_(gradient, gradient, value=1 - second)
        )
        self._mean.index_copy_(0, rows, mean)
        self._square.index_copy_(0, rows, square)
        scale = square.div_(1 - second**steps).sqrt_().add_(self._epsilon)
        return mean.div_(1 - first**steps).div_(scale)

    def tensors(self) -> dict[str, Tensor]:
        """Return first and second moments [rows, width] and the number of steps."""
        return {"mean": self._mean, "square": self._square, "steps": self._steps}


class RowwiseAdagrad(RowOptimizer):
    """Adagrad with one state value per row: the sum over steps of the row's mean squared
    gradient.
    """

    def __init__(self, tables: EmbeddingTables, epsilon: float = 1e-8) -> None:
        super().__init__(tables)
        self._epsilon = epsilon
        self._sum = torch.zeros_like(tables.weight[:, 0], requires_grad=False)

    def _direction(self, rows: Tensor, gradient: Tensor) -> Tensor:
        total = self._sum.index_select(0, rows).add_(gradient.square().mean(1))
        self._sum.index_copy_(0, rows, total)
        return gradient / total.sqrt_().add_(self._epsilon).unsqueeze(1)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums [rows]."""
        return {"sum": self._sum}


class FbgemmRowwiseAdagrad(RowwiseAdagrad):
    """The same with FBGEMM's kernel, equal within rounding.

    Raises MissingExtra or SettingsError where FBGEMM cannot be used.
    """

    def __init__(self, tables: EmbeddingTables) -> None:
        super().__init__(tables)
        fbgemm.load()
        self.backend = f"FBGEMM {fbgemm.installed()}"

    def step(self, learning_rate: float) -> None:
        """Update the rows that have a gradient and clear the gradients."""
        gradients = self._tables.take_gradients()
        if gradients is None:
            return
        weight = self._tables.weight
        needs_rows = self.average is not None or self.weight_decay > 0
        rows = torch.unique(gradients.ids) if needs_rows else gradients.ids[:0]
        before = weight.detach().index_select(0, rows)
        if self.weight_decay > 0:
            weight.detach().index_copy_(0, rows, before * (1 - learning_rate * self.weight_decay))
        fbgemm.rowwise_adagrad(weight, self._sum, gradients, learning_rate, self._epsilon)
        if self.average is not None:
            self.average.update_rows(rows, before, weight.detach().index_select(0, rows))


def build_table_optimizer(
    name: str, tables: EmbeddingTables, backend: str = "torch"
) -> RowOptimizer:
    """Make the optimiser of a model that is already on its device.

    Args:
        name: ``adam`` or ``rowwise_adagrad``.
        tables: The embedding tables.
        backend: ``torch``, ``fbgemm``, or ``auto``: FBGEMM where it can.

    Raises:
        MissingExtra: If ``backend`` is ``fbgemm`` and FBGEMM is not installed.
        SettingsError: Naming a setting that cannot be used here.
    """
    known: dict[str, type[RowAdam] | type[RowwiseAdagrad]] = {
        "adam": RowAdam,
        "rowwise_adagrad": RowwiseAdagrad,
    }
    if name not in known:
        raise SettingsError(
            f"train.table_optimizer: unknown optimiser {name!r}",
            field="train.table_optimizer",
            hint=f"known: {', '.join(known)}",
        )
    fits = fbgemm.fits(name, tables.weight)
    if backend == "fbgemm":
        if not fits:
            raise SettingsError(
                "train.embedding_backend: fbgemm needs train.table_optimizer=rowwise_adagrad and "
                "train.device=cpu: FBGEMM has no "
                f"kernel here for {name} on {tables.weight.device}",
                field="train.embedding_backend",
            )
        return FbgemmRowwiseAdagrad(tables)
    optimizer = known[name](tables)
    if backend == "torch":
        return optimizer
    if not fits:
        optimizer.backend = "PyTorch (FBGEMM: only rowwise_adagrad on the CPU)"
        return optimizer
    try:
        return FbgemmRowwiseAdagrad(tables)
    except (MissingExtra, SettingsError) as error:
        optimizer.backend = f"PyTorch ({error})"
    return optimizer
