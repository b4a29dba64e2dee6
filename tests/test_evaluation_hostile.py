# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo eval` with files and data that nobody should have made: one line says so, or it goes on."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import pytest

from verl_pgrpo import cli
from verl_pgrpo.commands.arguments import Result
from verl_pgrpo.data.errors import DataError
from verl_pgrpo.evaluation.groups import Scores
from verl_pgrpo.evaluation.samples import Sample, read_samples


def test_one_id_of_two_prompts_has_no_mean() -> None:
    rows = [Sample("1", "g", prompt, "r", number, "m", 1.0) for number, prompt in enumerate(("P", "Q"))]
    with pytest.raises(DataError, match="m: prompt_id 1 has two prompts: 'P' and 'Q'"):
        Scores.of("m", rows)


LINE = '{"prompt_id": 1, "preference_group": "g", "prompt": %s, "response": "r", "sample": %s, "score": %s}'
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (LINE % ('"P"', "1e999", "1"), "'sample' must be a whole number"),
        (LINE % ('"P"', "0", "9" * 400), r"'score' must be a finite number up to 1e\+140"),
        (LINE % ('"P"', "0", "-1e200"), "'score' must be a finite number"),
        (LINE % ('"P"', "0", "NaN"), "'score' must be a finite number"),
        (LINE % (DEEP, "0", "1"), "not JSON"),
        (DEEP, "not JSON"),
    ],
)
def test_no_line_breaks_the_reader(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "s.jsonl").write_text(line)
    with pytest.raises(DataError, match=f"line 1: {message}"):
        read_samples(tmp_path / "s.jsonl")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_name_and_number_can_be_printed(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    data = {"name": "\xe9 \u4e2d \U0001f600", "mean": [float("nan"), float("inf"), 1.0]}

    def printed(as_json: bool) -> str:
        known = argparse.Namespace(run=lambda args: Result(data["name"], data), json=as_json)
        monkeypatch.setattr(cli, "parser", lambda: argparse.Namespace(parse_args=lambda argv: known))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        assert cli.main([]) == 0
        return sys.stdout.buffer.getvalue().decode(encoding)

    assert printed(False).strip() == data["name"].encode(encoding, "backslashreplace").decode(encoding)
    assert json.loads(printed(True)) == {"name": data["name"], "mean": [None, None, 1.0]}
