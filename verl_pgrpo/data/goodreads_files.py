# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Stream the Goodreads files of the UCSD Book Graph: JSON Lines, gzipped, many GB. Memory does not grow with the file.

Times look like `Fri Aug 25 13:55:02 -0700 2017`. A rating of 0 means that the reader gave none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.json
from tqdm import tqdm

from verl_pgrpo.data.summary import Summary
from verl_pgrpo.errors import DataError

BLOCK = 1 << 23  # bytes of text parsed at a time, at least one line
TIME_FORMAT = "%a %b %d %H:%M:%S %z %Y"
REVIEW = ("review_id", "user_id", "book_id", "rating", "date_added", "review_text")
REVIEW_TYPES = pa.schema([(name, pa.int64() if name == "rating" else pa.string()) for name in REVIEW])
BOOK_TYPES = pa.schema([(name, pa.string()) for name in ("book_id", "title", "description")])


def read_reviews(path: Path, summary: Summary | None = None) -> Iterator[pd.DataFrame]:
    """Yield blocks of reviews with the columns review, user, book, rating (1 to 5), time, text and words.

    `time` is in seconds since 1970, `words` counts the text's words. Reviews without a rating, and those in which a
    field is missing or blank, are left out; `summary` counts them, and all reviews.
    """
    columns = ["review", "user", "book", "rating", "date", "text"]
    for first, table in _blocks(path, REVIEW_TYPES, "goodreads_reviews_*.json.gz"):
        table = table.select(list(REVIEW)).rename_columns(columns)
        frame = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
        missing = frame.isna()
        for name in ("review", "user", "book", "date", "text"):
            missing[name] |= frame[name].fillna("").str.strip() == ""
        unrated = ~missing["rating"] & (frame["rating"] == 0)
        bad = missing.any(axis=1)
        if summary is not None:
            summary.read["reviews"] = summary.read.get("reviews", 0) + len(frame)
            summary.drop("reviews with a missing id, rating, date or text", bad.sum())
            summary.drop("reviews without a rating", (unrated & ~bad).sum())
        frame = frame[~bad & ~unrated].assign(rating=lambda rows: rows["rating"].astype("int64"))
        wrong = ~frame["rating"].between(1, 5)
        if wrong.any():
            row = wrong.idxmax()
            raise DataError(f"{path.name}, line {first + row}: rating must be 0 to 5 (got {frame['rating'][row]})")
        times = pd.to_datetime(frame["date"], format=TIME_FORMAT, utc=True, errors="coerce")
        if times.isna().any():
            row = times.isna().idxmax()
            raise DataError(f"{path.name}, line {first + row}: date_added must look like "
                            f"'Fri Aug 25 13:55:02 -0700 2017' (got {frame['date'][row][:60]!r})")  # fmt: skip
        text = frame["text"].str.split().str.join(" ")
        yield frame.drop(columns="date").assign(
            time=times.astype("datetime64[s, UTC]").astype("int64"), text=text, words=text.str.count(" ") + 1
        )


def read_books(path: Path, wanted: set[str]) -> pd.DataFrame:
    """Return title and description of the wanted books, indexed by id; a missing description is "".

    Books without a title are left out. Average ratings and shelves are not read, because they include later reviews.
    """
    parts = []
    for _, table in _blocks(path, BOOK_TYPES, "goodreads_books_*.json.gz"):
        frame = table.select(BOOK_TYPES.names).to_pandas().fillna("").astype(str)
        frame = frame[frame["book_id"].isin(wanted)].set_index("book_id")
        parts.append(frame.apply(lambda column: column.str.split().str.join(" ")))
    books = pd.concat(parts)
    return books[~books.index.duplicated(keep="last") & (books["title"] != "")]


def _blocks(path: Path, types: pa.Schema, expected: str) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the number of a block's first line, and the block, typed, with at least the columns of `types`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected {expected} of the UCSD Book Graph")
    parse = pa.json.ParseOptions(explicit_schema=types, unexpected_field_behavior="ignore")
    read = pa.json.ReadOptions(use_threads=False, block_size=BLOCK)
    size, line = path.stat().st_size, 1
    try:
        with open(path, "rb") as raw, tqdm(desc=path.name, unit="B", unit_scale=True, total=size, leave=False,
                                           disable=None) as bar:  # fmt: skip
            file = pa.PythonFile(raw, mode="r")
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            for block in pa.json.open_json(pa.CompressedInputStream(file, "gzip") if zipped else file, read, parse):
                block.validate(full=True)  # text that is not UTF-8
                empty = [name for name in types.names if block.column(name).null_count == len(block)]
                if line == 1 and empty and empty != ["description"]:
                    raise DataError(f"{path.name}: no {empty[0]!r} in the first lines; is this {expected}?")
                yield line, block
                line += len(block)
                bar.update((size if raw.closed else raw.tell()) - bar.n)
    except pa.ArrowInvalid as error:
        match = re.search(r"in row (\d+)", str(error))
        where = f"line {line + int(match[1])}" if match else f"after line {line - 1}"
        raise DataError(f"{path.name}, {where}: not as in {expected} ({' '.join(str(error).split())[:160]})") from error
    except OSError as error:
        raise DataError(f"{path}: damaged after line {line - 1} ({error}); download it again") from error
