# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo judge` with files, numbers and answers that nobody should have made: one line says so, or it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.judge_calls import arguments, judge, write_pairs
from tests.judge_server import fails, judge_server, says, shown
from verl_pgrpo.cli import main
from verl_pgrpo.data.errors import DataError
from verl_pgrpo.evaluation.pairs import read_pairs


def write(path: Path, *rows: dict[str, Any]) -> Path:
    usual = {"prompt_id": "1", "preference_group": "g", "prompt": "P", "response": "r"}
    path.write_text("".join(json.dumps({**usual, **row}) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["prompt", "preference_group"])
def test_one_id_of_two_prompts_is_not_paired(tmp_path: Path, name: str) -> None:
    a = write(tmp_path / "a.jsonl", {name: "P"}, {name: "Q"}, {name: "R"})
    b = write(tmp_path / "b.jsonl", {name: "P"}, {name: "R"}, {name: "Q"})
    with pytest.raises(DataError, match=f"prompt_id '1': another {name} in one line of .*a.jsonl than in another"):
        read_pairs(a, b)


@pytest.mark.parametrize("choices", [["x"], [None]])
def test_choices_of_another_kind_are_no_completion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], choices: list[Any]
) -> None:
    write_pairs(tmp_path, prompts=1)
    with judge_server(lambda body: (200, {}, {"choices": choices})) as (url, _):
        assert main(arguments(tmp_path, url, "--retries", "0")) == 2
    assert "gives no chat completions" in capsys.readouterr().err


def test_tokens_that_are_no_number_are_not_counted(tmp_path: Path) -> None:
    write_pairs(tmp_path, prompts=1)
    reply = says("A")
    reply[2]["usage"] = {"prompt_tokens": "5", "completion_tokens": 7}
    with judge_server(lambda body: reply) as (url, _):
        assert judge(tmp_path, url)["tokens"] == {"input": 0, "output": 14}
        cache = tmp_path / "out.judge-cache.jsonl"
        cache.write_text(cache.read_text().replace('"output_tokens": 7', '"output_tokens": "7"'))
        assert judge(tmp_path, url)["tokens"] == {"input": 0, "output": 0}, "one that an older version has written"


def test_half_a_character_does_not_cost_the_results(tmp_path: Path) -> None:
    row = {"prompt_id": "\ud800", "preference_group": "g\ud801"}
    for name in "ab":
        write(tmp_path / f"{name}.jsonl", {**row, "response": name}, {"prompt_id": "2", "response": f"{name} no"})
    with judge_server(lambda body: fails(400, "\ud802") if "no" in shown(body)[0] else says("A")) as (url, _):
        result = judge(tmp_path, url, "--concurrency", "1")
    assert [(pair["prompt_id"], pair["preference_group"]) for pair in result["pairs"]] == [
        ("\\ud800", "g\\ud801"), ("2", "g"),
    ]  # fmt: skip
    assert result["refusal"]
