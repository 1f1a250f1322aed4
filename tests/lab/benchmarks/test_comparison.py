"""Comparison of deduplicated steps with steps per impression: agreement, counts and memory."""

from __future__ import annotations

import pytest
import torch

from hemix.errors import HemixError, UsageError
from hemix.lab.benchmarks.common import last_line, matmul_peak, run_module
from hemix.lab.benchmarks.comparison import check_agreement, compare_steps, growth_exponents
from hemix.lab.benchmarks.model_step import ModelStep, StepCase, peak_bytes
from hemix.lab.benchmarks.workload import SPEC, Workload, make_batch
from tests.refusals import raises

SMALL = Workload(users=3, impressions_per_user=2, history_length=30)


def test_every_request_sees_the_given_number_of_events() -> None:
    batch = make_batch(SMALL)
    batch.validate(SPEC)
    assert (batch.history_ranges[:, 2] - batch.history_ranges[:, 0] == 30).all()
    assert (batch.users_count, batch.requests_count, batch.candidates_count) == (3, 6, 6)


@pytest.mark.usefixtures("no_peaks")
@pytest.mark.parametrize("kind", ["score", "train"])
@pytest.mark.parametrize("scope", ["core", "whole"])
def test_implementations_agree_and_deduplication_saves_flops(kind: str, scope: str) -> None:
    case = compare_steps("small", StepCase.of(kind, scope, SMALL), repeats=1, memory=False)
    assert case["speedup"] == case["plain_seconds"] / case["ours_seconds"] > 0
    assert 0 < case["flops"] < case["plain_flops"]
    assert case["max_abs_difference"] < 1e-4
    assert (case["users"], case["impressions_per_user"], case["history_length"]) == (3, 2, 30)


def test_training_in_chunks_updates_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """With chunks of 4 impressions gradients add up, and table rows are updated once."""
    monkeypatch.setattr("hemix.lab.benchmarks.model_step.CHUNK", 4)
    case = StepCase.of("train", "whole", SMALL)
    whole, chunked = (ModelStep(case, deduplicate=deduplicate) for deduplicate in (True, False))
    outputs, expected = (step.run(return_outputs=True)[1] for step in (whole, chunked))
    check_agreement("small", outputs, expected, 1e-4)
    torch.testing.assert_close(
        whole.model.tables.weight, chunked.model.tables.weight, rtol=0, atol=1e-4
    )


def test_disagreement_is_an_error_that_names_the_output() -> None:
    outputs, expected = {"logits": torch.zeros(2)}, {"logits": torch.tensor([0.0, 0.5])}
    with raises(HemixError, "bench x", 1, 0.0001, code="disagreement", field="logits"):
        check_agreement("x", outputs, expected, 1e-4)
    assert check_agreement("x", expected, expected, 1e-4) == 0


def test_unknown_kind_or_scope_is_a_usage_error() -> None:
    with raises(UsageError, "'rank'", field="kind"):
        StepCase.of("rank", "core", SMALL)
    with raises(UsageError, "'half'", field="scope"):
        StepCase.of("score", "half", SMALL)


def test_memory_is_measured_in_a_process() -> None:
    case = StepCase.of("score", "core", SMALL)
    assert peak_bytes(case, deduplicate=True, steps=1) > 10 * 2**20


def test_failed_process_is_an_error_with_its_last_line() -> None:
    with raises(HemixError, "bench x", "hemix.nothing", code="process_failed"):
        run_module("hemix.nothing", name="bench x")
    assert last_line("  \n", 3) == "exit code 3"


def test_growth_exponents_of_known_times() -> None:
    cases = [{"n": 1, "ours_seconds": 1.0}, {"n": 10, "ours_seconds": 100.0}]
    assert growth_exponents(cases, "n") == [{"from": 1, "to": 10, "exponent": 2.0}]


def test_peak_of_matrix_products_is_positive() -> None:
    assert matmul_peak(size=64) > 0
