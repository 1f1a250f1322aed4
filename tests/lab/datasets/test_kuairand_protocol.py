"""The public protocol of KuaiRand: its days, its label, its second test, absent days."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hemix.data.dataset import Dataset
from hemix.errors import DataError, UsageError
from hemix.lab.datasets import ImportOptions, import_logs
from hemix.preparation.pipeline import prepare
from hemix.schema import Schema
from tests.lab.datasets.kuairand_files import log_row, write_official, write_slice
from tests.lab.datasets.test_kuairand import rows_of
from tests.refusals import raises

TECHJAM = ImportOptions(protocol="techjam")
DAY_MS = 86_400_000
APRIL_8 = 1_649_347_200_000  # noon in Shanghai


def row(user: int, video: int, day: int, **more: Any) -> dict[str, Any]:
    """A row of the log ``day`` days after 8 April."""
    date = 20220408 + day if day < 23 else 20220501 + day - 23
    return log_row(user, video, APRIL_8 + day * DAY_MS + video, date=date, **more)


STANDARD = [
    row(7, 1, 0, is_click=1, long_view=1),
    row(7, 2, 0),
    row(8, 1, 13, long_view=1),  # 21 April: train; a long view without a click
    row(8, 2, 13),
    row(7, 1, 14, long_view=1),  # 22 April: valid
    row(8, 2, 20),  # 28 April
    row(7, 2, 21, long_view=1),  # 29 April: test
    row(8, 1, 30),  # 8 May
    row(8, 2, 31),  # 9 May: in no split
]
RANDOM = [
    row(7, 2, 15, is_rand=1),  # 23 April, before the test days
    row(8, 2, 21, is_rand=1, long_view=1),
    row(7, 1, 30, is_rand=1),
]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = {
        "log_standard_4_08_to_4_21": STANDARD[:4],
        "log_standard_4_22_to_5_08": STANDARD[4:],
        "log_random_4_22_to_5_08": RANDOM,
    }
    return write_official(tmp_path_factory.mktemp("raw") / "raw", "pure", logs)


def split_rows(logs: Path, out: Path) -> dict[str, int]:
    prepare(logs, out)
    splits = Dataset(out).manifest["splits"]
    return {name: splits[name]["rows"] for name in ("train", "valid", "test")}


def test_the_protocol_has_its_days_and_the_logs_own_label(official: Path, tmp_path: Path) -> None:
    counts = import_logs("kuairand", official, tmp_path / "logs", TECHJAM)
    assert (counts["impressions"], counts["events"]) == (9, 9)
    labels = rows_of(tmp_path / "logs" / "impressions.parquet", ["long_view", "click"])
    assert labels[:3] == [(1, 1), (0, 0), (1, 0)]
    schema = Schema.load(tmp_path / "logs" / "schema.yaml")
    assert schema.name == "kuairand-pure-techjam"
    assert list(schema.labels) == ["long_view"]
    assert schema.labels["long_view"].given is None
    assert schema.split.boundaries == {
        "start": 20220408,
        "valid": 20220422,
        "test": 20220429,
        "end": 20220509,
    }
    assert {statistic.label for statistic in schema.statistics.values()} == {"long_view"}
    assert split_rows(tmp_path / "logs", tmp_path / "data") == {"train": 4, "valid": 2, "test": 2}


def test_the_random_log_is_a_second_test_of_the_same_run(official: Path, tmp_path: Path) -> None:
    second = ImportOptions(protocol="techjam", random_log=True)
    import_logs("kuairand", official, tmp_path / "logs", TECHJAM)
    counts = import_logs("kuairand", official, tmp_path / "random-logs", second)
    assert (counts["impressions"], counts["events"]) == (6 + 2, 9)
    rows = rows_of(tmp_path / "random-logs" / "impressions.parquet", ["user_id", "date", "is_rand"])
    assert rows[6:] == [(8, 20220429, 1), (7, 20220508, 1)]
    assert {is_rand for _, _, is_rand in rows[:6]} == {0}
    assert split_rows(tmp_path / "logs", tmp_path / "data") == {"train": 4, "valid": 2, "test": 2}
    assert split_rows(tmp_path / "random-logs", tmp_path / "random") == {
        "train": 4,
        "valid": 2,
        "test": 2,
    }
    # a run of the first dataset evaluates on the second, because what it checks is equal
    first, second_test = Dataset(tmp_path / "data"), Dataset(tmp_path / "random")
    assert first.schema.fingerprint() == second_test.schema.fingerprint()
    assert first.spec == second_test.spec
    assert first.manifest["encoders"] == second_test.manifest["encoders"]


def test_absent_days_are_refused(tmp_path: Path, official: Path) -> None:
    raw_folder = write_slice(tmp_path / "slice")
    with raises(DataError, 20220408, "train", code="missing_days", field="--protocol"):
        import_logs("kuairand", raw_folder, tmp_path / "logs", TECHJAM)
    assert not (tmp_path / "logs").exists()
    log = official / "data" / "log_standard_4_22_to_5_08_pure.csv"
    text = log.read_text()
    log.write_text(text.replace("20220508", "20220507"))
    try:
        with raises(DataError, 20220508, "test", code="missing_days", field="--protocol"):
            import_logs("kuairand", official, tmp_path / "logs", TECHJAM)
    finally:
        log.write_text(text)


def test_an_unknown_protocol_and_other_data_sets_are_refused(tmp_path: Path) -> None:
    with raises(UsageError, "techjam", code="unknown_name", field="--protocol"):
        import_logs("kuairand", tmp_path, tmp_path / "logs", ImportOptions(protocol="kdd"))
    with raises(UsageError, "kuairand", field="--protocol"):
        import_logs("movielens", tmp_path, tmp_path / "logs", TECHJAM)
