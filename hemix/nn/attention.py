"""Attention of few queries over long histories, tile by tile.

Scores are never held for a whole batch. A tile of users (or of one user's queries) is scored,
weighted and dropped while it is in the cache; the backward pass computes it again.

What a request sees of a key, its age or nothing, is a byte per request and key. The byte points
into a small table of summands per head, so the table's gradient is a sum per bucket. PyTorch's
fused kernels keep no gradient of such a summand on a CPU, so they are used only without gradients;
FlexAttention has no backward pass on a CPU.

Letters: B users, C requests a user, J queries a request, H heads, L keys a user. D is the width of
a key, d = D / H; A is the number of columns of the table. h is H, or 1 where all heads
share: the table, or the whole event vector as a key (absorbed).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["absorbs", "attend", "attention_weights"]

_TILE = {"cpu": 2**19}
_TILE_ELSEWHERE = 2**27
"""Scores in a tile, about; the CPU's is 2 MiB."""


def absorbs(queries: int, heads: int, width: int) -> bool:
    """Return whether absorbed attention takes fewer FLOPs.

    The projections of keys and values move to the queries, which attend to the event vectors
    themselves. Per key, with D = width, projecting costs 4 D^2 and attending 4 D for each of the
    user's ``queries``. Absorbed, attending costs 4 D for each query and head, and projecting costs
    nothing. So absorbed wins below D / (heads - 1) queries.

    Args:
        queries: Queries of one user.
        heads: Heads of the attention.
        width: Width of an event vector.
    """
    return queries * (heads - 1) < width


def attend(
    q_BHCJx: Tensor, keys_values_BLx: Tensor, table_hA: Tensor, bucket_BCL: Tensor
) -> Tensor:
    """Return softmax over L of ``q . key + table[head, bucket]``, times values: [B, H, C, J, x].

    Args:
        q_BHCJx: Queries; x = D / H, or x = D if absorbed.
        keys_values_BLx: Keys and values in one row, [B, L, 2 D]; or absorbed, event vectors [B, L,
            D] that are both.
        table_hA: Summands of the scores, with H rows or one for all heads. A row of -inf hides a
            key.
        bucket_BCL: uint8, the column of the table for every request and key.
    """
    if torch.compiler.is_exporting():  # the fused kernel asks for lengths that a graph leaves open
        _, values_BhLx = _keys_and_values(q_BHCJx, keys_values_BLx)
        weights_BHCJL = attention_weights(q_BHCJx, keys_values_BLx, table_hA, bucket_BCL)
        read_BHnx = torch.matmul(weights_BHCJL.flatten(2, 3), values_BhLx)
        return read_BHnx.view(q_BHCJx.shape)
    if bucket_BCL.shape[1] == 1 and not torch.is_grad_enabled():
        B, H, _, J, _ = q_BHCJx.shape
        keys_BhLx, values_BhLx = _keys_and_values(q_BHCJx, keys_values_BLx)
        summand_BHJL = _summand(table_hA, bucket_BCL)[:, :, 0].expand(B, H, J, -1)
        keys_BHLx, values_BHLx = keys_BhLx.expand(B, H, -1, -1), values_BhLx.expand(B, H, -1, -1)
        read_BHJx = F.scaled_dot_product_attention(
            q_BHCJx.squeeze(2), keys_BHLx, values_BHLx, attn_mask=summand_BHJL, scale=1.0
        )
        return read_BHJx.unsqueeze(2)
    read_BHCJx: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
        q_BHCJx, keys_values_BLx, table_hA, bucket_BCL
    )
    return read_BHCJx


def attention_weights(
    q_BHCJx: Tensor, keys_values_BLx: Tensor, table_hA: Tensor, bucket_BCL: Tensor
) -> Tensor:
    """Return the weights of :func:`attend`, [B, H, C, J, L], held whole: use it for few queries.

    Args:
        q_BHCJx: As for :func:`attend`.
        keys_values_BLx: As for :func:`attend`.
        table_hA: As for :func:`attend`.
        bucket_BCL: As for :func:`attend`.
    """
    keys_BhLx, _ = _keys_and_values(q_BHCJx, keys_values_BLx)
    scores = torch.matmul(q_BHCJx.flatten(2, 3), keys_BhLx.transpose(2, 3)).view(
        *q_BHCJx.shape[:4], -1
    )
    return torch.softmax(scores + _summand(table_hA, bucket_BCL), -1)


def _keys_and_values(q_BHCJx: Tensor, keys_values_BLx: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [B, h, L, x], as views."""
    width = q_BHCJx.shape[4]
    if width == keys_values_BLx.shape[2]:
        return keys_values_BLx.unsqueeze(1), keys_values_BLx.unsqueeze(1)
    both_BL2Hd = keys_values_BLx.view(*keys_values_BLx.shape[:2], 2, -1, width)
    return both_BL2Hd[:, :, 0].transpose(1, 2), both_BL2Hd[:, :, 1].transpose(1, 2)


def _summand(table_hA: Tensor, bucket_BCL: Tensor) -> Tensor:
    """[B, h, C, 1, L]"""
    B, C, L = bucket_BCL.shape
    return table_hA.index_select(1, bucket_BCL.flatten().int()).view(-1, B, C, 1, L).transpose(0, 1)


def _tiles(shape: tuple[int, ...], L: int, device: str) -> Iterator[tuple[slice, slice]]:
    """(users, queries) of every tile."""
    B, H, C, J, _ = shape
    tile = _TILE.get(device, _TILE_ELSEWHERE)
    users = max(1, tile // max(1, H * C * J * L))
    queries = J if 4 * tile >= H * C * J * L else max(1, tile // (H * C * L))
    for b in range(0, B, users):
        for j in range(0, J, queries):
            yield slice(b, b + users), slice(j, j + queries)


def _weights(q_bnx: Tensor, keys_bLx: Tensor, summand: Tensor, rows: tuple[int, ...]) -> Tensor:
    """Softmax weights [b, H, C, j, L] of a tile, for ``rows`` = (b, H, C, j)."""
    scores = torch.bmm(q_bnx, keys_bLx.transpose(1, 2)).view(*rows, -1)
    return torch.softmax(scores.add_(summand), -1)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, keys_values: Tensor, table: Tensor, bucket: Tensor) -> Tensor:
        H, L, x = q.shape[1], keys_values.shape[1], q.shape[4]
        keys, values = _keys_and_values(q, keys_values)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        for users, queries in _tiles(q.shape, L, q.device.type):
            q_t = q[users, :, :, queries]
            q_bnx = q_t.reshape(q_t.shape[0] * keys.shape[1], -1, x)
            keys_bLx, values_bLx = (t[users].flatten(0, 1) for t in (keys, values))
            weights = _weights(
                q_bnx, keys_bLx, _summand(table, bucket[users]), (q_t.shape[0], H, *q_t.shape[2:4])
            )
            out[users, :, :, queries] = torch.bmm(
                weights.view(*q_bnx.shape[:2], L), values_bLx
            ).view(q_t.shape)
        ctx.save_for_backward(q, keys_values, table, bucket, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, keys_values, table, bucket, out = ctx.saved_tensors
        (d_out,) = gradients
        L, x = keys_values.shape[1], q.shape[4]
        keys, values = _keys_and_values(q, keys_values)
        absorbed = x == keys_values.shape[2]
        towards = (out * d_out).sum(-1, keepdim=True)
        d_q, d_keys_values = torch.empty_like(q), torch.empty_like(keys_values)
        d_keys, d_values = _keys_and_values(q, d_keys_values)
        d_table = torch.zeros_like(table) if ctx.needs_input_grad[2] else None
        for users, queries in _tiles(q.shape, L, q.device.type):
            q_t, d_out_t = q[users, :, :, queries], d_out[users, :, :, queries]
            flat = (q_t.shape[0] * keys.shape[1], -1, x)
            q_bnx, d_out_bnx = q_t.reshape(flat), d_out_t.reshape(flat)
            keys_bLx, values_bLx = (t[users].flatten(0, 1) for t in (keys, values))
            weights = _weights(q_bnx, keys_bLx, _summand(table, bucket[users]), q_t.shape[:4])
            d_scores = torch.bmm(d_out_bnx, values_bLx.transpose(1, 2)).view(weights.shape)
            d_scores.sub_(towards[users, :, :, queries]).mul_(weights)
            weights_bnL, d_scores_bnL = (t.view(*q_bnx.shape[:2], L) for t in (weights, d_scores))
            d_q[users, :, :, queries] = torch.bmm(d_scores_bnL, keys_bLx).view(q_t.shape)
            of_values = torch.bmm(weights_bnL.transpose(1, 2), d_out_bnx)
            if absorbed:
                pairs = [(d_keys, of_values.baddbmm_(d_scores_bnL.transpose(1, 2), q_bnx))]
            else:
                pairs = [
                    (d_keys, torch.bmm(d_scores_bnL.transpose(1, 2), q_bnx)),
                    (d_values, of_values),
                ]
            for target, gradient in pairs:
                rows = target[users]
                if queries.start == 0:
                    rows.copy_(gradient.view(rows.shape))
                else:
                    rows.add_(gradient.view(rows.shape))
            if d_table is not None:
                by_key_hn = d_scores.sum(3).transpose(0, 1).flatten(1)
                d_table.scatter_add_(
                    1, bucket[users].flatten().long().expand(by_key_hn.shape), by_key_hn
                )
        return d_q, d_keys_values, d_table, None
