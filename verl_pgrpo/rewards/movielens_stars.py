# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Reward of the MovieLens task "stars": the user's own stars for the film that the policy chose.

`ground_truth` is JSON: `{"stars": {"A": 4.0, "B": 2.5, ...}}`. The answer is a letter at the start of the response,
alone or followed by punctuation ("B", "(b)", "B. Heat (1995)", "Answer: B"). Any other response is invalid and scores
0, below the lowest rating of 0.5. Reasoning is not read.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from verl_pgrpo.rewards.reasoning import strip_reasoning

_OPEN = r"[\s*_\"'`(\[]*"
_CLOSE = r"[*_\"'`]*(?:[.):\],]|\s*$|[ \t]*\n|\s+[-\u2013\u2014])"
_ANSWER = re.compile(rf"{_OPEN}(?:(?:the |my )?(?:answer|choice)(?: is)?:?{_OPEN})?([a-z]){_CLOSE}", re.I)


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
    match = _ANSWER.match(strip_reasoning(solution_str, reasoning))
    chosen = stars.get(match[1].upper()) if match else None
    if chosen is None:
        return {"score": 0.0, "utility": 0.0, "valid": 0.0}
    worst, best = min(stars.values()), max(stars.values())
    return {"score": chosen, "utility": (chosen - worst) / (best - worst), "valid": 1.0}


@lru_cache(maxsize=4096)
def _stars(ground_truth: str) -> dict[str, float]:
    return {letter: float(stars) for letter, stars in json.loads(ground_truth)["stars"].items()}
