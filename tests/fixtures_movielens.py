# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Generated archives in MovieLens's public formats, in any size.

    python -m tests.fixtures_movielens --out ml-1m.zip --users 200 --films 150 --ratings 8000 --seed 0

As in the originals: articles behind titles, colons and commas within titles, many ratings in the same second, users not
numbered in the order of time. Users have tastes, so that there is something to cluster. The same arguments give
identical bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

GENRES = ("Action", "Animation", "Children's", "Comedy", "Crime", "Drama", "Film-Noir", "Horror", "Romance", "Sci-Fi")
ML_100K_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
TASTES = (("Action", "Sci-Fi"), ("Drama", "Romance"), ("Comedy", "Children's"), ("Horror", "Film-Noir"))
NOUNS = (
    "Harbour", "Garden", "Comet", "Widow", "Orchard", "Lantern", "Tiger", "Café", "Señor", "Élan", "Façade", "Über",
)  # fmt: skip
FIRST, LAST = 956_703_932, 1_046_454_590  # first and last second of ml-1m
CHUNK = 2_000_000

# layout -> folder, ratings file, separator, films file, line of a film, encoding, smallest step between stars
LAYOUTS = {
    "ml-100k": ("ml-100k", "u.data", "\t", "u.item", "{id}|{title}|01-Jan-1995||http://x|{flags}", "latin-1", 1.0),
    "ml-1m": ("ml-1m", "ratings.dat", "::", "movies.dat", "{id}::{title}::{kinds}", "latin-1", 1.0),
    "ml-10m": ("ml-10M100K", "ratings.dat", "::", "movies.dat", "{id}::{title}::{kinds}", "utf-8", 0.5),
    "ml-32m": ("ml-32m", "ratings.csv", ",", "movies.csv", "{id},{quoted},{kinds}", "utf-8", 0.5),
}


def films(count: int, rng: np.random.Generator) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return distinct titles, and their genres."""
    titles, genres = [], []
    for i in range(count):
        noun = NOUNS[i % len(NOUNS)] + (str(i // len(NOUNS) + 1) if i >= len(NOUNS) else "")
        title = (f"{noun}, The", noun, f"Misérables: {noun}", f"{noun}, L'")[i % 4 if i % 3 == 0 else 1]
        titles.append(f"{title} ({rng.integers(1930, 2001)})")
        kinds = rng.choice(len(GENRES), size=rng.integers(1, 4), replace=False)
        genres.append(tuple(GENRES[k] for k in sorted(kinds)))
    return titles, genres


def ratings(
    users: int, genres: list[tuple[str, ...]], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return user numbers, film places, stars and times of `count` distinct pairs, ordered by user."""
    taste = rng.integers(len(TASTES), size=users)
    weight = rng.lognormal(0.0, 0.8, size=users)
    fame = 1 / np.arange(1, len(genres) + 1) ** 0.6
    likes = np.array([[bool(set(kinds) & set(liked)) for kinds in genres] for liked in TASTES])
    keys = np.empty(0, np.int64)
    while len(keys) < count:
        user = rng.choice(users, size=int((count - len(keys)) * 1.3) + 100, p=weight / weight.sum())
        film = np.empty(len(user), np.int64)
        for which in range(len(TASTES)):
            mine = np.flatnonzero(taste[user] == which)
            chance = np.cumsum(fame * np.where(likes[which], 5.0, 1.0))
            film[mine] = np.searchsorted(chance, rng.random(len(mine)) * chance[-1], side="right")
        keys = np.unique(np.concatenate([keys, user * len(genres) + film]))
    keys = np.sort(rng.permutation(keys)[:count])
    user, film = keys // len(genres), keys % len(genres)
    stars = 3.0 + 0.9 * likes[taste[user], film] + rng.normal(0, 0.8, count)
    joined = rng.integers(FIRST, LAST - 40_000_000, size=users)[user]
    later = np.where(rng.random(count) < 0.5, rng.integers(0, 600, size=count), rng.integers(0, 40_000_000, size=count))
    return user, film, stars, joined + later


def write_archive(
    path: Path, users: int = 200, num_films: int = 150, count: int = 8000, seed: int = 0, layout: str = "ml-1m",
    encoding: str | None = None,
) -> Path:  # fmt: skip
    """Write an archive in one of `LAYOUTS`; return its path."""
    folder, rating_file, separator, film_file, film_line, own_encoding, step = LAYOUTS[layout]
    rng = np.random.default_rng(seed)
    titles, genres = films(num_films, rng)
    user, film, stars, time = ratings(users, genres, count, rng)
    stars = np.clip(np.rint(stars / step) * step, step, 5)
    ids = np.sort(rng.permutation(num_films * 11 // 10)[:num_films]) + 1  # with gaps, as in the originals
    listing = "movieId,title,genres\n" if film_file == "movies.csv" else ""
    for one, title, kinds in zip(ids, titles, genres, strict=True):
        quoted = f'"{title}"' if "," in title else title
        parts = {"id": one, "title": title, "quoted": quoted, "kinds": "|".join(kinds), "flags": genre_flags(kinds)}
        listing += film_line.format(**parts) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_member(folder, "README"), "A generated archive.\n")
        archive.writestr(_member(folder, film_file), listing.encode(encoding or own_encoding))
        with archive.open(_member(folder, rating_file), "w", force_zip64=True) as out:
            if separator == ",":
                out.write(b"userId,movieId,rating,timestamp\n")
            for start in range(0, count, CHUNK):
                part = slice(start, start + CHUNK)
                whole = stars[part].astype(np.int64) if step == 1.0 else stars[part]
                columns = (user[part] + 1, ids[film[part]], whole, time[part])
                texts = [pc.cast(pa.array(column), pa.string()) for column in columns]
                lines = pc.binary_join_element_wise(*texts, separator).to_pylist()
                out.write(("\n".join(lines) + "\n").encode("ascii"))
    return path


def genre_flags(kinds: Collection[str]) -> str:
    """Return the genres as in ml-100k."""
    return "|".join(str(int(genre in kinds)) for genre in ML_100K_GENRES)


def _member(folder: str, name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{folder}/{name}")  # the same time stamp for every member, for reproducible bytes
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def main(
    out: Annotated[Path, typer.Option()], users: int = 200, films: int = 150, ratings: int = 8000, seed: int = 0
) -> None:
    """Write a generated archive in the format of ml-1m."""
    print(write_archive(out, users, films, ratings, seed))


if __name__ == "__main__":
    typer.run(main)
