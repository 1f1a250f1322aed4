"""What the commands print: one figure has one form, and what is absent breaks nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from hemix.display import Display, demo_summary, training_summary
from hemix.evaluation.evaluate import evaluate_predictions
from hemix.evaluation.report import render_report
from hemix.lab.studies.options import StagePlan, StudyPlan
from tests.evaluation.synthetic import synthetic_predictions


@pytest.mark.parametrize(
    ("peak_bytes", "expected"), [(394_264_576, "376 MiB"), (1_136_656_384, "1.06 GiB")]
)
def test_a_peak_of_memory_is_one_figure_in_log_and_report(peak_bytes: int, expected: str) -> None:
    metrics = {
        "steps": 3,
        "train_seconds": 1.0,
        "impressions_per_second": 10.0,
        "peak_bytes": peak_bytes,
    }
    assert expected in training_summary(metrics, Path("data"), Path("run"))
    assert expected in render_report(metrics=metrics)


def test_a_demo_whose_test_day_has_one_class_ends_all_the_same() -> None:
    labels = synthetic_predictions().labels.copy()
    labels[:] = 0
    figures = evaluate_predictions(synthetic_predictions(labels=labels), replicates=2)
    told = demo_summary(figures, Path("out"))
    assert "no positives" in told and "hemix serve out" in told
    assert "popularity alone" in demo_summary(
        evaluate_predictions(synthetic_predictions(), replicates=2), Path("out")
    )


def test_the_display_of_a_run_shows_its_header_evaluations_and_the_stop() -> None:
    console = Console(file=io.StringIO(), width=200)
    shown = Display(console).training()
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
    }
    state = {"nothing_to_resume": False, "half_written": ["step-00000004"]}
    shown.on_start({**header, **more, **rest, **state})
    shown.on_step(4, 10)
    shown.on_record(
        {"step": 4, "loss": 0.5, "progressive_auc": None, "impressions_per_second": 9.0}
    )
    shown.on_record({"step": 4, "valid_loss": 0.25, "valid_auc": None})
    shown.on_record({"step": 8, "stopped_early": 2, "kept_step": 4})
    output = console.file
    assert isinstance(output, io.StringIO)
    lines = output.getvalue().splitlines()
    assert len(lines) == 5
    assert "step-00000004" in lines[0] and "640 impressions in 10 steps" in lines[1]
    assert "resumed at step 3" in lines[1] and lines[2].startswith("cpu, 2 processes of 1 threads")
    assert lines[2].endswith("fp32, 4 microbatches a step; tables: PyTorch")
    assert lines[3] == "step 4: valid loss 0.2500, AUC not defined"
    assert "step 8" in lines[4] and "step 4 are kept" in lines[4]


def test_display_of_a_study_prints_the_estimate_and_every_trial() -> None:
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
