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

GROUP = groups_from_field("g")


def entry(step: int, **data: float) -> str:
    return json.dumps({"step": step, "data": {"training/global_step": step, **data}}) + "\n"


def entries(first: int, last: int) -> str:
    return "".join(entry(step, reward=step) for step in range(first, last + 1))


def response(score: float, prompt: str = "p", session: int = 0, **fields: object) -> str:
    row = {"input": prompt, "output": "la", "score": score, "uid": f"{prompt}_{session}_0", "g": "jazz", **fields}
    return json.dumps(row) + "\n"


def write(file: Path, text: str, written: float = 0.0) -> Path:
    file.write_text(text, encoding="utf-8")
    os.utime(file, (written, written))
    return file


def test_metrics_of_an_abandoned_branch_are_dropped(tmp_path):
    first = "".join(entry(step, reward=step, old=1.0) for step in range(1, 11))
    resumed = json.dumps({"step": 5, "data": {"val-core/x": 0.5}}) + "\n"  # the validation before training
    resumed += "".join(entry(step, reward=10 * step) for step in range(6, 9))
    write(tmp_path / "z.jsonl", first + '{"step": 11, "da', written=2e9)  # copied later
    write(tmp_path / "a.jsonl", resumed)
    for logs in (find_logs(tmp_path), [write(tmp_path / "joined", first + resumed)]):
        log = read_log(logs, ("reward", "old", "val-core/"))
        assert log.series("reward").to_dict() == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 60, 7: 70, 8: 80}
        assert log.series("old").index.tolist() == [1, 2, 3, 4, 5]
        assert log.series("val-core/x").to_dict() == {5: 0.5}
        assert (log.abandoned, log.training_steps) == ((9, 10), (1, 8))


@pytest.mark.parametrize(
    ("logs", "order"),
    [
        ({"a": (1, 10, 0), "b": (11, 14, 100), "c": (6, 20, 200)}, "a b c"),  # the user goes back with resume_path
        ({"a": (1, 10, 0), "b": (11, 14, 0.1), "c": (6, 20, 0.2)}, "a c b"),  # copied
        ({"a": (1, 10, 0), "b": (11, 14, 0.1), "c": (6, 20, 100)}, "a b c"),  # copied, then continued
        ({"a": (1, 10, 200), "b": (11, 14, 100), "c": (15, 20, 0)}, "a b c"),  # edited or copied one by one
        ({"metrics_2": (11, 14, 100), "metrics": (1, 10, 200), "metrics_3": (6, 20, 0)}, "metrics metrics_2 metrics_3"),
    ],
)
def test_metrics_files_in_the_order_of_writing(tmp_path, logs, order):
    for name, (first, last, written) in logs.items():
        write(tmp_path / f"{name}.jsonl", entries(first, last), written)
    assert [file.stem for file in find_logs(tmp_path)] == order.split()


@pytest.mark.parametrize(
    ("written", "logged", "last"),
    [
        ([0] * 10, [(1, 10), (6, 8)], 8),
        ([0] * 10, [(6, 8)], 8),  # verl starts its log file anew
        ([1, 2, 3, 4, 5, 1006, 1007, 1008, 9, 10], [], 8),
        ([1, 2, 3, 4, 5, 100, 7, 8, 9, 10], [], 6),  # a single resumed step
        ([1, 2, 3, 4, 5, 100, 7, 8, 9, 10], [(1, 10)], 10),  # edited: the log has no resumed step
        ([0, 0, 0, 0, 0, 100, 0, 0, 0, 0], [], 10),  # copied, then edited
        ([1, 2, 3, 4, 5, 10.5, 7, 8, 9, 10], [], 10),  # copied
        ([0, 50, 40, 60, 1, 2, 3, 4, 5, 6], [], 10),  # copied in no order
    ],
)
def test_dumps_of_an_abandoned_branch_are_dropped(tmp_path, written, logged, last):
    for step, time in enumerate(written, start=1):
        write(tmp_path / f"{step}.jsonl", response(step), time)
    logs = [write(tmp_path / f"log{first}", entries(first, end)) for first, end in logged]
    dumps = find_dumps(tmp_path, read_log(logs))
    assert (list(dumps.files), dumps.abandoned) == (list(range(1, last + 1)), tuple(range(last + 1, 11)))


def test_a_folder_without_dumps_is_an_error(tmp_path):
    with pytest.raises(DataError):
        find_dumps(tmp_path)


def test_if_only_dumps_of_an_abandoned_branch_are_left_that_is_an_error(tmp_path):
    for step in (9, 10):
        write(tmp_path / f"{step}.jsonl", response(step))
    logs = [write(tmp_path / f"log{first}", entries(first, last)) for first, last in ((1, 10), (6, 7))]
    with pytest.raises(DataError, match=r"steps 9 to 10, are of an abandoned branch.*ends at step 7"):
        find_dumps(tmp_path, read_log(logs))


def test_damaged_training_data_is_an_error_wherever_the_damage_is(tmp_path):
    row = {"reward_model": {"ground_truth": "rock"}, "preference_group": "jazz", "prompt": "play"}
    whole, file = tmp_path / "whole.parquet", tmp_path / "train.parquet"
    pd.DataFrame([row] * 3).to_parquet(whole, compression=None)
    data, messages = whole.read_bytes(), []
    for place in range(4, len(data), 3):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            groups_from_data([file])
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all(message.startswith(f"{file}: ") for message in messages)


def test_padding_and_earlier_outputs_of_a_session_do_not_count(tmp_path):
    uids = {"p_0_0": 9, "p_0_1": 1, "p_1_1": 2, "p_1_0": 9, "pad1_0_0": 9}
    rows = read_dump(write(tmp_path / "3.jsonl", "".join(response(uids[uid], uid=uid) for uid in uids)), GROUP)
    assert rows[["score", "prompt_id", "step"]].values.tolist() == [[1.0, "p", 3], [2.0, "p", 3]]
    older = [response(1, uid=None, gts=truth) for truth in ("a", "a", {"b": 1})]  # of trainers without uid
    older.append(response(1, uid=None, gts="a", g="rock"))
    prompts = read_dump(write(tmp_path / "4.jsonl", "".join(older)), GROUP)["prompt_id"]
    assert [prompts.tolist().index(prompt) for prompt in prompts] == [0, 0, 2, 3]


def test_odd_text_and_a_cut_within_a_character(tmp_path):
    text = response(1, output="a|b~c\ud800", g="x\ud800").replace("|", "\u2028").replace("~", "\x85")
    file = write(tmp_path / "1.jsonl", text + response(2, session=1))
    file.write_bytes(file.read_bytes() + '{"ü'.encode()[:-1])
    rows = read_dump(file, GROUP)
    assert rows["score"].tolist() == [1.0, 2.0]
    assert rows["output"][0] == "a\u2028b\x85c?"
    assert rows["group"].tolist() == ["x?", "jazz"]  # a label that metrics and files can hold


@pytest.mark.parametrize("line", ["nonsense", '{"score": 1}', "[" * 100_000, '{"output": "la", "score": 1e999999, "s'])
def test_damage_is_named_with_its_line(tmp_path, line):
    with pytest.raises(DataError, match=r"1\.jsonl, line 2"):
        read_dump(write(tmp_path / "1.jsonl", f"{response(1)}{line}\n{response(2)}"), GROUP)
    with pytest.raises(DataError, match="log, line 2"):
        read_log([write(tmp_path / "log", f"{entry(1)}{line}\n")])


def test_groups_are_looked_up_by_ground_truth_then_by_prompt(tmp_path):
    rows = [
        ("I like jazz", "hi", {"a": 1}, "jazz"), ("I like rock", "hi", {"a": 1}, "rock"),
        ("I like folk", "no 1", {"b": 1}, "folk"), ("I like folk", "no 10", {"b": 1}, "late folk"),
        ("", "hi", {"c": 1}, None), ("same", "same", {"d": 1}, "one"), ("same", "same", {"d": 1}, "two"),
    ]  # fmt: skip
    columns = [
        {
            "prompt": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "reward_model": {"ground_truth": truth},
            "preference_group": group,
            "extra_info": {"segment": str(group).upper()},
        }
        for system, user, truth, group in rows
    ]
    file = tmp_path / "train.parquet"
    pd.DataFrame(columns).to_parquet(file)
    groups = groups_from_data([file], default_group="others")
    found = [groups({"gts": truth, "input": f"{system}\n{user}  \n"}) for system, user, truth, _ in rows]
    assert found == ["jazz", "rock", "folk", "late folk", "others", None, None]
    by_path = groups_from_data([file], key="extra_info.segment")
    assert by_path({"gts": {"a": 1}, "input": "I like jazz hi"}) == "JAZZ"
    assert by_path({"gts": "unknown"}) is None
    for bad, key in ((tmp_path / "none", "g"), (tmp_path, "g"), (file, "user")):
        with pytest.raises(DataError):
            groups_from_data([bad], key)


def test_groups_are_read_from_a_field():
    assert groups_from_field("gts.wants")({"gts": '{"wants": 7}'}) == "7"
    assert groups_from_field("gts.wants")({"gts": "{"}) is None
