"""TokenMixer-Large's heart: mixing, reverting, the residuals, by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.errors import SettingsError
from hemix.models import build_model
from hemix.models.tokenmixer import PertokenSwiGLU, TokenMixer, TokenMixerBlock, mix, revert
from hemix.settings import build_settings
from tests.batches import make_batch, make_config, make_spec
from tests.models.test_parity import SMALL, randomised
from tests.refusals import raises

SPEC = make_spec()
THREE_TOKENS = torch.tensor([[[1.0, 2, 3, 4]], [[5, 6, 7, 8]], [[9, 10, 11, 12]]])


def model_of(**settings: object) -> TokenMixer:
    config = make_config("tokenmixer", **{**SMALL, "mix_heads": 4, **settings})
    model = randomised(SPEC, config, torch.float64)
    assert isinstance(model, TokenMixer)
    return model


def test_a_mix_token_has_one_head_of_every_token() -> None:
    """Three tokens of two heads: two mix-tokens of three times two."""
    mixed = mix(THREE_TOKENS, 2)
    assert mixed.tolist() == [[[1, 2, 5, 6, 9, 10]], [[3, 4, 7, 8, 11, 12]]]
    assert torch.equal(revert(mixed, 3), THREE_TOKENS)


def test_swiglu_has_weights_of_its_own_per_token() -> None:
    """gate 2, up 3 for token 0: silu(2) * 3; twice the output for token 1."""
    network = PertokenSwiGLU(2, 1, 12)
    assert network.gate_up.bias is not None and network.down.bias is not None
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.gate_up.weight[:, 0, 0] = 2
        network.gate_up.weight[:, 0, 8] = 3
        network.down.weight[:, 0, 0] = torch.tensor([1.0, 2.0])
        got = network(torch.ones(2, 1, 1))
    once = 3 * float(F.silu(torch.tensor(2.0)))
    assert got.flatten().tolist() == pytest.approx([once, 2 * once])


def adds(value: float) -> torch.nn.Module:
    """What gives the same everywhere."""

    class _Adds(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full_like(x, value)

    return _Adds()


def test_a_block_returns_the_mixed_tokens_before_the_second_network() -> None:
    """The first network adds 100 to the mix-tokens, the second gives back what it gets: tokens plus
    themselves plus 100.
    """
    block = TokenMixerBlock(make_config("tokenmixer", token_width=4, mix_heads=2), 3)
    block.norm_mixed, block.norm, block.ffn = (torch.nn.Identity() for _ in range(3))  # type: ignore[assignment]
    block.ffn_mixed = adds(100)  # type: ignore[assignment]
    assert torch.equal(block(THREE_TOKENS), 2 * THREE_TOKENS + 100)


def test_inter_residuals_and_where_auxiliary_towers_stand() -> None:
    """Five blocks that add 1 each, an inter-residual after every second one: 0, (2 + 0), (4 + 2),
    7.
    """
    model = model_of(layers=5, residual_interval=2)
    model.blocks = torch.nn.ModuleList(_Plus() for _ in range(5))
    values = [float(x.flatten()[0]) for x in model._blocks(torch.zeros(2, 1, 8))]
    assert values == [2, 6, 7]
    assert len(model.auxiliary) == 2


class _Plus(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1


@pytest.mark.parametrize(
    ("layers", "interval", "towers"), [(1, 2, 0), (2, 2, 0), (3, 2, 1), (7, 3, 2)]
)
def test_no_auxiliary_tower_at_the_top(layers: int, interval: int, towers: int) -> None:
    model = model_of(layers=layers, residual_interval=interval)
    assert len(model.auxiliary) == towers
    assert len(model.training_logits(make_batch(SPEC, dtype=torch.float64))) == 1 + towers


def test_the_last_matrix_of_a_network_begins_small() -> None:
    model = build_model(SPEC, build_settings(model="tokenmixer").model, 0)
    block = model.get_submodule("blocks.0")
    assert isinstance(block, TokenMixerBlock)
    inputs, last = block.ffn.gate_up.weight.detach(), block.ffn.down.weight.detach()
    assert float(inputs.std() * inputs.shape[1] ** 0.5) == pytest.approx(1, rel=0.05)
    assert float(last.std() * last.shape[1] ** 0.5) == pytest.approx(0.01, rel=0.05)


@torch.no_grad()
def test_the_global_token_comes_from_all_others() -> None:
    model, batch = model_of().eval(), make_batch(SPEC, dtype=torch.float64)
    inputs = model.embed(batch)
    tokens_SND = model.tokenize(model.encode_request(model.encode_user(inputs), inputs), inputs)
    assert tokens_SND.shape == (model.tokens, batch.candidates_count, 8)
    others_Nx = tokens_SND[1:].transpose(0, 1).flatten(1)
    torch.testing.assert_close(tokens_SND[0], model.global_token(others_Nx))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with raises(SettingsError, field="model.mix_heads"):
        build_settings(model="tokenmixer", overrides={"model.mix_heads": 5})
