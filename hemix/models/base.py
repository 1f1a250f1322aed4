"""What every neural ranker has: a Config, and the steps embed, encode_user, encode_request, score.

``embed`` reads the tables once for all levels of a call; no later step uses an id. A server caches
the result of ``encode_user``, completed by ``keep_user``, and calls the other two steps with later
batches. Their history ranges point into the cached events, so a user state does not depend on the
request.

Letters: N candidates, E events, T tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hemix.config import Count, Fraction, Rate, Section
from hemix.data.batch import RequestBatch
from hemix.data.spec import InputSpec
from hemix.nn import heads
from hemix.nn.embedding import EmbeddingTables
from hemix.nn.heads import Funnel, Heads, LossOptions
from hemix.nn.init import WeightInit
from hemix.nn.inputs import STAGES, Inputs, embed
from hemix.nn.states import extend_state, join_states
from hemix.validation import InvalidKey

__all__ = [
    "ModelConfig",
    "NeuralConfig",
    "Ranker",
    "SizedConfig",
    "check_divisor",
    "check_rotary",
    "named_sizes",
]

_PLAIN_LOSS = LossOptions()


class ModelConfig(Section):
    """A model's settings: the section ``model`` of a run's settings.yaml."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What each named size changes; empty for a model without named sizes."""

    name: str
    funnel: Funnel = "entire_space"
    """How a label with ``given`` is trained: over all impressions, or where that label is 1."""


class NeuralConfig(ModelConfig):
    """Settings of every neural model."""

    embedding_size: Count = 16
    """Width of every embedding table."""
    embedding_init_std: Rate = 0.05
    """Standard deviation of the tables' first values."""


def named_sizes(**settings: tuple[Any, Any, Any, Any]) -> dict[str, dict[str, Any]]:
    """Return the sizes tiny, base, small and large from a value of each for every setting."""
    names = ("tiny", "base", "small", "large")
    return {name: {key: of[i] for key, of in settings.items()} for i, name in enumerate(names)}


def check_divisor(width: int, **counts: int) -> None:
    """Check in a Config's validator that every count divides ``token_width``.

    Args:
        width: The token width.
        **counts: Counts by the name of their setting.

    Raises:
        ValueError: One does not.
    """
    for name, count in counts.items():
        if width % count:
            raise InvalidKey(name, f"expected a divisor of token_width {width}, got {count}")


def check_rotary(time_encoding: str, width: int, heads: int) -> None:
    """Check in a Config's validator that rotary times have pairs to turn.

    Args:
        time_encoding: The setting.
        width: The token width.
        heads: The attention's heads.

    Raises:
        ValueError: A head's width is odd.
    """
    if time_encoding == "rotary" and (width // heads) % 2:
        raise InvalidKey("time_encoding", "rotary needs an even token_width / attention_heads")


class SizedConfig(NeuralConfig):
    """Settings of every neural model of this package, each with the same named sizes."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024), layers=(2, 3, 3, 7)
    )

    size: str = "tiny"
    token_width: Count = 32
    """D, the width of a token; of models without tokens, a sixteenth of their hidden layers."""
    layers: Count = 2
    tower_hidden: Count = 64
    """Inner width of a task's tower."""
    dropout: Fraction = 0.0


class Ranker(nn.Module, ABC):
    """A neural model that scores candidates.

    Its user and request states are its own: what one step returns, the next takes. A user state is
    a tensor with a row per user, or a dataclass of such and of tensors with a row per event, which
    are marked by :data:`hemix.nn.states.PER_EVENT`.
    """

    Config: ClassVar[type[NeuralConfig]]
    """The settings of the model, and no others."""

    config: NeuralConfig
    heads: Heads
    tables: EmbeddingTables

    def __init__(self, spec: InputSpec, config: NeuralConfig) -> None:
        """Lay out the tables.

        Args:
            spec: The data that the model reads.
            config: The model's settings.
        """
        super().__init__()
        self.spec = spec
        self.config = config
        self.tables = EmbeddingTables(spec.tables, config.embedding_size)

    # -- the steps ------------------------------------------------------------------------------

    def embed(self, batch: RequestBatch, stages: Sequence[str] = STAGES) -> Inputs:
        """Look up the vectors of some levels.

        Args:
            batch: The batch.
            stages: Which of ``user``, ``request`` and ``candidate``.
        """
        return embed(self.tables, self.spec, batch, stages)

    @abstractmethod
    def encode_user(self, inputs: Inputs) -> Any:
        """Return what depends on the users and their events alone. Needs the stage ``user``."""

    @abstractmethod
    def encode_request(self, state: Any, inputs: Inputs) -> Any:
        """Return what depends on the requests, not on the candidates.

        Args:
            state: The user state, from :meth:`encode_user`.
            inputs: Inputs with the stage ``request``.
        """

    @abstractmethod
    def score(self, state: Any, inputs: Inputs) -> Tensor:
        """Return logits [N, T], conditional on the label that a task is given.

        Args:
            state: The request state, from :meth:`encode_request`.
            inputs: Inputs with the stage ``candidate``.
        """

    def forward(self, batch: RequestBatch) -> Tensor:
        """Return logits [N, T] of a whole batch."""
        inputs = self.embed(batch)
        user = self.encode_user(inputs)
        request = self.encode_request(user, inputs)
        return self.score(request, inputs)

    def training_logits(self, batch: RequestBatch) -> tuple[Tensor, ...]:
        """Return logits [N, T], then those of auxiliary predictions of the same labels, if any."""
        return (self(batch),)

    @torch.no_grad()
    def predict(self, batch: RequestBatch) -> dict[str, Tensor]:
        """Return probabilities [N] of every task, and of every task given the one it depends on.

        Negative sampling is undone.
        """
        return heads.probabilities(self(batch), self.spec)

    # -- kept states ----------------------------------------------------------------------------

    def keep_user(self, state: Any) -> Any:
        """Return the user state with what every later request would compute again.

        A server keeps it. The forward of a whole batch does without: each of its users has few
        requests.
        """
        return state

    def join_users(self, states: Sequence[Any]) -> Any:
        """Return kept states of several users as one, in their order."""
        return join_states(states)

    def extend_user(self, state: Any, new: Any, order: Tensor) -> Any:
        """Return the kept state of one user with new events of theirs.

        Args:
            state: The kept state.
            new: The state of the new events.
            order: int64 [E], the events to keep, by time: positions among those of ``state`` and
                then those of ``new``.
        """
        return extend_state(state, new, order)

    def event_weights(
        self,
        state: Any,  # noqa: ARG002
        inputs: Inputs,  # noqa: ARG002
        count: int,  # noqa: ARG002
        always_include: int | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor] | None:
        """Return the events that drew the candidates' attention most, for few candidates.

        Args:
            state: The request state.
            inputs: The request's inputs.
            count: How many events.
            always_include: The position of an event that gets a column of its own, the last, with
                weight 0 where it is among the others.

        Returns:
            Positions int64 [N, count], with ``always_include`` [N, count + 1]; -1 for none. Weights
            of the same shape; the first ``count`` fall. None where the model weighs no events by
            candidate.
        """
        return None

    # -- the loss -------------------------------------------------------------------------------

    def training_loss(self, batch: RequestBatch) -> Tensor:
        """Return the training loss of a batch with labels, a scalar."""
        logits_NT, *auxiliary = self.training_logits(batch)
        return self.loss(logits_NT, batch, auxiliary)

    def loss(
        self,
        logits_NT: Tensor,
        batch: RequestBatch,
        auxiliary: Sequence[Tensor] = (),
        options: LossOptions = _PLAIN_LOSS,
    ) -> Tensor:
        """Return the loss of the logits, a scalar, plus that of every auxiliary prediction.

        Args:
            logits_NT: [N, T], from :meth:`forward` or :meth:`training_logits`.
            batch: The batch of the logits, with labels.
            auxiliary: [N, T] each, from :meth:`training_logits`.
            options: Weights of tasks and smoothing; the divisor is the batch's ``loss_weight``.
        """
        labels, weights = _labels(batch)
        spec, funnel = self.spec, self.config.funnel
        options = replace(options, divisor_T=batch.loss_weight)
        losses = [
            heads.loss(logits, labels, weights, spec, funnel, options)
            for logits in (logits_NT, *auxiliary)
        ]
        return sum(losses[1:], losses[0])

    def loss_weight(self, batch: RequestBatch) -> Tensor:
        """Return [T], what the loss of a batch with labels is divided by."""
        labels, weights = _labels(batch)
        zeros = torch.zeros_like(labels)
        return heads.loss_sums(zeros, labels, weights, self.spec, self.config.funnel)[1]

    def loss_sums(
        self, logits_NT: Tensor, labels_NT: Tensor, weights_NT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return sums that add up over the rows of a split.

        Args:
            logits_NT: [N, T], from :meth:`forward`.
            labels_NT: [N, T]; 0 where unknown.
            weights_NT: [N, T]; 0 where the label is unknown.

        Returns:
            The summed loss [T] and the summed weight [T].
        """
        return heads.loss_sums(logits_NT, labels_NT, weights_NT, self.spec, self.config.funnel)

    def rescale(self, slope_T: Tensor, shift_T: Tensor) -> None:
        """Change the weights so that every task's logit becomes ``slope * logit + shift``.

        Args:
            slope_T: [T].
            shift_T: [T].
        """
        self.output_heads().rescale(slope_T, shift_T)

    def output_heads(self) -> Heads:
        """Return what gives the logits; a model whose ``heads`` lie elsewhere says where."""
        return self.heads

    # -- the weights ----------------------------------------------------------------------------

    def all_heads(self) -> list[Heads]:
        """Return the heads of the logits and of auxiliary predictions."""
        return [module for module in self.modules() if isinstance(module, Heads)]

    def bias_parameters(self) -> list[nn.Parameter]:
        """Return the bias tables [positions, T]; none without a bias column."""
        return [heads.position for heads in self.all_heads() if heads.position is not None]

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights anew.

        A module with an ``init_own_weights`` draws its own, PyTorch's layers are drawn by
        :class:`hemix.nn.init.WeightInit`, all in the order of :meth:`modules`.

        Args:
            generator: On the CPU, so that a seed means the same weights on every device.
        """
        WeightInit(generator, self.config.embedding_init_std).draw(self)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.tables.weight.device

    def dense_tensors(self) -> dict[str, Tensor]:
        """Return every weight and buffer but the embedding tables, by name; views."""
        state = self.state_dict().items()
        return {name: tensor for name, tensor in state if not name.startswith("tables.")}

    def table_tensors(self) -> dict[str, Tensor]:
        """Return the embedding tables by name; views."""
        return self.tables.by_name()

    def take_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make room for weights of these shapes; a neural model's shapes are its settings'."""

    def compilable(self) -> Sequence[nn.Module]:
        """Return what ``torch.compile`` may take over: dense tensors of fixed rank in and out."""
        return ()

    def named_dense_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Iterate over every parameter but the embedding tables, by name."""
        return ((name, p) for name, p in self.named_parameters() if name != "tables.weight")

    def dense_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over every parameter but the embedding tables."""
        return (p for _, p in self.named_dense_parameters())


def _labels(batch: RequestBatch) -> tuple[Tensor, Tensor]:
    assert batch.labels is not None and batch.weights is not None, "needs a batch with labels"
    return batch.labels, batch.weights
