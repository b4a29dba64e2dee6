# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo eval` but for vLLM (`tests/e2e/test_evaluation.py`): the numbers, their comparison, and the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from verl_pgrpo.cli import main
from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.personas import make_split
from verl_pgrpo.evaluation.groups import Scores, compare, correct, describe
from verl_pgrpo.evaluation.samples import Sample, write_samples


def made(name: str, values: dict[str, list[float]], samples: int = 1) -> Scores:
    """Scores of these preference groups, a value per prompt."""
    rows = [
        Sample(f"{group}/{i}", group, "?", "!", s, name, x)
        for group, several in values.items()
        for i, x in enumerate(several)
        for s in range(samples)
    ]
    return Scores.of(name, rows)


# -------------------------------------------------------------------------------------------------- one model's numbers


def test_each_number_is_its_definition() -> None:
    rows = [
        *(Sample(f"p{i}", "low", "?", "!", s, "m", x) for i in range(9) for s, x in enumerate((1.0, 3.0))),
        *(Sample(f"q{i}", "high", "?", "!", 0, "m", x) for i, x in enumerate([4.0, 8.0, 6.0, 6.0, 6.0, 6.0])),
        Sample("p9", "low", "?", "!", 0, "m", 7.0),
    ]  # fmt: skip
    found = describe(Scores.of("m", rows))
    high, low = found["groups"]
    assert (high["group"], high["prompts"], high["responses"], high["mean"]) == ("high", 6, 6, 6.0)
    assert (low["group"], low["prompts"], low["responses"]) == ("low", 10, 19)
    assert low["mean"] == pytest.approx((9 * 2 + 7) / 10), "each prompt counts once, however many responses it has"
    assert low["std"] == pytest.approx(np.std([1.0, 3.0] * 9 + [7.0], ddof=1))
    assert found["worst_group"]["group"] == "low"
    assert found["worst_group"]["value"] == pytest.approx(2.5)
    assert found["mean_over_groups"]["value"] == pytest.approx(4.25)
    assert found["gap"]["value"] == pytest.approx(3.5)
    assert found["gini"]["value"] == pytest.approx(2 * 3.5 / (2 * 2 * 8.5))
    assert (found["prompts"], found["responses"]) == (16, 25)
    for line in [high, low, *(found[name] for name in ("mean_over_groups", "worst_group", "gap", "gini"))]:
        assert line["low"] <= line.get("mean", line.get("value")) <= line["high"]


def test_too_few_prompts_get_no_interval() -> None:
    rng = np.random.default_rng(0)
    found = describe(made("m", {"few": list(rng.random(4)), "same": [0.5] * 20, "many": list(rng.random(20))}))
    few, many, same = sorted(found["groups"], key=lambda line: line["group"])
    assert (few["low"], few["high"], same["low"]) == (None, None, None)
    assert many["low"] is not None
    assert found["gap"]["low"] is None, "what hangs on the group of four"


def test_equal_seeds_give_equal_numbers() -> None:
    scores = made("m", {"a": list(np.random.default_rng(0).random(20)), "b": list(np.random.default_rng(1).random(9))})
    assert describe(scores, seed=3) == describe(scores, seed=3)
    assert describe(scores, seed=3) != describe(scores, seed=4)


# --------------------------------------------------------------------------------------------------- two models, paired


def test_pairing_by_prompt_finds_what_unpaired_numbers_hide() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 30)
    one = made("one", {"moved": list(hard), "still": list(hard)})
    two = made(
        "two", {"moved": list(hard + 0.5 + rng.normal(0, 0.1, 30)), "still": list(hard + rng.normal(0, 0.1, 30))}
    )
    found = compare(one, two)
    correct([found])
    moved, still = found["groups"]
    assert 0.4 < moved["low"] < 0.5 < moved["high"] < 0.6
    assert (moved["significant"], still["significant"]) == (True, False)
    assert moved["p_holm"] == pytest.approx(2 * moved["p"])
    alone = describe(two)["groups"][0]
    assert alone["low"] < 0 < alone["high"], "the prompts' own differences are twenty times as large"


def test_the_correction_is_over_all_groups_of_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    models = [made(f"m{i}", {f"g{j}": list(rng.random(12)) for j in range(10)}) for i in range(4)]
    comparisons = [compare(models[0], other) for other in models[1:]]
    correct(comparisons)
    lines = [line for comparison in comparisons for line in comparison["groups"]]
    smallest = min(lines, key=lambda line: line["p"])
    assert smallest["p_holm"] == pytest.approx(min(1.0, 30 * smallest["p"]))


def test_many_groups_can_still_be_told_apart() -> None:
    """A random test's smallest p is bounded by its resamples; with a thousand groups it must survive the correction."""
    rng = np.random.default_rng(0)
    one = made("one", {f"g{j}": list(rng.random(15)) for j in range(300)})
    two = made("two", {g: [float(x[0]) + 5 for x in p.values()] for g, p in one.prompts.items()})
    found = compare(one, two, resamples=999)
    correct([found])
    assert all(line["significant"] for line in found["groups"])


def test_summaries_of_a_difference() -> None:
    rng = np.random.default_rng(0)
    values = {"rich": rng.normal(5, 0.1, 30), "poor": rng.normal(1, 0.1, 30)}
    one = made("one", {group: list(x) for group, x in values.items()})
    two = made("two", {"rich": list(values["rich"]), "poor": list(values["poor"] + 3)})
    found = compare(one, two)
    assert found["gap"]["difference"] == pytest.approx(-3)
    assert found["worst_group"]["difference"] == pytest.approx(3)
    assert found["gini"]["difference"] < found["gini"]["high"] < 0
    assert found["overall"]["difference"] == pytest.approx(1.5)


def test_only_common_prompts_are_compared_and_the_rest_counted() -> None:
    one, two = made("one", {"a": [1.0] * 8, "b": [1.0] * 8}), made("two", {"a": [2.0] * 6})
    found = compare(one, two)
    assert [(line["group"], line["prompts"], line["difference"]) for line in found["groups"]] == [("a", 6, 1.0)]
    assert found["unmatched"] == 10
    with pytest.raises(DataError, match="share no prompt_id: were they evaluated on the same data"):
        compare(made("one", {"a": [1.0]}), made("two", {"b": [1.0]}))
    other = Scores.of("two", [Sample("a/0", "a", "another", "!", 0, "two", 1.0)])
    with pytest.raises(DataError, match="prompt_id a/0 is another prompt in one than in two: other data"):
        compare(made("one", {"a": [1.0]}), other)
    other = Scores.of("two", [Sample("a/0", "b", "?", "!", 0, "two", 1.0)])
    with pytest.raises(DataError, match="prompt a/0 is of preference group 'a' in one and of 'b' in two"):
        compare(made("one", {"a": [1.0]}), other)


# ---------------------------------------------------------------------------------------------------------- the command


def write_scored(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, more in (("grpo", 0.0), ("pgrpo", 0.4)):
        samples = [
            Sample(f"val/{i}", group, "?", "!", s, name, x, {"score": x, "utility": x / 10})
            for i in range(60)
            for group in [("jazz", "rock", "rare")[i % 3] if i < 50 else "jazz"]
            for s in range(2)
            for x in [float(rng.normal(more * (group == "rare"), 0.1))]
        ]
        write_samples(folder / f"{name}.jsonl", samples)


def test_report_of_scored_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scored(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "--scored", "grpo.jsonl", "--scored", "new=pgrpo.jsonl", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    data = json.loads(captured.out)
    assert [model["name"] for model in data["models"]] == ["grpo", "new"]
    [found] = data["comparisons"]
    assert (found["baseline"], found["model"]) == ("grpo", "new")
    assert {line["group"]: line["significant"] for line in found["groups"]} == {
        "jazz": False,
        "rare": True,
        "rock": False,
    }
    assert main(["eval", "--scored", "grpo.jsonl", "--scored", "new=pgrpo.jsonl"]) == 0
    text = capsys.readouterr().out
    assert "grpo: 120 responses to 60 prompts of 3 preference groups; score" in text
    assert "new minus grpo, paired by prompt" in text
    for model in data["models"]:
        for line in model["groups"]:
            assert re.search(rf"^  {line['group']} .* {line['mean']:.3f} ", text, re.MULTILINE)
        assert f"{model['gap']['value']:.3f}" in text
    assert main(["eval", "--scored", "grpo.jsonl", "--value", "utility", "--json"]) == 0
    utility = json.loads(capsys.readouterr().out)
    assert utility["models"][0]["groups"][0]["mean"] == pytest.approx(data["models"][0]["groups"][0]["mean"] / 10)
    assert main(["eval", "--scored", "grpo.jsonl", "--value", "fun"]) == 2
    assert "no number 'fun' (--value); it has score, utility" in capsys.readouterr().err


def test_many_groups_are_cut_in_the_table_and_whole_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_samples(tmp_path / "m.jsonl", [Sample(f"{i}", f"g{i}", "?", "!", 0, "m", float(i)) for i in range(100)])
    assert main(["eval", "--scored", str(tmp_path / "m.jsonl")]) == 0
    text = capsys.readouterr().out
    assert "(60 better ones; --json has all)" in text
    assert " g0 " in text
    assert " g99 " not in text
    assert main(["eval", "--scored", str(tmp_path / "m.jsonl"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["models"][0]["groups"]) == 100


def test_bad_input_is_one_line_and_found_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_split("val", 7).to_parquet("val.parquet")
    pd.DataFrame({"x": [1]}).to_parquet("x.parquet")
    write_scored(tmp_path)
    (tmp_path / "m").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "m" / name).touch()
    write_samples(tmp_path / "unscored.jsonl", [Sample("1", "g", "?", "!")])
    for arguments, message in [
        (["--model", "m"], "--model needs --data"),
        (["--model", "none", "--data", "val.parquet"], "--model none: no such folder"),
        (["--model", "m", "--data", "x.parquet"], "no column 'prompt'"),
        (["--model", "m", "--data", "none.parquet"], "none.parquet: no such file"),
        (["--model", "m", "--data", "val.parquet", "--reward", "pkg://x.y"], "cannot be imported"),
        (["--model", "m", "--data", "val.parquet", "--samples", "0"], "--samples and --max-tokens must be at least 1"),
        (["--model", "m", "--data", "val.parquet", "--engine", "x"], "--engine takes NAME=VALUE"),
        (["--model", "m", "--data", "val.parquet", "--out", "val.parquet"], "is a file; name a folder"),
        (["--scored", "none.jsonl"], "none.jsonl: no such file"),
        (["--scored", "unscored.jsonl"], "has no number 'score' (--value); it has none: it was not scored"),
        (["--scored", "grpo.jsonl", "--resamples", "10"], "--resamples must be at least 999"),
        (["--scored", "grpo.jsonl", "--seed", "-1"], "--seed must be at least 0"),
    ]:
        assert main(["eval", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        [line] = captured.err.splitlines()
        assert line.startswith("verl-pgrpo: error: ")
        assert message in line
        assert captured.out == ""


def test_what_is_not_installed_is_named() -> None:
    from verl_pgrpo.evaluation.errors import NotInstalledError, require

    require("numpy")
    with pytest.raises(NotInstalledError, match=r'no_such_library is not installed: pip install "verl-pgrpo\[eval\]"'):
        require("numpy", "no_such_library")


def test_the_page_has_the_examples_of_the_help() -> None:
    from verl_pgrpo.commands import evaluate, judge

    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8").replace(" \\\n        ", " ")
    assert f"    {evaluate.EXAMPLE}\n    {judge.EXAMPLE}\n" in page


def test_help_needs_none_of_the_libraries() -> None:
    code = (
        "import sys; from verl_pgrpo.cli import parser; parser();"
        "print({'numpy', 'scipy', 'openai', 'pyarrow', 'vllm'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == "set()"
