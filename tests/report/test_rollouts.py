# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Rollout dumps and metrics logs as verl writes them: resumed runs, damaged files, lookup of preference groups."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.metrics_log import find_logs, read_log
from verl_pgrpo.evaluation.rollouts import find_dumps, groups_from_data, groups_from_field, read_dump

RECIPE = ["metrics", "metrics_2", "metrics_3"]  # names of the recipes
GROUP = groups_from_field("g")


def entry(step: int, **data: float) -> str:
    return json.dumps({"step": step, "data": {"training/global_step": step, **data}}) + "\n"


def response(score: float, prompt: str = "p", session: int = 0, **fields: object) -> str:
    row = {"input": prompt, "output": "la", "score": score, "uid": f"{prompt}_{session}_0", "g": "jazz", **fields}
    return json.dumps(row, ensure_ascii=False) + "\n"


def dump(folder: Path, step: int, text: str = "", written: float = 0.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{step}.jsonl"
    file.write_text(text or response(step), encoding="utf-8", errors="surrogatepass")
    os.utime(file, (written, written))
    return file


def test_metrics_of_an_abandoned_branch_are_dropped(tmp_path):
    first = "".join(entry(step, reward=step, old=1.0) for step in range(1, 11)) + '{"step": 11, "da'
    resumed = json.dumps({"step": 5, "data": {"val-core/x": 0.5}}) + "\n"  # the validation before training
    resumed += "".join(entry(step, reward=10 * step) for step in range(6, 9))
    (tmp_path / "z.jsonl").write_text(first)
    (tmp_path / "a.jsonl").write_text(resumed)
    os.utime(tmp_path / "z.jsonl", (2e9, 2e9))  # copied later
    files = find_logs(tmp_path)
    assert [file.name for file in files] == ["z.jsonl", "a.jsonl"]
    (tmp_path / "joined").write_text(first.rpartition("\n")[0] + "\n" + resumed)
    for logs in (files, [tmp_path / "joined"]):
        log = read_log(logs, ("reward", "old", "val-core/"))
        assert log.series("reward").to_dict() == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 60, 7: 70, 8: 80}
        assert log.series("old").index.tolist() == [1, 2, 3, 4, 5]
        assert log.series("val-core/x").to_dict() == {5: 0.5}
        assert (log.abandoned, log.training_steps) == ((9, 10), (1, 8))


@pytest.mark.parametrize(
    ("logs", "order"),
    [
        ({"a": (1, 10, 0), "b": (11, 14, 100), "c": (6, 20, 200)}, "abc"),  # the user goes back with resume_path
        ({"a": (1, 10, 0), "b": (11, 14, 0.1), "c": (6, 20, 0.2)}, "acb"),  # copied
        ({"a": (1, 10, 0), "b": (11, 14, 0.1), "c": (6, 20, 100)}, "abc"),  # copied, then continued
        ({"a": (1, 10, 200), "b": (11, 14, 100), "c": (15, 20, 0)}, "abc"),  # edited or copied one by one
        ({"metrics": (1, 10, 200), "metrics_2": (11, 14, 100), "metrics_3": (6, 20, 0)}, RECIPE),
    ],
)  # fmt: skip
def test_metrics_files_in_the_order_of_writing(tmp_path, logs, order):
    for name, (first, last, written) in logs.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(map(entry, range(first, last + 1))))
        os.utime(tmp_path / f"{name}.jsonl", (written, written))
    assert [file.stem for file in find_logs(tmp_path)] == list(order)


@pytest.mark.parametrize("evidence", ["both logs", "truncated log", "modification times"])
def test_dumps_of_an_abandoned_branch_are_dropped(tmp_path, evidence):
    for step in range(1, 11):
        written = 100 + step if step < 6 or step > 8 else 1000 + step
        dump(tmp_path, step, written=written if evidence == "modification times" else 0.0)
    old, new = "".join(map(entry, range(1, 11))), "".join(map(entry, range(6, 9)))
    (tmp_path / "old.jsonl").write_text(old)
    (tmp_path / "new.jsonl").write_text(new)
    logs = {
        "both logs": [tmp_path / "old.jsonl", tmp_path / "new.jsonl"],
        "truncated log": [tmp_path / "new.jsonl"],  # verl starts its log file anew
        "modification times": [],
    }
    dumps = find_dumps(tmp_path, read_log(logs[evidence]))
    assert (list(dumps.files), dumps.abandoned) == (list(range(1, 9)), (9, 10))


@pytest.mark.parametrize(
    ("before", "rewritten", "last"),
    [
        (range(10), 100.0, 6),  # a single resumed step
        ([0.0] * 10, 100.0, 10),  # copied, then edited
        (range(10), 9.5, 10),  # copied
    ],
)
def test_a_single_newer_dump(tmp_path, before, rewritten, last):
    for step, written in enumerate(before, start=1):
        dump(tmp_path, step, written=rewritten if step == 6 else written)
    assert max(find_dumps(tmp_path).files) == last


def test_padding_and_earlier_outputs_of_a_session_do_not_count(tmp_path):
    uids = {"p_0_0": 9, "p_0_1": 1, "p_1_1": 2, "p_1_0": 9, "pad1_0_0": 9}
    text = "".join(response(score, uid=uid) for uid, score in uids.items())
    rows = read_dump(dump(tmp_path, 3, text), GROUP)
    assert rows["score"].tolist() == [1.0, 2.0]
    assert rows["prompt_id"].tolist() == ["p", "p"]
    assert set(rows["step"]) == {3}
    text = "".join(response(1, uid=None, gts=truth) for truth in ("a", "a", {"b": 1}))  # older trainers: no uid
    first, second, third = read_dump(dump(tmp_path, 4, text), GROUP)["prompt_id"]
    assert first == second != third


def test_odd_text_and_a_cut_within_a_character(tmp_path):
    file = dump(tmp_path, 1, response(1, output="a\u2028b\x85c\ud800", g="x\ud800") + response(2, session=1))
    file.write_bytes(file.read_bytes().replace(b"\xed\xa0\x80", b"\\ud800") + '{"ü'.encode()[:-1])
    rows = read_dump(file, GROUP)
    assert rows["score"].tolist() == [1.0, 2.0]
    assert rows["output"][0] == "a\u2028b\x85c?"
    assert rows["group"].tolist() == ["x?", "jazz"]  # a label that metrics and files can hold


@pytest.mark.parametrize("line", ["nonsense", '{"score": 1}', "[" * 100_000, '{"output": "la", "score": 1e999999, "s'])
def test_damage_is_named_with_its_line(tmp_path, line):
    with pytest.raises(DataError, match=r"1\.jsonl, line 2"):
        read_dump(dump(tmp_path, 1, f"{response(1)}{line}\n{response(2)}"), GROUP)
    (tmp_path / "log").write_text(f"{entry(1)}{line}\n")
    with pytest.raises(DataError, match="log, line 2"):
        read_log([tmp_path / "log"])
    (tmp_path / "1.jsonl").unlink()
    with pytest.raises(DataError, match=r"no <step>\.jsonl"):
        find_dumps(tmp_path)


def data(folder: Path, *rows: tuple[str, str, object, object]) -> Path:
    columns = [
        {
            "prompt": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "reward_model": {"ground_truth": truth},
            "preference_group": group,
            "extra_info": {"segment": str(group).upper()},
        }
        for system, user, truth, group in rows
    ]
    pd.DataFrame(columns).to_parquet(folder / "train.parquet")
    return folder / "train.parquet"


def test_groups_are_looked_up_by_ground_truth_then_by_prompt(tmp_path):
    rows = [
        ("I like jazz", "hi", {"a": 1}, "jazz"), ("I like rock", "hi", {"a": 1}, "rock"),
        ("I like folk", "no 1", {"b": 1}, "folk"), ("I like folk", "no 10", {"b": 1}, "late folk"),
        ("", "hi", {"c": 1}, None), ("same", "same", {"d": 1}, "one"), ("same", "same", {"d": 1}, "two"),
    ]  # fmt: skip
    groups = groups_from_data([data(tmp_path, *rows)], default_group="others")
    found = [groups({"gts": truth, "input": f"{system}\n{user}  \n"}) for system, user, truth, _ in rows]
    assert found == ["jazz", "rock", "folk", "late folk", "others", None, None]
    by_path = groups_from_data([tmp_path / "train.parquet"], key="extra_info.segment")
    assert by_path({"gts": {"a": 1}, "input": "I like jazz hi"}) == "JAZZ"
    assert by_path({"gts": "unknown"}) is None
    assert groups_from_field("gts.wants")({"gts": '{"wants": 7}'}) == "7"
    assert groups_from_field("gts.wants")({"gts": "{"}) is None
    for files, key in (([tmp_path / "none"], "g"), ([tmp_path], "g"), ([tmp_path / "train.parquet"], "user")):
        with pytest.raises(DataError):
            groups_from_data(files, key)
