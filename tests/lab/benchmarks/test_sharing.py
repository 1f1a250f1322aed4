"""The benchmarks of sharing at a small size: cases, scopes, and that differing sides give no
figures.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from hemix.errors import HemixError, UsageError
from hemix.lab.benchmarks import run_benchmark
from hemix.lab.benchmarks.chart import draw
from hemix.lab.benchmarks.common import agree, compare, exponents, matmul_peak
from hemix.lab.benchmarks.sides import Side, SideCase, peak_bytes
from hemix.lab.benchmarks.workload import SPEC, Workload, make_batch

FEW = Workload(users=3, impressions_per_user=2, history_length=30)


def test_every_request_sees_the_stated_number_of_events() -> None:
    batch = make_batch(FEW)
    batch.validate(SPEC)
    assert (batch.history_ranges[:, 2] - batch.history_ranges[:, 0] == 30).all()
    assert (batch.users_count, batch.requests_count, batch.candidates_count) == (3, 6, 6)


@pytest.mark.parametrize("kind", ["score", "train"])
@pytest.mark.parametrize("scope", ["core", "whole"])
def test_a_case_compares_and_counts(kind: str, scope: str) -> None:
    case = compare("small", SideCase.of(kind, scope, FEW), repeats=1, memory=False)
    assert case["speedup"] == case["plain_seconds"] / case["ours_seconds"] > 0
    assert 0 < case["flops"] < case["plain_flops"]
    assert case["max_abs_difference"] < 1e-4
    assert (case["users"], case["impressions_per_user"], case["history_length"]) == (3, 2, 30)


def test_training_in_chunks_updates_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 impressions: gradients add up, and the tables' rows are updated once."""
    monkeypatch.setattr("hemix.lab.benchmarks.sides.CHUNK", 4)
    ours, plain = (
        Side(SideCase.of("train", "whole", FEW), shared=shared) for shared in (True, False)
    )
    agree("small", ours.step(check=True)[1], plain.step(check=True)[1], 1e-4)
    torch.testing.assert_close(
        ours.model.tables.weight, plain.model.tables.weight, rtol=0, atol=1e-4
    )


def test_sides_that_differ_give_no_figures() -> None:
    with pytest.raises(HemixError, match=r"differ in logits by 1 of its norm"):
        agree("x", {"logits": torch.zeros(2)}, {"logits": torch.tensor([0.0, 0.5])}, 1e-4)


def test_a_side_alone_says_its_memory() -> None:
    assert peak_bytes(SideCase.of("score", "core", FEW), shared=True, steps=1) > 10 * 2**20


def test_growth_exponents() -> None:
    cases = [{"n": 1, "ours_seconds": 1.0}, {"n": 10, "ours_seconds": 100.0}]
    assert exponents(cases, "n") == [{"from": 1, "to": 10, "exponent": 2.0}]


def test_mfu_at_size_tiny() -> None:
    (case,) = run_benchmark("mfu", scale=0.02, size="tiny")["cases"]
    assert case["size"] == "tiny" and case["flops"] > 0 and case["dense_parameters"] > 100_000
    assert matmul_peak(size=64) > 0


def test_options_that_a_benchmark_does_not_have_are_refused() -> None:
    with pytest.raises(UsageError, match="--sweep: hemix bench mfu has no such option"):
        run_benchmark("mfu", sweep=True)
    with pytest.raises(UsageError, match="--size huge"):
        run_benchmark("mfu", size="huge")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "panels"), [("score", 2), ("train", 2)])
def test_a_sweep_is_drawn(
    tmp_path: Path, name: str, panels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemix.lab.benchmarks.common.peak_bytes", lambda *_, **__: 1)
    figures = run_benchmark(name, scale=0.02, sweep=True)
    draw(figures, tmp_path / "sweep.svg")
    root = ElementTree.parse(tmp_path / "sweep.svg").getroot()
    axes = [element for element in root.iter() if (element.get("id") or "").startswith("axes_")]
    assert len(axes) == panels
    if name == "train":
        queries = [point["queries_per_history"] for point in figures["crossover"]]
        assert queries == [8, 16, 24, 32, 48, 64]
