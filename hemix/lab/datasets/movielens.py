"""Import of MovieLens (Harper and Konstan, 2015): ratings of movies.

A rating is an impression, ``like`` is a rating of 4 or more, and earlier impressions are the
history. The first 90 % of the ratings train, the next 5 % validate and the last 5 % test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hemix.data.jagged_array import offsets_of
from hemix.errors import DataError
from hemix.lab.datasets.layouts import detect_layout
from hemix.lab.datasets.logs_writer import LogsWriter
from hemix.lab.datasets.options import ImportOptions
from hemix.lab.datasets.raw_files import (
    INTEGER,
    NUMBER,
    TEXT,
    ColumnType,
    RawChunk,
    RawFile,
    TextFormat,
)
from hemix.schema import Schema

__all__ = ["MovieLens", "open_movielens"]

LIKED_FROM = 4.0
"""Lowest rating that counts as a like, in stars."""

_FILES = {
    "ml-100k": ("u.data", "u.item", "u.user"),
    "ml-1m": ("ratings.dat", "movies.dat", "users.dat"),
    "ml-latest": ("ratings.csv", "movies.csv"),  # also ml-latest-small, ml-20m, -25m and -32m
}
_GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_NO_GENRES = "(no genres listed)"
# the last parenthesis that begins with four digits: "Death Note (2006-2007)", "Seven (a.k.a. Se7en)
# (1995)"
_YEAR = r"^.*\((?P<year>[0-9]{4})(?:[^0-9)][^)]*)?\)"

_SPAN_BITS = 12
"""A span of times is 2^12 = 4,096 s."""

Int64s = npt.NDArray[np.int64]
Counts = tuple[Int64s, Int64s]
"""Distinct keys in ascending order, and how often each occurs."""


@dataclass(frozen=True, kw_only=True)
class MovieLens:
    """The files of one MovieLens layout."""

    layout: str
    ratings: RawFile
    movies: RawFile
    users: RawFile | None = None

    def check(self) -> None:
        """Raise DataError if a file cannot be opened or lacks a column."""
        for file in (self.ratings, self.movies, *([self.users] if self.users else [])):
            file.check()

    def write(self, logs: LogsWriter) -> None:
        """Write the tables and the schema. Raises DataError naming file, line and column."""
        for chunk in self.ratings.chunks():
            logs.write("impressions", impressions(chunk))
        if "impressions" not in logs.rows:
            raise _no_rows(self.ratings.path, "ratings")
        for chunk in self.movies.chunks():
            logs.write("items", movies(chunk))
        if "items" not in logs.rows:
            raise _no_rows(self.movies.path, "movies")
        for chunk in self.users.chunks() if self.users else ():
            chunk.require_values("user_id")
            logs.write("users", chunk.table)
        logs.write_schema(self._schema(logs.rows["impressions"]))

    def _schema(self, ratings: int) -> Schema:
        first, valid, test = times_at(self.ratings, [0, ratings * 90 // 100, ratings * 95 // 100])
        if not first < valid < test:
            raise DataError(
                f"{self.ratings.path}: expected ratings at enough different times to split 90 : 5 "
                ": 5, found "
                f"{ratings} ratings, the first at {first}, valid from {valid}, test from {test}",
                field=str(self.ratings.path),
            )
        return movielens_schema(self.layout, valid=valid, test=test)


def _no_rows(path: Path, expected: str) -> DataError:
    return DataError(f"{path}: expected {expected}, found no row", code="no_rows", field=str(path))


def open_movielens(raw: Path, options: ImportOptions) -> MovieLens:
    """Find and check the files in ``raw``.

    Args:
        raw: The folder with the raw files.
        options: None; MovieLens has no options.

    Raises:
        DataError: A file is missing, cannot be opened or lacks a column.
        UsageError: An option is given.
    """
    options.refuse_all("movielens")
    layouts = {
        name: lambda folder, names=names: [folder / n for n in names]
        for name, names in _FILES.items()
    }
    layout, _ = detect_layout("movielens", (raw,), layouts)
    dataset = {"ml-100k": _ml_100k, "ml-1m": _ml_1m, "ml-latest": _ml_latest}[layout](raw)
    dataset.check()
    return dataset


_RATINGS: dict[str, ColumnType] = {
    "user_id": INTEGER,
    "movie_id": INTEGER,
    "rating": NUMBER,
    "timestamp": INTEGER,
}


def _ml_100k(raw: Path) -> MovieLens:
    bar_separated = TextFormat(delimiter="|", header=False, quoted=False, encoding="latin-1")
    texts = dict.fromkeys(("title", "release_date", "video_release_date", "imdb_url"), TEXT)
    return MovieLens(
        layout="ml-100k",
        ratings=RawFile(
            path=raw / "u.data",
            columns=_RATINGS,
            text=TextFormat(delimiter="\t", header=False, quoted=False),
        ),
        movies=RawFile(
            path=raw / "u.item",
            columns={"movie_id": INTEGER, **texts, **dict.fromkeys(_GENRES_100K, INTEGER)},
            text=bar_separated,
        ),
        users=RawFile(
            path=raw / "u.user",
            columns={
                "user_id": INTEGER,
                "age": INTEGER,
                "gender": TEXT,
                "occupation": TEXT,
                "zip_code": TEXT,
            },
            text=bar_separated,
        ),
    )


def _ml_1m(raw: Path) -> MovieLens:
    colon_separated = TextFormat(delimiter="::", header=False, quoted=False, encoding="latin-1")
    return MovieLens(
        layout="ml-1m",
        ratings=RawFile(path=raw / "ratings.dat", columns=_RATINGS, text=colon_separated),
        movies=RawFile(
            path=raw / "movies.dat",
            columns={"movie_id": INTEGER, "title": TEXT, "genres": TEXT},
            text=colon_separated,
        ),
        users=RawFile(
            path=raw / "users.dat",
            columns={
                "user_id": INTEGER,
                "gender": TEXT,
                "age": INTEGER,
                "occupation": INTEGER,
                "zip_code": TEXT,
            },
            text=colon_separated,
        ),
    )


def _ml_latest(raw: Path) -> MovieLens:
    return MovieLens(
        layout="ml-latest",
        ratings=RawFile(
            path=raw / "ratings.csv",
            columns={"userId": INTEGER, "movieId": INTEGER, "rating": NUMBER, "timestamp": INTEGER},
            text=TextFormat(),
        ),
        movies=RawFile(
            path=raw / "movies.csv",
            columns={"movieId": INTEGER, "title": TEXT, "genres": TEXT},
            text=TextFormat(),
        ),
    )


def impressions(chunk: RawChunk) -> pa.Table:
    """Convert ratings to rows of user_id, movie_id, timestamp (s) and like (0 or 1)."""
    chunk.require_values(*chunk.table.column_names)
    user, movie, rating, timestamp = chunk.table.columns
    stars = np.asarray(rating)
    chunk.reject(~((stars >= 0.5) & (stars <= 5)), "rating", "a rating of 0.5 to 5")
    like = pa.array((stars >= LIKED_FROM).astype(np.int8))
    return pa.table({"user_id": user, "movie_id": movie, "timestamp": timestamp, "like": like})


def movies(chunk: RawChunk) -> pa.Table:
    """Convert movies to rows of movie_id, title, year (null if unknown) and genres (a list)."""
    table = chunk.table
    chunk.require_values(table.column_names[0])
    title = table["title"]
    year = pc.struct_field(pc.extract_regex(title, _YEAR), "year").cast(pa.int64())
    return pa.table(
        {
            "movie_id": table[table.column_names[0]],
            "title": title,
            "year": year,
            "genres": _split_genres(table["genres"])
            if "genres" in table.column_names
            else _genres_from_flags(chunk),
        }
    )


def _split_genres(text: pa.ChunkedArray) -> pa.ChunkedArray:
    empty = pc.equal(text, _NO_GENRES)
    return pc.split_pattern(pc.if_else(empty, pa.scalar(None, pa.string()), text), "|")


def _genres_from_flags(chunk: RawChunk) -> pa.Array:
    flags = np.stack([chunk.flags(genre) for genre in _GENRES_100K], axis=1)
    flags[:, 0] = False  # "unknown" is no genre
    genre = pa.array(_GENRES_100K).take(pa.array(np.nonzero(flags)[1]))
    offsets = offsets_of(flags.sum(axis=1))
    empty = pa.array(~flags.any(axis=1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), genre, mask=empty)


def times_at(ratings: RawFile, ranks: Sequence[int]) -> list[int]:
    """Select order statistics of the rating times without loading all of them.

    The first pass counts spans of times, the second the seconds of the spans that hold a rank.

    Args:
        ratings: A file with a column ``timestamp`` (s).
        ranks: Positions, from 0, in all ratings sorted by time.

    Returns:
        The time (s) at each rank.
    """
    spans, span_counts = _count_keys(ratings, lambda times: times >> _SPAN_BITS)
    before = offsets_of(span_counts)
    index = np.searchsorted(before, ranks, side="right") - 1
    rank_spans = spans[index]
    seconds, counts = _count_keys(
        ratings, lambda times: times[np.isin(times >> _SPAN_BITS, rank_spans)]
    )
    times = []
    for rank, span, start in zip(ranks, rank_spans, before[index], strict=True):
        inside = seconds >> _SPAN_BITS == span
        position = np.searchsorted(np.cumsum(counts[inside]), rank - start, side="right")
        times.append(int(seconds[inside][position]))
    return times


def _count_keys(ratings: RawFile, keys_of: Callable[[Int64s], Int64s]) -> Counts:
    """Count the keys that ``keys_of`` makes of the rating times."""
    total: Counts = (np.empty(0, np.int64), np.empty(0, np.int64))
    for chunk in ratings.chunks(only=("timestamp",)):
        keys, counts = np.unique(keys_of(np.asarray(chunk.table["timestamp"])), return_counts=True)
        merged, index = np.unique(np.concatenate([total[0], keys]), return_inverse=True)
        sums = np.zeros(len(merged), np.int64)
        np.add.at(sums, index, np.concatenate([total[1], counts]))
        total = (merged, sums)
    return total


def movielens_schema(layout: str, *, valid: int, test: int) -> Schema:
    """Make the schema of one layout's logs.

    Args:
        layout: ml-100k, ml-1m or ml-latest.
        valid: First time (s) of the valid split.
        test: First time (s) of the test split.
    """
    categorical: dict[str, Any] = {"type": "categorical"}
    user_features: dict[str, dict[str, Any]] = {
        "ml-100k": {
            "age": {"type": "numeric", "buckets": 10},
            "gender": categorical,
            "occupation": categorical,
            "zip_code": {**categorical, "vocabulary": {"min_count": 5}},
        },
        "ml-1m": {
            "age": categorical,
            "gender": categorical,
            "occupation": categorical,
            "zip_code": {**categorical, "vocabulary": {"min_count": 5}},
        },
        "ml-latest": {},
    }
    hour, weekday = {"type": "clock", "part": "hour"}, {"type": "clock", "part": "weekday"}
    return Schema.model_validate(
        {
            "name": layout,
            "tables": {
                "items": "items.parquet",
                "users": "users.parquet" if user_features[layout] else None,
            },
            "user": "user_id",
            "item": "movie_id",
            "clock": {"column": "timestamp", "unit": "s", "timezone": "UTC"},
            "features": {
                "user": {"user_id": categorical, **user_features[layout]},
                "context": {"hour": hour, "weekday": weekday},
                "item": {
                    "movie_id": categorical,
                    "year": {"type": "numeric", "buckets": 16},
                    "genres": {**categorical, "multi": True, "max_values": 10},
                },
            },
            "history": {
                "source": "impressions",
                "item_features": ["movie_id", "year"],
                "fields": {"hour": hour},
                "global_length": 200,
                "realtime_length": 50,
            },
            "labels": {"like": {}},
            "split": {"valid": valid, "test": test},
        }
    )
