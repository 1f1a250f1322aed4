"""KuaiRand imports: missing, ambiguous and malformed files are rejected."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hemix.errors import DataError, UsageError
from hemix.lab.datasets import DATASETS, ImportOptions, import_logs
from tests.lab.datasets.kuairand_files import ROWS, VIDEO, write_official, write_pure, write_slice
from tests.refusals import raises


def assert_rejected(
    raw_folder: Path,
    tmp_path: Path,
    *values: object,
    code: str | None = None,
    field: object,
    random_log: bool = False,
) -> None:
    """The import fails with class, code, field and values, and leaves no folder."""
    before = sorted(p.name for p in tmp_path.iterdir())
    with raises(DataError, *values, code=code, field=field):
        import_logs(
            "kuairand", raw_folder, tmp_path / "new" / "logs", ImportOptions(random_log=random_log)
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_missing_or_empty_folder_is_rejected(tmp_path: Path) -> None:
    absent, empty = tmp_path / "absent", tmp_path / "empty"
    assert_rejected(absent, tmp_path, code="missing_folder", field=absent)
    empty.mkdir()
    names = ("kuairand", "slice: ", "log_standard_4_22_to_5_08_27k_part2.csv")
    assert_rejected(empty, tmp_path, *names, code="missing_file", field=empty)


def test_incomplete_or_ambiguous_layout_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_pure(tmp_path / "raw")
    log = raw_folder / "data" / "log_standard_4_22_to_5_08_pure.csv"
    log.rename(tmp_path / "moved")
    names = ("layout pure of kuairand", log.name)
    assert_rejected(raw_folder, tmp_path, *names, code="missing_file", field=log)
    (tmp_path / "moved").rename(log)
    write_official(
        raw_folder,
        "1k",
        {"log_standard_4_08_to_4_21": ROWS, "log_standard_4_22_to_5_08": ROWS},
        data=False,
    )
    layouts = (f"1k in {raw_folder},", f"pure in {raw_folder / 'data'}")
    assert_rejected(raw_folder, tmp_path, *layouts, code="ambiguous_layout", field=raw_folder)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "field", "code", "values"),
    [
        ("7,1,20220505", "7,one,20220505", "video_id", None, ["line 2", "'one'"]),
        ("8,2,20220425,0,4000,1", "8,2,20220425,0,4000,2", "is_click", None, ["line 3", 0, 1, 2]),
        (
            "8,2,20220425,0,4000,1",
            "8,2,20220425,0,4000,NaN",
            "is_click",
            None,
            ["line 3", 0, 1, "nothing"],
        ),
        ("8,2,20220425,0,4000", "8,2,20220425,0,", "time_ms", None, ["line 3", "nothing"]),
        (
            "8,1,20220507",
            "8,1",
            "FILE",
            "wrong_column_count",
            ["line 4", 19, 18, "'8,1,0,5000"],
        ),
        (
            "time_ms",
            "time",
            "time_ms",
            "missing_column",
            ["user_id, video_id, date, hourmin, time,"],
        ),
    ],
)
def test_malformed_log_line_is_rejected_with_its_position(
    tmp_path: Path, old: str, new: str, field: str, code: str | None, values: list[object]
) -> None:
    """FILE as the field stands for the file."""
    raw_folder = write_pure(tmp_path / "raw")
    file = raw_folder / "data" / "log_standard_4_22_to_5_08_pure.csv"
    edit(file, old, new)
    assert_rejected(
        raw_folder, tmp_path, file, *values, code=code, field=file if field == "FILE" else field
    )


def test_malformed_feature_file_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_pure(tmp_path / "raw")
    videos = raw_folder / "data" / "video_features_basic_pure.csv"
    edit(videos, "9000.0", "9000.5")
    assert_rejected(raw_folder, tmp_path, videos, "line 2", 9000.5, field="video_duration")
    edit(videos, "9000.5,720.0", "9000.0,wide")
    assert_rejected(raw_folder, tmp_path, videos, "line 2", "'wide'", field="server_width")
    videos.write_text("")
    assert_rejected(raw_folder, tmp_path, videos, code="missing_column", field="video_id")
    videos.write_text(",".join(VIDEO) + "\n")
    assert_rejected(raw_folder, tmp_path, "items", code="no_rows", field=videos)


def test_log_without_rows_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_pure(tmp_path / "raw", rows=[])
    log = raw_folder / "data" / "log_standard_4_08_to_4_21_pure.csv"
    assert_rejected(raw_folder, tmp_path, "impressions", code="no_rows", field=log)


def test_malformed_parquet_is_rejected(tmp_path: Path) -> None:
    raw_folder = write_slice(tmp_path / "raw")
    log = raw_folder / "log_standard_20220425_20220508.parquet"
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])
    assert_rejected(raw_folder, tmp_path, code="damaged_file", field=log)
    log.write_bytes(whole)
    assert_rejected(raw_folder, tmp_path, code="missing_file", field=raw_folder, random_log=True)
    table = pq.read_table(log)
    pq.write_table(table.set_column(0, "user_id", pa.array(list("abcdef"))), log)
    assert_rejected(raw_folder, tmp_path, log, "string", code="wrong_column_type", field="user_id")
    pq.write_table(table.set_column(0, "user_id", pa.array([7, 7, None, 8, 8, 8])), log)
    assert_rejected(raw_folder, tmp_path, log, "row 3", "nothing", field="user_id")


def test_unknown_name_and_existing_output_are_usage_errors(tmp_path: Path) -> None:
    with raises(UsageError, "netflix", *DATASETS, code="unknown_name", field="name"):
        import_logs("netflix", tmp_path, tmp_path / "logs")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for out in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
        with raises(UsageError, f"{out}:", code="out_exists", field="--out"):
            import_logs("kuairand", tmp_path / "absent", out)
    (tmp_path / "empty").mkdir()
    import_logs("kuairand", write_slice(tmp_path / "raw"), tmp_path / "empty")
    assert (tmp_path / "empty" / "schema.yaml").exists()
