"""``hemix train``, ``evaluate`` and ``predict``, and folders that they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.run import Command, refused
from tests.planted import SCHEMA, write_logs


def test_the_road_from_logs_to_scores(hemix: Command, planted_logs: Path, tmp_path: Path) -> None:
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


def test_a_run_of_another_schema_and_damaged_weights(
    hemix: Command, planted_run: Path, planted_data: Path, tmp_path: Path
) -> None:
    logs = write_logs(
        tmp_path / "logs",
        users=30,
        schema=SCHEMA.replace("buckets: 4}\n  context", "buckets: 3}\n  context"),
    )
    assert hemix("prepare", logs, "--out", tmp_path / "other")[0] == 0
    line = refused(hemix("evaluate", planted_run, "--data", tmp_path / "other"))
    assert "was trained with another schema" in line
    assert "features.user.age.buckets" in line
    hurt = tmp_path / "hurt"
    shutil.copytree(planted_run, hurt)
    path = hurt / "dense.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "dense.safetensors: damaged" in refused(hemix("evaluate", hurt, "--data", planted_data))
    path.unlink()
    assert "dense.safetensors: missing" in refused(hemix("evaluate", hurt, "--data", planted_data))


def test_output_is_never_overwritten(
    hemix: Command, planted_logs: Path, planted_data: Path, planted_run: Path
) -> None:
    assert "is not empty" in refused(hemix("prepare", planted_logs, "--out", planted_data))
    assert "finished run" in refused(hemix("train", "--data", planted_data, "--out", planted_run))
    there = planted_logs / "events.parquet"
    assert "exists already" in refused(
        hemix("predict", planted_run, "--data", planted_data, "--out", there)
    )
