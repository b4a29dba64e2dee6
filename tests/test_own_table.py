# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of the user's own: equal rows from every format, splits that keep apart what they should, errors by line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from verl_pgrpo.cli import main
from verl_pgrpo.data.rows import COLUMNS

pytestmark = pytest.mark.slow

ROWS = 300


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    user = rng.integers(60, size=ROWS)
    return pd.DataFrame(
        {
            "user": [f"user {i}" for i in user],
            "question": [f'Quéstion, with a "quote" {i}?\nAnd a second line.' for i in range(ROWS)],
            "segment": np.where(user % 3 == 0, "rare", "common"),
            "x": (user % 3) * 6 + rng.normal(size=ROWS),
            "y": rng.normal(size=ROWS),
            "when": pd.date_range("2024-01-01", periods=ROWS, freq="h").astype(str),
            "wanted": [f"answer {i}" for i in range(ROWS)],
        }
    )


@pytest.fixture
def folder(frame: pd.DataFrame, tmp_path: Path) -> Path:
    frame.to_parquet(tmp_path / "table.parquet")
    frame.to_csv(tmp_path / "table.csv", index=False)
    frame.to_json(tmp_path / "table.jsonl", orient="records", lines=True, force_ascii=False)
    (tmp_path / "table.jsonl.gz").write_bytes(gzip.compress((tmp_path / "table.jsonl").read_bytes()))
    return tmp_path


def run(folder: Path, source: str, *arguments: str, out: str = "out") -> int:
    common = [
        "data",
        "table",
        "--input",
        str(folder / source),
        "--out",
        str(folder / out),
        "--prompt-column",
        "question",
    ]
    return main([*common, *arguments])


def read(folder: Path, out: str = "out") -> dict[str, pd.DataFrame]:
    return {split: pd.read_parquet(folder / out / f"{split}.parquet") for split in ("train", "val")}


def test_every_format_gives_the_same_bytes(folder: Path, frame: pd.DataFrame) -> None:
    import datasets

    datasets.Dataset.from_pandas(frame).save_to_disk(folder / "table")
    datasets.DatasetDict(part=datasets.Dataset.from_pandas(frame)).save_to_disk(folder / "several")
    sources = ["table.parquet", "table.csv", "table.jsonl", "table.jsonl.gz", "table", "several"]
    for source in sources:
        split = ["--split", "part"] if source == "several" else []
        arguments = ("--group-column", "segment", "--truth-column", "wanted", "--task", "mine")
        assert run(folder, source, *arguments, *split, out=source + ".out") == 0
        for name in ("train.parquet", "val.parquet"):
            made = (folder / f"{source}.out" / name).read_bytes()
            assert made == (folder / "table.parquet.out" / name).read_bytes(), (source, name)
    rows = read(folder, "table.csv.out")
    assert tuple(rows["train"]) == COLUMNS
    assert (len(rows["train"]), len(rows["val"])) == (270, 30)
    row = rows["val"].iloc[0]
    assert row["data_source"] == f"mine/{row['preference_group']}"
    assert row["prompt"][0]["content"].startswith('Quéstion, with a "quote" ')
    number = row["prompt"][0]["content"].split()[4].partition("?")[0]
    assert row["reward_model"]["ground_truth"] == f"answer {number}"


def test_a_split_of_a_dataset_dict_must_be_named(
    folder: Path, frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    import datasets

    datasets.DatasetDict(part=datasets.Dataset.from_pandas(frame)).save_to_disk(folder / "several")
    assert run(folder, "several", "--group-column", "segment") == 2
    assert "name one with --split; it has part" in capsys.readouterr().err
    assert run(folder, "several", "--group-column", "segment", "--split", "../x") == 2


def test_by_user_nobody_is_on_both_sides(folder: Path) -> None:
    assert run(folder, "table.csv", "--group-column", "segment", "--user-column", "user") == 0
    users = {split: {info["user"] for info in rows["extra_info"]} for split, rows in read(folder).items()}
    assert not users["train"] & users["val"]
    assert len(users["val"]) == 6


def test_without_users_no_prompt_is_on_both_sides(folder: Path, frame: pd.DataFrame) -> None:
    frame.assign(question=[f"{i % 50}?" for i in range(ROWS)]).to_csv(folder / "table.csv", index=False)
    assert run(folder, "table.csv", "--group-column", "segment") == 0
    prompts = {split: {row[0]["content"] for row in rows["prompt"]} for split, rows in read(folder).items()}
    assert not prompts["train"] & prompts["val"]


@pytest.mark.parametrize("convert", [lambda when: when, lambda when: [pd.Timestamp(t).timestamp() for t in when]])
def test_by_time_the_latest_are_for_validation(folder: Path, frame: pd.DataFrame, convert) -> None:
    frame.assign(when=convert(frame["when"])).sample(frac=1, random_state=0).to_csv(folder / "t.csv", index=False)
    assert run(folder, "t.csv", "--group-column", "segment", "--time-column", "when", "--keep", "when") == 0
    times = {split: [info["when"] for info in rows["extra_info"]] for split, rows in read(folder).items()}
    assert max(times["train"]) < min(times["val"])
    assert len(times["val"]) == 30


def test_clusters_know_the_training_side_only(folder: Path, frame: pd.DataFrame) -> None:
    arguments = ("--cluster-features", "x,y", "--user-column", "user", "--time-column", "when", "--groups", "3")
    assert run(folder, "table.csv", *arguments, "--task", "t") == 0
    other = frame.copy()
    other.loc[270:, "x"] = 1e6
    other.loc[270:, "question"] = "something else"
    other.to_csv(folder / "other.csv", index=False)
    assert run(folder, "other.csv", *arguments, "--task", "t", out="other") == 0
    for name in ("train.parquet", "groups.json"):
        assert (folder / "out" / name).read_bytes() == (folder / "other" / name).read_bytes()
    groups = [rows["val"]["preference_group"].tolist() for rows in (read(folder), read(folder, "other"))]
    assert groups[0] == groups[1], "a user's group comes from the user's past"


def test_a_grouping_made_elsewhere_is_applied(folder: Path) -> None:
    fit = ["groups", "fit", "--input", str(folder / "table.csv"), "--features", "x", "--groups", "3"]
    assert main([*fit, "--out", str(folder / "g.json")]) == 0
    assert run(folder, "table.csv", "--groups-file", str(folder / "g.json")) == 0
    assert {*read(folder)["train"]["preference_group"]} == {"g0", "g1", "g2"}


def test_chat_messages_stay_as_they_are(folder: Path, frame: pd.DataFrame) -> None:
    chat = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": q}] for q in frame["question"]]
    frame.assign(question=chat).to_parquet(folder / "chat.parquet")
    frame.assign(question=[json.dumps(one) for one in chat]).to_csv(folder / "chat.csv", index=False)
    for source in ("chat.parquet", "chat.csv"):
        assert run(folder, source, "--group-column", "segment") == 0
        assert [message["role"] for message in read(folder)["train"]["prompt"][0]] == ["system", "user"]


def test_random_groups_have_the_sizes_of_the_true_ones(folder: Path) -> None:
    assert run(folder, "table.csv", "--group-column", "segment") == 0
    rows = read(folder)["train"]
    drawn = pd.Series([info["random_group"] for info in rows["extra_info"]])
    assert drawn.value_counts().to_dict() == rows["preference_group"].value_counts().to_dict()


MISTAKES = {
    "no prompt": ("user 1,,common", [], "an empty prompt"),
    "no group": ("user 1,hello,", [], "no group in column 'segment'"),
    "too many fields": ("user 1,hello,common,1", [], "4 fields, the header has 3"),
    "a stray quote": ('user 1,"hel"lo,common', [], ""),
    "no user": (",hello,common", ["--user-column", "user"], "no user in column 'user'"),
}


@pytest.mark.parametrize("what", sorted(MISTAKES))
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    bad, arguments, message = MISTAKES[what]
    good = "\n".join(f'user {i},"two\nlines {i}",common' for i in range(20))  # lines, not rows: each row has two
    (tmp_path / "t.csv").write_text(f"user,question,segment\n{good}\n{bad}\nuser 2,hi,common\n")
    assert run(tmp_path, "t.csv", "--group-column", "segment", *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "t.csv, line 42: " in line
    assert message in line
    assert not (tmp_path / "out").exists()


def test_bad_rows_can_be_dropped_and_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"q {i}", "segment": "a"} for i in range(30)]
    rows += [{"question": " ", "segment": "a"}, {"question": "q", "segment": None}, {"segment": "a"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run(tmp_path, "t.jsonl", "--group-column", "segment", "--bad-rows", "drop", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["read"] == {"rows": 33}
    assert sum(summary["dropped"].values()) == 3
    assert sum(summary["files"].values()) == 30


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"question": "a"}\n{"question": \n', "t.jsonl, line 2: not JSON"),
        ("t.jsonl", b'{"question": "a"}\n[1]\n', "t.jsonl, line 2: expected a JSON object"),
        ("t.jsonl", b"", "no rows"),
        ("t.csv", b"question,segment\n\xff\xfe,a\n", "not UTF-8"),
        ("t.csv", b"question,segment\na\0b,c\n", "line 2: a zero byte"),
        ("t.parquet", b"PAR1 no", "damaged, or not of the format"),
        ("t.jsonl.gz", b"\x1f\x8b\x08 cut off", "damaged"),
        ("t.xlsx", b"", "unknown format"),
        ("none.csv", None, "no such file"),
    ],
)
def test_a_wrong_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(tmp_path, name, "--group-column", "segment") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of --group-column, --cluster-features, --groups-file"),
        (["--group-column", "segment", "--cluster-features", "x"], "one of --group-column"),
        (["--group-column", "nope"], "no column 'nope' (--group-column); it has user, question"),
        (["--group-column", "segment", "--time-column", "user"], "line 2: user is neither a number nor a date"),
        (["--group-column", "segment", "--val-fraction", "1"], "--val-fraction must be between 0 and 1"),
        (["--group-column", "segment", "--keep", "user"], "extra_info has fields of that name"),
        (["--cluster-features", "segment"], "column 'segment' is not a number"),
    ],
)
def test_wrong_options_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(folder, "table.csv", *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
