"""Query-mixed interest extraction of HeMix: heterogeneous cross-attention over one history.

    Q = [dynamic ; fixed], q_i = Q_i W_q[i]        a projection for every query
    interest_i = W_o softmax(q_i K' / sqrt(Dh) + age) V,  [K ; V] = events W_kv

Dynamic queries are NS tokens, fixed ones are learned. Keys and values depend on a user's events
alone. A request adds a summand to the scores, or rotary times turn queries and keys.

Where a user has few queries, projections are moved to the queries (`hemix.nn.key_value`). Every
history carries the null event, so that no softmax is empty. All is in the parameters' precision,
under autocast too.

Letters: R users, Q requests, N candidates, D token width, H heads, Dh = D / H, A age buckets. In a
group of users: B users, C requests a user, K candidates a request, J queries a request, L keys a
user (the null event first).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from hemix.data.devices import to_device
from hemix.nn.age_attention import age_attention, age_attention_weights
from hemix.nn.attention import absorbs, attend, attention_weights
from hemix.nn.grouping import Group
from hemix.nn.history_state import (
    HIDDEN,
    NO_AGE,
    CandidateIndex,
    DynamicQueries,
    GroupKeys,
    HistoryState,
)
from hemix.nn.init import WeightInit
from hemix.nn.key_value import Absorbed, KeyValue, by_head
from hemix.nn.layers import GroupedLinear, unit
from hemix.nn.slots import HistoryLayout, Slots, from_slots, positions, to_slots
from hemix.nn.time_encoding import AGE_BUCKETS, TimeEncoding, age_bucket, rotary_angles, rotate

__all__ = ["HistoryInterest"]

_FIRST_LOG_SCALE = 1.6
"""QK-norm's scale of scores begins at e^1.6 = 5: it finds single events, and all still learn."""


class HistoryInterest(nn.Module):
    """The interests of one history (global or real time)."""

    absorb: Literal["auto", "always", "never"] = "auto"
    """Whether projections move from keys and values to the queries: by shape; or always or never (a
    benchmark's choice). Keys of unit length and turned keys stay projected."""
    turns_per_ms: Tensor | None
    """:func:`~hemix.nn.time_encoding.rotary_turns`, where an exporter would round what they are
    computed from"""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        dynamic: int,
        fixed: int,
        time_encoding: TimeEncoding = "bias",
        shared_projection: bool = False,
        qk_norm: bool = False,
    ) -> None:
        """Make the projections and the fixed queries.

        Args:
            width: D, the width of tokens and events.
            heads: H; divides the width.
            dynamic: How many queries come from NS tokens.
            fixed: How many queries are learned.
            time_encoding: How an event's age enters.
            shared_projection: One projection for all queries instead of one for each.
            qk_norm: Scores are cosines of queries and keys times a learned scale of each head.
        """
        super().__init__()
        self.heads, self.time_encoding, self.dynamic_count = heads, time_encoding, dynamic
        self.query = GroupedLinear(
            1 if shared_projection else dynamic + fixed, width, width, bias=False
        )
        self.fixed_queries = nn.Parameter(torch.empty(fixed, width))
        self.key_value = KeyValue(width, heads, unit_keys=qk_norm)
        self.output = nn.Linear(width, width)
        self.age_bias = (
            nn.Parameter(torch.empty(AGE_BUCKETS, self.heads)) if time_encoding == "bias" else None
        )
        self.age_vector = (
            nn.Parameter(torch.empty(AGE_BUCKETS, width)) if time_encoding == "embedding" else None
        )
        self.log_scale = nn.Parameter(torch.empty(heads)) if qk_norm else None
        self.register_buffer("turns_per_ms", None, persistent=False)

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw fixed queries like the normalised NS tokens; no age matters at first."""
        init.normal(self.fixed_queries, 1.0)
        if self.age_bias is not None:
            self.age_bias.zero_()
        if self.age_vector is not None:
            init.normal(self.age_vector, init.embedding_std)
        if self.log_scale is not None:
            self.log_scale.fill_(_FIRST_LOG_SCALE)

    @property
    def query_weight(self) -> Tensor:
        """[dynamic + fixed, D, D]: the projection of every query, the dynamic ones first."""
        return self.query.weight.expand(self.dynamic_count + self.fixed_queries.shape[0], -1, -1)

    # -- once per user ---------------------------------------------------------------------------

    def keys_values(self, events: Tensor, time_ms: Tensor) -> Tensor:
        """Return keys and values [..., 2 D].

        Args:
            events: Event vectors [..., D].
            time_ms: int64 [...], UTC; TIMELESS_MS for the null event.
        """
        keys, values = self._keys(events, time_ms), self.key_value.values(events)
        return torch.cat([keys.flatten(-2), values.flatten(-2)], -1)

    # -- once per request ------------------------------------------------------------------------

    def state(
        self,
        layout: HistoryLayout,
        events: Tensor,
        event_time_ms: Tensor,
        request_time_ms: Tensor,
        *,
        projected: bool = False,
    ) -> HistoryState:
        """Lay one history's events out for the requests.

        Args:
            layout: Where they lie.
            events: Vectors [rows, D] with the null event in row 0.
            event_time_ms: int64 [1 + E], by the groups' own rows.
            request_time_ms: int64 [Q], in the CPU's memory.
            projected: ``events`` are keys and values [rows, 2 D] already.
        """
        device = events.device
        padded = self._padded(layout, events)
        return HistoryState(
            device=device,
            groups=layout.groups,
            keys=[
                self._group_keys(
                    group, events_BLx, event_time_ms[group.rows_BL], request_time_ms, projected
                )
                for group, events_BLx in zip(layout.groups, padded, strict=True)
            ],
            request_slots=layout.request_slots,
            angles_Qp=self._angles(to_device(request_time_ms, device), events.dtype),
        )

    @staticmethod
    def _padded(layout: HistoryLayout, events: Tensor) -> list[Tensor]:
        """[B, L, x] by group."""
        if not layout.groups:
            return []
        position = events.new_empty(0)
        if torch.is_grad_enabled():
            position = positions(layout.rows, events.shape[0])
        return to_slots(events, layout.rows, position, null_first=True)

    def _angles(self, time_ms: Tensor, dtype: torch.dtype) -> Tensor | None:
        """[..., pairs]; None without rotary times."""
        if self.time_encoding != "rotary":
            return None
        return rotary_angles(time_ms, self.pairs, dtype, self.turns_per_ms)

    def fixed(self, state: HistoryState, requests: int) -> Tensor:
        """Return the interests [Q, fixed, D] of the fixed queries.

        Args:
            state: The history.
            requests: Q.
        """
        return self._interests(state, state.request_slots, self._fixed_queries(requests))

    # -- once per candidate ----------------------------------------------------------------------

    def dynamic(
        self,
        state: HistoryState,
        queries: DynamicQueries,
        index: CandidateIndex,
        fixed_too: bool = False,
    ) -> Tensor:
        """Return interests [N, dynamic, D] of the candidates' queries.

        Args:
            state: The history.
            queries: The candidates' queries.
            index: The request of every candidate.
            fixed_too: With the fixed queries' behind them, [N, dynamic + fixed, D].
        """
        projected_NnD = self._dynamic_queries(queries)
        if fixed_too:
            fixed_NnD = self._fixed_queries(projected_NnD.shape[0])
            projected_NnD = torch.cat([projected_NnD.to(fixed_NnD.dtype), fixed_NnD], 1)
        return self._interests(state, self._slots(state, index), projected_NnD)

    def weights(
        self, state: HistoryState, queries: DynamicQueries, index: CandidateIndex, events: int
    ) -> Tensor:
        """Return each event's weight for a candidate's dynamic queries, [N, 1 + E].

        The null event comes first. A weight is the mean over queries and heads. All weights are
        held at once: use it for few candidates.

        Args:
            state: The history.
            queries: The candidates' queries.
            index: The request of every candidate.
            events: E.
        """
        layout = self._slots(state, index)
        with torch.autocast(state.device.type, enabled=False):
            laid_out = self._laid_out(state, layout, self._dynamic_queries(queries))
            table_hA, by_group = self._summands(), list[Tensor]()
            for group, keys, q_BHCJd in zip(state.groups, state.keys, laid_out, strict=True):
                weights_BHCJL = self._weights(keys, q_BHCJd, table_hA)
                B, H, C, J, L = weights_BHCJL.shape
                n = self.dynamic_count
                mean_BCKL = weights_BHCJL.view(B, H, C, J // n, n, L).mean((1, 4))
                rows_BCKL = group.rows_BL[:, None, None].expand(mean_BCKL.shape)
                by_group.append(
                    mean_BCKL.new_zeros(*mean_BCKL.shape[:3], 1 + events).scatter_add_(
                        3, rows_BCKL, mean_BCKL
                    )
                )
            return from_slots(by_group, layout.slot_N)

    # -- attention -------------------------------------------------------------------------------

    @property
    def pairs(self) -> int:
        """Pairs of a head that rotary times turn."""
        return self.fixed_queries.shape[1] // self.heads // 2

    def _slots(self, state: HistoryState, index: CandidateIndex) -> Slots:
        return index.lay_out(state.groups, state.request_slots.slot_N.shape[0], state.device)

    def _dynamic_queries(self, queries: DynamicQueries) -> Tensor:
        """[N, dynamic, D]: projected tokens, and added to each the candidate's key."""
        weight = self.query_weight[: self.dynamic_count]
        projected_NnD = torch.bmm(queries.tokens_NnD.transpose(0, 1), weight).transpose(0, 1)
        if queries.candidates_ND is None:
            return projected_NnD
        keys_ND = self.key_value.project_keys(queries.candidates_ND)
        return projected_NnD + keys_ND.unsqueeze(1)

    def _fixed_queries(self, rows: int) -> Tensor:
        """[rows, fixed, D], projected."""
        weight = self.query_weight[self.dynamic_count :]
        with torch.autocast(weight.device.type, enabled=False):
            return (
                torch.bmm(self.fixed_queries.unsqueeze(1), weight)
                .transpose(0, 1)
                .expand(rows, -1, -1)
            )

    def _absorbed(self, group: Group) -> Absorbed:
        """What is moved to the queries of the group's users, by how many there are; an age vector
        in keys and values excludes it."""
        queries = (
            group.requests_BC.shape[1] * self.fixed_queries.shape[0]
            + group.candidates * self.dynamic_count
        )
        few = absorbs(queries, self.heads, self.fixed_queries.shape[1])
        wanted = self.absorb == "always" or (self.absorb == "auto" and few)
        if self.age_vector is not None or not wanted:
            return "neither"
        linear_keys = self.log_scale is None and self.time_encoding != "rotary"
        return "both" if linear_keys else "values"

    def _keys(self, events: Tensor, time_ms: Tensor) -> Tensor:
        """[..., H, Dh]"""
        return self.key_value.keys(events, self._angles(time_ms, self.fixed_queries.dtype))

    def _group_keys(
        self,
        group: Group,
        events_BLx: Tensor,
        event_time_BL: Tensor,
        request_time_ms: Tensor,
        projected: bool,
    ) -> GroupKeys:
        if self.time_encoding in ("none", "rotary"):
            bucket_BCL = torch.where(group.visible_BCL, NO_AGE, HIDDEN)
        else:
            request_time_BC = to_device(request_time_ms[group.requests_BC], event_time_BL.device)
            bucket_BCL = age_bucket(request_time_BC.unsqueeze(2), event_time_BL.unsqueeze(1))
            bucket_BCL = bucket_BCL.masked_fill_(~group.visible_BCL, HIDDEN)
            bucket_BCL[..., 0] = NO_AGE
        bucket_BCL = bucket_BCL.to(torch.uint8)
        absorbed: Absorbed = "neither" if projected else self._absorbed(group)
        if projected:
            keys_BLhx, values_BLky = (by_head(x, self.heads) for x in events_BLx.chunk(2, 2))
        else:
            keys_BLhx = values_BLky = events_BLx.to(self.fixed_queries.dtype).unsqueeze(2)
            if absorbed != "both":
                keys_BLhx = self._keys(events_BLx, event_time_BL)
            if absorbed == "neither":
                values_BLky = self.key_value.values(events_BLx)
        return GroupKeys(
            absorbed=absorbed, keys_BLhx=keys_BLhx, values_BLky=values_BLky, bucket_BCL=bucket_BCL
        )

    def _summands(self) -> Tensor:
        """[H or 1, buckets]: what is added to scores by age bucket; 0 for NO_AGE, -inf for
        HIDDEN."""
        table_AH = (
            self.fixed_queries.new_zeros(AGE_BUCKETS, 1) if self.age_bias is None else self.age_bias
        )
        no_age, hidden = (
            table_AH.new_full((1, table_AH.shape[1]), value) for value in (0.0, -torch.inf)
        )
        return torch.cat([table_AH, no_age, hidden]).t().contiguous()

    def _interests(self, state: HistoryState, layout: Slots, queries_NnD: Tensor) -> Tensor:
        """[N, n, D]: every row's n queries over what its request sees."""
        n, D = queries_NnD.shape[1:]
        if queries_NnD.shape[0] == 0 or n == 0:
            return queries_NnD.new_zeros(queries_NnD.shape)
        with torch.autocast(queries_NnD.device.type, enabled=False):
            table_hA, by_group = self._summands(), list[Tensor]()
            for keys, q_BHCJd in zip(
                state.keys, self._laid_out(state, layout, queries_NnD), strict=True
            ):
                B, H, C, J, d = q_BHCJd.shape
                read_BCJHd = self._attend(keys, q_BHCJd, table_hA).permute(0, 2, 3, 1, 4)
                by_group.append(read_BCJHd.reshape(B, C, J // n, n * H * d))
            gathered = from_slots(by_group, layout.slot_N).view(-1, n, D)
        out: Tensor = self.output(gathered).to(queries_NnD.dtype)
        return out

    def _laid_out(self, state: HistoryState, layout: Slots, queries_NnD: Tensor) -> list[Tensor]:
        """Per group [B, H, C, J, Dh]: projected queries of all rows, scaled and, with rotary times,
        turned."""
        n, D = queries_NnD.shape[1:]
        queries_NnD = self._scaled(queries_NnD.to(self.fixed_queries.dtype))
        if state.angles_Qp is not None:
            angles = state.angles_Qp[layout.request_N][:, None, None]
            queries_NnD = rotate(by_head(queries_NnD, self.heads), angles).flatten(2)
        queries = to_slots(queries_NnD.reshape(-1, n * D), layout.rows, layout.slot_N)
        return [
            q.view(*q.shape[:2], q.shape[2] * n, self.heads, D // self.heads).permute(0, 3, 1, 2, 4)
            for q in queries
        ]

    def _scaled(self, queries_NnD: Tensor) -> Tensor:
        """Queries over sqrt(Dh); with QK-norm of unit length, times the scale of each head."""
        by_head_NnHd = by_head(queries_NnD, self.heads)
        if self.log_scale is None:
            return queries_NnD / math.sqrt(by_head_NnHd.shape[3])
        return (unit(by_head_NnHd) * self.log_scale.exp().unsqueeze(1)).flatten(2)

    def _attend(self, keys: GroupKeys, q_BHCJd: Tensor, table_hA: Tensor) -> Tensor:
        """Attention of scaled queries [B, H, C, J, Dh] -> [B, H, C, J, Dh]."""
        if self.age_vector is not None:
            return age_attention(keys, q_BHCJd, table_hA, *self.key_value.of_ages(self.age_vector))
        queries = self.key_value.absorb_keys(q_BHCJd) if keys.absorbed == "both" else q_BHCJd
        values = None if keys.absorbed == "both" else keys.values_BLky
        read = attend(queries, keys.keys_BLhx, values, table_hA, keys.bucket_BCL)
        if keys.absorbed == "neither":
            return read
        return self.key_value.absorb_values(read)

    def _weights(self, keys: GroupKeys, q_BHCJd: Tensor, table_hA: Tensor) -> Tensor:
        """[B, H, C, J, L]: the weights that :meth:`_attend` gives."""
        if self.age_vector is not None:
            as_keys, _ = self.key_value.of_ages(self.age_vector)
            return age_attention_weights(keys, q_BHCJd, table_hA, as_keys)[0]
        queries = self.key_value.absorb_keys(q_BHCJd) if keys.absorbed == "both" else q_BHCJd
        return attention_weights(queries, keys.keys_BLhx, table_hA, keys.bucket_BCL)
