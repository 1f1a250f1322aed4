"""Sequences of requests: which events stand where, by hand."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from hemix.nn.sequences import event_sequences, read_sequences
from hemix.nn.slots import Slots
from tests.batches import make_batch, make_spec, take_requests

CPU = torch.device("cpu")


def test_the_null_event_then_the_newest_events() -> None:
    """A request that sees the events 2 to 6, of which 5 and 6 are real time: of the newest three, 4
    is not.
    """
    batch = take_requests(make_batch(make_spec(), history=30, ragged=False), torch.tensor([0]))
    batch = dataclasses.replace(batch, history_ranges=torch.tensor([[2, 5, 7]]))
    (whole,) = event_sequences(batch, CPU).sequences
    assert whole.rows_BL.tolist() == [[0, 3, 4, 5, 6, 7]]
    assert whole.realtime_BL.int().tolist() == [[0, 0, 0, 0, 1, 1]]
    (newest,) = event_sequences(batch, CPU, newest=3).sequences
    assert newest.rows_BL.tolist() == [[0, 5, 6, 7]]
    assert newest.valid_BL.all() and newest.realtime_BL.int().tolist() == [[0, 0, 1, 1]]
    (one,) = event_sequences(batch, CPU, newest=1).sequences
    assert one.rows_BL.tolist() == [[0, 7]] and one.realtime_BL.int().tolist() == [[0, 1]]


def test_shorter_histories_are_padded_in_front() -> None:
    batch = make_batch(make_spec(), history=12, realtime=3)
    found = event_sequences(batch, CPU)
    requests = torch.cat([sequence.requests_B for sequence in found.sequences])
    assert sorted(requests.tolist()) == list(range(batch.requests_count))
    for sequence in found.sequences:
        for request, rows, valid in zip(
            sequence.requests_B.tolist(), sequence.rows_BL, sequence.valid_BL, strict=True
        ):
            begin, _, end = batch.history_ranges[request].tolist()
            assert rows[valid].tolist() == [0, *range(begin + 1, end + 1)]
            assert bool((valid.int().diff() >= 0).all())


@pytest.mark.parametrize("at_once", [1, 2**21])
def test_candidates_read_some_requests_at_a_time(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two requests with one and two candidates; each adds up its request's tokens."""
    monkeypatch.setattr("hemix.nn.sequences._SCORES_AT_ONCE", at_once)
    layout = Slots(
        rows=[torch.tensor([[[0, 0]], [[1, 2]]])],
        slot_N=torch.tensor([0, 2, 3]),
        request_N=torch.tensor([0, 1, 1]),
    )
    tokens = torch.tensor([[[1.0], [2.0]], [[10.0], [20.0]]])
    read = read_sequences(
        torch.tensor([[0.5], [0.25], [0.125]]),
        layout,
        [(tokens,)],
        1,
        lambda own_BKx, tokens_BLx: own_BKx + tokens_BLx.sum(1, keepdim=True),
    )
    assert read.tolist() == [[3.5], [30.25], [30.125]]
