# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Archives in MovieLens-1M's exact public format, of invented films and users, in any size.

    python -m tests.fixtures_movielens --out ml-1m.zip --users 200 --films 150 --ratings 8000 --seed 0

As in the original: four files in a folder `ml-1m`, `::` between fields, latin-1, articles behind titles, genres joined
by `|`, colons within titles, many ratings in the same second, users numbered in no order of time. Users have tastes, so
that there is something to cluster. Equal arguments give equal bytes.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

GENRES = ("Action", "Animation", "Children's", "Comedy", "Crime", "Drama", "Film-Noir", "Horror", "Romance", "Sci-Fi")
TASTES = (("Action", "Sci-Fi"), ("Drama", "Romance"), ("Comedy", "Children's"), ("Horror", "Film-Noir"))
NOUNS = (
    "Harbour",
    "Garden",
    "Comet",
    "Widow",
    "Orchard",
    "Lantern",
    "Tiger",
    "Café",
    "Señor",
    "Élan",
    "Façade",
    "Über",
)
FIRST, LAST = 956_703_932, 1_046_454_590  # the original's first and last second
EPOCH = (1980, 1, 1, 0, 0, 0)  # of the zip's members, so that equal arguments give equal bytes
CHUNK = 2_000_000


def films(count: int, rng: np.random.Generator) -> tuple[list[str], list[tuple[str, ...]]]:
    """Titles, all different, and genres."""
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
    """User numbers, film places, stars and times of `count` different pairs, ordered by user as in the original."""
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
    stars = np.clip(np.rint(3.0 + 0.9 * likes[taste[user], film] + rng.normal(0, 0.8, count)), 1, 5).astype(np.int64)
    joined = rng.integers(FIRST, LAST - 40_000_000, size=users)[user]
    later = np.where(rng.random(count) < 0.5, rng.integers(0, 600, size=count), rng.integers(0, 40_000_000, size=count))
    return user, film, stars, joined + later


def write_archive(path: Path, users: int = 200, num_films: int = 150, count: int = 8000, seed: int = 0) -> Path:
    """Write `ml-1m.zip`."""
    rng = np.random.default_rng(seed)
    titles, genres = films(num_films, rng)
    user, film, stars, time = ratings(users, genres, count, rng)
    ids = np.sort(rng.permutation(num_films * 11 // 10)[:num_films]) + 1  # with gaps, as in the original
    listing = [f"{ids[i]}::{titles[i]}::{'|'.join(genres[i])}\n" for i in range(num_films)]
    people = [f"{u + 1}::{'MF'[u % 2]}::25::{u % 21}::{u % 90000 + 10000}\n" for u in range(users)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (
            ("README", "An invented archive.\n"),
            ("movies.dat", "".join(listing)),
            ("users.dat", "".join(people)),
        ):
            archive.writestr(_member(name), text.encode("latin-1"))
        with archive.open(_member("ratings.dat"), "w", force_zip64=True) as out:
            for start in range(0, count, CHUNK):
                part = slice(start, start + CHUNK)
                columns = (user[part] + 1, ids[film[part]], stars[part], time[part])
                texts = [pc.cast(pa.array(column), pa.string()) for column in columns]
                lines = pc.binary_join_element_wise(*texts, "::").to_pylist()
                out.write(("\n".join(lines) + "\n").encode("ascii"))
    return path


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"ml-1m/{name}", date_time=EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def main() -> None:
    parser = argparse.ArgumentParser(description="An invented archive in MovieLens-1M's format.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--films", type=int, default=150)
    parser.add_argument("--ratings", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(write_archive(args.out, args.users, args.films, args.ratings, args.seed))


if __name__ == "__main__":
    main()
