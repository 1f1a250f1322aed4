"""Attention of few queries over long histories, tile by tile.

Scores are never held for a whole batch. A tile of users (or of one user's queries) is scored,
weighted and dropped while it is in the cache; the backward pass computes it again.

What a request sees of a key, its age or nothing, is a byte per request and key. The byte points
into a small table of summands per head, so the table's gradient is a sum per bucket. PyTorch's
fused kernels keep no gradient of such a summand on a CPU, so they are used only without gradients;
FlexAttention has no backward pass on a CPU.

Letters: B users, C requests a user, J queries a request, H heads, L keys a user. x is the width of
a key, y of a value; A is the number of columns of the table. h and k are H, or 1 where all heads
share: the table, or whole event vectors as keys or values (absorbed).
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
    q_BHCJx: Tensor,
    keys_BLhx: Tensor,
    values_BLky: Tensor | None,
    table_hA: Tensor,
    bucket_BCL: Tensor,
) -> Tensor:
    """Return softmax over L of ``q . key + table[head, bucket]``, times values: [B, H, C, J, y].

    Args:
        q_BHCJx: Queries.
        keys_BLhx: Keys of every head; h = 1 where all heads share them.
        values_BLky: Values of every head; k = 1 where all heads share them. None: the keys.
        table_hA: Summands of the scores, with H rows or one for all heads. A row of -inf hides a
            key.
        bucket_BCL: uint8, the column of the table for every request and key.
    """
    if torch.compiler.is_exporting():  # the fused kernel asks for lengths that a graph leaves open
        weights_BHCJL = attention_weights(q_BHCJx, keys_BLhx, table_hA, bucket_BCL)
        values_BkLy = (keys_BLhx if values_BLky is None else values_BLky).transpose(1, 2)
        read_BHny = torch.matmul(weights_BHCJL.flatten(2, 3), values_BkLy)
        return read_BHny.view(*q_BHCJx.shape[:4], -1)
    if bucket_BCL.shape[1] == 1 and not torch.is_grad_enabled():
        B, H, _, J, _ = q_BHCJx.shape
        summand_BHJL = _summand(table_hA, bucket_BCL)[:, :, 0].expand(B, H, J, -1)
        keys_BHLx, values_BHLy = (
            x_BLhx.transpose(1, 2).expand(-1, H, -1, -1)
            for x_BLhx in (keys_BLhx, keys_BLhx if values_BLky is None else values_BLky)
        )
        read_BHJy = F.scaled_dot_product_attention(
            q_BHCJx.squeeze(2), keys_BHLx, values_BHLy, attn_mask=summand_BHJL, scale=1.0
        )
        return read_BHJy.unsqueeze(2)
    read_BHCJy: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
        q_BHCJx, keys_BLhx, values_BLky, table_hA, bucket_BCL
    )
    return read_BHCJy


def attention_weights(
    q_BHCJx: Tensor, keys_BLhx: Tensor, table_hA: Tensor, bucket_BCL: Tensor
) -> Tensor:
    """Return the weights of :func:`attend`, [B, H, C, J, L], held whole: use it for few queries.

    Args:
        q_BHCJx: As for :func:`attend`.
        keys_BLhx: As for :func:`attend`.
        table_hA: As for :func:`attend`.
        bucket_BCL: As for :func:`attend`.
    """
    keys_BhxL = keys_BLhx.permute(0, 2, 3, 1)
    L = keys_BLhx.shape[1]
    scores = torch.matmul(q_BHCJx.flatten(2, 3), keys_BhxL).view(*q_BHCJx.shape[:4], L)
    return torch.softmax(scores + _summand(table_hA, bucket_BCL), -1)


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


def _by_head(x_BLhx: Tensor) -> Tensor:
    """[B * h, L, x]"""
    return x_BLhx.transpose(1, 2).flatten(0, 1)


def _add_tile(target_bLhx: Tensor, gradient_bhLx: Tensor, *, is_first: bool) -> None:
    """Put the gradient of a tile's users in its place, or add it to that of tiles before."""
    gradient_bLhx = gradient_bhLx.view(
        target_bLhx.shape[0], -1, *gradient_bhLx.shape[1:]
    ).transpose(1, 2)
    if is_first:
        target_bLhx.copy_(gradient_bLhx)
    else:
        target_bLhx.add_(gradient_bLhx)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, keys: Tensor, values: Tensor | None, table: Tensor, bucket: Tensor
    ) -> Tensor:
        H, L = q.shape[1], keys.shape[1]
        out = q.new_empty(*q.shape[:4], (keys if values is None else values).shape[3])
        for users, queries in _tiles(q.shape, L, q.device.type):
            q_t = q[users, :, :, queries]
            keys_bLx = _by_head(keys[users])
            values_bLy = keys_bLx if values is None else _by_head(values[users])
            weights = _weights(
                q_t.reshape(keys_bLx.shape[0], -1, q.shape[4]),
                keys_bLx,
                _summand(table, bucket[users]),
                (q_t.shape[0], H, *q_t.shape[2:4]),
            )
            read_bny = torch.bmm(weights.view(values_bLy.shape[0], -1, L), values_bLy)
            out[users, :, :, queries] = read_bny.view(*q_t.shape[:4], -1)
        ctx.save_for_backward(q, keys, values, table, bucket, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, keys, values, table, bucket, out = ctx.saved_tensors
        (d_out,) = gradients
        L = keys.shape[1]
        towards = (out * d_out).sum(-1, keepdim=True)
        d_q, d_keys = torch.empty_like(q), torch.empty_like(keys)
        d_values = None if values is None else torch.empty_like(values)
        d_table = torch.zeros_like(table) if ctx.needs_input_grad[3] else None
        for users, queries in _tiles(q.shape, L, q.device.type):
            q_t, d_out_t = q[users, :, :, queries], d_out[users, :, :, queries]
            keys_bLx = _by_head(keys[users])
            values_bLy = keys_bLx if values is None else _by_head(values[users])
            q_bnx = q_t.reshape(keys_bLx.shape[0], -1, q.shape[4])
            d_out_bny = d_out_t.reshape(values_bLy.shape[0], -1, out.shape[4])
            weights = _weights(q_bnx, keys_bLx, _summand(table, bucket[users]), q_t.shape[:4])
            d_scores = torch.bmm(d_out_bny, values_bLy.transpose(1, 2)).view(weights.shape)
            d_scores.sub_(towards[users, :, :, queries]).mul_(weights)
            d_scores_bnL = d_scores.view(*q_bnx.shape[:2], L)
            d_q[users, :, :, queries] = torch.bmm(d_scores_bnL, keys_bLx).view(q_t.shape)
            of_keys = torch.bmm(d_scores_bnL.transpose(1, 2), q_bnx)
            weights_bLn = weights.view(*d_out_bny.shape[:2], L).transpose(1, 2)
            is_first = queries.start == 0
            if d_values is None:
                of_keys.baddbmm_(weights_bLn, d_out_bny)
            else:
                of_values = torch.bmm(weights_bLn, d_out_bny)
                _add_tile(d_values[users], of_values, is_first=is_first)
            _add_tile(d_keys[users], of_keys, is_first=is_first)
            if d_table is not None:
                by_key_hn = d_scores.sum(3).transpose(0, 1).flatten(1)
                d_table.scatter_add_(
                    1, bucket[users].flatten().long().expand(by_key_hn.shape), by_key_hn
                )
        return d_q, d_keys, d_values, d_table, None
