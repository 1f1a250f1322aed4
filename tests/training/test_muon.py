"""Muon: updates are orthogonal within what five Newton-Schulz steps give, per matrix, and take
linear maps alone.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hemix.models import build_model
from hemix.settings import build_settings
from hemix.training.muon import Muon, linear_maps, orthogonalised
from hemix.training.optimizers import Optimizers
from tests.batches import make_batch, make_spec


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8), (3, 16, 30)], ids=str)
def test_singular_values_end_near_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    x = draw(*shape)
    orthogonal = orthogonalised(x)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    inner = (u.mT @ orthogonal @ v.mT).diagonal(dim1=-2, dim2=-1)
    assert inner.min() > 0.6 and inner.max() < 1.25
    torch.testing.assert_close(u.mT @ orthogonal @ v.mT, torch.diag_embed(inner), rtol=0, atol=1e-4)


def test_each_matrix_of_a_stack_is_treated_alone_and_scale_does_not_matter() -> None:
    x = draw(3, 5, 7)
    torch.testing.assert_close(
        orthogonalised(x)[1], orthogonalised(x[1] * 1000), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(orthogonalised(x.mT), orthogonalised(x).mT, rtol=1e-4, atol=1e-5)
    assert not orthogonalised(torch.zeros(2, 4, 3)).any()


def test_a_step_by_hand() -> None:
    """Gradient 3 I (2 x 2): of Frobenius norm 1 it is I / sqrt 2, on which the iteration acts as a
    polynomial of one number.
    """
    value = 2**-0.5
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight], 0.1, weight_decay=0.5)
    weight.grad = 3 * torch.eye(2)
    optimizer.step()
    expected = 0.95 * torch.ones(2, 2) - 0.1 * 0.2 * 2**0.5 * value * torch.eye(2)
    torch.testing.assert_close(weight.detach(), expected)


def test_momentum_by_hand() -> None:
    """Gradients 1 and -1 on a 1 x 2 matrix: momentum .05, then .95 * .05 - .05 = -.0025; both
    directions are those of a unit row.
    """
    weight = nn.Parameter(torch.zeros(1, 2))
    optimizer = Muon([weight], 1.0)
    for sign in (1.0, -1.0):
        weight.grad = torch.tensor([[sign, 0.0]])
        optimizer.step()
    torch.testing.assert_close(optimizer.state[weight]["momentum"], torch.tensor([[-0.0025, 0.0]]))
    assert weight[0, 1] == 0


def test_it_takes_linear_maps_and_leaves_vectors_and_look_ups_to_adamw() -> None:
    settings = build_settings(overrides={"train.dense_optimizer": "muon"})
    model = build_model(make_spec(), settings.model, 0).train()
    maps, named = linear_maps(model), dict(model.named_dense_parameters())
    names = {name for name, parameter in named.items() if parameter in maps}
    assert {
        "tokenizer.second.weight",
        "blocks.0.interaction.down.weight",
        "tokenizer.first.blocks.user",
    } <= names
    assert not any(
        name.endswith(("fixed_queries", "age_bias", "position", "bias", "null")) for name in names
    )
    assert not any("products" in name for name in names), (
        "columns of products are of no common scale"
    )
    assert "heads.second.weight" not in names, "a row of one number per task is a vector"
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    optimizers = Optimizers(model, settings.train.resolved(10**6), 10)
    batch = make_batch(model.spec)
    model.training_loss(batch).backward()
    optimizers.step(0)
    assert all(not torch.equal(before[name], parameter) for name, parameter in named.items())
    state = optimizers.tensors()
    assert {n.split(".", 2)[1] for n in state if n.endswith(".tokenizer.second.weight")} == {
        "momentum"
    }
    assert {n.split(".", 2)[1] for n in state if n.endswith(".heads.second.weight")} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
    }
