"""``hemix scale``: sizes, history lengths and the reported scaling laws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hemix.data.dataset import Dataset
from hemix.errors import UsageError
from hemix.lab.benchmarks.workload import SPEC
from hemix.lab.studies.candidate import Candidate
from hemix.lab.studies.datasets import open_datasets
from hemix.lab.studies.scale import SIZES, ScaleConfig, lengths_for, scale
from hemix.models import count_parameters
from tests.lab.studies.in_process import trials_in_process
from tests.refusals import raises

FAST = {"train.batch_size": 512, "train.warmup_steps": 1}


def test_sizes_cover_two_decades_of_parameters() -> None:
    sizes = [
        count_parameters(SPEC, Candidate.from_overrides(name, changes).settings.model)[0]
        for name, changes in SIZES.items()
    ]
    assert len(sizes) >= 5
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 100 * sizes[0]


def test_shortened_history_has_the_newest_events(planted_data: Path) -> None:
    whole, cut = (
        Dataset(planted_data).split("valid"),
        Dataset(planted_data, history_events_max=3).split("valid"),
    )
    requests = np.arange(whole.requests)
    a, b = whole.batch(requests), cut.batch(requests)
    b.validate(Dataset(planted_data).spec)
    seen = (b.history_ranges[:, 2] - b.history_ranges[:, 0]).tolist()
    assert max(seen) == 3
    for q in requests.tolist():
        (first, middle, end), (cut_first, cut_middle, cut_end) = (
            a.history_ranges[q].tolist(),
            b.history_ranges[q].tolist(),
        )
        assert cut_end - cut_first == min(3, end - first)
        assert cut_end - cut_middle == min(3, end - middle)
        assert (
            b.event_time_ms[cut_first:cut_end].tolist()
            == a.event_time_ms[max(first, end - 3) : end].tolist()
        )


def test_default_lengths_end_with_the_longest_history(planted_data: Path) -> None:
    dataset = open_datasets([planted_data], verify_test=False)[0][0]
    longest = int(dataset.dataset.manifest["history"]["max"])
    assert lengths_for(dataset) == [3, 10, longest]


def test_scaling_study_fits_every_axis(planted_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with trials_in_process() as started:
        scale(
            planted_data,
            out,
            ScaleConfig(
                seeds=1,
                sizes=["width_8", "width_16"],
                lengths=[2, 8],
                settings={**FAST, "model.layers": 1},
            ),
        )
    assert len(started) == 4
    content = json.loads((out / "scale.json").read_text())
    assert (content["sizes"], content["histories"]) == (
        ["width_8", "width_16"],
        ["history_2", "history_8"],
    )
    axes = {fit["axis"] for fit in content["fits"]}
    assert axes == {"dense_parameters", "flops_per_impression", "history_events"}
    for fit in content["fits"]:
        models = [content["models"][point["label"]] for point in fit["points"]]
        for point, model in zip(fit["points"], models, strict=True):
            assert point["value"] == pytest.approx(
                model["tasks"][fit["task"]][fit["metric"]]["mean"]
            )
            assert point["ci95"][0] <= point["value"] <= point["ci95"][1]
            if fit["axis"] != "history_events":
                assert point["x"] == model[fit["axis"]]
        assert fit["law"]["slope_ci95"][0] <= fit["law"]["slope_ci95"][1]
        assert (fit["law"]["a"], fit["law"]["has_asymptote"]) == (None, False)
        assert "do not determine an asymptote" in fit["reading"]
    short, long = (content["models"][name]["flops_per_impression"] for name in content["histories"])
    assert short < long
    report = (out / "report.html").read_text()
    assert all(label in report for label in content["models"]) and "FLOPs an impression" in report
    assert "$" not in report, "tick labels are not TeX"


def test_invalid_sizes_and_lengths_are_usage_errors(planted_data: Path, tmp_path: Path) -> None:
    with raises(UsageError, "width_7", "width_8, ", field="--sizes"):
        scale(planted_data, tmp_path / "out", ScaleConfig(sizes=["width_7"]))
    with raises(UsageError, "[0]", 1, field="--lengths"):
        scale(planted_data, tmp_path / "out", ScaleConfig(lengths=[0]))
    with raises(UsageError, "--lengths", 1, field="--sizes"):
        scale(planted_data, tmp_path / "out", ScaleConfig(sizes=["width_8"], lengths=[]))
