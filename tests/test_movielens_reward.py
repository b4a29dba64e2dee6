# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The reward of the film task, as its docstring says."""

from __future__ import annotations

import json

import pytest

from verl_pgrpo.rewards.movielens import compute_score

TRUTH = json.dumps(
    {
        "answer": "Matrix, The (1999)",
        "candidates": {
            "Matrix, The (1999)": ["Action", "Sci-Fi"],
            "Alien (1979)": ["Horror", "Sci-Fi"],
            "Aliens (1986)": ["Action", "Sci-Fi"],
            "Misérables, Les (1995)": ["Drama"],
            "Hamlet (1990)": ["Drama"],
            "Hamlet (1996)": ["Drama"],
        },
    }
)


def score(text: str) -> dict[str, float]:
    return compute_score("movielens/g0", text, TRUTH, extra_info={})


@pytest.mark.parametrize(
    "text",
    [
        "Matrix, The (1999)",
        "The Matrix (1999)",
        "the matrix",
        ' "The Matrix"\n',
        "- Matrix, The",
        "<think>Alien?</think>Matrix, The (1999).",
    ],
)
def test_an_exact_hit_in_any_spelling_is_all(text: str) -> None:
    assert score(text) == {"score": 1.0, "hit": 1.0, "genre": 1.0, "format": 1.0}


def test_partial_credit_by_genre() -> None:
    assert score("Aliens (1986)") == pytest.approx({"score": 0.9 * 0.3 + 0.1, "hit": 0, "genre": 1, "format": 1})
    assert score("Alien (1979)") == pytest.approx({"score": 0.9 * 0.1 + 0.1, "hit": 0, "genre": 1 / 3, "format": 1})
    assert score("Les Misérables") == pytest.approx({"score": 0.1, "hit": 0, "genre": 0, "format": 1})


def test_a_title_within_talk_counts_without_the_format() -> None:
    assert score("I think you watch The Matrix (1999) next.") == pytest.approx(
        {"score": 0.9, "hit": 1, "genre": 1, "format": 0}
    )
    assert score("Aliens, of course!")["hit"] == 0


@pytest.mark.parametrize(
    "text",
    ["", "Heat (1995)", "Matrix, The (1999) or Alien (1979)", "Alien (1979)\nMatrix, The (1999)", "Hamlet", "matr"],
)
def test_nothing_for_no_film_or_for_several(text: str) -> None:
    assert score(text)["score"] == 0.0


def test_naming_every_candidate_earns_nothing() -> None:
    assert score("\n".join(json.loads(TRUTH)["candidates"]))["score"] == 0.0


def test_a_sure_genre_is_worth_less_than_a_fair_chance_of_the_film() -> None:
    assert score("Aliens (1986)")["score"] < 0.5 * score("The Matrix")["score"]
