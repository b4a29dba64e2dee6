# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The Goodreads files of the UCSD Book Graph: gzip, one JSON object a line, of many GB. Read a line at a time.

Times are `Fri Aug 25 13:55:02 -0700 2017`. A rating of 0 means that the reader gave none.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.progress import progress

LONGEST_LINE = 1 << 24  # bytes; a file without line ends must not need the memory
MONTHS = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6,
    "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Review:
    """One line of a reviews file; `time` in seconds since 1970, `rating` 0 (none) to 5."""

    review: str
    user: str
    book: str
    rating: int
    time: int
    text: str


@dataclass(frozen=True, slots=True)
class Book:
    """What a prompt may say of a book. Average ratings and shelves stay out: they were counted at the very end."""

    title: str
    description: str


def read_reviews(path: Path) -> Iterator[Review]:
    """All reviews, in the file's order.

    Raises:
        DataError: no such file, a damaged one, or a line that is no review; the message names it.
    """
    for number, row in _rows(path, "goodreads_reviews_*.json.gz"):
        try:
            rating = row["rating"]
            if type(rating) is not int or not 0 <= rating <= 5:
                raise ValueError(f"rating must be 0 to 5, is {rating!r}")
            texts = [row[name] for name in ("review_id", "user_id", "book_id", "review_text")]
            if not all(isinstance(text, str) for text in texts[:1] + texts[1:2] + texts[3:]):
                raise ValueError("an id or the text is not text")
            yield Review(texts[0], texts[1], str(texts[2]), rating, parse_time(row["date_added"]), texts[3])
        except KeyError as error:
            raise DataError(
                f"{path.name}, line {number}: no field {error}; is this goodreads_reviews_*.json.gz?"
            ) from error
        except ValueError as error:
            raise DataError(f"{path.name}, line {number}: {error}") from error


def read_books(path: Path, wanted: set[str]) -> dict[str, Book]:
    """The wanted books by id; the others are passed over.

    Raises:
        DataError: as for the reviews.
    """
    found = {}
    for number, row in _rows(path, "goodreads_books_*.json.gz"):
        try:
            book = str(row["book_id"])
            if book in wanted:
                found[book] = Book(" ".join(str(row["title"]).split()), " ".join(str(row["description"]).split()))
        except KeyError as error:
            raise DataError(
                f"{path.name}, line {number}: no field {error}; is this goodreads_books_*.json.gz?"
            ) from error
    return found


def parse_time(text: object) -> int:
    """Seconds since 1970. Three times as fast as strptime, and there are millions.

    Raises:
        ValueError: not a time as Goodreads writes it.
    """
    try:
        _, month, day, clock, zone, year = str(text).split()
        hour, minute, second = clock.split(":")
        moment = datetime(int(year), MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=timezone.utc)
        offset = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
        return int(moment.timestamp()) - (offset if zone[0] == "+" else -offset)
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"date_added must be like 'Fri Aug 25 13:55:02 -0700 2017', is {str(text)[:60]!r}") from error


def _rows(path: Path, expected: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected {expected} as the UCSD Book Graph publishes it")
    number = 0
    try:
        with open(path, "rb") as packed, progress(path.name, path.stat().st_size) as bar:
            zipped = packed.peek(2)[:2] == b"\x1f\x8b"
            file: BinaryIO = gzip.GzipFile(fileobj=packed) if zipped else packed  # type: ignore[assignment]
            while line := file.readline(LONGEST_LINE):
                number += 1
                if number % 4096 == 0:
                    bar.update(packed.tell() - bar.n)
                if len(line) == LONGEST_LINE:
                    raise DataError(f"{path.name}, line {number}: longer than {LONGEST_LINE >> 20} MiB")
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    shown = line[:80].decode("utf-8", "replace")
                    raise DataError(f"{path.name}, line {number}: not JSON ({error}): {shown!r}") from error
                if not isinstance(row, dict):
                    raise DataError(f"{path.name}, line {number}: expected a JSON object")
                yield number, row
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged after line {number} ({error}); download it again") from error
    if not number:
        raise DataError(f"{path}: empty")
