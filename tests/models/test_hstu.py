"""HSTU's heart: pointwise attention, what a token may read and how far it is, with numbers that a
person can follow; and the whole against one plain sequence per candidate."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hemix.data.spec import TIMELESS_MS
from hemix.models.hstu import HSTU, HSTULayer, Relations, _to_sequence, _within
from hemix.nn.sequences import SequenceGroup
from hemix.nn.slots import Slots
from hemix.nn.time_encoding import AGE_BUCKETS, TIMELESS_BUCKET, age_bucket
from tests.batches import make_batch, make_config, make_spec
from tests.models.test_parity import SMALL, randomised

SPEC = make_spec()
NO_TIME = AGE_BUCKETS
MINUTE = 60_000
START = 1_760_000_000_000


def silu(x: float) -> float:
    return float(F.silu(torch.tensor(x)))


def by_hand() -> HSTULayer:
    """Width 1, n = 2: queries and keys are silu(1), values silu(x), gates silu(3), no norms."""
    layer = HSTULayer(make_config("hstu", token_width=1, attention_heads=1, history_events=2))
    layer.norm_in, layer.norm_out, layer.output = (torch.nn.Identity() for _ in range(3))  # type: ignore[assignment]
    with torch.no_grad():
        layer.project.weight.copy_(torch.tensor([[0.0], [1], [0], [0]]))
        layer.project.bias.copy_(torch.tensor([1.0, 0, 1, 3]))
        layer.time_bias.zero_()
        layer.time_bias[3] = 2.0
        layer.position_bias.zero_()
    return layer


@torch.no_grad()
def test_a_layer_by_hand() -> None:
    """Token 1 reads token 0 (bias 2) and itself: the weights add up to no 1, and a third token that
    it may not read counts nothing.
    """
    layer, score = by_hand(), silu(1.0) ** 2
    relations = Relations(
        seen=torch.tensor([[[1, 0], [1, 1]]]).bool(),
        time_bucket=torch.tensor([[[0, 3], [3, 0]]]),
        distance=torch.zeros(2, 2, dtype=torch.int64),
    )
    keys_values, after = layer(torch.tensor([[[4.0], [5.0]]]), relations)
    assert keys_values[0].tolist() == [
        pytest.approx([silu(1.0), silu(4.0)]),
        pytest.approx([silu(1.0), silu(5.0)]),
    ]
    first = 4 + silu(score) * silu(4.0) / 2 * silu(3.0)
    second = 5 + (silu(score + 2) * silu(4.0) + silu(score) * silu(5.0)) / 2 * silu(3.0)
    assert after.flatten().tolist() == pytest.approx([first, second])


@torch.no_grad()
def test_candidates_read_the_sequence_and_themselves_by_hand() -> None:
    """Two candidates of one request, after a sequence of one token with value 7; neither reads the
    other.
    """
    layer, score = by_hand(), silu(1.0) ** 2
    relations = Relations(
        seen=torch.tensor([[[True]]]),
        time_bucket=torch.tensor([[[3]]]),
        distance=torch.tensor([[0]]),
    )
    number = torch.arange(2)
    layout = Slots(rows=[number.view(1, 1, 2)], slot_N=number, request_N=torch.zeros_like(number))
    keys_values = torch.tensor([[[silu(1.0), 7.0]]])
    after = layer.candidates(torch.tensor([[4.0], [5.0]]), [keys_values], [relations], layout)
    expected = [
        x + (silu(score + 2) * 7 + silu(score) * silu(x)) / 2 * silu(3.0) for x in (4.0, 5.0)
    ]
    assert after.flatten().tolist() == pytest.approx(expected)


def test_relations_by_hand() -> None:
    """One contextual token, a padded place, the null event, two events (one without a time)."""
    sequence = SequenceGroup(
        requests_B=torch.tensor([0]),
        rows_BL=torch.tensor([[0, 0, 1, 2]]),
        valid_BL=torch.tensor([[False, True, True, True]]),
        realtime_BL=torch.zeros(1, 4, dtype=torch.bool),
    )
    times = torch.tensor([[TIMELESS_MS, TIMELESS_MS, START, TIMELESS_MS]])
    own = _within(sequence, times, 1, 10)
    assert own.seen[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
        [1, 0, 1, 1, 1],
    ]
    assert own.distance[4].tolist() == [12, 3, 2, 1, 0] and own.distance[0].tolist() == [12] * 5
    assert own.time_bucket[0, 3].tolist() == [NO_TIME, NO_TIME, NO_TIME, 0, TIMELESS_BUCKET]
    assert own.time_bucket[0, 4, 3] == TIMELESS_BUCKET
    last = _to_sequence(sequence, times, torch.tensor([[START + MINUTE]]), 1, 10)
    minute = int(age_bucket(torch.tensor(START + MINUTE), torch.tensor(START)))
    assert last.time_bucket.flatten().tolist() == [NO_TIME] * 3 + [minute, TIMELESS_BUCKET]
    assert last.distance.flatten().tolist() == [12, 4, 3, 2, 1]
    assert last.seen.flatten().int().tolist() == [1, 0, 1, 1, 1]


@pytest.mark.parametrize("history_events", [5, 50])
@torch.no_grad()
def test_parity_with_one_plain_sequence_per_candidate(history_events: int) -> None:
    """[user ; context ; null ; events ; candidate] in one list, no sharing, no padding."""
    config = make_config(**{**SMALL, "layers": 3}, name="hstu", history_events=history_events)
    model = randomised(SPEC, config, torch.float64).eval()
    assert isinstance(model, HSTU)
    batch = make_batch(SPEC, dtype=torch.float64)
    inputs = model.embed(batch)
    state = model.encode_user(inputs)
    request = model.encode_request(state, inputs)
    assert inputs.item_IW is not None and inputs.cross_NW is not None
    targets = model.tokenizer(
        request.projected_QU, batch.request_index, inputs.item_IW, batch.item_index, inputs.cross_NW
    ).squeeze(1) + model.events.candidates(inputs)
    context = model.contextual("context", inputs.context_QW)
    last = []
    for n, q in enumerate(batch.request_index.tolist()):
        begin, _, end = batch.history_ranges[q].tolist()
        rows = [0, *range(max(begin, end - history_events) + 1, end + 1)]
        first = torch.cat([state.tokens_RcD[batch.user_index[q]], context[q]])
        x = torch.cat([first, state.events_ED[rows], targets[n : n + 1]])
        times = [int(state.time_ms[row]) for row in rows] + [int(batch.request_time_ms[q])]
        last.append(_plain(model, x, times, len(first), history_events)[-1])
    expected = model.heads(model.norm_out(torch.stack(last)), batch.bias)
    torch.testing.assert_close(model(batch), expected, rtol=1e-9, atol=1e-9)


def _plain(model: HSTU, x: Tensor, times: list[int], first: int, most: int) -> Tensor:
    """All tokens [L, D] after all layers."""
    D, L = x.shape[1], x.shape[0]
    for layer in model.layers:
        assert isinstance(layer, HSTULayer)
        projected = F.silu(layer.project(layer.norm_in(x)))
        keys, values, queries, gates = torch.split(projected, D, 1)
        rab = torch.zeros(L, L, dtype=x.dtype)
        for i in range(L):
            for j in range(i + 1):
                without = j < first or i < first
                apart = most + 2 if without else i - j
                bucket = NO_TIME
                if not without and j > first and i > first:  # neither is the null event
                    now, then = (torch.tensor(times[at - first]) for at in (i, j))
                    timeless = TIMELESS_MS in (int(now), int(then))
                    bucket = TIMELESS_BUCKET if timeless else int(age_bucket(now, then))
                rab[i, j] = layer.time_bias[bucket] + layer.position_bias[apart]
        read, d = [], D // layer.heads
        for h in range(layer.heads):
            part = slice(h * d, (h + 1) * d)
            weights = F.silu(queries[:, part] @ keys[:, part].T / d**0.5 + rab).tril()
            read.append(weights @ values[:, part] / most)
        x = x + layer.output(layer.norm_out(torch.cat(read, 1)) * gates)
    return x
