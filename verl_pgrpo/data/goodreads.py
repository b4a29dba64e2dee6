# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Convert Goodreads to verl rows: write this reader's review of a book, given the stars.

    verl-pgrpo data goodreads --reviews goodreads_reviews_poetry.json.gz --books goodreads_books_poetry.json.gz \\
        --out data/goodreads --group-by rating --seed 0

The reviews are streamed twice (three times with --group-by cluster), the books once. Only two things are kept in
memory: a count of reviews per day, which determines the first day of the test side, and the sample, which consists of
the reviews whose ids have the lowest hashes. So the sample depends neither on the order of lines nor on other reviews.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from typer import Option

from verl_pgrpo.data.goodreads_files import read_books, read_reviews
from verl_pgrpo.data.group_model import id_hashes, random_groups, save_groups
from verl_pgrpo.data.options import CLUSTERING, Archive
from verl_pgrpo.data.schema import output_folder, verl_row, write_splits
from verl_pgrpo.data.summary import Summary
from verl_pgrpo.errors import DataError

DAY = 86400
FEATURES = ("mean_rating", "std_rating", "log_reviews", "mean_log_words")
TOO_FEW = "see --min-words, --max-words and --test-fraction"
OWN_FIELDS = [(name, pa.string()) for name in ("user", "book", "review")]
OWN_FIELDS += [("rating", pa.int64()), ("answer_time", pa.int64())]


@dataclass(frozen=True, kw_only=True, slots=True)
class GoodreadsOptions(Archive):
    """Options of a Goodreads dataset. The test side starts on a day; validation has each rating equally often."""

    group_by: Annotated[
        Literal["rating", "cluster"], Option(help="The review's rating, as in the paper, or clusters of readers.")
    ] = "rating"
    # shorter reviews are too short to compare with, longer ones cost tokens
    min_words: Annotated[int, Option(min=1, help="Words of a review.")] = 20
    max_words: Annotated[int, Option(help="Words of a review, and the limit in the prompt.")] = 120
    description_words: Annotated[int, Option(min=0, help="Words of the book's description in the prompt.")] = 60

    def check(self) -> None:
        Archive.check(self)
        if self.group_by == "rating":
            self.check_unused("with --group-by rating", *CLUSTERING)
        if self.max_words < self.min_words:
            raise DataError(f"--max-words {self.max_words} is less than --min-words {self.min_words}")


def prepare(reviews: Path, books: Path, out: Path, options: GoodreadsOptions) -> Summary:
    """Write `train.parquet` and `val.parquet` to `out`, and `groups.json` with `group_by="cluster"`."""
    options.check()
    summary = Summary(f"Goodreads, {reviews.name}, seed {options.seed}")
    cut = _cut(reviews, options, summary)
    train, val = _sample(reviews, cut, options)
    sampled = len(train) + len(val)
    known = read_books(books, {*train["book"], *val["book"]})
    train, val = (rows[rows["book"].isin(known.index)] for rows in (train, val))
    listed = len(train) + len(val)
    summary.drop("sampled reviews of books that the books file does not list with a title", sampled - listed)
    if not listed:
        raise DataError(f"none of {sampled:,} sampled reviews in {reviews.name} is of a book that {books.name} lists; "
                        "are both files of the same genre?")  # fmt: skip
    fresh = ~val["text"].isin(set(train["text"]))
    summary.drop("validation reviews with the text of a training review", (~fresh).sum())
    val = val[fresh]

    by_cluster = options.group_by == "cluster"
    if by_cluster and len(train):
        features = _reader_features(reviews, cut, {*train["user"], *val["user"]})
        model = options.fit(features.loc[sorted(set(train["user"]))].to_numpy(), FEATURES, "user")
        past = val["user"].isin(features.index)
        summary.drop("validation reviews by readers without earlier reviews", (~past).sum())
        val = val[past]
    for name, rows in (("training", train), ("validation", val)):
        if not len(rows):
            raise DataError(f"the {name} split has no rows; {TOO_FEW}")
    train, val = (
        rows.assign(group=model.assign(features.loc[rows["user"]].to_numpy()) if by_cluster
                    else "rating_" + rows["rating"].astype(str))
        for rows in (train, val)
    )  # fmt: skip

    output_folder(out)
    if by_cluster:
        save_groups(model, out / "groups.json")
    # Random groups are assigned by reader for clusters, and by review if the group is the review's rating.
    unit = "user" if by_cluster else "review"
    control = random_groups(train["group"].to_numpy(str), train[unit].tolist(), options.seed)
    splits = {
        split: _render(rows, known, control.assign(np.empty((len(rows), 0)), rows[unit].tolist()), options)
        for split, rows in (("train", train), ("val", val))
    }
    write_splits(out, splits, OWN_FIELDS, options.seed, summary)
    summary.warn_small_groups()
    summary.notes.append(f"the test side begins at {cut} (seconds since 1970)")
    return summary


def _fitting(reviews: Path, options: GoodreadsOptions, summary: Summary | None = None) -> Iterator[pd.DataFrame]:
    """Yield blocks of reviews of the right length."""
    for block in read_reviews(reviews, summary):
        short, long = block["words"] < options.min_words, block["words"] > options.max_words
        if summary is not None:
            summary.drop(f"reviews of fewer than {options.min_words} words", short.sum())
            summary.drop(f"reviews of more than {options.max_words} words", long.sum())
        yield block[~short & ~long]


def _cut(reviews: Path, options: GoodreadsOptions, summary: Summary) -> int:
    """Return the first second of the test side, which starts at the beginning of a day."""
    days = pd.Series(dtype="int64")
    for block in _fitting(reviews, options, summary):
        days = days.add((block["time"] // DAY).value_counts(), fill_value=0)
    if len(days) < 2:
        found = "all usable reviews are of one day" if len(days) else "no review is usable"
        raise DataError(f"{reviews.name}: {found}; {TOO_FEW}")
    later = days.sort_index(ascending=False).cumsum().iloc[:-1]
    enough = later[later >= days.sum() * options.test_fraction]
    return int((enough if len(enough) else later.iloc[[-1]]).index[0]) * DAY


def _sample(reviews: Path, cut: int, options: GoodreadsOptions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the reviews with the lowest hashes: of all before the cut, and of each rating after it."""
    room = {0: options.train_size} | dict.fromkeys(range(1, 6), -(-options.val_size // 5))
    kept = pd.DataFrame()
    for block in _fitting(reviews, options):
        side = block["rating"].where(block["time"] >= cut, 0)
        block = block.assign(side=side, hash=id_hashes(block["review"].tolist(), options.seed))
        kept = pd.concat([kept, block]).sort_values(["hash", "review"], kind="stable").drop_duplicates("review")
        kept = kept[kept.groupby("side").cumcount() < kept["side"].map(room)]
    turn = kept.groupby("side").cumcount()
    train = kept[kept["side"] == 0]
    val = kept.assign(turn=turn)[kept["side"] > 0].sort_values(["turn", "rating"], kind="stable")
    return train, val.head(options.val_size)


def _reader_features(reviews: Path, cut: int, users: set[str]) -> pd.DataFrame:
    """Return how readers rated and how much they wrote before the cut, indexed by user."""
    sums = pd.DataFrame()
    for block in read_reviews(reviews):
        past = block[(block["time"] < cut) & block["user"].isin(users)]
        values = pd.DataFrame({"user": past["user"], "count": 1, "stars": past["rating"], "square": past["rating"] ** 2,
                               "log_words": np.log1p(past["words"])})  # fmt: skip
        sums = pd.concat([sums, values]).groupby("user", as_index=False, sort=True).sum()
    sums = sums.set_index("user")
    mean = sums["stars"] / sums["count"]
    std = np.sqrt(np.maximum(sums["square"] / sums["count"] - mean**2, 0.0))
    parts = [mean, std, np.log(sums["count"]), sums["log_words"] / sums["count"]]
    return pd.concat(parts, axis=1, keys=FEATURES)


def _render(
    rows: pd.DataFrame, books: pd.DataFrame, random_group: npt.NDArray[np.str_], options: GoodreadsOptions
) -> Iterator[dict[str, Any]]:
    for review, chance in zip(rows.to_dict("records"), random_group, strict=True):
        book = books.loc[review["book"]]
        about = " ".join(book["description"].split()[: options.description_words])
        stars = f"{review['rating']} of 5 stars"
        lines = [f"Write my review of the book {book['title']}. I gave it {stars}."]
        lines += [f"About the book: {about}"] if about else []
        limit = f"in at most {options.max_words} words"
        lines.append(f"Write as a reader who gave {stars}, {limit}. The review alone, please.")
        truth = {"reference": review["text"], "rating": review["rating"], "title": book["title"],
                 "max_words": options.max_words}  # fmt: skip
        own = {name: review[name] for name in ("user", "book", "review", "rating")} | {"answer_time": review["time"]}
        yield verl_row("goodreads", review["group"], "\n".join(lines), "writing", truth, chance, own)
