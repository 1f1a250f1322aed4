"""LONGER's heart: token merge, the hybrid mask, candidates that only read, by hand; and the whole
against one plain sequence per candidate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hemix.models.longer import LONGER, EventTokens, hybrid_mask
from hemix.nn.sequence_block import KeysValues, SequenceBlock
from hemix.nn.slots import Slots
from hemix.nn.time_encoding import AGE_BUCKETS, age_bucket
from tests.batches import make_batch, make_config, make_spec
from tests.models.test_parity import SMALL, randomised

SPEC = make_spec()


def test_the_hybrid_mask_by_hand() -> None:
    """One global token, three merged ones of which the first is padding; the last two ask."""
    mask = hybrid_mask(torch.tensor([[False, True, True]]), 2, 1)
    assert mask.int().tolist() == [[[1, 0, 1, 1], [1, 0, 1, 0], [1, 0, 1, 1]]]


def test_padding_reads_itself() -> None:
    mask = hybrid_mask(torch.tensor([[False, True]]), 2, 0)
    assert mask.int().tolist() == [[[1, 0], [0, 1]]]


@torch.no_grad()
def test_neighbours_are_merged_from_the_newest_back_by_hand() -> None:
    """Four events in twos and a padded place: InnerTrans leaves them, and the map adds up the two
    of a group; what stands in the padding counts nothing.
    """
    tokens = EventTokens(make_config("longer", token_width=2, merge=2, history_events=9))
    leave_as_is(tokens.inner)
    tokens.join.weight.copy_(torch.cat([torch.eye(2), torch.eye(2)], 1))
    tokens.join.bias.zero_()
    events = torch.tensor([[[99.0, 99], [1, 2], [3, 4], [5, 6], [7, 8]]])
    valid = torch.tensor([[False, True, True, True, True]])
    merged, exists = tokens.merged(events, valid)
    assert merged.tolist() == [[[0, 0], [4, 6], [12, 14]]]
    assert exists.tolist() == [[False, True, True]]


def leave_as_is(block: SequenceBlock) -> None:
    """Attention and network give 0."""
    for parameter in (*block.output.parameters(), *block.ffn.parameters()):
        parameter.zero_()


def reads_the_mean() -> SequenceBlock:
    """Width 2: scores are 0, values as they come, the network gives 0. RMSNorm leaves (1, -1)."""
    block = SequenceBlock(2, 1, 1, 0.0)
    for parameter in block.parameters():
        parameter.zero_()
    block.norm_attention.weight.fill_(1)
    block.norm_ffn.weight.fill_(1)
    block.key_value.weight[2:] = torch.eye(2)
    block.output.weight.copy_(torch.eye(2))
    return block


@torch.no_grad()
def test_inner_transformer_lets_a_group_meet_by_hand() -> None:
    """(1, 1) and (1, -1) add their mean, (1, 0); alone, a token adds itself."""
    tokens = EventTokens(make_config("longer", token_width=2, merge=2, history_events=9))
    tokens.inner = reads_the_mean()
    tokens.join.weight.copy_(torch.cat([torch.eye(2), 10 * torch.eye(2)], 1))
    tokens.join.bias.zero_()
    events = torch.tensor([[[5.0, 5], [1, 1], [1, 1], [1, -1]]])
    merged, _ = tokens.merged(events, torch.tensor([[False, True, True, True]]))
    expected = torch.tensor([[[20.0, 20.0], [2 + 20.0, 1 - 10.0]]])
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_candidates_read_the_request_and_their_own_tokens_by_hand() -> None:
    """The request gives (3, 0), a padded token (99, 99). A candidate has (1, 1) and (1, -1): each
    adds the mean of the three that it reads, (5, 0) / 3.
    """
    block = reads_the_mean()
    group = KeysValues(
        keys_values_BL2D=torch.tensor([[[0.0, 0, 99, 99], [0, 0, 3, 0]]]),
        valid_BL=torch.tensor([[False, True]]),
    )
    number = torch.arange(2)
    layout = Slots(rows=[number.view(1, 1, 2)], slot_N=number, request_N=torch.zeros_like(number))
    x_NSD = torch.tensor([[[1.0, 1], [1, -1]], [[1, 1], [1, 1]]])
    after = block.candidates(x_NSD, [group], layout)
    expected = x_NSD + torch.tensor([[[5 / 3, 0]], [[5 / 3, 2 / 3]]])
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("merge", "query_tokens", "history_events"), [(3, 2, 30), (1, 50, 4)])
@torch.no_grad()
def test_parity_with_one_plain_sequence_per_candidate(
    merge: int, query_tokens: int, history_events: int
) -> None:
    """Request by request and candidate by candidate, without padding: the same tokens."""
    config = make_config(
        **{**SMALL, "layers": 3},
        name="longer",
        merge=merge,
        query_tokens=query_tokens,
        history_events=history_events,
    )
    model = randomised(SPEC, config, torch.float64).eval()
    assert isinstance(model, LONGER)
    batch = make_batch(SPEC, dtype=torch.float64)
    inputs = model.embed(batch)
    state = model.encode_user(inputs)
    assert inputs.item_IW is not None
    candidates = torch.cat(
        [
            model.events.candidates(inputs).unsqueeze(1),
            model.levels("item", inputs.item_IW[batch.item_index]),
            model.levels("cross", inputs.cross_NW),
        ],
        1,
    )
    context = model.levels("context", inputs.context_QW)
    seen: list[Tensor] = []
    model.norm_out.register_forward_pre_hook(lambda _module, arguments: seen.append(arguments[0]))
    model(batch)
    for n, q in enumerate(batch.request_index.tolist()):
        begin, middle, end = batch.history_ranges[q].tolist()
        rows = [0, *range(max(begin, end - history_events) + 1, end + 1)]
        ages = age_bucket(batch.request_time_ms[q], state.time_ms[rows])
        ages[0] = AGE_BUCKETS
        part = torch.tensor([int(row > middle and row > 0) for row in rows])
        tokens = model.event_tokens
        x = tokens.mlp(
            state.events_ED[rows]
            + tokens.part[part]
            + tokens.age[ages]
            + tokens.position[torch.arange(len(rows) - 1, -1, -1)]
        )
        first = torch.cat([model.cls, state.tokens_RgD[batch.user_index[q]], context[q]])
        expected = _plain(model, first, _merged(tokens, x), candidates[n])
        torch.testing.assert_close(seen[0][n], expected, rtol=1e-9, atol=1e-9)


def _merged(tokens: EventTokens, x: Tensor) -> Tensor:
    """Groups counted from the newest back, the oldest one filled up with zeros."""
    groups = list[Tensor]()
    for stop in range(len(x), 0, -tokens.merge):
        group = x[max(0, stop - tokens.merge) : stop]
        mask = torch.ones(len(group), len(group), dtype=torch.bool)
        group = _attend(tokens.inner, group, group, mask)
        zeros = x.new_zeros(tokens.merge - len(group), x.shape[1])
        groups.insert(0, tokens.join(torch.cat([zeros, group]).flatten()))
    return torch.stack(groups)


def _plain(model: LONGER, first: Tensor, merged: Tensor, own: Tensor) -> Tensor:
    """The candidate's tokens [S, D] after all layers."""
    g, S = len(first), len(own)
    x = torch.cat([first, merged])
    for block in model.blocks:
        assert isinstance(block, SequenceBlock)
        everything = torch.cat([x, own])
        own = _attend(block, own, everything, torch.ones(S, len(everything), dtype=torch.bool))
        w = min(model.config.query_tokens, len(x) - g)
        positions = [*range(g), *range(len(x) - w, len(x))]
        mask = torch.tensor([[j < g or i < g or j <= i for j in range(len(x))] for i in positions])
        x = _attend(block, x[positions], x, mask)
    return own


def _attend(block: SequenceBlock, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    q = block.query(block.norm_attention(queries))
    k, v = block.key_value(block.norm_attention(tokens)).chunk(2, 1)
    read, d = [], q.shape[1] // block.heads
    for h in range(block.heads):
        part = slice(h * d, (h + 1) * d)
        scores = (q[:, part] @ k[:, part].T / d**0.5).masked_fill(~mask, -torch.inf)
        read.append(scores.softmax(1) @ v[:, part])
    x = queries + block.output(torch.cat(read, 1))
    fed: Tensor = x + block.ffn(block.norm_ffn(x))
    return fed
