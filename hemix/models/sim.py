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

Letters: E events, Q requests, N candidates, D token width, Z = D + embedding size, H heads, k
retrieved events. In a group: B users, C requests a user, K candidates a request, L events, the null
event first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from hemix.nn.deep import DeepNetwork, candidate_vectors, hidden_width
from hemix.nn.events import EventEncoder
from hemix.nn.grouping import Group, group_requests
from hemix.nn.heads import Heads
from hemix.nn.histories import event_times
from hemix.nn.history_ranges import HistoryRanges
from hemix.nn.init import WeightInit
from hemix.nn.inputs import Inputs
from hemix.nn.slots import HostIndex, from_slots, positions, slots, to_slots
from hemix.nn.time_encoding import AGE_BUCKETS, age_bucket

__all__ = ["SIM", "ExactSearch", "RequestState", "SIMConfig", "UserState", "best"]

_NO_AGE = AGE_BUCKETS
_POSITIONS = 2**32


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone. Row 0 is the null event, row e + 1 is event
    e."""

    by_event: ClassVar[tuple[str, ...]] = ("events_ED", "time_ms", "keys_ED", "category_E")

    projected_RH: Tensor
    events_ED: Tensor
    time_ms: Tensor
    """int64 [1 + E]"""
    keys_ED: Tensor | None
    """[1 + E, D]: W_b e_i of the soft search"""
    category_E: Tensor | None
    """int64 [1 + E]: the category of the hard search"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    projected_QH: Tensor
    time_ms_Q: Tensor
    user: UserState
    groups: list[Group]
    keys: list[Tensor]
    """By group: W_b e_i [B, L, D], or categories int64 [B, L]"""
    events: list[Tensor]
    """By group: event vectors [B, L, D], where the search unit learns"""
    recent: Recent


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
            Weighted means of all heads, [N, H * Z].
        """
        N, H = candidates_ND.shape[0], self.heads
        with torch.autocast(candidates_ND.device.type, enabled=False):
            z_NkZ = torch.cat([retrieved_NkD, F.embedding(age_Nk, self.age_vector)], 2)
            query_HNd = (
                self.query(candidates_ND).view(N, H, candidates_ND.shape[1] // H).transpose(0, 1)
            )
            wide_NHZ = torch.bmm(query_HNd, self.key.weight.view(H, -1, z_NkZ.shape[2])).transpose(
                0, 1
            )
            scores_NHk = torch.bmm(wide_NHZ, z_NkZ.transpose(1, 2)).masked_fill(
                ~exists_Nk.unsqueeze(1), -torch.inf
            )
            return torch.bmm(scores_NHk.softmax(2), z_NkZ).flatten(1)


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
        self._search_logits: Tensor | None = None

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
            projected_RH=self.deep.project_user(inputs),
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
            inputs: Inputs with the level ``request``.
        """
        batch = inputs.batch
        ranges = HistoryRanges.of(batch, "global")
        groups = group_requests(ranges, batch.candidates_per_request, state.events_ED.device)
        short = HistoryRanges.of(batch, "realtime").newest(self.config.history_events)
        return RequestState(
            projected_QH=self.deep.project_request(state.projected_RH, inputs),
            time_ms_Q=batch.request_time_ms,
            user=state,
            groups=groups,
            keys=_laid_out(state.category_E if state.keys_ED is None else state.keys_ED, groups),
            events=_laid_out(state.events_ED, groups)
            if self.soft and self.training and torch.is_grad_enabled()
            else [],
            recent=self.activation.recent(state.events_ED, short, state.projected_RH.shape[0]),
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Return logits [N, T]; in training keep the search unit's logits for :meth:`loss`.

        Args:
            state: The request state.
            inputs: Inputs with the level ``candidate``.
        """
        batch, of_request = inputs.batch, inputs.batch.request_index
        candidates_ND = candidate_vectors(self.events, inputs)
        retrieved_Nk = self.search(state, candidates_ND, batch)
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
        logits_NT: Tensor = self.deep(state.projected_QH, inputs, interests)
        return logits_NT

    def loss(self, logits_NT: Tensor, batch: RequestBatch) -> Tensor:
        """Return the loss; in training with soft search add the search unit's (section 3.3).

        Args:
            logits_NT: [N, T], of the last :meth:`score`.
            batch: The batch of the logits, with labels.
        """
        loss = super().loss(logits_NT, batch)
        search_logits, self._search_logits = self._search_logits, None
        return (
            loss
            if search_logits is None
            else loss + super().loss(search_logits.to(logits_NT.dtype), batch)
        )

    def search(self, state: RequestState, candidates_ND: Tensor, batch: RequestBatch) -> Tensor:
        """Return rows of the retrieved events (null first), int64 [N, 1 + search_events], 0: none.

        Args:
            state: The request state.
            candidates_ND: Candidate vectors.
            batch: The batch.
        """
        if batch.candidates_count == 0:
            return batch.item_index.new_zeros(0, 1 + self.config.search_events)
        layout = slots(
            state.groups,
            HostIndex.of_candidates(batch),
            state.projected_QH.shape[0],
            candidates_ND.device,
        )
        if self.search_candidate is None:
            category_N = batch.items.ids[:, self.category].index_select(0, batch.item_index)
            queries = [category_N[rows] for rows in layout.rows]
        else:
            queries = to_slots(
                self.search_candidate(candidates_ND).to(candidates_ND.dtype),
                layout.rows,
                layout.slot_N,
            )
        by_group, sums = list[Tensor](), list[Tensor]()
        for at, (group, keys, of_candidates) in enumerate(
            zip(state.groups, state.keys, queries, strict=True)
        ):
            may_BCKL = (group.visible_BCL & (group.rows_BL > 0).unsqueeze(1)).unsqueeze(2)
            if self.soft:
                scores_BCKL = torch.einsum("bckd,bld->bckl", of_candidates, keys)
                if state.events:
                    sums.append(
                        torch.einsum(
                            "bckl,bld->bckd",
                            scores_BCKL.masked_fill(~may_BCKL, 0),
                            state.events[at],
                        )
                    )
            else:
                category = of_candidates.unsqueeze(3)
                may_BCKL = may_BCKL & (category == keys[:, None, None]) & (category > MISSING)
                scores_BCKL = torch.zeros(may_BCKL.shape, device=may_BCKL.device)
            column_BCKk, exists_BCKk = best(scores_BCKL, may_BCKL, self.config.search_events)
            rows_BCKk = (
                group.rows_BL[:, None, None]
                .expand(scores_BCKL.shape)
                .gather(3, column_BCKk)
                .masked_fill(~exists_BCKk, 0)
            )
            by_group.append(F.pad(rows_BCKk, (1, self.config.search_events - rows_BCKk.shape[3])))
        if sums and self.search_heads is not None:
            summed_ND = from_slots(sums, layout.slot_N).to(candidates_ND.dtype)
            self._search_logits = self.search_heads(
                torch.cat([summed_ND, candidates_ND], 1), batch.bias
            )
        return from_slots(by_group, layout.slot_N)


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
