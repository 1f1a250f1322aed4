"""What the commands print: one figure has one form, and what is absent breaks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.display import demo_summary, training_summary
from hemix.evaluation.evaluate import evaluate_predictions
from hemix.evaluation.report import render_report
from tests.evaluation.made import predictions


@pytest.mark.parametrize(("peak_bytes", "expected"), [(394_264_576, "376 MiB"), (1_136_656_384, "1.06 GiB")])
def test_a_peak_of_memory_is_one_figure_in_log_and_report(peak_bytes: int, expected: str) -> None:
    metrics = {"steps": 3, "train_seconds": 1.0, "impressions_per_second": 10.0, "peak_bytes": peak_bytes}
    assert expected in training_summary(metrics, Path("data"), Path("run"))
    assert expected in render_report(metrics=metrics)


def test_a_demo_whose_test_day_has_one_class_ends_all_the_same() -> None:
    labels = predictions().labels.copy()
    labels[:] = 0
    figures = evaluate_predictions(predictions(labels=labels), replicates=2)
    told = demo_summary(figures, Path("out"))
    assert "no positives" in told and "hemix serve out" in told
    assert "popularity alone" in demo_summary(evaluate_predictions(predictions(), replicates=2), Path("out"))
