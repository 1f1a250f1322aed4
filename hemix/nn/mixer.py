"""The HeteroMixer block: fuse heads of all tokens, interact at low rank, give each piece back to its token, then a network per token.
Other interactions (`hemix.nn.mixing`) fit into the same block.

Tokens are held token first, x_SND, because every product here is one batched product over tokens or over mix-tokens.

Letters: S tokens, N candidates, D token width, M mix heads (mix-tokens), Dh = D / M, r mix rank.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.config import ModelSettings
from hemix.nn.layers import GroupedLinear, activation, make_norm
from hemix.nn.mixing import SelfAttention, TokenMixing

__all__ = ["Block", "HeteroFFN", "HeteroInteraction", "ffn_width", "make_block", "token_groups"]


def token_groups(settings: ModelSettings) -> tuple[int, int, int]:
    """How many tokens are real-time interests, global interests, NS tokens; in this order."""
    return (
        sum(settings.queries("realtime")),
        sum(settings.queries("global")),
        settings.ns_tokens,
    )


def ffn_width(settings: ModelSettings) -> int:
    """Inner width of a token's network; SwiGLU, which has three matrices, takes two thirds (in multiples of 8)."""
    inner = settings.ffn_expansion * settings.token_width
    return inner if settings.ffn_activation == "gelu" else max(8, round(inner * 2 / 3 / 8) * 8)


class HeteroInteraction(nn.Module):
    """Multi-head token fusion, low-rank interaction with weights of its own per mix-token, group-aligned reconstruction."""

    def __init__(self, tokens: int, settings: ModelSettings) -> None:
        super().__init__()
        width = tokens * settings.token_width // settings.mix_heads
        self.heads = settings.mix_heads
        self.activation = settings.mix_activation
        self.down = GroupedLinear(settings.mix_heads, width, settings.mix_rank, bias=False)
        self.up = GroupedLinear(settings.mix_heads, settings.mix_rank, width, bias=False)

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]; piece s of mix-token m goes to head m of token s."""
        S, N, D = x_SND.shape
        fused_MNf = (
            x_SND.reshape(S, N, self.heads, D // self.heads).permute(2, 1, 0, 3).reshape(self.heads, N, S * D // self.heads)
        )
        mixed_MNf = self.up(activation(self.activation, self.down(fused_MNf)))
        pieces_MSNd = [mixed_Nf.view(N, S, D // self.heads).transpose(0, 1) for mixed_Nf in mixed_MNf.unbind()]
        return torch.stack(pieces_MSNd, 2).view(S, N, D)


class HeteroFFN(nn.Module):
    """A feed-forward network with weights of its own per group of ``sizes`` tokens."""

    def __init__(self, settings: ModelSettings, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = tuple(size for size in sizes if size)
        inner = ffn_width(settings)
        self.gated = settings.ffn_activation == "swiglu"
        self.first = GroupedLinear(len(self.sizes), settings.token_width, inner * (2 if self.gated else 1))
        self.second = GroupedLinear(len(self.sizes), inner, settings.token_width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]"""
        S, N, D = x_SND.shape
        if len(set(self.sizes)) == 1:
            inner = self._activate(self.first(x_SND.reshape(len(self.sizes), S // len(self.sizes) * N, D)))
            out: Tensor = self.second(inner)
            return out.view(S, N, D)
        assert self.first.bias is not None and self.second.bias is not None
        pieces = []
        for group, x_GND in enumerate(torch.split(x_SND, list(self.sizes))):
            inner = self._activate(torch.addmm(self.first.bias[group], x_GND.flatten(0, 1), self.first.weight[group]))
            pieces.append(torch.addmm(self.second.bias[group], inner, self.second.weight[group]).view(x_GND.shape))
        return torch.cat(pieces)

    def _activate(self, inner: Tensor) -> Tensor:
        if self.gated:
            gate, value = inner.chunk(2, -1)
            inner = F.silu(gate) * value
        else:
            inner = F.gelu(inner)
        dropped: Tensor = self.dropout(inner)
        return dropped


class Block(nn.Module):
    """Interaction, then a network per token, each with a residual and a norm (after the sum, or before the branch)."""

    def __init__(self, interaction: nn.Module, ffn: nn.Module, settings: ModelSettings) -> None:
        super().__init__()
        self.post = settings.norm_position == "post"
        self.interaction = interaction
        self.norm_interaction = make_norm(settings.norm, settings.token_width)
        self.ffn = ffn
        self.norm_ffn = make_norm(settings.norm, settings.token_width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]"""
        if self.post:
            x_SND = self.norm_interaction(x_SND + self.dropout(self.interaction(x_SND)))
            out: Tensor = self.norm_ffn(x_SND + self.dropout(self.ffn(x_SND)))
            return out
        x_SND = x_SND + self.dropout(self.interaction(self.norm_interaction(x_SND)))
        fed: Tensor = x_SND + self.dropout(self.ffn(self.norm_ffn(x_SND)))
        return fed


def make_block(settings: ModelSettings) -> Block:
    """A block of HeMix's tokens: the interaction that ``block`` names, and the networks that ``ffn`` names."""
    groups = {"per_token": (1,) * settings.tokens, "per_group": token_groups(settings), "shared": (settings.tokens,)}
    interactions: dict[str, Callable[[], nn.Module]] = {
        "heteromixer": lambda: HeteroInteraction(settings.tokens, settings),
        "rankmixer": TokenMixing,
        "transformer": lambda: SelfAttention(settings.token_width, settings.attention_heads),
    }
    return Block(interactions[settings.block](), HeteroFFN(settings, groups[settings.ffn]), settings)
