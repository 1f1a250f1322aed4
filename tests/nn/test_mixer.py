"""Fusion, interaction and reconstruction with numbers that a person can follow; where each weight
applies.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hemix.models.hemix import make_block
from hemix.nn.mixer import HeteroFFN, HeteroInteraction
from tests.batches import make_config

TINY: dict[str, Any] = dict(
    token_width=4,
    attention_heads=2,
    mix_heads=2,
    mix_rank=1,
    ns_tokens_global=1,
    ns_tokens_realtime=1,
    ffn_expansion=2,
)
SETTINGS = make_config(**TINY, fixed_queries_global=1, fixed_queries_realtime=0)
"""5 tokens: 1 real-time, 2 global, 2 NS."""


def test_semantic_groups() -> None:
    assert SETTINGS.token_groups == (1, 2, 2)
    assert SETTINGS.tokens == 5


def test_interaction_by_hand() -> None:
    """Two tokens (1 2 | 3 4) and (5 6 | 7 8), two heads: mix-tokens (1 2 5 6) and (3 4 7 8).

    Head 0 sums its mix-token to 14, head 1 takes minus the sum, -22, which ReLU makes 0; going up,
    head 0 writes 14 times (1 0 0 2): 14 0 to token 0, 0 28 to token 1, in the places of head 0;
    head 1 writes nothing.
    """
    interaction = HeteroInteraction(tokens=2, width=4, heads=2, rank=1)
    with torch.no_grad():
        interaction.down.weight.copy_(torch.tensor([[[1.0]] * 4, [[-1.0]] * 4]).view(2, 4, 1))
        interaction.up.weight.copy_(torch.tensor([[[1.0, 0, 0, 2]], [[5.0, 5, 5, 5]]]))
    x_SND = torch.tensor([[[1.0, 2, 3, 4]], [[5, 6, 7, 8]]])
    assert interaction(x_SND).tolist() == [[[14, 0, 0, 0]], [[0, 28, 0, 0]]]


def test_reconstruction_returns_each_slice_to_its_token() -> None:
    """With an identity in the middle (full rank, positive numbers) fusion and reconstruction
    cancel.
    """
    interaction = HeteroInteraction(tokens=3, width=4, heads=2, rank=6)
    with torch.no_grad():
        for weight in (interaction.down.weight, interaction.up.weight):
            weight.copy_(torch.eye(6).expand(2, -1, -1))
    x_SND = torch.rand(3, 7, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(interaction(x_SND), x_SND)


def test_interaction_has_two_matrices_of_tokens_by_width_by_rank() -> None:
    interaction = HeteroInteraction(tokens=24, width=32, heads=4, rank=32)
    assert sum(p.numel() for p in interaction.parameters()) == 2 * 24 * 32 * 32 == 49_152


@pytest.mark.parametrize(
    ("ffn", "reached"),
    [("per_token", {0}), ("per_group", {0}), ("shared", {0, 1, 2, 3, 4})],
    ids=lambda v: str(v),
)
def test_whose_weights_a_token_has(ffn: str, reached: set[int]) -> None:
    """Changing the first matrix changes the tokens that use it: token 0 alone is real time."""
    settings = SETTINGS.model_copy(update={"ffn": ffn})
    network = make_block(settings).ffn
    assert isinstance(network, HeteroFFN)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.5)
        before = network(torch.ones(5, 3, 4))
        network.first.weight[0] += 1
        after = network(torch.ones(5, 3, 4))
    assert set((before != after).any(2).any(1).nonzero().squeeze(1).tolist()) == reached


def test_swiglu_takes_about_as_many_parameters_as_gelu() -> None:
    base = make_config(token_width=48)
    gelu, swiglu = (
        sum(
            p.numel()
            for p in make_block(base.model_copy(update={"ffn_activation": a})).ffn.parameters()
        )
        for a in ("gelu", "swiglu")
    )
    assert abs(swiglu / gelu - 1) < 0.02


def test_a_silent_block_is_a_norm_or_nothing() -> None:
    """With branches that give 0 a pre-norm block is the identity, a post-norm block normalises
    (mean 0, variance 1).
    """
    x_SND = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0))
    for position in ("pre", "post"):
        block = make_block(SETTINGS.model_copy(update={"norm_position": position}))
        with torch.no_grad():
            for branch in (block.interaction, block.ffn):
                for parameter in branch.parameters():
                    parameter.zero_()
            out = block(x_SND)
        if position == "pre":
            assert torch.equal(out, x_SND)
        else:
            torch.testing.assert_close(out.mean(2), torch.zeros(5, 6), atol=1e-6, rtol=0)
            torch.testing.assert_close(
                out.var(2, correction=0), torch.ones(5, 6), atol=1e-3, rtol=0
            )
