"""MIND imports: exact tables, histories that leak nothing, and malformed files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemix.data.dataset import Dataset
from hemix.errors import DataError, UsageError
from hemix.lab.datasets import ImportOptions, import_logs
from hemix.preparation.pipeline import prepare
from hemix.schema import Schema
from tests.lab.datasets.test_kuairand import rows_of
from tests.refusals import raises

ENTITY = '[{"Label": "A", "WikidataId": "Q1"}, {"Label": "B", "WikidataId": "Q22"}]'
NEWS = [
    f'N1\tsports\tgolf\tA "title"\t\thttps://x\t{ENTITY}\t[]',
    "N2\tnews\tworld\tB\tabstract\thttps://y\t[]\t[]",
]
DEV_NEWS = [NEWS[0], "N3\tnews\tlocal\tC\t\t\t\t"]
TRAIN = [
    "1\tU2\t11/11/2019 9:00:00 AM\tN1\tN2-1 N1-0",  # U2's later row
    "2\tU1\t11/9/2019 8:55:22 AM\tN2 N1\tN1-0 N2-1",
    "3\tU2\t11/10/2019 12:00:00 AM\tN1\tN1-1",  # U2's earliest row
    "4\tU1\t11/14/2019 1:00:00 PM\t\tN1-0",  # the last day before dev: valid
]
DEV = [
    "1\tU1\t11/15/2019 12:00:01 AM\tN2 N1 N2\tN3-1 N2-0",  # with the click of the train file
    "2\tU3\t11/15/2019 5:00:00 PM\tN3 N3\tN1-0",
]
NOV_9 = 1_573_257_600  # midnight, s


def write_mind(
    folder: Path, *, train: list[str] = TRAIN, dev: list[str] = DEV, names: str = "train dev"
) -> Path:
    for part, behaviors, news in zip(names.split(), (train, dev), (NEWS, DEV_NEWS), strict=True):
        (folder / part).mkdir(parents=True)
        (folder / part / "behaviors.tsv").write_text("".join(f"{row}\n" for row in behaviors))
        (folder / part / "news.tsv").write_text("".join(f"{row}\n" for row in news))
    return folder


def test_lists_histories_and_news_become_tables(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    counts = import_logs("mind", write_mind(tmp_path / "raw"), out)
    assert counts == {"impressions": 9, "events": 9, "items": 3}
    assert rows_of(out / "impressions.parquet") == [
        ("train-1", "U2", NOV_9 + 2 * 86_400 + 9 * 3600, "N2", 1),
        ("train-1", "U2", NOV_9 + 2 * 86_400 + 9 * 3600, "N1", 0),
        ("train-2", "U1", NOV_9 + 8 * 3600 + 55 * 60 + 22, "N1", 0),
        ("train-2", "U1", NOV_9 + 8 * 3600 + 55 * 60 + 22, "N2", 1),
        ("train-3", "U2", NOV_9 + 86_400, "N1", 1),
        ("train-4", "U1", NOV_9 + 5 * 86_400 + 13 * 3600, "N1", 0),
        ("dev-1", "U1", NOV_9 + 6 * 86_400 + 1, "N3", 1),
        ("dev-1", "U1", NOV_9 + 6 * 86_400 + 1, "N2", 0),
        ("dev-2", "U3", NOV_9 + 6 * 86_400 + 17 * 3600, "N1", 0),
    ]
    assert rows_of(out / "items.parquet") == [
        ("N1", "sports", "golf", 'A "title"', ["Q1", "Q22"]),
        ("N2", "news", "world", "B", None),
        ("N3", "news", "local", "C", None),
    ]


def test_the_history_of_the_earliest_row_is_timeless_and_clicks_are_timed(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    import_logs("mind", write_mind(tmp_path / "raw"), out)
    events = rows_of(out / "events.parquet", ["user_id", "news_id", "time_s"])
    timeless = [(user, news) for user, news, time in events if time is None]
    # U1's row of the dev file has the click of the train file: it is timed, not timeless
    assert timeless == [("U1", "N2"), ("U1", "N1"), ("U2", "N1"), ("U3", "N3"), ("U3", "N3")]
    assert [(user, news, time - NOV_9) for user, news, time in events if time is not None] == [
        ("U2", "N2", 2 * 86_400 + 9 * 3600),
        ("U1", "N2", 8 * 3600 + 55 * 60 + 22),
        ("U2", "N1", 86_400),
        ("U1", "N3", 6 * 86_400 + 1),
    ]


def test_the_day_before_dev_validates_and_the_logs_prepare(tmp_path: Path) -> None:
    raw_folder = write_mind(tmp_path / "raw", names="MINDsmall_train MINDsmall_dev")
    import_logs("mind", raw_folder, tmp_path / "logs")
    schema = Schema.load(tmp_path / "logs" / "schema.yaml")
    assert schema.name == "mind-small"
    assert (schema.split.valid, schema.split.test) == (
        NOV_9 + 5 * 86_400 + 1,
        NOV_9 + 6 * 86_400 + 1,
    )
    prepare(tmp_path / "logs", tmp_path / "data")
    splits = Dataset(tmp_path / "data").manifest["splits"]
    assert {name: (split["requests"], split["rows"]) for name, split in splits.items()} == {
        "train": (3, 5),
        "valid": (1, 1),
        "test": (2, 3),
    }


@pytest.mark.parametrize(
    ("train", "field", "values"),
    [
        (["1\tU1\t11/9/2019 8:55 AM\tN1\tN1-0"], "time", ["line 1", "'11/9/2019 8:55 AM'"]),
        ([TRAIN[0], "2\tU1\t11/9/2019 8:55:00 AM\tN1\tN1-2"], "impressions", ["line 2"]),
        (["1\tU1\t11/9/2019 8:55:00 AM\tN1\t"], "impressions", ["line 1", "nothing"]),
        (["1\t\t11/9/2019 8:55:00 AM\tN1\tN1-0"], "user_id", ["line 1", "nothing"]),
    ],
)
def test_malformed_rows_are_refused(
    tmp_path: Path, train: list[str], field: str, values: list[str]
) -> None:
    raw_folder = write_mind(tmp_path / "raw", train=train)
    file = raw_folder / "train" / "behaviors.tsv"
    with raises(DataError, file, *values, field=field):
        import_logs("mind", raw_folder, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_malformed_news_and_wrong_times_are_refused(tmp_path: Path) -> None:
    raw_folder = write_mind(tmp_path / "raw")
    news = raw_folder / "dev" / "news.tsv"
    news.write_text(f"{NEWS[0]}\nN4\tnews\tlocal\tC\t\t\t[{{}}]\t\n")
    with raises(DataError, news, "line 2", field="title_entities"):
        import_logs("mind", raw_folder, tmp_path / "logs")
    early = write_mind(tmp_path / "early", dev=["1\tU1\t11/11/2019 9:00:00 AM\tN1\tN1-0"])
    dev = early / "dev" / "behaviors.tsv"
    with raises(DataError, dev, code="wrong_times", field=dev):
        import_logs("mind", early, tmp_path / "logs")
    with raises(UsageError, field="--random-log"):
        import_logs("mind", raw_folder, tmp_path / "logs", ImportOptions(random_log=True))
