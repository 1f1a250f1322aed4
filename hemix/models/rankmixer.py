"""RankMixer: semantic tokens, a permutation that mixes them, a network per token (Zhu et al. 2025,
arXiv 2507.15551).

- Tokens (equation 2): all embeddings, group by group, are concatenated and cut into S equal pieces,
  each mapped to a token by a projection of its own. The groups: user, context, pooled global
  history, pooled real-time history, item, crosses, the output of the sequence module, numbers;
  zeros fill the last piece.
- Sequence module, which the paper puts before the tokens and leaves open: target attention, one
  query made of the candidate's fields over each history, in HeMix's own attention (ages too), so
  that what differs between the two is what is done with its output.
- Block (equation 1): ``S = LN(TokenMixing(X) + X)``, ``X' = LN(PFFN(S) + S)``; mixing in equations
  3 to 5 (`hemix.nn.mixing`), the network per token in equations 6 to 8.
- The mean over tokens goes to the towers that all models share.

S is the largest divisor of the token width that is at most ``tokens``, since the paper has as many
heads as tokens.

Letters: N candidates, Q requests, E events, F fields, d width of a table, m numbers, S tokens,
T tasks, D token width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from hemix.config import Count
from hemix.data.spec import InputSpec
from hemix.models.base import Ranker, SizedConfig, check_divisor, check_rotary, named_sizes
from hemix.models.registry import register_model
from hemix.nn.events import EventEncoder
from hemix.nn.heads import Heads
from hemix.nn.histories import event_times
from hemix.nn.history_state import DynamicQueries, HistoryState
from hemix.nn.inputs import Inputs
from hemix.nn.interests import HistoryInterest
from hemix.nn.layers import GroupedLinear, NormKind, make_norm
from hemix.nn.mixer import FFNActivation, HeteroFFN, MixerBlock, NormPosition
from hemix.nn.mixing import TokenMixing
from hemix.nn.pooled import PooledFields, PooledState
from hemix.nn.states import PER_EVENT
from hemix.nn.time_encoding import TimeEncoding

__all__ = ["RankMixer", "RankMixerConfig", "RequestState", "UserState", "tokens_count"]


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone."""

    pooled: PooledState
    event_time_ms: Tensor = field(metadata=PER_EVENT)
    """int64 [1 + E]"""
    events_ED: Tensor = field(metadata=PER_EVENT)
    """[1 + E, D]"""
    global_keys_values: Tensor | None = field(default=None, metadata=PER_EVENT)
    """[1 + E, 2 D], in a kept state"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    pooled: PooledState
    realtime: HistoryState
    global_: HistoryState


class RankMixerConfig(SizedConfig):
    """Settings of RankMixer."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024), attention_heads=(2, 4, 6, 8), layers=(2, 3, 3, 7)
    )

    name: Literal["rankmixer"] = "rankmixer"
    tokens: Count = 24
    """The most tokens: S is the largest divisor of ``token_width`` that is no larger."""
    attention_heads: Count = 2
    """Heads of the target attention."""
    time_encoding: TimeEncoding = "bias"
    """How an event's age enters the target attention."""
    ffn_activation: FFNActivation = "gelu"
    ffn_expansion: Count = 4
    norm_position: NormPosition = "post"
    norm: NormKind = "layer"

    @model_validator(mode="after")
    def _heads_divide(self) -> RankMixerConfig:
        check_divisor(self.token_width, attention_heads=self.attention_heads)
        check_rotary(self.time_encoding, self.token_width, self.attention_heads)
        return self


def tokens_count(config: RankMixerConfig) -> int:
    """Return S."""
    return max(t for t in range(1, config.tokens + 1) if config.token_width % t == 0)


@register_model("rankmixer")
class RankMixer(Ranker):
    """Pooled fields and target attention to tokens, ``layers`` blocks, their mean."""

    Config = RankMixerConfig
    config: RankMixerConfig

    def __init__(self, spec: InputSpec, config: RankMixerConfig) -> None:
        super().__init__(spec, config)
        D, d = config.token_width, config.embedding_size
        self.fields = PooledFields(spec, d)
        self.tokens = tokens_count(config)
        self.events = EventEncoder(spec, d, D)
        self.realtime, self.global_ = (
            HistoryInterest(
                width=D,
                heads=config.attention_heads,
                dynamic=1,
                fixed=0,
                time_encoding=config.time_encoding,
            )
            for _ in range(2)
        )
        self.target = nn.Linear(self.fields.candidate_count * d, D)
        self.width = self.fields.count * d + self.fields.numbers_count + 2 * D
        self.project = GroupedLinear(self.tokens, -(-self.width // self.tokens), D)
        self.blocks = nn.ModuleList(self._block() for _ in range(config.layers))
        self.norm_out = (
            make_norm(config.norm, D) if config.norm_position == "pre" else nn.Identity()
        )
        self.heads = Heads(spec, D, config.tower_hidden, config.dropout)

    def _block(self) -> MixerBlock:
        config = self.config
        ffn = HeteroFFN(
            (1,) * self.tokens,
            width=config.token_width,
            expansion=config.ffn_expansion,
            activation=config.ffn_activation,
            dropout=config.dropout,
        )
        return MixerBlock(
            TokenMixing(),
            ffn,
            width=config.token_width,
            norm=config.norm,
            norm_position=config.norm_position,
            dropout=config.dropout,
        )

    def encode_user(self, inputs: Inputs) -> UserState:
        """Pooled fields and event vectors."""
        events_ED = self.events(inputs)
        return UserState(
            pooled=self.fields.of_users(inputs),
            event_time_ms=event_times(inputs.batch),
            events_ED=events_ED,
        )

    def keep_user(self, state: UserState) -> UserState:
        """Return the state with the keys and values of the global history."""
        keys_values = self.global_.keys_values(state.events_ED, state.event_time_ms)
        return replace(state, global_keys_values=keys_values)

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Return pooled histories, and the histories laid out for attention.

        Args:
            state: The user state.
            inputs: Inputs with the stage ``request``.
        """
        layout, events_ED, time_ms = inputs.layout, state.events_ED, state.event_time_ms
        users = state.pooled.fields.shape[0]
        return RequestState(
            pooled=self.fields.of_requests(state.pooled, inputs),
            realtime=layout.realtime_state(self.realtime, events_ED, time_ms, users),
            global_=layout.global_state(self.global_, events_ED, state.global_keys_values, time_ms),
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Return logits [N, T].

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        batch, index = inputs.batch, inputs.layout.candidates
        fields_NFd, numbers_Nm = self.fields.of_candidates(state.pooled, inputs)
        candidate_Ncd = fields_NFd[:, self.fields.request_count :]
        query = DynamicQueries(self.target(candidate_Ncd.flatten(1)).unsqueeze(1))
        interests = [
            self.global_.dynamic(state.global_, query, index).flatten(1),
            self.realtime.dynamic(state.realtime, query, index).flatten(1),
        ]
        x_SND = self.tokenize(torch.cat([fields_NFd.flatten(1), *interests, numbers_Nm], 1))
        for block in self.blocks:
            x_SND = block(x_SND)
        logits_NT: Tensor = self.heads(self.norm_out(x_SND).mean(0), batch.bias)
        return logits_NT

    def tokenize(self, row_Nx: Tensor) -> Tensor:
        """[N, x] -> [S, N, D]: token t is a projection of section t of the row."""
        sections_NSx = F.pad(row_Nx, (0, -self.width % self.tokens)).view(
            -1, self.tokens, self.project.weight.shape[1]
        )
        tokens_SND: Tensor = self.project(sections_NSx.transpose(0, 1))
        return tokens_SND
