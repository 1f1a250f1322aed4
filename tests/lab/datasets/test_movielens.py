"""MovieLens imports: exact tables of the official layouts, the split, and malformed files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemix.errors import DataError, UsageError
from hemix.lab.datasets import ImportOptions, import_logs, raw_files
from hemix.lab.datasets.movielens import times_at
from hemix.lab.datasets.raw_files import INTEGER, RawFile, TextFormat
from hemix.schema import Schema
from tests.refusals import raises

# 20 ratings, not in the order of time: user, movie, rating, timestamp
RATINGS = [
    (1 + i % 2, 10 + i % 3, (1, 2, 3, 4, 5)[i % 5], 1_000_000 + 100 * ((i * 7) % 20))
    for i in range(20)
]
FLAGS_100K = [
    "|".join("1" if i in on else "0" for i in range(19)) for on in ({3, 4, 5}, set(), {0})
]
TITLES = ["Toy Story (1995)", "Les Misérables, (film) (1998)", "unknown"]


def ml_100k(folder: Path) -> Path:
    folder.mkdir()
    (folder / "u.data").write_text("".join(f"{u}\t{m}\t{r}\t{t}\n" for u, m, r, t in RATINGS))
    lines = [
        f"{10 + i}|{t}|01-Jan-1995||http://us.imdb.com/|{FLAGS_100K[i]}\n"
        for i, t in enumerate(TITLES)
    ]
    (folder / "u.item").write_text("".join(lines), encoding="latin-1")
    (folder / "u.user").write_text("1|24|M|technician|85711\n2|53|F|other|T8H1N\n")
    return folder


def ml_1m(folder: Path) -> Path:
    folder.mkdir()
    (folder / "ratings.dat").write_text("".join(f"{u}::{m}::{r}::{t}\n" for u, m, r, t in RATINGS))
    genres = ["Animation|Children's|Comedy", "Drama", "Film-Noir"]
    lines = [f"{10 + i}::{t}::{g}\n" for i, (t, g) in enumerate(zip(TITLES, genres, strict=True))]
    (folder / "movies.dat").write_text("".join(lines), encoding="latin-1")
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072-1234\n")
    return folder


def ml_latest(folder: Path) -> Path:
    folder.mkdir()
    lines = [f"{u},{m},{r - 0.5},{t}\n" for u, m, r, t in RATINGS]
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "".join(lines))
    movies = [
        "10,Toy Story (1995),Adventure|Animation",
        '11,"Kill, ""Bill"": Vol. 1 (Misérable) (2003–2004) ",(no genres listed)',
        "12,Babylon 5,Sci-Fi",
    ]
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n" + "\n".join(movies), encoding="utf-8"
    )
    return folder


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in pq.read_table(path).to_pylist()]


def assert_ratings(out: Path, liked_from: int) -> Schema:
    assert pq.read_schema(out / "impressions.parquet").names == [
        "user_id",
        "movie_id",
        "timestamp",
        "like",
    ]
    assert rows_of(out / "impressions.parquet") == [
        (u, m, t, int(r >= liked_from)) for u, m, r, t in RATINGS
    ]
    schema = Schema.load(out / "schema.yaml")
    # sorted times are 1,000,000 + 100 i: row 18 of 20 begins valid, row 19 test
    assert (schema.split.column, schema.split.valid, schema.split.test) == (
        None,
        1_001_800,
        1_001_900,
    )
    assert (schema.clock.unit, schema.history_source, schema.tasks) == (
        "s",
        "impressions",
        ("like",),
    )
    for level, file in (("item", "items"), ("user", "users")):
        table = schema.tables.items if file == "items" else schema.tables.users
        names = pq.read_schema(out / table).names if table else ["user_id"]
        assert set(schema.features.level(level)) <= set(names)
    return schema


def test_import_of_ml_100k(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    assert import_logs("movielens", ml_100k(tmp_path / "raw"), out) == {
        "impressions": 20,
        "items": 3,
        "users": 2,
    }
    assert_ratings(out, 4)
    assert rows_of(out / "items.parquet") == [
        (10, TITLES[0], 1995, ["Animation", "Children's", "Comedy"]),
        (11, TITLES[1], 1998, None),
        (12, TITLES[2], None, None),
    ]
    assert pq.read_schema(out / "users.parquet").names == [
        "user_id",
        "age",
        "gender",
        "occupation",
        "zip_code",
    ]
    assert rows_of(out / "users.parquet") == [
        (1, 24, "M", "technician", "85711"),
        (2, 53, "F", "other", "T8H1N"),
    ]


def test_import_of_ml_1m(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    assert import_logs("movielens", ml_1m(tmp_path / "raw"), out) == {
        "impressions": 20,
        "items": 3,
        "users": 2,
    }
    assert_ratings(out, 4)
    assert rows_of(out / "items.parquet") == [
        (10, TITLES[0], 1995, ["Animation", "Children's", "Comedy"]),
        (11, TITLES[1], 1998, ["Drama"]),
        (12, TITLES[2], None, ["Film-Noir"]),
    ]
    assert rows_of(out / "users.parquet") == [
        (1, "F", 1, 10, "48067"),
        (2, "M", 56, 16, "70072-1234"),
    ]


def test_import_of_ml_latest(tmp_path: Path) -> None:
    out = tmp_path / "logs"
    assert import_logs("movielens", ml_latest(tmp_path / "raw"), out) == {
        "impressions": 20,
        "items": 3,
    }
    schema = assert_ratings(
        out, 5
    )  # the file's ratings are half a star lower: 4.5 is liked, 3.5 is not
    assert schema.tables.users is None
    assert rows_of(out / "items.parquet") == [
        (10, "Toy Story (1995)", 1995, ["Adventure", "Animation"]),
        (11, 'Kill, "Bill": Vol. 1 (Misérable) (2003–2004) ', 2003, None),
        (12, "Babylon 5", None, ["Sci-Fi"]),
    ]


def test_rating_of_exactly_4_is_a_like(tmp_path: Path) -> None:
    folder = ml_latest(tmp_path / "raw")
    text = (folder / "ratings.csv").read_text()
    (folder / "ratings.csv").write_text(text.replace(",4.5,", ",4.0,").replace(",3.5,", ",3.999,"))
    import_logs("movielens", folder, tmp_path / "logs")
    liked = [row[3] for row in rows_of(tmp_path / "logs" / "impressions.parquet")]
    assert liked == [int(r == 5) for _, _, r, _ in RATINGS]


@pytest.mark.parametrize("block", [5, 7, 64])
def test_two_character_delimiters_across_block_boundaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text("1::2::3\n" * 9 + "10::20::30")
    monkeypatch.setattr(raw_files, "BLOCK_BYTES", 64)
    stream = raw_files._DelimiterReplacer(path.open("rb"), b"::")
    blocks = list(iter(lambda: stream.read(block), b""))
    assert max(map(len, blocks)) <= block
    assert b"".join(blocks) == path.read_bytes().replace(b"::", b"\x1f")
    file = RawFile(
        path=path,
        columns=dict.fromkeys("abc", INTEGER),
        text=TextFormat(delimiter="::", header=False, quoted=False),
    )
    rows = [row for chunk in file.chunks() for row in chunk.table.to_pylist()]
    assert rows == [{"a": 1, "b": 2, "c": 3}] * 9 + [{"a": 10, "b": 20, "c": 30}]


# -- the split -------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.integers(0, 20_000) | st.integers(900_000_000, 900_000_005), min_size=1, max_size=60
    ),
    st.data(),
)
def test_times_at_selects_order_statistics(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("times") / "t.parquet"
    pq.write_table(pa.table({"timestamp": times}), path)
    ranks = data.draw(st.lists(st.integers(0, len(times) - 1), min_size=1, max_size=4))
    file = RawFile(path=path, columns={"timestamp": INTEGER})
    assert times_at(file, ranks) == np.sort(times)[ranks].tolist()


def test_ratings_with_one_timestamp_cannot_be_split(tmp_path: Path) -> None:
    folder = ml_100k(tmp_path / "raw")
    (folder / "u.data").write_text("".join(f"{u}\t{m}\t{r}\t5\n" for u, m, r, _ in RATINGS))
    assert_rejected(folder, tmp_path, 20, field=folder / "u.data")


# -- malformed files -------------------------------------------------------------------------------


def replace_bytes(path: Path, old: str, new: str) -> None:
    content = path.read_bytes()
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode(), 1))


def assert_rejected(
    folder: Path, tmp_path: Path, *values: object, code: str | None = None, field: object
) -> None:
    with raises(DataError, *values, code=code, field=field):
        import_logs("movielens", folder, tmp_path / "logs")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


@pytest.mark.parametrize(
    ("make", "file", "old", "new", "field", "values"),
    [
        (
            ml_100k,
            "u.data",
            "2\t11\t2\t1000700",
            "2\t11\t2\tx",
            "timestamp",
            ["line 2", "'x'"],
        ),
        (ml_100k, "u.data", "2\t11\t2\t", "2\t11\t9\t", "rating", ["line 2", 0.5, 5, 9.0]),
        (ml_100k, "u.item", "|1|1|1|", "|1|2|1|", "Children's", ["line 1", 0, 1, 2]),
        (ml_1m, "users.dat", "1::F::1", "1::F::old", "age", ["line 1", "'old'"]),
        (ml_latest, "ratings.csv", "2,11,1.5,", "2,11,,", "rating", ["line 3", "nothing"]),
    ],
)
def test_malformed_value_is_rejected_with_its_position(
    tmp_path: Path, make: Any, file: str, old: str, new: str, field: str, values: list[object]
) -> None:
    folder = make(tmp_path / "raw")
    replace_bytes(folder / file, old, new)
    assert_rejected(folder, tmp_path, folder / file, *values, field=field)


@pytest.mark.parametrize(
    ("make", "file", "old", "new", "values"),
    [
        (
            ml_100k,
            "u.data",
            "2\t11\t2\t1000700",
            "2\t11\t2",
            ["line 2", 4, 3, r"'2\t11\t2'"],
        ),
        (ml_1m, "ratings.dat", "2::11::2::", "2::11:2::", ["line 2", 4, 3, "'2::11:2::1000700'"]),
        (ml_latest, "movies.csv", "12,Babylon 5,", "12,Babylon, 5,", ["line 4", 3, 4]),
    ],
)
def test_line_of_other_length_is_rejected_with_its_position(
    tmp_path: Path, make: Any, file: str, old: str, new: str, values: list[object]
) -> None:
    folder = make(tmp_path / "raw")
    replace_bytes(folder / file, old, new)
    assert_rejected(folder, tmp_path, *values, code="wrong_column_count", field=folder / file)


def test_missing_column_is_rejected(tmp_path: Path) -> None:
    folder = ml_latest(tmp_path / "raw")
    replace_bytes(folder / "ratings.csv", "timestamp", "when")
    columns = "userId, movieId, rating, when"
    assert_rejected(folder, tmp_path, columns, code="missing_column", field="timestamp")


def test_file_without_ratings_is_rejected(tmp_path: Path) -> None:
    folder = ml_latest(tmp_path / "raw")
    ratings = folder / "ratings.csv"
    ratings.write_text("userId,movieId,rating,timestamp\n")
    assert_rejected(folder, tmp_path, "ratings", code="no_rows", field=ratings)
    ratings.write_text("")
    names = (ratings, "userId, movieId, rating, timestamp", "nothing")
    assert_rejected(folder, tmp_path, *names, code="missing_column", field="userId")


def test_empty_file_without_header_is_rejected(tmp_path: Path) -> None:
    folder = ml_1m(tmp_path / "raw")
    (folder / "ratings.dat").write_text("")
    assert_rejected(folder, tmp_path, code="no_rows", field=folder / "ratings.dat")


def test_text_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    folder = ml_latest(tmp_path / "raw")
    movies = folder / "movies.csv"
    movies.write_bytes(b"movieId,title,genres\n1,Caf\xe9 (1999),Drama\n")
    assert_rejected(folder, tmp_path, movies, "line 2", "UTF8", field="title")


def test_incomplete_or_missing_layout_is_rejected(tmp_path: Path) -> None:
    folder = ml_1m(tmp_path / "raw")
    (folder / "users.dat").unlink()
    users = folder / "users.dat"
    assert_rejected(folder, tmp_path, "ml-1m", "movielens", code="missing_file", field=users)
    (folder / "ratings.dat").unlink()
    (folder / "movies.dat").unlink()
    layouts = ("movielens", "ml-100k: u.data, u.item, u.user; ml-1m: rat")
    assert_rejected(folder, tmp_path, *layouts, code="missing_file", field=folder)
    with raises(UsageError, "kuairand", field="--random-log"):
        import_logs("movielens", folder, tmp_path / "logs", ImportOptions(random_log=True))
