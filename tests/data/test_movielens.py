# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""MovieLens: every published format, both tasks, splits that do not leak, equal bytes, errors, the reward of stars."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.data.rows import read_rows
from tests.fixtures_movielens import LAYOUTS, genre_flags, write_archive
from verl_pgrpo.data.movielens import MovieLensOptions, prepare
from verl_pgrpo.data.movielens_archive import read_archive
from verl_pgrpo.errors import DataError
from verl_pgrpo.rewards import movielens as next_reward
from verl_pgrpo.rewards import movielens_stars as stars_reward

FILES = ("train.parquet", "val.parquet", "groups.json", "features.parquet", "user_groups.parquet")
KINDS = [(task, split) for task in ("next", "stars") for split in ("last", "time")]
every_kind = pytest.mark.parametrize(("task", "split"), KINDS)
every_split = pytest.mark.parametrize("split", ["last", "time"])


def options(task: str = "next", split: str = "last", **changes) -> MovieLensOptions:
    return MovieLensOptions(**{"task": task, "split": split, "groups": 4, "val_size": 120, **changes})


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return write_archive(tmp_path_factory.mktemp("archive") / "ml-10m.zip", layout="ml-10m")


@pytest.fixture(scope="module")
def log(archive: Path) -> pd.DataFrame:
    """The archive's ratings in its order, read independently of the code that makes rows."""
    columns = {"ratings": ["user", "film", "stars", "time"], "movies": ["film", "title", "genres"]}
    with zipfile.ZipFile(archive) as opened:
        ratings, films = (
            pd.read_csv(opened.open(f"ml-10M100K/{file}.dat"), sep="::", names=names, engine="python")
            for file, names in columns.items()
        )
    return ratings.merge(films, how="left")


@pytest.fixture(scope="module")
def prepared(archive: Path, tmp_path_factory) -> dict[tuple[str, str], Path]:
    folders = {kind: tmp_path_factory.mktemp("prepared") for kind in KINDS}
    for kind, folder in folders.items():
        prepare(archive, folder, options(*kind))
    return folders


def changed(archive: Path, folder: Path, change: Callable[[list[bytes]], list[bytes]], file="ratings.dat") -> Path:
    """Copy an archive with the lines of one file changed."""
    out = folder / "changed.zip"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            lines = old.read(name).splitlines(keepends=True)
            new.writestr(name, b"".join(change(lines) if name.endswith(file) else lines))
    return out


# -- formats


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", [None, "latin-1", "utf-8", "utf-8-sig"])
def test_every_published_format_and_encoding_holds_the_same(tmp_path: Path, layout: str, encoding: str | None) -> None:
    ratings, films = read_archive(write_archive(tmp_path / "a.zip", count=500, layout=layout, encoding=encoding))
    same, their = read_archive(write_archive(tmp_path / "b.zip", count=500, layout="ml-32m"))
    assert films.titles == their.titles
    assert {title.split()[0].rstrip(",") for title in films.titles} >= {"Caf\u00e9", "Mis\u00e9rables:"}
    assert [set(kinds) for kinds in films.genres] == [set(kinds) for kinds in their.genres]
    assert (ratings[["user", "film", "time"]] == same[["user", "film", "time"]]).all().all()
    assert np.abs(ratings.stars - same.stars).max() <= 0.5
    assert (ratings.stars % 1 == 0.5).any() == (layout in ("ml-10m", "ml-32m")), "half stars stay"


BAD_RATINGS = (
    "1{s}2{s}3", "1{s}x{s}3{s}978300760", "1{s}2{s}6{s}978300760", "1{s}2{s}3.3{s}978300760", "1{s}2{s}{s}978300760",
    "{s}2{s}3{s}978300760", "1{s}2{s}nan{s}978300760", "99999999999{s}2{s}3{s}978300760", "1{s}2{s}3{s}-5",
    "1{s}2{s}3{s}978300760.5", "", "1;2;3;978300760", "\x00\x01\x02",
)  # fmt: skip
BAD_FILMS = {
    "movies.dat": ("7::Heat", "7::Heat::", "::Heat::Drama", "{taken}::A (1990)::Drama"),
    "movies.csv": ("7,Heat", ",Heat,Drama", "{taken},A (1990),Drama", '999999,"Heat'),
    "u.item": ("7|Heat", "|Heat|||x|{flags}", "7|Heat|||x|{flags}|0", "{taken}|A (1990)|||x|{flags}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bad_line_is_an_error_with_its_number(tmp_path: Path, layout: str) -> None:
    _, ratings, separator, films, *_ = LAYOUTS[layout]
    good = write_archive(tmp_path / "good.zip", count=500, layout=layout)
    taken = read_archive(good)[1].ids[0]
    bad = [(ratings, text.format(s=separator)) for text in BAD_RATINGS]
    bad += [(films, text.format(taken=taken, flags=genre_flags(()))) for text in BAD_FILMS[films]]
    for name, line in bad:
        new = line.encode() + b"\n"
        path = changed(good, tmp_path, lambda lines, new=new: [*lines[:9], new, *lines[9:]], name)
        with pytest.raises(DataError, match="movies.csv.*quote" if '"' in line else rf"{name}.* line 10"):
            read_archive(path)


def test_a_wrong_archive_is_an_error(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("ml/tags.csv", "a,b\n")
    (tmp_path / "text.zip").write_text("text")
    (tmp_path / "cut.zip").write_bytes(whole[:20_000])
    (tmp_path / "damaged.zip").write_bytes(whole[:30_000] + bytes(100) + whole[30_100:])
    for name in ("none", "other", "text", "cut", "damaged"):
        with pytest.raises(DataError, match=name):
            read_archive(tmp_path / f"{name}.zip")


# -- rows


@every_kind
def test_the_control_has_the_groups_sizes_and_validation_rows_are_divided_equally(prepared, task, split) -> None:
    users = pd.read_parquet(prepared[task, split] / "user_groups.parquet")
    true, random = users["preference_group"], users["random_group"]
    assert sorted(true) == sorted(random)
    assert (true == random).mean() < 0.6
    val = pd.read_parquet(prepared[task, split] / "val.parquet")["preference_group"].value_counts()
    assert split == "time" or val.max() - val.min() <= 8


@every_split
def test_next_rows_hold_to_the_split(log: pd.DataFrame, prepared, split: str) -> None:
    cut = int(np.sort(log["time"])[int(len(log) * 0.9)])
    when = log.set_index(["user", "title"])["time"].to_dict()
    newest = log.groupby("user")["time"].max()
    past = log[log["time"] < (cut if split == "time" else log["user"].map(newest))].groupby("user")["title"].agg(set)
    for row in read_rows(prepared["next", split]).itertuples():
        answer, candidates = json.loads(row.truth).values()
        rated, offered = row.text.split("\n\n")[:2]
        shown = [line[2:].partition(" [")[0] for line in rated.splitlines()[1:]]
        assert answer not in shown
        assert max(when[row.user, title] for title in shown) <= when[row.user, answer]
        assert split == "last" or (when[row.user, answer] >= cut) == (row.split == "val")
        assert split == "time" or row.split == "train" or when[row.user, answer] == newest[row.user]
        assert len(candidates) == 10
        assert all(f"- {title} [" in offered for title in candidates)
        assert not (set(candidates) - {answer}) & past[row.user], "films rated before are not candidates"
        assert next_reward.compute_score("", answer, row.truth)["score"] == 1.0


@every_split
def test_no_candidates_stars_are_in_a_prompt(log: pd.DataFrame, prepared, split: str) -> None:
    stars, time = log.set_index(["user", "film"])[["stars", "time"]].to_dict().values()
    shown, asked = set(), {"train": set(), "val": set()}
    for row in read_rows(prepared["stars", split]).itertuples():
        past, candidates = ([(row.user, film) for film in films] for films in (row.shown, row.candidates))
        shown.update(past)
        asked[row.split].update(candidates)
        assert min(time[one] for one in candidates) >= max(time[one] for one in past)
        given = dict(zip("ABCDE", (stars[one] for one in candidates), strict=True))
        assert json.loads(row.truth) == {"stars": given}
        assert not any(line.endswith((": 5", ": 4", ": 3.5")) for line in row.text.partition("\n\n")[2].splitlines())
        assert min(given.values()) < max(given.values()), "sets without a choice are dropped"
        assert [stars_reward.compute_score("", letter, row.truth)["score"] for letter in given] == [*given.values()]
    assert not shown & (asked["train"] | asked["val"])
    assert not asked["train"] & asked["val"]


@every_kind
def test_held_out_ratings_change_nothing_of_the_training_side(archive, log, prepared, tmp_path, task, split) -> None:
    """Change every held-out rating's stars and film: training rows, groups and features keep their bytes."""
    if split == "time":
        late = log["time"] >= np.sort(log["time"])[int(len(log) * 0.9)]
    else:  # ties are ordered by a hash of user and film, so only the stars of validation's answers may change here
        late = pd.Series(False, log.index)
        rows = read_rows(prepared[task, split])
        for row in rows[rows["split"] == "val"].itertuples():
            title = json.loads(row.truth).get("answer")
            asked = log["title"] == title if task == "next" else log["film"].isin(row.candidates)
            late |= asked & (log["user"] == row.user)
    assert late.sum() > 50
    rng = np.random.default_rng(0)

    def change(lines: list[bytes]) -> list[bytes]:
        for place in np.flatnonzero(late):
            user, film, stars, time = lines[place].split(b"::")
            film = b"%d" % rng.choice(log["film"]) if split == "time" else film
            lines[place] = b"::".join([user, film, b"%g" % (5.5 - float(stars)), time])
        return lines

    prepare(changed(archive, tmp_path, change), tmp_path / "out", options(task, split))
    for name in FILES:
        same = (tmp_path / "out" / name).read_bytes() == (prepared[task, split] / name).read_bytes()
        assert same == (name != "val.parquet" or (task, split) == ("next", "last")), name


@every_kind
def test_equal_arguments_give_equal_bytes(archive: Path, prepared, tmp_path: Path, task: str, split: str) -> None:
    """And the order of lines does not matter; another seed gives other rows."""
    shuffled = changed(archive, tmp_path, lambda lines: list(np.random.default_rng(1).permutation(lines)))
    prepare(shuffled, tmp_path / "same", options(task, split))
    prepare(archive, tmp_path / "other", options(task, split, seed=1))
    for name in FILES:
        made = (prepared[task, split] / name).read_bytes()
        assert (tmp_path / "same" / name).read_bytes() == made, name
        assert (tmp_path / "other" / name).read_bytes() != made or name not in FILES[:2], name


def test_dropped_ratings_are_counted_and_small_groups_warned_about(archive: Path, tmp_path: Path) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        again = b"::".join([*lines[0].split(b"::")[:3], b"1000000000\n"])
        return [*lines, again, b"5::149000::3::978300760\n", b"9999::1::3::978300760\n"]

    summary = prepare(changed(archive, tmp_path, change), tmp_path, options(split="time"))
    assert summary.read["ratings"] == 8003
    assert summary.dropped["ratings of films that the archive does not list"] == 1
    assert summary.dropped["ratings of a film that the user had rated before"] == 1
    assert sum("groups have fewer than 30" in warning for warning in summary.warnings) == 1
    assert prepare(archive, tmp_path, options(groups=2, val_size=1000)).warnings == []


def test_stars_are_asked_for_or_counted_as_dropped(archive: Path, log: pd.DataFrame, tmp_path: Path) -> None:
    small = options("stars", rows_per_user=2, train_size=100)
    dropped = prepare(archive, tmp_path, small).dropped
    past = log.groupby("user").size() - 5
    past = past[past >= small.min_history]
    second_half = past - np.maximum(small.min_history, -(-past // 2))
    sets = sum(count for reason, count in dropped.items() if reason.startswith("training candidate sets"))
    left_over = dropped["ratings left over from training candidate sets of 5"]
    assert 5 * (100 + sets) + left_over == second_half.sum()
    assert all(dropped[f"training candidate sets beyond --{name}"] for name in ("rows-per-user", "train-size"))
    assert dropped["users without a training candidate set"] == (second_half < 5).sum() > 0


def test_equal_stars_everywhere_are_an_error_that_names_the_cause(archive: Path, tmp_path: Path) -> None:
    equal = changed(
        archive, tmp_path, lambda lines: [re.sub(rb"::[\d.]+::(\d+)$", rb"::3::\1", line) for line in lines]
    )
    with pytest.raises(DataError, match="all stars are equal"):
        prepare(equal, tmp_path, options("stars"))


@pytest.mark.parametrize(
    "changes",
    [{"groups": 1}, {"test_fraction": 0.0}, {"candidates": 1}, {"seed": -1}, {"groups": 500}, {"split": "x"},
     {"task": "x"}, {"task": "stars", "candidates": 27}, {"min_history": 100_000}, {"groups": 4, "k_max": 3},
     {"split": "last", "test_fraction": 0.2}],
)  # fmt: skip
def test_an_option_out_of_range_is_an_error(archive: Path, tmp_path: Path, changes: dict) -> None:
    with pytest.raises(DataError):
        prepare(archive, tmp_path / "out", options(**changes))
    assert not (tmp_path / "out").exists()


# -- the reward of the task stars

STARS = json.dumps({"stars": {"A": 3.5, "B": 5.0, "C": 0.5, "D": 3.5, "E": 2.0}})
VALID = [
    "B", "b", " B\n", "B.", "(B)", "**B**", "B. Heat (1995)", "B) Heat", "B: Heat", "B - Heat", "B, as I like it",
    "Answer: B", "The answer is B.", "the answer is **B**", '"B"', "B\n\nI like it.", "<think>A or B?</think>B",
    "A it is.</think>B", "B!", "B?", "B;", "\\boxed{B}", "$\\boxed{B}$", "Option B", "The answer is option B.",
    "**B.** Heat", "(B.)", "B. E.T. the Extra-Terrestrial (1982)", "B. D.O.A. (1988)", "B. I'd say B.",
    "B. Edward D. Wood Jr. (1995)", "B. Monkey (1998)", "B. Clockwork Orange, A", "B. It is better than A.",
    "B. Not A.", "The correct answer is B", "Sure, the answer is B.", "Final answer: B", "Letter B", "Answer = B",
    "\u201cB\u201d", "\uff22", "B\u3002", "B\u2014Heat", "B because I like it", "B is the best", "B...", "> B", "- B",
    "$B$", "\\text{B}", '{"answer": "B"}', "B. Heat\n\nA film that I like", "B, a great film", "B, not A",
    "B: M (1931)", "Based on your ratings, the answer is B.", "So I think the answer is B.",
    "( B )", "\\[\\boxed{B}\\]", "\\(B\\)", "My final answer: the answer is B", "B? I like it", "B seems best",
    "B (Heat)", "B [1995]", "Sure! The answer is B.", "Yes: my answer is B",
]  # fmt: skip
INVALID = [
    "", "F", "Heat (1995)", "A film that I like", "I choose B", "Because", "BB", "A B C D E", "<think>B", "1", "\xe9",
    "E.T. the Extra-Terrestrial (1982)", "A.I. Artificial Intelligence (2001)", "D.O.A. (1988)", "a.m.", "A) or B)",
    "B, C", "A, B, C, D or E?", "B. Heat\nC. Alien", "B. Heat (1995) or C. Alien (1979)", "B\n\nC", "A/B", "B and C",
    "A. B. C.", "A\nB", "B or (C)", "B.Heat", "A good film is B", "B*A*P*S (1997)",
    "C'est arriv\xe9 (1992)", "A. The answer is B", "(A) (B)", "[A] [B]", "**A** **B**", "A)B)", "A.) B.)", "A: B",
    "A, then B", "A, no wait, B", "A: Heat, B: Alien", "B? No, C", "B! Or C?", "B or A is good",
    "A Few Good Men (1992)", "B Few Good Men, A (1992)", "B 12 Angry Men (1957)", "B Heat\nC Alien", "B C", "B (C)",
]  # fmt: skip


@pytest.mark.parametrize(("text", "valid"), [*((t, True) for t in VALID), *((t, False) for t in INVALID)])
def test_a_letter_at_the_start_is_an_answer_and_anything_else_is_invalid(text: str, valid: bool) -> None:
    best = {"score": 5.0, "utility": 1.0, "valid": 1.0}
    assert stars_reward.compute_score("", text, STARS) == (best if valid else dict.fromkeys(best, 0.0))


@pytest.mark.parametrize(
    ("rest", "valid"),
    [*((rest, True) for rest in ("", " is the best", " because I like it", " was great", " since I love it")),
     *((rest, True) for rest in (" by far", " deserves 5 stars", "  should be it", " for the story", "\nis")),
     *((rest, False) for rest in (" film", " so great", " Heat", " Is for Alibi", " few good men", "n"))],
)  # fmt: skip
def test_all_letters_are_treated_alike(rest: str, valid: bool) -> None:
    for answer in ("{}", "The answer is {}"):
        chosen = [stars_reward.chosen_letter(answer.format(letter + rest), set("ABCDEFGHI")) for letter in "ABEa"]
        assert chosen == (["A", "B", "E", "A"] if valid else [None] * 4)


@pytest.mark.parametrize(("text", "letter"), [("I is the best", "I"), ("I  would say B", None), ("I like it", None)])
def test_the_pronoun_is_no_letter(text: str, letter: str | None) -> None:
    assert stars_reward.chosen_letter(text, set("ABCDEFGHI")) == letter


@pytest.mark.parametrize("stars", ["{}", '{"A": NaN, "B": 1}'])
def test_stars_that_are_none_are_an_error(stars: str) -> None:
    with pytest.raises(ValueError, match="finite number of stars"):
        stars_reward.compute_score("", "A", f'{{"stars": {stars}}}')


@pytest.mark.parametrize("part", ["answer ", "the answer is ", "option letter ", "answer*", "B or ", "B\n", "( "])
def test_a_degenerate_response_is_scored_in_no_time(part: str) -> None:
    for length in (98, 5000):  # if the time is exponential, the first takes seconds, and the second is not reached
        begin = process_time()
        stars_reward.compute_score("", (part * length)[:length] + "!x", STARS)
        assert process_time() - begin < 1


def test_utility_is_comparable_between_users() -> None:
    assert stars_reward.compute_score("", "C", STARS) == {"score": 0.5, "utility": 0.0, "valid": 1.0}
    assert stars_reward.compute_score("", "A", json.dumps({"stars": {"A": 3, "B": 3}}))["utility"] == 1.0
    generous = json.dumps({"stars": {"A": 4.0, "B": 5.0}})
    assert [stars_reward.compute_score("", letter, generous)["utility"] for letter in "AB"] == [0.0, 1.0]
    assert stars_reward.compute_score("", "E", STARS)["utility"] == pytest.approx(1.5 / 4.5)


# -- size


@pytest.mark.slow
def test_real_ml_100k(tmp_path: Path) -> None:
    """From the package `recbole`, which is not part of this repository."""
    archive = tmp_path / "ml-100k.zip"
    command = [sys.executable, ROOT / "recipes" / "movielens" / "make_ml_100k.py", archive]
    made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    if "could not be downloaded" in made.stderr:
        pytest.skip("the package recbole cannot be downloaded")
    assert made.returncode == 0, made.stderr
    counts = {}
    for task, split in KINDS:
        summary = prepare(archive, tmp_path, options(task, split, groups="8", val_size=1024))
        assert summary.read == {"ratings": 100_000, "films": 1664, "users": 943}
        counts[task, split] = tuple(summary.files.values())
        assert bool(summary.warnings) == (split == "time")
    assert counts["next", "time"][1] == 86, "of 943 users: people rate in one sitting"
    assert counts["next", "last"] == (16384, 941)
    assert counts["stars", "last"][1] == 861
    _, films = read_archive(archive)
    assert films.describe(0) == "Toy Story (1995) [Animation, Children's, Comedy]"


@pytest.mark.stress
def test_twenty_million_ratings_take_five_minutes_and_four_gib_at_most(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from verl_pgrpo.cli import main; status = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(status)"
    )
    path = write_archive(tmp_path / "ml-10m.zip", users=138_000, num_films=27_000, count=20_000_000, layout="ml-10m")
    command = [sys.executable, "-c", code, "data", "movielens", "--archive", path, "--out", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=True)
    assert int(run.stderr.splitlines()[-1]) < 4 * 2**20, "KiB"
