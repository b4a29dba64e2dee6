# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Generated reviews and books in the exact public format of the UCSD Book Graph, in any size.

    python -m tests.fixtures_goodreads --out fixtures/ --reviews 4000 --books 60 --readers 150 --seed 0

As in the original: gzip, a JSON object a line, ids of 32 hexadecimal digits for readers and reviews and of digits as
text for books, times with an offset, empty texts for unknown values, ratings of 0, markup and several languages in the
texts, escaped characters. The same arguments give identical bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

OPENING = (  # by rating
    "No stars.", "Awful. I hated this boring and terrible book.", "Weak and disappointing, with dull and poor pages.",
    "It was fine. Some parts work, some do not.", "A good and enjoyable read, with charming people.",
    "Wonderful! I love this brilliant and beautiful book.",
)  # fmt: skip
MIDDLE = (
    "the", "plot", "and", "its", "people", "move", "through", "winter", "towards", "a", "quiet", "end", "in", "old",
    "house", "by", "sea",
)  # fmt: skip
ODD = ("naïve café", "“curly” — dashes", "<b>bold</b>", "日本語", "tab\tand\nline")


def reviews(count: int, readers: int, books: int, seed: int) -> Iterator[dict[str, Any]]:
    """Review after review; readers differ in how generous and how talkative they are."""
    rng = np.random.default_rng(seed)
    generous, talkative = rng.integers(-1, 2, size=readers), rng.integers(0, 2, size=readers)
    start = datetime(2012, 1, 1, tzinfo=timezone(timedelta(hours=-7)))
    for i in range(count):
        reader = int(rng.integers(readers))
        rating = int(np.clip(rng.integers(2, 6) + generous[reader], 1, 5)) if rng.random() > 0.05 else 0
        words = rng.choice(MIDDLE, size=int(rng.integers(4, 24)) + 30 * int(talkative[reader]))
        text = f"{OPENING[rating]} {' '.join(words)}. {ODD[i % len(ODD)]}"
        when = start + timedelta(seconds=int(rng.integers(0, 5 * 365 * 86400)))
        date = when.strftime("%a %b %d %H:%M:%S %z %Y")
        yield {
            "user_id": _hex("user", reader), "book_id": str(1000 + int(rng.integers(books))),
            "review_id": _hex("review", i), "rating": rating, "review_text": text, "date_added": date,
            "date_updated": date, "read_at": "", "started_at": "", "n_votes": 0, "n_comments": 0,
        }  # fmt: skip


def books(count: int) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {
            "isbn": "", "text_reviews_count": "1", "series": [], "country_code": "US", "language_code": "eng",
            "popular_shelves": [{"count": "3", "name": "to-read"}], "average_rating": "3.90", "book_id": str(1000 + i),
            "description": f"A book about house number {i} by the sea." if i % 4 else "",
            "authors": [{"author_id": str(i), "role": ""}], "num_pages": "", "ratings_count": "7",
            "title": f"The House No. {i} (Côte d'Or, #{i})", "title_without_series": f"The House No. {i}",
        }  # fmt: skip


def write_files(
    folder: Path, count: int = 4000, readers: int = 150, num_books: int = 60, seed: int = 0
) -> tuple[Path, Path]:
    """Write both files; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "goodreads_reviews_poetry.json.gz", folder / "goodreads_books_poetry.json.gz"
    for path, rows in zip(paths, (reviews(count, readers, num_books, seed), books(num_books)), strict=True):
        with open(path, "wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            for row in rows:
                packed.write(json.dumps(row).encode() + b"\n")
    return paths


def _hex(kind: str, number: int) -> str:
    return hashlib.md5(f"{kind} {number}".encode(), usedforsecurity=False).hexdigest()


def main(
    out: Annotated[Path, typer.Option()], reviews: int = 4000, readers: int = 150, books: int = 60, seed: int = 0
) -> None:
    """Write generated reviews and books in Goodreads' format."""
    print(*write_files(out, reviews, readers, books, seed))


if __name__ == "__main__":
    typer.run(main)
