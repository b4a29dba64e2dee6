# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Persona data: reproducible bytes, exact shares, prompts that do not reveal the taste, a fair control."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.data.rows import read_rows
from verl_pgrpo.cli import main
from verl_pgrpo.data import tastes
from verl_pgrpo.data.personas import make_split, toy_vocabulary
from verl_pgrpo.data.tastes import PERSONAS
from verl_pgrpo.errors import DataError
from verl_pgrpo.rewards.personas import utility


@pytest.mark.parametrize("form", [["toy"], ["english"], ["english", "--short"]], ids=str)
def test_the_command_writes_what_verl_reads_and_the_seed_decides_every_byte(tmp_path: Path, capsys, form: list) -> None:
    sizes = ["--train-size", "200", "--val-size", "21"]
    for folder, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        out = ["--out", str(tmp_path / folder), "--seed", seed]
        assert main(["data", "personas", *out, "--surface", *form, *sizes]) == 0
    assert "formal_jazz 30% 60 3 1.0 to 5.0" in " ".join(capsys.readouterr().out.split())
    assert form != ["toy"] or (tmp_path / "a" / "vocabulary.txt").read_text().split() == toy_vocabulary()
    for split in ("train", "val"):
        a, b, c = ((tmp_path / folder / f"{split}.parquet").read_bytes() for folder in "abc")
        assert a == b != c
    rows = read_rows(tmp_path / "a")
    assert rows["split"].value_counts().to_dict() == {"train": 200, "val": 21}
    assert rows.groupby("text")["split"].nunique().max() == 1, "no request of the validation split is trained on"


def test_shares_are_exact_in_training_and_equal_in_validation() -> None:
    train = make_split("train", 1000)["preference_group"].value_counts()
    assert train.to_dict() == {p.name: round(1000 * p.share) for p in PERSONAS}
    assert set(make_split("val", 70)["preference_group"].value_counts()) == {10}
    assert set(make_split("train", 7)["preference_group"].value_counts()) == {1}, "no persona is rounded away"


@pytest.mark.parametrize(("split", "by_chance"), [("train", sum(p.share**2 for p in PERSONAS)), ("val", 1 / 7)])
def test_random_groups_have_the_shares_and_mean_nothing(split: str, by_chance: float) -> None:
    rows = make_split(split, 2100)
    true, drawn = rows["preference_group"], pd.Series([info["random_group"] for info in rows["extra_info"]])
    assert sorted(drawn) == sorted(true)
    assert np.mean(drawn == true) == pytest.approx(by_chance, abs=0.04)


def test_toy_vocabulary_holds_every_word_once_and_repeating_a_prompt_earns_nothing() -> None:
    words = toy_vocabulary()
    assert len(words) == len(set(words))
    prompts = {w for s in ("train", "val") for p in make_split(s, 500)["prompt"] for w in p[0]["content"].split()}
    liked = {w for lists in (tastes.TOY_STYLES, tastes.TOY_GENRES) for taste in lists.values() for w in taste}
    assert prompts | liked <= set(words)
    assert not prompts & liked


@pytest.mark.parametrize("short", [False, True])
def test_copying_an_english_prompt_earns_nothing_or_the_one_genre_word_of_a_short_one(short: bool) -> None:
    for row in make_split("train", 300, "english", short=short).to_dict("records"):
        text, truth = row["prompt"][-1]["content"], row["reward_model"]["ground_truth"]
        assert short or json.loads(truth)["genre"] not in text.lower()
        assert utility(text, truth) == pytest.approx(1 / 6 if short else 0)
        assert ("\n" not in text and len(text.split()) < 40) == short


@pytest.mark.parametrize(
    "changes",
    [{"split": "test"}, {"surface": "klingon"}, {"size": 6}, {"noise": -0.1}, {"mood": float("nan")}, {"seed": -1},
     {"short": True}],
)  # fmt: skip
def test_a_wrong_argument_is_an_error(changes: dict) -> None:
    with pytest.raises(DataError, match=next(iter(changes))):
        make_split(**{"split": "train", "size": 70, **changes})


# Prompts, ground truths and their order: published figures were measured on these rows.
ROWS = {("toy", "train"): "df700059b41a806c", ("toy", "val"): "a7e7fad96a106bdf"}
ROWS |= {("english", "train"): "36e90f644026f19c", ("english", "val"): "0e57f2b083c9e483"}
ROWS |= {("short", "train"): "cfcd96aff08609f1", ("short", "val"): "a3f67e3adf5af2c7"}


@pytest.mark.parametrize(("form", "split"), ROWS)
def test_the_rows_of_published_figures_do_not_change(form: str, split: str) -> None:
    surface, short = ("english", True) if form == "short" else (form, False)
    size = 300 if split == "train" else 70
    rows = make_split(split, size, surface, seed=3, noise=0.2, mood=0.1, short=short).to_dict("records")
    names = ("data_source", "prompt", "reward_model", "preference_group")
    kept = [[*(row[name] for name in names), row["extra_info"]["index"]] for row in rows]
    assert hashlib.sha256(json.dumps(kept, ensure_ascii=False).encode()).hexdigest()[:16] == ROWS[form, split]
