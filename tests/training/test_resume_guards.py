"""--resume and demo write into a folder of their own kind alone: logs, datasets and finished runs
are refused and not touched.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hemix import api
from hemix.errors import UsageError
from hemix.files import write_json
from tests.refusals import raises


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a folder: bytes and time of change."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


def refused(folder: Path, *values: str, code: str = "out_exists", **command: object) -> None:
    before = contents(folder)
    with raises(UsageError, folder, *values, code=code, field="--out"):
        if "data" in command:
            resume = bool(command["resume"])
            api.train(command["data"], folder, resume=resume)  # type: ignore[arg-type]
        else:
            api.demo(folder, users=20, days=3)
    assert contents(folder) == before, "nothing was changed"


@pytest.fixture
def logs(planted_logs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted_logs, tmp_path / "logs_copy"))


@pytest.fixture
def data(planted_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted_data, tmp_path / "data_copy"))


@pytest.fixture
def run(rich_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rich_run, tmp_path / "run_copy"))


@pytest.mark.parametrize("resume", [True, False])
def test_training_does_not_write_into_logs_or_a_dataset(
    logs: Path, data: Path, planted_data: Path, resume: bool
) -> None:
    for folder in (logs, data):
        refused(folder, data=planted_data, resume=resume)
    refused(data, data=data, resume=resume)


def test_a_settings_file_alone_makes_no_run(logs: Path, planted_data: Path) -> None:
    from hemix.settings import Settings

    (logs / "settings.yaml").write_text(Settings().to_yaml())
    refused(logs, data=planted_data, resume=True)


def test_a_dataset_with_a_log_and_settings_is_still_a_dataset(
    data: Path, planted_data: Path
) -> None:
    from hemix.settings import Settings

    (data / "settings.yaml").write_text(Settings().to_yaml())
    (data / "log.jsonl").write_text("")
    refused(data, data=planted_data, resume=True)


def test_training_does_not_write_over_a_file(tmp_path: Path, planted_data: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with raises(UsageError, tmp_path / "file", code="out_exists", field="--out"):
        api.train(planted_data, tmp_path / "file", resume=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_may_be_a_link_to_a_folder_that_is_not_there_yet(
    tmp_path: Path, planted_data: Path
) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    settings = {"train.batch_size": 512, "model.layers": 1}
    api.train(planted_data, tmp_path / "run", settings=settings)
    assert (tmp_path / "run").is_symlink() and (tmp_path / "disk" / "run" / "run.json").is_file()
    with raises(UsageError, tmp_path / "disk" / "run", code="out_exists", field="--out"):
        api.train(planted_data, tmp_path / "run")


def test_a_demo_does_not_write_into_logs_or_a_dataset(logs: Path, data: Path) -> None:
    for folder in (logs, data):
        refused(folder)


def test_a_demo_does_not_write_into_a_finished_run(run: Path) -> None:
    refused(run, "finished run")


def test_a_demo_does_not_write_into_an_unfinished_run_of_other_logs(run: Path) -> None:
    (run / "run.json").unlink()
    refused(run, code="unfinished_run")


def test_a_demo_of_other_users_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    (out / "logs").mkdir(parents=True)
    write_json(out / "logs" / "demo.json", {"format_version": 1, "users": 30, "days": 3, "seed": 0})
    refused(out, "'users': 30")


def test_an_empty_folder_may_be_trained_into(tmp_path: Path, rich_data: Path) -> None:
    (tmp_path / "run").mkdir()
    api.train(rich_data, tmp_path / "run", resume=True, settings={"train.batch_size": 1000})
    assert (tmp_path / "run" / "run.json").exists()
