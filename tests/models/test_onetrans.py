"""OneTrans's heart: the causal mask, the mixed parameters, the pyramid; and the whole against one
plain sequence per candidate.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.models.onetrans import OneTrans, OneTransBlock, _causal, pyramid
from tests.batches import make_batch, make_config, make_spec
from tests.models.test_parity import SMALL, randomised

SPEC = make_spec()


@pytest.mark.parametrize(
    ("layers", "first", "last", "queries"),
    [(1, 50, 8, [50]), (2, 50, 8, [50, 8]), (3, 50, 8, [50, 29, 8]), (4, 32, 2, [32, 22, 12, 2])],
)
def test_the_pyramid_shrinks_linearly(
    layers: int, first: int, last: int, queries: list[int]
) -> None:
    assert pyramid(layers, first, last) == queries


def test_the_causal_mask_by_hand() -> None:
    """Four tokens, the first of which is padding; the last two ask."""
    seen = _causal(torch.tensor([[False, True, True, True]]), 2)
    assert seen.int().tolist() == [[[0, 1, 1, 0], [0, 1, 1, 1]]]
    assert _causal(torch.tensor([[False, False, True]]), 3).int().tolist() == [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    ]


def by_hand(top: bool = False) -> OneTransBlock:
    """Width 2, one head, two NS-tokens.

    All scores are 0, so that attention is the mean of what a token may read. S-tokens give
    themselves as values, the NS-tokens twice and three times themselves. The networks give 0.
    """
    settings = make_config("onetrans", token_width=2, attention_heads=1, ns_tokens=2)
    block = OneTransBlock(settings, top)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.norm_attention.weight.fill_(1)
        block.norm_ffn.weight.fill_(1)
        block.key_value_s.weight[2:] = torch.eye(2)
        block.query_key_value_ns.weight[0, :, 4:] = 2 * torch.eye(2)
        block.query_key_value_ns.weight[1, :, 4:] = 3 * torch.eye(2)
        block.output.weight.copy_(torch.eye(2))
    return block


S_TOKENS = torch.tensor([[[9.0, 9.0], [1.0, 1.0], [1.0, -1.0]]])  # the first is padding
VALID = torch.tensor([[False, True, True]])


@torch.no_grad()
def test_s_tokens_read_what_came_before_by_hand() -> None:
    """(1, 1) reads itself; (1, -1) reads both, whose mean is (1, 0).

    Only as many as ask live on. RMSNorm leaves these tokens.
    """
    block = by_hand()
    sequence = block.sequence(S_TOKENS, VALID)
    after = block.forward_s(S_TOKENS, sequence, 2)
    torch.testing.assert_close(after, torch.tensor([[[2.0, 2.0], [2.0, -1.0]]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(block.forward_s(S_TOKENS, sequence, 1), after[:, 1:])


@torch.no_grad()
def test_ns_tokens_have_parameters_of_their_own_by_hand() -> None:
    """Token 0, (1, 1), reads (1, 1), (1, -1) and twice itself: (4, 2) / 3.

    Token 1, (-1, 1), reads those and three times itself: (1, 5) / 4. A candidate reads no other
    candidate.
    """
    block = by_hand(top=True)
    sequence = block.sequence(S_TOKENS, VALID)
    x_SND = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[-1.0, 1.0], [1.0, 1.0]]])
    after = block.forward_ns(x_SND, [sequence], [torch.tensor([[[0, 1]]])], torch.tensor([0, 1]))
    expected = torch.tensor(
        [[[7 / 3, 5 / 3], [7 / 3, 5 / 3]], [[-0.75, 2.25], [1 + 7 / 4, 1 + 5 / 4]]]
    )
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_later_token_never_reaches_an_earlier_one() -> None:
    model = randomised(SPEC, make_config(**SMALL, name="onetrans"), torch.float64)
    block = model.get_submodule("blocks.0")
    assert isinstance(block, OneTransBlock)
    x_SND = torch.randn(8, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sequence = block.sequence(x_SND[:3].transpose(0, 1), torch.ones(1, 3, dtype=torch.bool))
    for s in range(8):
        changed = x_SND.clone()
        changed[s] += 1
        before, after = (
            block.forward_ns(x, [sequence], [torch.tensor([[[0]]])], torch.tensor([0]))
            for x in (x_SND, changed)
        )
        moved = ((after - before).abs().flatten(1).amax(1) > 1e-9).tolist()
        assert moved == [t >= s for t in range(8)]


@pytest.mark.parametrize("history_events", [50, 5])
@torch.no_grad()
def test_parity_with_one_plain_sequence_per_candidate(history_events: int) -> None:
    """[S ; NS] in one list, one mask, no sharing, no padding: the same logits."""
    settings = make_config(**{**SMALL, "layers": 3}, name="onetrans", history_events=history_events)
    model = randomised(SPEC, settings, torch.float64).eval()
    assert isinstance(model, OneTrans)
    batch = make_batch(SPEC, dtype=torch.float64)
    inputs = model.embed(batch)
    state = model.encode_user(inputs)
    request = model.encode_request(state, inputs)
    assert inputs.item_IW is not None and inputs.cross_NW is not None
    ns_NSD = model.tokenizer(
        request.projected_QU, batch.request_index, inputs.item_IW, batch.item_index, inputs.cross_NW
    )
    pooled = []
    for n, q in enumerate(batch.request_index.tolist()):
        begin, middle, end = batch.history_ranges[q].tolist()
        s_tokens = [state.events_ED[0] + model.part[0]]
        s_tokens += [
            state.events_ED[e + 1] + model.part[int(e >= middle)] for e in range(begin, end)
        ]
        pooled.append(model.norm_out(_plain(model, torch.stack(s_tokens), ns_NSD[n])).mean(0))
    expected = model.heads(torch.stack(pooled), batch.bias)
    torch.testing.assert_close(model(batch), expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_chunked_scores_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(SPEC, make_config(**SMALL, name="onetrans"), torch.float64).eval()
    batch = make_batch(SPEC, dtype=torch.float64)
    whole = model(batch)
    monkeypatch.setattr("hemix.models.onetrans._SCORES_AT_ONCE", 1)
    torch.testing.assert_close(model(batch), whole, rtol=1e-12, atol=1e-12)


def _plain(model: OneTrans, s_tokens: Tensor, ns_tokens: Tensor) -> Tensor:
    """NS-tokens [S, D] after all layers."""
    x, S = torch.cat([s_tokens, ns_tokens]), ns_tokens.shape[0]
    for block, queries in zip(model.blocks, model.queries, strict=True):
        assert isinstance(block, OneTransBlock)
        top = block.query_s is None
        n, count = block.norm_attention(x), x.shape[0] - S
        weights = block.query_key_value_ns.weight
        own = torch.stack([n[count + s] @ weights[s] for s in range(S)])
        q_ns, k_ns, v_ns = own.chunk(3, 1)
        q_s = torch.zeros_like(n[:count]) if block.query_s is None else block.query_s(n[:count])
        k_s, v_s = block.key_value_s(n[:count]).chunk(2, 1)
        q, k, v = torch.cat([q_s, q_ns]), torch.cat([k_s, k_ns]), torch.cat([v_s, v_ns])
        attended, d = [], q.shape[1] // block.heads
        for h in range(block.heads):
            part = slice(h * d, (h + 1) * d)
            scores = q[:, part] @ k[:, part].T / d**0.5
            later = torch.ones_like(scores, dtype=torch.bool).triu(1)
            attended.append(scores.masked_fill(later, -torch.inf).softmax(1) @ v[:, part])
        x = x + block.output(torch.cat(attended, 1))
        queries_count = 0 if top else min(queries, count)
        x = x[count - queries_count :]
        n = block.norm_ffn(x)
        fed = [block.ffn_s(n[:queries_count])] if block.ffn_s is not None else []
        for s in range(S):
            inner = F.gelu(n[queries_count + s] @ block.first_ns.weight[s] + block.first_ns.bias[s])
            fed.append((inner @ block.second_ns.weight[s] + block.second_ns.bias[s]).unsqueeze(0))
        x = x + torch.cat(fed)
    return x
