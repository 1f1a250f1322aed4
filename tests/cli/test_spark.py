"""``hemix prepare --engine spark``: a real local Spark, and one line for whatever is missing."""

from __future__ import annotations

import importlib.util
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from hemix import api
from hemix.errors import MissingExtra, SparkError, UsageError
from tests.cli.commands import COMMANDS
from tests.cli.run import Command, refused
from tests.preparation.same_bytes import file_hashes
from tests.preparation.spark.sessions import require_spark, spark_session, write_defaults


def test_a_preparation_on_spark(
    hemix: Command, planted_logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings come from spark-defaults.conf; paths may be relative; the session ends."""
    require_spark(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARK_CONF_DIR", str(write_defaults(tmp_path)))
    Path("logs").symlink_to(planted_logs)
    arguments = ("prepare", "logs", "--partitions", 2, "--out")
    code, out, err = hemix(*arguments, "theirs", "--engine", "spark", "--spark-master", "local[2]")
    assert code == 0, err
    assert "hemix train --data theirs" in out
    assert hemix(*arguments, "ours")[0] == 0
    assert file_hashes(Path("theirs")) == file_hashes(Path("ours"))
    from pyspark.sql import SparkSession

    assert SparkSession.getActiveSession() is None


def test_a_master_that_cannot_be_reached(
    planted_logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_spark(tmp_path)
    monkeypatch.setenv("SPARK_CONF_DIR", str(write_defaults(tmp_path)))
    with pytest.raises(SparkError) as failed:
        api.prepare(
            planted_logs,
            tmp_path / "data",
            engine="spark",
            options=api.PrepareOptions(spark_master="no-such-master"),
        )
    assert failed.value.field == "--spark-master"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "arguments",
    [("--spark-master", "local[2]"), ("--engine", "spark", "--processes", "2")],
    ids=["a master without Spark", "processes with Spark"],
)
def test_flags_of_the_other_engine(
    hemix: Command, planted_logs: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    line = refused(hemix("prepare", planted_logs, "--out", tmp_path / "data", *arguments))
    assert arguments[-2] in line


def test_the_kubernetes_job_uses_flags_that_there_are() -> None:
    deploy = Path(__file__).parents[2] / "deploy"
    *_, conf, job = yaml.safe_load_all((deploy / "spark-job.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    program, command, *arguments = container["command"]
    assert (program, command) == ("hemix", "prepare")
    known = {name for flag in COMMANDS["prepare"].params for name in flag.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known
    assert container["image"] in conf["data"]["spark-defaults.conf"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    [version] = re.findall(r"PYSPARK=([\d.]+)", (deploy / "spark.Dockerfile").read_text())
    assert f"pyspark=={version}\n" in (deploy.parent / "constraints.txt").read_text()


def prepare_on_spark(logs: Path, out: Path, engine: Any = "spark") -> None:
    api.prepare(logs, out, engine=engine)


def test_pyspark_is_missing(
    planted_logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyspark" else find(name)
    )
    with pytest.raises(MissingExtra) as missing:
        prepare_on_spark(planted_logs, tmp_path / "data")
    assert (missing.value.exit_code, missing.value.field) == (2, "pyspark")
    assert missing.value.hint == "pip install 'hemix[spark]'"


@pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="PYSPARK ABSENT")
@pytest.mark.parametrize("version", [None, "11.0.2"])
def test_java_is_missing_or_old(
    planted_logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    if version is not None:
        java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        java.chmod(java.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(java.parent))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(SparkError) as failed:
        prepare_on_spark(planted_logs, tmp_path / "data")
    assert (failed.value.code, failed.value.exit_code) == ("missing_java", 2)
    assert failed.value.hint is not None
    assert "openjdk" in failed.value.hint


def test_a_session_that_is_not_handed_over(planted_logs: Path, tmp_path: Path) -> None:
    with (
        spark_session("local[1]", tmp_path),
        pytest.raises(UsageError) as failed,
    ):
        prepare_on_spark(planted_logs, tmp_path / "data")
    assert failed.value.field == "engine"


def test_an_engine_that_is_none(planted_logs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as failed:
        prepare_on_spark(planted_logs, tmp_path / "data", engine=object())
    assert failed.value.field == "engine"
