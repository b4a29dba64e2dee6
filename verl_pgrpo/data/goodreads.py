# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Goodreads to verl rows: write this reader's review of a book, given the stars.

    verl-pgrpo data goodreads --reviews goodreads_reviews_poetry.json.gz --books goodreads_books_poetry.json.gz \\
        --out data/goodreads --group-by rating --seed 0

The files are streamed, twice for the reviews (three times with --group-by cluster) and once for the books. What is kept
in memory is a count of reviews per day, which gives the day from which on everything is test side, and the sample: the
reviews whose id has the lowest hashes, so that it depends neither on the order of lines nor on other reviews.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.goodreads_files import Book, Review, read_books, read_reviews
from verl_pgrpo.data.goodreads_readers import reader_features
from verl_pgrpo.data.grouping.artefact import save_groups
from verl_pgrpo.data.grouping.fit import random_groups
from verl_pgrpo.data.grouping.model import id_hashes
from verl_pgrpo.data.options import Archive
from verl_pgrpo.data.rows import extra_info_type, output_folder, verl_row, write_splits
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.data.time_split import Evidence, check_no_leak

DAY = 86400
EXTRA_INFO = extra_info_type(
    ("user", pa.string()),
    ("book", pa.string()),
    ("review", pa.string()),
    ("rating", pa.int64()),
    ("answer_time", pa.int64()),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(Archive):
    """What a data set is made by. Validation is divided among the ratings, the test side begins with a day."""

    # rating, as the paper does, or cluster
    group_by: str = "rating"
    # shorter ones say nothing that a reward could hold on to, longer ones cost tokens
    min_words: int = 20
    max_words: int = 120
    # words of a book's description in the prompt
    description_words: int = 60

    def check(self) -> None:
        if self.group_by not in ("rating", "cluster"):
            raise DataError(f"--group-by must be rating or cluster, got {self.group_by!r}")
        if not 0 < self.test_fraction < 1:
            raise DataError(f"--test-fraction must be between 0 and 1, got {self.test_fraction}")
        self.at_least(seed=0, train_size=1, val_size=1, min_words=1, description_words=0)
        if self.max_words < self.min_words:
            raise DataError(f"--max-words {self.max_words} is less than --min-words {self.min_words}")

    def fits(self, review: Review) -> bool:
        return review.rating > 0 and self.min_words <= len(review.text.split()) <= self.max_words


def prepare(reviews: Path, books: Path, out: Path, options: Options) -> Summary:
    """Write `train.parquet` and `val.parquet` to `out`, and `groups.json` with `group_by=cluster`.

    Raises:
        DataError: a file, a line or an option is not as it should be.
    """
    options.check()
    summary = Summary(f"Goodreads, {reviews.name}, seed {options.seed}")
    cut = _cut(reviews, options, summary)
    train, val = _sample(reviews, cut, options)
    known = read_books(books, {one.book for one in train + val})
    listed = [[one for one in rows if one.book in known] for rows in (train, val)]
    summary.drop("sampled reviews of books that the books file does not list", len(train + val) - sum(map(len, listed)))
    train, val = listed
    texts = {" ".join(one.text.split()) for one in train}
    fresh = [one for one in val if " ".join(one.text.split()) not in texts]
    summary.drop("validation reviews with the words of a training review", len(val) - len(fresh))
    val = fresh

    features_until = cut - 1
    if options.group_by == "rating":
        groups = [np.array([f"rating_{one.rating}" for one in rows]) for rows in (train, val)]
    else:
        features = reader_features(reviews, cut, {one.user for one in train + val})
        features_until = features.until
        users = sorted({one.user for one in train})
        if not users:
            raise DataError("no training row is left; see --min-words, --max-words and --test-fraction")
        values = features.matrix(users)
        model = options.fit(values, features.names, "user")
        past = [one for one in val if features.has(one.user)]
        summary.drop("validation reviews of readers without a past", len(val) - len(past))
        val = past
        groups = [model.assign(features.matrix([one.user for one in rows])) for rows in (train, val)]
    for name, rows in (("training", train), ("validation", val)):
        if not rows:
            raise DataError(f"no {name} row is left; see --min-words, --max-words and --test-fraction")
    times = [np.array([one.time for one in rows]) for rows in (train, val)]
    # A prompt holds the book and the stars, so nothing in it is older or newer than the review itself.
    check_no_leak(cut, features_until, Evidence(times[0], times[0]), Evidence(np.full(len(val), cut - 1), times[1]))

    output_folder(out)
    if options.group_by == "cluster":
        save_groups(model, out / "groups.json")
    ids = [[_unit(one, options) for one in rows] for rows in (train, val)]
    control = random_groups(groups[0], ids[0], options.seed)
    chance = [control.assign(np.empty((len(one), 0)), one) for one in ids]
    splits = {
        split: _render(split, (train, val)[i], known, groups[i], chance[i], options)
        for i, split in enumerate(("train", "val"))
    }
    write_splits(out, splits, EXTRA_INFO, summary)
    summary.notes.append(f"the test side begins at {cut} (seconds since 1970)")
    return summary


def _unit(review: Review, options: Options) -> str:
    """Whose group it is: a reader's for clusters; a review's own where the group is its rating."""
    return review.user if options.group_by == "cluster" else review.review


def _cut(reviews: Path, options: Options, summary: Summary) -> int:
    """The first second of the test side, from one pass that keeps a count for each day."""
    days: Counter[int] = Counter()
    why: Counter[str] = Counter()
    for review in read_reviews(reviews):
        why["reviews"] += 1
        words = len(review.text.split())
        if not review.rating:
            why["none"] += 1
        elif words < options.min_words:
            why["short"] += 1
        elif words > options.max_words:
            why["long"] += 1
        else:
            days[review.time // DAY] += 1
    summary.read = {"reviews": why["reviews"]}
    summary.drop("reviews without a rating", why["none"])
    summary.drop(f"reviews of fewer than {options.min_words} words", why["short"])
    summary.drop(f"reviews of more than {options.max_words} words", why["long"])
    if len(days) < 2:
        raise DataError("fewer than two days with reviews that fit; see --min-words and --max-words")
    later, wanted = 0, days.total() * options.test_fraction
    for day in sorted(days, reverse=True)[:-1]:
        later += days[day]
        if later >= wanted:
            break
    return day * DAY


def _sample(reviews: Path, cut: int, options: Options) -> tuple[list[Review], list[Review]]:
    """The reviews of lowest hash: over all before the cut, and for each rating after it."""
    kept: dict[object, list[tuple[int, str, Review]]] = {}
    for review in read_reviews(reviews):
        if not options.fits(review):
            continue
        side = "train" if review.time < cut else review.rating
        room = options.train_size if side == "train" else -(-options.val_size // 5)
        entry = (-int(id_hashes([review.review], options.seed)[0]), review.review, review)
        heap = kept.setdefault(side, [])
        if len(heap) < room:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)
    ordered = {
        side: [entry[2] for entry in sorted(heap, key=lambda e: e[:2], reverse=True)] for side, heap in kept.items()
    }
    train = ordered.pop("train", [])
    turns = max(map(len, ordered.values()), default=0)
    val = [ordered[side][i] for i in range(turns) for side in sorted(ordered, key=str) if i < len(ordered[side])]
    return train, val[: options.val_size]


def _render(
    split: str, rows: list[Review], books: dict[str, Book], group: npt.NDArray[np.str_], chance: npt.NDArray[np.str_],
    options: Options,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    for index, review in enumerate(rows):
        book = books[review.book]
        about = " ".join(book.description.split()[: options.description_words])
        stars = f"{review.rating} of 5 stars"
        lines = [f"Write my review of the book {book.title}. I gave it {stars}."]
        lines += [f"About the book: {about}"] if about else []
        lines += [
            f"Write as a reader who gave {stars}, in at most {options.max_words} words. The review alone, please."
        ]
        truth = {
            "reference": " ".join(review.text.split()),
            "rating": review.rating,
            "title": book.title,
            "max_words": options.max_words,
        }
        extra_info = {
            "index": index,
            "split": split,
            "user": review.user,
            "book": review.book,
            "review": review.review,
            "rating": review.rating,
            "answer_time": review.time,
            "random_group": str(chance[index]),
            "seed": options.seed,
        }
        yield verl_row("goodreads", group[index], "\n".join(lines), "writing", truth, extra_info)
