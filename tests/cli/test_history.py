# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo history` on files that runs wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

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
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history(FIRST).save("first.parquet", 5)
    history(SECOND).save("second.parquet", 1)
    history(FIRST, SECOND).save("both.parquet", 6)
    history(FIRST, half_life=8).save("half_life.parquet", 1)
    history((*FIRST[:2], list("pqrst"))).save("prompts.parquet", 1)  # other prompts, hence other shrinkage


def run(capsys, *arguments: object) -> dict:
    assert main(["history", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error_of(capsys, *arguments: object) -> str:
    assert main(["history", *map(str, arguments)]) == 2
    [error] = capsys.readouterr().err.splitlines()
    return error


def test_show(files, capsys):
    shown = run(capsys, "show", "first.parquet")
    assert (shown["step"], shown["groups"], shown["rewards"]) == (5, 3, 5)
    assert shown["options"]["half_life"] is None
    jazz = {"group": "jazz", "count": 3, "mean": 2.0, "std": 1.0, "within_std": pytest.approx(2**0.5)}
    assert shown["rows"][0] == jazz
    assert "within_std" not in run(capsys, "show", "second.parquet")["rows"][0]
    for by in ("group", "mean"):
        rows = run(capsys, "show", "first.parquet", "--sort", by)["rows"]
        assert [row["group"] for row in rows] == ["folk", "jazz", "rare"]
    assert main(["history", "show", "first.parquet", "--top", "1"]) == 0
    text = capsys.readouterr().out
    assert "3 groups, 5 rewards" in text
    assert ("jazz" in text, "folk" in text, "2 more" in text) == (True, False, True)


def test_diff(files, capsys):
    found = run(capsys, "diff", "first.parquet", "both.parquet")
    assert found["rewards"] == [5, 8]
    assert (found["appeared"], found["vanished"], found["unchanged"]) == (["new"], [], 1)
    rows = {row["group"]: row for row in found["rows"]}
    assert set(rows) == {"jazz", "folk"}
    assert (rows["jazz"]["new rewards"], rows["jazz"]["mean moved"]) == (1, 0.5)
    back = run(capsys, "diff", "both.parquet", "half_life.parquet")
    assert (back["appeared"], back["vanished"]) == ([], ["new"])
    assert back["options_changed"] == {"half_life": [None, 8.0]}
    found = run(capsys, "diff", "prompts.parquet", "first.parquet")
    assert [(row["group"], row["new rewards"]) for row in found["rows"]] == [("jazz", 0)]


def test_merge_is_the_history_of_both(files, capsys):
    merged = run(capsys, "merge", "first.parquet", "second.parquet", "--out", "m.parquet", "--step", 9)
    assert (merged["groups"], merged["rewards"], merged["shared"]) == (4, 8, 2)
    one, both = GroupHistoryManager.load("m.parquet", step=9), history(FIRST, SECOND)
    assert one.groups == both.groups
    for name in ("count", "mean", "std"):
        mine, theirs = (getattr(h.statistics(both.groups), name) for h in (one, both))
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)


@pytest.mark.parametrize("table", ["table.csv", "table.jsonl"])
def test_there_and_back_to_the_last_bit(files, capsys, table):
    odd = ["a,b", 'say "hi"', "two\nlines", "a\rb", " blank ", "None", "nan", "日本"]
    saved = history(FIRST, SECOND, (odd, np.arange(8) / 3))
    saved.save("h.parquet", 6)
    run(capsys, "convert", "h.parquet", "--out", table)
    run(capsys, "convert", table, "--out", "again.parquet", "--step", 6)
    assert_same(GroupHistoryManager.load("again.parquet", step=6), saved)


@pytest.mark.parametrize("half_life", [None, 100.0])
def test_a_run_starts_from_ratings_collected_earlier(files, capsys, half_life):
    """With std instead of m2; a group with a single rating has no std. As if the history had seen the ratings."""
    Path("ratings.csv").write_text("group,count,mean,std\na,1000,0.5,1.0\nb,1,1.0,\n")
    option = [] if half_life is None else ["--half-life", half_life]
    run(capsys, "convert", "ratings.csv", "--out", "h.parquet", *option)
    started = GroupHistoryManager.load("h.parquet", PGRPOConfig(half_life=half_life, baseline="shrinkage"))
    found = started.statistics(["a", "b"])
    assert found.count.tolist() == [1000, 1]
    np.testing.assert_allclose(found.std, [1.0, 0.0], rtol=1e-15)
    seen = GroupHistoryManager(started.config)
    ratings = np.array([-1.0, 1.0] * 500)
    seen.update(["a"] * 1000, 0.5 + ratings / ratings.std(ddof=1))
    batch = ["a"] * 64, np.random.default_rng(0).normal(0.5, 0.5, 64), [i // 2 for i in range(64)]
    one, other = (history.compute_advantages(*batch).advantages for history in (started, seen))
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_spreads_of_the_plain_sample_are_forgotten_like_its_rewards(files, capsys):
    """So that new rewards decide soon how much prompts differ."""
    Path("t.csv").write_text("group,count,mean,std,within,within_dof\na,10000,0,1,2500,5000\n")
    run(capsys, "convert", "t.csv", "--out", "h.parquet", "--half-life", 128)
    row = GroupHistoryManager.load("h.parquet").to_frame().iloc[0]
    assert row["within"] / row["within_dof"] == pytest.approx(0.5)
    assert row["within_dof"] == pytest.approx(row["m2"] / 2, rel=0.01), "half of the degrees of freedom"


@pytest.mark.parametrize(
    ("line", "column"),
    [
        (",2,1,1", "group"), ("jazz,2,1,1", "group"), ("a,0,1,1", "count"), ("a,1.5,1,1", "count"),
        ("a,x,1,1", "count"), ("a,1e19,0,,1,,", "count"), ("a,9007199254740992,0,,1,,", "count"),
        ("a,2,nan,1", "mean"), ("a,2,1e200,1", "mean"), ("a,2,1,-1", "m2"), ("a,2,1,inf", "m2"), ("a,1,1,5", "m2"),
        ("a,3,0,2,2,0,0", "m2"), ("a,3,0,-1,1,0,0", "m2"), ("a,3,0,2,1,3,2", "within"), ("a,3,0,2,1,-1,2", "within"),
        ("a,3,0,2,1,1,", "within_dof"), ("a,3,0,2,1,1,2.5", "within_dof"), ("a,3,0,2,1,1,0", "within_dof"),
    ],
)  # fmt: skip
def test_an_invalid_or_contradictory_value_is_named(tmp_path, capsys, line, column):
    columns = line.count(",") + 1
    rows = ["group,count,mean,m2,std,within,within_dof", "jazz,3,2.0,2.01,1,1.5,1"]
    path, out = tmp_path / "t.csv", tmp_path / "h.parquet"
    path.write_text("".join(",".join(row.split(",")[:columns]) + "\n" for row in (*rows, line)))
    error = error_of(capsys, "convert", path, "--out", out)
    assert re.search(rf"t\.csv, row 2.* column '?{column}\b", error), error
    assert not out.exists()


def test_errors_in_one_line(files, capsys):
    for name, text in (("few", "group,count\na,1\n"), ("part", "group,count,mean,std,within\na,3,0,1,1\n")):
        Path(f"{name}.csv").write_text(text)
    Path("cut.parquet").write_bytes(Path("first.parquet").read_bytes()[:-20])
    for arguments, message in (
        ("show none.parquet", "no reward history"),
        ("show cut.parquet", "truncated"),
        ("diff first.parquet cut.parquet", "truncated"),
        ("convert first.parquet --out t.txt", ".csv or .jsonl"),
        ("convert first.parquet --out t.csv --half-life 512", "--half-life has no effect for a table"),
        ("convert first.parquet --out t.csv --use-kl-in-reward", "--use-kl-in-reward has no effect for a table"),
        ("convert few.csv --out h.parquet", "no column mean"),
        ("convert part.csv --out h.parquet", "no column within_dof"),
        ("merge first.parquet both.parquet --out first.parquet --step 1", "also an input"),
    ):
        assert message in error_of(capsys, *arguments.split())
