# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Goodreads: streamed files, a split by time, missing values, errors that name line and cause, constant memory."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.fixtures_goodreads import write_files
from verl_pgrpo.data.goodreads import GoodreadsOptions, prepare
from verl_pgrpo.data.schema import COLUMNS
from verl_pgrpo.errors import DataError

OPTIONS = GoodreadsOptions(val_size=60)
CLUSTERED = GoodreadsOptions(val_size=60, group_by="cluster", groups=3)
SPLITS = ("train", "val")


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


def seconds(text: str) -> int:
    return int(datetime.strptime(text, "%a %b %d %H:%M:%S %z %Y").timestamp())


def test_rows_hold_to_the_split_and_to_their_reviews(files, clustered: Path, tmp_path: Path) -> None:
    prepare(*files, tmp_path, OPTIONS)
    reviews = {row["review_id"]: row for row in lines_of(files[0])}
    titles = {row["book_id"]: row["title"] for row in lines_of(files[1])}
    for folder in (tmp_path, clustered):
        times = {}
        for split in SPLITS:
            rows = pd.read_parquet(folder / f"{split}.parquet")
            assert tuple(rows) == COLUMNS
            times[split] = [info["answer_time"] for info in rows["extra_info"]]
            for row in rows.to_dict("records"):
                review, truth = reviews[row["extra_info"]["review"]], json.loads(row["reward_model"]["ground_truth"])
                prompt = row["prompt"][0]["content"]
                assert truth["reference"] == " ".join(review["review_text"].split())
                assert truth["rating"] == review["rating"] == row["extra_info"]["rating"] > 0
                assert 20 <= len(truth["reference"].split()) <= 120
                assert row["extra_info"]["answer_time"] == seconds(review["date_added"])
                assert row["data_source"] == f"goodreads/{row['preference_group']}"
                assert f"the book {titles[review['book_id']]}. I gave it {review['rating']} of 5 stars" in prompt
                assert truth["reference"] not in prompt
                assert folder == clustered or row["preference_group"] == f"rating_{review['rating']}"
        assert max(times["train"]) < min(times["val"])


def test_the_future_changes_no_training_row_and_no_cluster(files, clustered: Path, tmp_path: Path) -> None:
    cut = min(info["answer_time"] for info in pd.read_parquet(clustered / "val.parquet")["extra_info"])
    rows = lines_of(files[0])
    for row in rows:
        if seconds(row["date_added"]) >= cut - cut % 86400 and row["rating"]:
            row |= {"rating": 6 - row["rating"], "review_text": row["review_text"][::-1]}
    prepare(write(tmp_path / "reviews.json.gz", rows), files[1], tmp_path / "b", CLUSTERED)
    for name in ("train.parquet", "groups.json"):
        assert (clustered / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_seed_decides_every_byte_and_the_order_of_lines_none(files, tmp_path: Path) -> None:
    reverse = write(tmp_path / "reversed.json.gz", lines_of(files[0])[::-1])
    for name, reviews, seed in (("a", files[0], 0), ("b", reverse, 0), ("c", files[0], 1)):
        prepare(reviews, files[1], tmp_path / name, GoodreadsOptions(train_size=500, val_size=60, seed=seed))
    for split in SPLITS:
        a, b, c = ((tmp_path / folder / f"{split}.parquet").read_bytes() for folder in "abc")
        assert a == b != c


REQUIRED = ["review_id", "user_id", "book_id", "rating", "date_added", "review_text"]


def test_missing_values_are_counted_drops_and_a_description_is_optional(files, tmp_path: Path) -> None:
    """A value may be null, absent or blank. A rating has no blank form."""

    def without(row: dict, field: str, how: int) -> None:
        row[field] = None if how == 0 or field == "rating" else "  "
        if how == 1:
            del row[field]

    reviews, books = map(lines_of, files)
    for i, row in enumerate(reviews[5::10]):
        without(row, REQUIRED[i % 6], i // 6 % 3)
    for i, row in enumerate(books):
        for name in ["title"] * (i % 5 == 0) + ["description"] * (i % 2):
            without(row, name, i % 3)
    changed = write(tmp_path / "r.json.gz", reviews), write(tmp_path / "b.json.gz", books)
    summary = prepare(*changed, tmp_path / "out", OPTIONS)
    assert summary.dropped["reviews with a missing id, rating, date or text"] == 200
    assert summary.dropped["sampled reviews of books that the books file does not list with a title"] > 150
    for split in SPLITS:
        rows = pd.read_parquet(tmp_path / "out" / f"{split}.parquet")
        assert not {"none", "nan"} & set(rows.astype(str).to_string().lower().split())
        assert all("the book The House" in messages[0]["content"] for messages in rows["prompt"])


def test_books_of_another_genre_are_named_as_the_cause(files, tmp_path: Path) -> None:
    other = write(tmp_path / "other.json.gz", [{**row, "book_id": f"9{row['book_id']}"} for row in lines_of(files[1])])
    with pytest.raises(DataError, match=r"is of a book that other\.json\.gz lists"):
        prepare(files[0], other, tmp_path / "out", OPTIONS)


REVIEW = {"rating": 3, "review_id": "a", "user_id": "b", "book_id": "1", "review_text": "c",
          "date_added": "Fri Aug 25 13:55:02 -0700 2017"}  # fmt: skip


@pytest.mark.parametrize(
    ("which", "line", "message"),
    [
        (0, b"{", "not as in goodreads_reviews"),
        (0, b"[]", "not as in goodreads_reviews"),
        (0, json.dumps(REVIEW | {"rating": 9}).encode(), "rating must be 0 to 5"),
        (0, json.dumps(REVIEW | {"rating": "3"}).encode(), "not as in goodreads_reviews"),
        (0, json.dumps(REVIEW | {"date_added": "2017"}).encode(), "date_added"),
        (1, b"\xff", "not as in goodreads_books"),
    ],
)
def test_a_bad_line_is_named(files, tmp_path: Path, which: int, line: bytes, message: str) -> None:
    lines = gzip.decompress(files[which].read_bytes()).splitlines(keepends=True)
    path = tmp_path / files[which].name
    path.write_bytes(gzip.compress(b"".join([*lines[:40], line + b"\n", *lines[40:]])))
    with pytest.raises(DataError, match=f"line 41: .*{message}"):
        prepare(*((path, files[1]) if which == 0 else (files[0], path)), tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_wrong_file_or_option_is_an_error(files, tmp_path: Path) -> None:
    (tmp_path / "cut.json.gz").write_bytes(files[0].read_bytes()[:50_000])
    (tmp_path / "empty.json.gz").write_bytes(gzip.compress(b""))
    for name, message in (("none", "no such file"), ("cut", "(damaged|Empty)"), ("empty", "(damaged|Empty)")):
        with pytest.raises(DataError, match=message):
            prepare(tmp_path / f"{name}.json.gz", files[1], tmp_path / "out", OPTIONS)
    text = gzip.decompress(files[1].read_bytes()).replace(b'"title": "', b'"title": "\xe9')
    (tmp_path / "latin-1.json").write_bytes(text)
    with pytest.raises(DataError, match=r"latin-1\.json.*UTF8"):
        prepare(files[0], tmp_path / "latin-1.json", tmp_path / "out", OPTIONS)
    with pytest.raises(DataError, match="no review is usable"):
        prepare(*files, tmp_path / "out", GoodreadsOptions(min_words=9999, max_words=9999))
    with pytest.raises(DataError, match=r"no 'review_id'.*is this goodreads_reviews"):
        prepare(files[1], files[1], tmp_path / "out", OPTIONS)
    for wrong in ({"group_by": "x"}, {"seed": -1}, {"max_words": 3}, {"test_fraction": 1.0}, {"val_size": 0}):
        with pytest.raises(DataError):
            prepare(*files, tmp_path / "out", GoodreadsOptions(**wrong))


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
        command = [sys.executable, "-c", code, *map(str, paths), str(tmp_path / f"out{count}")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        peaks.append(int(subprocess.check_output(command, text=True, env=environment)))
    assert peaks[1] < peaks[0] + 20_000, "KiB; the larger file has 28 MB more text"
