"""What runs, studies and servers need of a trained model, neural or not.

A ranking is made in steps (embed, encode_user, encode_request, score), so that a server keeps what
depends on users alone. A run folder keeps a model as named tensors.

Letters: N candidates, T tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.spec import InputSpec
from hemix.models.base import ModelConfig
from hemix.nn.inputs import LEVELS, Inputs

__all__ = ["Predictor"]


class Predictor(Protocol):
    """A model that scores. :class:`~hemix.models.base.Ranker` says what each step is."""

    Config: ClassVar[type[Any]]
    """The model's settings, a ModelConfig."""

    spec: InputSpec

    @property
    def config(self) -> ModelConfig:
        """The model's settings."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model lies, and batches have to."""
        ...

    def to(self, device: torch.device) -> Self:
        """Move the model."""
        ...

    def eval(self) -> Self:
        """Switch off what only training has, such as dropout."""
        ...

    def __call__(self, batch: RequestBatch) -> Tensor:
        """Return logits [N, T] of a whole batch."""
        ...

    def predict(self, batch: RequestBatch) -> dict[str, Tensor]:
        """Return probabilities [N] by output; negative sampling undone."""
        ...

    def embed(self, batch: RequestBatch, levels: Sequence[str] = LEVELS) -> Inputs:
        """Look up the vectors of some levels."""
        ...

    def encode_user(self, inputs: Inputs) -> Any:
        """Return what depends on the users and their events alone."""
        ...

    def encode_request(self, state: Any, inputs: Inputs) -> Any:
        """Return what depends on the requests, not on the candidates."""
        ...

    def score(self, state: Any, inputs: Inputs) -> Tensor:
        """Return logits [N, T]."""
        ...

    def join_users(self, states: Sequence[Any]) -> Any:
        """Return kept states of several users as one."""
        ...

    def extend_user(self, state: Any, new: Any, order: Tensor) -> Any:
        """Return a user's kept state with new events."""
        ...

    def event_weights(
        self, state: Any, inputs: Inputs, count: int, extra: int | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Return the events that drew the candidates' attention most; None where none does."""
        ...

    def loss_sums(self, logits_NT: Tensor, batch: RequestBatch) -> tuple[Tensor, Tensor]:
        """Return summed loss [T] and weight [T] of a batch with labels."""
        ...

    def rescale(self, slope_T: Tensor, shift_T: Tensor) -> None:
        """Make every task's logit ``slope * logit + shift`` from now on."""
        ...

    def dense_tensors(self) -> dict[str, Tensor]:
        """Return every weight but the embedding tables, by name; views."""
        ...

    def table_tensors(self) -> dict[str, Tensor]:
        """Return the embedding tables by name; views."""
        ...

    def take_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make room for dense tensors of these shapes, where only training knows how large."""
        ...
