# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Read a MovieLens archive as its owners (GroupLens) publish it.

| archive | ratings | films | stars |
|---|---|---|---|
| ml-100k | `u.data`, tabs | `u.item`, `|`, Latin-1 | 1 to 5 |
| ml-1m, ml-10m | `ratings.dat`, `::` | `movies.dat`, `::`, Latin-1 or UTF-8 | 1 to 5; 0.5 to 5 |
| ml-20m, ml-25m, ml-32m, ml-latest(-small) | `ratings.csv` | `movies.csv`, UTF-8 | 0.5 to 5 |

The format is recognized by the names of the files, and text is UTF-8 if it is valid UTF-8, else Latin-1.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
from tqdm import tqdm

from verl_pgrpo.errors import DataError

BLOCK = 1 << 24
FIELDS = {"userId": pa.int32(), "movieId": pa.int32(), "rating": pa.float32(), "timestamp": pa.int64()}
FILMS_OF = {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv"}
NO_GENRES = "(no genres listed)"
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ratings:
    """All ratings, (N,) each: user id, film (its id, or its place in `Films`), stars, seconds since 1970."""

    user: npt.NDArray[np.int32]
    film: npt.NDArray[np.int32]
    stars: npt.NDArray[np.float32]
    time: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: npt.NDArray[np.generic]) -> Ratings:
        """Return the ratings at these indices, or where a mask is true."""
        return Ratings(self.user[which], self.film[which], self.stars[which], self.time[which])


@dataclass(frozen=True, slots=True)
class Films:
    """Films by place, 0 to F - 1. Two ids with one title are one film; `ids` has the first one.

    `place_of` maps every id to its place.
    """

    ids: tuple[int, ...]
    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    place_of: dict[int, int]

    def describe(self, place: int) -> str:
        """Return title and genres, such as `Heat (1995) [Action, Crime]`."""
        kinds = ", ".join(self.genres[place])
        return f"{self.titles[place]} [{kinds}]" if kinds else self.titles[place]


def read_archive(path: Path) -> tuple[Ratings, Films]:
    """Return all ratings, in the archive's order, and all films.

    Raises:
        DataError: no such file, not a MovieLens archive, or a malformed line.
    """
    with _open(path) as archive:
        ratings = [name for name in FILMS_OF if _members(archive, name)]
        members = [_members(archive, name) for name in (ratings[0], FILMS_OF[ratings[0]])] if len(ratings) == 1 else []
        if [len(found) for found in members] != [1, 1]:
            inside = ", ".join(sorted(archive.namelist())[:6]) or "no files"
            expected = "; ".join(f"{a} and {b}" for a, b in FILMS_OF.items())
            raise DataError(f"{path}: not a MovieLens archive: expected one of each of {expected}; found {inside}")
        [rating_file], [film_file] = members
        return _read_ratings(archive, rating_file, ratings[0]), _read_films(archive, film_file, FILMS_OF[ratings[0]])


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; download an archive such as ml-100k.zip or ml-1m.zip from GroupLens")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a zip archive, or damaged ({error}); download it again") from error
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, or encryption
        raise DataError(f"{path}: cannot be read ({error}); is it the archive that GroupLens publishes?") from error


def _members(archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    infos = [info for info in archive.infolist() if "__MACOSX" not in info.filename]
    return [info for info in infos if info.filename.rpartition("/")[2] == name]


def _read_films(archive: zipfile.ZipFile, member: zipfile.ZipInfo, kind: str) -> Films:
    text = _decode(archive.read(member))
    if kind == "movies.csv":
        lines: Iterator[Any] = _csv_rows(text, member.filename)
        parse: Callable[[Any, str], tuple[str, str, list[str]]] = _parse_movies_csv
        next(lines, None)
    else:
        lines = iter(text.removesuffix("\n").split("\n"))
        parse = _parse_u_item if kind == "u.item" else _parse_movies_dat
    places: dict[str, int] = {}
    ids: list[int] = []
    genres: list[tuple[str, ...]] = []
    place_of: dict[int, int] = {}
    for number, line in enumerate(lines, start=2 if kind == "movies.csv" else 1):
        where = f"{member.filename}, line {number}"
        film, title, kinds = parse(line, where)
        title = unicodedata.normalize("NFC", " ".join(title.split()))
        if not (re.fullmatch("[1-9][0-9]{0,8}", film) and title):
            raise DataError(f"{where}: expected a film id and a title, found {film[:40]!r} and {title[:80]!r}")
        if int(film) in place_of:
            raise DataError(f"{where}: film {film} is listed twice")
        place = place_of[int(film)] = places.setdefault(title, len(places))
        if place == len(ids):
            ids.append(int(film))
            genres.append(tuple(dict.fromkeys(one.strip() for one in kinds if one.strip() and one != NO_GENRES)))
    if not ids:
        raise DataError(f"{member.filename}: no films")
    return Films(tuple(ids), tuple(places), tuple(genres), place_of)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")  # as in the original ml-100k and ml-1m


def _csv_rows(text: str, name: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text, newline=""), strict=True)
    except csv.Error as error:
        raise DataError(f"{name}: {error}; is a quote not closed?") from error


def _parse_movies_csv(fields: list[str], where: str) -> tuple[str, str, list[str]]:
    if len(fields) != 3:
        raise DataError(f"{where}: expected movieId,title,genres, found {','.join(fields)[:120]!r}")
    return fields[0], fields[1], fields[2].split("|")


def _parse_movies_dat(line: str, where: str) -> tuple[str, str, list[str]]:
    film, _, rest = line.partition("::")
    title, separator, kinds = rest.rstrip("\r").rpartition("::")  # a title may hold the separator, a genre does not
    if not (separator and kinds):
        raise DataError(f"{where}: expected MovieID::Title::Genre|Genre, found {line[:120]!r}")
    return film, title, kinds.split("|")


def _parse_u_item(line: str, where: str) -> tuple[str, str, list[str]]:
    fields = line.rstrip("\r").split("|")
    flags = fields[-len(GENRES_100K) :]
    if len(fields) != 5 + len(GENRES_100K) or set(flags) - {"0", "1"}:
        raise DataError(
            f"{where}: expected movie id|title|dates|URL|{len(GENRES_100K)} genre flags, found {line[:120]!r}"
        )
    kinds = [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1" and genre != "unknown"]
    return fields[0], fields[1], kinds


def _read_ratings(archive: zipfile.ZipFile, member: zipfile.ZipInfo, kind: str) -> Ratings:
    header = kind == "ratings.csv"
    names = list(FIELDS)
    if kind == "ratings.dat":  # Arrow splits at one character, so every second column is empty
        names = [name for field in FIELDS for name in (field, f"after {field}")][:-1]
    parts: list[pa.RecordBatch] = []
    rows = 0
    try:
        with archive.open(member) as raw, tqdm(desc="ratings", unit="B", unit_scale=True, total=member.file_size,
                                               leave=False, disable=None) as bar:  # fmt: skip
            reader = pa.csv.open_csv(
                pa.PythonFile(raw, mode="r"),
                pa.csv.ReadOptions(use_threads=False, column_names=None if header else names, block_size=BLOCK),
                pa.csv.ParseOptions(
                    delimiter={"u.data": "\t", "ratings.dat": ":", "ratings.csv": ","}[kind],
                    quote_char='"' if header else False,
                    ignore_empty_lines=False,
                ),
                pa.csv.ConvertOptions(
                    column_types={name: FIELDS.get(name, pa.null()) for name in names},
                    include_columns=list(FIELDS),
                    null_values=[""],
                ),
            )
            for batch in reader:
                _check_ratings(batch, f"{member.filename}, line", rows + 1 + header)
                parts.append(batch)
                rows += len(batch)
                bar.update(BLOCK)
    except (pa.ArrowInvalid, KeyError) as error:
        raise DataError(f"{member.filename}: {_line_of(str(error))[:200]}; expected user, film, stars, time") from error
    if not rows:
        raise DataError(f"{member.filename}: no ratings")
    table = pa.Table.from_batches(parts)
    return Ratings(*(table.column(name).to_numpy() for name in FIELDS))


def _check_ratings(batch: pa.RecordBatch, where: str, first: int) -> None:
    """Raise DataError for the first missing or impossible value."""
    user, film, stars, time = (batch.column(name).to_numpy(zero_copy_only=False) for name in FIELDS)
    with np.errstate(invalid="ignore"):
        good = (user >= 1) & (film >= 1) & (time >= 0) & (stars >= 0.5) & (stars <= 5) & (stars * 2 % 1 == 0)
    if not good.all():
        row = int(good.argmin())
        found = ", ".join(
            "nothing" if value is None else str(value) for value in batch.slice(row, 1).to_pylist()[0].values()
        )
        raise DataError(f"{where} {first + row}: expected user, film, stars (0.5 to 5) and time, found {found}")


def _line_of(message: str) -> str:
    """Arrow counts lines as rows, and the header as row 1."""
    return " ".join(re.sub(r"Row #(\d+)", r"line \1", message).split())
