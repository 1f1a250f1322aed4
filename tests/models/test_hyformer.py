"""HyFormer's heart: where queries come from, what decoding and boosting do, with numbers that a
person can follow."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.models.hyformer import HyFormer, HyFormerLayer
from hemix.nn.mixing import TokenMixing
from tests.batches import make_batch, make_config, make_spec, smallest_spec
from tests.models.test_parity import SMALL, randomised

SPEC = make_spec()


def model_of(**settings: object) -> HyFormer:
    config = make_config("hyformer", **{**SMALL, "queries": 2, **settings})
    model = randomised(SPEC, config, torch.float64).eval()
    assert isinstance(model, HyFormer)
    return model


def layer_by_hand(tokens: int) -> HyFormerLayer:
    """Width 4, one query a sequence, no norm, networks that give what they get."""
    layer = HyFormerLayer(make_config("hyformer", token_width=4, queries=1), tokens)
    layer.norm_boost, layer.norm_decode, layer.ffn = (torch.nn.Identity() for _ in range(3))  # type: ignore[assignment]
    return layer


def test_boosting_adds_the_mixed_tokens() -> None:
    """(1 2 | 3 4) and (5 6 | 7 8): mixed (1 2 5 6) and (3 4 7 8), added to the tokens."""
    x_SND = torch.tensor([[[1.0, 2, 3, 4]], [[5, 6, 7, 8]]])
    assert layer_by_hand(2).boost(x_SND).tolist() == [[[2, 4, 8, 10]], [[8, 10, 14, 16]]]


def test_decoding_changes_the_queries_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The global part adds 10 to its query, the real-time part 100 to its own; two feature tokens
    stay.
    """
    layer = layer_by_hand(4)
    monkeypatch.setattr(layer, "boost", lambda x_SND: x_SND)
    for part, value in ((layer.global_, 10.0), (layer.realtime, 100.0)):
        monkeypatch.setattr(
            part,
            "dynamic",
            lambda _state, queries, _index, value=value: torch.full_like(queries.tokens_NnD, value),
        )
    decoded = layer(torch.ones(4, 1, 4), None, None, None)
    assert decoded[:, 0, 0].tolist() == [11, 101, 1, 1]


@torch.no_grad()
def test_queries_are_networks_of_all_features_and_the_means() -> None:
    """Against one plain concatenation per candidate: Q_i = W2_i gelu(W1_i [F ; means] + b1_i) +
    b2_i.
    """
    model, batch = model_of(), make_batch(SPEC, dtype=torch.float64)
    inputs = model.embed(batch)
    user = model.encode_user(inputs)
    request = model.encode_request(user, inputs)
    means_QD = inputs.layout.means(user.events_ED)
    assert inputs.item_IW is not None and inputs.user_RW is not None
    seen: list[Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))
    model.score(request, inputs)
    (x_SND,) = seen
    of_request = batch.request_index
    of_user = batch.user_index[of_request]
    features = {
        "user": model.features("user", inputs.user_RW)[of_user].flatten(1),
        "context": model.features("context", inputs.context_QW)[of_request].flatten(1),
        "item": model.features("item", inputs.item_IW[batch.item_index]).flatten(1),
        "cross": model.features("cross", inputs.cross_NW).flatten(1),
        "global": means_QD[0][of_request],
        "realtime": means_QD[1][of_request],
    }
    names = list(model.queries_first.blocks)
    assert sorted(names) == sorted(features)
    weight = torch.cat([model.queries_first.blocks[name] for name in names], 1)
    info = torch.cat([features[name] for name in names], 1)
    hidden = F.gelu(info @ weight.T + model.queries_first.bias)
    second = model.queries_second
    assert second.bias is not None
    for i, inner in enumerate(torch.split(hidden, 8, 1)):
        expected = inner @ second.weight[i] + second.bias[i]
        torch.testing.assert_close(x_SND[i], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(x_SND[4:6].transpose(0, 1).flatten(1), features["user"])


@torch.no_grad()
def test_every_layer_has_events_of_its_own_and_kept_keys_and_values() -> None:
    """H_l = H_(l-1) + SwiGLU_l(norm(H_(l-1))); a kept state has their keys and values, by layer."""
    model, batch = model_of(layers=3), make_batch(SPEC, dtype=torch.float64)
    state = model.keep_user(model.encode_user(model.embed(batch)))
    assert state.global_keys_values is not None
    events = state.events_ED
    for at, layer in enumerate(model._layers()):
        first, second = layer.encoder.ffn.first, layer.encoder.ffn.second
        assert first.bias is not None and second.bias is not None
        gate, value = (layer.encoder.norm(events) @ first.weight[0] + first.bias[0]).chunk(2, 1)
        events = events + (F.silu(gate) * value) @ second.weight[0] + second.bias[0]
        torch.testing.assert_close(state.encoded_Ex[:, 8 * at : 8 * at + 8], events)
        torch.testing.assert_close(
            state.global_keys_values[:, 16 * at : 16 * at + 16],
            layer.global_.keys_values(events, state.event_time_ms),
        )


def test_tokens_are_the_queries_of_two_sequences_and_two_of_each_level() -> None:
    assert model_of().tokens == 2 * 2 + 4 * 2
    config = make_config("hyformer", **SMALL)
    model = randomised(smallest_spec(), config, torch.float64)
    assert isinstance(model, HyFormer)
    assert model.tokens == 2 * 4 + 2 + 2


@pytest.mark.parametrize("pooling", ["mean", "flatten"])
def test_the_towers_read_all_tokens(pooling: str) -> None:
    model = model_of(pooling=pooling)
    assert model.heads.first.weight.shape[1] == (8 if pooling == "mean" else 8 * model.tokens)


def test_mixing_is_rankmixers() -> None:
    assert isinstance(layer_by_hand(4).mixing, TokenMixing)
