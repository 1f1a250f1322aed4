"""Attention in tiles equals attention at once, in value and gradient, however the tiles fall."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hemix.nn import attention
from hemix.nn.attention import absorbs, attend
from tests.tolerances import PARITY_FP64

B, H, C, J, L, D, A = 5, 2, 3, 4, 7, 6, 5
"""The last row of the table hides a key."""


def make(absorbed: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    width = D if absorbed else D // H
    q = torch.randn(B, H, C, J, width, generator=g, dtype=torch.float64)
    keys_values = torch.randn(B, L, D if absorbed else 2 * D, generator=g, dtype=torch.float64)
    table = torch.cat(
        [torch.randn(H, A - 1, generator=g, dtype=torch.float64), torch.full((H, 1), -torch.inf)], 1
    )
    bucket = torch.randint(0, A, (B, C, L), generator=g)
    bucket[..., 0] = 0
    return (
        q.requires_grad_(),
        keys_values.requires_grad_(),
        table.requires_grad_(),
        bucket.to(torch.uint8),
    )


def at_once(
    q: Tensor, keys_values: Tensor, table: Tensor, bucket: Tensor, absorbed: bool
) -> Tensor:
    if absorbed:
        keys = values = keys_values.unsqueeze(1).expand(-1, H, -1, -1)
    else:
        keys, values = (x.unflatten(2, (H, -1)).transpose(1, 2) for x in keys_values.chunk(2, 2))
    scores = torch.einsum("bhcjx,bhlx->bhcjl", q, keys) + table[:, bucket.long()].transpose(
        0, 1
    ).unsqueeze(3)
    return torch.einsum("bhcjl,bhlx->bhcjx", scores.softmax(-1), values)


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("tile", [1, 60, 400, 2**19])
def test_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch, tile: int, absorbed: bool) -> None:
    """Of one query, of some queries of a user, of some users, of all."""
    monkeypatch.setitem(attention._TILE, "cpu", tile)
    q, keys_values, table, bucket = make(absorbed)
    attended, expected = (
        attend(q, keys_values, table, bucket),
        at_once(q, keys_values, table, bucket, absorbed),
    )
    torch.testing.assert_close(attended, expected, **PARITY_FP64)
    weight = torch.linspace(-1, 1, attended.numel(), dtype=torch.float64).view(attended.shape)
    ours = torch.autograd.grad((attended * weight).sum(), (q, keys_values, table))
    theirs = torch.autograd.grad((expected * weight).sum(), (q, keys_values, table))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a[..., : A - 1], b[..., : A - 1], **PARITY_FP64)


@pytest.mark.parametrize("absorbed", [False, True])
@torch.no_grad()
def test_the_fused_kernel_of_inference_gives_the_same(absorbed: bool) -> None:
    q, keys_values, table, bucket = make(absorbed)
    q, bucket = q[:, :, :1], bucket[:, :1]
    expected = at_once(q, keys_values, table, bucket, absorbed)
    torch.testing.assert_close(attend(q, keys_values, table, bucket), expected, **PARITY_FP64)


def test_absorbing_pays_below_the_crossover() -> None:
    """Width 64, 4 heads, per key: 21 queries cost 64 x 64 x 4 + 21 x 256 = 21,760 projected, 21 x 4
    x 256 = 21,504 absorbed; 22 cost 22,016 and 22,528.
    """
    assert absorbs(21, heads=4, width=64) and not absorbs(22, heads=4, width=64)
    assert absorbs(10**6, heads=1, width=64)
