# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Read a MovieLens archive as published by GroupLens.

| archive | ratings | films | stars |
|---|---|---|---|
| ml-100k | `u.data`, tabs | `u.item`, `|`, Latin-1 | 1 to 5 |
| ml-1m, ml-10m | `ratings.dat`, `::` | `movies.dat`, `::`, Latin-1 or UTF-8 | 1 to 5; 0.5 to 5 |
| ml-20m, ml-25m, ml-32m, ml-latest(-small) | `ratings.csv` | `movies.csv`, UTF-8 | 0.5 to 5 |

The file names determine the format. Text is UTF-8 if it is valid UTF-8, else Windows-1252 or Latin-1.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from verl_pgrpo.errors import DataError

FIELDS = {"userId": pa.int32(), "movieId": pa.int32(), "rating": pa.float32(), "timestamp": pa.int64()}
SEPARATORS = {"u.data": "\t", "ratings.dat": ":", "ratings.csv": ","}
FILMS_OF = {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv"}
FILM_LINES = {
    "u.item": "movie id|title|dates|URL|19 genre flags",
    "movies.dat": "MovieID::Title::Genre|Genre",
    "movies.csv": "movieId,title,genres",
}
NO_GENRES = "(no genres listed)"
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Films:
    """Films by position, 0 to F - 1. Two ids with the same title are one film; `ids` has the first id.

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


def read_archive(path: Path) -> tuple[pd.DataFrame, Films]:
    """Return all ratings in the archive's order (user, film, stars, time in seconds since 1970), and all films."""
    if not path.is_file():
        problem = "a folder, not a zip archive" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {problem}; download an archive such as ml-100k.zip or ml-1m.zip from GroupLens")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if "__MACOSX" not in info.filename]
            ratings = [info for info in members if _name(info) in FILMS_OF]
            films = [info for info in members if ratings and _name(info) == FILMS_OF[_name(ratings[0])]]
            if len(ratings) != 1 or len(films) != 1:
                inside = ", ".join(sorted(archive.namelist())[:6]) or "no files"
                expected = "; ".join(f"{a} and {b}" for a, b in FILMS_OF.items())
                raise DataError(f"{path}: not a MovieLens archive: expected one of each of {expected}; found {inside}")
            return _read_ratings(archive, ratings[0]), _read_films(archive, films[0])
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a zip archive, or damaged ({error}); download it again") from error
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, or encryption
        raise DataError(f"{path}: cannot be read ({error}); is it the archive that GroupLens publishes?") from error


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.rpartition("/")[2]


def _read_films(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Films:
    text = _decode(archive.read(member))
    kind = _name(member)
    lines: Iterable[Any] = (line.rstrip("\r") for line in text.removesuffix("\n").split("\n"))
    if kind == "movies.csv":
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    places: dict[str, int] = {}
    ids: list[int] = []
    genres: list[tuple[str, ...]] = []
    place_of: dict[int, int] = {}
    try:
        for number, line in enumerate(lines, start=1):
            if kind == "movies.csv" and number == 1:  # the header
                continue
            try:
                film, title, kinds = _parse_film(kind, line)
            except ValueError as error:
                where = f"{member.filename}, line {number}"
                raise DataError(f"{where}: expected {FILM_LINES[kind]}, found {str(line)[:120]!r}") from error
            if film in place_of:
                raise DataError(f"{member.filename}, line {number}: film {film} is listed twice")
            place = place_of[film] = places.setdefault(title, len(places))
            if place == len(ids):
                ids.append(film)
                genres.append(tuple(dict.fromkeys(one.strip() for one in kinds if one.strip() and one != NO_GENRES)))
    except csv.Error as error:
        raise DataError(f"{member.filename}: {error}; is a quote not closed?") from error
    if not ids:
        raise DataError(f"{member.filename}: no films")
    return Films(tuple(ids), tuple(places), tuple(genres), place_of)


def _decode(raw: bytes) -> str:
    """Decode UTF-8, Windows-1252 or Latin-1. The original ml-100k and ml-1m have characters that the last two share."""
    for encoding in ("utf-8-sig", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return raw.decode("latin-1")


def _parse_film(kind: str, line: Any) -> tuple[int, str, list[str]]:
    """Return id, title and genres of a line (a list of fields for CSV); ValueError if it is malformed."""
    if kind == "u.item":
        film, title, _, _, _, *flags = line.split("|")
        if len(flags) != len(GENRES_100K) or set(flags) - {"0", "1"}:
            raise ValueError("not 19 flags")
        kinds = [genre for genre, flag in zip(GENRES_100K, flags, strict=True) if flag == "1" and genre != "unknown"]
    elif kind == "movies.dat":  # a title may hold the separator, a genre does not
        film, rest = line.split("::", 1)
        title, joined = rest.rsplit("::", 1)
        if not joined:
            raise ValueError("no genres")
        kinds = joined.split("|")
    else:
        film, title, joined = line
        kinds = joined.split("|")
    title = unicodedata.normalize("NFC", " ".join(title.split()))
    if not (re.fullmatch("[1-9][0-9]{0,8}", film) and title):
        raise ValueError("no id or no title")
    return int(film), title, kinds


def _read_ratings(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> pd.DataFrame:
    kind = _name(member)
    names = list(FIELDS)
    if kind == "ratings.dat":  # Arrow splits at one character, so every second column is empty
        names = [name for field in FIELDS for name in (field, f"after {field}")][:-1]
    header = kind == "ratings.csv"
    read = pa.csv.ReadOptions(use_threads=False, column_names=None if header else names)
    quote = '"' if header else False
    parse = pa.csv.ParseOptions(delimiter=SEPARATORS[kind], quote_char=quote, ignore_empty_lines=False)
    types = {name: FIELDS.get(name, pa.null()) for name in names}
    convert = pa.csv.ConvertOptions(column_types=types, include_columns=list(FIELDS), null_values=[""])
    try:
        with archive.open(member) as raw:
            table = pa.csv.read_csv(pa.PythonFile(raw, mode="r"), read, parse, convert)
    except (pa.ArrowInvalid, KeyError) as error:  # Arrow counts lines as rows
        reason = " ".join(re.sub(r"Row #(\d+)", r"line \1", str(error)).split())[:200]
        raise DataError(f"{member.filename}: {reason}; expected user, film, stars, time") from error
    if not len(table):
        raise DataError(f"{member.filename}: no ratings")
    _check_ratings(table, f"{member.filename}, line", 1 + header)
    return table.rename_columns(["user", "film", "stars", "time"]).to_pandas()


def _check_ratings(table: pa.Table, where: str, first: int) -> None:
    """Raise DataError for the first missing or impossible value."""
    user, film, stars, time = (table.column(name).to_numpy() for name in FIELDS)
    with np.errstate(invalid="ignore"):
        good = (user >= 1) & (film >= 1) & (time >= 0) & (stars >= 0.5) & (stars <= 5) & (stars * 2 % 1 == 0)
    if not good.all():
        row = int(good.argmin())
        values = table.slice(row, 1).to_pylist()[0].values()
        found = ", ".join("nothing" if value is None else f"{value:.10g}" for value in values)
        raise DataError(f"{where} {first + row}: expected user, film, stars (0.5 to 5) and time, found {found}")
