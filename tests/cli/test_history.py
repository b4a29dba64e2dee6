# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo history`: files made by runs, as a user looks at them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.cli import main
from verl_pgrpo.data.history_table import read_history_table, write_history_table


def history(*batches: tuple[list[str], list[float]], **options: object) -> GroupHistoryManager:
    made = GroupHistoryManager(PGRPOConfig(**options))
    for groups, rewards in batches:
        made.update(groups, rewards)
    return made


FIRST = (["jazz", "jazz", "folk", "jazz", "rare"], [1.0, 3.0, 0.1, 2.0, 7.0])
SECOND = (["jazz", "folk", "new"], [4.0, 1 / 3, -1.0])


@pytest.fixture
def files(tmp_path):
    history(FIRST).save(tmp_path / "a.parquet", 5)
    history(FIRST, SECOND).save(tmp_path / "b.parquet", 6)
    return tmp_path


def run(capsys, *arguments: object) -> dict:
    assert main(["history", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_show(files, capsys):
    shown = run(capsys, "show", files / "a.parquet")
    assert (shown["step"], shown["groups"], shown["rewards"]) == (5, 3, 5)
    assert shown["options"]["half_life"] is None
    assert shown["rows"][0] == {"group": "jazz", "count": 3, "mean": 2.0, "std": 1.0}
    assert main(["history", "show", str(files / "a.parquet"), "--top", "1"]) == 0
    text = capsys.readouterr().out
    assert "3 groups, 5 rewards" in text
    assert "jazz" in text and "folk" not in text and "(2 more; --top 0 shows all)" in text  # noqa: PT018


@pytest.mark.parametrize(("by", "order"), [("group", "folk jazz rare"), ("mean", "folk jazz rare")])
def test_show_sorted(files, capsys, by, order):
    rows = run(capsys, "show", files / "a.parquet", "--sort", by)["rows"]
    assert " ".join(row["group"] for row in rows) == order


def test_diff(files, capsys):
    found = run(capsys, "diff", files / "a.parquet", files / "b.parquet")
    assert found["rewards"] == [5, 8]
    assert (found["appeared"], found["vanished"], found["unchanged"]) == (["new"], [], 1)
    rows = {row["group"]: row for row in found["rows"]}
    assert set(rows) == {"jazz", "folk"}
    assert (rows["jazz"]["new rewards"], rows["jazz"]["mean moved"]) == (1, 0.5)
    back = run(capsys, "diff", files / "b.parquet", files / "a.parquet")
    assert (back["appeared"], back["vanished"]) == ([], ["new"])


def test_diff_names_options_that_changed(files, capsys):
    history(FIRST, half_life=8).save(files / "e.parquet", 1)
    changed = run(capsys, "diff", files / "a.parquet", files / "e.parquet")["options_changed"]
    assert changed == {"half_life": [None, 8.0]}


def test_merge_is_the_history_of_both(files, capsys):
    history(SECOND).save(files / "second.parquet", 1)
    merged = run(
        capsys, "merge", files / "a.parquet", files / "second.parquet", "--out", files / "m.parquet", "--step", 9
    )
    assert (merged["groups"], merged["rewards"], merged["shared"]) == (4, 8, 2)
    one = GroupHistoryManager.load(files / "m.parquet", step=9)
    both = history(FIRST, SECOND)
    assert one.groups == both.groups
    for name in ("count", "mean", "std"):
        mine, theirs = (getattr(h.statistics(both.groups), name) for h in (one, both))
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_there_and_back_to_the_last_bit(files, capsys, suffix):
    table = files / f"table{suffix}"
    run(capsys, "convert", files / "b.parquet", "--out", table)
    run(capsys, "convert", table, "--out", files / "again.parquet", "--step", 6)
    one, two = (GroupHistoryManager.load(files / name, step=6) for name in ("b.parquet", "again.parquet"))
    assert one.groups == two.groups
    for name in ("count", "mean", "std"):
        assert (
            getattr(one.statistics(one.groups), name).tobytes() == getattr(two.statistics(one.groups), name).tobytes()
        )


def test_odd_labels_survive_a_csv(tmp_path, capsys):
    odd = ["a,b", 'say "hi"', "two\nlines", "a\rb", " blank ", "None", "nan", "日本"]
    history((odd, [1.0] * len(odd))).save(tmp_path / "h.parquet", 1)
    run(capsys, "convert", tmp_path / "h.parquet", "--out", tmp_path / "t.csv")
    run(capsys, "convert", tmp_path / "t.csv", "--out", tmp_path / "back.parquet")
    assert GroupHistoryManager.load(tmp_path / "back.parquet").groups == sorted(odd)


def test_a_table_of_ones_own(tmp_path, capsys):
    """With std in the place of m2; a group of one rating has none."""
    path = tmp_path / "ratings.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("group", "count", "mean", "std"), ("a", 5, 3.5, 2.0), ("b", 1, 1.0, "")])
    run(capsys, "convert", path, "--out", tmp_path / "h.parquet")
    found = GroupHistoryManager.load(tmp_path / "h.parquet").statistics(["a", "b"])
    assert found.count.tolist() == [5, 1]
    np.testing.assert_allclose(found.std, [2.0, 0.0], rtol=1e-15)


@pytest.mark.parametrize(
    "line",
    [
        "a,0,1,1",
        "a,1.5,1,1",
        "a,x,1,1",
        "a,2,nan,1",
        "a,2,1e200,1",
        "a,2,1,-1",
        "a,2,1,inf",
        "a,1,1,5",
        ",2,1,1",
        "a,2,1",
    ],
)
def test_an_invalid_table_is_one_error(tmp_path, capsys, line):
    path = tmp_path / "t.csv"
    path.write_text(f"group,count,mean,m2\njazz,1,2.0,0.0\n{line}\n")
    assert main(["history", "convert", str(path), "--out", str(tmp_path / "h.parquet")]) == 2
    error = capsys.readouterr().err
    assert path.name in error
    assert error.count("\n") == 1
    assert not (tmp_path / "h.parquet").exists()


@pytest.mark.parametrize("half_life", [None, 100.0])
def test_a_run_starts_from_ratings_collected_earlier(tmp_path, capsys, half_life):
    (tmp_path / "ratings.jsonl").write_text('{"group": "a", "count": 4, "mean": 3.0, "std": 2.0}\n')
    option = [] if half_life is None else ["--half-life", half_life]
    run(capsys, "convert", tmp_path / "ratings.jsonl", "--out", tmp_path / "h.parquet", *option)
    started = GroupHistoryManager.load(tmp_path / "h.parquet", PGRPOConfig(half_life=half_life))
    assert started.statistics(["a"]).std[0] == pytest.approx(2.0)
    assert started.total_count == 4


def test_errors_in_one_line(files, capsys):
    (files / "cut.parquet").write_bytes((files / "a.parquet").read_bytes()[:-20])
    (files / "few.csv").write_text("group,count\na,1\n")
    for arguments, message in [
        (["show", files / "none.parquet"], "no reward history at"),
        (["show", files / "cut.parquet"], "truncated"),
        (["diff", files / "a.parquet", files / "cut.parquet"], "truncated"),
        (["convert", files / "a.parquet", "--out", files / "t.txt"], "must end in .csv or .jsonl"),
        (["convert", files / "few.csv", "--out", files / "h.parquet"], "no column mean"),
        (
            ["merge", files / "a.parquet", files / "b.parquet", "--out", files / "a.parquet", "--step", 1],
            "is also an input",
        ),
    ]:
        assert main(["history", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["h.csv", "h.jsonl"])
def test_tables_keep_the_spread_within_prompts(tmp_path, name):
    history = GroupHistoryManager()
    history.update(["a", "a", "b", "b"], [1.0, 4.0, 2.0, 2.5], ["p", "p", "q", "q"])
    write_history_table(history, tmp_path / name)
    copy = read_history_table(tmp_path / name)
    assert copy.statistics(["a", "b"]).within_std.tobytes() == history.statistics(["a", "b"]).within_std.tobytes()
