# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Goodreads: streamed files, a split by time, rewards as documented, errors with their line, constant memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.fixtures_goodreads import write_files
from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.goodreads import Options, prepare
from verl_pgrpo.data.goodreads_files import parse_time, read_reviews
from verl_pgrpo.data.rows import COLUMNS
from verl_pgrpo.rewards.goodreads import compute_score, length_fit, rouge_l, sentiment_fit

pytestmark = pytest.mark.slow

OPTIONS = Options(val_size=60)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_files(tmp_path_factory.mktemp("goodreads"))


@pytest.mark.parametrize("group_by", ["rating", "cluster"])
def test_rows_hold_to_the_cut_and_to_their_reviews(files, tmp_path: Path, group_by: str) -> None:
    summary = prepare(*files, tmp_path, Options(val_size=60, group_by=group_by))
    reviews = {one.review: one for one in read_reviews(files[0])}
    times = {}
    for split in ("train", "val"):
        rows = pd.read_parquet(tmp_path / f"{split}.parquet")
        assert tuple(rows) == COLUMNS
        times[split] = [info["answer_time"] for info in rows["extra_info"]]
        for row in rows.to_dict("records"):
            review, truth = reviews[row["extra_info"]["review"]], json.loads(row["reward_model"]["ground_truth"])
            assert truth["reference"] == " ".join(review.text.split())
            assert truth["rating"] == review.rating == row["extra_info"]["rating"] > 0
            assert row["extra_info"]["answer_time"] == review.time
            assert row["data_source"] == f"goodreads/{row['preference_group']}"
            assert f"{review.rating} of 5 stars" in row["prompt"][0]["content"]
            assert review.text not in row["prompt"][0]["content"]
            if group_by == "rating":
                assert row["preference_group"] == f"rating_{review.rating}"
    assert max(times["train"]) < min(times["val"])
    dropped = sum(count for why, count in summary.dropped.items() if why.startswith("reviews"))
    assert summary.read["reviews"] == 4000
    assert sum(summary.files.values()) <= 4000 - dropped


def test_the_future_changes_no_training_row_and_no_cluster(files, tmp_path: Path) -> None:
    options = Options(val_size=60, group_by="cluster", groups=3)
    prepare(*files, tmp_path / "a", options)
    cut = min(info["answer_time"] for info in pd.read_parquet(tmp_path / "a" / "val.parquet")["extra_info"])
    cut -= cut % 86400
    with gzip.open(files[0], "rt") as old, gzip.open(tmp_path / "reviews.json.gz", "wt") as new:
        for line in old:
            row = json.loads(line)
            if parse_time(row["date_added"]) >= cut and row["rating"]:
                row["rating"] = 6 - row["rating"]
                row["review_text"] = row["review_text"][::-1]
            new.write(json.dumps(row) + "\n")
    prepare(tmp_path / "reviews.json.gz", files[1], tmp_path / "b", options)
    for name in ("train.parquet", "groups.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_seed_decides_every_byte_and_the_order_of_lines_none(files, tmp_path: Path) -> None:
    with gzip.open(files[0], "rt") as old, gzip.open(tmp_path / "reversed.json.gz", "wt") as new:
        new.writelines(reversed(old.readlines()))
    few = {"train_size": 500, "val_size": 60}
    for name, reviews, options in (
        ("a", files[0], Options(**few)),
        ("b", tmp_path / "reversed.json.gz", Options(**few)),
        ("c", files[0], Options(**few, seed=1)),
    ):
        prepare(reviews, files[1], tmp_path / name, options)
    for name in ("train.parquet", "val.parquet"):
        a, b, c = ((tmp_path / folder / name).read_bytes() for folder in "abc")
        assert a == b
        assert a != c


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from verl_pgrpo.data.goodreads import Options, prepare;"
        "prepare(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Options(train_size=500, val_size=50));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for count in (3_000, 40_000):
        paths = write_files(tmp_path / str(count), count)
        command = [sys.executable, "-c", code, *map(str, paths), str(tmp_path / f"out{count}")]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout))
    assert peaks[1] < peaks[0] + 10_000, "KiB"


def rewrite(files: tuple[Path, Path], out: Path, which: int, line: bytes) -> tuple[Path, Path]:
    lines = gzip.decompress(files[which].read_bytes()).splitlines(keepends=True)
    path = out / files[which].name
    path.write_bytes(gzip.compress(b"".join([*lines[:40], line + b"\n", *lines[40:]])))
    return (path, files[1]) if which == 0 else (files[0], path)


@pytest.mark.parametrize(
    ("which", "line", "message"),
    [
        (0, b"{", "not JSON"),
        (0, b"[]", "expected a JSON object"),
        (0, b'{"rating": 3}', "no field 'review_id'"),
        (0, b'{"rating": 9}', "rating must be 0 to 5"),
        (
            0,
            b'{"rating":3,"review_id":"a","user_id":"b","book_id":"1","review_text":"c","date_added":"2017"}',
            "date_added",
        ),
        (1, b'{"title": "x"}', "no field 'book_id'"),
        (1, b"\xff", "not JSON"),
    ],
)
def test_a_bad_line_is_named(files, tmp_path: Path, which: int, line: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"line 41: .*{message}"):
        prepare(*rewrite(files, tmp_path, which, line), tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_wrong_file_is_named(files, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        prepare(tmp_path / "none.json.gz", files[1], tmp_path / "out", OPTIONS)
    with pytest.raises(DataError, match=r"line 1: no field 'rating'; is this goodreads_reviews"):
        prepare(files[1], files[1], tmp_path / "out", OPTIONS)
    (tmp_path / "cut.json.gz").write_bytes(files[0].read_bytes()[:50_000])
    with pytest.raises(DataError, match="damaged after line"):
        prepare(tmp_path / "cut.json.gz", files[1], tmp_path / "out", OPTIONS)


@pytest.mark.parametrize(
    "options", [{"group_by": "x"}, {"seed": -1}, {"max_words": 3}, {"test_fraction": 1.0}, {"val_size": 0}]
)
def test_options_out_of_range_are_named(files, tmp_path: Path, options: dict) -> None:
    with pytest.raises(DataError):
        prepare(*files, tmp_path / "out", Options(**options))


def test_times_are_as_strptime_reads_them() -> None:
    from datetime import datetime

    for text in ("Fri Aug 25 13:55:02 -0700 2017", "Sat Feb 29 00:00:00 +0530 2016", "Thu Jan 01 00:00:00 +0000 1970"):
        assert parse_time(text) == datetime.strptime(text, "%a %b %d %H:%M:%S %z %Y").timestamp()


# -- the reward

REFERENCE = "I loved this wonderful book about the sea. The people are charming and the end is quiet."


def score(text: str, rating: int = 5) -> dict[str, float]:
    truth = json.dumps({"reference": REFERENCE, "rating": rating, "max_words": 40, "title": "T"})
    return compute_score("goodreads/rating_5", text, truth, extra_info={})


def test_the_mix_is_as_documented() -> None:
    result = score("I loved this book. The end is quiet and the people are charming.")
    assert result["score"] == pytest.approx(result["length"] * (0.5 * result["closeness"] + 0.5 * result["sentiment"]))
    assert all(0 <= value <= 1 for value in result.values())
    assert score(REFERENCE)["closeness"] == 1.0


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    assert rouge_l("the cat sat", "The cat, sat.") == 1.0
    assert rouge_l("police killed the gunman", "police kill the gunman") == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", "police kill the gunman") == pytest.approx(2 / 4)
    assert rouge_l("", "a") == 0.0


def test_the_mood_must_fit_the_stars() -> None:
    praise, blame = "Wonderful and charming, I loved it so much.", "Awful and boring, I hated it so much."
    assert sentiment_fit(praise, 5) > sentiment_fit(praise, 3) > sentiment_fit(praise, 1)
    assert sentiment_fit(blame, 1) > sentiment_fit(blame, 3) > sentiment_fit(blame, 5)
    assert score(praise, 5)["score"] > score(praise, 1)["score"]


def test_neither_silence_nor_rambling_pays() -> None:
    assert score("", 3)["score"] == 0.0
    assert score("<think>" + REFERENCE, 5)["score"] == 0.0
    assert length_fit("one two", 40) == 0.4
    assert length_fit("word " * 80, 40) == 0.5
    assert score(REFERENCE + " the" * 200)["score"] < 0.3 * score(REFERENCE)["score"]
