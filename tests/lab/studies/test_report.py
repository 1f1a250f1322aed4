"""A study's report: its headline follows the primary interval, and its tables have units."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hemix.lab.studies.report import headline, write_study_report


def comparison(low: float, high: float) -> dict[str, Any]:
    """A comparison of HeMix with DLRM whose click AUCs differ by between ``low`` and ``high``."""
    auc = {"hemix": 0.75, "dlrm": 0.75 - (low + high) / 2}
    pair = {
        "a": "hemix",
        "b": "dlrm",
        "task": "click",
        "metric": "auc",
        "delta": (low + high) / 2,
        "ci95": [low, high],
    }
    models = {label: {"tasks": {"click": {"auc": {"mean": value}}}} for label, value in auc.items()}
    return {"models": models, "pairs": [{**pair, "primary": True}]}


@pytest.mark.parametrize(
    ("low", "high", "relation"),
    [
        (0.01, 0.03, "HeMix is ahead of DLRM:"),
        (-0.03, -0.01, "HeMix is behind DLRM:"),
        (-0.01, 0.02, "HeMix is not significantly different from DLRM:"),
    ],
)
def test_headline_follows_the_interval(low: float, high: float, relation: str) -> None:
    assert relation in headline("compare", comparison(low, high), "click")


def model(auc: float | None, **figures: Any) -> dict[str, Any]:
    """A model of compare.json."""
    tasks = {"click": {} if auc is None else {"auc": {"mean": auc}}}
    costs = {
        "dense_parameters": 1_234_567,
        "flops_per_impression": None,
        "train_seconds": 200,
        "peak_bytes": 3 * 2**30,
        "settings": {"train.dense_learning_rate": 0.00123456, "model.layers": 2},
        "trials": [{"code": "c0ffee00"}],
    }
    return {"tasks": tasks, **costs, **figures}


def study(models: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The content of a study's JSON file."""
    return {
        "split": "valid",
        "models": models,
        "pairs": [],
        "failed": [],
        "datasets": [{"name": "data", "rows": {"valid": 1500}}],
        "seeds": [[0, 1]],
        "test_accesses": [],
        "versions": {"hemix": "0"},
        "machine": {"cpu": "x", "cores": 2, "memory_bytes": 2**34},
        **more,
    }


def page(tmp_path: Path, content: dict[str, Any]) -> str:
    write_study_report(tmp_path / "report.html", "compare", content)
    return (tmp_path / "report.html").read_text()


def test_a_metric_that_a_model_lacks_is_a_dash_and_costs_have_units(tmp_path: Path) -> None:
    text = page(tmp_path, study({"dlrm": model(0.75), "trees": model(None)}))
    rows = re.findall(r"<tr>.*?</tr>", text, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    assert ["DLRM", "0.7500"] in cells
    assert ["trees", "–"] in cells
    (costs,) = (row for row in cells if row[0] == "trees" and len(row) == 6)
    assert costs[1:5] == ["1.23 M", "–", "3 min 20 s", "3.00 GiB"]
    assert costs[5] == "train.dense_learning_rate=0.00123, model.layers=2"


def test_failures_and_trials_of_several_versions_are_shown(tmp_path: Path) -> None:
    whole = study({"dlrm": model(0.75)})
    assert "Failures" not in page(tmp_path, whole)
    other = model(0.5, trials=[{"code": "0badcafe"}])
    failed = [{"trial": "trees-s0", "error": "the disk is <full>"}]
    text = page(tmp_path, study({"dlrm": model(0.75), "x": other}, failed=failed))
    assert "trees-s0" in text and "the disk is &lt;full&gt;" in text
    assert "0badcafe, c0ffee00: trials of several versions" in text


def test_headline_without_an_auc_counts_the_models() -> None:
    content = study({"a": model(None), "b": model(None)})
    assert headline("compare", content, "click") == "2 models."
    assert "DLRM has the highest click AUC: 0.7500" in headline(
        "ablate", study({"dlrm": model(0.75), "b": model(0.5)}), "click"
    )
