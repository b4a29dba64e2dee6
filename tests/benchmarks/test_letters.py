# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a model matches letters to films: the questions, the letters' probabilities, and what counts as right."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("verl")
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks import letters
from verl_cpu.tiny_model import make_tiny_qwen3

LIST = "A. Alien (1979) [Horror]\nB. Big (1988) [Comedy]"
PROMPT = f"""Films that I rated, with my stars (of 5):
- Heat (1995) [Action]: 4

To which of these films do I give the most stars?
{LIST}

Answer with one letter."""
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]


def test_a_question_names_the_film_at_the_place_that_is_right():
    questions, places = letters.ask_for_letters([CHAT] * 50)
    assert set(places) == {0, 1}
    for (system, question), place in zip(questions, places, strict=True):
        film = ["Alien (1979) [Horror]", "Big (1988) [Comedy]"][place]
        assert question["content"] == f'{LIST}\n\nWhich letter does "{film}" have? Answer with one letter.'
        assert system == CHAT[0]


def test_a_preference_for_a_letter_hides_what_a_model_knows():
    right = np.eye(2)[np.arange(100) % 2]
    knows_and_prefers_a = 0.5 * right + np.array([3.0, 0.0])
    assert letters.answers(knows_and_prefers_a, right, ["A", "B"])["A"] == "1.00"
    found = letters.answers(knows_and_prefers_a - knows_and_prefers_a.mean(0), right, ["A", "B"])
    assert found == {"reached": "1.00 ± 0.00", "by chance": "0.50", "A": "0.50", "B": "0.50"}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return make_tiny_qwen3(tmp_path_factory.mktemp("model"), [*"ABCD", "letter", "film"])


def test_probabilities_are_the_models_own_after_the_whole_chat(model_folder):
    tokenizer, model = (kind.from_pretrained(model_folder) for kind in (AutoTokenizer, AutoModelForCausalLM))
    template = {"chat_template": "{% for m in messages %}{{ m.content }} {{ extra }} {% endfor %}", "extra": "film"}
    chats = [[{"role": "system", "content": "letter"}, {"role": "user", "content": text}] for text in ("A", "B A")]
    found = letters.log_probabilities(model, tokenizer, chats, ["B", "A", "C"], template)
    for text, row in zip(("letter film A film", "letter film B A film"), found, strict=True):
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, -1]
        expected = logits.log_softmax(-1)[tokenizer.convert_tokens_to_ids(["B", "A", "C"])]
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="no token for E, F"):
        letters.log_probabilities(model, tokenizer, chats, ["A", "E", "F"])


def test_tokens_with_a_space_count_too():
    class Tokenizer:
        def __len__(self):
            return 4

        def batch_decode(self, tokens, **options):
            return [["A", "B", " A", "AB"][token] for (token,) in tokens]

    assert letters.tokens_of(["A", "B"], Tokenizer()) == [[0, 2], [1]]


@pytest.fixture
def run(tmp_path, model_folder, monkeypatch, capsys):
    truth = json.dumps({"stars": {"A": 2.0, "B": 5.0, "C": 3.5}})
    row = {"data_source": "movielens_stars/g0", "prompt": [{"role": "user", "content": f"{PROMPT}\nC. C (2000)"}]}
    good = pd.DataFrame([{**row, "reward_model": {"ground_truth": truth}}] * 4)

    def start(*options: str, **columns: object) -> str:
        good.assign(**columns).to_parquet(tmp_path / "val.parquet")
        monkeypatch.setattr(
            sys, "argv", ["letters.py", "--data", str(tmp_path), "--model", str(model_folder), *options]
        )
        letters.main()
        return capsys.readouterr().out

    return start


@pytest.fixture
def strangers(tmp_path, model_folder):
    """Models that would run code if they were loaded as they wish, and the file that this code would write."""
    ran = tmp_path / "ran"
    code, pickled = (shutil.copytree(model_folder, tmp_path / name) for name in ("code", "pickled"))
    (code / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (code / "config.json").write_text(json.dumps(own))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    return {"code": code, "pickled": pickled, "ran": ran}


def test_the_table_has_both_questions(run, monkeypatch):
    assert run("--prompts", "3").startswith("3 prompts\n")
    prefers_b = np.log([[0.1, 0.6, 0.1]])
    monkeypatch.setattr(letters, "log_probabilities", lambda _, __, chats, *___: np.repeat(prefers_b, len(chats), 0))
    rows = [re.split("  +", line)[1:] for line in run().splitlines()[2:]]
    assert [row[0] for row in rows] == ["as given", "centred"] * 2
    assert rows[2][1:] == ["1.00 ± 0.00", "0.50", "0.00", "1.00", "0.00", "0.80"]  # B has the most stars
    assert rows[0][2:] == ["0.33", "0.00", "1.00", "0.00", "0.80"]


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        ([], {"data_source": "movielens/g0"}, "is not of the task stars: its data_source is movielens"),
        (["--prompts", "0"], {}, "its data_source is empty"),
        (["--prompts", "1"], {}, "needs two or more prompts"),
        (["--model", "/no/such"], {}, "/no/such"),
        (["--model", "{code}"], {}, "custom"),
        (["--model", "{pickled}"], {}, "safetensors"),
        (["--data", "/no/such"], {}, "does not exist; `verl-pgrpo data movielens --task stars` writes such a file"),
    ],
)
def test_what_cannot_be_measured_is_an_error(run, strangers, options, columns, message):
    with pytest.raises(SystemExit, match=message):
        run(*(option.format(**strangers) for option in options), **columns)
    assert not strangers["ran"].exists()


def test_a_template_is_a_json_object(run, capsys):
    for wrong in ("5", "enable_thinking=false"):
        with pytest.raises(SystemExit):
            run("--template", wrong)
        assert "--template: invalid json_object value" in capsys.readouterr().err
