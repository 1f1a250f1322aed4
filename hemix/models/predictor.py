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
        """Look up the vectors of some levels.

        Args:
            batch: The batch.
            levels: Which of ``user``, ``request`` and ``candidate``.
        """
        ...

    def encode_user(self, inputs: Inputs) -> Any:
        """Return what depends on the users and their events alone."""
        ...

    def encode_request(self, state: Any, inputs: Inputs) -> Any:
        """Return what depends on the requests, not on the candidates.

        Args:
            state: The user state, from :meth:`encode_user`.
            inputs: Inputs with the level ``request``.
        """
        ...

    def score(self, state: Any, inputs: Inputs) -> Tensor:
        """Return logits [N, T].

        Args:
            state: The request state, from :meth:`encode_request`.
            inputs: Inputs with the level ``candidate``.
        """
        ...

    def keep_user(self, state: Any) -> Any:
        """Return the user state with what every later request would compute again."""
        ...

    def join_users(self, states: Sequence[Any]) -> Any:
        """Return kept states of several users as one."""
        ...

    def extend_user(self, state: Any, new: Any, order: Tensor) -> Any:
        """Return a user's cached state with new events.

        Args:
            state: The cached state.
            new: The state of the new events.
            order: int64 [E], the events to keep, by time: positions among those of ``state`` and
                then those of ``new``.
        """
        ...

    def event_weights(
        self, state: Any, inputs: Inputs, count: int, always_include: int | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Return the events that drew the candidates' attention most.

        Args:
            state: The request state.
            inputs: The request's inputs.
            count: How many events to return.
            always_include: The position of an event that gets a column of its own, the last, with
                weight 0 where it is among the others.

        Returns:
            Positions int64 [N, count], with ``always_include`` [N, count + 1]; -1 for none. Weights
            of the same shape; the first ``count`` fall. None if the model weighs no events by
            candidate.
        """
        ...

    def loss_sums(
        self, logits_NT: Tensor, labels_NT: Tensor, weights_NT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return sums that add up over the rows of a split.

        Args:
            logits_NT: [N, T].
            labels_NT: [N, T]; 0 where unknown.
            weights_NT: [N, T]; 0 where the label is unknown.

        Returns:
            The summed loss [T] and the summed weight [T].
        """
        ...

    def rescale(self, slope_T: Tensor, shift_T: Tensor) -> None:
        """Make every task's logit ``slope * logit + shift`` from now on.

        Args:
            slope_T: [T].
            shift_T: [T].
        """
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
