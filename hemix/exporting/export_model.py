"""HeMix over padded rectangles instead of ragged rows: what a graph for another server can hold.

The same weights and, wherever rows do not matter, the same modules as `hemix.models.hemix`; only look-ups, events and attention are
written for rectangles: users R x events L, requests Q x candidates C, the padding of histories hidden by the requests' cuts. Two
modules, because a server calls them at different times: :class:`DenseUser` once per user, :class:`DenseRequest` once per request. Both
say by name, type and shape what they take and give. Knows no file and no exporter.

Letters: R users, L events a user, I distinct item rows of events, Q requests, C candidates a request, N = Q * C, D token width, H heads,
J queries a request, K keys a request (the null event first), W width of a level's vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.data.spec import FIRST, MISSING, TIMELESS_MS, InputSpec, LevelSpec
from hemix.errors import UsageError
from hemix.models import Predictor
from hemix.models.hemix import HeMix
from hemix.nn.heads import probabilities
from hemix.nn.interests import HistoryInterest
from hemix.nn.matches import WINDOWS_MS
from hemix.nn.products import cross_dots, pair_dots
from hemix.nn.time_encoding import age_bucket, rotary_angles, rotary_turns, rotate

__all__ = ["PADDING", "DenseRequest", "DenseUser", "Port", "dense_form", "exportable", "takes_times"]

PADDING = -1
"""Id in a multi-valued feature that stands for no value."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output: a named tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[str | int, ...]
    """A name for a size that may vary."""
    columns: tuple[str, ...] = ()
    """What stands in each place of the last dimension, where that means something."""


def exportable(model: Predictor) -> HeMix:
    """Return the model. Raises UsageError for a model that has no dense form."""
    if not isinstance(model, HeMix):
        raise UsageError(f"the model {model.config.name!r} cannot be exported: only hemix has a dense form")
    if model.realtime is None or model.global_ is None:
        missing = "use_global" if model.global_ is None else "use_realtime"
        raise UsageError(f"a model with model.{missing}: false cannot be exported: the dense form has both histories")
    return model


def dense_form(model: Predictor) -> tuple[DenseUser, DenseRequest]:
    """Return both halves of a model. Raises UsageError for a model that has no dense form."""
    hemix = exportable(model)
    return DenseUser(hemix).eval(), DenseRequest(hemix).eval()


class _Half(nn.Module):
    """Tables of its own levels, ports, and inputs by name."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __init__(self, model: HeMix, tables: Sequence[str]) -> None:
        super().__init__()
        self.spec, self.config = model.spec, model.config
        by_name = model.tables.by_name()
        self._table = {name: place for place, name in enumerate(dict.fromkeys(tables))}
        self.tables = nn.ParameterList([nn.Parameter(by_name[name], requires_grad=False) for name in self._table])

    def named(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Positional inputs by their names."""
        assert len(tensors) == len(self.inputs), "one tensor per input"
        return {port.name: tensor for port, tensor in zip(self.inputs, tensors, strict=True)}

    def _vectors(self, table: str, ids: Tensor) -> Tensor:
        """[...] -> [..., width]"""
        return F.embedding(ids, self.tables[self._table[table]])

    def _bag(self, table: str, ids: Tensor) -> Tensor:
        """Mean [..., width] of the values of each list [..., k]; the missing row where there is none."""
        real = (ids != PADDING).unsqueeze(-1)
        vectors = self._vectors(table, ids.clamp(min=0)) * real
        count = real.sum(-2)
        missing = self.tables[self._table[table]][MISSING]
        return torch.where(count > 0, vectors.sum(-2) / count.clamp(min=1), missing)

    def _level(self, name: str, level: LevelSpec, given: Mapping[str, Tensor]) -> Tensor | None:
        """Vectors [..., W] of a level, ids first, then multi-valued features, then numbers; None without columns."""
        parts = [self._vectors(table, given[f"{name}_ids"][..., i]) for i, table in enumerate(level.tables)]
        parts += [
            self._bag(table, given[f"{name}_bag_{feature}"])
            for feature, table in zip(level.bag_names, level.bag_tables, strict=True)
        ]
        if level.numbers:
            parts.append(given[f"{name}_numbers"])
        return torch.cat(parts, -1) if parts else None


def _level_tables(*levels: LevelSpec) -> list[str]:
    return [table for level in levels for table in (*level.tables, *level.bag_tables)]


def _level_ports(name: str, level: LevelSpec, rows: tuple[str, ...]) -> Iterator[Port]:
    if level.tables:
        yield Port(name=f"{name}_ids", dtype=torch.int64, shape=(*rows, len(level.tables)), columns=level.names)
    for feature in level.bag_names:
        yield Port(name=f"{name}_bag_{feature}", dtype=torch.int64, shape=(*rows, f"most_{name}_{feature}"))
    if level.numbers:
        yield Port(name=f"{name}_numbers", dtype=torch.float32, shape=(*rows, level.numbers), columns=level.number_names)


def _state_ports(model: HeMix) -> tuple[Port, ...]:
    config, rows = model.config, ("users", "history_rows")
    ports = [
        Port(name="state_share", dtype=torch.float32, shape=("users", config.tokenizer_hidden)),
        Port(name="state_events", dtype=torch.float32, shape=(*rows, config.token_width)),
        Port(name="state_global", dtype=torch.float32, shape=(*rows, 2 * config.token_width)),
    ]
    if model.products is not None:
        fields = model.products.fields
        if fields.user_count:
            ports.append(Port(name="state_fields", dtype=torch.float32, shape=("users", fields.user_count, fields.size)))
        if fields.columns:
            ports.append(Port(name="state_columns", dtype=torch.float32, shape=(*rows, fields.columns * fields.size)))
    if model.matches is not None:
        if model.matches.columns:
            ports.append(Port(name="state_ids", dtype=torch.int64, shape=(*rows, len(model.matches.columns))))
        ports.append(Port(name="state_actions", dtype=torch.int64, shape=rows))
    if takes_times(model):
        ports.append(Port(name="state_time_ms", dtype=torch.int64, shape=rows))
    return tuple(ports)


def takes_times(model: HeMix) -> bool:
    """Whether the graphs need the times of requests and events."""
    return model.config.time_encoding != "none" or model.config.matches


def _as_fields(rows_RW: Tensor, level: LevelSpec, size: int) -> Tensor:
    """[R, F, d]: a level's vectors without its numbers."""
    count = len(level.tables) + len(level.bag_tables)
    return rows_RW[:, : count * size].view(rows_RW.shape[0], count, size)


class DenseUser(_Half):
    """What depends on users and their events alone: `hemix.models.hemix.UserState`, one history a row. Row 0 of a history is the
    null event, row e + 1 event e."""

    def __init__(self, model: HeMix) -> None:
        spec: InputSpec = model.spec
        carried = [spec.item.tables[c] for c in spec.event_item_columns]
        super().__init__(model, [*_level_tables(spec.user), *carried, *spec.event.tables])
        assert model.global_ is not None
        self.tokenizer, self.events, self.global_ = model.tokenizer, model.events, _DenseHistory(model.global_)
        self.matches = model.matches
        self.carried = carried
        ports = [*_level_ports("user", spec.user, ("users",))]
        if carried:
            names = tuple(spec.item.names[c] for c in spec.event_item_columns)
            ports.append(Port(name="event_item_ids", dtype=torch.int64, shape=("items", len(carried)), columns=names))
            ports.append(Port(name="event_item", dtype=torch.int64, shape=("users", "events")))
        if spec.event.tables:
            fields = len(spec.event.tables)
            shape = ("users", "events", fields)
            ports.append(Port(name="event_ids", dtype=torch.int64, shape=shape, columns=spec.event.names))
        ports.append(Port(name="event_time_ms", dtype=torch.int64, shape=("users", "events")))
        self.inputs, self.outputs = tuple(ports), _state_ports(model)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The state, in the order of :attr:`outputs`."""
        given = self.named(tensors)
        time_RL = given["event_time_ms"]
        user_RW = self._level("user", self.spec.user, given)
        columns_RL = self._columns(given)
        events_RLD = self._events(given, columns_RL)
        null = self.events.null.expand(time_RL.shape[0], 1, -1)
        events_RKD = torch.cat([null, events_RLD], 1)
        time_RK = torch.cat([time_RL.new_full((time_RL.shape[0], 1), TIMELESS_MS), time_RL], 1)
        keys_values = self.global_.keys_values(events_RKD, time_RK)
        share = self.tokenizer.user_share(null.new_zeros(time_RL.shape[0], 0) if user_RW is None else user_RW)
        found = {"state_share": share, "state_events": events_RKD, "state_global": keys_values, "state_time_ms": time_RK}
        if user_RW is not None:
            found["state_fields"] = _as_fields(user_RW, self.spec.user, self.config.embedding_size)
        if self.matches is not None:
            if self.matches.columns:
                found["state_ids"] = F.pad(given["event_item_ids"][given["event_item"]], (0, 0, 1, 0))
            action_RL = given["event_ids"][..., 0] - FIRST if self.spec.event.tables else torch.zeros_like(time_RL)
            found["state_actions"] = F.pad(action_RL.clamp(min=0, max=self.matches.actions - 1), (1, 0))
        if columns_RL:
            found["state_columns"] = F.pad(torch.cat(columns_RL, -1), (0, 0, 1, 0))
        return tuple(found[port.name] for port in self.outputs)

    def _columns(self, given: Mapping[str, Tensor]) -> list[Tensor]:
        """[R, L, ...]: what the events carry of their items, all together, then each of their own fields."""
        columns = []
        if self.carried:
            of_items = [self._vectors(table, given["event_item_ids"][:, i]) for i, table in enumerate(self.carried)]
            columns.append(F.embedding(given["event_item"], torch.cat(of_items, 1)))
        fields = enumerate(self.spec.event.tables)
        return columns + [self._vectors(table, given["event_ids"][..., i]) for i, table in fields]

    def _events(self, given: Mapping[str, Tensor], columns_RL: Sequence[Tensor]) -> Tensor:
        """[R, L, D]: the events' vectors, without age."""
        project = self.events.project
        timeless = (given["event_time_ms"] == TIMELESS_MS).unsqueeze(-1)
        total = project.bias + timeless * self.events.timeless
        names = (["item"] if self.carried else []) + [f"field_{i}" for i in range(len(self.spec.event.tables))]
        for name, column in zip(names, columns_RL, strict=True):
            share = project.share(name, column)
            assert share is not None
            total = total + share
        return total


class DenseRequest(_Half):
    """From the users' state, requests and their candidates to probabilities [Q, C] by name."""

    def __init__(self, model: HeMix) -> None:
        spec, both = model.spec, ("requests", "candidates")
        super().__init__(model, _level_tables(spec.context, spec.item, spec.cross))
        self.tokenizer, self.heads, self.matches = model.tokenizer, model.heads, model.matches
        assert model.realtime is not None and model.global_ is not None
        self.realtime, self.global_ = _DenseHistory(model.realtime), _DenseHistory(model.global_)
        self.norm_interests, self.blocks, self.norm_out = model.norm_interests, model.blocks, model.norm_out
        ports = [*_state_ports(model), Port(name="user_index", dtype=torch.int64, shape=("requests",))]
        ports.append(Port(name="visible", dtype=torch.int64, shape=("requests", 3), columns=("begin", "realtime", "end")))
        if takes_times(model):
            ports.append(Port(name="request_time_ms", dtype=torch.int64, shape=("requests",)))
        ports += _level_ports("context", spec.context, ("requests",))
        ports += [*_level_ports("item", spec.item, both), *_level_ports("cross", spec.cross, both)]
        if spec.bias_rows:
            ports.append(Port(name="bias", dtype=torch.int64, shape=both))
        self.inputs = tuple(ports)
        names = [task.name for task in spec.tasks]
        names += [f"{task.name}_given_{spec.tasks[task.given].name}" for task in spec.tasks if task.given is not None]
        self.outputs = tuple(Port(name=name, dtype=torch.float32, shape=both) for name in names)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Probabilities [Q, C] in the order of :attr:`outputs`; negative sampling undone."""
        given, spec, config = self.named(tensors), self.spec, self.config
        user_Q = given["user_index"]
        item_QCW, cross_QCW = (self._level(name, getattr(spec, name), given) for name in ("item", "cross"))
        some = item_QCW if item_QCW is not None else cross_QCW
        assert some is not None, "a model without any feature of a candidate"
        Q, C = some.shape[:2]

        context_QW = self._level("context", spec.context, given)
        context_QW = some.new_zeros(Q, 0) if context_QW is None else context_QW
        rows_N = torch.arange(Q * C)
        no_columns = some.new_zeros(Q * C, 0)
        item_NW, cross_NW = (no_columns if x is None else x.flatten(0, 1) for x in (item_QCW, cross_QCW))
        of_request, of_candidate = dict[str, Tensor](), dict[str, Tensor]()
        if config.products != "none":
            of_request["request_products"], of_candidate["candidate_products"] = self._products(
                given, context_QW, item_NW, cross_NW, rows_N // C
            )
        if self.matches is not None:
            of_request["request_matches"], of_candidate["candidate_matches"] = self._matches(given, self.matches.actions, C)
        share_QH = self.tokenizer.request_share(given["state_share"], user_Q, context_QW, of_request)
        ns_NnD = self.tokenizer(share_QH, rows_N // C, item_NW, rows_N, cross_NW, of_candidate)
        ns_QCnD = ns_NnD.view(Q, C, *ns_NnD.shape[1:])
        query_global, query_realtime = ns_QCnD.split([config.ns_tokens_global, config.ns_tokens_realtime], 2)
        if not config.dynamic_queries:
            query_global, query_realtime = query_global[:, :, :0], query_realtime[:, :, :0]

        interests_QCnD = torch.cat([self._realtime(given, query_realtime), self._global(given, query_global)], 2)
        tokens_QCSD = torch.cat([self.norm_interests(interests_QCnD), ns_QCnD], 2)
        x_SND = tokens_QCSD.flatten(0, 1).transpose(0, 1)
        for block in self.blocks:
            x_SND = block(x_SND)
        x_SND = self.norm_out(x_SND)
        pooled_NP = x_SND.mean(0) if config.pooling == "mean" else x_SND.transpose(0, 1).flatten(1)
        logits_NT = self.heads(pooled_NP, given["bias"].flatten() if spec.bias_rows else rows_N)
        found = probabilities(logits_NT, spec)
        return tuple(found[port.name].view(Q, C) for port in self.outputs)

    def _products(
        self, given: Mapping[str, Tensor], context_QW: Tensor, item_NW: Tensor, cross_NW: Tensor, request_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(products [Q, P] of the requests' pairs, [N, P] of the candidates')."""
        user_Q, spec, size = given["user_index"], self.spec, self.config.embedding_size
        fields = [_as_fields(context_QW, spec.context, size)]
        if "state_fields" in given:
            fields.insert(0, given["state_fields"].index_select(0, user_Q))
        if "state_columns" in given:
            columns_QKD = given["state_columns"].index_select(0, user_Q)
            event_K = torch.arange(columns_QKD.shape[1]) - 1
            begin, middle, end = given["visible"].unsqueeze(2).unbind(1)
            for first, last in ((begin, middle), (middle, end)):
                seen_QK = ((event_K >= first) & (event_K < last)).to(columns_QKD.dtype)
                mean_QD = torch.bmm(seen_QK.unsqueeze(1), columns_QKD).squeeze(1) / (last - first).clamp(min=1)
                fields.append(mean_QD.view(mean_QD.shape[0], -1, size))
        request_QFd = torch.cat(fields, 1)
        candidate_NCd = torch.cat([_as_fields(item_NW, spec.item, size), _as_fields(cross_NW, spec.cross, size)], 1)
        return pair_dots(request_QFd), cross_dots(candidate_NCd, request_QFd.index_select(0, request_N))

    def _matches(self, given: Mapping[str, Tensor], actions: int, candidates: int) -> tuple[Tensor, Tensor]:
        """(numbers [Q, A W] of the requests' events, [N, columns A W] of those that match): every candidate beside every event."""
        user_Q = given["user_index"]
        begin, middle, end = given["visible"].unsqueeze(2).unbind(1)
        time_QK, action_QK = (given[name].index_select(0, user_Q) for name in ("state_time_ms", "state_actions"))
        event_K = torch.arange(time_QK.shape[1]) - 1
        seen_QK = (event_K >= begin) & (event_K < end)
        since = [time_QK >= given["request_time_ms"].unsqueeze(1) - window for window in WINDOWS_MS]
        windows_QKW = torch.stack([*since, (event_K >= middle).expand_as(seen_QK), seen_QK], 2) & seen_QK.unsqueeze(2)
        action_QKA = action_QK.unsqueeze(2) == torch.arange(actions)
        counted_QKX = (action_QKA.unsqueeze(3) & windows_QKW.unsqueeze(2)).flatten(2).float()
        found = list[Tensor]()
        if "state_ids" in given:
            ids_QKc = given["state_ids"].index_select(0, user_Q)
            for place, column in enumerate(self.spec.event_item_columns):
                own_QC = given["item_ids"][..., column]
                same_QCK = (own_QC.unsqueeze(2) == ids_QKc[..., place].unsqueeze(1)) & (own_QC >= FIRST).unsqueeze(2)
                found.append(torch.bmm(same_QCK.float(), counted_QKX))
        of_candidates = torch.cat(found, 2) if found else counted_QKX.new_zeros(user_Q.shape[0], candidates, 0)
        return counted_QKX.sum(1).log1p(), of_candidates.flatten(0, 1).log1p()

    def _global(self, given: Mapping[str, Tensor], queries_QCnD: Tensor) -> Tensor:
        """Interests of the global part: every row of the user's history is a key, the cut hides what is not in it."""
        user_Q, state = given["user_index"], given["state_global"]
        begin, middle, _ = given["visible"].unsqueeze(2).unbind(1)
        event_K = torch.arange(state.shape[1]) - 1
        visible_QK = (event_K == -1) | ((event_K >= begin) & (event_K < middle))
        time_QK = self._times(given).index_select(0, user_Q)
        keys_values = state.index_select(0, user_Q)
        found: Tensor = self.global_(queries_QCnD, keys_values, visible_QK, time_QK, self._request_times(given))
        return found

    def _realtime(self, given: Mapping[str, Tensor], queries_QCnD: Tensor) -> Tensor:
        """Interests of the real-time part: only its rows are gathered, as many as the longest of the requests has."""
        user_Q, state = given["user_index"], given["state_events"]
        _, middle, end = given["visible"].unsqueeze(2).unbind(1)
        longest = (end - middle).max().item()
        event_K = torch.arange(longest + 1) - 1
        visible_QK = event_K < end - middle
        places = user_Q.unsqueeze(1), torch.where(visible_QK & (event_K >= 0), middle + event_K + 1, 0)
        events_QKD, time_QK = state[places], self._times(given)[places]
        keys_values = self.realtime.keys_values(events_QKD, time_QK)
        found: Tensor = self.realtime(queries_QCnD, keys_values, visible_QK, time_QK, self._request_times(given))
        return found

    @staticmethod
    def _times(given: Mapping[str, Tensor]) -> Tensor:
        """[R, K]: times of the events; where age does not enter, any."""
        state = given["state_events"]
        return given["state_time_ms"] if "state_time_ms" in given else torch.zeros(state.shape[:2], dtype=torch.int64)

    @staticmethod
    def _request_times(given: Mapping[str, Tensor]) -> Tensor:
        return given.get("request_time_ms", given["user_index"])


class _DenseHistory(nn.Module):
    """`hemix.nn.interests.HistoryInterest` over padded keys."""

    def __init__(self, interest: HistoryInterest) -> None:
        super().__init__()
        self.interest = interest
        # Kept, because an exporter rounds the fp64 constants of a formula to fp32.
        turns = rotary_turns(interest.fixed_queries.shape[1] // interest.heads // 2)
        self.register_buffer("turns_per_ms", turns if interest.time_encoding == "rotary" else None)
        self.turns_per_ms: Tensor | None

    def keys_values(self, events_QKD: Tensor, time_QK: Tensor) -> Tensor:
        """[Q, K, 2 D]"""
        keys_values: Tensor = self.interest.key_value(events_QKD)
        if self.turns_per_ms is None:
            return keys_values
        keys_QKD, values_QKD = keys_values.chunk(2, 2)
        keys_QHKd = rotate(self._by_head(keys_QKD), self._angles(time_QK).unsqueeze(1))
        return torch.cat([keys_QHKd.transpose(1, 2).flatten(2), values_QKD], 2)

    def _angles(self, time_ms: Tensor) -> Tensor:
        assert self.turns_per_ms is not None
        return rotary_angles(time_ms, self.turns_per_ms.shape[0], torch.float32, self.turns_per_ms)

    def forward(
        self,
        queries_QCnD: Tensor,
        keys_values: Tensor,
        visible_QK: Tensor,
        time_QK: Tensor,
        request_time_Q: Tensor,
    ) -> Tensor:
        """[Q, C, n + fixed, D]: interests of the candidates' queries, then those of the fixed ones."""
        own = self.interest
        Q, C, n, D = queries_QCnD.shape
        weight_nDD, bias_QHK = own.query_weight, torch.zeros_like(visible_QK, dtype=keys_values.dtype)
        bias_QHK = bias_QHK.masked_fill(~visible_QK, -torch.inf).unsqueeze(1)
        if own.time_encoding in ("bias", "embedding"):
            bucket_QK = age_bucket(request_time_Q.unsqueeze(1), time_QK)
            timed_K = torch.arange(keys_values.shape[1]) > 0  # the null event, row 0, has no age
            if own.age_bias is not None:
                by_age_QKH = F.embedding(bucket_QK, own.age_bias) * timed_K.unsqueeze(1)
                bias_QHK = bias_QHK + by_age_QKH.transpose(1, 2)
            if own.age_vector is not None:
                by_age = F.embedding(bucket_QK, F.linear(own.age_vector, own.key_value.weight))
                keys_values = keys_values + by_age * timed_K.unsqueeze(1)
        keys_QHKd, values_QHKd = (self._by_head(x) for x in keys_values.chunk(2, 2))

        dynamic_QJD = torch.einsum("qcnd,nde->qcne", queries_QCnD, weight_nDD[:n]).flatten(1, 2)
        fixed_fD = torch.bmm(own.fixed_queries.unsqueeze(1), weight_nDD[n:]).squeeze(1)
        queries_QJD = torch.cat([dynamic_QJD, fixed_fD.expand(Q, -1, -1)], 1) * (D // own.heads) ** -0.5
        queries_QHJd = self._by_head(queries_QJD)
        if own.time_encoding == "rotary":
            queries_QHJd = rotate(queries_QHJd, self._angles(request_time_Q)[:, None, None])
        weights = (queries_QHJd @ keys_QHKd.transpose(2, 3) + bias_QHK.unsqueeze(2)).softmax(-1)
        found_QJD = own.output((weights @ values_QHKd).transpose(1, 2).flatten(2))
        dynamic, fixed = found_QJD[:, : C * n], found_QJD[:, C * n :]
        return torch.cat([dynamic.view(Q, C, n, D), fixed.unsqueeze(1).expand(-1, C, -1, -1)], 2)

    def _by_head(self, x_QKD: Tensor) -> Tensor:
        """[Q, K, D] -> [Q, H, K, Dh]"""
        Q, K, D = x_QKD.shape
        return x_QKD.reshape(Q, K, self.interest.heads, D // self.interest.heads).transpose(1, 2)
