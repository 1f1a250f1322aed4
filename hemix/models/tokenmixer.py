"""TokenMixer-Large: tokens are mixed, transformed, returned to their places and transformed again
(Jiang et al. 2026, arXiv 2602.06563). It succeeds RankMixer (`hemix.models.rankmixer`).

- Tokens ("Tokenization"): columns are grouped by meaning, each group goes through an MLP of its own
  to a token, and a global token comes from all others, ``X_G = MLP(concat(X_1 .. X_(S-1)))``.
- Block ("Mixing and Reverting"), of S tokens X, with M heads:

      H  = Mix(X): H_m = [head m of token 1 .. head m of token S]      M mix-tokens, S D / M wide
      H' = H + pSwiGLU(norm(H))
      X' = X + pSwiGLU(norm(Revert(H')))                               Revert undoes Mix

  So a residual adds like to like, M need not be S, and the norm (RMS) is before each branch.
- pSwiGLU ("Pertoken SwiGLU"): every token has weights of its own. The last matrix begins at a
  hundredth of the usual scale.
- Between blocks ("Inter-residual and auxiliary loss"): after every ``residual_interval`` blocks the
  tokens from before them are added. There, except at the top, towers of their own predict the same
  labels, in training only.

What the paper leaves open, and what is done here:

  - Groups: user, context, item, crosses, both pooled histories and the interests, each cut into
    ``level_tokens`` sections.
  - The sequence module, which comes before the tokens, is RankMixer's here: target attention, one
    query made of the candidate's columns over each history, with ages.
  - Auxiliary losses have weight 1.
  - The towers read the mean over tokens, after a norm, as RankMixer's do.
  - The experts are dense. The paper cuts pSwiGLU into experts and trains a part of them per token
    (sparse-pertoken MoE) to save work at billions of parameters, and reports the same AUC as dense.

Letters: Q requests, N candidates, E events, S tokens, D token width, M mix heads, c columns of
events.
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
from hemix.data.batch import RequestBatch
from hemix.data.spec import InputSpec
from hemix.models.base import Ranker, SizedConfig, check_divisor, check_rotary, named_sizes
from hemix.models.registry import register_model
from hemix.nn.events import EventEncoder
from hemix.nn.fields import event_columns, event_columns_count
from hemix.nn.heads import Heads
from hemix.nn.histories import event_times
from hemix.nn.history_state import DynamicQueries, HistoryState
from hemix.nn.init import WeightInit, fan_std
from hemix.nn.inputs import Inputs, level_widths
from hemix.nn.interests import HistoryInterest
from hemix.nn.layers import BlockLinear, GroupedLinear, make_norm
from hemix.nn.level_tokens import LevelTokens
from hemix.nn.mixer import ffn_width
from hemix.nn.states import PER_EVENT
from hemix.nn.time_encoding import TimeEncoding

__all__ = [
    "PertokenSwiGLU",
    "RequestState",
    "TokenMixer",
    "TokenMixerBlock",
    "TokenMixerConfig",
    "UserState",
    "mix",
    "revert",
]

_SMALL_START = 0.01
"""Scale of pSwiGLU's last matrix at first, over the usual one."""


class TokenMixerConfig(SizedConfig):
    """Settings of TokenMixer-Large."""

    sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = named_sizes(
        token_width=(32, 64, 384, 1024),
        attention_heads=(2, 4, 6, 8),
        layers=(2, 3, 3, 7),
        mix_heads=(16, 16, 16, 16),
    )

    name: Literal["tokenmixer"] = "tokenmixer"
    level_tokens: Count = 2
    """Tokens of each group of columns, at most."""
    mix_heads: Count = 16
    """M, the mix-tokens of a block."""
    attention_heads: Count = 2
    """Heads of the target attention."""
    time_encoding: TimeEncoding = "bias"
    """How an event's age enters the target attention."""
    ffn_expansion: Count = 4
    residual_interval: Count = 2
    """Blocks between inter-residuals."""

    @model_validator(mode="after")
    def _heads_divide(self) -> TokenMixerConfig:
        check_divisor(
            self.token_width, attention_heads=self.attention_heads, mix_heads=self.mix_heads
        )
        check_rotary(self.time_encoding, self.token_width, self.attention_heads)
        return self


@dataclass(frozen=True, kw_only=True)
class UserState:
    """What depends on users and their events alone."""

    tokens_RSD: Tensor
    """The user's tokens"""
    event_time_ms: Tensor = field(metadata=PER_EVENT)
    """int64 [1 + E]"""
    columns_Ex: Tensor | None = field(metadata=PER_EVENT)
    """[1 + E, c * d], of which means are taken; None where events have no column"""
    events_ED: Tensor = field(metadata=PER_EVENT)
    """[1 + E, D]"""
    global_keys_values: Tensor | None = field(default=None, metadata=PER_EVENT)
    """[1 + E, 2 D], in a kept state"""


@dataclass(frozen=True, kw_only=True)
class RequestState:
    """What depends on requests, not on candidates."""

    tokens_QSD: Tensor
    """Tokens of user, context and pooled histories"""
    realtime: HistoryState
    global_: HistoryState


class _SmallLinear(GroupedLinear):
    """A GroupedLinear that begins near zero."""

    def init_own_weights(self, init: WeightInit) -> None:
        """Draw each group's matrix by its own fan, scaled down."""
        init.normal(self.weight, _SMALL_START * fan_std(self.weight.shape[1]))
        if self.bias is not None:
            self.bias.zero_()


class PertokenSwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` with weights of its own for every token."""

    def __init__(self, tokens: int, width: int, expansion: int, dropout: float = 0.0) -> None:
        """Make the three maps.

        Args:
            tokens: S.
            width: Width of a token.
            expansion: Inner width over ``width``, less a third (:func:`~hemix.nn.mixer.ffn_width`).
            dropout: Of the inner layer.
        """
        super().__init__()
        inner = ffn_width(width, expansion, "swiglu")
        self.gate_up = GroupedLinear(tokens, width, 2 * inner)
        self.down = _SmallLinear(tokens, inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]"""
        gate, up = self.gate_up(x_SND).chunk(2, 2)
        out: Tensor = self.down(self.dropout(F.silu(gate) * up))
        return out


def mix(x_SND: Tensor, heads: int) -> Tensor:
    """Return the mix-tokens [M, N, S * D / M]: mix-token m has head m of every token.

    Args:
        x_SND: The tokens.
        heads: M.
    """
    S, N, D = x_SND.shape
    by_head = x_SND.reshape(S, N, heads, D // heads).permute(2, 1, 0, 3)
    return by_head.reshape(heads, N, S * D // heads)


def revert(h_MNx: Tensor, tokens: int) -> Tensor:
    """Return the tokens [S, N, D] of mix-tokens: the inverse of :func:`mix`.

    Args:
        h_MNx: The mix-tokens.
        tokens: S.
    """
    M, N, x = h_MNx.shape
    by_token = h_MNx.reshape(M, N, tokens, x // tokens).permute(2, 1, 0, 3)
    return by_token.reshape(tokens, N, M * x // tokens)


class TokenMixerBlock(nn.Module):
    """Mixing and reverting, each with a network per token."""

    def __init__(self, config: TokenMixerConfig, tokens: int) -> None:
        super().__init__()
        self.heads = config.mix_heads
        mixed = tokens * config.token_width // self.heads
        self.norm_mixed = make_norm("rms", mixed)
        self.ffn_mixed = PertokenSwiGLU(self.heads, mixed, config.ffn_expansion, config.dropout)
        self.norm = make_norm("rms", config.token_width)
        self.ffn = PertokenSwiGLU(tokens, config.token_width, config.ffn_expansion, config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]"""
        h_MNx = mix(x_SND, self.heads)
        h_MNx = h_MNx + self.dropout(self.ffn_mixed(self.norm_mixed(h_MNx)))
        reverted_SND = revert(h_MNx, x_SND.shape[0])
        out: Tensor = x_SND + self.dropout(self.ffn(self.norm(reverted_SND)))
        return out


@register_model("tokenmixer")
class TokenMixer(Ranker):
    """Tokens by meaning and a global one, blocks of mixing and reverting, their mean."""

    Config = TokenMixerConfig
    config: TokenMixerConfig

    def __init__(self, spec: InputSpec, config: TokenMixerConfig) -> None:
        super().__init__(spec, config)
        D, d = config.token_width, config.embedding_size
        widths, self.columns = level_widths(spec, d), event_columns_count(spec)
        groups = {
            **widths,
            "global": self.columns * d,
            "realtime": self.columns * d,
            "interests": 2 * D,
        }
        self.groups = LevelTokens(groups, per_level=config.level_tokens, width=D, hidden=True)
        others = self.groups.count(*groups)
        self.tokens = 1 + others
        self.global_token = nn.Sequential(nn.Linear(others * D, D), nn.GELU(), nn.Linear(D, D))
        self.events = EventEncoder(spec, d, D)
        self.target = BlockLinear({name: widths[name] for name in ("item", "cross")}, D)
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
        self.blocks = nn.ModuleList(
            TokenMixerBlock(config, self.tokens) for _ in range(config.layers)
        )
        self.norm_out = make_norm("rms", D)
        self.heads = Heads(spec, D, config.tower_hidden, config.dropout)
        between = (config.layers - 1) // config.residual_interval
        self.auxiliary = nn.ModuleList(
            Heads(spec, D, config.tower_hidden, config.dropout) for _ in range(between)
        )

    def encode_user(self, inputs: Inputs) -> UserState:
        """The user's tokens and event vectors."""
        columns_Ex = (
            event_columns(inputs, self.spec, self.config.embedding_size) if self.columns else None
        )
        return UserState(
            tokens_RSD=self.groups("user", inputs.user_RW),
            event_time_ms=event_times(inputs.batch),
            columns_Ex=columns_Ex,
            events_ED=self.events(inputs),
        )

    def keep_user(self, state: UserState) -> UserState:
        """Return the state with the keys and values of the global history."""
        keys_values = self.global_.keys_values(state.events_ED, state.event_time_ms)
        return replace(state, global_keys_values=keys_values)

    def encode_request(self, state: UserState, inputs: Inputs) -> RequestState:
        """Return the request's tokens, and the histories laid out for attention.

        Args:
            state: The user state.
            inputs: Inputs with the stage ``request``.
        """
        layout, events_ED, time_ms = inputs.layout, state.events_ED, state.event_time_ms
        tokens = [
            state.tokens_RSD.index_select(0, inputs.batch.user_index),
            self.groups("context", inputs.context_QW),
        ]
        if state.columns_Ex is not None:
            of_global, of_realtime = layout.means(state.columns_Ex)
            tokens += [self.groups("global", of_global), self.groups("realtime", of_realtime)]
        users = state.tokens_RSD.shape[0]
        return RequestState(
            tokens_QSD=torch.cat(tokens, 1),
            realtime=layout.realtime_state(self.realtime, events_ED, time_ms, users),
            global_=layout.global_state(self.global_, events_ED, state.global_keys_values, time_ms),
        )

    def score(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Return logits [N, T].

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        return self._logits(self._blocks(self.tokenize(state, inputs))[-1], inputs.batch)

    def training_logits(self, batch: RequestBatch) -> tuple[Tensor, ...]:
        """Return logits [N, T], then those of the auxiliary predictions."""
        inputs = self.embed(batch)
        state = self.encode_request(self.encode_user(inputs), inputs)
        *between, top = self._blocks(self.tokenize(state, inputs))
        auxiliary = [
            heads(x_SND.mean(0), batch.bias)
            for heads, x_SND in zip(self.auxiliary, between, strict=True)
        ]
        return self._logits(top, batch), *auxiliary

    def tokenize(self, state: RequestState, inputs: Inputs) -> Tensor:
        """Return the tokens [S, N, D], the global one first.

        Args:
            state: The request state.
            inputs: Inputs with the stage ``candidate``.
        """
        assert inputs.item_IW is not None and inputs.cross_NW is not None, (
            "score needs the stage candidate"
        )
        batch, index = inputs.batch, inputs.layout.candidates
        item_NW = inputs.item_IW.index_select(0, batch.item_index)
        query_ND = self.target.bias.expand(item_NW.shape[0], -1)
        for name, columns in {"item": item_NW, "cross": inputs.cross_NW}.items():
            projected = self.target.project_part(name, columns)
            query_ND = query_ND if projected is None else query_ND + projected
        query = DynamicQueries(query_ND.unsqueeze(1))
        interests_Nx = torch.cat(
            [
                self.global_.dynamic(state.global_, query, index).flatten(1),
                self.realtime.dynamic(state.realtime, query, index).flatten(1),
            ],
            1,
        )
        others_NSD = torch.cat(
            [
                state.tokens_QSD.index_select(0, batch.request_index),
                self.groups("item", item_NW),
                self.groups("cross", inputs.cross_NW),
                self.groups("interests", interests_Nx),
            ],
            1,
        )
        global_N1D = self.global_token(others_NSD.flatten(1)).unsqueeze(1)
        return torch.cat([global_N1D.to(others_NSD.dtype), others_NSD], 1).transpose(0, 1)

    def _blocks(self, x_SND: Tensor) -> list[Tensor]:
        """The tokens [S, N, D] at every inter-residual below the top, then at the top."""
        interval, reached = self.config.residual_interval, [x_SND]
        for done, block in enumerate(self.blocks, 1):
            x_SND = block(x_SND)
            if done % interval == 0:
                x_SND = x_SND + reached[-1]
                reached.append(x_SND)
        return [*reached[1 : 1 + len(self.auxiliary)], x_SND]

    def _logits(self, x_SND: Tensor, batch: RequestBatch) -> Tensor:
        logits_NT: Tensor = self.heads(self.norm_out(x_SND).mean(0), batch.bias)
        return logits_NT
