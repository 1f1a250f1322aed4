"""Import a public data set: write a few ratings in the format of ml-latest, import and prepare.

Writes into ./example_movies, which must not exist.
"""

from pathlib import Path

import numpy as np

import hemix

raw = Path("example_movies/raw")
raw.mkdir(parents=True)
random = np.random.default_rng(0)
genres = ["Comedy", "Drama", "Horror|Thriller", "Animation|Children's"]
movies = [f'{m},"Film no. {m}, The ({1970 + m % 50})",{genres[m % 4]}' for m in range(1, 61)]
(raw / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies]) + "\n")
ratings = [
    f"{random.integers(1, 80)},{random.integers(1, 61)},"
    f"{random.integers(1, 11) / 2},{1_100_000_000 + 3600 * n}"
    for n in range(3_000)
]
(raw / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings]) + "\n")

print(hemix.import_logs("movielens", raw, "example_movies/logs"))
manifest = hemix.prepare("example_movies/logs", "example_movies/data")
print({name: split["rows"] for name, split in manifest["splits"].items()})
