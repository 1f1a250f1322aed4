"""``hemix suite``: several logs with schemas of their own, one table, one correction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hemix.display import suite_table
from hemix.errors import UsageError
from hemix.evaluation.differences import holm
from hemix.lab.derived_logs import derive_logs
from hemix.lab.studies.suite import SuiteConfig, suite
from hemix.preparation import prepare
from tests.lab.studies.in_process import FAST, trials_in_process
from tests.planted import write_logs
from tests.refusals import raises

CONFIG = SuiteConfig(
    models=["hemix", "dlrm"],
    seeds=1,
    settings={key: value for key, value in FAST.items() if key.startswith("train.")},
)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two datasets of different schemas: the second has no users, so no matches."""
    root = tmp_path_factory.mktemp("suite")
    write_logs(root / "logs", users=25)
    derive_logs("anonymous_requests", root / "logs", root / "anonymous-logs")
    prepare(root / "logs", root / "planted")
    prepare(root / "anonymous-logs", root / "anonymous")
    return [root / "planted", root / "anonymous"]


@pytest.fixture(scope="module")
def study(logs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    with trials_in_process() as started:
        suite(logs, out, CONFIG)
    assert len(started) == 4
    return out


def read(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "suite.json").read_text())
    return content


def test_every_log_has_its_models_baselines_and_differences(study: Path) -> None:
    content = read(study)
    assert (content["split"], content["reference"], content["failed"]) == ("valid", "hemix", [])
    assert list(content["logs"]) == ["planted", "anonymous"]
    planted, anonymous = content["logs"].values()
    assert list(planted["models"]) == ["hemix", "dlrm"]
    assert list(planted["baselines"]) == ["popularity", "position", "touched_before"]
    assert list(anonymous["baselines"]) == ["popularity", "position"]
    for log in (planted, anonymous):
        assert log["task"] == "click"
        assert [(p["a"], p["b"], p["metric"]) for p in log["pairs"]] == [
            ("hemix", "dlrm", "auc"),
            ("hemix", "dlrm", "logloss"),
        ]
        for pair in log["pairs"]:
            a, b = (
                log["models"][name]["tasks"]["click"][pair["metric"]]["mean"]
                for name in ("hemix", "dlrm")
            )
            assert pair["delta"] == pytest.approx(a - b, abs=1e-12)
            assert pair["ci95"][0] <= pair["delta"] <= pair["ci95"][1]


def test_p_values_are_adjusted_over_all_logs_of_a_metric(study: Path) -> None:
    for metric in ("auc", "logloss"):
        pairs = [
            pair
            for log in read(study)["logs"].values()
            for pair in log["pairs"]
            if pair["metric"] == metric
        ]
        assert [pair["p_holm"] for pair in pairs] == holm([pair["p"] for pair in pairs])


def test_a_second_call_continues(logs: list[Path], study: Path) -> None:
    before = read(study)
    with trials_in_process() as started:
        suite(logs[:1], study, CONFIG)
        assert started == []
        assert suite(logs, study, CONFIG)["logs"] == before["logs"]
    assert started == []


def test_table_and_report_have_a_row_for_every_log(study: Path) -> None:
    content = read(study)
    page, table = (study / "report.html").read_text(), suite_table(content)
    value = f"{content['logs']['anonymous']['baselines']['popularity']['auc']:.4f}"
    for text in (page, table):
        assert value in text
        assert "touched before" in text
    assert page.count('<th scope="row">anonymous</th>') == 4
    assert "<script" not in page


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (SuiteConfig(models=["dlrm"]), "--reference"),
        (SuiteConfig(models=["hemix"], seeds=0), "--seeds"),
        (SuiteConfig(models=[]), "--models"),
    ],
)
def test_a_wrong_argument_is_refused(
    config: SuiteConfig, field: str, logs: list[Path], tmp_path: Path
) -> None:
    with raises(UsageError, field=field):
        suite(logs, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_two_logs_of_one_name_are_refused(logs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "planted").symlink_to(logs[0])
    with raises(UsageError, "planted", code="repeated_argument", field="--data"):
        suite([logs[0], tmp_path / "planted"], tmp_path / "out", CONFIG)
