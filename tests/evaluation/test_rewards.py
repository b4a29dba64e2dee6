# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The reward functions by rules, as their docstrings describe them."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
from scipy import stats

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
REVIEW = {"reference": REFERENCE, "rating": 5, "max_words": 40, "title": "T"}
TOY = "yo dude riff shred growl bro thrash yo"
METAL = "Yo bro, this is dope: blast Slayer and Megadeth, the riffs are insane."


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("a, so\nyes</think>\n\nYes.\n", "Yes."),  # the template pre-fills the opening tag
        ("<think>a<think>b</think>c</think>Yes.", "Yes."),
        ("<think>a</think>Yes. <think>b</think>No.", "Yes.  No."),
        ("a</think>Yes. <think>b", "Yes."),
        ("<think>a, so Yes.", ""),
    ],
)
def test_reasoning_is_stripped(response, answer):
    assert strip_reasoning(response) == answer


@pytest.mark.parametrize(
    ("task", "ground_truth", "good"),
    [
        ("personas", truth(noise=0.2), TOY),
        ("personas", truth("english", noise=0.2), METAL),
        ("movielens", FILMS, "The Matrix"),
        ("goodreads", json.dumps(REVIEW), REFERENCE),
    ],
)
def test_no_reward_reads_reasoning(task, ground_truth, good):
    compute_score = importlib.import_module(f"verl_pgrpo.rewards.{task}").compute_score

    def score(response, **options):
        return compute_score(task, response, ground_truth, extra_info={}, **options)

    assert score(good)["score"] > score("")["score"]
    for reasoning in ("<think>hm</think>", "Alien, never\n</think>"):
        assert score(reasoning + good) == pytest.approx(score(good)), "whether or not the opening tag is there"
    for hidden in (f"{good}</think>", f"<think>{good}"):
        assert score(hidden) == pytest.approx(score("")), "nothing was answered"
    # A template that pre-fills the opening tag:
    assert score(f"Alien <think>b</think>{good}", reasoning=True) == pytest.approx(score(good))
    assert score(good, reasoning=True) == pytest.approx(score(""))


@pytest.mark.parametrize(
    ("text", "taste", "utility"),
    [
        (TOY, truth(), 1.0),
        ("yo " * 8, truth(), 0.5),  # style alone
        ("yo riff", truth(), 0.25),  # a short answer counts as eight words
        ("sonata violin kindly regards", truth(), 0.0),
        (METAL, truth("english"), 1.0),
        (METAL, truth("english", genre="jazz"), 0.5),
        ("riff riff riff riff", truth("english"), 0.5 / 3),  # one word of three; repeating is not more
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
    assert stats.kstest(draws / 0.3, "norm").pvalue > 0.01
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


def test_a_whole_title_is_not_taken_for_the_short_form_of_another_film():
    for films in (["Heat (1995)", "Heat"], ["Heat", "Heat (1995)"]):
        truth = json.dumps({"answer": "Heat", "candidates": {film: ["Drama"] for film in films}})
        assert movielens.compute_score("x", "Heat", truth)["hit"] == 1
        assert movielens.compute_score("x", "Heat (1995)", truth)["hit"] == 0


def test_a_review_is_scored_by_closeness_mood_and_length():
    def review(text, rating=5):
        return goodreads.compute_score("x", text, json.dumps({**REVIEW, "rating": rating}))

    result = review("I loved this book. The end is quiet and the people are charming.")
    assert result["score"] == pytest.approx(result["length"] * (0.5 * result["closeness"] + 0.5 * result["sentiment"]))
    assert all(0 <= value <= 1 for value in result.values())
    assert review(REFERENCE)["closeness"] == 1.0
    for text, ratings in (("Wonderful, I loved it so much.", (5, 3, 1)), ("Awful, I hated it so much.", (1, 3, 5))):
        best, middle, worst = (review(text, rating)["sentiment"] for rating in ratings)
        assert best > middle > worst
    assert review("", 3)["score"] == 0.0
    assert review(REFERENCE + " the" * 200)["score"] < 0.3 * review(REFERENCE)["score"]
    longest_common = goodreads.rouge_l("The gunman: kill police", "police kill the gunman")
    assert longest_common == pytest.approx(2 / 4)
