"""The heart of DLRM, DCN-V2, Wukong and RankMixer, with numbers that a person can follow."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hemix.models.dcnv2 import DCNv2, cross
from hemix.models.dlrm import DLRM
from hemix.models.rankmixer import RankMixer, tokens_count
from hemix.models.wukong import FactorizationMachineBlock, WukongLayer, recombine
from hemix.nn.layers import GroupedLinear
from hemix.nn.mixing import SelfAttention, TokenMixing
from hemix.nn.products import pair_dots
from tests.batches import make_config, make_spec


def test_dlrm_dots_of_pairs() -> None:
    """(1 2), (3 4), (5 6): second with first 11, third with first 17, third with second 39."""
    assert pair_dots(torch.tensor([[[1.0, 2], [3, 4], [5, 6]]])).tolist() == [[11, 17, 39]]


def test_dlrm_gives_its_top_the_processed_numbers_and_the_dots() -> None:
    model = DLRM(make_spec(), make_config("dlrm", embedding_size=2))
    model.bottom, model.top = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    interactions = model.interact(torch.tensor([[[1.0, 2], [3, 4]]]), torch.tensor([[10.0, 1]]))
    assert interactions.tolist() == [[10, 1, 12, 34, 11]]


def test_dcnv2_cross_layer() -> None:
    """W x + b = (3 + 1, 3 + 4 - 1) = (4, 6) for x = (3, 4); times x0 = (1, 2), plus x: (7, 16)."""
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0], [1, 1]]))
        linear.bias.copy_(torch.tensor([1.0, -1]))
        assert cross(torch.tensor([[1.0, 2]]), torch.tensor([[3.0, 4]]), linear).tolist() == [
            [7, 16]
        ]


def test_dcnv2_crosses_start_from_all_fields_and_numbers() -> None:
    """With W = 0 and b = 1 every layer adds x0 once more: two layers give 3 x0."""
    model = DCNv2(make_spec(), make_config("dcnv2", embedding_size=2, cross_rank=0))
    model.deep = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        for linear in model.crosses:
            assert isinstance(linear, nn.Linear)
            linear.weight.zero_()
            linear.bias.fill_(1.0)
        fields, numbers = (
            torch.rand(5, model.fields.count, 2),
            torch.rand(5, model.fields.numbers_count),
        )
        torch.testing.assert_close(
            model.interact(fields, numbers), 3 * torch.cat([fields.flatten(1), numbers], 1)
        )


def test_dcnv2_low_rank_cross_layer() -> None:
    """V' x = 3 + 4 = 7; U (7) + b = (7 + 1, 14 - 1) = (8, 13); times x0 = (1, 2), plus x:
    (11, 30).
    """
    model = DCNv2(make_spec(), make_config("dcnv2", embedding_size=2, cross_rank=1))
    thin = [min(weight.shape) for weight in model.crosses[0].parameters()]
    assert thin[:2] == [1, 1]
    inner, outer = nn.Linear(2, 1, bias=False), nn.Linear(1, 2)
    with torch.no_grad():
        inner.weight.fill_(1.0)
        outer.weight.copy_(torch.tensor([[1.0], [2.0]]))
        outer.bias.copy_(torch.tensor([1.0, -1]))
        crossed = cross(
            torch.tensor([[1.0, 2]]), torch.tensor([[3.0, 4]]), nn.Sequential(inner, outer)
        )
    assert crossed.tolist() == [[11, 30]]


def test_wukong_factorisation_machine_of_a_projection() -> None:
    """X^T Y of (1 2), (3 4), (5 6) with Y = (1, 0, -1) is (-4, -4); its dots with the vectors are
    -12, -28, -44.
    """
    block = FactorizationMachineBlock(3, 2, 2, 4, 0.0)
    block.project = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        block.project.weight.copy_(torch.tensor([[1.0, 0, -1]]))
        dots = block.dots(torch.tensor([[[1.0, 2], [3, 4], [5, 6]]]))
    assert dots.tolist() == [[[-12], [-28], [-44]]]


def test_wukong_recombines_vectors_not_coordinates() -> None:
    """First + second = (4 6), twice the third = (10 12)."""
    linear = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 1, 0], [0, 0, 2]]))
        assert recombine(torch.tensor([[[1.0, 2], [3, 4], [5, 6]]]), linear).tolist() == [
            [[4, 6], [10, 12]]
        ]


def test_wukong_layer_is_blocks_plus_residual_then_norm() -> None:
    """Half of 4 tokens wide: 2 + 2 vectors from 3, so the residual is recombined.

    With nothing from the blocks the layer is the norm of the residual; with as many vectors in as
    out, of the input itself.
    """
    settings = make_config("wukong", embedding_size=2, token_width=4)
    for inputs in (3, 4):
        layer, x = (
            WukongLayer(inputs, settings),
            torch.randn(6, inputs, 2, generator=torch.Generator().manual_seed(0)),
        )
        with torch.no_grad():
            for parameter in (layer.compress.weight, layer.dots.out.weight, layer.dots.out.bias):
                parameter.zero_()
            assert (layer.residual is None) == (inputs == 4)
            residual = x if layer.residual is None else recombine(x, layer.residual)
            torch.testing.assert_close(layer(x), layer.norm(residual))


def test_rankmixer_mixing_of_two_tokens() -> None:
    """(1 2 | 3 4) and (5 6 | 7 8): the new tokens are the first heads, then the second ones."""
    x_SND = torch.tensor([[[1.0, 2, 3, 4]], [[5, 6, 7, 8]]])
    assert TokenMixing()(x_SND).tolist() == [[[1, 2, 5, 6]], [[3, 4, 7, 8]]]


def test_rankmixer_mixing_where_tokens_do_not_divide_the_width() -> None:
    """Three tokens, width 4: one head of each token is 2 wide, the first of token 0, the last of
    token 1, the second of token 2.
    """
    x_SND = torch.arange(1.0, 13).view(3, 1, 4)
    assert TokenMixing()(x_SND).tolist() == [[[1, 2, 5, 9]], [[3, 6, 10, 11]], [[4, 7, 8, 12]]]


@pytest.mark.parametrize(("tokens", "width"), [(4, 12), (5, 12), (12, 12), (24, 32)])
def test_rankmixer_mixing_is_a_permutation_in_which_every_token_meets_every_other(
    tokens: int, width: int
) -> None:
    """Also of gradients, and for many candidates at once."""
    x_SND = torch.arange(float(tokens * 3 * width)).view(tokens, 3, width).requires_grad_()
    mixed = TokenMixing()(x_SND)
    by_candidate = mixed.transpose(0, 1)
    for n in range(3):
        assert (
            sorted(by_candidate[n].flatten().tolist())
            == x_SND[:, n].flatten().sort().values.tolist()
        )
        owners = (by_candidate[n] // (3 * width)).long()
        assert all(set(owners[h].tolist()) == set(range(tokens)) for h in range(tokens))
    mixed.backward(mixed.detach())
    assert x_SND.grad is not None and torch.equal(x_SND.grad, x_SND.detach())


def test_rankmixer_has_the_most_tokens_that_divide_the_width() -> None:
    """HeMix has 24 tokens; 16 divide a width of 32, 24 a width of 48."""
    assert tokens_count(make_config("rankmixer", token_width=32)) == 16
    assert tokens_count(make_config("rankmixer", token_width=48)) == 24


def test_rankmixer_projects_equal_slices_of_the_row_separately() -> None:
    """Five places, two tokens of width 1: (1 2 3) and (4 5 0); sums with weight 1 and 10."""
    model = RankMixer(make_spec(), make_config("rankmixer"))
    model.tokens, model.width, model.project = 2, 5, GroupedLinear(2, 3, 1)
    with torch.no_grad():
        model.project.weight.copy_(torch.tensor([1.0, 10]).view(2, 1, 1).expand(2, 3, 1))
        assert model.project.bias is not None
        model.project.bias.zero_()
        assert model.tokenize(torch.tensor([[1.0, 2, 3, 4, 5]])).tolist() == [[[6]], [[90]]]


def test_self_attention_without_preferences_is_the_mean() -> None:
    """Queries and keys 0, values and output as they come: each token gets the mean of (1 2) and (3
    6).
    """
    attention = SelfAttention(2, 1)
    with torch.no_grad():
        attention.query_key_value.weight.copy_(torch.cat([torch.zeros(4, 2), torch.eye(2)]))
        attention.output.weight.copy_(torch.eye(2))
        attention.query_key_value.bias.zero_()
        attention.output.bias.zero_()
        assert attention(torch.tensor([[[1.0, 2]], [[3, 6]]])).tolist() == [[[2, 4]], [[2, 4]]]
