"""Attention of few queries over long histories, tile by tile.

Scores are never held for a whole batch: a tile of users (or of one user's queries) is scored, weighted and dropped while it lies in the
cache, and the backward pass makes it again. What a request sees of a key, its age or nothing, is a byte per request and key that points
into a small table of summands per head, so that the table's gradient is a sum per bucket. PyTorch's fused kernels keep no gradient of
such a summand. Knows nothing of events, requests or candidates beyond their numbers.

Letters: B users, C requests a user, J queries a request, H heads, L keys a user, d query width, A rows of the table; G heads of keys:
H, or 1 where all heads read the same keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["absorbs", "attend"]

_TILE = {"cpu": 2**19, "cuda": 2**27}
"""Scores in a tile, about; twice the CPU's is 4 MiB."""


def absorbs(queries: int, heads: int, width: int) -> bool:
    """Whether attending to event vectors themselves, with the projections of keys and values moved to the queries, is fewer FLOPs.

    Per key, with D = width: projecting costs 4 D^2 and attending 4 D for each of the user's ``queries``; absorbed, attending costs
    4 D for each query and head, and projecting nothing. So absorbed wins below D / (heads - 1) queries.
    """
    return queries * (heads - 1) < width


def attend(q_BHCJd: Tensor, keys_BGLd: Tensor, values_BGLd: Tensor | None, table_hA: Tensor, bucket_BCL: Tensor) -> Tensor:
    """[B, H, C, J, width of values]: softmax over L of ``q . key + table[head, bucket]``, times values (None: the keys again).

    ``bucket_BCL`` is uint8; a row of -inf in the table hides a key. ``table_hA`` has H rows, or one for all heads.
    """
    return _Attend.apply(q_BHCJd, keys_BGLd, values_BGLd, table_hA, bucket_BCL)  # type: ignore[no-any-return,no-untyped-call]


def _tiles(shape: tuple[int, ...], L: int, device: str) -> Iterator[tuple[slice, slice]]:
    """(users, queries) of every tile."""
    B, H, C, J, _ = shape
    tile = _TILE.get(device, _TILE["cuda"])
    users = max(1, tile // max(1, H * C * J * L))
    queries = J if H * C * J * L <= 4 * tile else max(1, tile // (H * C * L))
    for b in range(0, B, users):
        for j in range(0, J, queries):
            yield slice(b, b + users), slice(j, j + queries)


def _weights(q: Tensor, keys: Tensor, table: Tensor, bucket: Tensor) -> Tensor:
    """Softmax weights [b, H, C, j, L] of a tile."""
    b, H, C, j, d = q.shape
    scores = torch.bmm(q.reshape(b * keys.shape[1], -1, d), keys.flatten(0, 1).transpose(1, 2)).view(b, H, C, j, -1)
    summand_h = table.index_select(1, bucket.flatten().int()).view(table.shape[0], b, C, 1, -1)
    return torch.softmax(scores.add_(summand_h.transpose(0, 1)), -1)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, keys: Tensor, values: Tensor | None, table: Tensor, bucket: Tensor) -> Tensor:
        B, H, C, J, _ = q.shape
        read = keys if values is None else values
        out = q.new_empty(B, H, C, J, read.shape[3])
        for users, queries in _tiles(q.shape, keys.shape[2], q.device.type):
            weights = _weights(q[users, :, :, queries], keys[users], table, bucket[users])
            found = torch.bmm(weights.view(-1, weights[0].numel() // read.shape[1] // read.shape[2], read.shape[2]),
                              read[users].flatten(0, 1))  # fmt: skip
            out[users, :, :, queries] = found.view(*weights.shape[:4], -1)
        ctx.save_for_backward(q, keys, values, table, bucket, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, keys, values, table, bucket, out = ctx.saved_tensors
        (d_out,) = gradients
        read = keys if values is None else values
        G, L = keys.shape[1:3]
        towards = (out * d_out).sum(-1, keepdim=True)
        d_q, d_keys = torch.empty_like(q), torch.zeros_like(keys, memory_format=torch.contiguous_format)
        d_read = d_keys if values is None else torch.zeros_like(values, memory_format=torch.contiguous_format)
        d_table = torch.zeros_like(table) if ctx.needs_input_grad[3] else None
        for users, queries in _tiles(q.shape, L, q.device.type):
            q_t, d_out_t = q[users, :, :, queries], d_out[users, :, :, queries]
            weights = _weights(q_t, keys[users], table, bucket[users])
            b, H, C, j, _ = weights.shape
            flat = (b * G, H // G * C * j)
            q_f, d_out_f = q_t.reshape(*flat, -1), d_out_t.reshape(*flat, -1)
            d_scores = torch.bmm(d_out_f, read[users].flatten(0, 1).transpose(1, 2)).view(weights.shape)
            d_scores.sub_(towards[users, :, :, queries]).mul_(weights)
            weights_f, d_scores_f = weights.view(*flat, L), d_scores.view(*flat, L)
            d_read[users].flatten(0, 1).baddbmm_(weights_f.transpose(1, 2), d_out_f)
            d_keys[users].flatten(0, 1).baddbmm_(d_scores_f.transpose(1, 2), q_f)
            d_q[users, :, :, queries] = torch.bmm(d_scores_f, keys[users].flatten(0, 1)).view(q_t.shape)
            if d_table is not None:
                by_key_hn = d_scores.sum(3).transpose(0, 1).flatten(1)
                d_table.scatter_add_(1, bucket[users].flatten().long().expand(by_key_hn.shape), by_key_hn)
        return d_q, d_keys, None if values is None else d_read, d_table, None
