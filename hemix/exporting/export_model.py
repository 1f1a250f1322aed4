"""A HeMix as two modules that a graph for another server can hold.

The forward is the model's own. Its inputs are padded rectangles instead of ragged rows
(`hemix.nn.padded`), and each half looks up vectors in its own tables. There are two modules because
a server calls them at different times: :class:`PaddedUserEncoder` once per user,
:class:`PaddedRequestScorer` once per request. Both list the name, type and shape of their inputs
and outputs.

Letters: R users, e events a user, I distinct item rows of events, Q requests, K candidates a
request, N = Q * K. D is the token width, W the width of a level's vectors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.data.batch import RequestBatch
from hemix.data.columns import Columns
from hemix.data.spec import MISSING, InputSpec, LevelSpec
from hemix.errors import UsageError
from hemix.exporting.tensor_specs import (
    PADDING,
    TensorSpec,
    level_tensors,
    state_tensors,
    takes_times,
    user_tensors,
)
from hemix.models import Predictor
from hemix.models.hemix import HeMix, UserState
from hemix.nn.heads import probabilities
from hemix.nn.inputs import EventField, Inputs
from hemix.nn.interests import HistoryInterest
from hemix.nn.padded import PaddedLayout, flat_events, padded_events
from hemix.nn.pooled import PooledState
from hemix.nn.time_encoding import rotary_turns

__all__ = ["PaddedRequestScorer", "PaddedUserEncoder", "check_exportable", "padded_form"]

_BY_EVENT = ("state_global", "state_columns", "state_time_ms")


def check_exportable(model: Predictor) -> HeMix:
    """Return a model that can be exported. Raises UsageError for any other."""
    if not isinstance(model, HeMix):
        raise UsageError(
            f"the model {model.config.name!r} cannot be exported: only hemix has a padded form",
            code="not_exportable",
            field="model.name",
        )
    if model.realtime is None or model.global_ is None:
        missing = "use_global" if model.global_ is None else "use_realtime"
        raise UsageError(
            f"a model with model.{missing}: false cannot be exported: the padded form has both "
            "histories",
            code="not_exportable",
            field=f"model.{missing}",
        )
    if not (
        _has_columns(model.spec.item) or _has_columns(model.spec.cross) or model.spec.bias_rows
    ):
        raise UsageError(
            "a model without any column of a candidate (no item or cross feature, no position) "
            "cannot be exported: it scores all candidates of a request alike",
            code="not_exportable",
            field="features.item",
            hint="add a feature to items",
        )
    return model


def padded_form(model: Predictor) -> tuple[PaddedUserEncoder, PaddedRequestScorer]:
    """Return both halves of a model. Raises UsageError for a model that has no padded form."""
    hemix = check_exportable(model)
    return PaddedUserEncoder(hemix).eval(), PaddedRequestScorer(hemix).eval()


def _has_columns(level: LevelSpec) -> bool:
    return bool(level.tables or level.jagged_tables or level.numbers)


class _GraphModule(nn.Module):
    """Some of a model's modules, tables of its own levels, and the names of its tensors."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self, model: HeMix, tables: Sequence[str], modules: Sequence[str]) -> None:
        """Take what a half needs.

        Args:
            model: The whole model, which stays as it is.
            tables: The tables that it looks up in.
            modules: The model's modules that it runs.
        """
        super().__init__()
        self.spec, self.config = model.spec, model.config
        by_name = model.table_tensors()
        self._table = {name: index for index, name in enumerate(dict.fromkeys(tables))}
        self.tables = nn.ParameterList(
            [nn.Parameter(by_name[name], requires_grad=False) for name in self._table]
        )
        self.model = copy.copy(model)
        self.model._modules = {
            name: _traceable(module) if name in modules else None
            for name, module in model._modules.items()
        }

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Positional inputs by their names."""
        assert len(tensors) == len(self.inputs), "one tensor per input"
        return {
            tensor_spec.name: tensor
            for tensor_spec, tensor in zip(self.inputs, tensors, strict=True)
        }

    def _vectors(self, table: str, ids: Tensor) -> Tensor:
        """[...] -> [..., width]"""
        return F.embedding(ids, self.tables[self._table[table]])

    def _jagged(self, table: str, ids: Tensor) -> Tensor:
        """Mean [..., width] of the values of each list [..., k]; the missing row where there is
        none.
        """
        real = (ids != PADDING).unsqueeze(-1)
        vectors = self._vectors(table, ids.clamp(min=0)) * real
        count = real.sum(-2)
        missing = self.tables[self._table[table]][MISSING]
        return torch.where(count > 0, vectors.sum(-2) / count.clamp(min=1), missing)

    def _level(self, name: str, level: LevelSpec, given: Mapping[str, Tensor]) -> Tensor | None:
        """Vectors [..., W] of a level, ids first, then multi-valued features, then numbers; None
        without columns.
        """
        vectors = [
            self._vectors(table, given[f"{name}_ids"][..., i])
            for i, table in enumerate(level.tables)
        ]
        vectors += [
            self._jagged(table, given[f"{name}_bag_{feature}"])
            for feature, table in zip(level.jagged_names, level.jagged_tables, strict=True)
        ]
        if level.numbers:
            vectors.append(given[f"{name}_numbers"])
        return torch.cat(vectors, -1) if vectors else None


def _traceable(module: nn.Module | None) -> nn.Module | None:
    """The module; of interests by rotary times a copy that keeps their turns, because an exporter
    rounds the fp64 constants of a formula to fp32."""
    if not isinstance(module, HistoryInterest) or module.time_encoding != "rotary":
        return module
    module = copy.copy(module)
    module._buffers = {**module._buffers, "turns_per_ms": rotary_turns(module.pairs)}
    return module


def _level_tables(*levels: LevelSpec) -> list[str]:
    return [table for level in levels for table in (*level.tables, *level.jagged_tables)]


class PaddedUserEncoder(_GraphModule):
    """What depends on users and their events alone: `hemix.models.hemix.UserState`, one history a
    row.

    Row 0 of a history is the null event, row e + 1 event e.
    """

    def __init__(self, model: HeMix) -> None:
        spec: InputSpec = model.spec
        event_item_tables = [spec.item.tables[c] for c in spec.event_item_columns]
        used = [*_level_tables(spec.user), *event_item_tables, *spec.event.tables]
        super().__init__(model, used, ["tokenizer", "events", "global_", "products"])
        self.event_item_tables = event_item_tables
        self.inputs, self.outputs = tuple(user_tensors(spec)), state_tensors(model)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The state, in the order of :attr:`outputs`."""
        given = self.named(tensors)
        users, events = given["event_time_ms"].shape
        state = self.model.keep_user(self.model.encode_user(self._inputs(given)))
        columns = {"state_share": state.projected_RU}
        by_event = {
            "state_events": state.events_ED,
            "state_global": state.global_keys_values,
            "state_time_ms": state.event_time_ms,
        }
        if state.fields is not None:
            columns["state_fields"] = state.fields.fields
            by_event["state_columns"] = state.fields.events_ED
        for name, rows in by_event.items():
            if rows is not None:
                columns[name] = padded_events(rows, users, events)
        return tuple(columns[tensor_spec.name] for tensor_spec in self.outputs)

    def _inputs(self, given: Mapping[str, Tensor]) -> Inputs:
        """The level ``user``: look-ups of every event and of every distinct item row."""
        spec, time_Re = self.spec, given["event_time_ms"]
        users, time_E = time_Re.shape[0], time_Re.flatten()
        none = time_E.new_zeros(0)
        ids_Ef = (
            given["event_ids"].flatten(0, 1)
            if spec.event.tables
            else time_E.new_zeros(time_E.shape[0], 0)
        )
        fields = tuple(
            EventField(values_Vd=self.tables[self._table[table]], index_E=ids_Ef[:, column])
            for column, table in enumerate(spec.event.tables)
        )
        item_IW, event_item = self._items(given, time_E)
        user_RW = self._level("user", spec.user, given)
        no_columns = Columns(ids=none.unsqueeze(1)[:, :0], numbers=item_IW.new_zeros(0, 0))
        batch = RequestBatch(
            users=no_columns,
            event_offsets=none,
            event_item=event_item,
            event_time_ms=time_E,
            event_ids=ids_Ef,
            user_index=none,
            request_time_ms=none,
            context=no_columns,
            history_ranges=none,
            request_index=none,
            item_index=none,
            cross=no_columns,
            bias=none,
            items=no_columns,
        )
        if user_RW is None:
            user_RW = item_IW.new_zeros(users, 0)
        padded = PaddedLayout(
            events=time_Re.shape[1],
            candidates_each=0,
            user_index_Q=none,
            history_ranges_Q3=none,
            request_time_ms=none,
        )
        return Inputs(
            batch=batch, user_RW=user_RW, event_fields=fields, item_IW=item_IW, padded=padded
        )

    def _items(self, given: Mapping[str, Tensor], time_E: Tensor) -> tuple[Tensor, Tensor]:
        """(vectors [I, W] of item rows, the row of every event)."""
        level, size = self.spec.item, self.config.embedding_size
        if not self.event_item_tables:
            no_vectors = self.model.events.null.new_zeros(1, len(level.tables) * size)
            return no_vectors, torch.zeros_like(time_E)
        own_Ic, columns = given["event_item_ids"], self.spec.event_item_columns
        tables = enumerate(self.event_item_tables)
        vectors = [self._vectors(table, own_Ic[:, i]) for i, table in tables]
        # the other columns are not read, so any vector may stand there
        positions = [columns.index(c) if c in columns else 0 for c in range(len(level.tables))]
        item_IW = torch.cat([vectors[position] for position in positions], 1)
        return item_IW, given["event_item"].flatten()


class PaddedRequestScorer(_GraphModule):
    """From the users' state, requests and their candidates to probabilities [Q, K] by name."""

    def __init__(self, model: HeMix) -> None:
        spec, both = model.spec, ("requests", "candidates")
        used = ["tokenizer", "realtime", "global_", "products", "norm_interests"]
        used += ["blocks", "norm_out", "heads"]
        used += ["events"] if model.config.candidate_query else []
        super().__init__(model, _level_tables(spec.context, spec.item, spec.cross), used)
        tensor_specs = [
            *state_tensors(model),
            TensorSpec(name="user_index", dtype=torch.int64, shape=("requests",)),
        ]
        tensor_specs.append(
            TensorSpec(
                name="visible",
                dtype=torch.int64,
                shape=("requests", 3),
                columns=("begin", "realtime", "end"),
            )
        )
        if takes_times(model):
            tensor_specs.append(
                TensorSpec(name="request_time_ms", dtype=torch.int64, shape=("requests",))
            )
        tensor_specs += level_tensors("context", spec.context, ("requests",))
        tensor_specs += [
            *level_tensors("item", spec.item, both),
            *level_tensors("cross", spec.cross, both),
        ]
        if spec.bias_rows:
            tensor_specs.append(TensorSpec(name="bias", dtype=torch.int64, shape=both))
        self.inputs = tuple(tensor_specs)
        names = [task.name for task in spec.tasks]
        names += [
            f"{task.name}_given_{spec.tasks[task.given].name}"
            for task in spec.tasks
            if task.given is not None
        ]
        self.outputs = tuple(
            TensorSpec(name=name, dtype=torch.float32, shape=both) for name in names
        )

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Probabilities [Q, K] in the order of :attr:`outputs`; negative sampling undone."""
        given = self.named(tensors)
        inputs, shape = self._inputs(given)
        request = self.model.encode_request(self._state(given), inputs)
        scores = probabilities(self.model.score(request, inputs), self.spec)
        return tuple(scores[tensor_spec.name].view(shape) for tensor_spec in self.outputs)

    def _state(self, given: Mapping[str, Tensor]) -> UserState:
        """The users' state, out of what the user's half gave."""
        projected_RU, events_ED = given["state_share"], flat_events(given["state_events"])
        flat = {name: flat_events(given[name]) for name in _BY_EVENT if name in given}
        times = flat.get("state_time_ms")
        fields = None
        if self.model.products is not None:
            nothing = projected_RU.new_zeros(projected_RU.shape[0], 0, self.config.embedding_size)
            fields = PooledState(
                fields=given.get("state_fields", nothing),
                numbers=nothing[:, :, 0],
                events_ED=flat.get("state_columns"),
            )
        return UserState(
            projected_RU=projected_RU,
            event_time_ms=torch.zeros(events_ED.shape[0], dtype=torch.int64)
            if times is None
            else times,
            events_ED=events_ED,
            global_keys_values=flat["state_global"],
            fields=fields,
        )

    def _inputs(self, given: Mapping[str, Tensor]) -> tuple[Inputs, tuple[int, int]]:
        """(the stages ``request`` and ``candidate``, (Q, K))."""
        spec, user_Q = self.spec, given["user_index"]
        item_QKW, cross_QKW = (
            self._level(name, getattr(spec, name), given) for name in ("item", "cross")
        )
        some = next(
            given[tensor_spec.name]
            for tensor_spec in self.inputs
            if tensor_spec.shape[:2] == ("requests", "candidates")
        )
        Q, K = some.shape[:2]
        row_N = torch.arange(Q * K)
        no_columns = torch.zeros(Q * K, 0)
        item_NW, cross_NW = (
            no_columns if x is None else x.flatten(0, 1) for x in (item_QKW, cross_QKW)
        )
        context_QW = self._level("context", spec.context, given)
        none = user_Q.new_zeros(0)
        empty = Columns(ids=none.unsqueeze(1)[:, :0], numbers=no_columns[:0])
        times = given.get("request_time_ms", torch.zeros_like(user_Q))
        batch = RequestBatch(
            users=empty,
            event_offsets=none,
            event_item=none,
            event_time_ms=none,
            event_ids=none,
            user_index=user_Q,
            request_time_ms=times,
            context=empty,
            history_ranges=given["visible"],
            request_index=row_N // K,
            item_index=row_N,
            cross=empty,
            bias=given["bias"].flatten() if spec.bias_rows else row_N,
            items=empty,
        )
        padded = PaddedLayout(
            events=given["state_events"].shape[1] - 1,
            candidates_each=K,
            user_index_Q=user_Q,
            history_ranges_Q3=given["visible"],
            request_time_ms=times,
        )
        inputs = Inputs(
            batch=batch,
            context_QW=no_columns[:Q] if context_QW is None else context_QW,
            item_IW=item_NW,
            cross_NW=cross_NW,
            padded=padded,
        )
        return inputs, (Q, K)
