"""KuaiRand imports: missing, ambiguous and malformed files are rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import DataError, UsageError
from hemix.lab.datasets import import_logs
from tests.lab.datasets.kuairand_files import ROWS, VIDEO, write_official, write_pure, write_slice


def assert_rejected(raw_folder: Path, tmp_path: Path, message: str, **more: Any) -> None:
    """The import fails with a message of one line, and leaves no folder."""
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(DataError, match=message) as caught:
        import_logs("kuairand", raw_folder, tmp_path / "new" / "logs", **more)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_missing_or_empty_folder_is_rejected(tmp_path: Path) -> None:
    assert_rejected(tmp_path / "absent", tmp_path, "absent: expected a folder .*does not exist")
    (tmp_path / "empty").mkdir()
    assert_rejected(
        tmp_path / "empty",
        tmp_path,
        "no files of kuairand; expected one of slice: .*log_standard_4_22_to_5_08_27k_part2.csv",
    )


def test_incomplete_or_ambiguous_layout_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_pure(tmp_path / "raw")
    log = raw_folder / "data" / "log_standard_4_22_to_5_08_pure.csv"
    log.rename(tmp_path / "moved")
    assert_rejected(
        raw_folder,
        tmp_path,
        "data: layout pure of kuairand lacks log_standard_4_22_to_5_08_pure.csv$",
    )
    (tmp_path / "moved").rename(log)
    write_official(
        raw_folder,
        "1k",
        {"log_standard_4_08_to_4_21": ROWS, "log_standard_4_22_to_5_08": ROWS},
        data=False,
    )
    assert_rejected(
        raw_folder, tmp_path, "expected one layout of kuairand, found 1k in .*raw, pure in .*data"
    )


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "7,1,20220505",
            "7,one,20220505",
            r"_5_08_pure.csv: line 2, video_id: expected a whole number, found 'one'",
        ),
        (
            "8,2,20220425,0,4000,1",
            "8,2,20220425,0,4000,2",
            r"_5_08_pure.csv: line 3, is_click: expected 0 or 1, found 2",
        ),
        (
            "8,2,20220425,0,4000,1",
            "8,2,20220425,0,4000,NaN",
            r"line 3, is_click: expected 0 or 1, found nothing",
        ),
        (
            "8,2,20220425,0,4000",
            "8,2,20220425,0,",
            r"line 3, time_ms: expected a value, found nothing",
        ),
        ("8,1,20220507", "8,1", r"line 4: expected 19 columns, found 18: '8,1,0,5000"),
        (
            "time_ms",
            "time",
            r"_5_08_pure.csv: no column time_ms; found user_id, video_id, date, hourmin, time,",
        ),
    ],
)
def test_malformed_log_line_is_rejected_with_its_position(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    raw_folder = write_pure(tmp_path / "raw")
    edit(raw_folder / "data" / "log_standard_4_22_to_5_08_pure.csv", old, new)
    assert_rejected(raw_folder, tmp_path, message)


def test_malformed_feature_file_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_pure(tmp_path / "raw")
    videos = raw_folder / "data" / "video_features_basic_pure.csv"
    edit(videos, "9000.0", "9000.5")
    assert_rejected(
        raw_folder,
        tmp_path,
        "video_features_basic_pure.csv: line 2, video_duration: expected a whole number, found "
        "9000.5",
    )
    edit(videos, "9000.5,720.0", "9000.0,wide")
    assert_rejected(
        raw_folder, tmp_path, "line 2, server_width: expected a whole number, found 'wide'"
    )
    videos.write_text("")
    assert_rejected(raw_folder, tmp_path, "video_features_basic_pure.csv: no column video_id")
    videos.write_text(",".join(VIDEO) + "\n")
    assert_rejected(
        raw_folder, tmp_path, "video_features_basic_pure.csv: expected items, found no row"
    )


def test_log_without_rows_is_rejected(tmp_path: Path) -> None:
    assert_rejected(
        write_pure(tmp_path / "raw", rows=[]),
        tmp_path,
        "log_standard_4_08_to_4_21_pure.csv: expected impressions, found no row",
    )


def test_malformed_parquet_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_slice(tmp_path / "raw")
    log = raw_folder / "log_standard_20220425_20220508.parquet"
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])
    assert_rejected(
        raw_folder,
        tmp_path,
        "log_standard_20220425_20220508.parquet: not a Parquet file, or truncated",
    )
    log.write_bytes(whole)
    assert_rejected(
        raw_folder, tmp_path, "the slice has no log of random exposure", random_log=True
    )
    table = pq.read_table(log)
    pq.write_table(table.set_column(0, "user_id", pa.array(list("abcdef"))), log)
    assert_rejected(
        raw_folder, tmp_path, "user_id: expected a whole number in every row, found string"
    )
    pq.write_table(table.set_column(0, "user_id", pa.array([7, 7, None, 8, 8, 8])), log)
    assert_rejected(raw_folder, tmp_path, "row 3, user_id: expected a value, found nothing")


def test_unknown_name_and_existing_output_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="import netflix: unknown data set; known: kuairand, movielens"
    ):
        import_logs("netflix", tmp_path, tmp_path / "logs")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="full: exists already and is not empty"):
        import_logs("kuairand", tmp_path / "absent", tmp_path / "full")
    with pytest.raises(UsageError, match=r"mine.txt: exists already"):
        import_logs("kuairand", tmp_path / "absent", tmp_path / "full" / "mine.txt")
    (tmp_path / "empty").mkdir()
    import_logs("kuairand", write_slice(tmp_path / "raw"), tmp_path / "empty")
    assert (tmp_path / "empty" / "schema.yaml").exists()
