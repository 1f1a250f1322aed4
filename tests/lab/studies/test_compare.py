"""``hemix compare``: results, resumption, invalid arguments, and access to the test split."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hemix import api
from hemix.display import study_table
from hemix.errors import DataError, RunError, SettingsError, UsageError
from hemix.evaluation.intervals import auc_difference
from hemix.lab.studies import summary
from hemix.lab.studies.compare import CompareConfig, compare
from hemix.lab.studies.datasets import evaluated_rows, open_datasets
from hemix.lab.studies.options import StudyOptions, StudyPlan
from tests.lab.studies.in_process import (
    FAST,
    HEMIX,
    TWO_MODELS,
    file_stamps,
    trials_in_process,
)
from tests.planted import SCHEMA, write_logs
from tests.refusals import raises


@pytest.fixture(scope="module")
def origins(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two datasets: the same logs of 25 users, split on two days."""
    root = tmp_path_factory.mktemp("origins")
    write_logs(root / "logs", users=25)
    api.prepare(root / "logs", root / "late")
    api.prepare(root / "logs", root / "early", shift_days=-1)
    return [root / "late", root / "early"]


@pytest.fixture(scope="module")
def study(origins: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two models, two origins and two seeds, on valid."""
    out = tmp_path_factory.mktemp("study") / "out"
    with trials_in_process():
        compare(
            origins,
            out,
            CompareConfig(models=TWO_MODELS, seeds=2, search=None, primary=["one:two"]),
        )
    return out


def read(out: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((out / "compare.json").read_text())


def test_comparison_reports_metrics_costs_and_differences(study: Path) -> None:
    content = read(study)
    assert (content["split"], content["failed"], content["primary"]) == ("valid", [], ["one:two"])
    assert content["seeds"] == [[0, 1], [1000, 1001]]
    assert [dataset["name"] for dataset in content["datasets"]] == ["late", "early"]
    model = content["models"]["one"]
    assert model["dense_parameters"] < content["models"]["two"]["dense_parameters"]
    assert 0 < model["flops_per_impression"] < content["models"]["two"]["flops_per_impression"]
    assert model["train_seconds"] > 0 and model["peak_bytes"] > 0
    assert set(model["tasks"]) == {"click", "order", "order_given_click"}
    for name in ("auc", "gauc", "logloss", "ne", "pcoc", "ece", "ece_floor"):
        figure = model["tasks"]["click"][name]
        assert len(figure["values"]) == 4
        assert figure["mean"] == pytest.approx(np.mean(figure["values"]))
    assert {(p["task"], p["metric"]) for p in content["pairs"]} >= {
        ("click", "auc"),
        ("click", "logloss"),
        ("order", "gauc"),
    }
    for pair in content["pairs"]:
        assert (pair["a"], pair["b"], pair["primary"]) == ("one", "two", True)
        assert pair["p_holm"] == pair["p"]
        assert pair["ci95"][0] <= pair["delta"] <= pair["ci95"][1]
        a, b = (
            content["models"][m]["tasks"][pair["task"]][pair["metric"]]["mean"]
            for m in ("one", "two")
        )
        assert pair["delta"] == pytest.approx(a - b, abs=1e-12)


def test_report_is_one_file_with_every_model(study: Path) -> None:
    page = (study / "report.html").read_text()
    models = read(study)["models"]
    (code,) = {trial["code"] for model in models.values() for trial in model["trials"]}
    assert code in page and "several versions" not in page
    assert all(f'<th scope="row">{label}</th>' in page for label in models)
    assert "prefers-color-scheme: dark" in page
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "")
    assert "one − two" in page


def test_one_seed_on_one_test_day_is_the_paired_difference_of_the_scores(
    origins: list[Path], study: Path
) -> None:
    with trials_in_process() as started:
        content = compare(
            origins[:1], study, CompareConfig(models=TWO_MODELS, seeds=1, search=None)
        )
    assert started == []
    datasets, _ = open_datasets(origins[:1], verify_test=False)
    rows, _ = evaluated_rows(datasets, "valid")
    click = rows[0]["click"]
    a, b = (
        np.load(
            next((study / "trials").glob(f"{content['models'][m]['trials'][0]['trial']}/valid.npy"))
        )
        for m in TWO_MODELS
    )
    expected = auc_difference(click.labels, a[click.rows, 0], b[click.rows, 0], click.users)
    pair = next(p for p in content["pairs"] if (p["task"], p["metric"]) == ("click", "auc"))
    assert pair["delta"] == pytest.approx(expected.delta, abs=1e-12)
    assert pair["user_variance"] ** 0.5 == pytest.approx(expected.standard_error, rel=1e-9)


def test_finished_trials_are_not_run_again(origins: list[Path], study: Path) -> None:
    before = file_stamps(study / "trials")
    with trials_in_process() as started:
        compare(origins, study, CompareConfig(models=TWO_MODELS, seeds=2, search=None))
    assert started == []
    assert file_stamps(study / "trials") == before


def test_valid_study_does_not_read_the_test_split(origins: list[Path], tmp_path: Path) -> None:
    """Without ``evaluate_test`` the folders of the test split may even be missing."""
    data = tmp_path / "data"
    shutil.copytree(origins[0], data)
    folders = list(data.glob("partitions/*/test"))
    assert len(folders) == 8
    for folder in folders:
        shutil.rmtree(folder)
    out = tmp_path / "out"
    with trials_in_process():
        content = compare([data], out, CompareConfig(models={"one": HEMIX}, seeds=1, search=None))
    assert content["test_accesses"] == []
    assert [
        p for p in out.rglob("*") if p.name in ("test.npy", "test.json", "test_accesses.jsonl")
    ] == []
    with raises(DataError, "partitions/00000/test", code="missing_file"):
        compare(
            [data],
            out,
            CompareConfig(models={"one": HEMIX}, seeds=1, search=None, evaluate_test=True),
        )


def test_every_access_to_test_is_logged(origins: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with trials_in_process() as started:
        compare(origins[:1], out, CompareConfig(models=TWO_MODELS, seeds=1, search=None))
        results = {p: p.stat().st_mtime_ns for p in out.glob("trials/*/result.json")}
        content = compare(
            origins[:1],
            out,
            CompareConfig(models=TWO_MODELS, seeds=1, search=None, evaluate_test=True),
        )
        assert len(started) == 4
        again = compare(
            origins[:1],
            out,
            CompareConfig(models=TWO_MODELS, seeds=1, search=None, evaluate_test=True),
        )
        assert len(started) == 4
    assert (content["split"], len(content["test_accesses"]), len(again["test_accesses"])) == (
        "test",
        1,
        2,
    )
    first, second = (
        json.loads(line) for line in (out / "test_accesses.jsonl").read_text().splitlines()
    )
    assert (first["models"], first["trials"], len(first["not_scored_before"])) == (
        ["one", "two"],
        2,
        2,
    )
    assert second["not_scored_before"] == []
    assert {p: p.stat().st_mtime_ns for p in out.glob("trials/*/result.json")} == results
    assert list(out.glob("trials/*/run")) == []
    rows = next(iter(content["datasets"]))["rows"]["test"]
    assert all(
        np.load(p).shape == (rows, 3) and np.load(p).dtype == np.float32
        for p in out.glob("trials/*/test.npy")
    )


def test_failed_trial_is_reported_and_the_others_continue(
    origins: list[Path], tmp_path: Path
) -> None:
    broken = {
        **HEMIX,
        "train.dense_learning_rate": 1e30,
        "train.max_grad_norm": 0,
        "train.batch_size": 64,
    }
    with trials_in_process() as started:
        content = compare(
            origins[:1],
            tmp_path / "out",
            CompareConfig(models={"broken": broken, "one": HEMIX}, seeds=1, search=None),
        )
    assert list(content["models"]) == ["one"]
    assert content["failed"][0]["trial"] == started[0]
    assert content["failed"][0]["error"].startswith("the loss is nan at step")
    assert content["failed"][1] == {
        "trial": "broken",
        "error": "left out: no trial finished on some dataset",
    }
    with trials_in_process() as started:
        compare(
            origins[:1],
            tmp_path / "out",
            CompareConfig(models={"broken": broken, "one": HEMIX}, seeds=1, search=None),
        )
    assert started == [content["failed"][0]["trial"]]
    with trials_in_process(), raises(RunError, code="no_finished_trial"):
        compare(
            origins[:1],
            tmp_path / "out",
            CompareConfig(models={"broken": broken}, seeds=1, search=None),
        )


def test_stopped_study_continues_with_the_missing_trials(
    origins: list[Path], tmp_path: Path
) -> None:
    def stop(message: str, *_: object) -> None:
        if message.endswith("finished"):
            raise KeyboardInterrupt

    with trials_in_process() as started:
        with pytest.raises(KeyboardInterrupt):
            compare(
                origins[:1],
                tmp_path / "out",
                CompareConfig(models=TWO_MODELS, seeds=1, search=None),
                StudyOptions(jobs=1, on_trial=stop),
            )
        assert len(started) == 1
        compare(
            origins[:1], tmp_path / "out", CompareConfig(models=TWO_MODELS, seeds=1, search=None)
        )
        assert len(started) == len(set(started)) == 2


def test_search_selects_the_point_of_lowest_valid_loss(origins: list[Path], tmp_path: Path) -> None:
    points = tmp_path / "points.yaml"
    points.write_text(
        "all:\n- {train.dense_learning_rate: 1e-3}\n- {train.dense_learning_rate: 4e-3}\n"
    )
    plans: list[StudyPlan] = []
    with trials_in_process() as started:
        content = compare(
            origins[:1],
            tmp_path / "out",
            CompareConfig(models=TWO_MODELS, seeds=2, search=points),
            StudyOptions(on_plan=plans.append),
        )
    assert [(stage.trials, stage.finished) for stage in plans[0].stages] == [(4, 0), (4, 0)]
    assert len(started) == 6  # the search has trained the best points from the first seed
    for label in TWO_MODELS:
        searched = content["search"][label]
        losses = [point["valid_logloss"] for point in searched["points"]]
        assert len(losses) == 2
        assert searched["chosen"] == searched["points"][int(np.argmin(losses))]["settings"]
        assert content["models"][label]["settings"] == searched["chosen"]
    assert len(list((tmp_path / "out").glob("trials/*/run"))) == 4
    options = StudyOptions(on_plan=plans.append)
    with trials_in_process() as started:
        compare(
            origins[:1],
            tmp_path / "out",
            CompareConfig(models=TWO_MODELS, seeds=2, search=points, evaluate_test=True),
            options,
        )
    assert [(stage.trials, stage.finished) for stage in plans[1].stages] == [(4, 4), (4, 0)]
    assert len(started) == 4  # score test; the search is finished


def test_schemas_that_differ_beyond_the_split_are_rejected(
    origins: list[Path], tmp_path: Path
) -> None:
    write_logs(
        tmp_path / "logs",
        users=25,
        schema=SCHEMA.replace("realtime_length: 5", "realtime_length: 6"),
    )
    api.prepare(tmp_path / "logs", tmp_path / "other")
    with raises(
        DataError,
        "history.realtime_length",
        5,
        6,
        code="other_schema",
        field=tmp_path / "other",
    ):
        compare(
            [origins[0], tmp_path / "other"],
            tmp_path / "out",
            CompareConfig(models=TWO_MODELS, search=None),
        )
    with raises(DataError, origins[0], code="repeated_argument", field="--data"):
        compare(
            [origins[0], origins[0]],
            tmp_path / "out",
            CompareConfig(models=TWO_MODELS, search=None),
        )
    assert not (tmp_path / "out").exists()


def test_invalid_arguments_are_rejected_before_anything_is_written(
    origins: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with raises(SettingsError, "'hemx'", "hemix", code="unknown_model", field="model.name"):
        compare(origins, out, CompareConfig(models=["hemx"]))
    with raises(UsageError, "hemix", code="repeated_argument", field="--models"):
        compare(origins, out, CompareConfig(models=["hemix", "hemix"]))
    with raises(UsageError, "one:three", "one, two", field="--primary"):
        compare(origins, out, CompareConfig(models=TWO_MODELS, primary=["one:three"]))
    with raises(DataError, code="missing_dataset", field=tmp_path / "nowhere"):
        compare([tmp_path / "nowhere"], out, CompareConfig(models=TWO_MODELS))
    assert not out.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with raises(UsageError, tmp_path / "mine", code="out_exists", field="--out"):
        compare(origins, tmp_path / "mine", CompareConfig(models=TWO_MODELS))


def test_damaged_dataset_is_rejected(origins: list[Path], tmp_path: Path) -> None:
    shutil.copytree(origins[0], tmp_path / "data")
    arrays = (tmp_path / "data").rglob("valid/labels.npy")
    file = max(arrays, key=lambda array: array.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    with raises(DataError, code="damaged_file", field=file):
        compare([tmp_path / "data"], tmp_path / "out", CompareConfig(models=TWO_MODELS))


def test_users_are_matched_over_origins(origins: list[Path]) -> None:
    datasets, _ = open_datasets(origins, verify_test=False)
    (late, early), users = evaluated_rows(datasets, "valid")
    assert users == 25
    assert len(late["click"].users) == len(early["click"].users) == 200
    assert (late["order_given_click"].labels <= 1).all()
    assert len(late["order_given_click"].rows) == int(late["click"].labels.sum())


@pytest.mark.slow
def test_trials_run_in_processes(origins: list[Path], tmp_path: Path) -> None:
    content = api.compare(
        origins[0],
        tmp_path / "out",
        CompareConfig(models=["hemix", "lightgbm"], seeds=1, search=None, settings=FAST),
    )
    assert content["failed"] == []
    assert content["models"]["lightgbm"]["flops_per_impression"] is None
    assert content["primary"] == ["hemix:lightgbm"]


def test_pairs_of_one_user_are_undefined_with_the_reason(
    origins: list[Path], study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All impressions are assigned to one user, so no interval exists."""
    datasets, _ = open_datasets(origins[:1], verify_test=False)
    rows, _ = evaluated_rows(datasets, "valid")
    one_user = [
        {name: replace(task, users=0 * task.users) for name, task in tasks.items()}
        for tasks in rows
    ]
    monkeypatch.setattr(summary, "evaluated_rows", lambda *_: (one_user, 1))
    with trials_in_process():
        content = compare(
            origins[:1], study, CompareConfig(models=TWO_MODELS, seeds=1, search=None)
        )
    assert content["pairs"] == []
    absent = {(e["task"], e["metric"]): e["reason"] for e in content["absent_pairs"]}
    assert absent["click", "auc"] == absent["order", "logloss"] == "fewer than two users"
    assert len(absent) == 3 * 3
    assert "fewer than two users" in study_table(content)
