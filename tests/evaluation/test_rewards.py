# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The reward functions by rules, as their docstrings describe them."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from verl_pgrpo.rewards import goodreads, movielens, personas
from verl_pgrpo.rewards.reasoning import strip_reasoning


def truth(surface="toy", style="slang", genre="metal", **changes):
    fields = {"surface": surface, "persona": f"{style}_{genre}", "style": style, "genre": genre}
    return json.dumps({**fields, "offset": 1.0, "scale": 4.0, "noise": 0.0, "seed": 0, "row": "train/0", **changes})


CANDIDATES = {
    "Matrix, The (1999)": ["Action", "Sci-Fi"], "Alien (1979)": ["Horror", "Sci-Fi"],
    "Aliens (1986)": ["Action", "Sci-Fi"], "Misérables, Les (1995)": ["Drama"], "Hamlet (1990)": ["Drama"],
    "Hamlet (1996)": ["Drama"],
}  # fmt: skip
FILMS = json.dumps({"answer": "Matrix, The (1999)", "candidates": CANDIDATES})
REFERENCE = "I loved this wonderful book about the sea. The people are charming and the end is quiet."
REVIEW = json.dumps({"reference": REFERENCE, "rating": 5, "max_words": 40, "title": "T"})
TOY = "yo dude riff shred growl bro thrash yo"
METAL = "Yo bro, this is dope: blast Slayer and Megadeth, the riffs are insane."


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Yes.", "Yes."),
        (" <think>a</think> Yes.\n", "Yes."),
        ("a, so\nyes</think>\n\nYes.", "Yes."),  # the template pre-fills the opening tag
        ("<think>a<think>b</think>c</think>Yes.", "Yes."),
        ("<think>a</think>Yes. <think>b</think>No.", "Yes.  No."),
        ("a</think>Yes. <think>b", "Yes."),
        ("Yes. <think>a</think>", "Yes."),
        ("Yes. <think>a<think>b</think>c</think>No.", "No."),
        ("<think>a, so Yes.", ""),
        ("a</think>", ""),
        ("", ""),
    ],
)
def test_reasoning_is_stripped(response, answer):
    assert strip_reasoning(response) == answer


def test_with_a_pre_filled_opening_tag_everything_up_to_the_closing_tag_is_reasoning():
    assert strip_reasoning("a <think> b</think>Yes.", expected=True) == "Yes."


@pytest.mark.parametrize(
    ("task", "ground_truth", "good"),
    [
        ("personas", truth(noise=0.2), TOY),
        ("personas", truth("english", noise=0.2), METAL),
        ("movielens", FILMS, "The Matrix"),
        ("goodreads", REVIEW, REFERENCE),
    ],
)
def test_no_reward_reads_reasoning(task, ground_truth, good):
    compute_score = importlib.import_module(f"verl_pgrpo.rewards.{task}").compute_score

    def score(response):
        return compute_score(task, response, ground_truth, extra_info={})

    for reasoning in ("<think>hm</think>", "hm, so</think>\n\n", "Alien, never\n</think>"):
        assert score(reasoning + good) == pytest.approx(score(good)), "whether or not the opening tag is there"
    for hidden in (f"{good}</think>", f"<think>{good}</think>", f"<think>{good}"):
        assert score(hidden) == pytest.approx(score("")), "nothing was answered"
    assert score(good)["score"] > score("")["score"]


@pytest.mark.parametrize(
    ("text", "taste", "utility"),
    [
        (TOY, truth(), 1.0),
        ("yo " * 8, truth(), 0.5),  # style alone
        ("yo riff", truth(), 0.25),  # a short answer counts as eight words
        ("yo dude riff shred " * 3, truth(), 1.0),
        ("sonata violin kindly regards", truth(), 0.0),
        (METAL, truth("english"), 1.0),
        (METAL, truth("english", genre="jazz"), 0.5),
        (METAL, truth("english", style="formal", genre="jazz"), 0.0),
        ("I hear metal", truth("english"), 0.5 / 3),  # one word of three
        ("riff riff riff riff", truth("english"), 0.5 / 3),  # repeating is not more
        ("riff sonata", truth("english"), 0.5 / 3 / 2),  # two tastes at once please half
        ("griffin", truth("english"), 0.0),  # whole words only
        (METAL + " la" * (160 - len(METAL.split())), truth("english"), 0.5),  # twice as long as allowed
    ],
)
def test_utility_of_personas(text, taste, utility):
    assert personas.utility(text, taste) == pytest.approx(utility)


def test_a_persona_rates_on_its_own_scale_with_reproducible_noise():
    rows = [truth(noise=0.3, row=f"train/{i}") for i in range(4000)]
    draws = np.array([personas.noise("yo riff", row) for row in rows])
    assert abs(draws.mean()) < 4 * 0.3 / 4000**0.5
    assert draws.std() == pytest.approx(0.3, rel=0.05)
    assert np.mean(np.abs(draws) < 0.3) == pytest.approx(0.683, abs=0.03)
    assert len(set(draws)) == len(draws), "each row has its own"
    assert personas.noise(" yo  riff\n", rows[0]) == draws[0] != personas.noise("yo riff riff", rows[0])
    assert draws[0] == pytest.approx(0.40653626278838, abs=1e-12), "the same on every machine"
    assert personas.compute_score("x", "yo riff", rows[0]) == {"score": 1 + 4 * (0.25 + draws[0]), "utility": 0.25}


@pytest.mark.parametrize(
    ("texts", "score"),
    [
        (["Matrix, The (1999)", "The Matrix (1999).", "the matrix", ' "The Matrix"\n', "- Matrix, The"], 1.0),
        (["Aliens (1986)"], 0.9 * 0.3 + 0.1),
        (["Alien (1979)"], 0.9 * 0.1 + 0.1),
        (["Les Misérables"], 0.1),
        (["I think you watch The Matrix (1999) next."], 0.9),
        (["Heat (1995)", "Matrix, The (1999) or Alien (1979)", "\n".join(CANDIDATES), "Hamlet", "matr"], 0.0),
    ],
)
def test_films_in_any_spelling_get_credit_for_hit_genre_and_format(texts, score):
    for text in texts:
        found = movielens.compute_score("x", text, FILMS)
        assert found["score"] == pytest.approx(score), text
        assert (found["hit"], found["genre"], found["format"]) == (1, 1, 1) or score < 1


def test_a_review_is_scored_by_closeness_mood_and_length():
    def review(text, rating=5):
        return goodreads.compute_score("x", text, json.dumps({**json.loads(REVIEW), "rating": rating}))

    result = review("I loved this book. The end is quiet and the people are charming.")
    assert result["score"] == pytest.approx(result["length"] * (0.5 * result["closeness"] + 0.5 * result["sentiment"]))
    assert all(0 <= value <= 1 for value in result.values())
    assert review(REFERENCE)["closeness"] == 1.0
    praise, blame = "Wonderful and charming, I loved it so much.", "Awful and boring, I hated it so much."
    assert review(praise, 5)["sentiment"] > review(praise, 3)["sentiment"] > review(praise, 1)["sentiment"]
    assert review(blame, 1)["sentiment"] > review(blame, 3)["sentiment"] > review(blame, 5)["sentiment"]
    assert review("", 3)["score"] == 0.0
    assert review(REFERENCE + " the" * 200)["score"] < 0.3 * review(REFERENCE)["score"]
    for text, reference, f1 in (
        ("the cat sat", "The cat, sat.", 1.0),
        ("police killed the gunman", "police kill the gunman", 3 / 4),
        ("the gunman kill police", "police kill the gunman", 2 / 4),
        ("", "a", 0.0),
    ):
        assert goodreads.rouge_l(text, reference) == pytest.approx(f1), "the longest common subsequence"
