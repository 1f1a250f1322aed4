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


FORMS = ["neither", "values", "both"]
"""Which of keys and values all heads share"""


def make(absorbed: str) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    by_head, shared = (H, D // H), (1, D)
    x = shared if absorbed == "both" else by_head
    y = by_head if absorbed == "neither" else shared
    q = torch.randn(B, H, C, J, x[1], generator=g, dtype=torch.float64)
    keys = torch.randn(B, L, *x, generator=g, dtype=torch.float64)
    values = torch.randn(B, L, *y, generator=g, dtype=torch.float64).requires_grad_()
    table = torch.cat(
        [torch.randn(H, A - 1, generator=g, dtype=torch.float64), torch.full((H, 1), -torch.inf)], 1
    )
    bucket = torch.randint(0, A, (B, C, L), generator=g)
    bucket[..., 0] = 0
    return (
        q.requires_grad_(),
        keys.requires_grad_(),
        None if absorbed == "both" else values,
        table.requires_grad_(),
        bucket.to(torch.uint8),
    )


def at_once(
    q: Tensor, keys: Tensor, values: Tensor | None, table: Tensor, bucket: Tensor
) -> Tensor:
    keys, values = (x.expand(-1, -1, H, -1) for x in (keys, keys if values is None else values))
    scores = torch.einsum("bhcjx,blhx->bhcjl", q, keys) + table[:, bucket.long()].transpose(
        0, 1
    ).unsqueeze(3)
    return torch.einsum("bhcjl,blhx->bhcjx", scores.softmax(-1), values)


@pytest.mark.parametrize("absorbed", FORMS)
@pytest.mark.parametrize("tile", [1, 60, 400, 2**19])
def test_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch, tile: int, absorbed: str) -> None:
    """Of one query, of some queries of a user, of some users, of all."""
    monkeypatch.setitem(attention._TILE, "cpu", tile)
    q, keys, values, table, bucket = make(absorbed)
    attended, expected = (way(q, keys, values, table, bucket) for way in (attend, at_once))
    torch.testing.assert_close(attended, expected, **PARITY_FP64)
    weight = torch.linspace(-1, 1, attended.numel(), dtype=torch.float64).view(attended.shape)
    learned = [x for x in (q, keys, values, table) if x is not None]
    ours = torch.autograd.grad((attended * weight).sum(), learned)
    theirs = torch.autograd.grad((expected * weight).sum(), learned)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a[..., : A - 1], b[..., : A - 1], **PARITY_FP64)


@pytest.mark.parametrize("absorbed", FORMS)
@torch.no_grad()
def test_the_fused_kernel_of_inference_gives_the_same(absorbed: str) -> None:
    q, keys, values, table, bucket = make(absorbed)
    q, bucket = q[:, :, :1], bucket[:, :1]
    expected = at_once(q, keys, values, table, bucket)
    torch.testing.assert_close(attend(q, keys, values, table, bucket), expected, **PARITY_FP64)


def test_absorbing_pays_below_the_crossover() -> None:
    """Width 64, 4 heads, per key: 21 queries cost 64 x 64 x 4 + 21 x 256 = 21,760 projected, 21 x 4
    x 256 = 21,504 absorbed; 22 cost 22,016 and 22,528.
    """
    assert absorbs(21, heads=4, width=64) and not absorbs(22, heads=4, width=64)
    assert absorbs(10**6, heads=1, width=64)
