"""The HeteroMixer block of HeMix.

    G_m  = [head m of token 1 ; ... ; head m of token S]      multi-head token fusion, m = 1 .. M
    G_m' = act(G_m W_L[m]) W_R[m]                             interaction of low rank r
    X    = norm(X + [pieces of G_1' .. G_M' back at their tokens])   group-aligned reconstruction
    X    = norm(X + FFN_s(X_s))                               a network per token s

Other interactions (`hemix.nn.mixing`) fit into the same block. Tokens are held token first, x_SND,
because every product here is one batched product over tokens or over mix-tokens.

Letters: S tokens, N candidates, D token width, M mix heads (mix-tokens), Dh = D / M, r mix rank.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hemix.nn.layers import ActivationKind, GroupedLinear, NormKind, activation, make_norm

__all__ = [
    "FFNActivation",
    "HeteroFFN",
    "HeteroInteraction",
    "MixerBlock",
    "NormPosition",
    "ffn_width",
]


FFNActivation = Literal["gelu", "swiglu"]
NormPosition = Literal["post", "pre"]


def ffn_width(width: int, expansion: int, activation: FFNActivation) -> int:
    """Return the inner width of a token's network.

    SwiGLU, which has three matrices, takes two thirds (in multiples of 8).

    Args:
        width: D, the width of a token.
        expansion: Inner width over D.
        activation: ``gelu`` or ``swiglu``.
    """
    inner = expansion * width
    return inner if activation == "gelu" else max(8, round(inner * 2 / 3 / 8) * 8)


class HeteroInteraction(nn.Module):
    """Multi-head token fusion, low-rank interaction with weights of its own per mix-token,
    group-aligned reconstruction."""

    def __init__(
        self, *, tokens: int, width: int, heads: int, rank: int, activation: ActivationKind = "relu"
    ) -> None:
        """Make W_L and W_R.

        Args:
            tokens: S.
            width: D, the width of a token.
            heads: M, which divides D.
            rank: r, the inner width of the low-rank interaction.
            activation: Between the two.
        """
        super().__init__()
        fused = tokens * width // heads
        self.heads = heads
        self.activation: ActivationKind = activation
        self.down = GroupedLinear(heads, fused, rank, bias=False)
        self.up = GroupedLinear(heads, rank, fused, bias=False)

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]; piece s of mix-token m goes to head m of token s."""
        S, N, D = x_SND.shape
        fused_MNf = (
            x_SND.reshape(S, N, self.heads, D // self.heads)
            .permute(2, 1, 0, 3)
            .reshape(self.heads, N, S * D // self.heads)
        )
        mixed_MNf = self.up(activation(self.activation, self.down(fused_MNf)))
        split_MSNd = [
            mixed_Nf.view(N, S, D // self.heads).transpose(0, 1) for mixed_Nf in mixed_MNf.unbind()
        ]
        return torch.stack(split_MSNd, 2).view(S, N, D)


class HeteroFFN(nn.Module):
    """A feed-forward network with weights of its own per group of tokens."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        *,
        width: int,
        expansion: int = 4,
        activation: FFNActivation = "gelu",
        dropout: float = 0.0,
    ) -> None:
        """Make the networks.

        Args:
            sizes: How many tokens each group has, in the order of the tokens.
            width: D, the width of a token.
            expansion: Inner width over D.
            activation: ``gelu`` or ``swiglu``.
            dropout: Of the inner layer.
        """
        super().__init__()
        self.sizes = tuple(size for size in sizes if size)
        inner = ffn_width(width, expansion, activation)
        self.gated = activation == "swiglu"
        self.first = GroupedLinear(len(self.sizes), width, inner * (2 if self.gated else 1))
        self.second = GroupedLinear(len(self.sizes), inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]"""
        S, N, D = x_SND.shape
        if len(set(self.sizes)) == 1:
            inner = self._activate(
                self.first(x_SND.reshape(len(self.sizes), S // len(self.sizes) * N, D))
            )
            out: Tensor = self.second(inner)
            return out.view(S, N, D)
        assert self.first.bias is not None and self.second.bias is not None
        outputs = []
        for group, x_GND in enumerate(torch.split(x_SND, list(self.sizes))):
            inner = self._activate(
                torch.addmm(self.first.bias[group], x_GND.flatten(0, 1), self.first.weight[group])
            )
            outputs.append(
                torch.addmm(self.second.bias[group], inner, self.second.weight[group]).view(
                    x_GND.shape
                )
            )
        return torch.cat(outputs)

    def _activate(self, inner: Tensor) -> Tensor:
        if self.gated:
            gate, value = inner.chunk(2, -1)
            inner = F.silu(gate) * value
        else:
            inner = F.gelu(inner)
        dropped: Tensor = self.dropout(inner)
        return dropped


class MixerBlock(nn.Module):
    """Interaction, then a network per token, each with a residual and a norm (after the sum, or
    before the branch)."""

    def __init__(
        self,
        interaction: nn.Module,
        ffn: nn.Module,
        *,
        width: int,
        norm: NormKind = "layer",
        norm_position: NormPosition = "post",
        dropout: float = 0.0,
    ) -> None:
        """Put the two together.

        Args:
            interaction: How tokens interact, [S, N, D] -> [S, N, D].
            ffn: The networks of the tokens, [S, N, D] -> [S, N, D].
            width: D, the width of a token.
            norm: ``layer`` or ``rms``.
            norm_position: ``post``, after the sum, or ``pre``, before the branch.
            dropout: Of either branch.
        """
        super().__init__()
        self.post = norm_position == "post"
        self.interaction = interaction
        self.norm_interaction = make_norm(norm, width)
        self.ffn = ffn
        self.norm_ffn = make_norm(norm, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_SND: Tensor) -> Tensor:
        """[S, N, D] -> [S, N, D]"""
        if self.post:
            x_SND = self.norm_interaction(x_SND + self.dropout(self.interaction(x_SND)))
            out: Tensor = self.norm_ffn(x_SND + self.dropout(self.ffn(x_SND)))
            return out
        x_SND = x_SND + self.dropout(self.interaction(self.norm_interaction(x_SND)))
        fed: Tensor = x_SND + self.dropout(self.ffn(self.norm_ffn(x_SND)))
        return fed
