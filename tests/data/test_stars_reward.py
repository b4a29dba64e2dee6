# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The reward of the MovieLens task "stars": which responses are a valid answer, and what they earn."""

from __future__ import annotations

import json

import pytest

from verl_pgrpo.rewards.movielens_stars import compute_score

TRUTH = json.dumps({"stars": {"A": 3.5, "B": 5.0, "C": 0.5, "D": 3.5, "E": 2.0}})
VALID = [
    "B", "b", " B\n", "B.", "(B)", "**B**", "B. Heat (1995)", "B) Heat", "B: Heat", "B - Heat", "B, as I like it",
    "Answer: B", "The answer is B.", "the answer is **B**", '"B"', "B\n\nI like it.", "<think>A or B?</think>B",
    "A it is.</think>B", "B!", "B?", "B;", "\\boxed{B}", "$\\boxed{B}$", "Option B", "The answer is option B.",
    "**B.** Heat", "(B.)", "B. E.T. the Extra-Terrestrial (1982)", "B. D.O.A. (1988)", "B. I'd say B.",
    "B. Edward D. Wood Jr. (1995)", "B. Monkey (1998)",
]  # fmt: skip
INVALID = [
    "", "F", "Heat (1995)", "A film that I like", "I choose B", "Because", "BB", "A B C D E", "<think>B", "1", "é",
    "E.T. the Extra-Terrestrial (1982)", "A.I. Artificial Intelligence (2001)", "D.O.A. (1988)", "a.m.", "A) or B)",
    "B, C", "A, B, C, D or E?", "B. Heat\nC. Alien", "B. Heat (1995) or C. Alien (1979)", "B\n\nC",
]  # fmt: skip


@pytest.mark.parametrize(("text", "valid"), [*((t, True) for t in VALID), *((t, False) for t in INVALID)])
def test_a_letter_at_the_start_is_an_answer_and_anything_else_is_invalid(text: str, valid: bool) -> None:
    assert compute_score("", text, TRUTH) == {"score": 5.0 * valid, "utility": 1.0 * valid, "valid": 1.0 * valid}


def test_utility_is_comparable_between_users() -> None:
    assert compute_score("", "C", TRUTH) == {"score": 0.5, "utility": 0.0, "valid": 1.0}
    generous = json.dumps({"stars": {"A": 4.0, "B": 5.0}})
    assert [compute_score("", letter, generous)["utility"] for letter in "AB"] == [0.0, 1.0]
    assert compute_score("", "E", TRUTH)["utility"] == pytest.approx(1.5 / 4.5)
