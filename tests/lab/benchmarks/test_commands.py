"""``hemix bench``: every benchmark of one process at its smallest size, and invalid options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hemix.cli.app import app
from hemix.errors import UsageError
from hemix.lab.benchmarks import BENCHMARKS, BenchOptions, run_benchmark, score, train
from tests.lab.benchmarks.conftest import PEAK_BYTES, PEAK_FLOPS
from tests.lab.benchmarks.figures import MACHINE_KEYS, assert_figures
from tests.refusals import raises

STEP_KEYS = {
    "name",
    "scope",
    "ours_seconds",
    "plain_seconds",
    "speedup",
    "plain_absorbed_seconds",
    "speedup_over_absorbed",
    "ours_peak_bytes",
    "plain_peak_bytes",
    "flops",
    "plain_flops",
    "plain_absorbed_flops",
    "fraction_of_peak",
    "plain_fraction_of_peak",
    "peak_flops_per_second",
    "max_abs_difference",
    "users",
    "candidates",
    "history_length",
    "impressions_per_user",
    "dtype",
    "state_kept",
    "repeats",
}
MFU_KEYS = {
    "name",
    "scope",
    "size",
    "device",
    "dense_parameters",
    "embedding_parameters",
    "users",
    "impressions_per_user",
    "impressions",
    "history_length",
    "dtype",
    "ours_seconds",
    "impressions_per_second",
    "flops",
    "flops_per_second",
    "fraction_of_peak",
    "peak_flops_per_second",
    "peak_is",
    "ours_peak_bytes",
}


def bench(tmp_path: Path, name: str, *options: str) -> dict[str, Any]:
    """Run the command and read its JSON."""
    file = tmp_path / "figures.json"
    arguments = ["bench", name, "--scale", "0.0001", "--json", str(file), *options]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    figures: dict[str, Any] = json.loads(file.read_text())
    assert figures["schema_version"] == 1
    assert figures["machine"].keys() >= MACHINE_KEYS
    return figures


@pytest.mark.usefixtures("no_peaks")
def test_score_at_its_smallest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "_PRECISIONS", ("fp32",))  # bf16 is slow on some processors
    cases = bench(tmp_path, "score")["cases"]
    assert [case["scope"] for case in cases] == ["core", "whole"]
    for case in cases:
        assert_figures(case, STEP_KEYS)
        assert (case["candidates"], case["history_length"], case["users"]) == (2, 20, 1)
        assert case["plain_peak_bytes"] == PEAK_BYTES
        expected = case["flops"] / case["ours_seconds"] / PEAK_FLOPS
        assert case["fraction_of_peak"] == pytest.approx(expected)


@pytest.mark.usefixtures("no_peaks")
def test_score_sweep_measures_equal_sizes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "_SCOPES", ())
    monkeypatch.setattr(score, "_LENGTHS", (100, 200_000, 300_000))
    monkeypatch.setattr(score, "_COUNTS", (1, 100, 20_000))
    figures = bench(tmp_path, "score", "--sweep")
    lengths = [case["history_length"] for case in figures["cases"][:2]]
    counts = [case["candidates"] for case in figures["cases"][2:]]
    assert (lengths, counts) == ([20, 30], [1, 2])
    for key, sizes in (("history_length", lengths), ("candidates", counts)):
        (step,) = figures["growth"][key]
        assert_figures(step, {"from", "to", "exponent"})
        assert [step["from"], step["to"]] == sizes


@pytest.mark.usefixtures("no_peaks")
def test_train_at_its_smallest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_SHAPES", ((2, 30),))
    monkeypatch.setattr(train, "_SCOPES", ("whole",))
    (case,) = bench(tmp_path, "train")["cases"]
    assert_figures(case, STEP_KEYS)
    assert (case["users"], case["impressions_per_user"], case["history_length"]) == (2, 2, 30)
    assert case["max_abs_difference"] < 1e-4


@pytest.mark.usefixtures("no_peaks")
def test_train_sweep_has_exponents_and_crossover(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(train, "_SHAPES", ())
    monkeypatch.setattr(train, "_SWEEP_LENGTH", 30)
    monkeypatch.setattr(train, "_SWEEP_IMPRESSIONS", (1, 2))
    monkeypatch.setattr(train, "_CROSSOVER_IMPRESSIONS", (1,))
    figures = bench(tmp_path, "train", "--sweep")
    (step,) = figures["growth"]["impressions_per_user"]
    assert (step["from"], step["to"]) == (1, 2)
    assert [case["impressions_per_user"] for case in figures["cases"]] == [1, 2]
    (point,) = figures["crossover"]
    assert_figures(point, {"queries_per_history", "absorbed_seconds", "projected_seconds"})
    assert point["queries_per_history"] == 8


@pytest.mark.usefixtures("no_peaks")
def test_mfu_at_its_smallest_size(tmp_path: Path) -> None:
    (case,) = bench(tmp_path, "mfu", "--size", "tiny")["cases"]
    assert_figures(case, MFU_KEYS)
    assert (case["size"], case["users"], case["impressions"]) == ("tiny", 1, 4)
    assert case["flops"] > 0 and case["dense_parameters"] > 100_000
    assert case["flops_per_second"] == pytest.approx(case["flops"] / case["ours_seconds"])


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"sweep": True}, "mfu"),
        ({"run": Path("run")}, "mfu"),
        ({"size": "tiny"}, "score"),
        ({"seconds": 1.0}, "train"),
        ({"device": "cpu"}, "costs"),
        ({"processes": 2}, "growth"),
        ({"partitions": 2}, "loader"),
    ],
)
def test_option_of_another_benchmark_is_a_usage_error(option: dict[str, Any], name: str) -> None:
    (flag,) = option
    with raises(UsageError, name, field=f"--{flag}"):
        run_benchmark(name, options=BenchOptions(**option))


def test_unknown_names_are_usage_errors() -> None:
    with raises(UsageError, "'speed'", ", ".join(BENCHMARKS), code="unknown_name", field="name"):
        run_benchmark("speed")
    with raises(UsageError, "huge", "tiny, base, small, large", field="--size"):
        run_benchmark("mfu", options=BenchOptions(size="huge"))
