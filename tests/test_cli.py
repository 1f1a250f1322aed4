"""The command line: what works prints what was done; what does not ends in one line and exit code
2.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.cli import main
from tests.planted import SCHEMA, write_logs


@pytest.fixture
def hemix(  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hemix", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return run


def refused(result: tuple[int, str, str]) -> str:
    """The one line of a refusal."""
    code, out, err = result
    assert code == 2, (out, err)
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("hemix: ")
    assert "Traceback" not in err
    return err.removeprefix("hemix: ").strip()


@pytest.fixture(scope="module")
def run_folder(planted_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hemix import api

    out = tmp_path_factory.mktemp("cli") / "run"
    api.train(planted_data, out, settings={"train.batch_size": 256, "train.warmup_steps": 1})
    return out


def test_from_logs_to_scores(  # type: ignore[no-untyped-def]
    hemix, planted_logs: Path, tmp_path: Path
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    code, out, _ = hemix("prepare", planted_logs, "--out", data)
    assert (code, "hemix train --data" in out) == (0, True)
    code, out, err = hemix(
        "train", "--data", data, "--out", run, "--set", "train.batch_size=256", "--seed", 5
    )
    assert (code, "hemix evaluate" in out) == (0, True)
    assert "dense and" in err and "tables:" in err
    code, out, _ = hemix("evaluate", run, "--data", data)
    assert (code, "AUC" in out, (run / "report.html").exists()) == (0, True, True)
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["split"]["test"]["tasks"]) == {"click", "order", "order_given_click"}
    code, out, err = hemix("predict", run, "--data", data, "--out", tmp_path / "scores.parquet")
    table = pq.read_table(tmp_path / "scores.parquet")
    assert code == 0
    without = [row["item_id"] for row in table.to_pylist() if row["score"] is None]
    assert set(without) == {"i7"} and f"score is null in {len(without)} rows" in err, (
        "it has no price"
    )
    assert table.num_rows == metrics["split"]["test"]["rows"]
    prices = {f"i{n}": float("nan") if n == 7 else float(n) for n in range(40)}
    for row in table.slice(0, 50).to_pylist():
        assert row["order"] == pytest.approx(row["click"] * row["order_given_click"], rel=1e-5)
        if row["item_id"] != "i7":
            assert row["score"] == pytest.approx(
                row["order"] * prices[row["item_id"]] + 0.1 * row["click"], rel=1e-6
            )
    code, out, _ = hemix("doctor", "--json")
    assert json.loads(out)["torch"]


def test_every_command_explains_itself(hemix) -> None:  # type: ignore[no-untyped-def]
    for command in (
        "demo",
        "simulate",
        "import",
        "prepare",
        "train",
        "evaluate",
        "predict",
        "export",
        "bench",
        "doctor",
        "compare",
        "ablate",
        "scale",
        "serve",
        "experiment",
    ):
        code, out, _ = hemix(command, "--help")
        assert code == 0
        assert "Usage: hemix " + command in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["trian"], "No such command 'trian'"),
        (["simulate", "--out", "X", "--users", "-3"], "--users"),
        (["simulate", "--out", "X", "--days", "many"], "--days"),
        (["simulate", "--out", "X", "--days", "2"], "--days"),
        (["train", "--out", "X"], "--data"),
        (["train", "--data", "nowhere", "--out", "X"], "nowhere: not a dataset folder"),
        (["train", "--data", "nowhere", "--out", "X", "--seed", "-1"], "--seed"),
        (
            ["train", "--data", "nowhere", "--out", "X", "--set", "train.epochs"],
            "expected section.setting=value",
        ),
        (
            ["train", "--data", "nowhere", "--out", "X", "--set", "train.epcohs=1"],
            "train.epcohs: unknown key",
        ),
        (
            ["train", "--data", "nowhere", "--out", "X", "--size", "huge"],
            "known: tiny, base, small, large",
        ),
        (["train", "--data", "nowhere", "--out", "X", "--model", "hemx"], "known: hemix"),
        (
            ["train", "--data", "nowhere", "--out", "X", "--config", "absent.yaml"],
            "absent.yaml: cannot be read: No such file",
        ),
        (["evaluate", "nowhere", "--data", "nowhere"], "nowhere: no such run folder"),
        (["import", "criteo", "raw", "--out", "X"], "kuairand, movielens"),
        (["import", "kuairand", "raw", "--out", "X"], "raw"),
        (["prepare", "nowhere", "--out", "X"], "nowhere"),
        (
            ["predict", "nowhere", "--data", "d", "--out", "x", "--position", "third"],
            "expected serving or logged",
        ),
    ],
)
def test_usage_errors_are_one_line(
    hemix, monkeypatch, tmp_path: Path, args: list[str], says: str
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    assert says in refused(hemix(*args))
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"click": pa.array([2] * 1, pa.int64())}, "click"),
        ({"click": pa.array([float("nan")])}, "found nan"),
        ({"time_ms": pa.array([1_767_571_200])}, "clock.unit: s"),
    ],
)
def test_bad_values_name_file_and_row(
    hemix, tmp_path: Path, change: dict[str, pa.Array], says: str
) -> None:  # type: ignore[no-untyped-def]
    logs = write_logs(tmp_path / "logs", users=20)
    table = pq.read_table(logs / "impressions.parquet")
    name, value = next(iter(change.items()))
    column = table[name].cast(value.type).to_pylist()
    column = (
        [value[0].as_py()] * len(column)
        if name == "time_ms"
        else [*column[:17], value[0].as_py(), *column[18:]]
    )
    pq.write_table(
        table.set_column(table.column_names.index(name), name, pa.array(column, value.type)),
        logs / "impressions.parquet",
    )
    line = refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    assert says in line
    assert "impressions.parquet" in line
    assert name == "time_ms" or "17" in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("click: {}", "click: {column: is_clicked}", "is_clicked"),
        ("tables: {events: events.parquet", "tables: {events: clicks.parquet", "clicks.parquet"),
        ("test: 2026-01-09", "test: 2027-01-09", "test"),
        ("roles:", "rolls:", "rolls: unknown key"),
    ],
)
def test_a_schema_that_does_not_fit_is_refused_by_key(
    hemix, tmp_path: Path, old: str, new: str, says: str
) -> None:  # type: ignore[no-untyped-def]
    logs = write_logs(tmp_path / "logs", users=20, schema=SCHEMA.replace(old, new))
    assert says in refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_files_that_are_not_logs(hemix, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    assert "schema.yaml" in refused(
        hemix("prepare", tmp_path / "empty", "--out", tmp_path / "data")
    )
    logs = write_logs(tmp_path / "logs", users=20)
    (logs / "events.parquet").write_text("user,item\n")
    assert "events.parquet" in refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    logs = write_logs(tmp_path / "cut", users=20)
    content = (logs / "impressions.parquet").read_bytes()
    (logs / "impressions.parquet").write_bytes(content[: len(content) // 2])
    assert "impressions.parquet" in refused(hemix("prepare", logs, "--out", tmp_path / "data"))
    logs = write_logs(tmp_path / "strangers", users=20)
    events = pq.read_table(logs / "events.parquet")
    stranger = pa.array([f"x{n}" for n in range(events.num_rows)])
    pq.write_table(events.set_column(0, "user_id", stranger), logs / "events.parquet")
    assert "events.parquet" in refused(hemix("prepare", logs, "--out", tmp_path / "data"))


def test_a_run_of_another_schema_and_damaged_weights(  # type: ignore[no-untyped-def]
    hemix, run_folder: Path, planted_data: Path, tmp_path: Path
) -> None:
    logs = write_logs(
        tmp_path / "logs",
        users=30,
        schema=SCHEMA.replace("buckets: 4}\n  context", "buckets: 3}\n  context"),
    )
    assert hemix("prepare", logs, "--out", tmp_path / "other")[0] == 0
    line = refused(hemix("evaluate", run_folder, "--data", tmp_path / "other"))
    assert "was trained with another schema" in line
    assert "features.user.age.buckets" in line
    hurt = tmp_path / "hurt"
    shutil.copytree(run_folder, hurt)
    path = hurt / "dense.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "dense.safetensors: damaged" in refused(hemix("evaluate", hurt, "--data", planted_data))
    path.unlink()
    assert "dense.safetensors: missing" in refused(hemix("evaluate", hurt, "--data", planted_data))


def test_output_is_never_overwritten(
    hemix, planted_logs: Path, planted_data: Path, run_folder: Path
) -> None:  # type: ignore[no-untyped-def]
    assert "is not empty" in refused(hemix("prepare", planted_logs, "--out", planted_data))
    assert "finished run" in refused(hemix("train", "--data", planted_data, "--out", run_folder))
    there = planted_logs / "events.parquet"
    assert "exists already" in refused(
        hemix("predict", run_folder, "--data", planted_data, "--out", there)
    )
