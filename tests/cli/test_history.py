# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo history` on files that runs wrote."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from tests.core.test_history import assert_same
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.cli import main

FIRST = (["jazz", "jazz", "folk", "jazz", "rare"], [1.0, 3.0, 0.1, 2.0, 7.0], ["p", "p", "q", "r", "s"])
SECOND = (["jazz", "folk", "new"], [4.0, 1 / 3, -1.0])


def history(*batches: tuple, **options: object) -> GroupHistoryManager:
    made = GroupHistoryManager(PGRPOConfig(**options))
    for batch in batches:
        made.update(*batch)
    return made


@pytest.fixture
def files(tmp_path):
    history(FIRST).save(tmp_path / "a.parquet", 5)
    history(FIRST, SECOND).save(tmp_path / "b.parquet", 6)
    return tmp_path


def run(capsys, *arguments: object) -> dict:
    assert main(["history", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_ratings_without_prompts_say_nothing_about_prompts(tmp_path, capsys):
    """Nor do their spread and the spread within new prompts together."""
    (tmp_path / "ratings.csv").write_text("group,count,mean,std\na,1000,0.5,1.0\n")
    run(capsys, "convert", tmp_path / "ratings.csv", "--out", tmp_path / "start.parquet")
    start = GroupHistoryManager.load(tmp_path / "start.parquet", PGRPOConfig(baseline="shrinkage"))
    rewards = np.random.default_rng(0).normal(0.5, 0.1, 64)  # prompts do not differ
    result = start.compute_advantages(["a"] * 64, rewards, [i // 2 for i in range(64)])
    np.testing.assert_allclose(result.advantages, (rewards - result.mean) / result.std, atol=0.02)


def test_show(files, capsys):
    shown = run(capsys, "show", files / "a.parquet")
    assert (shown["step"], shown["groups"], shown["rewards"]) == (5, 3, 5)
    assert shown["options"]["half_life"] is None
    assert shown["rows"][0] == {
        "group": "jazz",
        "count": 3,
        "mean": 2.0,
        "std": 1.0,
        "within_std": pytest.approx(2**0.5),
    }
    history(SECOND).save(files / "c.parquet", 1)
    assert "within_std" not in run(capsys, "show", files / "c.parquet")["rows"][0]
    for by in ("group", "mean"):
        rows = run(capsys, "show", files / "a.parquet", "--sort", by)["rows"]
        assert [row["group"] for row in rows] == ["folk", "jazz", "rare"]
    assert main(["history", "show", str(files / "a.parquet"), "--top", "1"]) == 0
    text = capsys.readouterr().out
    assert "3 groups, 5 rewards" in text
    assert ("jazz" in text, "folk" in text, "2 more" in text) == (True, False, True)


def test_diff(files, capsys):
    found = run(capsys, "diff", files / "a.parquet", files / "b.parquet")
    assert found["rewards"] == [5, 8]
    assert (found["appeared"], found["vanished"], found["unchanged"]) == (["new"], [], 1)
    rows = {row["group"]: row for row in found["rows"]}
    assert set(rows) == {"jazz", "folk"}
    assert (rows["jazz"]["new rewards"], rows["jazz"]["mean moved"]) == (1, 0.5)
    history(FIRST, half_life=8).save(files / "e.parquet", 1)
    back = run(capsys, "diff", files / "b.parquet", files / "e.parquet")
    assert (back["appeared"], back["vanished"]) == ([], ["new"])
    assert back["options_changed"] == {"half_life": [None, 8.0]}
    history((*FIRST[:2], list("pqrst"))).save(files / "p.parquet", 1)  # other prompts, hence other shrinkage
    found = run(capsys, "diff", files / "p.parquet", files / "a.parquet")
    assert [(row["group"], row["new rewards"]) for row in found["rows"]] == [("jazz", 0)]


def test_merge_is_the_history_of_both(files, capsys):
    history(SECOND).save(files / "second.parquet", 1)
    out = ("--out", files / "m.parquet", "--step", 9)
    merged = run(capsys, "merge", files / "a.parquet", files / "second.parquet", *out)
    assert (merged["groups"], merged["rewards"], merged["shared"]) == (4, 8, 2)
    one, both = GroupHistoryManager.load(files / "m.parquet", step=9), history(FIRST, SECOND)
    assert one.groups == both.groups
    for name in ("count", "mean", "std"):
        mine, theirs = (getattr(h.statistics(both.groups), name) for h in (one, both))
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_there_and_back_to_the_last_bit(tmp_path, capsys, suffix):
    odd = ["a,b", 'say "hi"', "two\nlines", "a\rb", " blank ", "None", "nan", "日本"]
    saved, table = history(FIRST, SECOND, (odd, np.arange(8) / 3)), tmp_path / f"table{suffix}"
    saved.save(tmp_path / "h.parquet", 6)
    run(capsys, "convert", tmp_path / "h.parquet", "--out", table)
    run(capsys, "convert", table, "--out", tmp_path / "again.parquet", "--step", 6)
    again = GroupHistoryManager.load(tmp_path / "again.parquet", step=6)
    assert_same(again, saved)


@pytest.mark.parametrize("half_life", [None, 100.0])
def test_a_run_starts_from_ratings_collected_earlier(tmp_path, capsys, half_life):
    """With std instead of m2; a group with a single rating has no std."""
    with open(tmp_path / "ratings.csv", "w", newline="") as file:
        csv.writer(file).writerows([("group", "count", "mean", "std"), ("a", 5, 3.5, 2.0), ("b", 1, 1.0, "")])
    option = [] if half_life is None else ["--half-life", half_life]
    run(capsys, "convert", tmp_path / "ratings.csv", "--out", tmp_path / "h.parquet", *option)
    started = GroupHistoryManager.load(tmp_path / "h.parquet", PGRPOConfig(half_life=half_life))
    found = started.statistics(["a", "b"])
    assert found.count.tolist() == [5, 1]
    np.testing.assert_allclose(found.std, [2.0, 0.0], rtol=1e-15)


def error_of(capsys, *arguments: object) -> str:
    assert main(["history", *map(str, arguments)]) == 2
    [error] = capsys.readouterr().err.splitlines()
    return error


BAD = ["a,0,1,1", "a,1.5,1,1", "a,x,1,1", "a,2,nan,1", "a,2,1e200,1", "a,2,1,-1", "a,2,1,inf", "a,1,1,5", ",2,1,1"]


@pytest.mark.parametrize("line", [*BAD, "a,2,1"])
def test_an_invalid_table_is_one_error(tmp_path, capsys, line):
    path = tmp_path / "t.csv"
    path.write_text(f"group,count,mean,m2\njazz,1,2.0,0.0\n{line}\n")
    assert path.name in error_of(capsys, "convert", path, "--out", tmp_path / "h.parquet")
    assert not (tmp_path / "h.parquet").exists()


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("a,1e19,0,,1,,", "count"), ("a,9007199254740992,0,,1,,", "count"),
        ("a,3,0,2,2,0,0", "m2"), ("a,3,0,-1,1,0,0", "m2"), ("a,3,0,2,1,3,2", "within"), ("a,3,0,2,1,-1,2", "within"),
        ("a,3,0,2,1,1,", "within_dof"), ("a,3,0,2,1,1,2.5", "within_dof"), ("a,3,0,2,1,1,0", "within_dof"),
    ],
)  # fmt: skip
def test_an_invalid_or_contradictory_value_is_named(tmp_path, capsys, line, column):
    path = tmp_path / "t.csv"
    path.write_text(f"group,count,mean,m2,std,within,within_dof\njazz,3,2.0,2.01,1,1.5,1\n{line}\n")
    error = error_of(capsys, "convert", path, "--out", tmp_path / "h.parquet")
    assert f"{path.name}, row 2, group 'a', column {column}:" in error
    path.write_text("group,count,mean,std,within\na,3,0,1,1\n")
    assert "no column within_dof" in error_of(capsys, "convert", path, "--out", tmp_path / "h.parquet")


def test_errors_in_one_line(files, capsys):
    a, b, cut, few = (files / name for name in ("a.parquet", "b.parquet", "cut.parquet", "few.csv"))
    cut.write_bytes(a.read_bytes()[:-20])
    few.write_text("group,count\na,1\n")
    assert "no reward history" in error_of(capsys, "show", files / "none.parquet")
    assert "truncated" in error_of(capsys, "show", cut)
    assert "truncated" in error_of(capsys, "diff", a, cut)
    assert ".csv or .jsonl" in error_of(capsys, "convert", a, "--out", files / "t.txt")
    assert "no column mean" in error_of(capsys, "convert", few, "--out", files / "h.parquet")
    assert "also an input" in error_of(capsys, "merge", a, b, "--out", a, "--step", 1)
