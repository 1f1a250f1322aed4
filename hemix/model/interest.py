"""Query-mixed interest extraction from one history: heterogeneous cross-attention of dynamic and fixed queries over a user's events.

Keys and values are made once per user and depend on the events alone; what a request sees of them (its cut, the age of every event)
enters as a summand of the scores, or, with rotary times, as a turn of the queries. Every query has a projection of its own. Every
history carries the null event, so that no softmax is over nothing. Attention is in the parameters' precision, under autocast too.

Letters: R users, Q requests, N candidates, D token width, H heads, Dh = D / H; in a group of users: B users, C requests a user,
L keys a user (the null event first), J queries a request, K candidates a request, A age buckets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.config import ModelSettings
from hemix.model.age import AGE_BUCKETS, age_bucket, rotary_angles, rotate
from hemix.model.layers import GroupedLinear
from hemix.model.ragged import Group, Slots, from_slots, places, slots, to_slots

__all__ = ["HistoryInterest", "HistoryState"]

_ABSORBED_QUERIES_MAX = 8
_NO_AGE = AGE_BUCKETS
"""Bucket of the null event, which age does not touch."""
_HIDDEN = AGE_BUCKETS + 1


@dataclass(frozen=True, kw_only=True)
class _Keys:
    """What the requests of one group attend to."""

    keys_BLD: Tensor
    values_BLD: Tensor
    bias_BHCL: Tensor
    """Added to scores: -inf where the request does not see the event. One head where all are alike."""
    bucket_BCL: Tensor | None
    """int64, where age enters by a split embedding; _NO_AGE for what is hidden, too."""


@dataclass(frozen=True, kw_only=True)
class HistoryState:
    """One history of a batch's requests, ready for queries."""

    groups: list[Group]
    keys: list[_Keys]
    request_slots: Slots
    angles_QP: Tensor | None
    """Rotary angles of the request times"""


class HistoryInterest(nn.Module):
    """The interests of one history (global or real time)."""

    def __init__(self, settings: ModelSettings, dynamic: int, fixed: int) -> None:
        super().__init__()
        width = settings.token_width
        self.heads, self.age, self.dynamic_count = settings.attention_heads, settings.age, dynamic
        self.query = GroupedLinear(dynamic + fixed, width, width, bias=False)
        self.fixed_queries = nn.Parameter(torch.empty(fixed, width))
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.age_bias = nn.Parameter(torch.empty(AGE_BUCKETS, self.heads)) if self.age == "bias" else None
        self.age_vector = nn.Parameter(torch.empty(AGE_BUCKETS, width)) if self.age == "embedding" else None

    # -- once per user --------------------------------------------------------------------------------------------------

    def keys_values(self, events_ED: Tensor, time_ms_E: Tensor) -> Tensor:
        """Keys and values [rows, 2 D] of event vectors; the null event's time is TIMELESS_MS."""
        keys_values: Tensor = self.key_value(events_ED).to(self.fixed_queries.dtype)
        if self.age != "rotary":
            return keys_values
        keys, values = keys_values.chunk(2, 1)
        angles = rotary_angles(time_ms_E, self._pairs, keys.dtype).unsqueeze(1)
        return torch.cat([rotate(self._by_head(keys), angles).flatten(1), values], 1)

    # -- once per request -----------------------------------------------------------------------------------------------

    def state(
        self, groups: list[Group], rows: list[Tensor], keys_values: Tensor, event_time_ms: Tensor, request_time_ms: Tensor
    ) -> HistoryState:
        """Lay the keys out for the groups. ``rows``: the groups' ``rows_BL``, as rows of ``keys_values`` [rows, 2 D], whose row 0
        is the null event; ``event_time_ms`` [1 + E] goes by the groups' own rows."""
        requests, count = request_time_ms.shape[0], keys_values.shape[0]
        padded = to_slots(keys_values, rows, places(rows, count), null_first=True) if groups else []
        return HistoryState(
            groups=groups,
            keys=[
                self._keys(group, keys_values_BLx, event_time_ms, request_time_ms)
                for group, keys_values_BLx in zip(groups, padded, strict=True)
            ],
            request_slots=slots(groups, torch.arange(requests, device=request_time_ms.device), requests),
            angles_QP=rotary_angles(request_time_ms, self._pairs, keys_values.dtype) if self.age == "rotary" else None,
        )

    def fixed(self, state: HistoryState, requests: int) -> Tensor:
        """Interests [Q, fixed, D] of the fixed queries."""
        weight = self.query.weight[self.dynamic_count :]
        projected_QnD = torch.bmm(self.fixed_queries.unsqueeze(1), weight).view(1, -1, weight.shape[2]).expand(requests, -1, -1)
        return self._interests(state, state.request_slots, projected_QnD, torch.arange(requests, device=weight.device))

    # -- once per candidate ---------------------------------------------------------------------------------------------

    def dynamic(self, state: HistoryState, queries_NnD: Tensor, request_index_N: Tensor, requests: int) -> Tensor:
        """Interests [N, dynamic, D] of the queries that come from NS tokens."""
        projected_NnD = torch.bmm(queries_NnD.transpose(0, 1), self.query.weight[: self.dynamic_count]).transpose(0, 1)
        return self._interests(state, slots(state.groups, request_index_N, requests), projected_NnD, request_index_N)

    # -- attention ------------------------------------------------------------------------------------------------------

    @property
    def _pairs(self) -> int:
        return self.fixed_queries.shape[1] // self.heads // 2

    def _by_head(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., H, Dh]"""
        return x.reshape(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)

    def _keys(self, group: Group, keys_values_BLx: Tensor, event_time_ms: Tensor, request_time_ms: Tensor) -> _Keys:
        keys_BLD, values_BLD = keys_values_BLx.chunk(2, 2)
        visible_BCL = group.visible_BCL
        if self.age in ("none", "rotary"):
            hidden = torch.zeros_like(visible_BCL, dtype=keys_BLD.dtype).masked_fill_(~visible_BCL, -torch.inf)
            return _Keys(keys_BLD=keys_BLD, values_BLD=values_BLD, bias_BHCL=hidden.unsqueeze(1), bucket_BCL=None)
        request_time_BC = request_time_ms[group.requests_BC]
        bucket_BCL = age_bucket(request_time_BC.unsqueeze(2), event_time_ms[group.rows_BL].unsqueeze(1))
        bucket_BCL = bucket_BCL.masked_fill_(~visible_BCL, _HIDDEN)
        bucket_BCL[..., 0] = _NO_AGE
        table = keys_BLD.new_zeros(1, 1) if self.age_bias is None else self.age_bias
        no_age, hidden = (table.new_full((1, table.shape[1]), value) for value in (0.0, -torch.inf))
        by_bucket = torch.cat([table.expand(AGE_BUCKETS, -1), no_age, hidden])
        bias_BCLH = by_bucket.index_select(0, bucket_BCL.flatten()).view(*bucket_BCL.shape, table.shape[1])
        bias_BHCL = bias_BCLH.permute(0, 3, 1, 2).contiguous()
        bucket = bucket_BCL.clamp(max=_NO_AGE) if self.age == "embedding" else None
        return _Keys(keys_BLD=keys_BLD, values_BLD=values_BLD, bias_BHCL=bias_BHCL, bucket_BCL=bucket)

    def _interests(self, state: HistoryState, layout: Slots, queries_NnD: Tensor, request_index_N: Tensor) -> Tensor:
        """[N, n, D]: every row's n queries over what its request sees."""
        n, D = queries_NnD.shape[1:]
        if queries_NnD.shape[0] == 0 or n == 0:
            return queries_NnD.new_zeros(queries_NnD.shape)
        with torch.autocast(queries_NnD.device.type, enabled=False):
            queries_NnD = queries_NnD.to(self.fixed_queries.dtype) * (D // self.heads) ** -0.5
            if state.angles_QP is not None:
                angles = state.angles_QP[request_index_N][:, None, None]
                queries_NnD = rotate(self._by_head(queries_NnD), angles).flatten(2)
            queries = to_slots(queries_NnD.reshape(-1, n * D), layout.rows, layout.place_N)
            found = []
            for keys, q_BCKx in zip(state.keys, queries, strict=True):
                B, C, K, _ = q_BCKx.shape
                found.append(self._attend(keys, q_BCKx.reshape(B, C, K * n, D)).view(B, C, K, n * D))
            gathered = from_slots(found, layout.place_N).view(-1, n, D)
        out: Tensor = self.output(gathered).to(queries_NnD.dtype)
        return out

    def _attend(self, keys: _Keys, q_BCJD: Tensor) -> Tensor:
        """Attention of scaled queries [B, C, J, D] -> [B, C, J, D]."""
        B, C, J, D = q_BCJD.shape
        H, L = self.heads, keys.keys_BLD.shape[1]
        absorbed = C * J <= _ABSORBED_QUERIES_MAX
        if absorbed:
            # Few queries: widen each to D with zeros outside its head, so that keys and values are read as they lie.
            own_head_HD = torch.eye(H, dtype=q_BCJD.dtype, device=q_BCJD.device).repeat_interleave(D // H, 1)[:, None, None]
            wide_BHCJD = q_BCJD.unsqueeze(1) * own_head_HD
            scores = torch.bmm(wide_BHCJD.view(B, H * C * J, D), keys.keys_BLD.transpose(1, 2))
        else:
            q_BHJd = self._by_head(q_BCJD.flatten(1, 2)).transpose(1, 2)
            scores = q_BHJd @ self._by_head(keys.keys_BLD).permute(0, 2, 3, 1)
        scores = scores.view(B, H, C, J, L) + keys.bias_BHCL.unsqueeze(3)
        if keys.bucket_BCL is not None:
            return self._attend_with_age(keys, q_BCJD, scores)
        weights = scores.softmax(-1)
        if absorbed:
            wide = torch.bmm(weights.view(B, H * C * J, L), keys.values_BLD).view(B, H, C, J, D)
            return (wide * own_head_HD).sum(1)
        return self._weighted(weights, keys.values_BLD)

    def _weighted(self, weights_BHCJL: Tensor, values_BLD: Tensor) -> Tensor:
        B, _, C, J, _ = weights_BHCJL.shape
        mean_BHJd = weights_BHCJL.flatten(2, 3) @ self._by_head(values_BLD).transpose(1, 2)
        return mean_BHJd.transpose(1, 2).reshape(B, C, J, values_BLD.shape[2])

    def _attend_with_age(self, keys: _Keys, q_BCJD: Tensor, scores_BHCJL: Tensor) -> Tensor:
        """An age vector added to every event, split off exactly: keys and values are linear in it."""
        assert self.age_vector is not None and keys.bucket_BCL is not None
        D = q_BCJD.shape[3]
        age_keys_AD, age_values_AD = (
            self._by_head(F.pad(F.linear(self.age_vector, w), (0, 0, 0, 1))) for w in torch.split(self.key_value.weight, D)
        )
        by_bucket_BHCJA = torch.einsum("bcjhd,ahd->bhcja", self._by_head(q_BCJD), age_keys_AD)
        bucket = keys.bucket_BCL[:, None, :, None].expand(scores_BHCJL.shape)
        weights = (scores_BHCJL + by_bucket_BHCJA.gather(-1, bucket)).softmax(-1)
        mass_BHCJA = torch.zeros_like(by_bucket_BHCJA).scatter_add(-1, bucket, weights)
        return self._weighted(weights, keys.values_BLD) + torch.einsum("bhcja,ahd->bcjhd", mass_BHCJA, age_values_AD).flatten(3)
