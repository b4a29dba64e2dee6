# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the MovieLens task "stars": the user's own stars for the film that the policy chose.

`ground_truth` is JSON: `{"stars": {"A": 4.0, "B": 2.5, ...}}`. The answer is a letter at the start of the response or
after "the answer is", "option" and the like, which at most eight other words may precede: "B", "(b)", "B. Heat (1995)",
"B (Heat)", "Final answer: B", "\\boxed{B}". Only the first 300 characters are read. Any other response is invalid and
scores 0, below the lowest rating of 0.5. So is a response that names a second candidate next to the first, after "or",
"then" and the like, or at the start of a line ("A or B", "(A) (B)", a copied list). Letters in titles and sentences do
not count ("B. Clockwork Orange, A", "B. It is better than A."), nor do words and titles ("A film", "A Few Good Men",
"E.T. the Extra-Terrestrial"). All letters are treated alike: "A Heat" could begin with an article, so "B Heat" is
invalid, too, and only words that never follow an article may follow a letter ("A is the best", "B because I like it").
The pronoun in "I would" is the only exception. Reasoning is not read.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Set
from functools import lru_cache
from typing import Any

from verl_pgrpo.rewards.reasoning import strip_reasoning

_READ = 300  # characters, so that a long response cannot block the reward worker
_QUOTES = r"*_\"'`\u2018\u2019\u201c\u201d\xab\xbb"  # and Markdown's marks
_OPEN = rf"(?:[\s{_QUOTES}(\[{{$>\u2022-]|\\[(\[]|\\boxed\{{|\\text\{{)*"
_CLOSE = rf"[\s{_QUOTES}).\]}}$?!]*"
_LEAD = rf"(?:(?:i|[a-z]{{2,}})[,.!:]?\s+){{0,8}}(?:answer|choice|option|letter)[\"'*]*(?:\s+is)?\s*[:=]?{_OPEN}"
# "A film" and "I like it" are no answers, but "A is the best" and "B may be" are: no article precedes these words, and
# no pronoun the first ones.
_NOT_I = r"because|by\s+far|deserves|fits|gets|has|is|looks|seems|since|sounds|suits|wins"
_VERB = rf"(?:{_NOT_I}|as|based|can|could|due|for|may|might|should|was|which|will|with|would)\b"
_WORD = rf"(?:(?<!i)\s+(?-i:(?={_VERB}))|\s+(?-i:(?=(?:{_NOT_I})\b)))"
_STOP = r"\s*\\?[)\]}$]|[:,!?;\u3002\u2013\u2014|/\n]|\.(?!\w)|\s*$|\s+[(\[\u2013\u2014-]"
_END = rf"(?:[{_QUOTES}]+(?!\w)|{_STOP}|{_WORD})"
_ANSWER = re.compile(rf"{_OPEN}(?:{_LEAD}){{0,2}}([a-z])(?={_END})", re.I)
_LETTER = rf"(?!(?-i:i\s+[a-z]|a\s+(?!{_VERB})[a-z]))([a-z])(?![\w'\u2019])"  # "B, a great film" names one
_BETWEEN = rf"[\s.,;:(){{}}\[\]$>{_QUOTES}-]"
_SECOND = [  # after the first letter
    re.compile(rf"\A{_CLOSE}(?:(?:[,/&|]|(?:or|and|then|no|wait|actually|maybe)\b){_OPEN})+{_LETTER}", re.I),
    re.compile(rf"\A{_BETWEEN}+([a-z])(?:{_BETWEEN}+[a-z])*{_BETWEEN}*\Z", re.I),  # "A B C", "A. B.", "(A) (B)"
    re.compile(rf"^{_OPEN}([a-z])(?:[.):]|\s*$)", re.I | re.M),
    re.compile(rf"(?:[,;]|\b(?:or|and))\s+{_OPEN}([a-z])[):](?!\w)", re.I),  # "A: Heat, B: Alien"
    re.compile(rf"\b(?:or|and)\s+{_OPEN}([a-z])\.(?!\w)", re.I),
    re.compile(rf"\b{_LEAD}([a-z])(?={_END})", re.I),  # "A. The answer is B"
]


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
        worst) over the candidates, 0 to 1 (1 if all are equal, 0 if invalid), comparable between users. `valid`: 1 if
        the answer is valid.
    """
    stars = _stars(ground_truth)
    letter = chosen_letter(strip_reasoning(solution_str, reasoning), stars.keys())
    if letter is None:
        return {"score": 0.0, "utility": 0.0, "valid": 0.0}
    chosen, worst, best = stars[letter], min(stars.values()), max(stars.values())
    return {"score": chosen, "utility": (chosen - worst) / (best - worst) if best > worst else 1.0, "valid": 1.0}


def chosen_letter(answer: str, candidates: Set[str]) -> str | None:
    """Return the letter of the candidate that the answer names, or None if it names no candidate or several."""
    answer = unicodedata.normalize("NFKC", answer[:_READ])
    match = _ANSWER.match(answer)
    if match is None:
        return None
    letter, rest = match[1].upper(), answer[match.end() :]
    named = {found.upper() for pattern in _SECOND for found in pattern.findall(rest)} & candidates
    return letter if letter in candidates and named <= {letter} else None


@lru_cache(maxsize=4096)
def _stars(ground_truth: str) -> dict[str, float]:
    stars = {letter: float(value) for letter, value in json.loads(ground_truth)["stars"].items()}
    if not stars or not all(map(math.isfinite, stars.values())):
        raise ValueError(f"ground_truth {ground_truth} must have a finite number of stars for each letter")
    return stars
