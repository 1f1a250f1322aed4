"""What the commands print, also where metrics are undefined."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hemix.display import (
    Display,
    benchmark_table,
    demo_summary,
    facts,
    manifest_summary,
    training_summary,
)
from hemix.evaluation.evaluate import evaluate_predictions
from hemix.evaluation.report import render_report
from hemix.lab.studies.options import StagePlan, StudyPlan
from tests.evaluation.synthetic import synthetic_predictions


@pytest.mark.parametrize(
    ("peak_bytes", "expected"), [(394_264_576, "376 MiB"), (1_136_656_384, "1.06 GiB")]
)
def test_peak_memory_is_formatted_alike_in_summary_and_report(
    peak_bytes: int, expected: str
) -> None:
    metrics = {
        "steps": 3,
        "train_seconds": 1.0,
        "impressions_per_second": 10.0,
        "peak_bytes": peak_bytes,
    }
    assert expected in training_summary(metrics, Path("data"), Path("run"))
    assert expected in render_report(metrics=metrics)


def test_the_demo_summary_of_one_class_leaves_out_the_comparison() -> None:
    labels = synthetic_predictions().labels.copy()
    labels[:] = 0
    figures = evaluate_predictions(synthetic_predictions(labels=labels), replicates=2)
    summary = demo_summary(figures, Path("out"))
    assert "no positives" in summary and "hemix serve out" in summary
    assert "popularity alone" not in summary
    assert "popularity alone" in demo_summary(
        evaluate_predictions(synthetic_predictions(), replicates=2), Path("out")
    )


def test_training_display_prints_header_evaluations_and_stop() -> None:
    console = Console(file=io.StringIO(), width=200)
    display = Display(console).training()
    header = {
        "model": "hemix",
        "size": "tiny",
        "dense_parameters": 1234,
        "embedding_parameters": 56,
    }
    more = {"train_impressions": 640, "steps": 10, "resumed_at": 3, "device": "cpu", "processes": 2}
    rest = {
        "gradient_accumulation": 4,
        "embedding_backend": "PyTorch",
        "threads": 1,
        "precision": "fp32",
        "automatic": {"batch_size": 32, "warmup_steps": 1},
    }
    state = {"nothing_to_resume": False, "half_written": ["step-00000004"]}
    display.on_start({**header, **more, **rest, **state})
    display.on_step(4, 10)
    display.on_record(
        {"step": 4, "loss": 0.5, "progressive_auc": None, "impressions_per_second": 9.0}
    )
    display.on_record({"step": 4, "valid_loss": 0.25, "valid_auc": None})
    display.on_record({"step": 8, "stopped_early": 2, "kept_step": 4})
    output = console.file
    assert isinstance(output, io.StringIO)
    lines = output.getvalue().splitlines()
    assert len(lines) == 6
    assert "step-00000004" in lines[0]
    assert lines[1].endswith("640 impressions: batch_size 32, warmup_steps 1")
    assert "640 impressions in 10 steps" in lines[2]
    assert "resumed at step 3" in lines[2] and lines[3].startswith("cpu, 2 processes of 1 threads")
    assert lines[3].endswith("fp32, 4 slots a step; tables: PyTorch")
    assert lines[4] == "step 4: valid loss 0.2500, AUC not defined"
    assert "step 8" in lines[5] and "step 4 are kept" in lines[5]


def test_study_display_prints_the_estimate_and_every_trial() -> None:
    console = Console(file=io.StringIO(), width=200)
    display = Display(console).study()
    stage = StagePlan(stage="compare", trials=6, finished=2, seconds=5400, unknown=("trees",))
    display.on_plan(StudyPlan(stages=(stage,), jobs=2, threads=1))
    display.on_trial("hemix-data-s0-1234 started", 2, 6)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [
        "compare: 6 trials, 2 finished; about 1.50 core hours; cost unknown: trees",
        "2 at a time with 1 threads each: about 0.75 hours",
        "2 of 6: hemix-data-s0-1234 started",
    ]


def test_manifest_summary_lists_every_irregularity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hemix").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    group = {"rows": 10, "positives": 3}
    suspect = {
        "unknown": group,
        "known": {"rows": 100, "positives": 50},
        "beyond_chance": True,
        "agrees_with_valid": False,
        "z": 4.0,
    }
    split = {
        "rows": 10,
        "requests": 5,
        "users": 3,
        "positives": {"click": 2},
        "unknown": {"click": 1},
    }
    manifest = {
        "splits": {"train": split},
        "history": {"events": 7, "disorder": 2, "columns_without_action": ["kind"]},
        "impressions": {"given_violated": {"order": 4}, "duplicates": 3},
        "user_table": {"duplicates": 6},
        "item_table": {"duplicates": 0},
        "tables": {"items": {"rows": 0}},
        "join_example": {"items": "i1"},
        "join_rate": {"items": 0.5},
        "label_rates": {"train": {"item.brand": {"click": suspect}}, "valid": {}},
    }
    lines = manifest_summary(manifest, Path("data")).splitlines()
    notes = [line for line in lines if line.startswith("noted: ")]
    expected = (
        "click is unknown on 1 of 10",
        "order was 1 on 4 rows",
        "6 users",
        "items has no rows",
        "50.0% of the impressions",
        "kind",
        "3 impressions were exact duplicates (dropped), 2 events were out of time order",
    )
    assert len(notes) == len(expected)
    assert all(part in note for part, note in zip(expected, notes, strict=True))
    [warning] = [line for line in lines if line.startswith("warning: ")]
    assert "item.brand have click rate 0.30000 on train (known: 0.50000)" in warning
    assert lines[-1] == "Next: hemix train --data data --out RUN"


def test_a_benchmark_case_of_many_values_is_a_column() -> None:
    machine = {"cpu": "x", "cores": 2}
    few = benchmark_table({"machine": machine, "cases": [{"a_b": 1234, "c": None}, {"a_b": 0.5}]})
    assert [row.split() for row in few.splitlines() if "1,234" in row or "0.5" in row] == [
        ["│", "1,234", "│", "-", "│"],
        ["│", "0.5", "│", "-", "│"],
    ]
    cases = [{f"k_{key}": key for key in range(9)}] * 7
    many = benchmark_table({"machine": machine, "cases": cases})
    rows = [row for row in many.splitlines() if "k 8" in row]
    assert [row.count(" 8 ") for row in rows] == [7, 2]


def test_facts_are_indented_by_level() -> None:
    lines = facts({"a": 1, "b": {"c": [1, 2], "d": None}}).splitlines()
    assert [line.split() for line in lines] == [["a", "1"], ["b"], ["c", "1,", "2"], ["d", "-"]]
    assert lines[2].startswith("  c")
