"""LightGBM on the encoded features, behind the interface of a ranker.

The paper is Ke et al., "LightGBM: a highly efficient gradient boosting decision tree", NIPS 2017.
The three steps make a row of numbers for every candidate. Boosted trees score it, with one booster
a task. A row holds, of every level:

  - the numbers, NaN where their missing flag is set (the flag itself is left out);
  - ids of vocabularies of up to 256 rows as categories;
  - ids of larger vocabularies as the rank of the value by train count: frequent values are low, an
    unknown one is above all, a missing one is NaN;
  - ids of other small tables (buckets, calendar fields) as ordered numbers, NaN where missing;
  - no ids of other large tables, because these are hashes;
  - how many values a multi-valued feature has.

It also holds the number of events that the request sees in each part of the history, and the bias
column (position). The events themselves are not used.

A task with ``given`` is boosted on its own label over the entire space. Its logit here is that of
p(order) / p(click), held below 1. With ``funnel: given_only`` it is boosted where the given label
is 1 and its score is the conditional logit itself.

The boosters' texts are uint8 tensors, so a run stores them in its safetensors. LightGBM is imported
when trees score.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.jagged import offsets_of
from hemix.data.spec import MISSING, UNKNOWN, InputSpec, LevelSpec
from hemix.errors import MissingExtra, SettingsError
from hemix.models.base import ModelConfig
from hemix.models.registry import register_model
from hemix.nn.heads import log_probabilities, loss_sums, probabilities
from hemix.nn.inputs import LEVELS, Inputs
from hemix.nn.states import join_states

__all__ = ["CATEGORIES_MAX", "LightGBM", "LightGBMConfig", "feature_kinds", "load_lightgbm"]

CATEGORIES_MAX = 256
"""Rows up to which a vocabulary's ids are categories, and up to which other ids are taken for
buckets."""

_CERTAIN = 1e-6
"""p(order | click) is held this far below 1."""

Kind = Literal["category", "rank", "ordinal", "left out"]


def load_lightgbm() -> ModuleType:
    """The package. Raises MissingExtra where it is absent, SettingsError where it does not load."""
    try:
        return importlib.import_module("lightgbm")
    except ModuleNotFoundError as error:
        raise MissingExtra("lightgbm", "baselines", "model.name=lightgbm") from error
    except OSError as error:
        raise SettingsError(
            f"model.name: lightgbm is installed but does not load: {str(error).splitlines()[0]}",
            field="model.name",
        ) from error


def feature_kinds(level: LevelSpec, spec: InputSpec) -> tuple[Kind, ...]:
    """Return how the trees read every id column of a level.

    Args:
        level: The columns of the level.
        spec: The data's tables and vocabularies.
    """
    kinds = list[Kind]()
    for table in level.tables:
        small = spec.tables[table] <= CATEGORIES_MAX
        if table in spec.vocabularies:
            kinds.append("category" if small else "rank")
        else:
            kinds.append("ordinal" if small else "left out")
    return tuple(kinds)


class LightGBMConfig(ModelConfig):
    """Settings of LightGBM as a model; those of its training are the section ``boosting``."""

    name: Literal["lightgbm"] = "lightgbm"


@register_model("lightgbm")
class LightGBM:
    """Boosted trees, one booster a task, and no embedding tables.

    Its states are rows of numbers, of users, then of requests.
    """

    Config: ClassVar[type[LightGBMConfig]] = LightGBMConfig

    def __init__(self, spec: InputSpec, config: LightGBMConfig) -> None:
        """Make a model without trees.

        Args:
            spec: The data that it reads.
            config: Its settings.
        """
        self.spec = spec
        self.config = config
        tasks = len(spec.tasks)
        self.platt_scaling = torch.tensor([[1.0], [0.0]]).repeat(1, tasks)
        """Slope and shift of every task's logits, [2, T]"""
        self._booster_texts = [torch.empty(0, dtype=torch.uint8) for _ in range(tasks)]
        """Each booster as LightGBM's text, in bytes"""
        self._boosters: list[Any] | None = None

    # -- where it lies ------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where rows are laid out; the trees score on the CPU."""
        return self.platt_scaling.device

    def to(self, device: torch.device) -> Self:
        """Move what is made of tensors."""
        self.platt_scaling = self.platt_scaling.to(device)
        return self

    def eval(self) -> Self:
        """Return the model: trees have no mode of training."""
        return self

    # -- rows of numbers -------------------------------------------------------------------------

    def embed(self, batch: RequestBatch, levels: Sequence[str] = LEVELS) -> Inputs:  # noqa: ARG002
        """Return the batch alone: trees have no vectors to look up.

        Args:
            batch: The batch.
            levels: Not used.
        """
        return Inputs(batch=batch)

    def encode_user(self, inputs: Inputs) -> Tensor:
        """[R, user features]"""
        return _numbers(inputs.batch.users, self.spec.user, self.spec)

    def encode_request(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return user features, context features and history lengths, [Q, columns].

        Args:
            state: User features [R, columns].
            inputs: The batch.
        """
        batch = inputs.batch
        lengths = batch.history_ranges.diff(dim=1).to(state.dtype)
        return torch.cat(
            [
                state[batch.user_index],
                _numbers(batch.context, self.spec.context, self.spec),
                lengths,
            ],
            1,
        )

    def candidate_rows(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return what the trees read, fp32 [N, features].

        Args:
            state: The request state [Q, columns].
            inputs: The batch.
        """
        batch = inputs.batch
        parts = [
            state[batch.request_index],
            _numbers(batch.items, self.spec.item, self.spec)[batch.item_index],
            _numbers(batch.cross, self.spec.cross, self.spec),
        ]
        if self.spec.bias_rows:
            parts.append(batch.bias.to(state.dtype).unsqueeze(1))
        return torch.cat(parts, 1)

    def rows(self, batch: RequestBatch) -> Tensor:
        """[N, features], fp32, of a whole batch."""
        inputs = self.embed(batch)
        return self.candidate_rows(self.encode_request(self.encode_user(inputs), inputs), inputs)

    @property
    def features(self) -> tuple[tuple[str, bool], ...]:
        """(name, whether it is a category) of every column of :meth:`rows`."""
        spec = self.spec
        return (
            *_features("user", spec.user, spec),
            *_features("context", spec.context, spec),
            ("history.global", False),
            ("history.realtime", False),
            *_features("item", spec.item, spec),
            *_features("cross", spec.cross, spec),
            *((("bias", False),) if spec.bias_rows else ()),
        )

    # -- scores ----------------------------------------------------------------------------------

    def __call__(self, batch: RequestBatch) -> Tensor:
        """Return logits [N, T] of a whole batch."""
        inputs = self.embed(batch)
        return self.score(self.encode_request(self.encode_user(inputs), inputs), inputs)

    def predict(self, batch: RequestBatch) -> dict[str, Tensor]:
        """Return probabilities [N] by output; negative sampling undone."""
        return probabilities(self(batch), self.spec)

    def loss_sums(
        self, logits_NT: Tensor, labels_NT: Tensor, weights_NT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return sums that add up over the rows of a split: loss [T] and weight [T].

        Args:
            logits_NT: [N, T].
            labels_NT: [N, T]; 0 where unknown.
            weights_NT: [N, T]; 0 where the label is unknown.
        """
        return loss_sums(logits_NT, labels_NT, weights_NT, self.spec, self.config.funnel)

    def keep_user(self, state: Tensor) -> Tensor:
        """Return the state unchanged: it is complete."""
        return state

    def join_users(self, states: Sequence[Tensor]) -> Tensor:
        """Return several users' rows."""
        joined: Tensor = join_states(states)
        return joined

    def extend_user(self, state: Tensor, new: Tensor, order: Tensor) -> Tensor:  # noqa: ARG002
        """Return the user's row unchanged: it does not depend on events.

        Args:
            state: The user's row [1, columns].
            new: The row of the new events.
            order: int64 [E], the events to keep.
        """
        return state

    def event_weights(
        self,
        state: Tensor,  # noqa: ARG002
        inputs: Inputs,  # noqa: ARG002
        count: int,  # noqa: ARG002
        always_include: int | None = None,  # noqa: ARG002
    ) -> None:
        """Return None: trees weigh no events.

        Args:
            state: The request state.
            inputs: The request's inputs.
            count: How many events are asked for.
            extra: A further event; None without one.
        """
        return

    @torch.no_grad()
    def score(self, state: Tensor, inputs: Inputs) -> Tensor:
        """Return logits [N, T]: conditional for a task with ``given``, zeros without trees.

        Args:
            state: The request state [Q, columns].
            inputs: The batch.
        """
        rows = self.candidate_rows(state, inputs)
        boosters = self.boosters()
        if not boosters:
            return rows.new_zeros(rows.shape[0], len(self.spec.tasks))
        matrix: npt.NDArray[np.float32] = rows.cpu().numpy()
        threads = torch.get_num_threads()
        raw = [booster.predict(matrix, raw_score=True, num_threads=threads) for booster in boosters]
        raw_NT = torch.from_numpy(np.stack(raw, 1).reshape(len(matrix), len(boosters)))
        logits_NT = raw_NT if self.config.funnel == "given_only" else self._conditional(raw_NT)
        slope_T, shift_T = self.platt_scaling.double()
        scaled_NT: Tensor = (logits_NT * slope_T + shift_T).to(rows)
        return scaled_NT

    @torch.no_grad()
    def rescale(self, slope_T: Tensor, shift_T: Tensor) -> None:
        """Make every task's logit ``slope * logit + shift``; both are stored next to the trees.

        Args:
            slope_T: [T].
            shift_T: [T].
        """
        slope, shift = self.platt_scaling
        slope_T, shift_T = slope_T.to(slope), shift_T.to(shift)
        self.platt_scaling = torch.stack([slope * slope_T, shift * slope_T + shift_T])

    def _conditional(self, raw_NT: Tensor) -> Tensor:
        """The logits of p / p(given) from logits over the entire space, fp64 [N, T]."""
        logits = list[Tensor]()
        for index, task in enumerate(self.spec.tasks):
            logit = raw_NT[:, index]
            if task.given is not None:
                log_given = log_probabilities(_padded(logits, self.spec), self.spec)[0][
                    :, task.given
                ]
                log_ratio = (F.logsigmoid(logit) - log_given).clamp(max=float(np.log1p(-_CERTAIN)))
                logit = log_ratio - torch.log(-torch.expm1(log_ratio))
            logits.append(logit)
        return torch.stack(logits, 1)

    # -- trees -----------------------------------------------------------------------------------

    def set_trees(self, texts: Sequence[str]) -> None:
        """Take the boosters of all tasks, each as LightGBM's text."""
        for task, text in enumerate(texts):
            self._booster_texts[task] = torch.from_numpy(
                np.frombuffer(text.encode(), dtype=np.uint8).copy()
            )
        self._boosters = None

    def dense_tensors(self) -> dict[str, Tensor]:
        """Return the boosters' texts and the scaling of their logits."""
        trees = {_tensor_name(task): text for task, text in enumerate(self._booster_texts)}
        return {**trees, "line": self.platt_scaling}  # the name in the files of run folders

    def table_tensors(self) -> dict[str, Tensor]:
        """Return tables without columns: a run folder lists every table."""
        return {name: torch.empty(rows, 0) for name, rows in self.spec.tables.items()}

    def take_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make room for boosters' texts of other lengths."""
        for task in range(len(self.spec.tasks)):
            shape = shapes.get(_tensor_name(task), ())
            if len(shape) == 1:
                self._booster_texts[task] = torch.empty(shape, dtype=torch.uint8)
        self._boosters = None

    def boosters(self) -> list[Any]:
        """LightGBM's boosters, one a task; empty before there are trees. Raises MissingExtra,
        SettingsError."""
        if self._boosters is None:
            texts = [text.numpy().tobytes().decode() for text in self._booster_texts]
            if not all(texts):
                return []
            module = load_lightgbm()
            self._boosters = [module.Booster(model_str=text) for text in texts]
        return self._boosters

    def leaves(self) -> int:
        """Leaf values of all trees of all tasks."""
        return sum(
            sum(tree["num_leaves"] for tree in booster.dump_model()["tree_info"])
            for booster in self.boosters()
        )


def _tensor_name(task: int) -> str:
    return f"trees_{task}"


def _padded(logits: list[Tensor], spec: InputSpec) -> Tensor:
    """[N, T] with zeros for the tasks that have no logit yet."""
    return torch.stack(
        [*logits, *[torch.zeros_like(logits[0])] * (len(spec.tasks) - len(logits))], 1
    )


def _numbers(columns: Columns, level: LevelSpec, spec: InputSpec) -> Tensor:
    """[rows, features of the level], fp32, in the order of :func:`_features`."""
    nan, parts = float("nan"), list[Tensor]()
    for kind, table, ids in zip(
        feature_kinds(level, spec), level.tables, columns.ids.unbind(1), strict=True
    ):
        if kind == "left out":
            continue
        values = ids.to(torch.float32)
        if kind == "rank":
            values = values.masked_fill(ids == UNKNOWN, spec.tables[table])
        parts.append(values if kind == "category" else values.masked_fill(ids == MISSING, nan))
    for jagged in columns.jagged:
        ends = offsets_of(jagged.values != MISSING)
        parts.append((ends[jagged.offsets[1:]] - ends[jagged.offsets[:-1]]).to(torch.float32))
    numbers = columns.numbers.to(torch.float32)
    flags = {
        name.removesuffix(".missing"): at
        for at, name in enumerate(level.number_names)
        if name.endswith(".missing")
    }
    for at, name in enumerate(level.number_names):
        if name.endswith(".missing"):
            continue
        flag = flags.get(name, flags.get(name.rpartition(".")[0]))
        parts.append(
            numbers[:, at]
            if flag is None
            else numbers[:, at].masked_fill(numbers[:, flag] > 0, nan)
        )
    return torch.stack(parts, 1) if parts else numbers.new_zeros(columns.rows, 0)


def _features(where: str, level: LevelSpec, spec: InputSpec) -> list[tuple[str, bool]]:
    kinds = zip(level.names, feature_kinds(level, spec), strict=True)
    features = [
        (f"{where}.{name}", kind == "category") for name, kind in kinds if kind != "left out"
    ]
    features += [(f"{where}.{name}", False) for name in level.jagged_names]
    return features + [
        (f"{where}.{name}", False) for name in level.number_names if not name.endswith(".missing")
    ]
