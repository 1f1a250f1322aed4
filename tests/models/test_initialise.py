"""First weights: from the seed alone, and with the fan of each matrix, never that of a stack of
matrices.
"""

from __future__ import annotations

import pytest
import torch

from hemix.errors import SettingsError
from hemix.models import build_model
from hemix.models.hemix import HeMix
from tests.batches import make_batch, make_config, make_spec
from tests.refusals import raises

SETTINGS = make_config(token_width=64, tokenizer_hidden=256, tower_hidden=96)


def make(seed: int = 0) -> HeMix:
    model = build_model(make_spec(), SETTINGS, seed)
    assert isinstance(model, HeMix)
    return model


def test_every_tokens_matrix_has_its_own_fan() -> None:
    """Variance 1 / inputs of one token's matrix.

    A fan over the stack [24, 64, 256] would give 24 or more times less.
    """
    for block in make().blocks:
        for grouped, inputs in [
            (block.ffn.first, 64),
            (block.ffn.second, 256),
            (block.interaction.down, SETTINGS.tokens * 16),
            (block.interaction.up, 32),
        ]:
            deviations = grouped.weight.flatten(1).std(1) * inputs**0.5
            assert ((deviations - 1).abs() < 0.05).all()


def test_a_linear_map_in_blocks_has_the_fan_of_the_whole() -> None:
    first = make().tokenizer.first
    for block in first.blocks.values():
        assert float(block.detach().std()) == pytest.approx(first.inputs**-0.5, rel=0.05)


def test_first_activations_keep_their_scale() -> None:
    """A token that enters a block with variance 1 leaves its network with variance of order 1, not
    4 to 15 times less.
    """
    block = make().blocks[0]
    x_SND = torch.randn(SETTINGS.tokens, 200, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for branch in (block.interaction, block.ffn):
            assert 0.4 < float(branch(x_SND).std()) < 1.2


def test_the_seed_decides_everything() -> None:
    first, again, other = (make(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name, value in first.items() if value.std() > 0]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    make()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.rand(3), expected)


def test_every_weight_is_reached_by_a_gradient() -> None:
    spec = make_spec()
    model, batch = make().train(), make_batch(spec)
    model.training_loss(batch).backward()
    silent = [
        name for name, p in model.named_dense_parameters() if p.grad is None or not p.grad.any()
    ]
    assert silent == []


def test_an_unknown_model_is_named() -> None:
    with raises(SettingsError, "'deepfm'", "hemix", code="unknown_model", field="model.name"):
        build_model(make_spec(), make_config(name="deepfm"), 0)
