# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""MovieLens-1M as its owners publish it: `ml-1m.zip` with `ratings.dat` and `movies.dat`, `::` between fields, latin-1.

Ratings are read a block at a time by Arrow, which knows one-letter separators only: with `:` every second column is
empty. Arrow's errors name no line of the file, so whenever it, or a range, is not content, the file is scanned again
line by line for the first line that is wrong.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.progress import progress

BLOCK = 1 << 24
RATING = re.compile(rb"[1-9][0-9]{0,8}::[1-9][0-9]{0,8}::[1-5]::[0-9]{1,10}\r?\n?")
FIELDS = {"user": pa.int32(), "film": pa.int32(), "stars": pa.int8(), "time": pa.int64()}
GAPS = ("gap1", "gap2", "gap3")


@dataclass(frozen=True, slots=True)
class Ratings:
    """A column per field, each (N,): ids as in the archive, stars 1 to 5, time in seconds since 1970."""

    user: npt.NDArray[np.int32]
    film: npt.NDArray[np.int32]
    stars: npt.NDArray[np.int8]
    time: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: npt.NDArray[np.generic] | slice) -> Ratings:
        """The ratings at these places, or where a mask is true."""
        return Ratings(self.user[which], self.film[which], self.stars[which], self.time[which])


@dataclass(frozen=True, slots=True)
class Films:
    """Films by their place, 0 to F - 1. `place_of` maps ids to places: two ids of one title are one film."""

    titles: tuple[str, ...]
    genres: tuple[tuple[str, ...], ...]
    place_of: dict[int, int]


def read_archive(path: Path) -> tuple[Ratings, Films]:
    """All ratings and films of the archive, in its own order.

    Raises:
        DataError: no such file, another archive, or a line that is not as it should be; the message names it.
    """
    with _opened(path) as archive:
        films = _read_films(archive, _member(archive, path, "movies.dat"))
        return _read_ratings(archive, _member(archive, path, "ratings.dat")), films


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; download ml-1m.zip from MovieLens' owners and name it with --archive")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: not a zip archive, or a damaged one ({error}); download it again") from error
    except (NotImplementedError, RuntimeError) as error:  # compressed or encrypted in a way that Python cannot read
        raise DataError(
            f"{path}: cannot be read ({error}); is it ml-1m.zip as MovieLens' owners publish it?"
        ) from error


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> zipfile.ZipInfo:
    found = [
        info
        for info in archive.infolist()
        if info.filename.rpartition("/")[2] == name and "__MACOSX" not in info.filename
    ]
    if len(found) != 1:
        inside = ", ".join(sorted(archive.namelist())[:6]) or "nothing"
        raise DataError(
            f"{path}: {'no' if not found else 'more than one'} {name} in it, so it is not ml-1m.zip (later MovieLens "
            f"releases have CSV files and are another format); it holds {inside}"
        )
    return found[0]


def _read_films(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Films:
    titles: dict[str, int] = {}
    genres: list[tuple[str, ...]] = []
    place_of: dict[int, int] = {}
    with archive.open(member) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.decode("latin-1").rstrip("\r\n")
            where = f"{member.filename}, line {number}"
            head, _, rest = text.partition("::")
            title, separator, kinds = rest.rpartition("::")  # a title may hold the separator, a genre does not
            title = " ".join(title.split())
            if not (separator and title and kinds and re.fullmatch("[1-9][0-9]{0,8}", head)):
                raise DataError(f"{where}: expected MovieID::Title::Genre|Genre, found {text[:120]!r}")
            if int(head) in place_of:
                raise DataError(f"{where}: film {head} is listed twice")
            place = place_of[int(head)] = titles.setdefault(title, len(titles))
            if place == len(genres):
                genres.append(tuple(dict.fromkeys(kind.strip() for kind in kinds.split("|") if kind.strip())))
    if not titles:
        raise DataError(f"{member.filename}: empty")
    return Films(tuple(titles), tuple(genres), place_of)


def _read_ratings(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Ratings:
    names = ["user", "gap1", "film", "gap2", "stars", "gap3", "time"]
    parts: list[pa.RecordBatch] = []
    try:
        with archive.open(member) as raw, progress("ratings", member.file_size) as bar:
            reader = pyarrow.csv.open_csv(
                pa.PythonFile(raw, mode="r"),
                pyarrow.csv.ReadOptions(column_names=names, block_size=BLOCK),
                pyarrow.csv.ParseOptions(delimiter=":", quote_char=False, ignore_empty_lines=False),
                pyarrow.csv.ConvertOptions(
                    column_types={**FIELDS, **{gap: pa.null() for gap in GAPS}}, null_values=[""]
                ),
            )
            for batch in reader:
                parts.append(batch.select(list(FIELDS)))
                bar.update(batch.nbytes)
    except pa.ArrowInvalid as error:
        raise _wrong_line(archive, member, str(error)) from error
    table = pa.Table.from_batches(parts)
    if any(column.null_count for column in table.columns):
        raise _wrong_line(archive, member, "a field is empty")
    ratings = Ratings(*(table.column(name).to_numpy() for name in FIELDS))
    if not len(ratings):
        raise DataError(f"{member.filename}: empty")
    in_range = ratings.stars.min() >= 1 and ratings.stars.max() <= 5 and ratings.time.min() >= 0
    if not (in_range and ratings.user.min() >= 1 and ratings.film.min() >= 1):
        raise _wrong_line(archive, member, "a number is out of range")
    return ratings


def _wrong_line(archive: zipfile.ZipFile, member: zipfile.ZipInfo, why: str) -> DataError:
    """The error that names the first line which is not a rating."""
    with archive.open(member) as lines:
        for number, line in enumerate(lines, start=1):
            if not RATING.fullmatch(line):
                shown = line.decode("latin-1").rstrip("\r\n")[:120]
                return DataError(
                    f"{member.filename}, line {number}: expected UserID::MovieID::Rating::Timestamp with a rating of "
                    f"1 to 5, found {shown!r}"
                )
    return DataError(f"{member.filename}: cannot be read ({why[:200]})")
