"""DIN: an activation unit weighs every event by the candidate, and the weighted events are summed
(Zhou et al. 2018, arXiv 1706.06978).

The user's representation is v_U(A) = sum_j a(e_j, v_A) e_j (eq. 3) over the newest events that the
request sees, of both parts of the history. The weights are not normalised: their sum says how
strongly the candidate is wanted (section 4.3). The unit a is a small network over [e, e * t, e - t,
t] with PReLU (eq. 8) and 36 inner units (figure 2).

The paper has Dice (eq. 9) instead of PReLU. Its statistics would let an impression's score depend
on the rest of the batch. The null event's vector replaces the sum of a request without events.
Pairs of candidate and event lie flat, so no history is padded.

Letters: E events, Q requests, N candidates, p pairs, D token width, U inner width of the activation
unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.config import Count
from hemix.data.devices import to_device
from hemix.data.jagged import offsets_of, range_positions
from hemix.data.spec import InputSpec
from hemix.models.base import Ranker, SizedConfig
from hemix.models.registry import register_model
from hemix.nn.deep import DeepNetwork, hidden_width
from hemix.nn.events import EventEncoder
from hemix.nn.heads import Heads
from hemix.nn.history_ranges import HistoryRanges, rows_in_ranges
from hemix.nn.inputs import Inputs
from hemix.nn.layers import BlockLinear
from hemix.nn.slots import HostIndex
from hemix.nn.states import PER_EVENT

__all__ = ["DIN", "ActivationUnit", "DINConfig", "Recent", "RequestState", "UserState"]

_INNER = 36


@dataclass(frozen=True, kw_only=True)
class Recent:
    """What an activation unit reads of some requests' histories. Row 0 is the null event."""

    events_ED: Tensor
    """The events that any request reads, a user's side by side"""
    projected_EU: Tensor
    """Their summand of the unit's first layer"""
    first_Q: Tensor
    """int64: row of each request's oldest event"""
    ranges: HistoryRanges
    """What each request reads"""


class ActivationUnit(nn.Module):
    """The local activation unit (section 4.3, figure 2), and the sum that it weighs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = BlockLinear(
            {"event": width, "product": width, "difference": width, "candidate": width}, _INNER
        )
        self.prelu = nn.PReLU(_INNER)
        self.second = nn.Linear(_INNER, 1)

    def recent(self, events_ED: Tensor, ranges: HistoryRanges, users: int) -> Recent:
        """Return what some requests read.

        Args:
            events_ED: [1 + E, D], the null event first.
            ranges: What each request reads.
            users: How many users there are.
        """
        device = events_ED.device
        rows, position = rows_in_ranges(ranges, users, events_ED.shape[0], device)
        chosen_ED = events_ED.index_select(0, rows)
        with torch.autocast(events_ED.device.type, enabled=False):
            projected_EU = F.linear(
                chosen_ED, self.first.blocks["event"] + self.first.blocks["difference"]
            )
        first = position.index_select(
            0, to_device((ranges.begin_Q + 1).clamp(max=events_ED.shape[0] - 1), device)
        )
        return Recent(events_ED=chosen_ED, projected_EU=projected_EU, first_Q=first, ranges=ranges)

    def forward(self, recent: Recent, candidates_ND: Tensor, index: HostIndex) -> Tensor:
        """Return the sum [N, D] of what every candidate's request reads, weighed by the candidate.

        It is the null event where that is nothing.

        Args:
            recent: What the requests read.
            candidates_ND: The candidates.
            index: The request of every candidate.
        """
        device = candidates_ND.device
        host_count_N = recent.ranges.lengths.index_select(0, index.values)
        pairs, count_N = int(host_count_N.sum()), to_device(host_count_N, device)
        first_N = recent.first_Q.index_select(0, to_device(index.values, device))
        candidate_p = torch.repeat_interleave(count_N, output_size=pairs)
        event_p = range_positions(first_N, count_N, pairs)
        weight_p = self.weights(recent, event_p, candidates_ND, candidate_p).to(
            recent.events_ED.dtype
        )
        sum_ND = F.embedding_bag(
            event_p,
            recent.events_ED,
            offsets_of(count_N),
            mode="sum",
            per_sample_weights=weight_p,
            include_last_offset=True,
        )
        return sum_ND + (count_N == 0).unsqueeze(1) * recent.events_ED[0]

    def weights(
        self, recent: Recent, event_p: Tensor, candidates_ND: Tensor, candidate_p: Tensor
    ) -> Tensor:
        """Return the weight a(e, t) of every pair of an event and a candidate, [p].

        The first layer's columns of e, t and e - t are multiplied once per event and once per
        candidate, those of e * t once per pair.

        Args:
            recent: The events, with the first layer's products of each.
            event_p: int64, the event of every pair: a row of ``recent``.
            candidates_ND: Candidate vectors.
            candidate_p: int64, the candidate of every pair: a row of ``candidates_ND``.
        """
        blocks = self.first.blocks
        with torch.autocast(candidates_ND.device.type, enabled=False):
            projected_NU = F.linear(
                candidates_ND, blocks["candidate"] - blocks["difference"], self.first.bias
            )
            product_pD = recent.events_ED.index_select(0, event_p) * candidates_ND.index_select(
                0, candidate_p
            )
            inner_pU = F.linear(product_pD, blocks["product"])
        inner_pU = (
            inner_pU
            + recent.projected_EU.index_select(0, event_p)
            + projected_NU.index_select(0, candidate_p)
        )
        weight_p1: Tensor = self.second(self.prelu(inner_pU))
        return weight_p1.squeeze(1)


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone."""

    projected_RU: Tensor
    events_ED: Tensor = field(metadata=PER_EVENT)
    """[1 + E, D]: the null event, then the events"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    projected_QU: Tensor
    recent: Recent


class DINConfig(SizedConfig):
    """Settings of DIN: hidden layers are 16 ``token_width`` wide."""

    name: Literal["din"] = "din"
    history_events: Count = 50
    """The newest events of a request that are weighed."""


@register_model("din")
class DIN(Ranker):
    """Deep Interest Network."""

    Config = DINConfig
    config: DINConfig

    def __init__(self, spec: InputSpec, config: DINConfig) -> None:
        super().__init__(spec, config)
        self.events = EventEncoder(spec, config.embedding_size, config.token_width)
        self.activation = ActivationUnit(config.token_width)
        self.deep = DeepNetwork(
            spec,
            embedding_size=config.embedding_size,
            interests={"interest": config.token_width},
            hidden=hidden_width(config.token_width),
            layers=config.layers,
            tower_hidden=config.tower_hidden,
            dropout=config.dropout,
        )

    def output_heads(self) -> Heads:
        """The deep network's."""
        return self.deep.heads

    def encode_user(self, inputs: Inputs) -> UserState:
        """Event vectors, the user's share of the deep network."""
        return UserState(projected_RU=self.deep.project_user(inputs), events_ED=self.events(inputs))

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Return the requests' history ranges and the events' products of the activation unit.

        Args:
            state: The user state.
            inputs: Inputs with the stage ``request``.
        """
        ranges = HistoryRanges.of(inputs.batch, "both").newest(self.config.history_events)
        recent = self.activation.recent(state.events_ED, ranges, state.projected_RU.shape[0])
        return RequestState(
            projected_QU=self.deep.project_request(state.projected_RU, inputs), recent=recent
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Return logits [N, T].

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        candidates_ND = self.events.candidates(inputs)
        interest_ND = self.activation(
            state.recent, candidates_ND, HostIndex.of_candidates(inputs.batch)
        )
        logits_NT: Tensor = self.deep(state.projected_QU, inputs, {"interest": interest_ND})
        return logits_NT
