# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""MovieLens: the archive as published, a split that does not leak, bytes by the seed, errors with their line."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.fixtures_movielens import write_archive
from verl_pgrpo.data import movielens
from verl_pgrpo.data.errors import DataError, LeakError
from verl_pgrpo.data.movielens import prepare
from verl_pgrpo.data.movielens_archive import Ratings, read_archive
from verl_pgrpo.data.movielens_rows import Options
from verl_pgrpo.data.rows import COLUMNS
from verl_pgrpo.rewards.movielens import compute_score

pytestmark = pytest.mark.slow

OPTIONS = Options(groups=4, val_size=80)
FILES = ("train.parquet", "val.parquet", "groups.json", "features.parquet", "user_groups.parquet")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive") / "ml-1m.zip")


@pytest.fixture(scope="module")
def prepared(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared")
    prepare(archive, out, OPTIONS)
    return out


def changed(archive: Path, out: Path, member: str, change: Callable[[list[bytes]], list[bytes]]) -> Path:
    """The archive with one member's lines changed."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            lines = old.read(name).splitlines(keepends=True)
            new.writestr(name, b"".join(change(lines) if name.endswith(member) else lines))
    return out


def test_rows_are_what_verl_and_the_plugin_read(prepared: Path) -> None:
    for split in ("train", "val"):
        rows = pd.read_parquet(prepared / f"{split}.parquet")
        assert tuple(rows) == COLUMNS
        for row in rows.to_dict("records"):
            truth = json.loads(row["reward_model"]["ground_truth"])
            content = row["prompt"][0]["content"]
            assert [message["role"] for message in row["prompt"]] == ["user"]
            assert row["data_source"] == f"movielens/{row['preference_group']}"
            assert truth["answer"] in truth["candidates"]
            assert len(truth["candidates"]) == 10
            assert all(f"- {title}" in content for title in truth["candidates"])
            recent = content.partition("Which one")[0]
            assert not any(f"- {title} [" in recent for title in truth["candidates"]), "rated films are no candidates"
            assert compute_score("", truth["answer"], row["reward_model"]["ground_truth"])["score"] == 1.0


def test_latin_1_reaches_the_prompts(archive: Path, prepared: Path) -> None:
    _, films = read_archive(archive)
    assert any("Café" in title for title in films.titles)
    assert any(title.startswith("Misérables: ") for title in films.titles), "a colon is part of a title"
    assert any("Café" in row[0]["content"] for row in pd.read_parquet(prepared / "train.parquet")["prompt"])


def test_every_row_holds_to_the_cut(archive: Path, prepared: Path) -> None:
    """Checked from the archive alone, with none of the code that made the rows."""
    ratings, films = read_archive(archive)
    titles = {ident: films.titles[place] for ident, place in films.place_of.items()}
    frame = pd.DataFrame({"user": ratings.user, "film": ratings.film, "time": ratings.time})
    frame["title"] = frame["film"].map(titles)
    cut = int(np.sort(ratings.time)[int(len(ratings) * 0.9)])
    seen = frame[frame["time"] < cut].groupby("user")["title"].agg(set)
    when = frame.set_index(["user", "title"])["time"]
    for split in ("train", "val"):
        for row in pd.read_parquet(prepared / f"{split}.parquet").to_dict("records"):
            user, truth = row["extra_info"]["user"], json.loads(row["reward_model"]["ground_truth"])
            lines = row["prompt"][0]["content"].partition("\n\nWhich")[0].splitlines()[1:]
            recent = [line[2:].partition(" [")[0] for line in lines]
            answered = when[user, truth["answer"]]
            assert set(recent) <= seen[user]
            assert all(when[user, title] <= answered for title in recent)
            assert (answered >= cut) == (split == "val")
            assert row["extra_info"]["prompt_until"] < cut
            assert not (set(truth["candidates"]) - {truth["answer"]}) & seen[user]


def test_the_future_changes_nothing_of_the_past(archive: Path, prepared: Path, tmp_path: Path) -> None:
    """All that is rated from the cut on is rated otherwise: training, groups and features keep their bytes."""
    ratings, _ = read_archive(archive)
    cut = int(np.sort(ratings.time)[int(len(ratings) * 0.9)])
    rng = np.random.default_rng(0)
    films = np.unique(ratings.film)

    def shuffle(lines: list[bytes]) -> list[bytes]:
        out = []
        for line in lines:
            user, _, _, time = line.strip().split(b"::")
            if int(time) >= cut:
                line = b"%s::%d::%d::%s\n" % (user, rng.choice(films), rng.integers(1, 6), time)
            out.append(line)
        return out

    other = changed(archive, tmp_path / "ml-1m.zip", "ratings.dat", shuffle)
    prepare(other, tmp_path / "out", OPTIONS)
    for name in FILES:
        same = (tmp_path / "out" / name).read_bytes() == (prepared / name).read_bytes()
        assert same == (name != "val.parquet"), name
    prompts = [
        {
            row["extra_info"]["user"]: (row["preference_group"], row["prompt"][0]["content"].partition("Which")[0])
            for row in pd.read_parquet(folder / "val.parquet").to_dict("records")
        }
        for folder in (prepared, tmp_path / "out")
    ]
    both = prompts[0].keys() & prompts[1].keys()
    assert len(both) > 30
    assert all(prompts[0][user] == prompts[1][user] for user in both)


@pytest.mark.parametrize(
    ("what", "message"), [("features", "features or clusters from the test side"), ("prompts", "hold their own answer")]
)
def test_a_planted_leak_is_caught(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    if what == "features":  # the past is given some of the test side

        def leaky(ratings: Ratings, *args: object) -> movielens.Past:
            return real(everything[0].take(everything[0].time < 1_030_000_000), *args)

        everything = [movielens._known_films(*read_archive(archive), movielens.Summary(""))]
        real = movielens.past_of
        monkeypatch.setattr(movielens, "past_of", leaky)
    else:  # training rows whose prompt runs past their answer

        def late(*args: object) -> object:
            rows = original(*args)
            rows.last[:] = np.minimum(rows.last + 1, rows.last.max())
            return rows

        original = movielens.training_rows
        monkeypatch.setattr(movielens, "training_rows", late)
    with pytest.raises(LeakError, match=message):
        prepare(archive, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_the_seed_decides_every_byte(archive: Path, prepared: Path, tmp_path: Path) -> None:
    prepare(archive, tmp_path / "same", OPTIONS)
    prepare(archive, tmp_path / "other", Options(groups=4, val_size=80, seed=1))
    for name in FILES:
        assert (tmp_path / "same" / name).read_bytes() == (prepared / name).read_bytes(), name
    for name in ("train.parquet", "val.parquet"):
        assert (tmp_path / "other" / name).read_bytes() != (prepared / name).read_bytes(), name


def test_the_order_of_lines_does_not_matter(archive: Path, prepared: Path, tmp_path: Path) -> None:
    def shuffle(lines: list[bytes]) -> list[bytes]:
        return [lines[i] for i in np.random.default_rng(1).permutation(len(lines))]

    prepare(changed(archive, tmp_path / "ml-1m.zip", "ratings.dat", shuffle), tmp_path / "out", OPTIONS)
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (prepared / name).read_bytes(), name


def test_groups_are_tastes_and_the_control_has_their_sizes(prepared: Path) -> None:
    users = pd.read_parquet(prepared / "user_groups.parquet")
    sizes = users["preference_group"].value_counts().sort_index()
    assert list(sizes) == list(users["random_group"].value_counts().sort_index())
    assert (users["preference_group"] == users["random_group"]).mean() < 0.5
    assert sizes.min() > 30, "the four tastes of the fixture"
    val = pd.read_parquet(prepared / "val.parquet")["preference_group"].value_counts()
    assert val.max() - val.min() <= 6, "validation is divided as equally as it can be"


BAD_RATINGS = {
    "too few fields": b"1::2::3\n",
    "a letter": b"1::x::3::978300760\n",
    "six stars": b"1::2::6::978300760\n",
    "no stars": b"1::2::::978300760\n",
    "half a star": b"1::2::3.5::978300760\n",
    "commas": b"1,2,3,978300760\n",
    "single colons": b"1:2:3:978300760\n",
    "an empty line": b"\n",
    "a number too large": b"99999999999::2::3::978300760\n",
    "binary": b"\xff\xfe\x00\x01\n",
    "a negative time": b"1::2::3::-5\n",
}


@pytest.mark.parametrize("what", sorted(BAD_RATINGS))
def test_a_bad_rating_is_named_with_its_line(archive: Path, tmp_path: Path, what: str) -> None:
    bad = changed(
        archive, tmp_path / "bad.zip", "ratings.dat", lambda lines: [*lines[:4321], BAD_RATINGS[what], *lines[4321:]]
    )
    with pytest.raises(DataError, match=r"ratings\.dat, line 4322: expected UserID::MovieID::Rating::Timestamp"):
        prepare(bad, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "message"), [(b"7::Heat\n", "expected MovieID::Title"), (b"1::A (1990)::Drama\n", "twice")]
)
def test_a_bad_film_is_named_with_its_line(archive: Path, tmp_path: Path, line: bytes, message: str) -> None:
    bad = changed(archive, tmp_path / "bad.zip", "movies.dat", lambda lines: [*lines[:9], line, *lines[9:]])
    with pytest.raises(DataError, match=rf"movies\.dat, line 10: .*{message}"):
        prepare(bad, tmp_path / "out", OPTIONS)


def test_a_wrong_archive_is_named(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        prepare(tmp_path / "none.zip", tmp_path / "out", OPTIONS)
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(DataError, match="not a zip archive"):
        prepare(tmp_path / "text.zip", tmp_path / "out", OPTIONS)
    with zipfile.ZipFile(tmp_path / "ml-20m.zip", "w") as other:
        other.writestr("ml-20m/ratings.csv", "userId,movieId,rating,timestamp\n")
    with pytest.raises(DataError, match=r"no movies\.dat in it.*holds ml-20m/ratings\.csv"):
        prepare(tmp_path / "ml-20m.zip", tmp_path / "out", OPTIONS)
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:20_000])
    with pytest.raises(DataError, match="not a zip archive"):
        prepare(tmp_path / "cut.zip", tmp_path / "out", OPTIONS)
    damaged = bytearray(archive.read_bytes())
    damaged[30_000:30_100] = bytes(100)
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(DataError):
        prepare(tmp_path / "damaged.zip", tmp_path / "out", OPTIONS)


def test_what_is_dropped_is_counted(archive: Path, tmp_path: Path) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        user, film, stars, _ = lines[0].split(b"::")
        again = b"::".join([user, film, stars, b"1000000000\n"])
        return [*lines, again, b"5::149000::3::978300760\n", b"9999::1::3::978300760"]

    summary = prepare(changed(archive, tmp_path / "ml-1m.zip", "ratings.dat", change), tmp_path / "out", OPTIONS)
    assert summary.read["ratings"] == 8003
    assert summary.dropped["ratings of films that movies.dat does not list"] == 1
    assert sum(count for why, count in summary.dropped.items() if "had rated before" in why) == 1
    assert summary.dropped["ratings by users with fewer than 5 before the cut"] >= 1
    assert "dropped" in summary.text()


@pytest.mark.parametrize(
    "options", [{"groups": 1}, {"test_fraction": 0.0}, {"candidates": 1}, {"seed": -1}, {"groups": 500}]
)
def test_options_out_of_range_are_named(archive: Path, tmp_path: Path, options: dict) -> None:
    with pytest.raises(DataError):
        prepare(archive, tmp_path / "out", Options(**options))


@pytest.mark.stress
def test_twenty_million_ratings_take_five_minutes_and_four_gib_at_most(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from verl_pgrpo.cli import main; status = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(status)"
    )
    path = write_archive(tmp_path / "ml-1m.zip", users=138_000, num_films=27_000, count=20_000_000)
    command = [sys.executable, "-c", code, "data", "movielens", "--archive", str(path), "--out", str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=True)
    print(run.stdout, run.stderr)
    assert int(run.stderr.splitlines()[-1]) < 4 * 2**20, "KiB"
