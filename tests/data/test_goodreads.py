# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Goodreads: streamed files, a split by time, missing values, errors that name line and cause, constant memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.data.rows import read_rows
from tests.fixtures_goodreads import write_files
from verl_pgrpo.data.goodreads import GoodreadsOptions, prepare
from verl_pgrpo.errors import DataError

OPTIONS = GoodreadsOptions(val_size=60)
CLUSTERED = replace(OPTIONS, group_by="cluster", groups="3")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    return write_files(tmp_path_factory.mktemp("goodreads"), 2000)


@pytest.fixture(scope="module")
def clustered(files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("clustered")
    assert prepare(*files, out, CLUSTERED).read["reviews"] == 2000
    return out


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def seconds(review: dict) -> float:
    return datetime.strptime(review["date_added"], "%a %b %d %H:%M:%S %z %Y").timestamp()


def test_rows_hold_to_the_split_and_to_their_reviews(files, clustered: Path, tmp_path: Path) -> None:
    prepare(*files, tmp_path, OPTIONS)
    reviews = {row["review_id"]: row for row in lines_of(files[0])}
    titles = {row["book_id"]: row["title"] for row in lines_of(files[1])}
    for folder in (tmp_path, clustered):
        rows = read_rows(folder)
        for row in rows.itertuples():
            review, truth = reviews[row.review], json.loads(row.truth)
            assert truth["reference"] == " ".join(review["review_text"].split())
            assert truth["rating"] == review["rating"] == row.rating > 0
            assert 20 <= len(truth["reference"].split()) <= 120
            assert row.answer_time == seconds(review)
            assert f"the book {titles[review['book_id']]}. I gave it {review['rating']} of 5 stars" in row.text
            assert truth["reference"] not in row.text
            assert folder == clustered or row.preference_group == f"rating_{review['rating']}"
        times = rows.groupby("split")["answer_time"].agg(["min", "max"])
        assert times["max"]["train"] < times["min"]["val"]


def test_the_future_changes_no_training_row_and_no_cluster(files, clustered: Path, tmp_path: Path) -> None:
    rows, made = lines_of(files[0]), read_rows(clustered)
    cut = made["answer_time"][made["split"] == "val"].min()
    for row in rows:
        if seconds(row) >= cut - cut % 86400 and row["rating"]:
            row |= {"rating": 6 - row["rating"], "review_text": row["review_text"][::-1]}
    prepare(write(tmp_path / "reviews.json.gz", rows), files[1], tmp_path, CLUSTERED)
    for name in ("train.parquet", "groups.json"):
        assert (clustered / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_seed_decides_every_byte_and_the_order_of_lines_none(files, tmp_path: Path) -> None:
    reverse = write(tmp_path / "reversed.json.gz", lines_of(files[0])[::-1])
    for name, reviews, seed in (("a", files[0], 0), ("b", reverse, 0), ("c", files[0], 1)):
        prepare(reviews, files[1], tmp_path / name, replace(OPTIONS, train_size=500, seed=seed))
    for split in ("train", "val"):
        a, b, c = ((tmp_path / folder / f"{split}.parquet").read_bytes() for folder in "abc")
        assert a == b != c


def test_missing_values_are_counted_drops_and_a_description_is_optional(files, tmp_path: Path) -> None:
    reviews, books = map(lines_of, files)
    required = ["review_id", "user_id", "book_id", "rating", "date_added", "review_text"]
    for i, row in enumerate(reviews[5::10]):
        row[required[i % 6]] = "  " if i % 4 < 2 and i % 6 != 3 else None  # a rating has no blank form
    for row in books[::5]:
        row["title"] = None
    for row in books[1::2]:
        del row["description"]
    summary = prepare(write(tmp_path / "r.json.gz", reviews), write(tmp_path / "b.json.gz", books), tmp_path, OPTIONS)
    assert summary.dropped["reviews with a missing id, rating, date or text"] == 200
    assert summary.dropped["sampled reviews of books that the books file does not list with a title"] > 150
    rows = read_rows(tmp_path)
    assert not {"none", "nan"} & set(rows.astype(str).to_string().lower().split())
    assert rows["text"].str.contains("the book The House").all()


def with_line_41(line: dict | bytes) -> Callable[[bytes], bytes]:
    new = line if isinstance(line, bytes) else json.dumps(line).encode()
    return lambda text: b"\n".join([*text.split(b"\n")[:40], new, *text.split(b"\n")[40:]])


REVIEW = {"rating": 3, "review_id": "a", "user_id": "b", "book_id": "1", "review_text": "c",
          "date_added": "Fri Aug 25 13:55:02 -0700 2017"}  # fmt: skip


@pytest.mark.parametrize(
    ("which", "change", "message"),
    [
        ("reviews", None, "no such file"),
        ("reviews", lambda text: b"", "Empty"),
        ("reviews", lambda text: gzip.compress(text)[:50_000], "damaged"),
        ("reviews", lambda text: text.replace(b'"review_id"', b'"id"'), "no 'review_id'.*is this goodreads_reviews"),
        ("reviews", with_line_41(b"{"), "line 41: not as in goodreads_reviews"),
        ("reviews", with_line_41(REVIEW | {"rating": "3"}), "line 41: not as in goodreads_reviews"),
        ("reviews", with_line_41(REVIEW | {"rating": 9}), "line 41: rating must be 0 to 5"),
        ("reviews", with_line_41(REVIEW | {"date_added": "2017"}), "line 41: date_added"),
        ("books", with_line_41(b"\xff"), "line 41: not as in goodreads_books"),
        ("books", lambda text: text.replace(b'"title": "', b'"title": "\xe9'), "UTF8"),
        ("books", lambda text: text.replace(b'"book_id": "', b'"book_id": "9'), "is of a book that books.json lists"),
    ],
)
def test_a_wrong_file_is_an_error(files, tmp_path: Path, which: str, change: Callable | None, message: str) -> None:
    paths = {"reviews": files[0], "books": files[1]}
    wrong = tmp_path / f"{which}.json"
    if change is not None:
        wrong.write_bytes(change(gzip.decompress(paths[which].read_bytes())))
    with pytest.raises(DataError, match=message):
        prepare(**paths | {which: wrong}, out=tmp_path / "out", options=OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"group_by": "x"}, {"seed": -1}, {"max_words": 3}, {"test_fraction": 1.0}, {"val_size": 0},
     {"min_words": 9999, "max_words": 9999}, {"group_by": "rating", "groups": "4"}],
)  # fmt: skip
def test_a_wrong_option_is_an_error(files, tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(DataError):
        prepare(*files, tmp_path, GoodreadsOptions(**wrong))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from verl_pgrpo.data import goodreads_files;"
        "from verl_pgrpo.data.goodreads import GoodreadsOptions, prepare; goodreads_files.BLOCK = 1 << 18;"
        "prepare(*map(Path, sys.argv[1:]), GoodreadsOptions(train_size=500, val_size=50));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for count in (4_000, 40_000):
        paths = write_files(tmp_path / str(count), count)
        command = [sys.executable, "-c", code, *paths, tmp_path / f"out{count}"]
        peaks.append(int(subprocess.check_output(command, text=True, cwd=ROOT)))
    assert peaks[1] < peaks[0] + 20_000, "KiB; the larger file has 28 MB more text"
