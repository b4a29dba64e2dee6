# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo eval` without vLLM (see `tests/e2e/test_evaluation.py`): the numbers, their comparison, the command."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from verl_pgrpo.cli import main
from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.comparison import Scores, compare, describe
from verl_pgrpo.evaluation.samples import Sample, write_samples
from verl_pgrpo.evaluation.statistics import correct


def sample(prompt, group, score, number=0, text="?", **more):
    row = {"prompt_id": prompt, "preference_group": group, "prompt": text, "response": "!", "sample": number}
    return Sample(**row, score=score, **more)


def scores(name, values):
    """Scores of these preference groups, one value per prompt."""
    rows = [sample(f"{group}/{i}", group, x) for group, several in values.items() for i, x in enumerate(several)]
    return Scores.from_samples(name, rows)


def test_each_number_is_its_definition():
    rows = [sample(f"p{i}", "low", x, s) for i in range(9) for s, x in enumerate((1.0, 3.0))]
    rows += [sample(f"q{i}", "high", x) for i, x in enumerate([4.0, 8.0, 6.0, 6.0, 6.0, 6.0])]
    rows += [sample("p9", "low", 7.0), sample("p9", "low", None, 1)]
    found = describe(Scores.from_samples("m", rows))
    high, low = found["groups"]
    assert (high["group"], high["prompts"], high["responses"], high["mean"]) == ("high", 6, 6, 6.0)
    assert (low["group"], low["prompts"], low["responses"]) == ("low", 10, 19)
    assert low["mean"] == pytest.approx((9 * 2 + 7) / 10), "each prompt counts once, however many responses it has"
    assert low["std"] == pytest.approx(np.std([1.0, 3.0] * 9 + [7.0], ddof=1))
    assert (found["prompts"], found["responses"], found["unscored"]) == (16, 25, 1)
    assert found["worst_group"]["group"] == "low"
    expected = {"worst_group": 2.5, "mean_over_groups": 4.25, "gap": 3.5, "gini": 2 * 3.5 / (2 * 2 * 8.5)}
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(value)
        assert found[name]["low"] <= value <= found[name]["high"]


def test_too_few_or_equal_prompts_get_no_interval():
    values = np.random.default_rng(0).random(20).tolist()
    found = describe(scores("m", {"few": values[:4], "many": values, "same": [0.5] * 20}))
    assert [bool(np.isnan(line["low"])) for line in found["groups"]] == [True, False, True]
    assert np.isnan(found["gap"]["low"]), "it depends on the group of four"


def test_pairing_by_prompt_finds_what_unpaired_numbers_hide():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 30)
    one = scores("one", {"moved": hard, "still": hard})
    two = scores("two", {name: hard + more + rng.normal(0, 0.1, 30) for name, more in (("moved", 0.5), ("still", 0))})
    found = compare(one, two)
    correct(found["groups"] + compare(one, two)["groups"])
    moved, still = found["groups"]
    assert 0.4 < moved["low"] < 0.5 < moved["high"] < 0.6
    assert (moved["significant"], still["significant"]) == (True, False)
    assert moved["p_holm"] == pytest.approx(4 * moved["p"]), "over all groups of all comparisons"
    assert found["overall"]["difference"] == pytest.approx(0.25, abs=0.05)
    worst = found["worst_group"]
    assert worst["high"] - 1 < worst["low"] <= worst["difference"] <= worst["high"], "both models share the resamples"
    alone = describe(two)["groups"][0]
    assert alone["low"] < 0 < alone["high"], "the prompts' own differences are twenty times as large"


def test_only_common_prompts_are_compared_and_the_rest_counted():
    one = scores("one", {"a": [1.0] * 8, "b": [1.0] * 8})
    found = compare(one, scores("two", {"a": [2.0] * 6}))
    assert [(line["group"], line["prompts"], line["difference"]) for line in found["groups"]] == [("a", 6, 1.0)]
    assert found["unmatched"] == 10
    for other, message in (
        (sample("c/0", "b", 1.0), "share no prompt_id"),
        (sample("a/0", "a", 1.0, text="another"), "'a/0' has a different prompt in one and two"),
        (sample("a/0", "b", 1.0), "'a/0' has a different preference_group in one and two"),
    ):
        with pytest.raises(DataError, match=message):
            compare(one, Scores.from_samples("two", [other]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with the scored responses of two models. The second serves one group better."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, more in (("grpo", 0.0), ("pgrpo", 0.4)):
        rows = [("jazz", "rock", "rare")[i % 3] for i in range(60)]
        drawn = [(i, group, float(rng.normal(more * (group == "rare"), 0.1))) for i, group in enumerate(rows)]
        samples = [sample(f"val/{i}", group, x, values={"score": x, "utility": x / 10}) for i, group, x in drawn]
        write_samples(tmp_path / f"{name}.jsonl", samples)
    return tmp_path


def test_report_of_scored_files(folder, capsys):
    def call(*arguments):
        assert main(["eval", *arguments]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return json.loads(captured.out) if "--json" in arguments else captured.out

    both = ["--scored", "grpo.jsonl", "--scored", "new=pgrpo.jsonl"]
    data = call(*both, "--json")
    assert [model["name"] for model in data["models"]] == ["grpo", "new"]
    [found] = data["comparisons"]
    assert (found["baseline"], found["model"]) == ("grpo", "new")
    significant = {line["group"]: line["significant"] for line in found["groups"]}
    assert significant == {"jazz": False, "rare": True, "rock": False}
    utility = call("--scored", "grpo.jsonl", "--value", "utility", "--json")["models"][0]["groups"][0]["mean"]
    assert utility == pytest.approx(data["models"][0]["groups"][0]["mean"] / 10)
    write_samples(folder / "many.jsonl", [sample(f"{i}", f"g{i}", float(i)) for i in range(100)])
    text = call("--scored", "many.jsonl")
    assert (" g0 " in text, " g99 " in text) == (True, False), "the table has the worst only"
    assert len(call("--scored", "many.jsonl", "--json")["models"][0]["groups"]) == 100


UNUSED = [["--no-thinking"], ["--limit", "-3"], ["--samples", "0"], ["--temperature", "-1"], ["--top-p", "0.5"]]
UNUSED += [["--data", "none"], ["--out", "dir"], ["--reward", "none"], ["--reward-option", "x=1"], ["--engine", "x=1"]]
UNUSED += [["--group-key", "x"], ["--max-tokens", "9"]]


def test_bad_input_is_found_before_a_model_is_loaded(folder, capsys):
    row = {"data_source": "personas/g", "prompt": [{"role": "user", "content": "?"}], "preference_group": "g"}
    pd.DataFrame([row]).to_parquet("val.parquet")
    write_samples(folder / "unscored.jsonl", [sample("1", "g", None)])
    (folder / "m").mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / "m" / name).touch()
    model = ["--model", "m", "--data", "val.parquet"]
    for arguments, message in (
        ([], "--model"),
        (["--model", "m"], "--data"),
        ([*model, "--reward", "pkg://x.y"], "pkg://x.y"),
        ([*model, "--engine", "x"], "--engine"),
        ([*model, "--out", "val.parquet"], "--out"),
        (["--scored", "unscored.jsonl"], "no numbers"),
        (["--scored", "grpo.jsonl", "--value", "fun"], "they have score, utility"),
        (["--scored", "grpo.jsonl", "--resamples", "10"], "--resamples"),
        *((["--scored", "grpo.jsonl", *unused], unused[0]) for unused in UNUSED),
    ):
        assert main(["eval", *arguments]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert message in line
