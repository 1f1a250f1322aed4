"""SIM: search the long history for events relevant to the candidate, then attend to them (Pi et al.
2020, arXiv 2006.05639).

First stage, the general search unit (section 3.2): every event of the global part has a relevance
r_i for the candidate (eq. 1), and the ``search_events`` best are retrieved. Hard search takes the
newest events of the candidate's own category, without auxiliary loss (alpha = 0).

Soft search: r_i = (W_b e_i) . (W_a e_a). Choosing has no gradient, so W_a and W_b learn from an
auxiliary prediction of the same labels. It reads U_r = sum_i r_i e_i (eq. 2) and e_a; its loss has
weight 1 (section 3.3).

Second stage, the exact search unit (section 3.3): several heads read the retrieved z_j = [e_j ;
vector of its age]. A head's weights are the softmax over j of (W_b^h z_j) . (W_a^h e_a) (eq. 3, 4).
DIN's activation unit reads the real-time part (the paper has DIEN there). All goes into one deep
network.

Not from the paper: search is exact instead of by hashing. Scores are compared in bfloat16, and of
equal ones the newer event wins, so that a score does not depend on its batch. The null event is
always retrieved, so that no softmax is empty.

Letters: E events, Q requests, N candidates, D token width, d embedding size, H heads, k
retrieved events. In a group: B users, C requests a user, K candidates a request, L events, the null
event first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from hemix.config import Count
from hemix.data.batch import RequestBatch
from hemix.data.spec import MISSING, InputSpec
from hemix.errors import SettingsError
from hemix.models.base import Ranker, SizedConfig, check_divisor, named_sizes
from hemix.models.din import ActivationUnit, Recent
from hemix.models.registry import register_model
from hemix.nn.deep import DeepNetwork, hidden_width
from hemix.nn.events import EventEncoder
from hemix.nn.grouping import Group, group_requests
from hemix.nn.heads import Heads
from hemix.nn.histories import event_times
from hemix.nn.history_ranges import HistoryRanges
from hemix.nn.init import WeightInit
from hemix.nn.inputs import Inputs
from hemix.nn.slots import HostIndex, Slots, from_slots, positions, slots, to_slots
from hemix.nn.states import PER_EVENT
from hemix.nn.time_encoding import AGE_BUCKETS, age_bucket

__all__ = ["SIM", "ExactSearch", "RequestState", "Retrieved", "SIMConfig", "UserState", "best"]

_NO_AGE = AGE_BUCKETS
_POSITIONS = 2**32


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone; row 0 is the null event's."""

    projected_RU: Tensor
    events_ED: Tensor = field(metadata=PER_EVENT)
    time_ms: Tensor = field(metadata=PER_EVENT)
    """int64 [1 + E]"""
    keys_ED: Tensor | None = field(metadata=PER_EVENT)
    """[1 + E, D]: W_b e_i of the soft search"""
    category_E: Tensor | None = field(metadata=PER_EVENT)
    """int64 [1 + E]: the category of the hard search"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    projected_QU: Tensor
    time_ms_Q: Tensor
    user: UserState
    groups: list[Group]
    keys: list[Tensor]
    """By group: W_b e_i [B, L, D], or categories int64 [B, L]"""
    events: list[Tensor] | None
    """By group: event vectors [B, L, D], of which the soft search sums up; only in training"""
    recent: Recent


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """What the search finds for N candidates."""

    rows_Nk: Tensor
    """int64 [N, 1 + search_events]: rows of the events, the null event first; 0: none"""
    sums_ND: Tensor | None
    """U_r, the events' sum by relevance (eq. 2); only in training with soft search"""


class ExactSearch(nn.Module):
    """The exact search unit's attention over the found events (eq. 3 and 4)."""

    def __init__(self, width: int, heads: int, age_width: int) -> None:
        """Make the projections.

        Args:
            width: D, the width of events and candidates.
            heads: H; divides the width.
            age_width: Width of the vector of an event's age.
        """
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width + age_width, width, bias=False)
        self.age_vector = nn.Parameter(torch.empty(AGE_BUCKETS + 1, age_width))

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw the ages' vectors like embeddings."""
        init.normal(self.age_vector, init.embedding_std)

    def forward(
        self, candidates_ND: Tensor, retrieved_NkD: Tensor, age_Nk: Tensor, exists_Nk: Tensor
    ) -> Tensor:
        """Attend to the retrieved events.

        Args:
            candidates_ND: Candidate vectors.
            retrieved_NkD: Vectors of the retrieved events.
            age_Nk: int64, their age buckets.
            exists_Nk: bool, at least one True a row.

        Returns:
            Weighted means of all heads, [N, H * (D + d)].
        """
        N, H = candidates_ND.shape[0], self.heads
        with torch.autocast(candidates_ND.device.type, enabled=False):
            z_Nkx = torch.cat([retrieved_NkD, F.embedding(age_Nk, self.age_vector)], 2)
            query_HNd = (
                self.query(candidates_ND).view(N, H, candidates_ND.shape[1] // H).transpose(0, 1)
            )
            wide_NHx = torch.bmm(query_HNd, self.key.weight.view(H, -1, z_Nkx.shape[2])).transpose(
                0, 1
            )
            scores_NHk = torch.bmm(wide_NHx, z_Nkx.transpose(1, 2)).masked_fill(
                ~exists_Nk.unsqueeze(1), -torch.inf
            )
            return torch.bmm(scores_NHk.softmax(2), z_Nkx).flatten(1)


class SIMConfig(SizedConfig):
    """Settings of SIM: hidden layers are 16 ``token_width`` wide."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024), attention_heads=(2, 4, 6, 8), layers=(2, 3, 3, 7)
    )

    name: Literal["sim"] = "sim"
    attention_heads: Count = 2
    """Heads of the exact search unit."""
    history_events: Count = 50
    """The newest events of the real-time part that are weighed."""
    search_events: Count = 50
    """How many events the search finds in the global part."""
    search: str = "soft"
    """``soft``, by inner product; or hard, by an item feature that the events carry: its name."""

    @model_validator(mode="after")
    def _heads_divide(self) -> SIMConfig:
        check_divisor(self.token_width, attention_heads=self.attention_heads)
        return self


@register_model("sim")
class SIM(Ranker):
    """Search-based interest model."""

    Config = SIMConfig
    config: SIMConfig

    def __init__(self, spec: InputSpec, config: SIMConfig) -> None:
        super().__init__(spec, config)
        width = config.token_width
        self.soft = config.search == "soft"
        self.category = -1 if self.soft else _category(spec, config.search)
        self.events = EventEncoder(spec, config.embedding_size, width)
        self.search_event = nn.Linear(width, width, bias=False) if self.soft else None
        self.search_candidate = nn.Linear(width, width, bias=False) if self.soft else None
        self.search_heads = (
            Heads(spec, 2 * width, config.tower_hidden, config.dropout) if self.soft else None
        )
        self.exact = ExactSearch(width, config.attention_heads, config.embedding_size)
        self.activation = ActivationUnit(width)
        self.deep = DeepNetwork(
            spec,
            embedding_size=config.embedding_size,
            interests={
                "long": config.attention_heads * (width + config.embedding_size),
                "short": width,
            },
            hidden=hidden_width(width),
            layers=config.layers,
            tower_hidden=config.tower_hidden,
            dropout=config.dropout,
        )

    def output_heads(self) -> Heads:
        """The deep network's."""
        return self.deep.heads

    def encode_user(self, inputs: Inputs) -> UserState:
        """Event vectors and what they are searched by, the user's share of the deep network."""
        batch, events_ED = inputs.batch, self.events(inputs)
        category_E = (
            None
            if self.soft
            else F.pad(batch.items.ids[:, self.category].index_select(0, batch.event_item), (1, 0))
        )
        return UserState(
            projected_RU=self.deep.project_user(inputs),
            events_ED=events_ED,
            time_ms=event_times(batch),
            keys_ED=None
            if self.search_event is None
            else self.search_event(events_ED).to(events_ED.dtype),
            category_E=category_E,
        )

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Lay the global part out for the search, the real-time part for the activation unit.

        Args:
            state: The user state.
            inputs: Inputs with the stage ``request``.
        """
        return self._request_state(state, inputs, with_sums=False)

    def _request_state(self, state: UserState, inputs: Inputs, *, with_sums: bool) -> RequestState:
        """The request state; with the event vectors of which a soft search sums up, or without."""
        batch = inputs.batch
        ranges = HistoryRanges.of(batch, "global")
        groups = group_requests(ranges, batch.candidates_per_request, state.events_ED.device)
        short = HistoryRanges.of(batch, "realtime").newest(self.config.history_events)
        return RequestState(
            projected_QU=self.deep.project_request(state.projected_RU, inputs),
            time_ms_Q=batch.request_time_ms,
            user=state,
            groups=groups,
            keys=_laid_out(state.category_E if state.keys_ED is None else state.keys_ED, groups),
            events=_laid_out(state.events_ED, groups) if with_sums else None,
            recent=self.activation.recent(state.events_ED, short, state.projected_RU.shape[0]),
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Return logits [N, T].

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        candidates_ND = self.events.candidates(inputs)
        retrieved = self.search(state, candidates_ND, inputs.batch)
        return self._logits(state, inputs, candidates_ND, retrieved.rows_Nk)

    def training_logits(self, batch: RequestBatch) -> tuple[Tensor, ...]:
        """Return logits [N, T], and with soft search those of the search unit (section 3.3)."""
        inputs = self.embed(batch)
        user = self.encode_user(inputs)
        state = self._request_state(user, inputs, with_sums=self.soft)
        candidates_ND = self.events.candidates(inputs)
        retrieved = self.search(state, candidates_ND, batch)
        auxiliary = list[Tensor]()
        if self.search_heads is not None and retrieved.sums_ND is not None:
            summed_ND = retrieved.sums_ND.to(candidates_ND.dtype)
            pair_Nx = torch.cat([summed_ND, candidates_ND], 1)
            auxiliary.append(self.search_heads(pair_Nx, batch.bias))
        return self._logits(state, inputs, candidates_ND, retrieved.rows_Nk), *auxiliary

    def _logits(
        self, state: RequestState, inputs: Inputs, candidates_ND: Tensor, retrieved_Nk: Tensor
    ) -> Tensor:
        """The deep network's logits [N, T], with the interests from the retrieved events."""
        batch, of_request = inputs.batch, inputs.batch.request_index
        exists_Nk = F.pad(retrieved_Nk[:, 1:] > 0, (1, 0), value=True)
        events_NkD = F.embedding(retrieved_Nk, state.user.events_ED)
        age_Nk = age_bucket(
            state.time_ms_Q.index_select(0, of_request).unsqueeze(1),
            state.user.time_ms[retrieved_Nk],
        )
        age_Nk = age_Nk.masked_fill(retrieved_Nk == 0, _NO_AGE)
        interests = {
            "long": self.exact(candidates_ND, events_NkD, age_Nk, exists_Nk),
            "short": self.activation(state.recent, candidates_ND, HostIndex.of_candidates(batch)),
        }
        logits_NT: Tensor = self.deep(state.projected_QU, inputs, interests)
        return logits_NT

    def search(self, state: RequestState, candidates_ND: Tensor, batch: RequestBatch) -> Retrieved:
        """Search the global part for every candidate (the general search unit).

        Args:
            state: The request state.
            candidates_ND: Candidate vectors.
            batch: The batch.
        """
        if batch.candidates_count == 0:
            no_rows = batch.item_index.new_zeros(0, 1 + self.config.search_events)
            return Retrieved(rows_Nk=no_rows, sums_ND=None)
        requests, device = state.projected_QU.shape[0], candidates_ND.device
        layout = slots(state.groups, HostIndex.of_candidates(batch), requests, device)
        rows, sums = list[Tensor](), list[Tensor]()
        by_group = self._search_queries(candidates_ND, batch, layout)
        for at, queries in enumerate(by_group):
            group = state.groups[at]
            scores_BCKL, may_BCKL = self._relevance(group, state.keys[at], queries)
            if state.events is not None:
                visible_BCKL = scores_BCKL.masked_fill(~may_BCKL, 0)
                sums.append(torch.einsum("bckl,bld->bckd", visible_BCKL, state.events[at]))
            rows.append(self._best_rows(group, scores_BCKL, may_BCKL))
        return Retrieved(
            rows_Nk=from_slots(rows, layout.slot_N),
            sums_ND=from_slots(sums, layout.slot_N) if sums else None,
        )

    def _search_queries(
        self, candidates_ND: Tensor, batch: RequestBatch, layout: Slots
    ) -> list[Tensor]:
        """What candidates search by, by group: W_a e_a [B, C, K, D], or categories [B, C, K]."""
        if self.search_candidate is None:
            category_N = batch.items.ids[:, self.category].index_select(0, batch.item_index)
            return [category_N[rows] for rows in layout.rows]
        queries_ND = self.search_candidate(candidates_ND).to(candidates_ND.dtype)
        return to_slots(queries_ND, layout.rows, layout.slot_N)

    def _relevance(self, group: Group, keys: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance r_i [B, C, K, L] (eq. 1), and bool: the events that may be retrieved."""
        may_BCKL = (group.visible_BCL & (group.rows_BL > 0).unsqueeze(1)).unsqueeze(2)
        if self.soft:
            return torch.einsum("bckd,bld->bckl", queries, keys), may_BCKL
        category = queries.unsqueeze(3)
        may_BCKL = may_BCKL & (category == keys[:, None, None]) & (category > MISSING)
        return torch.zeros(may_BCKL.shape, device=may_BCKL.device), may_BCKL

    def _best_rows(self, group: Group, scores_BCKL: Tensor, may_BCKL: Tensor) -> Tensor:
        """Rows int64 [B, C, K, 1 + search_events] of the best events behind the null event."""
        count = self.config.search_events
        column_BCKk, exists_BCKk = best(scores_BCKL, may_BCKL, count)
        rows_BCKL = group.rows_BL[:, None, None].expand(scores_BCKL.shape)
        rows_BCKk = rows_BCKL.gather(3, column_BCKk).masked_fill(~exists_BCKk, 0)
        return F.pad(rows_BCKk, (1, count - rows_BCKk.shape[3]))


@torch.no_grad()
def best(scores_xL: Tensor, may_xL: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the columns of the best scores.

    Scores are compared in bfloat16; of equal ones the later column is better.

    Args:
        scores_xL: Scores [..., L].
        may_xL: bool [..., L], the columns that may be chosen.
        count: How many columns to choose.

    Returns:
        Columns int64 [..., min(count, L)], and bool of the same shape: whether each exists.
    """
    bits = scores_xL.bfloat16().view(torch.int16).long()
    ordered = torch.where(
        bits < 0, -(2**15) - bits, bits
    )  # sign and magnitude to an integer of the same order
    column_L = torch.arange(scores_xL.shape[-1], device=scores_xL.device)
    key_xL = (ordered * _POSITIONS + column_L).masked_fill(~may_xL, torch.iinfo(torch.int64).min)
    best_xk, column_xk = key_xL.topk(min(count, key_xL.shape[-1]), sorted=False)
    return column_xk, best_xk > torch.iinfo(torch.int64).min


def _laid_out(rows_Ex: Tensor | None, groups: list[Group]) -> list[Tensor]:
    """Rows of events [1 + E] or [1 + E, D] in the groups: [B, L] or [B, L, D]."""
    assert rows_Ex is not None
    if rows_Ex.dim() == 1:
        return [rows_Ex[group.rows_BL] for group in groups]
    layout = [group.rows_BL for group in groups]
    return (
        to_slots(rows_Ex, layout, positions(layout, rows_Ex.shape[0]), null_first=True)
        if groups
        else []
    )


def _category(spec: InputSpec, name: str) -> int:
    """The item column that hard search compares. Raises SettingsError naming those there are."""
    known = [spec.item.names[column] for column in spec.event_item_columns]
    if name not in known:
        raise SettingsError(
            f"model.search: expected soft or an item feature that events carry "
            f"({', '.join(known)}), got {name!r}",
            field="model.search",
        )
    return spec.item.names.index(name)
