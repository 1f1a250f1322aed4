"""A measured step: its stopwatch, its FLOPs, and its table gradients."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from hemix.lab.benchmarks.common import benchmark_json, matmul_peak
from hemix.lab.benchmarks.cost_point import Point, measure_point
from hemix.lab.benchmarks.memory import MemorySampler
from hemix.lab.benchmarks.model_step import ModelStep, StepCase, Stopwatch
from hemix.lab.benchmarks.workload import Workload


def test_a_stopwatch_adds_up_the_products_of_its_blocks() -> None:
    """[2, 3] @ [3, 5] has 2 x 2 x 3 x 5 = 60 operations."""
    a, b = torch.ones(2, 3), torch.ones(3, 5)
    stopwatch, plain = Stopwatch(count_flops=True), Stopwatch()
    for _ in range(3):
        with stopwatch:
            a @ b
        a @ b  # outside of a block
        with plain:
            time.sleep(0.01)
    assert stopwatch.flops == 180
    assert plain.flops == 0
    assert plain.seconds >= 0.03


@pytest.mark.parametrize("kind", ["score", "train"])
def test_operations_grow_with_the_users(kind: str) -> None:
    """Twice the users have twice the operations: nothing is done once for a batch.

    The update of the dense weights, which is, has no product in it.
    """
    flops = []
    for users in (2, 4):
        load = Workload(users=users, history_length=30)
        stopwatch = Stopwatch(count_flops=True)
        step = ModelStep(StepCase.of(kind, "core", load), deduplicate=True)
        step.run(stopwatch=stopwatch)
        flops.append(stopwatch.flops)
    assert flops[1] == pytest.approx(2 * flops[0], rel=0.02)


def test_without_deduplication_every_candidate_pays_for_the_history() -> None:
    """What deduplication saves is the work on the history, once for every candidate but one."""
    saved = []
    for candidates in (3, 5):
        load = Workload(users=1, candidates=candidates, history_length=200)
        case = StepCase.of("score", "core", load, absorb="never")
        flops = []
        for deduplicate in (True, False):
            stopwatch = Stopwatch(count_flops=True)
            ModelStep(case, deduplicate=deduplicate).run(stopwatch=stopwatch)
            flops.append(stopwatch.flops)
        saved.append((flops[1] - flops[0]) / (candidates - 1))
    assert saved[0] == saved[1] > 0


def test_one_process_moves_nothing_and_counts_its_vectors() -> None:
    """2 users of 3 requests and 30 events: 32 events each, and the distinct items besides.

    A user has 3 fields, a request 3, a candidate 1 and an item 4.
    """
    load = Workload(users=2, impressions_per_user=3, history_length=30)
    point = Point(name="p", load=load, item_rows=100_000)
    before = torch.get_num_threads()
    figures = measure_point(point, None, repeats=1)
    torch.set_num_threads(before)
    assert (figures["moved_bytes"], figures["others"], figures["impressions"]) == (0, 0, 6)
    items = (figures["vectors"] - 64 - 2 * 3 - 6 * 3 - 6 * 1) / 4
    assert items == int(items) and 1 <= items <= 64 + 6
    assert figures["event_vectors"] % 64 == 0
    assert figures["seconds"] > 0 and figures["flops"] > 0


def test_the_peak_is_of_the_largest_product_that_is_fast_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1 ms at 256, 8 ms at 512 and 64 ms at 1,024, with 50 ms as the limit."""
    sizes = []
    product = torch.mm

    def slow(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        sizes.append(a.shape[0])
        time.sleep(0.001 * (a.shape[0] / 256) ** 3)
        return product(a, b)

    monkeypatch.setattr(torch, "mm", slow)
    monkeypatch.setattr("hemix.lab.benchmarks.common._PRODUCT_SECONDS_MAX", 0.05)
    peak = matmul_peak(size=1024)
    assert set(sizes) == {256, 512}
    assert 0 < peak <= 2 * 512**3 / 0.008


def test_the_json_says_how_it_was_measured() -> None:
    content = benchmark_json([{"name": "x"}], growth={"a": 1})
    assert (content["cases"], content["growth"]) == ([{"name": "x"}], {"a": 1})
    assert content["machine"]["threads"] == torch.get_num_threads()
    assert content["machine"]["torch"] == torch.__version__


def test_the_memory_of_a_process_is_sampled_while_the_block_runs() -> None:
    code = "print(flush=True); input(); held = bytearray(64 * 2**20); print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdout.readline()
    with MemorySampler(process.pid) as sampler:
        before = sampler.figures()["server_peak_bytes"]
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        deadline = time.monotonic() + 20
        while sampler.figures()["server_peak_bytes"] < before + 60 * 2**20:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    process.communicate(b"\n")
    figures = sampler.figures()
    assert set(figures) == {"server_peak_bytes"}, "under five minutes there is no trend"
    assert before < 60 * 2**20 < figures["server_peak_bytes"]
