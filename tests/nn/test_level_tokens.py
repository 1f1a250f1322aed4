"""Tokens by meaning, with numbers that a person can follow."""

from __future__ import annotations

import torch

from hemix.nn.layers import GroupedLinear
from hemix.nn.level_tokens import LevelTokens


@torch.no_grad()
def test_sections_of_a_level_have_maps_of_their_own() -> None:
    """Five columns in two sections, (1 2 3) and (4 5 0): sums with weight 1 and 10."""
    tokens = LevelTokens({"user": 5, "item": 0, "cross": 1}, per_level=2, width=1)
    linear = tokens.first["user"]
    assert isinstance(linear, GroupedLinear) and linear.bias is not None
    linear.weight.copy_(torch.tensor([1.0, 10]).view(2, 1, 1).expand(2, 3, 1))
    linear.bias.zero_()
    assert tokens("user", torch.tensor([[1.0, 2, 3, 4, 5]])).tolist() == [[[6], [90]]]


def test_a_level_has_no_more_tokens_than_columns() -> None:
    tokens = LevelTokens({"user": 5, "item": 0, "cross": 1}, per_level=2, width=3)
    assert tokens.counts == {"user": 2, "item": 0, "cross": 1}
    assert tokens.count("user", "cross") == 3
    assert tokens("item", torch.zeros(4, 0)).shape == (4, 0, 3)
