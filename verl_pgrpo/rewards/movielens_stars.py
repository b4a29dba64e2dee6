# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the MovieLens task "stars": the user's own stars for the film that the policy chose.

`ground_truth` is JSON: `{"stars": {"A": 4.0, "B": 2.5, ...}}`. The answer is a letter at the start of the response,
alone or followed by punctuation ("B", "(b)", "B. Heat (1995)", "Answer: B", "Option B", "\\boxed{B}"). Any other
response is invalid and scores 0, below the lowest rating of 0.5; so is one in which another candidate's letter follows
in such a form ("A) or B)", a copied list). A title that looks like an answer counts as one ("B. Monkey (1998)"), but
"E.T. the Extra-Terrestrial (1982)" does not: white space must follow the full stop. Reasoning is not read.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from verl_pgrpo.rewards.reasoning import strip_reasoning

_OPEN = r"(?:[\s*_\"'`(\[$]|\\boxed\{)*"
_CLOSE = r"[*_\"'`]*(?:\.[*_\"'`)\]}]*(?:\s|$)|[):\]},!?;]|\s*$|[ \t]*\n|\s+[-\u2013\u2014])"
_ANSWER = re.compile(rf"{_OPEN}(?:(?:the |my )?(?:answer|choice|option)(?: is)?:?{_OPEN})*([a-z]){_CLOSE}", re.I)
_INITIAL = r"\b(?-i:[A-Z]\w+ [A-Z]\. )"  # "Robert A. Heinlein" does not name another candidate
_LETTER = re.compile(rf"{_INITIAL}|(?<![\w.'\u2019-])([a-z]){_CLOSE}", re.I)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    reasoning: bool = False,
    **kwargs: object,
) -> dict[str, float]:
    """verl's custom reward function.

    Returns:
        `score`: the user's stars for the chosen film, 0 if the answer is invalid. `utility`: (stars - worst) / (best -
        worst) over the candidates, 0 to 1, 0 if invalid; comparable between users. `valid`: 1 if the answer is valid.
    """
    stars = _stars(ground_truth)
    letters = _letters(strip_reasoning(solution_str, reasoning))
    if not letters or letters[0] not in stars or len(stars.keys() & letters) > 1:
        return {"score": 0.0, "utility": 0.0, "valid": 0.0}
    chosen, worst, best = stars[letters[0]], min(stars.values()), max(stars.values())
    return {"score": chosen, "utility": (chosen - worst) / (best - worst), "valid": 1.0}


def _letters(answer: str) -> list[str]:
    """Return the letter at the start, and those that follow in the form of an answer; empty if it does not start so."""
    match = _ANSWER.match(answer)
    return [found.upper() for found in (match[1], *_LETTER.findall(answer, match.end(1)))] if match else []


@lru_cache(maxsize=4096)
def _stars(ground_truth: str) -> dict[str, float]:
    return {letter: float(stars) for letter, stars in json.loads(ground_truth)["stars"].items()}
