# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the studies through verl publish, and what they say that models learned."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))  # as when it runs as a script
    return importlib.import_module("through_verl")


def test_words_of_the_last_fifth_are_counted_for_the_most_frequent_style_and_the_others(study, tmp_path):
    formal, slang = {"style": "formal", "genre": "jazz"}, {"style": "slang", "genre": "hiphop"}
    early = [(formal, "yo, rap"), (slang, "yo, rap")]
    last = [(formal, "Kindly try jazz."), (formal, "Try bebop."), (slang, "Indeed, dude: rap!"), (slang, "Kindly.")]
    last += [(formal, "Rap.")]
    for step in range(1, 11):
        path = tmp_path / "run" / "rollouts" / f"{step}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = last if step > 8 else early
        path.write_text("".join(json.dumps({"gts": json.dumps(t), "output": o, "step": step}) + "\n" for t, o in rows))
    shares = study.taste_words([tmp_path / "run"])
    assert shares.round(2).loc["formal"].to_dict() == {
        "own genre": 0.67,
        "own style": 0.33,
        "any formal": 0.33,
        "responses": 0.6,
    }
    assert shares.loc["others"].to_dict() == {"own genre": 0.5, "own style": 0.5, "any formal": 1.0, "responses": 0.4}


def test_answers_are_counted_in_each_fifth_of_the_steps(study, tmp_path):
    truth = json.dumps({"stars": {"A": 3.0, "B": 4.0}})
    (tmp_path / "rollouts").mkdir()
    for step in range(1, 11):
        rows = [{"gts": truth, "output": text, "step": step} for text in (["A", "b"] if step < 9 else ["A. Heat", "C"])]
        (tmp_path / "rollouts" / f"{step}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shares = study.answers([tmp_path])
    assert shares.loc[1].to_dict() == {"A": 0.5, "B": 0.5, "none": 0.0}
    assert shares.loc[5].to_dict() == {"A": 0.5, "B": 0.0, "none": 0.5}


def call(study, monkeypatch, results: Path, options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["through_verl.py", *options.split(), "--results", str(results)])
    study.main()


PUBLISHED = [
    "--study personas-smollm2 --first-seed 10 --seeds 5 --arms grpo pgrpo random shrinkage shrinkage-equal",
    "--seeds 10 --arms grpo pgrpo random shrinkage",
    "--seeds 10 --arms grpo grpo-equal shrinkage shrinkage-equal",
    "--study movielens-smollm2 --seeds 2 --arms grpo pgrpo",
]


@pytest.mark.parametrize("options", PUBLISHED)
def test_the_published_tables_are_those_of_the_committed_figures(study, monkeypatch, capsys, options):
    call(study, monkeypatch, ROOT / "benchmarks" / "results", f"{options} --no-train")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert len(rows) == len(options.partition("--arms ")[2].split())
    assert not [row for row in rows if row not in page]


def test_a_study_trains_only_what_the_results_lack_and_adds_it(study, monkeypatch, capsys, tmp_path):
    results, trained = tmp_path / "personas-tiny.csv", []
    results.write_text("arm,seed,mean,worst,area\ngrpo,0,0.4,0.1,0.3\ngrpo,1,0.3,0.0,0.2\npgrpo,0,0.5,0.2,0.3\n")
    monkeypatch.setattr(study, "run", lambda _, arm, seed, *__: trained.append((arm, seed)))
    monkeypatch.setattr(study, "measures", lambda *_: (0.6, 0.2, 0.4))
    call(study, monkeypatch, tmp_path, "--seeds 2 --arms grpo pgrpo")
    assert trained == [("pgrpo", 1)]
    assert results.read_text().splitlines()[-1] == "pgrpo,1,0.6,0.2,0.4"
    # The mean differs by 0.1 and 0.3: their standard error is 0.1, and Student's t with one degree of freedom 12.706.
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| `pgrpo` | 0.55 ± 0.64 | 0.20 ± 0.00 | 0.35 ± 0.64 | +0.20 ± 1.27 (better in 2) | ")
    call(study, monkeypatch, tmp_path, "--seeds 2 --arms grpo pgrpo")
    assert trained == [("pgrpo", 1)]


def test_float32_is_an_arm_of_the_pretrained_model_only(study, monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit):
        call(study, monkeypatch, tmp_path, "--arms float32")
    assert "personas-tiny computes in float32 with every arm" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(study, monkeypatch, tmp_path, "--no-train --seeds 1")
    assert "shrinkage-equal 0\n" in capsys.readouterr().err  # the last one


def test_a_picture_needs_rollouts(study, monkeypatch, capsys, tmp_path):
    results = tmp_path / "personas-tiny.csv"
    results.write_text("arm,seed,mean,worst,area\ngrpo,0,0.4,0.1,0.3\n")
    with pytest.raises(SystemExit):
        call(study, monkeypatch, tmp_path, f"--seeds 1 --arms grpo --picture {tmp_path / 'picture.png'}")
    assert "has only figures of [('grpo', 0)]; leave it out" in capsys.readouterr().err


def test_figures_are_printed_without_training_or_not_at_all(study, monkeypatch, capsys, tmp_path):
    results = tmp_path / "personas-tiny.csv"
    results.write_text("arm,seed,mean,worst,area\ngrpo,0,0.4,0.1,0.3\npgrpo,0,0.5,0.2,0.3\n")
    call(
        study, monkeypatch, tmp_path, "--seeds 1 --arms pgrpo --no-train"
    )  # differs from grpo, whose figures are known
    assert capsys.readouterr().out.splitlines()[-1] == "| `pgrpo` | 0.50 | 0.20 | 0.30 | +0.10 | +0.10 | +0.00 |"
    with pytest.raises(SystemExit):
        call(study, monkeypatch, tmp_path, "--seeds 2 --arms pgrpo --no-train")
    assert "lacks the runs (arm and seed) pgrpo 1" in capsys.readouterr().err


@pytest.mark.parametrize("rows", ["grpo,0,0.4,,0.3", "grpo,0,1,1,1\ngrpo,0,2,2,2", "grpo,0,a,b,c", None])
def test_a_damaged_table_is_an_error(study, tmp_path, rows):
    table = tmp_path / "personas-tiny.csv"
    table.write_text("" if rows is None else f"arm,seed,mean,worst,area\n{rows}\n")
    with pytest.raises(SystemExit, match=r"personas-tiny\.csv"):
        study.Results(table)


def test_new_figures_are_rounded(study, tmp_path):
    study.Results(tmp_path / "new.csv").add("grpo", 0, (1 / 3, 1 / 7, 1 / 9))
    assert (tmp_path / "new.csv").read_text().splitlines()[1] == "grpo,0,0.3333,0.1429,0.1111"
