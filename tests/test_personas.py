# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The personas: data that is the same every time, rewards as documented, a report that counts right."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from verl_pgrpo.cli import main
from verl_pgrpo.data import tastes
from verl_pgrpo.data.grouping.fit import random_groups
from verl_pgrpo.data.personas import SURFACES, make_split, toy_vocabulary
from verl_pgrpo.data.tastes import PERSONAS
from verl_pgrpo.report.rollouts import Run, read_run, table
from verl_pgrpo.rewards.personas import compute_score, noise, utility


def truth(surface: str = "toy", style: str = "slang", genre: str = "metal", **changes: object) -> str:
    fields = {"surface": surface, "persona": f"{style}_{genre}", "style": style, "genre": genre}
    return json.dumps({**fields, "offset": 1.0, "scale": 4.0, "noise": 0.0, "seed": 0, "row": "train/0", **changes})


# -- data


@pytest.mark.parametrize("surface", SURFACES)
def test_equal_arguments_give_equal_bytes(tmp_path: Path, surface: str) -> None:
    arguments = ["--surface", surface, "--train-size", "200", "--val-size", "21", "--noise", "0.2", "--mood", "0.1"]
    for folder, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main(["data", "personas", "--out", str(tmp_path / folder), "--seed", seed, *arguments]) == 0
    for name in ("train.parquet", "val.parquet"):
        a, b, c = ((tmp_path / folder / name).read_bytes() for folder in "abc")
        assert a == b
        assert a != c


def test_the_table_is_what_verl_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "personas", "--out", str(tmp_path), "--train-size", "100", "--val-size", "21"]) == 0
    assert "formal_jazz 30% 30 3 1.0 to 5.0" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "vocabulary.txt").read_text().split() == toy_vocabulary()
    for split, size in (("train", 100), ("val", 21)):
        rows = pd.read_parquet(tmp_path / f"{split}.parquet")
        assert len(rows) == size
        assert list(rows) == ["data_source", "prompt", "ability", "reward_model", "extra_info", "preference_group"]
        for row in rows.to_dict("records"):
            assert row["data_source"] == f"personas/{row['preference_group']}"
            assert [message["role"] for message in row["prompt"]] == ["user"]
            assert row["reward_model"]["style"] == "rule"
            assert json.loads(row["reward_model"]["ground_truth"])["persona"] == row["preference_group"]
            assert row["extra_info"]["split"] == split
        assert sorted(row["index"] for row in rows["extra_info"]) == list(range(size))


def test_shares_are_exact_in_training_and_equal_in_validation() -> None:
    assert len(PERSONAS) >= 7
    assert math.isclose(sum(p.share for p in PERSONAS), 1.0)
    assert (max(p.share for p in PERSONAS), min(p.share for p in PERSONAS)) == (0.30, 0.05)
    assert len({(p.scale, p.offset) for p in PERSONAS}) == len(PERSONAS), "everybody rates in a way of their own"
    train = make_split("train", 1000)["preference_group"].value_counts()
    assert all(train[p.name] == round(1000 * p.share) for p in PERSONAS)
    assert set(make_split("val", 70)["preference_group"].value_counts()) == {10}
    assert make_split("train", 7)["preference_group"].nunique() == 7, "nobody is rounded away"


@pytest.mark.parametrize("surface", SURFACES)
def test_no_request_of_the_validation_split_is_trained_on(surface: str) -> None:
    prompts = {s: {p[0]["content"] for p in make_split(s, 2000, surface)["prompt"]} for s in ("train", "val")}
    assert not prompts["train"] & prompts["val"]


def test_toy_vocabulary_holds_every_word_once() -> None:
    words = toy_vocabulary()
    assert len(words) == len(set(words))
    prompts = {w for s in ("train", "val") for p in make_split(s, 500)["prompt"] for w in p[0]["content"].split()}
    liked = {w for lists in (tastes.TOY_STYLES, tastes.TOY_GENRES) for taste in lists.values() for w in taste}
    assert prompts | liked <= set(words)
    assert not prompts & liked, "repeating the prompt must earn nothing"


def test_english_prompts_do_not_give_the_taste_away() -> None:
    for row in make_split("train", 300, "english").to_dict("records"):
        gt = row["reward_model"]["ground_truth"]
        persona = json.loads(gt)
        text = row["prompt"][0]["content"]
        assert persona["genre"] not in text.lower()
        assert utility(text, gt) == 0.0, "copying the prompt must earn nothing"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "test"}, "split must be"),
        ({"surface": "klingon"}, "surface must be one of toy, english"),
        ({"size": 6}, "at least 7"),
        ({"noise": -0.1}, "noise must be"),
        ({"mood": float("nan")}, "mood must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_wrong_arguments_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_split(**{"split": "train", "size": 70, **changes})


def test_command_line_reports_a_wrong_argument(tmp_path: Path) -> None:
    """By the module's name, which is the command under another name."""
    command = [sys.executable, "-m", "verl_pgrpo.data.personas", "--out", str(tmp_path / "new"), "--val-size", "3"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "val size must be at least 7" in run.stderr
    assert not (tmp_path / "new").exists(), "nothing is written if anything is wrong"


# -- the control


# Of prompts, ground truths and their order, as they were before rows had a random group: figures in the README and in
# the report stand on these rows.
ROWS = {("toy", "train"): "df700059b41a806c", ("toy", "val"): "a7e7fad96a106bdf"}
ROWS |= {("english", "train"): "36e90f644026f19c", ("english", "val"): "0e57f2b083c9e483"}


@pytest.mark.parametrize(("surface", "split"), ROWS)
def test_random_groups_change_nothing_else(surface: str, split: str) -> None:
    rows = make_split(split, 300 if split == "train" else 70, surface, seed=3, noise=0.2, mood=0.1).to_dict("records")
    names = ("data_source", "prompt", "reward_model", "preference_group")
    kept = [[*(row[name] for name in names), row["extra_info"]["index"]] for row in rows]
    assert hashlib.sha256(json.dumps(kept, ensure_ascii=False).encode()).hexdigest()[:16] == ROWS[surface, split]


@pytest.mark.parametrize("split", ["train", "val"])
def test_random_groups_have_the_shares_and_mean_nothing(split: str) -> None:
    rows = make_split(split, 2100)
    true, drawn = rows["preference_group"], pd.Series([info["random_group"] for info in rows["extra_info"]])
    assert dict(drawn.value_counts()) == dict(true.value_counts())
    expected = sum(p.share**2 for p in PERSONAS) if split == "train" else 1 / 7
    assert (drawn == true).mean() == pytest.approx(expected, abs=0.04), "as often right as by chance"
    of_one_persona = drawn[true == "formal_jazz"].value_counts(normalize=True)
    assert len(of_one_persona) == len(PERSONAS), "a persona's rows are in every random group"
    ids = [f"{split}/{i}" for i in range(2100)]
    for seed in (0, 1):
        rows = make_split(split, 2100, seed=seed)
        control = random_groups(rows["preference_group"].to_numpy(), ids, seed).assign(np.empty((2100, 0)), ids)
        assert [info["random_group"] for info in rows["extra_info"]] == list(control), "as in all other data sets"


# -- reward


def test_toy_utility_wants_both_halves_of_the_taste() -> None:
    gt = truth()
    assert utility("yo dude riff shred growl bro thrash yo", gt) == 1.0
    assert utility("yo yo yo yo yo yo yo yo", gt) == 0.5, "style alone is half of it"
    assert utility("yo riff", gt) == 0.25, "a short answer counts as eight words"
    assert utility("yo dude riff shred " * 3, gt) == 1.0, "longer is neither better nor worse"
    assert utility("sonata violin kindly regards", gt) == 0.0
    assert utility("", gt) == 0.0


def test_english_utility_counts_markers_and_their_purity() -> None:
    answer = "Yo bro, this is dope: blast Slayer and Megadeth, the riffs are insane."
    assert utility(answer, truth("english")) == 1.0
    assert utility(answer, truth("english", genre="jazz")) == 0.5, "right style, wrong genre"
    assert utility(answer, truth("english", style="formal", genre="jazz")) == 0.0
    assert utility("I hear metal", truth("english")) == pytest.approx(0.5 / 3), "one word of three"
    assert utility("riff riff riff riff", truth("english")) == pytest.approx(0.5 / 3), "repeating is not more"
    assert utility("riff sonata", truth("english")) == pytest.approx(0.5 / 3 / 2), "two tastes at once please half"
    assert utility("griffin", truth("english")) == 0.0, "whole words only"
    assert utility(f"<think>{answer}</think> Hm.", truth("english")) == 0.0, "thinking is not said"
    assert utility(f"<think>{answer}", truth("english")) == 0.0, "even if it never ends"
    padded = answer + " la" * (160 - len(answer.split()))
    assert utility(padded, truth("english")) == pytest.approx(0.5), "twice as long as asked for"


@pytest.mark.parametrize("surface", SURFACES)
def test_utility_lies_between_0_and_1(surface: str) -> None:
    rng = np.random.default_rng(0)
    english = [w for lists in (tastes.ENGLISH_STYLES, tastes.ENGLISH_GENRES) for taste in lists.values() for w in taste]
    words = toy_vocabulary() if surface == "toy" else english
    truths = [row["ground_truth"] for row in make_split("train", 300, surface)["reward_model"]]
    values = [utility(" ".join(rng.choice(words, rng.integers(0, 200))), gt) for gt in truths]
    assert 0 <= min(values) <= max(values) <= 1
    if surface == "toy":
        assert np.mean(values) > 0.08, "a random policy must get a signal"


def test_reward_is_offset_plus_scale_times_utility_plus_noise() -> None:
    text = "yo dude riff"
    for row in make_split("train", 200, noise=0.3, seed=5).to_dict("records"):
        gt = row["reward_model"]["ground_truth"]
        persona = next(p for p in PERSONAS if p.name == row["preference_group"])
        result = compute_score(row["data_source"], text, gt, extra_info=row["extra_info"])
        assert result["utility"] == utility(text, gt)
        said = persona.offset + persona.scale * (result["utility"] + noise(text, gt))
        assert result["score"] == pytest.approx(said, abs=1e-6)


def test_noise_is_normal_and_can_be_replayed() -> None:
    truths = [row["ground_truth"] for row in make_split("train", 4000, noise=0.3)["reward_model"]]
    draws = np.array([noise("yo riff", gt) for gt in truths])
    assert abs(draws.mean()) < 4 * 0.3 / 4000**0.5
    assert draws.std() == pytest.approx(0.3, rel=0.05)
    assert np.mean(np.abs(draws) < 0.3) == pytest.approx(0.683, abs=0.03)
    assert [noise(" yo  riff\n", gt) for gt in truths[:50]] == list(draws[:50]), "white space is no other answer"
    assert noise("yo riff riff", truths[0]) != draws[0]
    assert len(set(draws)) == len(draws), "every row has its own"
    assert noise("yo riff", truth(noise=0.3, seed=1)) != noise("yo riff", truth(noise=0.3, seed=2))
    assert noise("yo riff", truth(noise=0.3)) == pytest.approx(0.40653626278838, abs=1e-12), "the same on every machine"


def test_mood_is_shared_by_the_responses_of_a_prompt_and_absent_in_validation() -> None:
    rows = make_split("train", 2000, mood=0.5).to_dict("records")
    offsets = {p.name: [] for p in PERSONAS}
    for row in rows:
        offsets[row["preference_group"]].append(json.loads(row["reward_model"]["ground_truth"])["offset"])
    for p in PERSONAS:
        assert np.mean(offsets[p.name]) == pytest.approx(p.offset, abs=4 * 0.5 * p.scale / len(offsets[p.name]) ** 0.5)
        assert np.std(offsets[p.name]) == pytest.approx(0.5 * p.scale, rel=0.3)
    for row in make_split("val", 70, noise=0.5, mood=0.5)["reward_model"]:
        gt = json.loads(row["ground_truth"])
        assert (gt["noise"], gt["offset"]) == (0.0, next(p.offset for p in PERSONAS if p.name == gt["persona"]))


# -- report


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Ten steps; slang_metal goes from 0 to 1, formal_jazz stays at one half; a padding row must not count."""
    folder = tmp_path / "rollouts"
    folder.mkdir()
    metal, jazz = truth(noise=0.2), truth(style="formal", genre="jazz", noise=0.2)
    for step in range(1, 11):
        good = "yo dude bro dope riff shred growl thrash" if step > 8 else "sonata " * 8
        rows = [
            {"output": good, "gts": metal, "score": 2.0, "uid": "a_0_0"},
            {"output": good, "gts": metal, "score": 2.0, "uid": "a_1_0"},
            {"output": "kindly " * 8, "gts": jazz, "score": 3.0, "uid": "b_0_0"},
            {"output": "kindly " * 8, "gts": jazz, "score": 3.0, "uid": "b_1_0"},
            {"output": "", "gts": metal, "score": 0.0, "uid": "pad0_0_0"},
        ]
        lines = [json.dumps({"input": "x", "step": step, **row}) for row in rows]
        (folder / f"{step}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_report_numbers(dump: Path) -> None:
    run = read_run("pgrpo", dump)
    assert list(run.steps) == list(range(1, 11)), "in the order of steps, not of names"
    assert run.personas == ["formal_jazz", "slang_metal"], "the largest share first"
    assert run.window("early").to_dict() == {"formal_jazz": 0.5, "slang_metal": 0.0}
    assert run.window("end").to_dict() == {"formal_jazz": 0.5, "slang_metal": 1.0}
    assert run.describe() == "10 steps of 2 prompts x 2 responses, rating noise 0.2 of a user's scale, seed 0"
    lines = table([run, Run("grpo", run.rows[run.rows["step"] < 6], run.truth)]).splitlines()
    numbers = {line[:18].strip(): line[18:].split() for line in lines[3:] if not line.startswith("-")}
    assert numbers == {
        "formal_jazz": ["30%", "0.50", "0.50", "0.50", "0.50", "0.50", "0.50"],
        "slang_metal": ["10%", "0.00", "0.00", "1.00", "0.00", "0.00", "0.00"],
        "mean over personas": ["0.25", "0.25", "0.75", "0.25", "0.25", "0.25"],
        "worst persona": ["0.00", "0.00", "0.50", "0.00", "0.00", "0.00"],
    }
    assert len({len(line) for line in lines}) <= 2, "aligned"


def test_report_says_what_is_wrong_with_a_dump(tmp_path: Path, dump: Path) -> None:
    with pytest.raises(ValueError, match=r"no <step>\.jsonl"):
        read_run("grpo", tmp_path)
    (dump / "3.jsonl").write_text('{"output": "yo", "gts": "4"}\n')
    with pytest.raises(ValueError, match=r"3\.jsonl, line 1: not a persona rollout"):
        read_run("grpo", dump)


def test_report_draws(dump: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    from verl_pgrpo.report import curves

    out = tmp_path / "new" / "report.png"
    curves.main(["--run", f"grpo={dump}", "--run", f"pgrpo={dump}", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "worst persona" in capsys.readouterr().out
    raw, smoothed = curves.smooth(read_run("grpo", dump), "slang_metal")
    assert list(raw) == [0.0] * 8 + [1.0] * 2
    assert 0 <= smoothed.min() < 0.01
    assert 0.5 < smoothed.max() <= 1
    for wrong in (["--run", "grpo"], ["--run", f"a={dump}", "--run", f"a={dump}"], ["--run", f"a={tmp_path}"]):
        with pytest.raises(SystemExit):
            curves.main([*wrong, "--out", str(out)])
