# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The questions about letters, and what counts as right."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("verl")
from benchmarks import letters
from verl_cpu.tiny_model import make_tiny_qwen3

PROMPT = """Films that I rated, with my stars (of 5):
- Heat (1995) [Action]: 4

To which of these films do I give the most stars?
A. Alien (1979) [Horror]
B. Big (1988) [Comedy]

Answer with one letter."""


def test_a_question_names_the_film_at_the_place_that_is_right():
    questions, places = letters.ask_for_letters([PROMPT] * 50)
    assert set(places) == {0, 1}
    for question, place in zip(questions, places, strict=True):
        film = ["Alien (1979) [Horror]", "Big (1988) [Comedy]"][place]
        assert question.endswith(f'Which letter does "{film}" have? Answer with one letter.')
        assert question.startswith("A. Alien (1979) [Horror]\nB. Big (1988) [Comedy]\n\n")
        assert "Heat" not in question


def test_a_preference_for_a_letter_hides_what_a_model_knows():
    right = np.eye(2)[np.arange(100) % 2]
    knows_and_prefers_a = 0.5 * right + np.array([3.0, 0.0])
    assert letters.answers(knows_and_prefers_a, right, ["A", "B"])["A"] == "1.00"
    found = letters.answers(knows_and_prefers_a - knows_and_prefers_a.mean(0), right, ["A", "B"])
    assert found == {"reached": "1.00 ± 0.00", "by chance": "0.50", "A": "0.50", "B": "0.50"}


@pytest.fixture
def data(tmp_path, monkeypatch):
    truth = json.dumps({"stars": {"A": 2.0, "B": 5.0}})
    row = {"data_source": "movielens_stars", "prompt": [{"role": "user", "content": PROMPT}]}
    pd.DataFrame([{**row, "reward_model": {"ground_truth": truth}}] * 8).to_parquet(tmp_path / "val.parquet")
    make_tiny_qwen3(tmp_path / "model", [*"AB", "letter", "film"])
    arguments = ["letters.py", "--data", str(tmp_path), "--model", str(tmp_path / "model")]
    monkeypatch.setattr(sys, "argv", arguments)
    return tmp_path


def test_the_table_has_both_questions(data, capsys):
    letters.main()
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows] == ["which letter does a film have? (share right)"] * 2 + [
        "which film has the most stars? (utility)"
    ] * 2
    assert all("0.50" in row for row in rows)


def test_other_data_is_an_error(data, capsys):
    table = pd.read_parquet(data / "val.parquet")
    table.assign(data_source="movielens").to_parquet(data / "val.parquet")
    with pytest.raises(SystemExit):
        letters.main()
    assert "is not of the task stars: its data_source is movielens" in capsys.readouterr().err
    (data / "val.parquet").unlink()
    with pytest.raises(SystemExit):
        letters.main()
    assert "does not exist; `verl-pgrpo data movielens --task stars` writes it" in capsys.readouterr().err
